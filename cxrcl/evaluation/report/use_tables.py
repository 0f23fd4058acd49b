"""The tables of a ScoreReport that show how scores would be used: fixed rates, rejection, net benefit, readers."""

from __future__ import annotations

from collections.abc import Sequence

from cxrcl.evaluation.report.score_tables import labels_of
from cxrcl.evaluation.report.table import Cell, Row, Table, number_cell, score_cell
from cxrcl.evaluation.scores.readers import METRICS, is_mean
from cxrcl.evaluation.scores.score_report import FixedRateScores, ModelScores, ReaderScores, Score, SelectiveScores

SHOWN = (0.05, 0.1, 0.2, 0.5)  # threshold probabilities of the table; the picture has all
MOST_PRINTED = 15  # rows on a terminal
CALIBRATED = "Net benefit presumes calibrated probabilities: where they are not, it tells of the calibration."
NOT_TRANSFERRED = (
    "Read off the ROC curve of the scored images: what their ranking allows, not what a threshold that was chosen on "
    "other images reaches."
)
THESE_READERS = (
    "On the images that each reader read and whose label is known; curves are of those that any of them read. "
    "Intervals hold for these readers and say nothing of others."
)


def use_tables(model: ModelScores) -> list[tuple[str, Table]]:
    """The tables of one model, each after what has to be known of it: a text has no second row of heads for several."""
    return [
        *((NOT_TRANSFERRED, table) for table in fixed_rate_tables([model])),
        *(("", table) for table in selective_tables([model])),
        *((CALIBRATED, table) for table in net_benefit_tables([model])),
    ]


def brief_tables(models: Sequence[ModelScores]) -> list[Table]:
    """Means over labels, and models beside readers: as much as fits a terminal."""
    models = [model for model in models if model.selective]  # controls have none
    rows: list[Row] = []
    for model in models:
        areas = [_areas(part)[0] for part in model.selective if part.label == "macro"]
        rows.append([model.name, *(_mean_cell(part) for part in model.fixed_rates), *areas])
    head = ["mean over labels", *(_rate_titles(models[0].fixed_rates) if models else []), "AURC"]
    beside = [_against(model, brief=True) for model in models if model.against_readers]
    return [Table("Means", head, rows), *(table for table in beside if len(table.rows) <= MOST_PRINTED)]


def _rate_titles(parts: Sequence[FixedRateScores]) -> list[str]:
    return [f"{part.metric} at {part.fixed} {part.least:g}" for part in parts]


def _mean_cell(part: FixedRateScores) -> Cell:
    return score_cell(part.macro, f"over {len(part.over)} labels" if part.macro.value is not None else "")


def fixed_rate_tables(models: Sequence[ModelScores]) -> list[Table]:
    """One row a label; a column for each rate of each model. Nothing where no rate was asked for."""
    if not any(model.fixed_rates for model in models):
        return []
    titles = _rate_titles(models[0].fixed_rates)
    rows: list[Row] = []
    for name in labels_of(models):
        row: list[Cell | str] = [name]
        for model in models:
            row += [score_cell(part.labels[name]) if name in part.labels else Cell("") for part in model.fixed_rates]
        rows.append(row)
    rows.append(["macro", *(_mean_cell(part) for model in models for part in model.fixed_rates)])
    above = [("", 1), *((model.name, len(titles)) for model in models)] if len(models) > 1 else []
    caption = f"Sensitivity at fixed specificity{_of_one(models)}, and the reverse"
    return [Table(caption, ["label", *titles * len(models)], rows, above, totals=1)]


def _of_one(models: Sequence[ModelScores]) -> str:
    return f" of {models[0].name}" if len(models) == 1 else ""


def selective_tables(models: Sequence[ModelScores]) -> list[Table]:
    """One row a label; three columns for each model. Nothing where no model has decisions with probabilities."""
    models = [model for model in models if any(part.aurc.value is not None for part in model.selective)]
    if not models:
        return []
    titles = ["AURC", "E-AURC", "wrong at full coverage"]
    parts = {model.name: {part.label: part for part in model.selective} for model in models}
    rows: list[Row] = []
    for name in (*labels_of(models), "macro"):
        cells = [_areas(parts[model.name].get(name)) for model in models]
        rows.append([name, *(cell for of_model in cells for cell in of_model)])
    above = [("", 1), *((model.name, len(titles)) for model in models)] if len(models) > 1 else []
    caption = f"Selective prediction{_of_one(models)}: area under the risk-coverage curve, the lower the better"
    return [Table(caption, ["label", *titles * len(models)], rows, above, totals=1)]


def _areas(part: SelectiveScores | None) -> list[Cell]:
    if part is None:
        return [Cell("")] * 3
    but = f"over {len(part.over)} labels" if part.over else ""
    return [score_cell(score, but) for score in (part.aurc, part.excess_aurc, part.risk)]


def net_benefit_tables(models: Sequence[ModelScores]) -> list[Table]:
    """One for each model that has probabilities."""
    return [_net_benefit(model) for model in models if any(curve.net_benefit for curve in model.decision_curves)]


def _net_benefit(model: ModelScores) -> Table:
    rows: list[Row] = []
    for curve in model.decision_curves:
        cells: list[Cell] = []
        for threshold in SHOWN:
            if curve.reason:
                cells += [score_cell(Score(None, reason=curve.reason))] * 2
                continue
            k = curve.thresholds.index(threshold)
            cells.append(score_cell(Score(curve.net_benefit[k], curve.low[k], curve.high[k])))
            cells.append(number_cell(curve.treat_all[k]))
        rows.append([curve.label, *cells])
    caption = f"Net benefit of {model.name} at threshold probabilities, and of acting on all images; on none it is 0"
    return Table(caption, ["label", *(head for threshold in SHOWN for head in (f"at {threshold:g}", "all"))], rows)


def reader_tables(readers: Sequence[ReaderScores], models: Sequence[ModelScores]) -> list[Table]:
    """The point of each reader and label, and each model at these points; nothing without readers."""
    if not readers:
        return []
    rows: list[Row] = []
    for one in readers:
        counts = [one.images, one.patients, one.positives, one.negatives, one.unknown]
        rows.append(
            [one.reader, one.label, *map(str, counts), score_cell(one.sensitivity), score_cell(one.specificity)]
        )
    head = ["reader", "label", "images", "patients", "positives", "negatives", "label unknown", *METRICS]
    beside = [_against(model) for model in models if model.against_readers]
    means = sum(is_mean(one.reader) for one in readers)
    return [Table("Readers", head, rows, words=(1,), totals=means), *beside]


def _against(model: ModelScores, brief: bool = False) -> Table:
    """A model at the operating points of readers: its rate, and minus the reader's, with p-values.

    Args:
        brief: without the rate itself and the p-value before correction, and of many rows the means of readers only.
    """
    parts = model.against_readers
    if brief and len(parts) > len(METRICS) * MOST_PRINTED:
        parts = [one for one in parts if is_mean(one.reader)]
    by_pair = {(one.reader, one.label, one.metric): one for one in parts}
    rows: list[Row] = []
    for reader, label in dict.fromkeys((one.reader, one.label) for one in parts):
        row: list[Cell | str] = [reader, label]
        for metric in METRICS:
            one = by_pair[reader, label, metric]
            cells = [score_cell(one.value), score_cell(one.difference), number_cell(one.p, 4)]
            row += [*(cells[1:2] if brief else cells), number_cell(one.p_holm, 4)]
        rows.append(row)
    titles = ["minus reader", "p (Holm)"] if brief else ["minus reader", "p", "Holm"]
    head = [
        title
        for metric in METRICS
        for title in ([metric, *titles] if not brief else [f"{metric} {titles[0]}", *titles[1:]])
    ]
    above = [(f"at the reader's {METRICS[1 - k]}", len(head) // 2) for k in (0, 1)]
    caption = f"{model.name} at the operating points of readers"
    means = sum(is_mean(reader) for reader, *_ in dict.fromkeys((one.reader, one.label) for one in parts))
    corner = f"{model.name} at the point of" if brief else "reader"
    return Table(caption, [corner, "label", *head], rows, [("", 2), *above], words=(1,), totals=means)
