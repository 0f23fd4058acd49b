"""Scoring checkpoints: each on the same films, then all of them in one table."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrcl import assemble, config, evaluators, mixture, restoring
from cxrcl.data import exposure
from cxrcl.data.loader import Feed
from cxrcl.data.manifest import Manifest
from cxrcl.data.splits import Splits
from cxrcl.data.texts import Texts
from cxrcl.data.transforms import RadiographTransform
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, DataError
from cxrcl.evaluation import subgroups
from cxrcl.evaluation.bootstrap import Patients
from cxrcl.evaluation.known import labels_of_mean
from cxrcl.evaluation.look import Evaluation
from cxrcl.evaluation.operating import operate
from cxrcl.evaluation.page.parts import Checkpoint, ClassSimilarity, Films, Page, from_look
from cxrcl.evaluation.score_models import score_models
from cxrcl.evaluation.score_report import ScoreReport, Scores
from cxrcl.evaluation.scoring import Predicted, ranked_only
from cxrcl.evaluation.thresholds import Rule, parse
from cxrcl.objectives.base import Objective
from cxrcl.trainer import Precision
from cxrcl.trainer import evaluate as run_evaluators
from cxrcl.types import Classifies

Packages = Sequence[str]
UNTRAINED, ENSEMBLE, SHUFFLED, VIEW = "random weights", "ensemble", "shuffled films", "view position only"
VIEW_ONLY = "view_only"  # the evaluator whose scores stand as `VIEW` beside those of the others


@dataclass(frozen=True)
class Checked:
    """What evaluators found in one model.

    Attributes:
        part: figures, scores and pictures, for a report.
        held_out: scores of the split that thresholds are fitted on, by evaluator.
        rules: how the figures of each evaluator come about.
        facts: on the films and on how they were scored, the same for all models where they are scored alike.
        films: the scored rows of the manifest.
    """

    part: Checkpoint
    held_out: Mapping[str, Scores]
    rules: Mapping[str, str]
    facts: Mapping[str, str]
    films: Manifest

    @property
    def name(self) -> str:
        return self.part.name


# ------------------------------------------------------------------------------------------------ one model


def check(
    file: Path,
    name: str,
    cfg: config.Evaluate,
    runtime: Runtime,
    packages: Packages,
    asked: Collection[str],
    random_weights: bool,
) -> list[Checked]:
    """Score one checkpoint, and the same architecture with random weights where that is asked for."""
    state, model, transform = restoring.restore(file, packages, runtime.device)
    stored = state["config"]
    if "exported" in state and cfg.data.root is None and cfg.data.store is None and not cfg.data.sources:
        trained_on = ", ".join(state.get("exposure", {}).get("sources", ())) or "films of unknown source"
        raise ConfigError(
            f"checkpoint={file}: an exported model does not say where data lie: set data.root=DIR, or data=<name> "
            f"(it was trained on {trained_on})"
        )
    data_cfg = config.parse(overlaid(stored["data"], cfg.data), config.Data)
    feed = Feed(data_cfg.num_workers)
    try:
        data, splits, left_out = _splits(model, transform, stored, data_cfg, cfg.splits, feed, runtime, packages)
        evaluation = evaluators.build_evaluators(cfg.evals, splits, model, cfg.batch_size, packages, asked, runtime)
        if not evaluation.evaluators:
            raise ConfigError(
                "evals: no evaluator can run on this model and data; name some, such as evals=[linear_probe]"
            )
        for each, evaluator in evaluation.evaluators.items():
            if (scores := list(getattr(evaluator, "splits", cfg.splits))) != list(cfg.splits):
                raise ConfigError(f"evals.{each}.splits={scores}: one report has one set of films; set splits=[...]")
        evaluation.held_out = _held_out(cfg, splits)
        precision = Precision(assemble.precision_name(stored["precision"], runtime.device), runtime.device)
        scored = data.take(np.concatenate([np.flatnonzero(data.rows["split"] == split) for split in cfg.splits]))
        rules = {each: evaluator.rule for each, evaluator in evaluation.evaluators.items()}
        facts = {
            "splits": " + ".join(cfg.splits),
            "images": str(len(scored)),
            **({"left out, cannot be read": str(left_out)} if data_cfg.skip_bad_images else {}),
            "manifest": data.fingerprint(),
            "uncertain labels": str(data_cfg.label_policy),
            **{f"{each} rule": rule for each, rule in rules.items()},
        }
        prompts = {k: str(e.file) for k, e in evaluation.evaluators.items() if hasattr(e, "file")}
        facts |= {f"{each} prompts": file_name for each, file_name in prompts.items()}
        films = Films(scored.rows["image"].tolist(), scored.rows["split"].tolist())
        own = {
            "checkpoint": str(file),
            "step": str(state["progress"]["step"]),
            "weights": "moving average" if "ema" in state else "as trained",
            "fingerprint of the weights": restoring.fingerprint(state),
            "trained on": _exposed(state, scored),
        }

        def found(name: str, model: Objective, own: Mapping[str, str], evaluation: Evaluation) -> Checked:
            figures = run_evaluators(model, evaluation, runtime, precision)
            left = evaluation.left
            start, training = (_at_start(state, left), _training(file)) if own else ({}, [])
            held_out = {each: kept["held_out"] for each, kept in left.items() if "held_out" in kept}
            part = replace(from_look(name, own, figures, left, start, training), films=films)
            return Checked(part, held_out, rules, facts, scored)

        checked = [found(name, model, own, evaluation)]
        if random_weights:  # of what depends on the weights
            of_weights = Evaluation({k: e for k, e in evaluation.evaluators.items() if e.needs}, splits, cfg.batch_size)
            of_weights.held_out = evaluation.held_out
            checked.append(found(UNTRAINED, restoring.untrained(state, packages, runtime.device), {}, of_weights))
        return checked
    finally:
        feed.close()


def _at_start(state: Mapping[str, Any], left: Mapping[str, Mapping[str, Any]]) -> dict[str, ClassSimilarity]:
    """Cosines between the prompts of classes before the training, for evaluators that show those after it."""
    initial, found = state.get("initial") or {}, {}
    for name, space in ((name, kept["space"]) for name, kept in left.items() if "space" in kept):
        classes = tuple(each for each in space.classes if each in initial.get("labels", ()))
        if classes:
            directions = initial["directions"][[initial["labels"].index(each) for each in classes]]
            found[name] = ClassSimilarity(classes, (directions @ directions.T).numpy())
    return found


def _training(file: Path) -> list[dict[str, float | None]]:
    """The log of the run that a checkpoint lies in; nothing where it was moved away from there, or exported."""
    log = file.absolute().parent.parent / "metrics.jsonl"
    if file.is_dir() or not log.is_file():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _splits(
    model: Objective,
    transform: RadiographTransform,
    stored: Mapping[str, Any],
    data_cfg: config.Data,
    names: Sequence[str],
    feed: Feed,
    runtime: Runtime,
    packages: Packages,
) -> tuple[Manifest, Splits, int]:
    """The films to score as the model was trained to see them; the number that was left out as unreadable."""
    films = assemble.how_films_are_read(data_cfg, packages)
    if films.read_px != data_cfg.read_px:
        raise ConfigError(
            f"the store holds films of {films.read_px} px, but the checkpoint was trained on films of any size: "
            f"data.read_px={films.read_px} evaluates it on these all the same"
        )
    data = assemble.load_data(data_cfg, runtime, packages)
    if isinstance(model.evaluated(), Classifies):
        data = data.with_labels(stored["labels"])
    left_out: Mapping[int, str] = {}
    if data_cfg.skip_bad_images:
        data, left_out = assemble.without_unreadable(data, names, feed, runtime, films)
    reports = assemble.report_sampler(data_cfg.reports)
    node = {**stored["prompts"], "file": stored["prompt_sentences"]}
    prompts = mixture.prompts_of(node, mixture.build_sources(data_cfg, packages), packages)
    splits = Splits(
        data,
        transform,
        lambda part: Texts(part, data_cfg.text, reports, prompts),
        getattr(model, "tokenizer", None),
        assemble.prepare(transform, runtime),
        feed,
        films,
    )
    for split in names:
        if not splits.size(split):
            raise DataError(f"splits: no row has the split {split}; set splits=[...] to ones that the data has")
    return data, splits, len(left_out)


def overlaid(stored: Mapping[str, Any], given: config.EvaluateData) -> dict[str, Any]:
    """The data settings of training, with what the user set for this evaluation laid over."""
    values = {key: value for key, value in given.model_dump().items() if value is not None and key != "sources"}
    if given.root is not None or given.store is not None or given.sources:
        # Other data: filters of the training data mean nothing there.
        sources = mixture.with_known_sentences(given.sources, stored["sources"])
        values = {"filter": {}, "views": None, "fraction": 1.0, "split_lists": None, **values}
        values |= {"sources": sources, "root": given.root, "store": given.store}
    return {**stored, **values}


def _held_out(cfg: config.Evaluate, splits: Splits) -> tuple[str, ...]:
    """The split that thresholds and temperatures are fitted on, where there is one that is not scored."""
    if cfg.fit_on is None or cfg.fit_on in cfg.splits or not splits.size(cfg.fit_on):
        if cfg.calibrate is not None or (cfg.threshold is not None and _rule(cfg).is_fitted):
            raise ConfigError(
                f"fit_on={cfg.fit_on}: thresholds and temperatures need films that are not scored; name a split that "
                "the data has and that is not among splits=[...]"
            )
        return ()
    return (cfg.fit_on,)


def _rule(cfg: config.Evaluate) -> Rule:
    try:
        return parse(str(cfg.threshold))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _exposed(state: Mapping[str, Any], scored: Manifest) -> str:
    """What the checkpoint was trained on, and whether the scored films are among it."""
    seen = state.get("exposure")
    if seen is None:
        return "not recorded in this checkpoint"
    text = ", ".join(f"{name} ({count} films)" for name, count in sorted(seen["sources"].items()))
    meets = exposure.overlap(seen, scored)
    if meets["films_seen"]:
        return f"{text}. CONTAMINATED: {meets['films_seen']} of {len(scored)} scored films were trained on"
    same = ", ".join(meets["same_sources"])
    return f"{text}. No scored film among them{f'; other films of {same} are' if same else ''}"


# ------------------------------------------------------------------------------------------------ all of them


def page(checked: Sequence[Checked], cfg: config.Evaluate, command: str, settings: str) -> Page:
    """Everything about all models, for `cxrcl.evaluation.output`."""
    first = checked[0]
    different = [each.name for each in checked if each.facts != first.facts]
    notes = [f"{name} was scored on other films, labels or by other rules than {first.name}" for name in different]
    notes += [
        f"{each.name}: {each.part.facts['trained on']}"
        for each in checked
        if "CONTAMINATED" in each.part.facts.get("trained on", "")
    ]
    models = [*checked, *ensemble(checked)] if cfg.ensemble else list(checked)
    scores = reports(models, cfg)
    return Page(
        title="Evaluation",
        facts=first.facts,
        notes=notes,
        checkpoints=[each.part for each in models],
        scores=scores,
        controls=[UNTRAINED, SHUFFLED, VIEW, *([VIEW_ONLY] if set(scores) - {VIEW_ONLY} else [])],
        config=settings,
        command=command,
    )


def reports(checked: Sequence[Checked], cfg: config.Evaluate) -> dict[str, ScoreReport]:
    """The scores of every model, by evaluator: with intervals, thresholds, subgroups, and each against the first."""
    found = {}
    for name in dict.fromkeys(name for each in checked for name in each.part.scores):
        models = [each for each in checked if name in each.part.scores]
        first = models[0].part.scores[name]
        alike = [each for each in models if _alike(each.part, models[0].part, name)]
        left_out = ", ".join(each.name for each in models if each not in alike)
        notes = [f"scored on other films or labels, and not in this table: {left_out}"] if left_out else []
        rows = models[0].films.rows
        groups, lacking = _groups(rows, cfg.groups)
        notes += lacking
        found[name] = score_models(
            [*(_operated(each, name, cfg) for each in alike), *_controls(models[0].part, name)],
            first.truth,
            Patients(rows["patient"].tolist(), cfg.resamples),
            labels_of_mean(first.labels, first.mean_over),
            groups,
            {"evaluator": name, "rule": models[0].rules[name]},
            notes,
            controls=(UNTRAINED, SHUFFLED, VIEW),
        )
    return found


def _groups(rows: pd.DataFrame, columns: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Column -> the group of each film, and notes on columns without groups: everything is scored by now."""
    absent = [column for column in columns if column not in rows]
    groups, notes = {}, [f"groups: the data have no column {', '.join(absent)}"] if absent else []
    for column in columns:
        if column in rows:
            try:
                groups[column] = subgroups.groups_of(column, rows[column].tolist())
            except ValueError as error:
                notes.append(f"groups: {error}")
    return groups, notes


def _alike(one: Checkpoint, other: Checkpoint, evaluator: str) -> bool:
    a, b = one.scores[evaluator], other.scores[evaluator]
    return one.films == other.films and a.labels == b.labels and np.array_equal(a.truth, b.truth, equal_nan=True)


def _controls(part: Checkpoint, evaluator: str) -> list[Predicted]:
    """What a model has to beat: its scores of other films, and what the view position tells."""
    scores = part.scores[evaluator]
    if evaluator == VIEW_ONLY:
        return []
    mixed = np.random.default_rng(0).permutation(len(scores.truth))
    found = [ranked_only(SHUFFLED, scores.labels, scores.scores[mixed])]
    view = part.scores.get(VIEW_ONLY)
    if view is not None and set(scores.labels) <= set(view.labels):
        columns = [view.labels.index(label) for label in scores.labels]
        found.append(ranked_only(VIEW, scores.labels, view.scores[:, columns]))
    return found


def _operated(each: Checked, evaluator: str, cfg: config.Evaluate) -> Predicted:
    scores, held_out = each.part.scores[evaluator], each.held_out.get(evaluator)
    rule = None if cfg.threshold is None else _rule(cfg)
    if rule is not None and rule.is_fitted and held_out is None:
        rule = None  # an evaluator that learns from other splits scores those that it is asked to only
    validation = None if held_out is None else (_best(held_out), held_out.truth)
    calibrate = cfg.calibrate is not None and scores.probabilities is not None and validation is not None
    found = operate(each.name, scores.labels, _best(scores), validation, rule, calibrate, cfg.fit_on or "valid")
    return replace(found, order=scores.scores)  # probabilities near 1 are rounded to ties that the scores do not have


def _best(scores: Scores) -> np.ndarray:
    return scores.scores if scores.probabilities is None else scores.probabilities


def ensemble(checked: Sequence[Checked]) -> list[Checked]:
    """One more model, the mean probability of all checkpoints (CheXzero, Tiu et al. 2022).

    Raises:
        ConfigError: they were scored on other films or labels.
    """
    trained = [each for each in checked if each.name != UNTRAINED]

    def mean(parts: Sequence[Scores]) -> Scores:
        probabilities = np.mean([part.probabilities for part in parts if part.probabilities is not None], axis=0)
        return replace(parts[0], scores=probabilities, probabilities=probabilities)

    first = trained[0].part
    names = [
        name
        for name in first.scores
        if all(name in each.part.scores and each.part.scores[name].probabilities is not None for each in trained)
    ]
    if not all(_alike(each.part, first, name) for each in trained for name in names):
        raise ConfigError("ensemble=true: the checkpoints were scored on other films or labels")
    scores = {name: mean([each.part.scores[name] for each in trained]) for name in names}
    held_out = {
        name: mean([each.held_out[name] for each in trained])
        for name in names
        if all(name in each.held_out for each in trained)
    }
    return [replace(trained[0], part=Checkpoint(name=ENSEMBLE, scores=scores, films=first.films), held_out=held_out)]
