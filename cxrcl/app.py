"""The composition root: the only module that sees a whole config. Reads top to bottom: commands, then their parts."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import cxrcl
from cxrcl import checkpoint, config, distributed, run
from cxrcl.config import build, wants
from cxrcl.data import manifest as manifests
from cxrcl.data import prompts as prompt_files
from cxrcl.data.dataset import GlobalBatches, Texts, TrainSet, probe_images
from cxrcl.data.image_io import ImageError, read_gray
from cxrcl.data.labels import apply_policy
from cxrcl.data.loader import Collate, Feed
from cxrcl.data.manifest import Manifest
from cxrcl.data.prompts import PromptSampler
from cxrcl.data.reports import ReportSampler
from cxrcl.data.sources.base import Source
from cxrcl.data.splits import Splits
from cxrcl.data.transforms import RadiographTransform
from cxrcl.distributed import Runtime
from cxrcl.errors import CheckpointError, ConfigError, DataError
from cxrcl.evaluation.readers import ClassifierReader, Reader, ZeroShotReader
from cxrcl.optim import Schedule, parameter_groups
from cxrcl.tracking import FileTracker, Tracker
from cxrcl.trainer import Plan, Precision, Trainer
from cxrcl.trainer import evaluate as run_evaluator
from cxrcl.types import Batch, Classifies, Evaluator, ImageEncoder, Objective, TextEncoder

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


@dataclass(frozen=True)
class Scored:
    """What an evaluation gives: figures by evaluator, and the facts that they depend on."""

    results: dict[str, dict[str, float]]
    facts: dict[str, str]


# --------------------------------------------------------------------------------------------------- commands


def train(values: Mapping[str, Any], evals_asked: bool = False, packages: Packages = config.OWN_PACKAGES) -> Trained:
    """Pre-train, probe or fine-tune: one trainer, whatever the objective.

    Args:
        values: the composed config as plain containers.
        evals_asked: the user named the evaluators: one that cannot run is then an error and not a remark.
        packages: packages whose classes a config may name.

    Raises:
        UserError: one line, before any work starts.
    """
    cfg = config.parse(values, config.Train)
    trainer = cfg.trainer
    with distributed.start(cfg.device, cfg.timeout_minutes) as runtime:
        if trainer.deterministic:
            torch.use_deterministic_algorithms(True)
        data = _load_data(cfg.data, runtime, packages)
        reports = ReportSampler(**_renamed(cfg.data.reports.model_dump(), sentences="num_sentences"))
        prompts = build(cfg.prompts, PromptSampler, "prompts", packages=packages)
        start_from = checkpoint.load(Path(cfg.init_from).expanduser()) if cfg.init_from else None

        def make_texts(part: Manifest) -> Texts:
            return Texts(part, cfg.data.text, reports, prompts)

        torch.manual_seed(cfg.seed)
        training = data.split("train")
        if not len(training):
            raise DataError("no row has the split train: nothing to train on")
        corpus = _TrainingTexts(training, make_texts, prompts, runtime)
        nodes = {"objective": cfg.objective, "image_encoder": cfg.image_encoder, "text_encoder": cfg.text_encoder}
        if nodes["image_encoder"] is None and start_from is not None:
            nodes["image_encoder"] = start_from["config"]["model"]["image_encoder"]
        objective = _build_model(nodes, data.labels, corpus, packages)
        if start_from is not None:
            _init_from(objective, start_from, str(cfg.init_from), runtime)
        tokenizer = getattr(objective, "tokenizer", None) if objective.num_texts else None
        objective.to(runtime.device)
        if trainer.sync_batchnorm:
            objective = runtime.sync_batchnorm(objective)  # type: ignore[assignment]

        spec = objective.image_encoder.spec  # type: ignore[union-attr]
        transform = build(cfg.transform, RadiographTransform, "transform", {"spec": spec}, packages)
        texts = make_texts(training) if objective.num_texts else None
        dataset = TrainSet(
            training, transform, texts, cfg.data.unit, objective.num_views, objective.num_texts, cfg.seed
        )
        plan = _plan(cfg, objective, len(dataset))
        schedule = _build_schedule(cfg, plan, packages)
        optimizer = _build_optimizer(cfg.optimizer, objective, packages)
        prepare = _prepare(transform, runtime)
        feed = Feed(cfg.data.num_workers, pin_memory=runtime.device.type == "cuda")
        splits = Splits(data, transform, make_texts, tokenizer, prepare, feed)
        evaluators = _build_evaluators(cfg.evals, splits, objective, trainer.batch_size, packages, evals_asked, runtime)
        plan = _with_selector(plan, cfg.trainer, evaluators)
        probe_images(data)

        context = {"config": _describe(values, objective, data, prompts, cfg), "versions": _versions()}
        folder = runtime.main_decides(lambda: run.choose_folder(cfg.run_dir, cfg.name))
        earlier = run.earlier_state(folder, context["config"]["settings"], context["config"]["fingerprint"])
        store = run.RunStore(folder, trainer.keep_best, earlier["best"] if earlier else ())
        tracker: Tracker = FileTracker(folder, trainer.log_every) if runtime.is_main else Tracker()
        precision = Precision(_precision(trainer.precision, runtime.device), runtime.device)
        loop = Trainer(
            objective, optimizer, schedule, plan, precision, runtime, tracker, store, prepare, evaluators, context
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
        return Trained(folder, store.chosen(), finished, loop.done, loop.seconds, rate)


def evaluate(values: Mapping[str, Any], packages: Packages = config.OWN_PACKAGES, asked: bool = True) -> Scored:
    """Score a checkpoint on the data it was trained on, or on other data.

    Raises:
        UserError: one line, before any work starts.
    """
    cfg = config.parse(values, config.Evaluate)
    with distributed.start(cfg.device, cfg.timeout_minutes) as runtime:
        state = checkpoint.load(Path(cfg.checkpoint).expanduser())
        stored = state["config"]
        model = restore_model(state, packages).to(runtime.device)
        data_cfg = config.parse(_overlaid(stored["data"], cfg.data), config.Data)
        data = _load_data(data_cfg, runtime, packages)
        if isinstance(model, Classifies):
            data = data.with_labels(stored["labels"])
        spec = model.image_encoder.spec  # type: ignore[union-attr]
        transform = build(stored["transform"], RadiographTransform, "transform", {"spec": spec}, packages)
        reports = ReportSampler(**_renamed(data_cfg.reports.model_dump(), sentences="num_sentences"))
        prompts = build({**stored["prompts"], "file": stored["prompt_sentences"]}, PromptSampler, "prompts")
        feed = Feed(data_cfg.num_workers)
        splits = Splits(
            data,
            transform,
            lambda part: Texts(part, data_cfg.text, reports, prompts),
            getattr(model, "tokenizer", None),
            _prepare(transform, runtime),
            feed,
        )
        for split in cfg.splits:
            if not splits.size(split):
                raise DataError(f"splits: no row has the split {split}; set splits=[...] to ones that the data has")
        evaluators = _build_evaluators(cfg.evals, splits, model, cfg.batch_size, packages, asked, runtime)
        if not evaluators:
            raise ConfigError("evals: no evaluator can run on this model and data; name some with evals=[...]")
        precision = Precision(_precision(stored["precision"], runtime.device), runtime.device)
        try:
            results = {name: run_evaluator(model, e, runtime, precision) for name, e in evaluators.items()}
        finally:
            feed.close()
        facts = {
            "checkpoint": str(cfg.checkpoint),
            "step": str(state["progress"]["step"]),
            "splits": " + ".join(cfg.splits),
            "images": str(sum(splits.size(split) for split in cfg.splits)),
            "manifest": data.fingerprint(),
            "uncertain labels": str(data_cfg.label_policy),
        }
        for name, evaluator in evaluators.items():
            facts[f"{name} rule"] = inspect.cleandoc(type(evaluator).__doc__ or "").split("\n")[0]
            if hasattr(evaluator, "file"):
                facts[f"{name} prompts"] = str(evaluator.file)
        return Scored(results, facts)


@dataclass(frozen=True)
class Read:
    """Probabilities of each image, and the rule behind them."""

    images: list[dict[str, Any]]  # {image, probabilities: {label: float}} or {image, error}
    rule: str


def predict(
    path: Path,
    images: Sequence[Path],
    prompts: str | None = None,
    device: str = "auto",
    batch_size: int = 32,
    packages: Packages = config.OWN_PACKAGES,
) -> Read:
    """Label probabilities of image files. A file that cannot be read becomes an entry with the reason.

    Raises:
        UserError: a checkpoint or prompts file that cannot be used.
    """
    with distributed.start(device) as runtime:
        state = checkpoint.load(path.expanduser())
        stored = state["config"]
        model = restore_model(state, packages).to(runtime.device)
        spec = model.image_encoder.spec  # type: ignore[union-attr]
        transform = build(stored["transform"], RadiographTransform, "transform", {"spec": spec}, packages)
        precision = Precision(_precision(stored["precision"], runtime.device), runtime.device)
        with torch.no_grad(), precision.autocast():
            score = _reader(model, stored, prompts, runtime)
            entries: list[dict[str, Any]] = []
            for start in range(0, len(images), batch_size):
                chunk = list(images[start : start + batch_size])
                films = [_film(image, transform) for image in chunk]
                good = [film for film in films if not isinstance(film, str)]
                rows: Iterator[dict[str, float]] = iter(())
                if good:
                    batch = Batch(torch.from_numpy(np.stack(good)), None, None, torch.empty(0), torch.empty(0))
                    ready = _prepare(transform, runtime)(batch).images
                    assert ready is not None
                    rows = iter(score.run(ready[:, 0]))
                for image, film in zip(chunk, films, strict=True):
                    entries.append({"image": str(image)})
                    entries[-1] |= {"error": film} if isinstance(film, str) else {"probabilities": next(rows)}
        return Read(entries, score.rule)


def _film(path: Path, transform: RadiographTransform) -> np.ndarray | str:
    """uint8 [1, 1, S, S], or why the file cannot be read."""
    try:
        return transform.geometry(read_gray(path, transform.spec.size), None)[None, None]
    except ImageError as error:
        return str(error)


def _reader(model: Objective, stored: Mapping[str, Any], prompts: str | None, runtime: Runtime) -> Reader:
    if isinstance(model, Classifies):
        if prompts is not None:
            raise ConfigError("--prompts: this checkpoint is a classifier and reads no text")
        return ClassifierReader(model, stored["labels"])
    if prompts is not None:
        try:
            sentences = prompt_files.load(prompts)
        except ValueError as error:
            raise ConfigError(f"--prompts: {error}") from None
        labels = [name for name, kinds in sentences.items() if kinds.get("neg")]
        if not labels:
            raise ConfigError(f"--prompts {prompts}: no label has `neg` sentences: a probability needs both sides")
    else:
        # The shipped sentences, and for labels of the user's own those that training used.
        sentences = {**stored["prompt_sentences"], **prompt_files.load("zero_shot.json")}
        labels = [name for name in stored["labels"] if sentences.get(name, {}).get("neg")]
        labels = labels or list(prompt_files.load("zero_shot.json"))
    return ZeroShotReader(model, sentences, labels, runtime.device)  # type: ignore[arg-type]


def restore_model(state: Mapping[str, Any], packages: Packages = config.OWN_PACKAGES) -> Objective:
    """The model of a checkpoint with its weights, in evaluation mode: no other file, no network.

    Raises:
        CheckpointError: the weights do not fit the stored architecture in every tensor.
    """
    stored = state["config"]
    model = _build_model(stored["model"], stored["labels"], None, packages)
    report = checkpoint.lay_in(model, state["model"])
    if report.missing or report.unexpected or report.mismatched:
        raise CheckpointError(f"the weights do not fit the stored architecture: {report}")
    return model.eval()


# -------------------------------------------------------------------------------------------------- data


def _load_data(cfg: config.Data, runtime: Runtime, packages: Packages) -> Manifest:
    sources: dict[str, Mapping[str, Any]] = {name: node for name, node in cfg.sources.items() if node is not None}
    if cfg.root is not None:
        if len(sources) > 1:
            raise ConfigError(
                f"data.root={cfg.root} stands for one source, but data has {', '.join(sources)}: "
                "set data.sources.<name>.root of each instead"
            )
        sources = {"root": {"_target_": "cxrcl.data.sources.base.Source", "root": cfg.root}}
    if not sources:
        raise ConfigError("data: no source; choose one with data=<name>, or give a folder with data.root=DIR")
    parts = {}
    for name, node in sources.items():
        source = build(node, Source, f"data.sources.{name}", packages=packages)
        root = runtime.main_decides(source.prepare)
        parts[name] = manifests.load(root, cfg.labels, cfg.allow_outside_root, cfg.check_patients)
    data = manifests.select(manifests.merge(parts), cfg.views, cfg.filter)
    if cfg.labels is not None:
        absent = [name for name in cfg.labels if name not in data.labels]
        if absent:
            raise DataError(
                f"data.labels: no such column: {', '.join(absent)}; label columns: {', '.join(data.labels)}"
            )
        data = data.with_labels(cfg.labels)
    try:
        return Manifest(data.rows, data.labels, apply_policy(data.values, data.labels, cfg.label_policy))
    except ValueError as error:
        raise ConfigError(f"data.{error}") from None


class _TrainingTexts:
    """Implements `cxrcl.types.Corpus`."""

    def __init__(
        self, training: Manifest, make: Callable[[Manifest], Texts], prompts: PromptSampler, runtime: Runtime
    ) -> None:
        self.training, self.make, self.prompts, self.runtime = training, make, prompts, runtime

    def learn(self, fit: Callable[[Iterable[str]], str]) -> str:
        return self.runtime.main_decides(lambda: fit(self._texts()))

    def _texts(self) -> Iterator[str]:
        texts = self.make(self.training)
        yield from (texts.make(row, None) for row in range(len(self.training)))
        for label in self.training.labels:
            for sentences in self.prompts.prompts.get(label, {}).values():
                yield from sentences


def _prepare(transform: RadiographTransform, runtime: Runtime) -> Callable[[Batch], Batch]:
    return lambda batch: transform.finish(batch.to(runtime.device))


def _overlaid(stored: Mapping[str, Any], given: config.EvaluateData) -> dict[str, Any]:
    """The data settings of training, with what the user set for this evaluation laid over."""
    values = {key: value for key, value in given.model_dump().items() if value is not None and key != "sources"}
    if given.root is not None or given.sources:
        # Other data: filters of the training data mean nothing there.
        values = {"filter": {}, "views": None, **values, "sources": given.sources, "root": given.root}
    return {**stored, **values}


def _renamed(values: dict[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}


# ------------------------------------------------------------------------------------------------- model


def _build_model(
    nodes: Mapping[str, Any], labels: Sequence[str], corpus: _TrainingTexts | None, packages: Packages
) -> Objective:
    """Towers that the objective asks for, then the objective."""
    asked = wants(nodes["objective"], Objective, "objective", packages)
    given: dict[str, Any] = {"labels": tuple(labels)}
    bases: dict[str, type[nn.Module]] = {"image_encoder": ImageEncoder, "text_encoder": TextEncoder}
    for name, base in bases.items():
        if name not in asked:
            continue
        if nodes.get(name) is None:
            raise ConfigError(f"{name}: the objective needs one; choose it with {name}=<name>")
        given[name] = build(nodes[name], base, name, {"corpus": corpus}, packages)
    return build(nodes["objective"], Objective, "objective", given, packages)


def _init_from(objective: Objective, state: Mapping[str, Any], name: str, runtime: Runtime) -> None:
    """Weights of another run; each of its towers that this model has must match in every tensor."""
    towers = [key for key, _ in objective.named_children() if key.endswith("_encoder")]
    taken = dict(state["model"])
    report = checkpoint.lay_in(objective, taken)
    if runtime.is_main:
        print(f"init_from {name}: {report}", flush=True)
    own = objective.state_dict()
    for tower in towers:
        keys = [key for key in own if key.startswith(f"{tower}.")]
        there = [key for key in keys if key in taken and taken[key].shape == own[key].shape]
        if any(key.startswith(f"{tower}.") for key in taken) and len(there) < len(keys):
            raise ConfigError(
                f"init_from={name}: only {len(there)} of {len(keys)} tensors of {tower} match: "
                f"the architectures differ; set {tower}=... to that of the checkpoint"
            )
    if report.matched == 0:
        raise ConfigError(f"init_from={name}: no tensor matches this model")


def _build_optimizer(node: config.Node, objective: Objective, packages: Packages) -> torch.optim.Optimizer:
    groups = parameter_groups(objective, float(node.get("weight_decay") or 0.0))
    allowed = (*config.OPTIMIZER_PACKAGES, *packages)
    return build(node, torch.optim.Optimizer, "optimizer", {"params": groups}, allowed)


def _build_schedule(cfg: config.Train, plan: Plan, packages: Packages) -> Schedule:
    t = cfg.trainer
    warmup = config.steps(t.warmup_steps, t.warmup_epochs, plan.steps_per_epoch, "trainer.warmup", default=0)
    durations = {"total_steps": plan.total_steps, "warmup_steps": warmup}
    return build(cfg.schedule, Schedule, "schedule", durations, packages)


def _plan(cfg: config.Train, objective: Objective, samples: int) -> Plan:
    t = cfg.trainer
    if t.batch_size < 2 and not objective.per_sample:
        raise ConfigError("trainer.batch_size=1: a contrastive loss needs two samples or more")
    if t.accumulate > 1 and not objective.per_sample:
        raise ConfigError(
            f"trainer.accumulate={t.accumulate}: averaging gradients of small batches is not the gradient of a "
            "contrastive loss over the large one; raise trainer.batch_size instead"
        )
    if samples < t.batch_size * t.accumulate:
        raise ConfigError(
            f"trainer.batch_size={t.batch_size} x accumulate={t.accumulate} is larger than the {samples} training "
            "samples: lower it"
        )
    per_epoch = samples // t.batch_size // t.accumulate
    total = config.steps(t.max_steps, t.max_epochs, per_epoch, "trainer.max")
    if not total:
        raise ConfigError("trainer: set max_epochs or max_steps (above 0)")
    every = config.steps(t.evaluate_every_steps, t.evaluate_every_epochs, per_epoch, "trainer.evaluate_every")
    return Plan(
        total_steps=total,
        steps_per_epoch=per_epoch,
        batch_size=t.batch_size,
        evaluate_every=max(1, every) if every is not None else None,
        save_every=t.save_every_steps,
        log_every=t.log_every,
        accumulate=t.accumulate,
        clip_norm=t.clip_norm,
        select=None,
        higher_is_better=True,
        seed=cfg.seed,
    )


def _precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware multiplies in it, else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # AVX-512 alone emulates bf16 and is slower than fp32: the instructions themselves are asked for.
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if has_bf16 or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)() else "fp32"


# -------------------------------------------------------------------------------------------- evaluators


def _build_evaluators(
    nodes: Mapping[str, Any],
    splits: Splits,
    model: Objective,
    batch_size: int,
    packages: Packages,
    asked: bool,
    runtime: Runtime,
) -> dict[str, Evaluator]:
    """Evaluators that suit the model and the data. One that does not is an error if the user named it."""
    given = {"data": splits, "prompts": prompt_files.load, "batch_size": batch_size}
    made: dict[str, Evaluator] = {}
    for name, node in nodes.items():
        if node is None:
            continue
        where = f"evals.{name}"
        cls: Any = config.locate(node, object, where, packages)
        lacking = [need.__name__ for need in cls.needs if not isinstance(model, need)]
        make = config.bind(node, object, where, given, packages)
        try:
            if lacking:
                raise ValueError(f"{type(model).__name__} does not meet {', '.join(lacking)}")
            made[name] = make()  # type: ignore[assignment]
        except ValueError as error:
            if asked:
                raise ConfigError(f"{where}: {error}") from None
            if runtime.is_main:
                print(f"{where} is left out: {error}", flush=True)
    return made


def _with_selector(plan: Plan, cfg: config.Trainer, evaluators: Mapping[str, Evaluator]) -> Plan:
    """What chooses the best checkpoint: trainer.select, else the first evaluator's own figure."""
    if cfg.select is None:
        if not evaluators or plan.evaluate_every is None:
            return plan
        name, evaluator = next(iter(evaluators.items()))
        figure = f"{name}/{evaluator.selects}"
    else:
        figure, name = cfg.select, cfg.select.split("/")[0]
        if name not in evaluators:
            raise ConfigError(f"trainer.select={figure}: no evaluator {name}{config.nearest(name, evaluators)}")
        evaluator = evaluators[name]
    higher = evaluator.higher_is_better if cfg.select_mode is None else cfg.select_mode == "max"
    return replace(plan, select=figure, higher_is_better=higher)


# ------------------------------------------------------------------------------------------- descriptions


def _describe(
    values: Mapping[str, Any], objective: Objective, data: Manifest, prompts: PromptSampler, cfg: config.Train
) -> dict[str, Any]:
    """Plain values that rebuild model, preprocessing and data from a checkpoint alone."""
    towers = {name: part.node() for name, part in objective.named_children() if hasattr(part, "node")}
    return {
        "settings": dict(values),
        "fingerprint": data.fingerprint(),
        "model": {"objective": dict(cfg.objective), **towers},
        "labels": list(data.labels),
        "data": cfg.data.model_dump(),
        "transform": dict(cfg.transform),
        "prompts": dict(cfg.prompts),
        "prompt_sentences": prompts.prompts,
        "precision": cfg.trainer.precision,
    }


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
    tracker.say(
        f"{cfg.name}: {runtime.world} x {device}, {numbers}, {count / 1e6:.1f} M parameters; "
        f"{len(dataset)} {'studies' if cfg.data.unit == 'study' else 'images'}"
        f"{f' ({dataset.dropped} without a text dropped)' if dataset.dropped else ''}, "
        f"batch {plan.batch_size}{f' x {plan.accumulate}' if plan.accumulate > 1 else ''}, "
        f"{plan.steps_per_epoch} steps an epoch, {plan.total_steps} steps"
    )
    if done >= plan.total_steps:
        tracker.say(f"already complete: {folder}")
    else:
        tracker.say(f"{'goes on at step ' + str(done) + ' in' if done else 'writes to'} {folder}")
