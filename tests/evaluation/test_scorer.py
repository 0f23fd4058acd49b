"""Scores -> figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cxrcl.evaluation.evaluator import check_label_names
from cxrcl.evaluation.metrics.ranking import auprc, auroc
from cxrcl.evaluation.scorer import label_metrics, labels_against_normal
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.scores.scoring import ranked_only, score_images

NAMES = ("No Finding", "A", "B", "One class")
RNG = np.random.default_rng(0)
SCORES = RNG.random((30, 4))
LABELS = (RNG.random((30, 4)) < 0.5).astype(np.float32)
LABELS[:, 3] = 1
PATIENTS = [f"p{k // 2}" for k in range(30)]


def of_scores(labels: np.ndarray = LABELS, mean_over: list[str] | None = None, resamples: int = 0) -> dict[str, float]:
    return label_metrics(Scores(NAMES, SCORES, labels, mean_over=mean_over), Patients(PATIENTS, resamples))


def test_the_mean_leaves_out_no_finding_and_labels_of_one_class() -> None:
    figures = of_scores()
    each = {name: auroc(SCORES[:, k], LABELS[:, k]) for k, name in enumerate(NAMES)}
    precision = {name: auprc(SCORES[:, k], LABELS[:, k]) for k, name in enumerate(NAMES)}
    assert figures["auprc/A"] == precision["A"] and math.isnan(figures["auprc/One class"])
    assert figures["mean_auprc"] == pytest.approx((precision["A"] + precision["B"]) / 2)
    assert figures["auroc/A"] == each["A"] and math.isnan(figures["auroc/One class"])
    assert figures["mean_auroc"] == pytest.approx((each["A"] + each["B"]) / 2)
    assert figures["positives/A"] == LABELS[:, 1].sum() and figures["negatives/A"] == 30 - LABELS[:, 1].sum()
    assert not any("low" in key or "high" in key for key in figures)


def test_the_mean_is_over_the_named_labels() -> None:
    figures = of_scores(mean_over=["No Finding", "B"])
    assert figures["mean_auroc"] == pytest.approx((figures["auroc/No Finding"] + figures["auroc/B"]) / 2)


def test_intervals_are_those_of_resampled_patients() -> None:
    figures = of_scores(resamples=200)
    scored = score_images(ranked_only("", NAMES, SCORES), LABELS, Patients(PATIENTS, 200), NAMES[1:])
    for metric in ("auroc", "auprc"):
        own, macro = scored.labels[1].scores[metric], scored.averages[0].scores[metric]
        assert (figures[f"{metric}_low/A"], figures[f"{metric}_high/A"]) == (own.low, own.high)
        assert (figures[f"mean_{metric}_low"], figures[f"mean_{metric}_high"]) == (macro.low, macro.high)
        assert figures[f"{metric}_low/A"] < figures[f"{metric}/A"] < figures[f"{metric}_high/A"]
    assert math.isnan(figures["auroc_low/One class"])


def test_without_any_known_label_the_mean_is_nan() -> None:
    nothing = np.full_like(LABELS, np.nan)
    figures = of_scores(nothing, resamples=10)
    assert math.isnan(figures["mean_auroc"]) and math.isnan(figures["mean_auroc_low"])


def test_normal_images_become_negatives_of_the_named_labels_where_they_are_blank() -> None:
    nan = math.nan
    labels = np.array([[1, nan, nan, 1], [1, 1, nan, 1], [0, nan, nan, 1], [nan, nan, nan, 1], [1, -1, 0, 1]])
    before = labels.copy()
    found = labels_against_normal(labels, NAMES, ["A"])
    expected = [[1, 0, nan, 1], [1, 1, nan, 1], [0, nan, nan, 1], [nan, nan, nan, 1], [1, -1, 0, 1]]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, before)
    assert labels_against_normal(labels, NAMES, ()) is labels


def test_names_that_do_not_exist_are_refused() -> None:
    check_label_names(None, ("A", "B"), "labels")
    check_label_names(("A",), ("A", "B"), "labels")
    with pytest.raises(ValueError, match="labels: no label C, D; there are A, B"):
        check_label_names(("C", "A", "D"), ("A", "B"), "labels")
