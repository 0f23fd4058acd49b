"""One checkpoint of an evaluation: restored, scored, and described."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cxrcl.app.compare import UNTRAINED, ScoredModel, threshold_rule
from cxrcl.app.evaluation_data import EvaluationData, data_settings, open_data
from cxrcl.app.evaluators import build_evaluators
from cxrcl.app.plan import precision_name
from cxrcl.app.restore import restore, untrained
from cxrcl.checkpoint.content import Checkpoint, PromptDirections
from cxrcl.config import sections
from cxrcl.data import exposure
from cxrcl.data.loader import BatchReader
from cxrcl.data.splits import Splits
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError
from cxrcl.evaluation.evaluator import EvaluatorResult, Evaluators
from cxrcl.evaluation.report.content import ClassSimilarity, ScoredImages, from_results
from cxrcl.evaluation.report.facts import DataFacts, ModelFacts, TrainedOn
from cxrcl.evaluation.report.page import plot_training
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.objectives.base import Objective
from cxrcl.training.trainer import Precision
from cxrcl.training.trainer import evaluate as run_evaluators


@dataclass(frozen=True)
class Job:
    """What the scoring of every checkpoint needs.

    Attributes:
        packages: whose classes configs and checkpoints may name.
        requested_evals: evaluators that the user named; "*" for all.
    """

    cfg: sections.Evaluate
    packages: Sequence[str]
    requested_evals: Collection[str]
    runtime: Runtime


def score_checkpoint(job: Job, file: Path, name: str, with_untrained: bool) -> list[ScoredModel]:
    """Score one checkpoint, and the same architecture with random weights where that is asked for.

    Raises:
        UserError: a checkpoint, data or an evaluator that cannot be used.
    """
    runtime = job.runtime
    checkpoint, objective, transform = restore(file, job.packages, runtime.device)
    settings = data_settings(job.cfg, checkpoint, file)
    with closing(BatchReader(settings.num_workers)) as batch_reader:
        data = open_data(
            settings,
            job.cfg.splits,
            checkpoint.recipe,
            objective,
            transform,
            batch_reader,
            runtime,
            job.packages,
        )
        evaluators = _choose_evaluators(job, objective, data.splits)
        precision = Precision(precision_name(checkpoint.recipe.precision, runtime.device), runtime.device)
        facts = _data_facts(job, data, evaluators)
        results = run_evaluators(objective, evaluators, runtime, precision)
        models = [_of_checkpoint(name, file, checkpoint, results, data, facts)]
        if with_untrained:
            results = _of_random_weights(job, checkpoint, evaluators, data, precision)
            part = from_results(UNTRAINED, None, results, images=_images(data))
            models.append(ScoredModel(part, _held_out_scores(results), facts, data.scored))
        return models


def _choose_evaluators(job: Job, objective: Objective, splits: Splits) -> Evaluators:
    """Evaluators that suit the model and the data, all of which score the same images."""
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
    )
    if not evaluators.evaluators:
        raise ConfigError("evals: no evaluator can run on this model and data; name some, such as evals=[linear_probe]")
    for name, evaluator in evaluators.evaluators.items():
        if (scored := list(getattr(evaluator, "splits", cfg.splits))) != list(cfg.splits):
            raise ConfigError(f"evals.{name}.splits={scored}: one report has one set of images; set splits=[...]")
    return evaluators


def _held_out(cfg: sections.Evaluate, splits: Splits) -> tuple[str, ...]:
    """The split that thresholds and temperatures are fitted on, where there is one that is not scored."""
    if cfg.fit_on is None or cfg.fit_on in cfg.splits or not splits.size(cfg.fit_on):
        if cfg.calibrate is not None or (cfg.threshold is not None and threshold_rule(cfg).is_fitted):
            raise ConfigError(
                f"fit_on={cfg.fit_on}: thresholds and temperatures need images that are not scored; name a split that "
                "the data has and that is not among splits=[...]"
            )
        return ()
    return (cfg.fit_on,)


def _data_facts(job: Job, data: EvaluationData, evaluators: Evaluators) -> DataFacts:
    """What holds for every model that is scored on these images in the same way."""
    by_name = evaluators.evaluators
    return DataFacts(
        splits=tuple(job.cfg.splits),
        images=len(data.scored),
        manifest=data.manifest.fingerprint(),
        uncertain_labels=str(data.cfg.label_policy),
        left_out=data.left_out,
        rules={name: evaluator.rule for name, evaluator in by_name.items()},
        prompt_files={name: str(e.file) for name, e in by_name.items() if hasattr(e, "file")},
    )


def _of_checkpoint(
    name: str,
    file: Path,
    checkpoint: Checkpoint,
    results: Mapping[str, EvaluatorResult],
    data: EvaluationData,
    facts: DataFacts,
) -> ScoredModel:
    of_model = ModelFacts(
        checkpoint=str(file),
        step=checkpoint.step,
        weights="as trained" if checkpoint.state.average is None else "moving average",
        fingerprint=checkpoint.fingerprint(),
        trained_on=_trained_on(checkpoint, data),
    )
    at_start = _similarity_at_start(checkpoint.origin.initial_directions, results)
    part = from_results(name, of_model, results, at_start, _training_log(file), _images(data))
    return ScoredModel(part, _held_out_scores(results), facts, data.scored)


def _of_random_weights(
    job: Job, checkpoint: Checkpoint, evaluators: Evaluators, data: EvaluationData, precision: Precision
) -> Mapping[str, EvaluatorResult]:
    """Results of the same architecture untrained, for evaluators that depend on the weights."""
    of_weights = {name: evaluator for name, evaluator in evaluators.evaluators.items() if evaluator.needs}
    objective = untrained(checkpoint, job.packages, job.runtime.device)
    collection = Evaluators(of_weights, data.splits, job.cfg.batch_size, evaluators.held_out)
    return run_evaluators(objective, collection, job.runtime, precision)


def _images(data: EvaluationData) -> ScoredImages:
    rows = data.scored.rows
    return ScoredImages(rows["image"].tolist(), rows["split"].tolist())


def _held_out_scores(results: Mapping[str, EvaluatorResult]) -> dict[str, Scores]:
    return {name: result.held_out for name, result in results.items() if result.held_out is not None}


def _trained_on(checkpoint: Checkpoint, data: EvaluationData) -> TrainedOn | None:
    """What the checkpoint was trained on, and whether scored images are among it; None where it does not say."""
    recorded = checkpoint.origin.exposure
    if recorded is None:
        return None
    overlap = exposure.overlap({"sources": recorded.sources, "training_images": recorded.training_images}, data.scored)
    return TrainedOn(
        sources=recorded.sources,
        contaminated=overlap["trained_on"],
        scored=len(data.scored),
        same_sources=tuple(overlap["same_sources"]),
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


def _training_log(file: Path) -> list[dict[str, float | None]]:
    """The log of the run that a checkpoint lies in; nothing where it was moved away from there, or exported."""
    return [] if file.is_dir() else plot_training.read(file.absolute().parent.parent / "metrics.jsonl")
