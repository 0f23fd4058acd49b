"""A ScoreReport as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from cxrcl.evaluation.metrics.label_metrics import DECISIONS, METRICS
from cxrcl.evaluation.report.tables import aligned, number
from cxrcl.evaluation.scores.score_report import Gap, GroupScores, LabelScores, ModelScores, Score, ScoreReport

TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "accuracy": "accuracy",
    "mcc": "MCC",
    "ppv": "PPV",
    "npv": "NPV",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier",
    "ece": "ECE",
    "mse": "MSE",
}
COMPARED = ("auroc", "auprc")


def cell(score: Score) -> str:
    """A value with its interval."""
    text = number(score.value)
    return text if score.low is None else f"{text} [{number(score.low)}, {number(score.high)}]"


def main_table(report: ScoreReport, metric: str) -> str:
    """One row a label, then the averages; one column a model."""
    rows = [[TITLES[metric], "images", "positives", *(model.name for model in report.models)]]
    for parts in zip(*(model.labels for model in report.models), strict=True):
        first = parts[0]
        rows.append([first.label, str(first.images), str(first.positives), *(cell(p.scores[metric]) for p in parts)])
    for averages in zip(*(model.averages for model in report.models), strict=True):
        over = len(averages[0].over[metric])
        name = f"{averages[0].name} over {over} label{'' if over == 1 else 's'}"
        rows.append([name, "", "", *(cell(average.scores[metric]) for average in averages)])
    return aligned(rows)


def summary(report: ScoreReport) -> str:
    """The main tables and notes, for the terminal."""
    return "\n\n".join([*(main_table(report, metric) for metric in COMPARED), *(f"note: {n}" for n in report.notes)])


def markdown(report: ScoreReport) -> str:
    """The whole report as Markdown."""
    parts = ["# Scores", "\n".join(f"- {name}: {_shown(value)}" for name, value in report.facts.items())]
    parts += ["\n".join(f"- note: {note}" for note in report.notes)] if report.notes else []
    for metric in COMPARED:
        parts += [f"## {TITLES[metric]}", main_table(report, metric)]
    if report.comparisons:
        parts += [f"## Differences to {report.models[0].name}", _differences(report)]
    for model in report.models:
        parts += _of_model(model)
    parts += ["## Rules", "\n".join(f"- {name}: {text}" for name, text in report.rules.items())]
    parts += ["Research use only; not for diagnosis."]
    return "\n\n".join(parts) + "\n"


def _shown(value: object) -> str:
    return ", ".join(f"{k} ({v})" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _differences(report: ScoreReport) -> str:
    rows = [["model", "label", "metric", "difference", "p", "p (Holm)"]]
    for one in sorted(report.comparisons, key=lambda one: METRICS.index(one.metric)):
        if one.metric in COMPARED:
            label = one.label if one.kind == "label" else f"({one.label})"
            p_values = [number(p, 4) for p in (one.p, one.p_holm)]
            rows.append([one.model, label, TITLES[one.metric], cell(one.difference), *p_values])
    return aligned(rows)


def _of_model(model: ModelScores) -> list[str]:
    parts = [f"## {model.name}", f"- threshold: {model.threshold}\n- calibration: {model.calibration}"]
    if any(label.threshold is not None for label in model.labels):
        parts += ["### Decisions", _by_label(model.labels, DECISIONS, "threshold")]
    parts += ["### Errors of the scores", _by_label(model.labels, ("brier", "ece", "mse"), "temperature")]
    parts += ["### Averages", _averages(model)]
    if any(label.confusion for label in model.labels):
        parts += ["### Confusion", _confusion(model.labels)]
    for column in dict.fromkeys(group.column for group in model.groups):
        groups = [group for group in model.groups if group.column == column]
        parts += [f"### By {column}", _groups(groups), _group_labels(model, column, groups)]
    if missing := _missing(model.labels):
        parts += ["### Metrics that do not exist", missing]
    return parts


def _by_label(labels: Sequence[LabelScores], metrics: Sequence[str], setting: str) -> str:
    rows = [["label", setting, *(TITLES[metric] for metric in metrics)]]
    for label in labels:
        rows.append([label.label, number(getattr(label, setting), 4), *(cell(label.scores[m]) for m in metrics)])
    return aligned(rows)


def _averages(model: ModelScores) -> str:
    rows = [["metric", *(average.name for average in model.averages)]]
    for metric in METRICS:
        cells = [f"{cell(a.scores[metric])} ({len(a.over[metric])})" for a in model.averages]
        rows.append([TITLES[metric], *cells])
    return aligned(rows) + "\n\nIn brackets: the number of labels."


def _confusion(labels: Sequence[LabelScores]) -> str:
    names = ("true_positives", "false_positives", "false_negatives", "true_negatives")
    rows = [["label", *(name.replace("_", " ") for name in names)]]
    for label in labels:
        counts = label.confusion or {}
        rows.append([label.label, *(str(counts.get(name, "-")) for name in names)])
    return aligned(rows)


def _groups(groups: Sequence[GroupScores]) -> str:
    metrics = ("auroc", "auprc", "sensitivity", "specificity")
    rows = [["group", "images", "patients", *(f"macro {TITLES[m]}" for m in metrics), "underdiagnosis"]]
    for group in groups:
        macro = next(average for average in group.averages if average.name == "macro")
        cells = [f"{cell(macro.scores[metric])} ({len(macro.over[metric])})" for metric in metrics]
        rows.append([group.group, str(group.images), str(group.patients), *cells, cell(group.underdiagnosis)])
    return aligned(rows) + "\n\nIn brackets: the number of labels of the mean."


def _group_labels(model: ModelScores, column: str, groups: Sequence[GroupScores]) -> str:
    """AUROC of each label in each group, and the gap between the best and the worst."""
    gaps = {gap.label: gap for gap in model.gaps if gap.column == column and gap.metric == "auroc"}
    rows = [["AUROC (positives)", *(group.group for group in groups), "gap", "worst"]]
    for k, label in enumerate(model.labels):
        parts = [group.labels[k] for group in groups]
        cells = [f"{number(part.scores['auroc'].value)} ({part.positives})" for part in parts]
        rows.append([label.label, *cells, *_gap_cells(gaps.get(label.label))])
    if mean := gaps.get("macro"):
        name = f"mean over the {len(mean.over)} labels that every group has"
        rows.append([name, *("" for _ in groups), *_gap_cells(mean)])
    return aligned(rows)


def _gap_cells(gap: Gap | None) -> list[str]:
    return [cell(gap.gap), gap.worst] if gap else ["-", "-"]


def _missing(labels: Sequence[LabelScores]) -> str:
    rows = [["label", "metrics", "reason"]]
    for label in labels:
        reasons: dict[str, list[str]] = {}
        for metric, score in label.scores.items():
            if score.value is None:
                reasons.setdefault(score.reason or "", []).append(TITLES[metric])
        for reason, metrics in reasons.items():
            rows.append([label.label, "all" if len(metrics) == len(METRICS) else ", ".join(metrics), reason])
    return aligned(rows) if len(rows) > 1 else ""
