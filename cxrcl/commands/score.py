"""Score predictions of any model: `cxrcl score --predictions p.csv --labels l.csv --out DIR`.

One row an image, one column a label, in both files; rows are matched by `image` (--id-column), columns by name.
Several files of predictions stand in one table, each compared with the first (--reference). No model is needed.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cxrcl
from cxrcl.commands.entry import Parser, at_least, guarded
from cxrcl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cxrcl.evaluation.scores.fixed_rates import FixedRate
    from cxrcl.evaluation.scores.prediction_files import Table
    from cxrcl.evaluation.scores.score_report import ScoreReport, Scores
    from cxrcl.evaluation.scores.thresholds import ThresholdRule

RESULTS, REPORT, PAGE = "results.json", "report.md", "report.html"


def _names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(prog="score.py", description=(__doc__ or "").partition(":")[0] + ".", allow_abbrev=False)
    add = parser.add_argument
    add("--predictions", required=True, nargs="+", type=Path, metavar="CSV", help="one file a model")
    add("--labels", required=True, type=Path, metavar="CSV", help="labels 1, 0, -1 or blank; a manifest.csv will do")
    add("--out", required=True, type=Path, metavar="DIR", help=f"the folder for {PAGE}, {REPORT} and {RESULTS}")
    add("--overwrite", action="store_true", help="write over those of an earlier run")
    add("--split", type=_names, metavar="NAMES", help="rows of the labels to score, by their column split: test")
    add("--valid-predictions", nargs="+", type=Path, metavar="CSV", help="of the validation images, one file a model")
    add("--valid-labels", type=Path, metavar="CSV", help="their labels (default: split valid of --labels)")
    add("--threshold", metavar="RULE", help="f1, youden, sensitivity=0.9 (fitted on validation), or a number")
    add("--calibrate", choices=["temperature"], help="fit one temperature a label on validation")
    add("--labels-keep", nargs="+", metavar="LABEL", help="score these only")
    add("--mean-over", nargs="+", metavar="LABEL", help="labels of the averages (default: all but No Finding)")
    add("--groups", type=_names, default=[], metavar="COLUMNS", help="of the labels file: 'sex,view,sex*age'")
    add("--at", metavar="RATES", help="read ROC curves there (default: specificity=0.9,sensitivity=0.9)")
    add("--readers", type=Path, metavar="CSV", help="columns image, reader and one a label: people to compare with")
    add("--evaluator", metavar="NAME", help="of the files of predictions that evaluate.py wrote: zero_shot")
    add("--id-column", default="image", help="names the image in every file (default: %(default)s)")
    add("--patient-column", help="names the patient in the labels file (default: patient, where there is one)")
    add("--resamples", type=at_least(0), default=1000, help="of the patients, for intervals (default: %(default)s)")
    add("--reference", metavar="NAME", help="compare with this model (default: that of the first file)")
    add("--seed", type=at_least(0), default=0, help="of the resamples (default: %(default)s)")
    return parser


def main() -> None:
    guarded(run)


def run() -> None:
    options = make_parser().parse_args()
    targets = [options.out / name for name in (RESULTS, REPORT, PAGE)]
    if not options.overwrite and any(target.exists() for target in targets):
        raise ConfigError(f"{options.out} has the scores of an earlier run: add --overwrite, or name another folder")

    from cxrcl.evaluation.report import score_markdown
    from cxrcl.evaluation.report.content import of_scores
    from cxrcl.evaluation.report.page.render import render
    from cxrcl.evaluation.report.results_files import lean, written
    from cxrcl.evaluation.scores.score_report import plain

    report, scores = build(options)
    options.out.mkdir(parents=True, exist_ok=True)
    targets[0].write_bytes(written(lean(plain(report))))
    targets[1].write_text(score_markdown.markdown(report), encoding="utf-8")
    targets[2].write_text(render(of_scores(report, scores)), encoding="utf-8")
    print(score_markdown.summary(report), end="\n\n")
    print(f"written: {', '.join(map(str, targets))}")


def build(options: argparse.Namespace) -> tuple[ScoreReport, dict[str, Scores]]:
    """Read the files and score them.

    Returns:
        The report, and by model the scores that curves are drawn of.
    """
    from cxrcl.evaluation.metrics import labels_of_mean
    from cxrcl.evaluation.scores import evaluated_files, prediction_files, reader_files, subgroups
    from cxrcl.evaluation.scores.bootstrap import Patients
    from cxrcl.evaluation.scores.models import score_models
    from cxrcl.evaluation.scores.score_report import Scores
    from cxrcl.evaluation.scores.thresholds import predicted_from_scores
    from cxrcl.evaluation.scores.use import with_use

    rule, rates = _rule(options), _rates(options)
    files = [prediction_files.read(file, options.id_column) for file in options.predictions]
    offered = evaluated_files.predictions(files, options.evaluator)
    predictions = [one.decided for one in offered]
    labels = prediction_files.of_splits(prediction_files.read(options.labels, options.id_column), options.split)
    validation, valid_tables = _validation(options, labels)
    grouping = [column for name in options.groups for column in subgroups.columns_of(name)]
    no_labels = [options.id_column, *grouping, *([options.patient_column] if options.patient_column else [])]
    names, notes = prediction_files.shared_labels(predictions, labels, options.labels_keep, no_labels)
    if unknown := [name for name in options.mean_over or () if name not in names]:
        raise ConfigError(f"--mean-over: no label {', '.join(unknown)}; there are {', '.join(names)}")
    patients, patient_notes = _patients(options, labels)
    validation_values = None if validation is None else prediction_files.label_values(validation, names)
    models = []
    model_names = prediction_files.model_names(options.predictions)
    if options.reference is not None and options.reference not in model_names:
        raise ConfigError(f"--reference {options.reference}: no such model; expected one of {', '.join(model_names)}")
    for k, (name, table) in enumerate(zip(model_names, predictions, strict=True)):
        held_out = None
        if validation is not None and validation_values is not None:
            held_out = (prediction_files.scores(valid_tables[k], names, validation.ids), validation_values)
        scores = prediction_files.scores(table, names, labels.ids)
        model = predicted_from_scores(name, names, scores, held_out, rule, options.calibrate is not None)
        if (ranked := offered[k].ranked) is not None:
            model = replace(model, order=prediction_files.scores(ranked, names, labels.ids))
        models.append(model)
    columns = {name: [labels.column(part) for part in subgroups.columns_of(name)] for name in options.groups}
    try:
        groups = {name: subgroups.groups_of(name, *of_name) for name, of_name in columns.items()}
    except ValueError as error:
        raise DataError(f"--groups: {error}") from None
    tables = [*predictions, labels, *valid_tables, *([validation] if validation is not None else [])]
    digests = prediction_files.digests(tables)
    values = prediction_files.label_values(labels, names)
    readings: list[reader_files.Readings] = []
    if options.readers:
        readings, reader_notes, digest = reader_files.read(
            options.readers, options.id_column, labels.ids.tolist(), names
        )
        notes, digests = [*notes, *reader_notes], {**digests, str(options.readers): digest}
    drawn, mean_over = Patients(patients, options.resamples, options.seed), labels_of_mean(names, options.mean_over)
    report = score_models(
        models,
        values,
        drawn,
        mean_over,
        groups,
        facts={
            "command": f"score.py {shlex.join(sys.argv[1:])}",
            "version": f"cxrcl {cxrcl.__version__}",
            "files": digests,
            **({"evaluator": options.evaluator} if options.evaluator else {}),
            "split": ", ".join(options.split) if options.split else "all rows",
        },
        notes=[*notes, *patient_notes],
        reference=options.reference,
    )
    report = with_use(report, models, values, drawn, mean_over, rates, readings)
    drawn_by = {one.name: one.scores if one.order is None else one.order for one in models}
    return report, {one.name: Scores(one.labels, drawn_by[one.name], values, one.probabilities) for one in models}


def _rates(options: argparse.Namespace) -> Sequence[FixedRate]:
    from cxrcl.evaluation.scores import fixed_rates

    if options.at is None:
        return fixed_rates.DEFAULT
    try:
        return fixed_rates.parse(options.at)
    except ValueError as error:
        raise ConfigError(f"--at {error}") from None


def _rule(options: argparse.Namespace) -> ThresholdRule | None:
    from cxrcl.evaluation.scores.thresholds import parse_rule

    try:
        rule = parse_rule(options.threshold) if options.threshold else None
    except ValueError as error:
        raise ConfigError(f"--{error}") from None
    fitted = f"--threshold {options.threshold}" if rule is not None and rule.is_fitted else None
    if fitted is None and options.calibrate:
        fitted = f"--calibrate {options.calibrate}"
    if fitted and not options.valid_predictions:
        raise ConfigError(f"{fitted} is fitted on validation images, never on those scored: add --valid-predictions")
    return rule


def _validation(options: argparse.Namespace, labels: Table) -> tuple[Table | None, Sequence[Table]]:
    """The labels of the validation images, and the predictions for them of each model."""
    from cxrcl.evaluation.scores import evaluated_files, prediction_files

    if not options.valid_predictions:
        if options.valid_labels:
            raise ConfigError("--valid-labels: there are no --valid-predictions")
        return None, []
    if len(options.valid_predictions) != len(options.predictions):
        raise ConfigError(
            f"--valid-predictions: {len(options.valid_predictions)} files for {len(options.predictions)} models; "
            "give one a model, in the order of --predictions"
        )
    table = prediction_files.read(options.valid_labels or options.labels, options.id_column)
    has_valid = "split" in table.rows and "valid" in table.column("split")
    if options.valid_labels is None or has_valid:
        table = prediction_files.of_splits(table, ["valid"])
    prediction_files.check_apart(labels, table)
    files = [prediction_files.read(file, options.id_column) for file in options.valid_predictions]
    return table, [one.decided for one in evaluated_files.predictions(files, options.evaluator)]


def _patients(options: argparse.Namespace, labels: Table) -> tuple[list[str], list[str]]:
    """The patient of each row, and a note where rows stand for patients."""
    column = options.patient_column or ("patient" if "patient" in labels.rows else None)
    if column is None:
        note = f"{labels.file.name} has no column patient: intervals take every image for a patient of its own"
        return labels.ids.tolist(), [note]
    return labels.column(column), []
