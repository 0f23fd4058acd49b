"""Parts of a run, each from its own section or node of the config (the whole config is seen by `cxrcl.app` only)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from cxrcl import config
from cxrcl.config import build, wants
from cxrcl.data import bad_images, tokens
from cxrcl.data import manifest as manifests
from cxrcl.data import prompts as prompt_files
from cxrcl.data import store as packed
from cxrcl.data.films import Films
from cxrcl.data.fractions import keep_fractions
from cxrcl.data.labels import apply_policy
from cxrcl.data.loader import Feed
from cxrcl.data.manifest import Manifest
from cxrcl.data.prompts import PromptSampler
from cxrcl.data.reports import ReportSampler
from cxrcl.data.texts import Texts
from cxrcl.data.tokens import TokenTable
from cxrcl.data.transforms import RadiographTransform
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, DataError, UserError
from cxrcl.evaluation.embed import embed_texts
from cxrcl.evaluation.prompted import directions_of
from cxrcl.freezing import Which, freeze
from cxrcl.mixture import as_listed, build_sources, fractions_of
from cxrcl.models.base import Encoder, ImageEncoder, TextEncoder
from cxrcl.objectives.base import Objective
from cxrcl.optim import Schedule, parameter_groups
from cxrcl.trainer import Plan
from cxrcl.types import Batch, EmbedsText, Tokenizer

Packages = Sequence[str]
TOWERS: dict[str, type[Encoder]] = {"image_encoder": ImageEncoder, "text_encoder": TextEncoder}
GIVEN_TO_OBJECTIVES = ("image_encoder", "text_encoder", "labels", "training_labels")


# -------------------------------------------------------------------------------------------------- data


def load_data(cfg: config.Data, runtime: Runtime, packages: Packages) -> Manifest:
    parts, roots, sources = {}, [], build_sources(cfg, packages)
    for name, source in sources.items():
        try:
            root = runtime.main_decides(source.prepare)
        except (ValueError, OSError) as error:
            hint = "" if isinstance(error, UserError) else "; name the folder of the data with data.root=DIR"
            raise DataError(f"data.sources.{name}: {error}{hint}") from None
        roots.append(root)
        outside = cfg.allow_outside_root or source.store is not None  # films of a store lie in it, whatever their names
        parts[name] = manifests.load(root, cfg.labels, outside, cfg.check_patients and cfg.split_lists is None)
        if source.store is not None:
            parts[name] = packed.attach(parts[name], root, source.store)
    data, fractions = manifests.merge(parts), fractions_of(sources, cfg.fraction)
    if cfg.split_lists is not None:
        data, said = as_listed(data, cfg, cfg.split_lists, list(sources), fractions)
        fractions = {}
        if runtime.is_main:
            print(said, flush=True)
    data = keep_fractions(manifests.select(data, cfg.views, cfg.filter), fractions, cfg.fraction_seed)
    if cfg.labels is not None:
        absent = [name for name in cfg.labels if name not in data.labels]
        twice = [name for k, name in enumerate(cfg.labels) if name in cfg.labels[:k]]
        if twice:
            raise ConfigError(f"data.labels: {twice[0]} stands twice: name each label once")
        if absent:
            known = dict.fromkeys(name for root in roots for name in manifests.label_columns(root))
            raise DataError(f"data.labels: no such column: {', '.join(absent)}; label columns: {', '.join(known)}")
        data = data.with_labels(cfg.labels)
    try:
        values = apply_policy(data.values, data.labels, cfg.label_policy)
        return Manifest(data.rows, data.labels, values, data.values)
    except ValueError as error:
        raise ConfigError(f"data.{error}") from None


def how_films_are_read(cfg: config.Data, packages: Packages) -> Films:
    """At `data.read_px`, which packed stores decide where they are.

    Raises:
        UserError: a store of films of another size, or none.
    """
    read_px = cfg.read_px
    for source in build_sources(cfg, packages).values():
        if source.store is not None:
            side = packed.read_head(source.store)["read_px"]
            if read_px not in (None, side):
                raise ConfigError(
                    f"{source.store}: holds films of {side} px, but films are read at {read_px} px (data.read_px, or "
                    f"another store): pack it again with --read-px {read_px}, or set data.read_px=null"
                )
            read_px = side
    return Films(read_px)


class TrainingTexts:
    """Implements `cxrcl.types.Corpus`."""

    def __init__(
        self,
        training: Manifest,
        make: Callable[[Manifest], Texts],
        prompts: PromptSampler | Mapping[str, PromptSampler],
        runtime: Runtime,
    ) -> None:
        self.training, self.make, self.runtime = training, make, runtime
        self.prompts = [prompts] if isinstance(prompts, PromptSampler) else list(prompts.values())
        self.known: str | None = None  # the vocabulary of weights that will be laid in

    def learn(self, fit: Callable[[Iterable[str]], str]) -> str:
        if self.known is not None:
            return self.known
        return self.runtime.main_decides(lambda: fit(self._texts()))

    def _texts(self) -> Iterator[str]:
        yield from self.make(self.training).corpus()
        for sampler, label in itertools.product(self.prompts, self.training.labels):
            for sentences in sampler.prompts.get(label, {}).values():
                yield from sentences


def without_unreadable(
    data: Manifest, splits: Sequence[str], feed: Feed, runtime: Runtime, films: Films
) -> tuple[Manifest, dict[int, str]]:
    """The data without those films of these splits that cannot be read, and why not, by position in `data`."""
    positions = np.flatnonzero(data.rows["split"].isin(list(splits)))
    mine = [int(positions[k]) for k in runtime.shard(len(positions))]
    parts = runtime.gather_objects(bad_images.find_unreadable(data, mine, feed, films))
    found = {position: reason for part in parts for position, reason in part.items()}
    if found and runtime.is_main:
        print(f"{len(found)} images cannot be read and are left out: {bad_images.named(data, found)}", flush=True)
    return bad_images.leave_out(data, found), found


def report_sampler(cfg: config.Reports) -> ReportSampler:
    return ReportSampler(cfg.sections, cfg.sentences, cfg.shuffle, cfg.min_words, cfg.section, cfg.augmented)


def token_table(texts: Texts, tokenizer: Tokenizer, runtime: Runtime) -> TokenTable | None:
    """The pieces of the training sentences, looked up in each process; None where these do not make up the texts'."""
    table = tokens.token_table(texts, tokenizer, runtime.is_main)
    if table is None and runtime.is_main:
        print("data.cache_tokens: a text's pieces are not those of its sentences: texts are tokenised in each batch")
    return table


def build_transform(node: Mapping[str, Any], objective: Objective, packages: Packages) -> RadiographTransform:
    """The transform for the size and normalisation of the objective's image encoder."""
    spec = next(part.spec for part in objective.modules() if isinstance(part, ImageEncoder))
    return build(node, RadiographTransform, "transform", {"spec": spec}, packages)


def prepare(transform: RadiographTransform, runtime: Runtime) -> Callable[[Batch], Batch]:
    def ready(batch: Batch) -> Batch:
        batch = batch.to(runtime.device)
        return batch if batch.images is None else transform.finish(batch)

    return ready


# ------------------------------------------------------------------------------------------------- model


def build_model(
    nodes: Mapping[str, Any],
    labels: Sequence[str],
    corpus: TrainingTexts | None,
    packages: Packages,
    training_labels: Tensor | None = None,
    frozen: Mapping[str, Which | None] | None = None,
) -> Objective:
    """Towers that the objective asks for, then the objective.

    Args:
        training_labels: float32 [N, C]; None when a checkpoint is read.
        frozen: layers that are not trained, by the name of the tower.
    """
    asked = wants(nodes["objective"], Objective, "objective", packages)
    given: dict[str, Any] = {"labels": tuple(labels), "training_labels": training_labels}
    for name, base in TOWERS.items():
        which = (frozen or {}).get(name)
        if name not in asked:
            if which is not None:
                raise ConfigError(f"freeze.{name}={which}: the objective has no {name}, set it to null")
            continue
        if nodes.get(name) is None:
            hint = ", or take that of a checkpoint with init_from=FILE" if name == "image_encoder" else ""
            raise ConfigError(f"{name}: the objective needs one; choose it with {name}=<name>{hint}")
        given[name] = encoder = build(nodes[name], base, name, {"corpus": corpus}, packages)
        if which is not None:  # before the objective is made: MoCo copies its tower
            try:
                freeze(encoder, which)
            except ValueError as error:
                raise ConfigError(f"freeze.{name}={which}: {error}") from None
    return build(nodes["objective"], Objective, "objective", given, packages)


def check_folders(
    objective: config.Node, image_encoder: config.Node | None, text_encoder: config.Node | None, packages: Packages
) -> None:
    """Everything that the folders of both towers lack, before data are read or anything is built.

    Raises:
        ConfigError: one line for all of it.
    """
    asked = wants(objective, Objective, "objective", packages)
    wrong: list[str] = []
    for (name, base), node in zip(TOWERS.items(), (image_encoder, text_encoder), strict=True):
        if name in asked and node is not None:
            wrong += _lacking(node, base, name, packages)
    if wrong:
        raise ConfigError("; ".join(wrong))


def _lacking(node: config.Node, base: type, name: str, packages: Packages) -> list[str]:
    """What the folders of an encoder and of those inside of it lack."""
    encoder: Any = config.locate(node, base, name, packages)
    inner = [(key, value) for key, value in node.items() if isinstance(value, Mapping) and "_target_" in value]
    faults = [fault for key, value in inner for fault in _lacking(dict(value), base, f"{name}.{key}", packages)]
    return [f"{name}: {fault}" for fault in encoder.lacking(node)] + faults


def say_what_was_loaded(objective: Objective) -> None:
    """A line for each tower that took its weights from a file."""
    for name, part in objective.named_modules():
        report = getattr(part, "load_report", None) if isinstance(part, Encoder) else None
        if report is not None and name.split(".")[0] in TOWERS:  # not the copies of towers, such as MoCo's
            print(f"{name}: {report}", flush=True)


def usable_samples(training: Manifest, objective: Objective, runtime: Runtime) -> Manifest:
    """The training rows that the objective can learn from."""
    keep = objective.learns_from(torch.from_numpy(training.values)).numpy()
    if not keep.any():
        raise DataError(f"none of {len(training)} training images has a label that the objective can use")
    if runtime.is_main and not keep.all():
        print(f"{int((~keep).sum())} of {len(keep)} training images have no label that the objective can use: left out")
    return training if keep.all() else training.take(keep)


def check_texts(training: Manifest, texts: Texts, looked_at: int = 256) -> None:
    """A contrast of texts needs different ones.

    Raises:
        DataError: those looked at, spread over the data, are all the same.
    """
    known = [row for row in range(len(training)) if texts.exists(row)]
    rows = sorted({known[k * len(known) // looked_at] for k in range(looked_at)}) if known else []
    found = {texts.make(row, None) for row in rows}
    if len(rows) > 1 and len(found) == 1:
        shown = "" if any(texts.has_report(row) for row in rows) else f" ({found.pop()[:80]!r})"  # no report in a log
        raise DataError(
            f"the texts of {len(rows)} training images are all the same{shown}: there is nothing to contrast; "
            "use reports, more labels, or prompts=chexpert"
        )


@torch.no_grad()
def prompt_directions(objective: Objective, labels: Sequence[str], device: torch.device) -> dict[str, Any]:
    """The mean direction of each label's positive prompts, [C, D]: kept from before the training, for comparison.

    Nothing where the model reads no text, or the prompts speak of none of the labels (a set of reports has none).
    """
    model = objective.evaluated()
    if not isinstance(model, EmbedsText):
        return {}
    prompts = prompt_files.for_labels("zero_shot.json", labels)
    named = [name for name in labels if name in prompts]
    if not named:
        return {}
    was_training = objective.training
    objective.eval()
    try:
        found = directions_of(lambda texts: embed_texts(model, texts, device), [prompts[name]["pos"] for name in named])
    finally:
        objective.train(was_training)
    return {"labels": named, "directions": found}


def build_optimizer(
    node: config.Node,
    objective: Objective,
    packages: Packages,
    layer_decay: float = 1.0,
    encoder_lr_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """The optimizer of the parameters that are trained.

    Raises:
        ConfigError: none is, or there is no learning rate that factors could multiply.
    """
    weight_decay, lr = float(node.get("weight_decay") or 0.0), node.get("lr")
    try:
        rate = None if lr is None else float(lr)
        groups = parameter_groups(objective, weight_decay, layer_decay, rate, encoder_lr_factor)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not groups:
        raise ConfigError("freeze: no parameter is left to train; leave some layers of a tower out of freeze")
    allowed = (*packages, *config.OPTIMIZER_PACKAGES)
    return build(node, torch.optim.Optimizer, "optimizer", {"params": groups}, allowed)


def build_schedule(node: config.Node, t: config.Trainer, plan: Plan, packages: Packages) -> Schedule:
    warmup = config.steps(t.warmup_steps, t.warmup_epochs, plan.steps_per_epoch, "trainer.warmup", default=0)
    durations = {"total_steps": plan.total_steps, "warmup_steps": warmup}
    return build(node, Schedule, "schedule", durations, packages)


def lowered_batch_size(t: config.Trainer, samples: int, runtime: Runtime) -> config.Trainer:
    """With `trainer.lower_batch_size`, a batch of all samples in place of one that is larger than that."""
    fitting = samples // t.accumulate // runtime.world * runtime.world
    if not t.lower_batch_size or t.batch_size <= fitting or not fitting:
        return t
    if runtime.is_main:
        print(f"trainer.batch_size={t.batch_size} is lowered to {fitting}: there are {samples} training samples")
    return t.model_copy(update={"batch_size": fitting})


def make_plan(
    t: config.Trainer,
    seed: int,
    objective: Objective,
    samples: int,
    processes: int = 1,
    max_bad_fraction: float = 0.0,
) -> Plan:
    """The run in steps.

    Raises:
        ConfigError: durations or sizes that contradict each other, the objective or the data.
    """
    try:
        objective.check(samples, t.batch_size)
    except ValueError as error:
        raise ConfigError(f"objective: {error} (trainer.batch_size={t.batch_size})") from None
    if t.accumulate > 1 and not objective.per_sample:
        raise ConfigError(
            f"trainer.accumulate={t.accumulate}: averaging gradients of small batches is not the gradient of a "
            "contrastive loss over the large one; raise trainer.batch_size and set trainer.micro_batch_size"
        )
    if t.batch_size % processes:
        raise ConfigError(f"trainer.batch_size={t.batch_size} is not divisible by {processes} processes")
    local = t.batch_size // processes
    at_a_time = local // -(-local // (t.micro_batch_size or local)) * objective.embedded_views
    if at_a_time < 2 and any(isinstance(part, _BatchNorm) and part.training for part in objective.modules()):
        raise ConfigError(
            f"trainer.batch_size={t.batch_size} over {processes} processes with micro_batch_size={t.micro_batch_size}: "
            "a single image goes through BatchNorm at a time; use more, or a tower without BatchNorm"
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
        seed=seed,
        micro_batch_size=t.micro_batch_size,
        max_bad_fraction=max_bad_fraction,
        ema_decay=t.ema_decay,
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
