"""Score predictions of any model: `python scripts/score.py --predictions p.csv --labels l.csv --out DIR`.

One row an image, one column a label, in both files; rows are matched by `image` (--id-column), columns by name.
Several files of predictions stand in one table, each compared with the first. No model is needed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cxrcl
from cxrcl.cli import Parser, guarded
from cxrcl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cxrcl.evaluation.score_files import Table
    from cxrcl.evaluation.score_report import ScoreReport, Scores
    from cxrcl.evaluation.thresholds import Rule

RESULTS, REPORT, PAGE = "results.json", "report.md", "report.html"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number, 0 or more, found {text!r}")
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="score.py", description=(__doc__ or "").partition(":")[0] + ".", allow_abbrev=False)
    add = parser.add_argument
    add("--predictions", required=True, nargs="+", type=Path, metavar="CSV", help="one file a model")
    add("--labels", required=True, type=Path, metavar="CSV", help="labels 1, 0, -1 or blank; a manifest.csv will do")
    add("--out", required=True, type=Path, metavar="DIR", help=f"the folder for {PAGE}, {REPORT} and {RESULTS}")
    add("--overwrite", action="store_true", help="write over those of an earlier run")
    add("--split", type=_names, metavar="NAMES", help="rows of the labels to score, by their column split: test")
    add("--valid-predictions", nargs="+", type=Path, metavar="CSV", help="of the validation films, one file a model")
    add("--valid-labels", type=Path, metavar="CSV", help="their labels (default: split valid of --labels)")
    add("--threshold", metavar="RULE", help="f1, youden, sensitivity=0.9 (fitted on validation), or a number")
    add("--calibrate", choices=["temperature"], help="fit one temperature a label on validation")
    add("--labels-keep", nargs="+", metavar="LABEL", help="score these only")
    add("--mean-over", nargs="+", metavar="LABEL", help="labels of the averages (default: all but No Finding)")
    add("--groups", type=_names, default=[], metavar="COLUMNS", help="of the labels file: sex,view,age")
    add("--id-column", default="image", help="names the image in every file (default: %(default)s)")
    add("--patient-column", help="names the patient in the labels file (default: patient, where there is one)")
    add("--resamples", type=_count, default=1000, help="of the patients, for intervals (default: %(default)s)")
    add("--seed", type=_count, default=0, help="of the resamples (default: %(default)s)")
    return parser


def main() -> None:
    given = make_parser().parse_args()
    targets = [given.out / name for name in (RESULTS, REPORT, PAGE)]
    if not given.overwrite and any(target.exists() for target in targets):
        raise ConfigError(f"{given.out} has the scores of an earlier run: add --overwrite, or name another folder")

    from cxrcl.evaluation import score_markdown
    from cxrcl.evaluation.page import of_scores, render
    from cxrcl.evaluation.score_report import plain

    report, scores = build(given)
    given.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    targets[0].write_text(text, encoding="utf-8")
    targets[1].write_text(score_markdown.markdown(report), encoding="utf-8")
    targets[2].write_text(render(of_scores(report, scores)), encoding="utf-8")
    print(score_markdown.summary(report), end="\n\n")
    print(f"written: {', '.join(map(str, targets))}")


def build(given: argparse.Namespace) -> tuple[ScoreReport, dict[str, Scores]]:
    """Read the files and score them; the report, and what curves are drawn of by model."""
    from cxrcl.evaluation import score_files, subgroups
    from cxrcl.evaluation.bootstrap import Patients
    from cxrcl.evaluation.known import labels_of_mean
    from cxrcl.evaluation.operating import operate
    from cxrcl.evaluation.score_models import score_models
    from cxrcl.evaluation.score_report import Scores

    rule = _rule(given)
    predictions = [score_files.read(file, given.id_column) for file in given.predictions]
    labels = score_files.of_splits(score_files.read(given.labels, given.id_column), given.split)
    validation, valid_tables = _validation(given, labels)
    other = [given.id_column, *given.groups, *([given.patient_column] if given.patient_column else [])]
    names, notes = score_files.shared_labels(predictions, labels, given.labels_keep, other)
    mean_over = labels_of_mean(names, given.mean_over)
    if unknown := [name for name in given.mean_over or () if name not in names]:
        raise ConfigError(f"--mean-over: no label {', '.join(unknown)}; there are {', '.join(names)}")
    patients, note = _patients(given, labels)
    held_out_truth = None if validation is None else score_files.truth(validation, names)
    models = []
    for k, (name, table) in enumerate(zip(score_files.model_names(given.predictions), predictions, strict=True)):
        held_out = None
        if validation is not None and held_out_truth is not None:
            held_out = (score_files.scores(valid_tables[k], names, validation.ids), held_out_truth)
        scores = score_files.scores(table, names, labels.ids)
        models.append(operate(name, names, scores, held_out, rule, given.calibrate is not None))
    values = {name: labels.column(name) for name in given.groups}
    try:
        groups = {name: subgroups.groups_of(name, column) for name, column in values.items()}
    except ValueError as error:
        raise DataError(f"--groups: {error}") from None
    tables = [*predictions, labels, *valid_tables, *([validation] if validation is not None else [])]
    facts = {
        "command": f"score.py {shlex.join(sys.argv[1:])}",
        "version": f"cxrcl {cxrcl.__version__}",
        "files": score_files.digests(tables),
        "split": ", ".join(given.split) if given.split else "all rows",
    }
    resampled = Patients(patients, given.resamples, given.seed)
    truth = score_files.truth(labels, names)
    report = score_models(models, truth, resampled, mean_over, groups, facts, [*notes, *note])
    return report, {one.name: Scores(one.labels, one.scores, truth, one.probabilities) for one in models}


def _rule(given: argparse.Namespace) -> Rule | None:
    from cxrcl.evaluation.thresholds import parse

    try:
        rule = parse(given.threshold) if given.threshold else None
    except ValueError as error:
        raise ConfigError(f"--{error}") from None
    fitted = f"--threshold {given.threshold}" if rule is not None and rule.is_fitted else None
    if fitted is None and given.calibrate:
        fitted = f"--calibrate {given.calibrate}"
    if fitted and not given.valid_predictions:
        raise ConfigError(f"{fitted} is fitted on validation films, never on those scored: add --valid-predictions")
    return rule


def _validation(given: argparse.Namespace, labels: Table) -> tuple[Table | None, Sequence[Table]]:
    """The labels of the validation films, and the predictions for them of each model."""
    from cxrcl.evaluation import score_files

    if not given.valid_predictions:
        if given.valid_labels:
            raise ConfigError("--valid-labels: there are no --valid-predictions")
        return None, []
    if len(given.valid_predictions) != len(given.predictions):
        raise ConfigError(
            f"--valid-predictions: {len(given.valid_predictions)} files for {len(given.predictions)} models; "
            "give one a model, in the order of --predictions"
        )
    table = score_files.read(given.valid_labels or given.labels, given.id_column)
    has_valid = "split" in table.rows and "valid" in set(table.rows["split"])
    if given.valid_labels is None or has_valid:
        table = score_files.of_splits(table, ["valid"])
    score_files.check_apart(labels, table)
    return table, [score_files.read(file, given.id_column) for file in given.valid_predictions]


def _patients(given: argparse.Namespace, labels: Table) -> tuple[list[str], list[str]]:
    """The patient of each row, and a note where rows stand for patients."""
    column = given.patient_column or ("patient" if "patient" in labels.rows else None)
    if column is None:
        note = f"{labels.file.name} has no column patient: intervals take every image for a patient of its own"
        return labels.ids.tolist(), [note]
    return labels.column(column), []


if __name__ == "__main__":
    guarded(main)
