"""Parts of a run, each from its own section or node of the config (the whole config is seen by `cxrcl.app` only)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from cxrcl import checkpoint, config
from cxrcl.config import build, wants
from cxrcl.data import manifest as manifests
from cxrcl.data import prompts as prompt_files
from cxrcl.data.dataset import Texts
from cxrcl.data.labels import apply_policy
from cxrcl.data.manifest import Manifest
from cxrcl.data.prompts import PromptSampler
from cxrcl.data.reports import ReportSampler
from cxrcl.data.sources.base import Source
from cxrcl.data.splits import Splits
from cxrcl.data.transforms import RadiographTransform
from cxrcl.distributed import Runtime
from cxrcl.errors import CheckpointError, ConfigError, DataError, UserError
from cxrcl.optim import Schedule, parameter_groups
from cxrcl.trainer import Plan
from cxrcl.types import Batch, Evaluator, ImageEncoder, Objective, TextEncoder

Packages = Sequence[str]
GIVEN_TO_OBJECTIVES = ("image_encoder", "text_encoder", "labels", "label_counts")
GIVEN_TO_EVALUATORS = ("data", "prompts", "batch_size")


# -------------------------------------------------------------------------------------------------- data


def load_data(cfg: config.Data, runtime: Runtime, packages: Packages) -> Manifest:
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
        try:
            root = runtime.main_decides(source.prepare)
        except (ValueError, OSError) as error:
            hint = "" if isinstance(error, UserError) else "; name the folder of the data with data.root=DIR"
            raise DataError(f"data.sources.{name}: {error}{hint}") from None
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
        values = apply_policy(data.values, data.labels, cfg.label_policy)
        return Manifest(data.rows, data.labels, values, data.values)
    except ValueError as error:
        raise ConfigError(f"data.{error}") from None


class TrainingTexts:
    """Implements `cxrcl.types.Corpus`."""

    def __init__(
        self, training: Manifest, make: Callable[[Manifest], Texts], prompts: PromptSampler, runtime: Runtime
    ) -> None:
        self.training, self.make, self.prompts, self.runtime = training, make, prompts, runtime
        self.known: str | None = None  # the vocabulary of weights that will be laid in

    def learn(self, fit: Callable[[Iterable[str]], str]) -> str:
        if self.known is not None:
            return self.known
        return self.runtime.main_decides(lambda: fit(self._texts()))

    def _texts(self) -> Iterator[str]:
        texts = self.make(self.training)
        yield from (texts.make(row, None) for row in range(len(self.training)))
        for label in self.training.labels:
            for sentences in self.prompts.prompts.get(label, {}).values():
                yield from sentences


def report_sampler(cfg: config.Reports) -> ReportSampler:
    return ReportSampler(cfg.sections, cfg.sentences, cfg.shuffle, cfg.min_words)


def build_transform(node: Mapping[str, Any], objective: Objective, packages: Packages) -> RadiographTransform:
    """The transform for the size and normalisation of the objective's image encoder."""
    spec = next(part.spec for part in objective.modules() if isinstance(part, ImageEncoder))
    return build(node, RadiographTransform, "transform", {"spec": spec}, packages)


def prepare(transform: RadiographTransform, runtime: Runtime) -> Callable[[Batch], Batch]:
    return lambda batch: transform.finish(batch.to(runtime.device))


# ------------------------------------------------------------------------------------------------- model


def label_counts(training: Manifest) -> dict[str, tuple[int, int]]:
    """Negatives and positives of each label."""
    values = training.values
    return dict(zip(training.labels, zip((values == 0).sum(axis=0).tolist(), (values == 1).sum(axis=0).tolist())))


def build_model(
    nodes: Mapping[str, Any],
    labels: Sequence[str],
    corpus: TrainingTexts | None,
    packages: Packages,
    counts: Mapping[str, tuple[int, int]] | None = None,
) -> Objective:
    """Towers that the objective asks for, then the objective."""
    asked = wants(nodes["objective"], Objective, "objective", packages)
    given: dict[str, Any] = {"labels": tuple(labels), "label_counts": counts}
    bases: dict[str, type[nn.Module]] = {"image_encoder": ImageEncoder, "text_encoder": TextEncoder}
    for name, base in bases.items():
        if name not in asked:
            continue
        if nodes.get(name) is None:
            hint = ", or take that of a checkpoint with init_from=FILE" if name == "image_encoder" else ""
            raise ConfigError(f"{name}: the objective needs one; choose it with {name}=<name>{hint}")
        given[name] = build(nodes[name], base, name, {"corpus": corpus}, packages)
    return build(nodes["objective"], Objective, "objective", given, packages)


def init_from(objective: Objective, state: Mapping[str, Any], name: str, runtime: Runtime) -> None:
    """Weights of another run; each of its towers that this model has must match in every tensor."""
    towers = [key for key, _ in objective.named_children() if key.endswith("_encoder")]
    taken = dict(state["model"])
    if getattr(objective, "labels", None) not in (None, tuple(state["config"]["labels"])):
        # Rows of another label list: only the towers mean the same.
        taken = {key: value for key, value in taken.items() if key.split(".")[0] in towers}
    vocabulary = getattr(getattr(objective, "tokenizer", None), "definition", None)
    other = state["config"]["model"].get("text_encoder", {}).get("definition")
    if vocabulary is not None and other is not None and vocabulary != other:
        raise ConfigError(
            f"init_from={name}: its tokenizer is another one than that of text_encoder: its word embeddings mean "
            "nothing here; choose the text encoder of the checkpoint"
        )
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


def build_optimizer(node: config.Node, objective: Objective, packages: Packages) -> torch.optim.Optimizer:
    groups = parameter_groups(objective, float(node.get("weight_decay") or 0.0))
    allowed = (*packages, *config.OPTIMIZER_PACKAGES)
    return build(node, torch.optim.Optimizer, "optimizer", {"params": groups}, allowed)


def build_schedule(node: config.Node, t: config.Trainer, plan: Plan, packages: Packages) -> Schedule:
    warmup = config.steps(t.warmup_steps, t.warmup_epochs, plan.steps_per_epoch, "trainer.warmup", default=0)
    durations = {"total_steps": plan.total_steps, "warmup_steps": warmup}
    return build(node, Schedule, "schedule", durations, packages)


def make_plan(t: config.Trainer, seed: int, objective: Objective, samples: int, processes: int = 1) -> Plan:
    """The run in steps.

    Raises:
        ConfigError: durations or sizes that contradict each other, the objective or the data.
    """
    try:
        objective.check(samples, t.batch_size)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if t.accumulate > 1 and not objective.per_sample:
        raise ConfigError(
            f"trainer.accumulate={t.accumulate}: averaging gradients of small batches is not the gradient of a "
            "contrastive loss over the large one; raise trainer.batch_size and set trainer.micro_batch_size"
        )
    if t.batch_size % processes:
        raise ConfigError(f"trainer.batch_size={t.batch_size} is not divisible by {processes} processes")
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
        seed=seed,
        micro_batch_size=t.micro_batch_size,
    )


def precision_name(name: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware multiplies in it, else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # AVX-512 alone emulates bf16 and is slower than fp32: the instructions themselves are asked for.
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if has_bf16 or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)() else "fp32"


def restore_model(
    state: Mapping[str, Any], packages: Packages = config.OWN_PACKAGES, device: torch.device | str = "cpu"
) -> Objective:
    """The model of a checkpoint with its weights, in evaluation mode: no other file, no network.

    Raises:
        CheckpointError: the weights do not fit the stored architecture in every tensor.
    """
    stored = state["config"]
    model = build_model(stored["model"], stored["labels"], None, packages)
    report = checkpoint.lay_in(model, state["model"])
    if report.missing or report.unexpected or report.mismatched:
        raise CheckpointError(f"the weights do not fit the stored architecture: {report}")
    return model.eval().to(device)


# -------------------------------------------------------------------------------------------- evaluators


def build_evaluators(
    nodes: Mapping[str, Any],
    splits: Splits,
    model: Objective,
    batch_size: int,
    packages: Packages,
    asked: Collection[str],
    runtime: Runtime,
) -> dict[str, Evaluator]:
    """Evaluators that suit the model and the data. One that does not is an error if `asked` names it ("*": all)."""
    given = dict(zip(GIVEN_TO_EVALUATORS, (splits, prompt_files.load, batch_size), strict=True))
    made: dict[str, Evaluator] = {}
    for name, node in nodes.items():
        if node is None:
            continue
        where = f"evals.{name}"
        cls: Any = config.locate(node, object, where, packages)
        if not all(hasattr(cls, name) for name in ("needs", "selects", "higher_is_better", "run")):
            raise ConfigError(f"{where}._target_={node['_target_']}: not an evaluator (see docs/extending.md)")
        lacking = [need.__name__ for need in cls.needs if not isinstance(model.evaluated(), need)]
        make = config.bind(node, object, where, given, packages)
        try:
            if lacking:
                raise ValueError(f"{type(model.evaluated()).__name__} does not meet {', '.join(lacking)}")
            made[name] = make()  # type: ignore[assignment]
        except ValueError as error:
            if name in asked or "*" in asked:
                raise ConfigError(f"{where}: {error}") from None
            if runtime.is_main:
                print(f"{where} is left out: {error}", flush=True)
    return made


def with_selector(plan: Plan, cfg: config.Trainer, evaluators: Mapping[str, Evaluator]) -> Plan:
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
        if figure != f"{name}/{evaluator.selects}" and cfg.select_mode is None:
            raise ConfigError(f"trainer.select={figure}: say with trainer.select_mode=max|min which way is better")
        if plan.evaluate_every is None:
            raise ConfigError(f"trainer.select={figure}: nothing is evaluated; set trainer.evaluate_every_epochs=1")
    higher = evaluator.higher_is_better if cfg.select_mode is None else cfg.select_mode == "max"
    return replace(plan, select=figure, higher_is_better=higher)
