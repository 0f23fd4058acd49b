"""The composition root: the only module that sees a whole config. Reads top to bottom: commands, then their parts."""

from __future__ import annotations

import inspect
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import cxrcl
from cxrcl import assemble, checkpoint, config, distributed, restoring, run
from cxrcl.config import build
from cxrcl.data.dataset import TrainSet, probe_images
from cxrcl.data.loader import Collate, Feed
from cxrcl.data.manifest import Manifest
from cxrcl.data.order import GlobalBatches
from cxrcl.data.prompts import PromptSampler
from cxrcl.data.sources.base import Source
from cxrcl.data.splits import Splits
from cxrcl.data.texts import Texts
from cxrcl.data.transforms import RadiographTransform
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, DataError
from cxrcl.optim import Schedule
from cxrcl.tracking import FileTracker, Tracker
from cxrcl.trainer import Plan, Precision, Trainer
from cxrcl.trainer import evaluate as run_evaluator
from cxrcl.types import Classifies, EmbedsText, ImageEncoder, Objective, TextEncoder

Packages = Sequence[str]


@dataclass(frozen=True)
class Trained:
    """What a training run leaves behind."""

    folder: Path
    checkpoint: Path
    finished: bool
    steps: int
    seconds: float
    images_per_second: float
    evals: str | None  # what evaluate.py should be asked for, where its defaults do not suit the objective


@dataclass(frozen=True)
class Scored:
    """What an evaluation gives: figures by evaluator, and the facts that they depend on."""

    results: dict[str, dict[str, float]]
    facts: dict[str, str]


# --------------------------------------------------------------------------------------------------- commands


def train(
    values: Mapping[str, Any], evals_asked: Collection[str] = (), packages: Packages = config.OWN_PACKAGES
) -> Trained:
    """Pre-train, probe or fine-tune: one trainer, whatever the objective.

    Args:
        values: the composed config as plain containers.
        evals_asked: evaluators that the user named ("*": all of them): one that cannot run is an error, not a remark.
        packages: packages whose classes a config may name.

    Raises:
        UserError: one line, before any work starts.
    """
    cfg = config.parse(values, config.Train)
    trainer = cfg.trainer
    _check_nodes(cfg, packages)
    with distributed.start(cfg.device, cfg.timeout_minutes) as runtime:
        if trainer.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it only
            torch.use_deterministic_algorithms(True)
        start_from = checkpoint.load(Path(cfg.init_from).expanduser()) if cfg.init_from else None
        data = assemble.load_data(cfg.data, runtime, packages)
        reports = assemble.report_sampler(cfg.data.reports)
        prompts = build(cfg.prompts, PromptSampler, "prompts", packages=packages)

        def make_texts(part: Manifest) -> Texts:
            return Texts(part, cfg.data.text, reports, prompts)

        torch.manual_seed(cfg.seed)
        training = data.split("train")
        if not len(training):
            raise DataError("no row has the split train: nothing to train on")
        corpus = assemble.TrainingTexts(training, make_texts, prompts, runtime)
        if start_from is not None:
            corpus.known = start_from["config"]["model"].get("text_encoder", {}).get("definition")
        fingerprint = data.fingerprint()
        earlier = run.earlier_state(cfg.run_dir, values, fingerprint)
        nodes = {"objective": cfg.objective, "image_encoder": cfg.image_encoder, "text_encoder": cfg.text_encoder}
        if earlier is not None:  # towers as they were: a vocabulary is not learnt again
            nodes = earlier["config"]["model"]
        elif nodes["image_encoder"] is None and start_from is not None:
            nodes["image_encoder"] = start_from["config"]["model"]["image_encoder"]
        labels = torch.from_numpy(training.values)
        objective = assemble.build_model(nodes, data.labels, corpus, packages, labels, dict(cfg.freeze))
        if runtime.is_main:
            assemble.say_what_was_loaded(objective)
        if start_from is not None and earlier is None:
            restoring.init_from(objective, start_from, str(cfg.init_from), runtime)
        tokenizer = getattr(objective, "tokenizer", None) if objective.num_texts else None
        objective.to(runtime.device)
        if trainer.sync_batchnorm:
            objective = runtime.sync_batchnorm(objective)  # type: ignore[assignment]

        transform = assemble.build_transform(cfg.transform, objective, packages)
        training = assemble.usable_samples(training, objective, runtime)
        texts = make_texts(training) if objective.num_texts else None
        if texts is not None:
            assemble.check_texts(training, texts)
        dataset = TrainSet(
            training, transform, texts, cfg.data.unit, objective.num_views, objective.num_texts, cfg.seed
        )
        bad_fraction = cfg.data.max_bad_fraction
        plan = assemble.make_plan(trainer, cfg.seed, objective, len(dataset), runtime.world, bad_fraction)
        schedule = assemble.build_schedule(cfg.schedule, trainer, plan, packages)
        optimizer = assemble.build_optimizer(cfg.optimizer, objective, packages, trainer.layer_decay)
        prepare = assemble.prepare(transform, runtime)
        feed = Feed(cfg.data.num_workers, pin_memory=runtime.device.type == "cuda")
        if cfg.data.skip_bad_images and cfg.evals:
            data, _ = assemble.without_unreadable(data, cfg.splits, feed, runtime)
        splits = Splits(data, transform, make_texts, tokenizer, prepare, feed)
        evals = _with_rows(cfg.evals, splits, cfg.splits, evals_asked, runtime)
        evaluators = assemble.build_evaluators(
            evals, splits, objective, trainer.batch_size, packages, evals_asked, runtime
        )
        plan = assemble.with_selector(plan, cfg.trainer, evaluators, objective)
        probe_images(data, allowed=1 if bad_fraction else 0)

        context = {
            "config": _describe(values, objective, data.labels, fingerprint, prompts, cfg),
            "versions": _versions(),
        }
        folder = runtime.main_decides(lambda: run.choose_folder(cfg.run_dir, cfg.name))
        store = run.RunStore(folder, trainer.keep_best, earlier["best"] if earlier else ())
        tracker: Tracker = FileTracker(folder, trainer.log_every) if runtime.is_main else Tracker()
        precision = Precision(assemble.precision_name(trainer.precision, runtime.device), runtime.device)
        loop = Trainer(
            *(objective, optimizer, schedule, plan, precision, runtime, tracker, store, prepare, evaluators, context),
            why_unreadable=dataset.why_unreadable,
        )
        try:
            if earlier is not None:
                loop.restore(earlier)
            _say_first_lines(tracker, cfg, runtime, precision, dataset, plan, objective, folder, loop.done)
            # Accumulation takes several global batches a step.
            batches = GlobalBatches(
                len(dataset),
                trainer.batch_size,
                cfg.seed,
                loop.done * plan.accumulate,
                plan.total_steps * plan.accumulate,
                (runtime.rank, runtime.world),
            )
            finished = loop.done >= plan.total_steps or loop.fit(feed.batches(dataset, batches, Collate(tokenizer)))
        finally:
            feed.close()
            tracker.close()
        rate = loop.done * plan.batch_size * plan.accumulate / max(loop.seconds, 1e-9)
        return Trained(folder, store.chosen(), finished, loop.done, loop.seconds, rate, _scored_by(objective))


def evaluate(
    values: Mapping[str, Any], packages: Packages = config.OWN_PACKAGES, asked: Collection[str] = ("*",)
) -> Scored:
    """Score a checkpoint on the data it was trained on, or on other data.

    Raises:
        UserError: one line, before any work starts.
    """
    cfg = config.parse(values, config.Evaluate)
    with distributed.start(cfg.device, cfg.timeout_minutes) as runtime:
        state = checkpoint.load(Path(cfg.checkpoint).expanduser())
        stored = state["config"]
        model = restoring.restore_model(state, packages, runtime.device)
        data_cfg = config.parse(_overlaid(stored["data"], cfg.data), config.Data)
        data = assemble.load_data(data_cfg, runtime, packages)
        if isinstance(model.evaluated(), Classifies):
            data = data.with_labels(stored["labels"])
        transform = assemble.build_transform(stored["transform"], model, packages)
        reports = assemble.report_sampler(data_cfg.reports)
        prompts = build(
            {**stored["prompts"], "file": stored["prompt_sentences"]}, PromptSampler, "prompts", packages=packages
        )
        feed = Feed(data_cfg.num_workers)
        fingerprint, left_out = data.fingerprint(), dict[int, str]()
        if data_cfg.skip_bad_images:
            data, left_out = assemble.without_unreadable(data, cfg.splits, feed, runtime)
        splits = Splits(
            data,
            transform,
            lambda part: Texts(part, data_cfg.text, reports, prompts),
            getattr(model, "tokenizer", None),
            assemble.prepare(transform, runtime),
            feed,
        )
        for split in cfg.splits:
            if not splits.size(split):
                raise DataError(f"splits: no row has the split {split}; set splits=[...] to ones that the data has")
        evaluators = assemble.build_evaluators(cfg.evals, splits, model, cfg.batch_size, packages, asked, runtime)
        if not evaluators:
            raise ConfigError(
                "evals: no evaluator can run on this model and data; name some, such as evals=[linear_probe]"
            )
        precision = Precision(assemble.precision_name(stored["precision"], runtime.device), runtime.device)
        try:
            results = {name: run_evaluator(model, e, runtime, precision) for name, e in evaluators.items()}
        finally:
            feed.close()
        facts = {
            "checkpoint": str(cfg.checkpoint),
            "step": str(state["progress"]["step"]),
            "weights": "moving average" if "ema" in state else "as trained",
            "splits": " + ".join(cfg.splits),
            "images": str(sum(splits.size(split) for split in cfg.splits)),
            **({"left out, cannot be read": str(len(left_out))} if data_cfg.skip_bad_images else {}),
            "manifest": fingerprint,
            "uncertain labels": str(data_cfg.label_policy),
        }
        for name, evaluator in evaluators.items():
            facts[f"{name} rule"] = inspect.cleandoc(type(evaluator).__doc__ or "").split("\n")[0]
            if hasattr(evaluator, "file"):
                facts[f"{name} prompts"] = str(evaluator.file)
        return Scored(results, facts)


# ------------------------------------------------------------------------------------------- descriptions


def _scored_by(objective: Objective) -> str | None:
    """Features alone are scored by a probe."""
    model = objective.evaluated()
    return None if isinstance(model, Classifies | EmbedsText) else "linear_probe"


def _with_rows(
    evals: Mapping[str, Any], data: Splits, splits: Sequence[str], asked: Collection[str], runtime: Runtime
) -> Mapping[str, Any]:
    """The evaluators, or none with a remark when the data lacks a split that they score."""
    empty = [split for split in splits if not data.size(split)]
    if not empty or not evals:
        return evals
    message = f"no row has the split {', '.join(empty)}"
    if asked:
        raise DataError(f"splits: {message}; set splits=[...] to ones that the data has")
    if runtime.is_main:
        print(f"{message}: nothing is evaluated and the last checkpoint is the result", flush=True)
    return {}


def _check_nodes(cfg: config.Train, packages: Packages) -> None:
    """Every node against the signature of its class, before data are read or drawn."""
    node_bases: list[tuple[str, Mapping[str, Any] | None, type, tuple[str, ...], Packages]] = [
        ("prompts", cfg.prompts, PromptSampler, (), packages),
        ("transform", cfg.transform, RadiographTransform, ("spec",), packages),
        ("image_encoder", cfg.image_encoder, ImageEncoder, (), packages),
        ("text_encoder", cfg.text_encoder, TextEncoder, ("corpus",), packages),
        ("objective", cfg.objective, Objective, assemble.GIVEN_TO_OBJECTIVES, packages),
        ("optimizer", cfg.optimizer, torch.optim.Optimizer, ("params",), (*packages, *config.OPTIMIZER_PACKAGES)),
        ("schedule", cfg.schedule, Schedule, ("total_steps", "warmup_steps"), packages),
    ]
    offered = assemble.GIVEN_TO_EVALUATORS
    node_bases += [(f"evals.{k}", node, object, offered, packages) for k, node in cfg.evals.items()]
    node_bases += [(f"data.sources.{k}", node, Source, (), packages) for k, node in cfg.data.sources.items()]
    for where, node, base, given, allowed in node_bases:
        if node is not None:
            config.bind(node, base, where, dict.fromkeys(given), allowed)
    assemble.check_folders(cfg.objective, cfg.image_encoder, cfg.text_encoder, packages)


def _overlaid(stored: Mapping[str, Any], given: config.EvaluateData) -> dict[str, Any]:
    """The data settings of training, with what the user set for this evaluation laid over."""
    values = {key: value for key, value in given.model_dump().items() if value is not None and key != "sources"}
    if given.root is not None or given.sources:
        # Other data: filters of the training data mean nothing there.
        values = {"filter": {}, "views": None, **values, "sources": given.sources, "root": given.root}
    return {**stored, **values}


def _describe(
    values: Mapping[str, Any],
    objective: Objective,
    labels: Sequence[str],
    fingerprint: str,
    prompts: PromptSampler,
    cfg: config.Train,
) -> dict[str, Any]:
    """Plain values that rebuild model, preprocessing and data from a checkpoint alone."""
    children = objective.named_children()
    towers = {name: part.node() for name, part in children if isinstance(part, ImageEncoder | TextEncoder)}
    return {
        "settings": dict(values),
        "fingerprint": fingerprint,
        "model": {"objective": dict(cfg.objective), **towers},
        "labels": list(labels),
        "evaluated": restoring.evaluated_part(objective),
        "data": _with_absolute_roots(cfg.data.model_dump()),
        "transform": dict(cfg.transform),
        "prompts": dict(cfg.prompts),
        "prompt_sentences": prompts.prompts,
        "precision": cfg.trainer.precision,
    }


def _with_absolute_roots(data: dict[str, Any]) -> dict[str, Any]:
    """So that a checkpoint finds its data from any working directory."""

    def absolute(node: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if node is None or not isinstance(node.get("root"), str):
            return None if node is None else dict(node)
        return {**node, "root": str(Path(node["root"]).expanduser().absolute())}

    sources = {name: absolute(node) for name, node in data["sources"].items()}
    return {**(absolute(data) or data), "sources": sources}


def _versions() -> dict[str, str]:
    return {"cxrcl": cxrcl.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _say_first_lines(
    tracker: Tracker,
    cfg: config.Train,
    runtime: Runtime,
    precision: Precision,
    dataset: TrainSet,
    plan: Plan,
    objective: Objective,
    folder: Path,
    done: int,
) -> None:
    device = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "CPU"
    numbers = str(precision.dtype or torch.float32).removeprefix("torch.")
    count = sum(p.numel() for p in objective.parameters())
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    parameters = f"{count / 1e6:.1f} M parameters"
    if trained < count:
        parameters = f"{trained / 1e6:.1f} of {parameters} trained"
    tracker.say(
        f"{cfg.name}: {runtime.world} x {device}, {numbers}, {parameters}; "
        f"{len(dataset)} {'studies' if cfg.data.unit == 'study' else 'images'}"
        f"{f' ({dataset.dropped} without a text dropped)' if dataset.dropped else ''}, "
        f"batch {plan.batch_size}{f' x {plan.accumulate}' if plan.accumulate > 1 else ''}, "
        f"{plan.steps_per_epoch} steps an epoch, {plan.total_steps} steps"
    )
    if done >= plan.total_steps:
        tracker.say(f"already complete: {folder}")
    else:
        tracker.say(f"{'goes on at step ' + str(done) + ' in' if done else 'writes to'} {folder}")
