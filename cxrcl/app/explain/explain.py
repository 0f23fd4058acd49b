"""A checkpoint, its data and a figure to be reached -> the choices that lead there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cxrcl import distributed
from cxrcl.app import provenance
from cxrcl.app.data import load_data
from cxrcl.app.evaluation_data import data_settings, open_data
from cxrcl.app.evaluators import build_evaluators
from cxrcl.app.explain import image_choices, stored
from cxrcl.app.explain.passes import POOLED, Passes
from cxrcl.app.explain.rows import all_images
from cxrcl.app.explain.targets import read_target
from cxrcl.app.job import FROM_PYTHON, Job, Typed
from cxrcl.app.restore import restore
from cxrcl.app.sources import build_sources
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.checkpoint.find import find_checkpoints, names_of
from cxrcl.config import sections
from cxrcl.config.moved import with_current_names
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.data.images.other_ways import other_way
from cxrcl.data.loader import BatchReader
from cxrcl.data.splits import Splits
from cxrcl.data.text import prompts as prompt_files
from cxrcl.errors import ConfigError
from cxrcl.evaluation.choices import labels as label_choices
from cxrcl.evaluation.choices import scoring, texts
from cxrcl.evaluation.choices.bench import Bench
from cxrcl.evaluation.choices.choice import Choice, Stage, Unavailable
from cxrcl.evaluation.choices.figures import DECISION_CHOICE
from cxrcl.evaluation.choices.search import Findings, Search, Target
from cxrcl.evaluation.metrics import labels_of_mean
from cxrcl.evaluation.report.explained import Explanation, identity
from cxrcl.evaluation.zero_shot import ZeroShot
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.objectives.base import Objective

logger = logging.getLogger(__name__)

MEAN_AUROC = "mean_auroc"
WITH_INTERVALS = 5  # readings, the nearest ones; the current one beside them


@dataclass
class _Case:
    """One checkpoint on its images.

    Attributes:
        splits: None where embeddings are stored.
        left_out: images that no pass encodes -> why.
        settings: of the data.
        manifest: fingerprint of the scored data; '' where embeddings are stored.
    """

    checkpoint: Checkpoint
    objective: Objective
    images: stored.Images
    store: stored.Store
    settings: sections.Data
    splits: Splits | None = None
    manifest: str = ""
    left_out: dict[str, str] = field(default_factory=dict)


def explain(
    values: Mapping[str, Any],
    packages: Sequence[str] = OWN_PACKAGES,
    out: Path | None = None,
    typed: Typed = FROM_PYTHON,
) -> Explanation | None:
    """Look for the choices that bring the figure of a checkpoint to a target.

    Args:
        values: the composed config as plain containers.
        packages: packages whose classes a config, or a checkpoint, may name.
        out: folder in which the passes over the images are kept; None: in memory.
        typed: the command, for the record in the report.

    Returns:
        What was found; None in processes other than the main one.

    Raises:
        UserError: one line, before any work starts.
    """
    with opened(values, packages, out, typed) as explainer:
        return explainer.explanation()


@contextmanager
def opened(
    values: Mapping[str, Any],
    packages: Sequence[str] = OWN_PACKAGES,
    out: Path | None = None,
    typed: Typed = FROM_PYTHON,
) -> Iterator[Explainer]:
    """What looks for targets, with the checkpoint and its data open; the arguments are those of `explain`."""
    values = with_current_names(values)
    cfg = sections.parse(values, sections.Explain)
    files = find_checkpoints(cfg.checkpoint)
    shared = {name: value for name, value in values.items() if name in sections.Evaluate.model_fields}
    with distributed.start(cfg.device, cfg.timeout_minutes) as runtime, ExitStack() as stack:
        job = Job(sections.parse(shared, sections.Evaluate), values, packages, ["*"], runtime, typed)
        case = _stored(cfg, job, files[0]) if cfg.embeddings else _opened(cfg, job, files[0], out, stack)
        yield Explainer(cfg, job, case, files)


def _stored(cfg: sections.Explain, job: Job[sections.Evaluate], file: Path) -> _Case:
    """With embeddings of the images that were stored."""
    assert cfg.embeddings is not None
    images, store = stored.read(cfg.embeddings)
    checkpoint, objective, _ = restore(file, job.packages, job.runtime.device)
    settings = sections.parse(checkpoint.recipe.data, sections.Data)
    return _Case(checkpoint, objective, images, store, settings)


def _opened(
    cfg: sections.Explain, job: Job[sections.Evaluate], file: Path, out: Path | None, stack: ExitStack
) -> _Case:
    """With images that are read for each pass."""
    checkpoint, objective, transform = restore(file, job.packages, job.runtime.device)
    laid = data_settings(job.cfg, checkpoint, file)
    settings = laid.settings
    batch_reader = stack.enter_context(closing(BatchReader(settings.num_workers)))
    data = open_data(job, laid, checkpoint.recipe, objective, transform, batch_reader)
    of_all_views = settings.model_copy(update={"views": None, "filter": {}})
    whole = load_data(of_all_views, build_sources(of_all_views, job.packages), job.runtime)
    splits, images, left_out = all_images(data.splits, whole, cfg.splits, cfg.images)
    manifest = data.splits.manifest.fingerprint()
    folder = None
    if out is not None and job.runtime.is_main:
        folder = out / "embeddings" / f"{checkpoint.fingerprint()}_{images.fingerprint()}"
        if (folder / stored.PASSES).is_file():
            logger.info(f"passes of an earlier run are used: {folder} (remove the folder to make them anew)")
    return _Case(checkpoint, objective, images, stored.Store(folder), settings, splits, manifest, left_out)


class Explainer:
    """Looks for targets among the choices of one checkpoint; what one search measured serves the next.

    Args:
        cfg: the settings, of which the target is not read here.
        case: the checkpoint on its images.
        files: the checkpoints, the one of the case first.
    """

    def __init__(self, cfg: sections.Explain, job: Job[sections.Evaluate], case: _Case, files: Sequence[Path]) -> None:
        self.cfg, self.job, self.case, self.names = cfg, job, case, case.images.names
        self.evaluator, self.of = _evaluator(cfg, job, case)
        mean_over = tuple(labels_of_mean(self.evaluator.labels, self.evaluator.mean_over))
        self.truth = label_choices.Truth(self.names, case.images.values, mean_over)
        families = _families(cfg, self.evaluator.file, self.names)
        every = self._choices(families, files, job.packages)
        self.known = {**case.left_out, **_refused(cfg, every)}
        self.choices = [choice for choice in every if choice.name not in self.known]
        passes = Passes(
            files,
            every,
            case.images,
            case.splits,
            case.store,
            texts.Texts(families[self.evaluator.file]),
            job.runtime,
            job.packages,
            cfg.batch_size,
        )
        rows = label_choices.Rows(case.images.table, np.ones(len(case.images.table), dtype=bool))
        self.bench = Bench(every, passes, self.truth, rows)

    def _choices(
        self, families: Mapping[str, texts.Sentences], files: Sequence[Path], packages: Sequence[str]
    ) -> list[Choice]:
        case, evaluator = self.case, self.evaluator
        return [
            *_of_weights(case.checkpoint, files),
            *_of_images(case, packages),
            texts.family_choice(families, evaluator.file, self.of),
            *texts.writing_choices(),
            *texts.token_choices(),
            *_of_text_encoder(case.checkpoint, packages),
            *scoring.choices(evaluator.prompted.over, evaluator.sides, evaluator.scaled, self.of),
            *label_choices.row_choices(case.images.table, self.cfg.splits, case.images.scored),
            *label_choices.label_choices(self.truth, case.settings.label_policy, evaluator.against_normal, self.of),
            DECISION_CHOICE,
        ]

    def search(self, target: Target) -> Findings:
        """What leads to a target.

        Raises:
            ConfigError: the current settings cannot be measured.
        """
        named = [name.partition("/")[2] for name in target.figures if "/" in name]
        means = [label_choices.mean_choice(self.truth, named, self.of)]
        self.bench.choices = (*self.choices, *means)
        try:
            beside = [MEAN_AUROC]
            search = Search(self.bench.choices, self.bench.figures, target, beside, self.cfg.seconds, known=self.known)
        except Unavailable as error:
            raise ConfigError(f"the current settings cannot be measured: {error}") from None
        return search.run()

    def explanation(self) -> Explanation | None:
        """What leads to the target of the settings; None in processes other than the main one."""
        cfg, bench = self.cfg, self.bench
        target, notes = read_target(cfg.target, cfg.figure, cfg.of or self.of, self.names, cfg.tolerance)
        found = self.search(target)
        if not self.job.runtime.is_main:
            return None
        shown = [found.start, *found.reached, *found.tried][: 1 + WITH_INTERVALS]
        intervals = {one.label: bench.intervals(list(target.figures), one.reading, cfg.resamples) for one in shown}
        of = identity(self.case.checkpoint.fingerprint(), self.case.manifest, cfg.splits)
        return Explanation(found, intervals, self._facts(), notes, of, self.of, self.job.typed.command)

    def _facts(self) -> dict[str, str]:
        case = self.case
        return {
            "checkpoint": str(self.cfg.checkpoint),
            "weights": "as trained" if case.checkpoint.state.average is None else "moving average",
            "splits": " + ".join(self.cfg.splits),
            "manifest": case.manifest or "stored embeddings",
            "images": f"{len(case.images.table)} encoded in each pass",
            "rule": f"{self.of}: {self.evaluator.rule}",
            "prompts": self.evaluator.file,
            "made by": "; ".join(f"{name} {code}" for name, code in provenance.code(self.job.packages).items()),
        }


def _evaluator(cfg: sections.Explain, job: Job[sections.Evaluate], case: _Case) -> tuple[ZeroShot, str]:
    """The zero-shot evaluator whose settings are the current ones, and its name.

    Raises:
        ConfigError: there is none, or it compares words and regions, whose similarities are not varied.
    """
    data: Any = case.splits or SimpleNamespace(labels=case.images.names)
    made = build_evaluators(
        cfg.evals, data, case.objective, cfg.batch_size, job.packages, job.requested_evals, job.runtime
    )
    for name, evaluator in made.evaluators.items():
        if isinstance(evaluator, ZeroShot):
            if evaluator.prompted.by != "global":
                raise ConfigError(f"evals.{name}.by={evaluator.prompted.by}: only by=global can be explained")
            return evaluator, name
    raise ConfigError("evals: expected a zero-shot evaluator of labels, such as evals=[zero_shot] or evals=[chexzero]")


def _families(cfg: sections.Explain, current: str, labels: Sequence[str]) -> dict[str, texts.Sentences]:
    """Prompts by file: the current ones, those that were given, and those that come with the package."""
    found: dict[str, texts.Sentences] = {}
    for file in dict.fromkeys((current, *cfg.prompts, *prompt_files.shipped())):
        try:
            sentences = prompt_files.for_labels(file, labels)
        except ValueError as error:
            raise ConfigError(f"prompts: {error}") from None
        if any(name in sentences for name in labels):
            found[file] = {name: sentences[name] for name in labels if name in sentences}
    return found


def _of_weights(checkpoint: Checkpoint, files: Sequence[Path]) -> list[Choice]:
    has_both = checkpoint.state.average is not None and checkpoint.state.weights is not None
    return image_choices.weight_choices(names_of(files), has_both)


def _of_images(case: _Case, packages: Sequence[str]) -> list[Choice]:
    """Choices of how images are read, for this encoder."""
    encoder = next(part for part in case.objective.modules() if isinstance(part, ImageEncoder))
    node = case.checkpoint.recipe.model["image_encoder"]
    transform = case.splits.transform if case.splits is not None else None
    settings = image_choices.setting_variants(node, "pooling", ImageEncoder, packages)
    pooled = [name for name in POOLED if name != "pooled"] if encoder.local_dim == encoder.dim else []
    found = [
        image_choices.normalisation_choice(encoder.spec if transform is None else transform.spec),
        *([] if transform is None else [image_choices.fit_choice(other_way(transform))]),
        *image_choices.photometry_choices(),
        image_choices.pooling_choice(pooled, settings),
    ]
    return [choice for choice in found if choice is not None]


def _of_text_encoder(checkpoint: Checkpoint, packages: Sequence[str]) -> list[Choice]:
    node = checkpoint.recipe.model.get("text_encoder", {})
    others = image_choices.setting_variants(node, "pooling", TextEncoder, packages) if node else []
    return [texts.pooling_choice("pooling", others)] if others else []


def _refused(cfg: sections.Explain, choices: Sequence[Choice]) -> dict[str, str]:
    """Choices whose passes over the images were not asked for.

    Raises:
        ConfigError: `passes` names one that there is not.
    """
    of_images = [choice.name for choice in choices if choice.stage in (Stage.IMAGES, Stage.WEIGHTS)]
    if cfg.passes is None:
        return {}
    if unknown := [name for name in cfg.passes if name not in of_images]:
        raise ConfigError(f"passes: no choice {', '.join(unknown)}; there are {', '.join(of_images)}")
    return {name: "not among passes=[...]" for name in of_images if name not in cfg.passes}
