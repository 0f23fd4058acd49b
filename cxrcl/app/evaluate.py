"""Scoring checkpoints: each restored, scored on the same images and described, and all of them in one report."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxrcl import distributed
from cxrcl.app import provenance
from cxrcl.app.compare import ENSEMBLE, UNTRAINED, ScoredModel, check_asked, make_page, threshold_rule
from cxrcl.app.evaluation_data import EvaluationData, data_settings, open_data
from cxrcl.app.evaluators import build_evaluators
from cxrcl.app.exposure import compared, knows_pixels
from cxrcl.app.job import FROM_PYTHON, Job, Typed
from cxrcl.app.other_data import shown_values, views_of_training
from cxrcl.app.plan import precision_name
from cxrcl.app.restore import restore, untrained
from cxrcl.checkpoint.content import Checkpoint, PromptDirections
from cxrcl.checkpoint.find import beside, find_checkpoints, names_of
from cxrcl.config import sections
from cxrcl.config.moved import with_current_names
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.config.sections import Evaluate
from cxrcl.data.loader import BatchReader
from cxrcl.data.splits import Splits
from cxrcl.errors import ConfigError
from cxrcl.evaluation.evaluator import EvaluatorResult, Evaluators
from cxrcl.evaluation.report.content import ClassSimilarity, Page, ScoredImages, from_results
from cxrcl.evaluation.report.explained import JSON as EXPLAINED
from cxrcl.evaluation.report.explained import identity, image_readings
from cxrcl.evaluation.report.facts import DataFacts, ModelFacts, PromptsFile, TrainedOn
from cxrcl.evaluation.report.page import plot_training
from cxrcl.evaluation.scorer import Scorer
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.zero_shot import ZeroShot
from cxrcl.objectives.base import Objective
from cxrcl.training.run_log import utc_now
from cxrcl.training.trainer import Precision
from cxrcl.training.trainer import evaluate as run_evaluators

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """The outcome of an evaluation.

    Attributes:
        results: evaluator -> metric -> value, of the first checkpoint.
        facts: what these depend on, for a person.
        page: the report; None in processes other than the main one.
    """

    results: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, str]
    page: Page | None


def evaluate(
    values: Mapping[str, Any],
    packages: Sequence[str] = OWN_PACKAGES,
    requested_evals: Collection[str] = ("*",),
    typed: Typed = FROM_PYTHON,
) -> Scored:
    """Score checkpoints on the data they were trained on, or on other data.

    Args:
        values: the composed config as plain containers.
        packages: packages whose classes a config, or a checkpoint, may name.
        requested_evals: as in `cxrcl.app.train.train`.
        typed: the command, for the record in the report.

    Raises:
        UserError: one line, before any work starts.
    """
    started, clock = utc_now(), time.monotonic()
    values = with_current_names(values)
    cfg = sections.parse(values, Evaluate)
    files = find_checkpoints(cfg.checkpoint)
    _check(cfg, files)
    with distributed.start(cfg.device, cfg.timeout_minutes) as runtime:
        job = Job(cfg, values, packages, requested_evals, runtime, typed)
        models: list[ScoredModel] = []
        pixels: dict[str, int] = {}
        for file, name in zip(files, names_of(files), strict=True):
            models += _score_checkpoint(job, file, name, pixels, with_untrained=cfg.random_weights and not models)
        # The other processes have the same metrics, and nothing to write.
        page = None
        if runtime.is_main:
            page = make_page(models, cfg, provenance.record(job, started))
            page = replace(page, run={**page.run, "seconds": round(time.monotonic() - clock, 1)})
        first = models[0]
        of_model = {} if first.part.facts is None else first.part.facts.shown()
        return Scored(first.part.metrics, {**of_model, **first.facts.shown()}, page)


def _check(cfg: Evaluate, files: Sequence[Path]) -> None:
    """Raises ConfigError for settings that contradict each other."""
    if not cfg.splits or len(set(cfg.splits)) < len(cfg.splits):
        raise ConfigError(f"splits={cfg.splits}: name one split or more, and each once")
    if cfg.ensemble and len(files) < 2:
        raise ConfigError("ensemble=true: needs two checkpoints or more: 'checkpoint=[a.pt,b.pt]'")
    names = [*names_of(files), *([ENSEMBLE] if cfg.ensemble else [])]
    if cfg.reference is not None and cfg.reference not in names:
        raise ConfigError(f"reference={cfg.reference}: no such model; expected one of {', '.join(names)}")


# -------------------------------------------------------------------------------------------------- one checkpoint


def _score_checkpoint(
    job: Job[Evaluate], file: Path, name: str, pixels: dict[str, int], with_untrained: bool
) -> list[ScoredModel]:
    """Score one checkpoint, and the same architecture with random weights where that is asked for.

    Args:
        pixels: hashes of images that were read for other checkpoints, by path; grows.

    Raises:
        UserError: a checkpoint, data or an evaluator that cannot be used.
    """
    device = job.runtime.device
    checkpoint, objective, transform = restore(file, job.packages, device)
    laid = data_settings(job.cfg, checkpoint, file)
    with closing(BatchReader(laid.settings.num_workers)) as batch_reader:
        hash_pixels = knows_pixels(checkpoint)
        data = open_data(job, laid, checkpoint.recipe, objective, transform, batch_reader, hash_pixels)
        data.know_pixels(pixels)
        check_asked(job.cfg, data.scored)
        evaluators = _choose_evaluators(job, objective, data.splits, _explained(job, checkpoint, file, data))
        notes = [*data.notes, *_not_scored(job, data, evaluators)]
        precision = Precision(precision_name(checkpoint.recipe.precision, device), device)
        facts = _data_facts(job, data, evaluators)
        images = ScoredImages(data.scored.rows["image"].tolist(), data.scored.rows["split"].tolist())
        results = run_evaluators(objective, evaluators, job.runtime, precision)
        at_start = _similarity_at_start(checkpoint.origin.initial_directions, results)
        pixels |= data.pixel_hashes()
        trained_on, found = compared(checkpoint, data.scored, pixels)
        of_model = _model_facts(checkpoint, file, data, trained_on)
        # Of the run that the checkpoint lies in; nothing where it was moved away from there, or exported.
        log = [] if file.is_dir() else plot_training.read(file.absolute().parent.parent / "metrics.jsonl")
        models = [(from_results(name, of_model, results, at_start, log, images, found), results)]
        if with_untrained:
            results = _of_random_weights(job, checkpoint, evaluators, data, precision)
            models.append((from_results(UNTRAINED, None, results, images=images), results))
        return [ScoredModel(part, _held_out_scores(results), facts, data.scored, notes) for part, results in models]


def _not_scored(job: Job[Evaluate], data: EvaluationData, evaluators: Evaluators) -> list[str]:
    """A line, which is printed as well, for each evaluator that leaves out labels that nobody asked it to."""
    lines = []
    for name, evaluator in evaluators.evaluators.items():
        if isinstance(evaluator, Scorer) and (job.cfg.evals[name] or {}).get("labels") is None:
            absent = [label for label in data.splits.labels if label not in evaluator.labels]
            lines += [f"evals.{name} does not score {', '.join(absent)}: no prompts for it"] if absent else []
    for line in lines:
        logger.warning(line)
    return lines


def _explained(
    job: Job[Evaluate], checkpoint: Checkpoint, file: Path, data: EvaluationData
) -> dict[str, dict[str, float]]:
    """Evaluator -> changes that needed passes of their own -> mean AUROC, where `cxrcl explain` has measured some."""
    folder = beside(str(file), job.cfg.splits, "explain")
    of = identity(checkpoint.fingerprint(), data.splits.manifest.fingerprint(), job.cfg.splits)
    return image_readings(folder / EXPLAINED, of)


def _choose_evaluators(
    job: Job[Evaluate], objective: Objective, splits: Splits, readings: Mapping[str, Mapping[str, float]]
) -> Evaluators:
    """Evaluators that suit the model and the data, all of which score the same images.

    Args:
        readings: evaluator -> readings that needed passes of their own -> mean AUROC.
    """
    cfg = job.cfg
    evaluators = build_evaluators(
        cfg.evals,
        splits,
        objective,
        cfg.batch_size,
        job.packages,
        job.requested_evals,
        job.runtime,
        held_out=_held_out(cfg, splits),
        multiverse=readings,
    )
    if not evaluators.evaluators:
        raise ConfigError("evals: no evaluator can run on this model and data; name some, such as evals=[linear_probe]")
    for name, evaluator in evaluators.evaluators.items():
        if (scored := list(getattr(evaluator, "splits", cfg.splits))) != list(cfg.splits):
            raise ConfigError(f"evals.{name}.splits={scored}: one report has one set of images; set splits=[...]")
    return evaluators


def _held_out(cfg: Evaluate, splits: Splits) -> tuple[str, ...]:
    """The split that thresholds and temperatures are fitted on, where there is one that is not scored."""
    if cfg.fit_on is None or cfg.fit_on in cfg.splits or not splits.size(cfg.fit_on):
        if cfg.calibrate is not None or (cfg.threshold is not None and threshold_rule(cfg).is_fitted):
            raise ConfigError(
                f"fit_on={cfg.fit_on}: thresholds and temperatures need images that are not scored; name a split that "
                "the data has and that is not among splits=[...]"
            )
        return ()
    return (cfg.fit_on,)


def _data_facts(job: Job[Evaluate], data: EvaluationData, evaluators: Evaluators) -> DataFacts:
    """What holds for every model that is scored on these images in the same way."""
    by_name = evaluators.evaluators
    return DataFacts(
        splits=tuple(job.cfg.splits),
        images=len(data.scored),
        manifest=data.splits.manifest.fingerprint(),
        uncertain_labels=str(data.cfg.label_policy),
        views=data.views,
        filter={column: shown_values(column, values) for column, values in data.cfg.filter.items()},
        left_out=data.left_out,
        rules={name: evaluator.rule for name, evaluator in by_name.items()},
        prompts={
            name: [PromptsFile(file, sentences) for file, sentences in files.items()]
            for name, files in evaluators.prompts.items()
        },
    )


def _of_random_weights(
    job: Job[Evaluate], checkpoint: Checkpoint, evaluators: Evaluators, data: EvaluationData, precision: Precision
) -> Mapping[str, EvaluatorResult]:
    """Results of the same architecture untrained, for evaluators that depend on the weights."""
    of_weights = {name: copy.copy(evaluator) for name, evaluator in evaluators.evaluators.items() if evaluator.needs}
    for evaluator in of_weights.values():
        if isinstance(evaluator, ZeroShot):
            evaluator.multiverse = None  # readings of other weights
    objective = untrained(checkpoint, job.packages, job.runtime.device)
    collection = Evaluators(of_weights, data.splits, job.cfg.batch_size, evaluators.held_out)
    return run_evaluators(objective, collection, job.runtime, precision)


def _held_out_scores(results: Mapping[str, EvaluatorResult]) -> dict[str, Scores]:
    return {name: result.held_out for name, result in results.items() if result.held_out is not None}


def _model_facts(checkpoint: Checkpoint, file: Path, data: EvaluationData, trained_on: TrainedOn | None) -> ModelFacts:
    """Which weights were scored, and what is known of their training."""
    return ModelFacts(
        checkpoint=str(file),
        step=checkpoint.step,
        weights="as trained" if checkpoint.state.average is None else "moving average",
        fingerprint=checkpoint.fingerprint(),
        trained_on=trained_on,
        views=views_of_training(checkpoint.recipe),
        views_not_seen=data.views_not_seen,
    )


def _similarity_at_start(
    initial: PromptDirections | None, results: Mapping[str, EvaluatorResult]
) -> dict[str, ClassSimilarity]:
    """Cosines between the prompts of classes before the training, for evaluators that show those after it."""
    similarity: dict[str, ClassSimilarity] = {}
    if initial is None:
        return similarity
    spaces = {name: result.artifacts["space"] for name, result in results.items() if "space" in result.artifacts}
    for name, space in spaces.items():
        classes = tuple(each for each in space.classes if each in initial.labels)
        if classes:
            directions = initial.directions[[initial.labels.index(each) for each in classes]]
            similarity[name] = ClassSimilarity(classes, (directions @ directions.T).numpy())
    return similarity
