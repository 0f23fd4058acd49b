"""Sections on label scores: tables and curves."""

from __future__ import annotations

from collections.abc import Sequence

from cxrcl.evaluation.metrics import DECISIONS, METRICS, PROBABILITY
from cxrcl.evaluation.metrics.curves import Curves, curves
from cxrcl.evaluation.report.content import Page
from cxrcl.evaluation.report.page import plot_scores
from cxrcl.evaluation.report.page.html import Footnotes, Html, details, join, left, shown, table, tag
from cxrcl.evaluation.report.score_markdown import COMPARED, TITLES
from cxrcl.evaluation.scores.score_report import Comparison, Gap, GroupScores, LabelScores, ModelScores, Score

NOTHING = Html("")


def _of(model: ModelScores, label: str) -> LabelScores | None:
    return next((part for part in model.labels if part.label == label), None)


def _labels(models: Sequence[ModelScores]) -> list[str]:
    return list(dict.fromkeys(part.label for model in models for part in model.labels))


def by_label(page: Page) -> Html:
    """One row a label, then the averages; two columns a model. Controls have a table of their own."""
    models = page.models()
    if not models:
        return NOTHING
    above = [("", 3), *((model.name, len(COMPARED)) for model in models)]
    scores = _score_table("Scores by label, with 95 % intervals where they were asked for", models, COMPARED, above)
    return join([scores, plot_scores.intervals(models, _labels(models), "auroc", "AUROC")])


def controls(page: Page) -> Html:
    """What is reached without looking at the images, beside the scores of the models."""
    parts: list[object] = []
    for evaluator in page.scores:
        if evaluator not in page.controls and (controls := page.controls_of(evaluator)):
            caption = f"AUROC of {evaluator or 'the models'} and of controls"
            parts.append(_score_table(caption, [*page.of_evaluator(evaluator), *controls], ("auroc",), every=False))
    about = "A score that is not above its controls does not show that the model uses the images."
    return join([tag("p", about, class_="about"), *parts]) if parts else NOTHING


def _score_table(
    caption: str,
    models: Sequence[ModelScores],
    metrics: Sequence[str],
    above: Sequence[tuple[str, int]] = (),
    every: bool = True,
) -> Html:
    """Rows are the labels of the first model, and those of others that are no part of it where `every`."""
    notes = Footnotes()
    rows: list[list[object]] = []
    for name in _labels(models if every else models[:1]):
        parts = [_of(model, name) for model in models]
        first = next(part for part in parts if part is not None)
        counts = (first.positives, first.negatives)
        row: list[object] = [name, str(first.positives), str(first.negatives)]
        for part in parts:
            of_part = counts if part is None else (part.positives, part.negatives)
            but = "" if of_part == counts else f"of {of_part[0]} positives and {of_part[1]} negatives"
            row += [notes.score(None if part is None else part.scores[metric], but) for metric in metrics]
        rows.append(row)
    for place, name in enumerate(dict.fromkeys(part.name for model in models for part in model.averages)):
        averages = [next((part for part in model.averages if part.name == name), None) for model in models]
        over = [len(part.over[metrics[0]]) for part in averages if part is not None]
        title = f"{name} over {over[0]} label{'' if over[0] == 1 else 's'}"
        head = tag("th", title, scope="row", class_=None if place else "first")
        row = [head, "", ""]
        for average in averages:
            for metric in metrics:
                count = over[0] if average is None else len(average.over[metric])
                row.append(notes.score(None if average is None else average.scores[metric], _over(count, over[0])))
        rows.append(row)
    names = [TITLES[metric] for metric in metrics] if above else [model.name for model in models]
    heads = names * len(models) if above else names
    return join([table(caption, ["label", "positives", "negatives", *heads], rows, above), notes.below()])


def drawn(page: Page) -> Html:
    """ROC, precision-recall and reliability curves."""
    series = page.series()
    parts: list[object] = []
    for model in page.models():
        pictures: list[object] = []
        if model.name in series:
            pictures += _curves(model, series[model.name].names, page)
        reliable = [label for label in model.labels if label.reliability and label.scores["ece"].value is not None]
        if reliable:
            errors = {label.label: shown(label.scores["ece"].value) for label in reliable}
            pictures += [tag("h4", "Reliability"), plot_scores.reliability(model.name, reliable, errors)]
        if pictures:
            # The first stands open; with several models the page would be pictures only.
            parts.append(details(model.name, *pictures, open_=not parts))
    about = "Dashed: chance, or perfect calibration. In reliability curves the area of a mark follows its images."
    return join([tag("p", about, class_="about"), *parts]) if parts else NOTHING


def _curves(model: ModelScores, labels: Sequence[str], page: Page) -> list[object]:
    scored = page.series()[model.name]
    by_name: dict[str, Curves] = {}
    for k, name in enumerate(labels):
        if (one := curves(scored.scores[:, k], scored.labels[:, k])) is not None and _of(model, name) is not None:
            by_name[name] = one
    if not by_name:
        return []
    areas = {metric: {part.label: shown(part.scores[metric].value) for part in model.labels} for metric in COMPARED}
    lacking = [name for name in labels if name not in by_name]
    missing = [tag("p", f"Without curves: {', '.join(lacking)}.", class_="notes")] if lacking else []
    return [
        *(tag("h4", "ROC"), plot_scores.roc(model.name, by_name, areas["auroc"])),
        *(tag("h4", "Precision and recall"), plot_scores.precision_recall(model.name, by_name, areas["auprc"])),
        *missing,
    ]


def decisions(page: Page) -> Html:
    """Confusion matrices at the threshold, errors of probabilities, and all averages."""
    parts: list[object] = []
    for model in page.models():
        inner: list[object] = [tag("p", f"Threshold: {model.threshold}. Calibration: {model.calibration}.")]
        if any(label.confusion for label in model.labels):
            inner += _confusions(model)
        inner += _errors(model)
        parts.append(details(model.name, *inner, open_=not parts))
    return join(parts)


def _confusions(model: ModelScores) -> list[object]:
    notes = Footnotes()
    cells = ("true_positives", "false_positives", "false_negatives", "true_negatives")
    rows = [
        [
            *(label.label, shown(label.threshold)),
            *(str((label.confusion or {}).get(cell, "–")) for cell in cells),
            *(notes.score(label.scores[metric]) for metric in DECISIONS),
        ]
        for label in model.labels
    ]
    head = ["label", "threshold", "TP", "FP", "FN", "TN", *(TITLES[metric] for metric in DECISIONS)]
    return [table(f"Decisions of {model.name}: T and F true and false, P and N called so", head, rows), notes.below()]


def _errors(model: ModelScores) -> list[object]:
    notes = Footnotes()
    metrics = (*PROBABILITY, "mse")
    rows: list[list[object]] = [
        [label.label, shown(label.temperature), *(notes.score(label.scores[metric]) for metric in metrics)]
        for label in model.labels
    ]
    head = ["label", "temperature", *(TITLES[metric] for metric in metrics)]
    most = max((len(one.over[metric]) for one in model.averages for metric in METRICS), default=0)
    averages = [
        [
            TITLES[metric],
            *(notes.score(one.scores[metric], _over(len(one.over[metric]), most)) for one in model.averages),
        ]
        for metric in METRICS
    ]
    caption = f"Averages of {model.name} over {most} labels"
    return [
        table(f"Errors of the scores of {model.name}", head, rows),
        table(caption, ["metric", *(one.name for one in model.averages)], averages),
        notes.below(),
    ]


def subgroups(page: Page) -> Html:
    """Scores of each group, and the gaps between groups."""
    parts: list[object] = []
    for model in page.models():
        for column in dict.fromkeys(group.column for group in model.groups):
            groups = [group for group in model.groups if group.column == column]
            gaps = {gap.label: gap for gap in model.gaps if gap.column == column and gap.metric == "auroc"}
            inner = [_groups(column, groups), _group_labels(column, model, groups, gaps)]
            parts.append(details(f"{model.name}: by {column}", *inner, open_=not parts))
    return join(parts)


def _groups(column: str, groups: Sequence[GroupScores]) -> Html:
    metrics = ("auroc", "auprc", "sensitivity", "specificity")
    notes = Footnotes()
    rows: list[list[object]] = []
    macros = [next(average for average in group.averages if average.name == "macro") for group in groups]
    most = max(len(macro.over[metric]) for macro in macros for metric in metrics)
    for group, macro in zip(groups, macros):
        cells = [notes.score(macro.scores[metric], _over(len(macro.over[metric]), most)) for metric in metrics]
        rows.append([group.group, str(group.images), str(group.patients), *cells, notes.score(group.underdiagnosis)])
    head = [column, "images", "patients", *(f"macro {TITLES[metric]}" for metric in metrics), "underdiagnosis"]
    return join([table(f"Averages over {most} labels by {column}", head, rows), notes.below()])


def _over(count: int, most: int) -> str:
    """What is different about an average, if anything is."""
    return "" if count == most else f"over {count} labels"


def _group_labels(column: str, model: ModelScores, groups: Sequence[GroupScores], gaps: dict[str, Gap]) -> Html:
    notes = Footnotes()
    rows: list[list[object]] = []
    for k, label in enumerate(model.labels):
        cells = [notes.score(group.labels[k].scores["auroc"]) for group in groups]
        rows.append([label.label, *cells, *_gap(gaps.get(label.label), notes)])
    if mean := gaps.get("macro"):
        head = tag("th", f"mean over the {len(mean.over)} labels that every group has", scope="row", class_="first")
        rows.append([head, *("" for _ in groups), *_gap(mean, notes)])
    heads = ["label", *(group.group for group in groups), "gap", "lowest"]
    return join([table(f"AUROC of each label by {column}, and the gap between groups", heads, rows), notes.below()])


def _gap(gap: Gap | None, notes: Footnotes) -> list[object]:
    if gap is None:
        return [notes.score(Score(None, reason="fewer than two groups have this metric")), ""]
    return [notes.score(gap.gap), gap.worst]


def comparisons(page: Page) -> Html:
    """Differences to the first model: averages, and in boxes that open those of labels and of controls."""
    parts: list[object] = []
    for evaluator, report in page.scores.items():
        if evaluator in page.controls:
            continue
        every = [one for one in report.comparisons if one.metric in COMPARED]
        ordered = sorted(every, key=lambda one: (METRICS.index(one.metric), one.kind))
        proper = [one for one in ordered if one.model not in page.controls]
        of = f" of {evaluator}" if evaluator else ""
        if proper:
            averages = [one for one in proper if one.kind == "average"]
            labels = _differences(f"Labels{of}", [one for one in proper if one.kind == "label"])
            parts += [_differences(f"Averages{of}", averages), details(f"Labels{of}", labels)]
        if controls := [one for one in ordered if one not in proper]:
            parts.append(details(f"Controls{of}", _differences(f"Controls{of}", controls)))
    about = "Paired bootstrap on the same resamples of patients; p-values before and after Holm's correction."
    return join([tag("p", about, class_="about"), *parts]) if parts else NOTHING


def _differences(caption: str, comparisons: Sequence[Comparison]) -> Html:
    notes = Footnotes()
    rows: list[list[object]] = []
    for one in comparisons:
        head = tag("th", f"{one.model} − {one.reference}", scope="row")
        p_values = [shown(p, 4) for p in (one.p, one.p_holm)]
        rows.append([head, *map(left, (one.label, TITLES[one.metric])), notes.score(one.difference), *p_values])
    heads = ["models", *(tag("th", text, scope="col", class_="left") for text in ("over", "metric"))]
    return join([table(caption, [*heads, "difference", "p", "p (Holm)"], rows), notes.below()])


def readings(page: Page) -> Html:
    """Zero-shot metrics by prompt family and reading: one that depends on its prompts says little of the model."""
    parts: list[object] = []
    names = ("combined", "affirmative", "negated")
    for checkpoint in page.proper:
        for evaluator, metrics in checkpoint.metrics.items():
            families = [key.removesuffix("/combined") for key in metrics if key.endswith("/combined")]
            if not families:
                continue
            rows: list[list[object]] = [
                [family, *(shown(metrics.get(f"{family}/{name}")) for name in names)] for family in families
            ]
            for kind in ("mean", "worst"):
                head = tag("th", f"{kind} over families", scope="row", class_="first" if kind == "mean" else None)
                rows.append([head, shown(metrics.get(f"over_prompts/{kind}")), "", ""])
            caption = f"Mean AUROC of {page.of(checkpoint.name, evaluator)} by prompt family and reading"
            parts.append(table(caption, ["prompts", *names], rows))
    about = "combined: positive minus negative prompts. affirmative, negated: the prompts of one side alone."
    return join([*parts, tag("p", about, class_="notes")]) if parts else NOTHING


def classes(page: Page) -> Html:
    """One class of several: accuracy with its chance, and the confusion matrix."""
    rows: list[list[object]] = []
    matrices: list[object] = []
    for checkpoint in page.checkpoints:
        for evaluator, metrics in checkpoint.metrics.items():
            name = page.of(checkpoint.name, evaluator)
            if "accuracy" in metrics and "chance" in metrics:
                cells = [shown(metrics.get(key)) for key in ("accuracy", "chance", "macro_f1", "macro_recall")]
                rows.append([name, shown(metrics.get("images"), 0), *cells])
            if confusion := checkpoint.confusions.get(evaluator):
                matrices.append(_matrix(name, confusion.classes, confusion.counts.tolist()))
    if not rows:
        return NOTHING
    head = ["evaluator", "images", "accuracy", "chance", "macro F1", "macro recall"]
    return join([table("One class of several", head, rows), *matrices])


def _matrix(name: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """Cells are as dark as their share of the row."""
    rows: list[list[object]] = []
    for label, row in zip(names, counts):
        total = max(1, sum(row))
        cells = [
            tag("td", str(count), title=f"{count / total:.0%} of the images of {label}", style=_shade(count / total))
            for count in row
        ]
        recall = shown(row[names.index(label)] / total) if sum(row) else "–"
        rows.append([label, *cells, recall])
    inner = table(f"Images of {name} by class (rows) and by the class chosen (columns)", ["", *names, "recall"], rows)
    return tag("div", inner, class_="heat")


def _shade(share: float) -> str:
    """White numbers on the darkest cells: the contrast is 4.5 : 1 or more on all."""
    return f"background:rgb(0 92 148/{share:.2f});color:{'#fff' if share > 0.62 else '#000'}"
