"""All models of an evaluation in one report: controls, ensembles, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from cxrcl.config import sections
from cxrcl.data import manifest as manifests
from cxrcl.data.manifest import Manifest
from cxrcl.errors import ConfigError, DataError, nearest
from cxrcl.evaluation.metrics import labels_of_mean
from cxrcl.evaluation.report.content import Checkpoint, Page
from cxrcl.evaluation.report.facts import DataFacts
from cxrcl.evaluation.scores import reader_files, subgroups
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.fixed_rates import FixedRate
from cxrcl.evaluation.scores.models import score_models
from cxrcl.evaluation.scores.reader_files import Readings
from cxrcl.evaluation.scores.score_report import ScoreReport, Scores
from cxrcl.evaluation.scores.scoring import Predicted, ranked_only
from cxrcl.evaluation.scores.thresholds import ThresholdRule, parse_rule, predicted_from_scores
from cxrcl.evaluation.scores.use import with_use

UNTRAINED, ENSEMBLE, SHUFFLED, VIEW = "random weights", "ensemble", "shuffled images", "view position only"
VIEW_ONLY = "view_only"  # the evaluator whose scores stand as `VIEW` beside those of the others


@dataclass(frozen=True)
class ScoredModel:
    """The results of one model.

    Attributes:
        part: metrics, scores and pictures, for a report.
        held_out: scores of the split that thresholds are fitted on, by evaluator.
        facts: on the images and on how they were scored, the same for all models where they are scored alike.
        scored: rows of the manifest.
        notes: what a reader has to know of how its data were chosen.
    """

    part: Checkpoint
    held_out: Mapping[str, Scores]
    facts: DataFacts
    scored: Manifest
    notes: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.part.name


def threshold_rule(cfg: sections.Evaluate) -> ThresholdRule:
    """The rule of the setting `threshold`."""
    try:
        return parse_rule(str(cfg.threshold))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def make_page(models: Sequence[ScoredModel], cfg: sections.Evaluate, run: Mapping[str, Any]) -> Page:
    """Everything about all models, for `cxrcl.evaluation.report.output`; `run` as in `Page`."""
    first = models[0]
    different = [each.name for each in models if each.facts != first.facts]
    notes = _shared_notes(models)
    notes += [f"{name} was scored on other images, labels or by other rules than {first.name}" for name in different]
    notes += [
        f"{each.name}: {each.part.facts.trained_on}"
        for each in models
        if each.part.facts is not None
        and each.part.facts.trained_on
        and (each.part.facts.trained_on.contaminated or each.part.facts.trained_on.perhaps_patient_seen)
    ]
    shown = [*models, ensemble_of(models)] if cfg.ensemble else list(models)
    scores = score_reports(shown, cfg)
    return Page(
        title="Evaluation",
        data=first.facts,
        notes=notes,
        checkpoints=[each.part for each in shown],
        scores=scores,
        controls=[UNTRAINED, SHUFFLED, VIEW, *([VIEW_ONLY] if set(scores) - {VIEW_ONLY} else [])],
        config=yaml.safe_dump(run["settings"], sort_keys=False, allow_unicode=True),
        command=run["command"],
        facts={"made by": run["made by"]},
        run=run,
    )


def _shared_notes(models: Sequence[ScoredModel]) -> list[str]:
    """Notes of all models once; of some only, with their names."""
    proper = [model for model in models if model.name != UNTRAINED]
    notes = dict.fromkeys(note for model in proper for note in model.notes)
    return [
        note if len(having) == len(proper) else f"{', '.join(having)}: {note}"
        for note in notes
        for having in [[model.name for model in proper if note in model.notes]]
    ]


def score_reports(models: Sequence[ScoredModel], cfg: sections.Evaluate) -> dict[str, ScoreReport]:
    """The scores of all models, by evaluator: with intervals, thresholds, subgroups, and each against the reference."""
    evaluators = dict.fromkeys(name for model in models for name in model.part.scores)
    return {name: _report([model for model in models if name in model.part.scores], name, cfg) for name in evaluators}


def _report(models: Sequence[ScoredModel], evaluator: str, cfg: sections.Evaluate) -> ScoreReport:
    """One evaluator's scores of the models that have them."""
    first = next((model for model in models if model.name == cfg.reference), models[0])
    scores, rows = first.part.scores[evaluator], first.scored.rows
    alike = [model for model in models if _alike(model.part, first.part, evaluator)]
    others = ", ".join(model.name for model in models if model not in alike)
    notes = [f"scored on other images or labels, and not in this table: {others}"] if others else []
    if cfg.reference not in (None, first.name):
        notes.append(f"reference={cfg.reference} has no such scores: compared with {first.name}")
    groups, notes_on_groups = _groups(rows, cfg.groups)
    readings, notes_on_readers, facts = _readings(cfg, rows, scores.names)
    predicted = [_predicted(model, evaluator, cfg) for model in alike]
    patients = Patients(rows["patient"].tolist(), cfg.resamples)
    mean_over = labels_of_mean(scores.names, scores.mean_over)
    report = score_models(
        [*predicted, *_controls(first.part, evaluator)],
        scores.labels,
        patients,
        mean_over,
        groups,
        {"evaluator": evaluator, "rule": first.facts.rules[evaluator], **facts},
        [*notes, *notes_on_groups, *notes_on_readers],
        controls=(UNTRAINED, SHUFFLED, VIEW),
        reference=first.name,
    )
    proper = [model for model in predicted if model.name != UNTRAINED]
    rates = [FixedRate(fixed, least) for fixed, several in cfg.at.items() for least in several]
    return with_use(report, proper, scores.labels, patients, mean_over, rates, readings)


def check_asked(cfg: sections.Evaluate, scored: Manifest) -> None:
    """Check, before the work, what a report of these images is asked for.

    Raises:
        ConfigError: a column that no manifest has, an intersection of columns that the data lack, or of too many
            groups.
        DataError: readings that cannot be used.
    """
    known = (*manifests.REQUIRED, *manifests.OPTIONAL, "part")
    for name in cfg.groups:
        columns = subgroups.columns_of(name)
        if foreign := [column for column in columns if column not in known]:
            raise ConfigError(f"groups=[{name}]: no column {foreign[0]}{nearest(foreign[0], known)}")
        if len(columns) > 1:
            if absent := [column for column in columns if column not in scored.rows]:
                raise ConfigError(f"groups=[{name}]: the data have no column {', '.join(absent)}")
            try:
                subgroups.groups_of(name, *(scored.rows[column].tolist() for column in columns))
            except ValueError as error:
                raise ConfigError(f"groups=[{name}]: {error}") from None
    if cfg.readers:
        reader_files.read(Path(cfg.readers).expanduser(), "image", scored.rows["image"].tolist(), scored.labels)


def _readings(
    cfg: sections.Evaluate, rows: pd.DataFrame, labels: Sequence[str]
) -> tuple[list[Readings], list[str], dict[str, dict[str, str]]]:
    """What readers said of the labels of an evaluator, notes, and the file as a fact; `check_asked` has seen it."""
    if not cfg.readers:
        return [], [], {}
    file = Path(cfg.readers).expanduser()
    try:
        readings, notes, digest = reader_files.read(file, "image", rows["image"].tolist(), labels)
    except DataError as error:
        return [], [f"readers: {error}"], {}
    return readings, notes, {"readers": {str(file): digest}}


def _groups(rows: pd.DataFrame, names: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Column or intersection -> the group of each image, and notes on columns without groups: all is scored by now."""
    columns = {name: subgroups.columns_of(name) for name in names}
    absent = dict.fromkeys(column for of_name in columns.values() for column in of_name if column not in rows)
    groups, notes = {}, [f"groups: the data have no column {', '.join(absent)}"] if absent else []
    for name, of_name in columns.items():
        if not absent.keys() & set(of_name):
            try:
                groups[name] = subgroups.groups_of(name, *(rows[column].tolist() for column in of_name))
            except ValueError as error:
                notes.append(f"groups: {error}")
    return groups, notes


def _alike(one: Checkpoint, other: Checkpoint, evaluator: str) -> bool:
    a, b = one.scores[evaluator], other.scores[evaluator]
    return one.images == other.images and a.names == b.names and np.array_equal(a.labels, b.labels, equal_nan=True)


def _controls(part: Checkpoint, evaluator: str) -> list[Predicted]:
    """What a model has to beat: its scores of other images, and what the view position tells."""
    scores = part.scores[evaluator]
    if evaluator == VIEW_ONLY:
        return []
    mixed = np.random.default_rng(0).permutation(len(scores.labels))
    controls = [ranked_only(SHUFFLED, scores.names, scores.scores[mixed])]
    view = part.scores.get(VIEW_ONLY)
    if view is not None and set(scores.names) <= set(view.names):
        columns = [view.names.index(name) for name in scores.names]
        controls.append(ranked_only(VIEW, scores.names, view.scores[:, columns]))
    return controls


def _predicted(model: ScoredModel, evaluator: str, cfg: sections.Evaluate) -> Predicted:
    """Scores with thresholds and calibration, which are fitted on held-out images only."""
    scores, held_out = model.part.scores[evaluator], model.held_out.get(evaluator)
    rule = None if cfg.threshold is None else threshold_rule(cfg)
    if rule is not None and rule.is_fitted and held_out is None:
        rule = None  # an evaluator that learns from other splits scores those that it is asked to only
    validation = None if held_out is None else (_best(held_out), held_out.labels)
    calibrate = cfg.calibrate is not None and scores.probabilities is not None and validation is not None
    predicted = predicted_from_scores(
        model.name, scores.names, _best(scores), validation, rule, calibrate, cfg.fit_on or "valid"
    )
    # Ranked by the scores: probabilities near 1 are rounded to ties that the scores do not have.
    return replace(predicted, order=scores.scores)


def _best(scores: Scores) -> np.ndarray:
    return scores.scores if scores.probabilities is None else scores.probabilities


def ensemble_of(models: Sequence[ScoredModel]) -> ScoredModel:
    """One more model, the mean probability of all checkpoints (CheXzero, Tiu et al. 2022).

    Raises:
        ConfigError: they were scored on other images or labels.
    """
    trained = [model for model in models if model.name != UNTRAINED]
    first = trained[0].part
    names = [
        name
        for name in first.scores
        if all(name in model.part.scores and model.part.scores[name].probabilities is not None for model in trained)
    ]
    if not all(_alike(model.part, first, name) for model in trained for name in names):
        raise ConfigError("ensemble=true: the checkpoints were scored on other images or labels")
    scores = {name: _mean([model.part.scores[name] for model in trained]) for name in names}
    held_out = {
        name: _mean([model.held_out[name] for model in trained])
        for name in names
        if all(name in model.held_out for model in trained)
    }
    return replace(trained[0], part=Checkpoint(name=ENSEMBLE, scores=scores, images=first.images), held_out=held_out)


def _mean(parts: Sequence[Scores]) -> Scores:
    """The mean probability, as scores of the first of the models."""
    probabilities = np.mean([part.probabilities for part in parts if part.probabilities is not None], axis=0)
    return replace(parts[0], scores=probabilities, probabilities=probabilities)
