"""Reports as data, Markdown and JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from score_data import LABELS, awkward

from cxrcl.evaluation.report import score_markdown
from cxrcl.evaluation.report.score_tables import difference_table
from cxrcl.evaluation.report.table import Table, score_cell
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.models import score_models
from cxrcl.evaluation.scores.score_report import Comparison, Score, ScoreReport, plain
from cxrcl.evaluation.scores.thresholds import ThresholdRule, predicted_from_scores


@pytest.fixture(scope="module")
def report() -> ScoreReport:
    scores, labels, ids = awkward(count=150)
    given = [
        predicted_from_scores(n, LABELS, s, None, ThresholdRule("given", 0.5), False)
        for n, s in (("one", scores), ("two", scores**2))
    ]
    groups = {"sex": ["F" if k % 3 else "M" for k in range(150)], "view": ["PA"] * 150}
    facts = {"files": {"a|b.csv": "12ab"}, "split": "test"}
    return score_models(given, labels, Patients(ids, 40), LABELS[1:], groups, facts, ["a note"])


def shown(score: Score) -> str:
    """A cell as it stands in a table without other footnotes."""
    return Table("", ["score"], [[score_cell(score)]]).text().splitlines()[2].strip("| ")


def cells(text: str, start: str) -> list[list[str]]:
    """Rows of the table whose header begins so, without the line of dashes."""
    block = next(part for part in text.split("\n\n") if part.startswith(f"| {start}"))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines() if "--" not in line]


def test_the_main_table_holds_the_metrics_of_the_report(report: ScoreReport) -> None:
    rows = cells(score_markdown.markdown(report), "AUROC ")
    assert rows[0] == ["AUROC", "positives", "negatives", "one", "two"]
    label = report.models[1].labels[1]
    score = label.scores["auroc"]
    assert rows[2][:3] == ["Edema", str(label.positives), str(label.negatives)]
    assert rows[2][4] == f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
    assert rows[4] == ["Only ones", "150", "0", "- (a)", "- (a)"]
    assert rows[6][0] == "macro over 2 labels" and rows[7][0] == "micro over 2 labels"
    assert rows[6][3] == shown(report.models[0].averages[0].scores["auroc"])


def test_thresholds_confusion_groups_and_reasons_are_shown(report: ScoreReport) -> None:
    text = score_markdown.markdown(report)
    model = report.models[0]
    assert "- threshold: 0.5 (given)" in text and "- note: a note" in text and "a|b.csv (12ab)" in text
    counts = model.labels[1].confusion
    row = cells(text, "label         | threshold")[2]
    assert counts is not None and row[1:6] == ["0.5000", *(str(n) for n in counts.values())]
    assert row[6] == shown(model.labels[1].scores["f1"])
    group = model.groups[0]
    row = cells(text, "sex")[1]
    assert row[:3] == ["F", str(group.images), str(group.patients)]
    assert row[-1] == shown(group.underdiagnosis)
    (gap,) = [g for g in model.gaps if (g.column, g.label, g.metric) == ("sex", "Edema", "auroc")]
    block = text.split("### AUROC of each label by sex")[1]
    row = cells(block, "label")[2]
    in_group = group.labels[1]
    assert row[1] == f"{shown(in_group.scores['auroc'])} ({in_group.positives}/{in_group.negatives})"
    assert row[-2:] == [shown(gap.gap), gap.worst]
    assert "\n\n(a) 150 positives, 0 negatives. (b) 0 positives, 0 negatives.\n\n" in text
    assert "(c) fewer than two groups have this metric." in text
    assert "### AUROC of each label by view" in text and all(f"- {name}: " in text for name in report.rules)


def test_differences_stand_with_both_p_values(report: ScoreReport) -> None:
    rows = cells(score_markdown.markdown(report), "models")
    one = next(c for c in report.comparisons if (c.kind, c.label, c.metric) == ("label", "Edema", "auroc"))
    counts = [str(one.positives), str(one.negatives)]
    assert ["two − one", "Edema", "AUROC", *counts, shown(one.difference), f"{one.p:.4f}", f"{one.p_holm:.4f}"] in rows
    assert any(row[1:3] == ["Only ones", "AUROC"] and row[5:] == ["- (a)", "-", "-"] for row in rows)
    assert rows[1][1:3] == ["macro", "AUROC"]
    assert [row[2] for row in rows[1:]] == ["AUROC"] * 9 + ["AUPRC"] * 9


def test_p_values_that_four_digits_do_not_show_are_below_the_last() -> None:
    one = Comparison("b", "a", "average", "micro", "auroc", 30, 90, Score(0.2, 0.1, 0.3), 3e-9, 0.00012)
    row = cells(difference_table("", [one]).text(), "models")[1]
    assert row == ["b − a", "micro", "AUROC", "30", "90", "0.200 [0.100, 0.300]", "< 0.0001", "0.0001"]


def test_scores_without_a_threshold_have_no_decisions(report: ScoreReport) -> None:
    model = report.models[0]
    labels = [replace(label, threshold=None, confusion=None) for label in model.labels]
    text = score_markdown.markdown(replace(report, models=[replace(model, labels=labels)]))
    assert "### Decisions of" not in text and "### Errors of the scores of one" in text


def test_the_terminal_shows_both_rankings_and_the_notes(report: ScoreReport) -> None:
    text = score_markdown.summary(report)
    assert text.startswith("| AUROC") and "| AUPRC" in text and text.endswith("note: a note")


def test_data_are_plain_and_without_nan(report: ScoreReport) -> None:
    tree = json.loads(json.dumps(plain(report), allow_nan=False))
    label = tree["models"][0]["labels"][1]
    assert label["label"] == "Edema" and label["scores"]["f1"]["value"] == report.models[0].labels[1].scores["f1"].value
    assert tree["models"][0]["labels"][3]["scores"]["auroc"]["value"] is None
    assert sum(part["images"] for part in label["reliability"]) == label["images"] == sum(label["confusion"].values())
    assert tree["facts"]["images"] == 150 and tree["facts"]["resamples"] == 40
    assert "40 resamples of the" in tree["rules"]["intervals"]
    assert plain({"a": [math.nan, math.inf, (1, "x")]}) == {"a": [None, None, [1, "x"]]}
