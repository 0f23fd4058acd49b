"""The composition root: the only module that sees a whole config. Reads top to bottom: commands, then their parts."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

import cxrcl
from cxrcl import (
    assemble,
    checkpoint,
    checkpoint_files,
    config,
    distributed,
    evaluating,
    evaluators,
    features,
    mixture,
    restoring,
    run,
)
from cxrcl.config import build
from cxrcl.data import exposure
from cxrcl.data.dataset import TrainSet, probe_images
from cxrcl.data.fractions import write_index
from cxrcl.data.known import KnownSplits
from cxrcl.data.loader import Collate, Feed
from cxrcl.data.manifest import Manifest
from cxrcl.data.order import GlobalBatches
from cxrcl.data.prompts import PromptSampler, fill
from cxrcl.data.sources.base import Source
from cxrcl.data.splits import Splits
from cxrcl.data.texts import Texts
from cxrcl.data.transforms import RadiographTransform
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, DataError
from cxrcl.evaluating import Checked
from cxrcl.evaluation.look import Evaluator
from cxrcl.evaluation.page.parts import Page
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.objectives.base import Objective
from cxrcl.optim import Schedule
from cxrcl.tracking import FileTracker, Tracker
from cxrcl.trainer import Plan, Precision, Trainer
from cxrcl.types import Classifies, EmbedsText

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
    """What an evaluation gives: figures of the first checkpoint by evaluator, what they depend on, and the report."""

    results: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, str]
    page: Page | None  # in the main process


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
        prompts = build(cfg.prompts, PromptSampler, "prompts", packages=packages)
        sources = mixture.build_sources(cfg.data, packages)
        prompts_of_sources = mixture.prompts_of(cfg.prompts, sources, packages)
        films = assemble.how_films_are_read(cfg.data, packages)
        data = assemble.load_data(cfg.data, runtime, packages)
        reports = assemble.report_sampler(cfg.data.reports)

        def make_texts(part: Manifest) -> Texts:
            return Texts(part, cfg.data.text, reports, prompts_of_sources)

        torch.manual_seed(cfg.seed)
        training = data.split("train")
        if not len(training):
            raise DataError("no row has the split train: nothing to train on")
        corpus = assemble.TrainingTexts(training, make_texts, prompts_of_sources, runtime)
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
        if cfg.data.cache_features:
            features.check(objective, transform)
        training = assemble.usable_samples(training, objective, runtime)
        texts = make_texts(training) if objective.num_texts else None
        if texts is not None:
            assemble.check_texts(training, texts)
        dataset = TrainSet(
            training, transform, texts, cfg.data.unit, objective.num_views, objective.num_texts, cfg.seed, films
        )
        order, epoch_of = mixture.training_order(sources, training, dataset.items, cfg.seed)
        bad_fraction = cfg.data.max_bad_fraction
        trainer = assemble.lowered_batch_size(trainer, len(dataset), runtime)
        plan = assemble.make_plan(trainer, cfg.seed, objective, len(dataset), runtime.world, bad_fraction)
        schedule = assemble.build_schedule(cfg.schedule, trainer, plan, packages)
        factors = (trainer.layer_decay, trainer.encoder_lr_factor)
        optimizer = assemble.build_optimizer(cfg.optimizer, objective, packages, *factors)
        prepare = assemble.prepare(transform, runtime)
        feed = Feed(cfg.data.num_workers, pin_memory=runtime.device.type == "cuda")
        if cfg.data.skip_bad_images and cfg.evals:
            data, _ = assemble.without_unreadable(data, cfg.splits, feed, runtime, films)
        splits = Splits(data, transform, make_texts, tokenizer, prepare, feed, films)
        evals = _with_rows(cfg.evals, splits, cfg.splits, evals_asked, runtime)
        evaluation = evaluators.build_evaluators(
            evals, splits, objective, trainer.batch_size, packages, evals_asked, runtime
        )
        plan = evaluators.with_selector(plan, cfg.trainer, evaluation.evaluators, objective)
        in_use = data.rows["split"].isin(["train", *(cfg.splits if evals else ())])
        probe_images(data.take(in_use.to_numpy()), max_bad_fraction=bad_fraction, films=films)

        context = {
            "config": {
                **_describe(values, objective, data.labels, fingerprint, prompts, cfg),
                "data": _rebuildable({**cfg.data.model_dump(), "read_px": films.read_px}, prompts_of_sources),
            },
            "versions": _versions(),
            "exposure": _exposure(training, start_from),
            "initial": assemble.prompt_directions(objective, data.labels, runtime.device)
            if earlier is None
            else earlier["initial"],
        }
        folder = runtime.main_decides(lambda: run.choose_folder(cfg.run_dir, cfg.name))
        if runtime.is_main and (cfg.data.split_lists or mixture.fractions_of(sources, cfg.data.fraction)):
            write_index(folder / "training_films.csv", training, data, cfg.splits if evals else ())
        store = run.RunStore(folder, trainer.keep_best, earlier["best"] if earlier else ())
        tracker: Tracker = FileTracker(folder, trainer.log_every) if runtime.is_main else Tracker()
        precision = Precision(assemble.precision_name(trainer.precision, runtime.device), runtime.device)
        loop = Trainer(
            *(objective, optimizer, schedule, plan, precision, runtime, tracker, store, prepare, evaluation, context),
            why_unreadable=dataset.why_unreadable,
        )
        try:
            if earlier is not None:
                loop.restore(earlier)
            _say_first_lines(tracker, cfg, runtime, precision, dataset, plan, objective, folder, loop)
            if films.read_px is not None and films.read_px < transform.needed_side_px():
                tracker.say(
                    f"films are read at {films.read_px} px and the smallest crops need {transform.needed_side_px()}: "
                    "these are enlarged (data.read_px)"
                )
            if len(sources) > 1:
                tracker.say(f"an epoch takes {epoch_of} (samples x times)")
            # Accumulation takes several global batches a step.
            batches = GlobalBatches(
                len(dataset),
                trainer.batch_size,
                cfg.seed,
                loop.done * plan.accumulate,
                plan.total_steps * plan.accumulate,
                (runtime.rank, runtime.world),
                order,
            )
            if loop.complete:
                finished = True
            else:
                reads = feed
                if cfg.data.cache_features:
                    paths = features.films_of(training, data, cfg.splits if evals else ())
                    known = features.encode_once(
                        objective, paths, transform, films, feed, prepare, runtime, precision, trainer.batch_size
                    )
                    dataset.known, evaluation.data = known, KnownSplits(splits, known)
                    reads = Feed(0)  # rows of memory need no workers
                table = None
                if texts is not None and tokenizer is not None and cfg.data.cache_tokens:
                    table = assemble.token_table(texts, tokenizer, runtime)
                finished = loop.fit(reads.batches(dataset, batches, Collate(tokenizer, table)))
        finally:
            feed.close()
            tracker.close()
        rate = loop.done * plan.batch_size * plan.accumulate / max(loop.seconds, 1e-9)
        return Trained(folder, store.chosen(), finished, loop.done, loop.seconds, rate, _scored_by(objective))


def evaluate(
    values: Mapping[str, Any],
    packages: Packages = config.OWN_PACKAGES,
    asked: Collection[str] = ("*",),
    command: str = "",
) -> Scored:
    """Score checkpoints on the data they were trained on, or on other data.

    Raises:
        UserError: one line, before any work starts.
    """
    cfg = config.parse(values, config.Evaluate)
    files = checkpoint_files.find_checkpoints(cfg.checkpoint)
    if not cfg.splits or len(set(cfg.splits)) < len(cfg.splits):
        raise ConfigError(f"splits={cfg.splits}: name one split or more, and each once")
    if cfg.ensemble and len(files) < 2:
        raise ConfigError("ensemble=true: needs two checkpoints or more: 'checkpoint=[a.pt,b.pt]'")
    with distributed.start(cfg.device, cfg.timeout_minutes) as runtime:
        checked: list[Checked] = []
        for file, name in zip(files, checkpoint_files.names_of(files), strict=True):
            untrained = cfg.random_weights and not checked
            checked += evaluating.check(file, name, cfg, runtime, packages, asked, untrained)
        settings = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
        # The other processes have the same figures, and nothing to write.
        page = evaluating.page(checked, cfg, command, settings) if runtime.is_main else None
        return Scored(checked[0].part.figures, {**checked[0].part.facts, **checked[0].facts}, page)


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
    offered = evaluators.GIVEN_TO_EVALUATORS
    node_bases += [(f"evals.{k}", node, Evaluator, offered, packages) for k, node in cfg.evals.items()]
    node_bases += [(f"data.sources.{k}", node, Source, (), packages) for k, node in cfg.data.sources.items()]
    for where, node, base, given, allowed in node_bases:
        if node is not None:
            config.bind(node, base, where, dict.fromkeys(given), allowed)
    assemble.check_folders(cfg.objective, cfg.image_encoder, cfg.text_encoder, packages)


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
        "transform": dict(cfg.transform),
        "prompts": dict(cfg.prompts),
        "prompt_sentences": {**prompts.prompts, **fill(prompts.prompts, labels)},
        "precision": cfg.trainer.precision,
    }


def _exposure(training: Manifest, start_from: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the model will have seen, as tensors and plain values."""
    seen = exposure.of(training, None if start_from is None else start_from.get("exposure"))
    return {**seen, "films": torch.from_numpy(seen["films"])}


def _rebuildable(data: dict[str, Any], prompts: PromptSampler | Mapping[str, PromptSampler]) -> dict[str, Any]:
    """Data settings with absolute folders and the sentences of the sources: they hold from any working directory."""

    def absolute(node: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if node is None:
            return None
        folders = {key: node[key] for key in ("root", "store", "split_lists") if isinstance(node.get(key), str)}
        return {**node, **{key: str(Path(folder).expanduser().absolute()) for key, folder in folders.items()}}

    sources = {name: absolute(node) for name, node in data["sources"].items()}
    return {**(absolute(data) or data), "sources": mixture.with_sentences(sources, prompts)}


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
    loop: Trainer,
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
    if loop.complete:
        tracker.say(f"already complete: {folder}")
    else:
        tracker.say(f"{'goes on at step ' + str(loop.done) + ' in' if loop.done else 'writes to'} {folder}")
