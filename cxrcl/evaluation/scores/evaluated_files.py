"""The predictions.csv that evaluate.py writes, read as predictions: the columns of one evaluator of one model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from cxrcl.errors import ConfigError, DataError
from cxrcl.evaluation.scores.prediction_files import Table

# `report.output` writes these names; that of a model stands before the evaluator where there are several.
COLUMN = re.compile(r"(?P<evaluator>(?:.+ / )?[^/]+)/(?P<label>.+)/(?P<kind>score|probability)")


class Predictions(NamedTuple):
    """One model's predictions, columns by label.

    Attributes:
        decided: what decisions are made by: probabilities where there are any.
        ranked: what images are ranked by; None: by the same.
    """

    decided: Table
    ranked: Table | None = None


def predictions(tables: Sequence[Table], evaluator: str | None) -> list[Predictions]:
    """The predictions of each file, of evaluate.py or plain.

    Args:
        evaluator: as it stands before the first `/` of the columns; None where a file has one only.

    Raises:
        ConfigError: an evaluator is named and no file is one of evaluate.py.
        DataError: a file does not have it, or has several and none is named.
    """
    found = [_of_evaluator(table, evaluator) for table in tables]
    if evaluator is not None and all(one.ranked is None for one in found):
        raise ConfigError(
            f"--evaluator {evaluator}: {tables[0].file} is no predictions.csv of evaluate.py, whose columns are "
            "evaluator/label/score; leave the option out"
        )
    return found


def _of_evaluator(table: Table, evaluator: str | None) -> Predictions:
    columns = [(name, match) for name in table.names if (match := COLUMN.fullmatch(name))]
    if not columns:
        return Predictions(table)
    evaluators = list(dict.fromkeys(match["evaluator"] for _, match in columns))
    listed = ", ".join(repr(name) for name in evaluators)
    if evaluator is None and len(evaluators) > 1:
        raise DataError(f"{table.file} has the scores of several evaluators: choose with --evaluator: {listed}")
    if evaluator not in (None, *evaluators):
        raise DataError(f"{table.file}: no evaluator {evaluator!r}; it has {listed}")
    of_it = [(name, match) for name, match in columns if match["evaluator"] == (evaluator or evaluators[0])]
    decided = {name: match["label"] for name, match in of_it if match["kind"] == "probability"}
    ranked = {name: match["label"] for name, match in of_it if match["kind"] == "score"}
    if decided and (halves := set(decided.values()) ^ set(ranked.values())):
        raise DataError(
            f"{table.file}: {', '.join(sorted(halves))} has one of the columns score and probability only: keep "
            "both, or the scores of all labels only"
        )

    def named_by_label(columns: Mapping[str, str]) -> Table:
        return replace(table, rows=table.rows[[table.id_column, *columns]].rename(columns=dict(columns)))

    return Predictions(named_by_label(decided or ranked), named_by_label(ranked))
