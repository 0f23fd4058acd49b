"""Scores -> figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import FixedData

from cxrcl.evaluation.metrics import auroc, bootstrap_auroc, interval
from cxrcl.evaluation.scores import auroc_figures, check_names, labels_against_normal

NAMES = ("No Finding", "A", "B", "One class")
RNG = np.random.default_rng(0)
SCORES = RNG.random((30, 4))
LABELS = (RNG.random((30, 4)) < 0.5).astype(np.float32)
LABELS[:, 3] = 1
PATIENTS = [f"p{k // 2}" for k in range(30)]


def data() -> FixedData:
    return FixedData(NAMES, {"test": (torch.zeros(30, 3, 4, 4), torch.tensor(LABELS), [""] * 30, PATIENTS)})


def test_the_mean_leaves_out_no_finding_and_labels_of_one_class() -> None:
    figures = auroc_figures(data(), ["test"], SCORES, LABELS, NAMES)
    each = {name: auroc(SCORES[:, k], LABELS[:, k]) for k, name in enumerate(NAMES)}
    assert figures["auroc/A"] == each["A"] and math.isnan(figures["auroc/One class"])
    assert figures["mean_auroc"] == pytest.approx((each["A"] + each["B"]) / 2)
    assert figures["positives/A"] == LABELS[:, 1].sum() and figures["negatives/A"] == 30 - LABELS[:, 1].sum()
    assert not any(key.startswith("low") for key in figures)


def test_the_mean_is_over_the_named_labels() -> None:
    figures = auroc_figures(data(), ["test"], SCORES, LABELS, NAMES, mean_over=["No Finding", "B"])
    assert figures["mean_auroc"] == pytest.approx((figures["auroc/No Finding"] + figures["auroc/B"]) / 2)


def test_intervals_are_those_of_resampled_patients() -> None:
    figures = auroc_figures(data(), ["test"], SCORES, LABELS, NAMES, resamples=200)
    drawn = bootstrap_auroc(SCORES, LABELS, PATIENTS, 200)
    assert (figures["low/A"], figures["high/A"]) == interval(drawn[:, 1])
    assert (figures["mean_low"], figures["mean_high"]) == interval(drawn[:, 1:3].mean(axis=1))
    assert math.isnan(figures["low/One class"])
    assert figures["low/A"] < figures["auroc/A"] < figures["high/A"]


def test_without_any_known_label_the_mean_is_nan() -> None:
    nothing = np.full_like(LABELS, np.nan)
    figures = auroc_figures(data(), ["test"], SCORES, nothing, NAMES, resamples=10)
    assert math.isnan(figures["mean_auroc"]) and math.isnan(figures["mean_low"])


def test_normal_films_become_negatives_of_the_named_labels_where_they_are_blank() -> None:
    nan = math.nan
    labels = np.array([[1, nan, nan, 1], [1, 1, nan, 1], [0, nan, nan, 1], [nan, nan, nan, 1], [1, -1, 0, 1]])
    before = labels.copy()
    found = labels_against_normal(data(), labels, ["A"])
    expected = [[1, 0, nan, 1], [1, 1, nan, 1], [0, nan, nan, 1], [nan, nan, nan, 1], [1, -1, 0, 1]]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, before)
    assert labels_against_normal(data(), labels, ()) is labels


def test_names_that_do_not_exist_are_refused() -> None:
    check_names(None, ("A", "B"), "labels")
    check_names(("A",), ("A", "B"), "labels")
    with pytest.raises(ValueError, match="labels: no label C, D; there are A, B"):
        check_names(("C", "A", "D"), ("A", "B"), "labels")
