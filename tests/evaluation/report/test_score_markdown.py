"""Reports as data, Markdown and JSON."""

from __future__ import annotations

import json
import math

import pytest
from score_data import LABELS, awkward

from cxrcl.evaluation.report import score_markdown
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.models import score_models
from cxrcl.evaluation.scores.score_report import ScoreReport, plain
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


def cells(text: str, start: str) -> list[list[str]]:
    """Rows of the table whose header begins so, without the line of dashes."""
    block = next(part for part in text.split("\n\n") if part.startswith(f"| {start}"))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines() if "--" not in line]


def test_the_main_table_holds_the_metrics_of_the_report(report: ScoreReport) -> None:
    rows = cells(score_markdown.markdown(report), "AUROC ")
    assert rows[0] == ["AUROC", "images", "positives", "one", "two"]
    label = report.models[1].labels[1]
    score = label.scores["auroc"]
    assert rows[2][:3] == ["Edema", str(label.images), str(label.positives)]
    assert rows[2][4] == f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
    assert rows[4] == ["Only ones", "150", "150", "-", "-"]
    assert rows[6][0] == "macro over 2 labels" and rows[7][0] == "micro over 2 labels"
    assert rows[6][3] == score_markdown.cell(report.models[0].averages[0].scores["auroc"])


def test_thresholds_confusion_groups_and_reasons_are_shown(report: ScoreReport) -> None:
    text = score_markdown.markdown(report)
    model = report.models[0]
    assert "- threshold: 0.5 (given)" in text and "- note: a note" in text and "a|b.csv (12ab)" in text
    counts = model.labels[1].confusion
    assert counts is not None and cells(text, "label         | true pos")[2][1:] == [str(n) for n in counts.values()]
    group = model.groups[0]
    row = cells(text, "group")[1]
    assert row[:3] == ["F", str(group.images), str(group.patients)]
    assert row[-1] == score_markdown.cell(group.underdiagnosis)
    (gap,) = [g for g in model.gaps if (g.column, g.label, g.metric) == ("sex", "Edema", "auroc")]
    assert cells(text, "AUROC (positives)")[2][-2:] == [score_markdown.cell(gap.gap), gap.worst]
    assert cells(text, "label         | metrics")[1] == ["Only ones", "all", "150 positives, 0 negatives"]
    assert "### By view" in text and all(f"- {name}: " in text for name in report.rules)


def test_differences_stand_with_both_p_values(report: ScoreReport) -> None:
    rows = cells(score_markdown.markdown(report), "model")
    one = next(c for c in report.comparisons if (c.kind, c.label, c.metric) == ("label", "Edema", "auroc"))
    assert ["two", "Edema", "AUROC", score_markdown.cell(one.difference), f"{one.p:.4f}", f"{one.p_holm:.4f}"] in rows
    assert ["two", "Only ones", "AUROC", "-", "-", "-"] in rows
    assert any(row[1] == "(macro)" for row in rows)


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
