"""Every figure of every label and average, against scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from score_data import LABELS, awkward
from sklearn import metrics

from cxrcl.evaluation.metrics.clusters import weighted_mean
from cxrcl.evaluation.metrics.delong import area
from cxrcl.evaluation.metrics.label_metrics import METRICS
from cxrcl.evaluation.metrics.labels import frequency_group, is_labelled, weightings
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import log_odds, percentile
from cxrcl.evaluation.scores.scoring import ADDED, ImageSetScores, ranked_only, score_images, with_interval
from cxrcl.evaluation.scores.thresholds import ThresholdRule, predicted_from_scores

GIVEN = ThresholdRule("given", 0.5)
MEAN = LABELS[1:]


def scored(seed: int = 0, resamples: int = 0, rule: ThresholdRule | None = GIVEN, shift: float = 0.0) -> ImageSetScores:
    scores, labels, patients = awkward(seed)
    model = predicted_from_scores("m", LABELS, scores + shift, None, rule, calibrate=False)
    return score_images(model, labels, Patients(patients, resamples), MEAN)


def by_sklearn(scores: np.ndarray, y: np.ndarray) -> dict[str, float]:
    called = scores >= 0.5
    edges = np.linspace(0, 1, 16)
    bins = np.searchsorted(edges[1:-1], scores)
    ece = sum(abs(scores[bins == b].mean() - y[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    return {
        "auroc": metrics.roc_auc_score(y, scores),
        "auprc": metrics.average_precision_score(y, scores),
        "f1": metrics.f1_score(y, called),
        "accuracy": metrics.accuracy_score(y, called),
        "mcc": metrics.matthews_corrcoef(y, called),
        "sensitivity": metrics.recall_score(y, called),
        "specificity": metrics.recall_score(y, called, pos_label=0),
        "ppv": metrics.precision_score(y, called),
        "npv": metrics.precision_score(y, called, pos_label=0),
        "brier": metrics.brier_score_loss(y, scores),
        "ece": ece,
        "mse": metrics.mean_squared_error(y, scores),
    }


@pytest.mark.parametrize("seed", range(5))
def test_labels_and_averages_equal_sklearn(seed: int) -> None:
    scores, labels, _ = awkward(seed)
    found = scored(seed)
    parts = {}
    for k in range(3):
        chosen = is_labelled(labels[:, k])
        parts[k] = (scores[chosen, k], labels[chosen, k].astype(int))
        values = {name: score.value for name, score in found.labels[k].scores.items()}
        assert values == pytest.approx(by_sklearn(*parts[k]), abs=1e-12)
        assert found.labels[k].positives == parts[k][1].sum() and found.labels[k].images == chosen.sum()
        assert found.labels[k].unknown == len(labels) - chosen.sum()
    each = [by_sklearn(*parts[k]) for k in (1, 2)]
    positives = [parts[k][1].sum() for k in (1, 2)]
    expected = {
        "macro": {name: np.mean([part[name] for part in each]) for name in METRICS},
        "weighted": {name: np.average([part[name] for part in each], weights=positives) for name in METRICS},
        "micro": by_sklearn(*(np.concatenate([parts[k][place] for k in (1, 2)]) for place in (0, 1))),
    }
    averages = {average.name: average for average in found.averages}
    for name, values in expected.items():
        got = {metric: score.value for metric, score in averages[name].scores.items()}
        assert got == pytest.approx(values, abs=1e-12)
        assert averages[name].over["auroc"] == ["Edema", "Fracture"]


def test_one_class_is_null_with_the_reason_and_part_of_no_average() -> None:
    found = scored(resamples=20)
    for label, reason in zip(found.labels[3:], ["90 positives, 0 negatives", "0 positives, 0 negatives"], strict=True):
        assert set(label.scores) == set(METRICS)
        for score in label.scores.values():
            assert score.value is score.low is score.high is None and score.reason == reason
    assert all(set(average.over["auroc"]) <= {"Edema", "Fracture"} for average in found.averages)


def test_without_any_label_averages_are_null_with_a_reason() -> None:
    scores, labels, patients = awkward()
    found = score_images(ranked_only("m", LABELS, scores), labels, Patients(patients, 5), LABELS[3:])
    assert {average.name for average in found.averages} == {"macro", "micro", "weighted"}
    for average in found.averages:
        assert average.scores["auroc"].value is None and average.scores["auroc"].reason
        assert average.over["auroc"] == []


def test_scores_outside_0_and_1_have_no_brier_and_no_decisions_without_a_threshold() -> None:
    edema = scored(rule=None, shift=3.0).labels[1]
    assert edema.scores["auroc"].value == scored().labels[1].scores["auroc"].value
    assert edema.scores["brier"].reason == "the scores are not probabilities: some lie outside [0, 1]"
    assert edema.scores["f1"].reason == "no threshold" and edema.confusion is None and edema.reliability is None
    assert edema.scores["mse"].value > 1


def test_confusion_is_sklearns() -> None:
    scores, labels, _ = awkward()
    chosen = is_labelled(labels[:, 1])
    tn, fp, fn, tp = metrics.confusion_matrix(labels[chosen, 1], scores[chosen, 1] >= 0.5).ravel()
    expected = {"true_positives": tp, "false_positives": fp, "false_negatives": fn, "true_negatives": tn}
    assert scored().labels[1].confusion == expected


def test_no_image_called_positive_leaves_no_ppv() -> None:
    label = scored(rule=ThresholdRule("given", 2.0)).labels[1]
    assert label.scores["ppv"].reason == "no image is called positive" and label.scores["sensitivity"].value == 0
    label = scored(rule=ThresholdRule("given", -1.0)).labels[1]
    assert label.scores["npv"].reason == "no image is called negative" and label.scores["ppv"].value is not None


def test_resamples_are_each_computed_alone_and_percentiles_are_of_them() -> None:
    scores, labels, ids = awkward(2)
    patients = Patients(ids, 60)
    found = score_images(predicted_from_scores("m", LABELS, scores, None, GIVEN, False), labels, patients, MEAN)
    counts = np.concatenate(list(patients.draws(60)), axis=1)
    chosen = is_labelled(labels[:, 1])
    drawn = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # precision of nothing
        for k in range(60):
            rows = np.repeat(np.flatnonzero(chosen), counts[patients.index[chosen], k].astype(int))
            drawn.append(by_sklearn(scores[rows, 1], labels[rows, 1].astype(int)))
    for metric, score in found.labels[1].scores.items():
        if metric == "ece":
            assert score.low is None and score.value is not None
            continue
        expected = np.array([d[metric] for d in drawn])
        np.testing.assert_allclose(found.by_label["Edema"].drawn[metric], expected, atol=1e-12)
        assert score.low < score.value < score.high
        if score.method == "percentile":
            assert (score.low, score.high) == pytest.approx(percentile(expected)[:2], abs=1e-12)
            assert score.resamples == 60


def test_each_metric_has_the_interval_that_covers_best() -> None:
    scores, labels, ids = awkward(2)
    patients = Patients(ids, 60)
    model = predicted_from_scores("m", LABELS, scores, None, GIVEN, False)
    found = score_images(model, labels, patients, MEAN)
    methods = {name: score.method for name, score in found.labels[1].scores.items()}
    shares = ("auprc", "f1", "accuracy", "sensitivity", "specificity", "ppv", "npv")
    assert methods == {
        "auroc": "DeLong, logit",
        **dict.fromkeys(shares, "Wilson"),
        **dict.fromkeys(("mcc", "brier", "mse"), "percentile"),
        "ece": None,
    }
    for average in found.averages:
        assert {name: score.method for name, score in average.scores.items()} == methods
    edema, mean = found.labels[1].scores["auroc"], found.averages[0].scores["auroc"]
    areas = [
        area(scores[known, k], labels[known, k] == 1, patients.index[known], patients.count)
        for k, known in ((k, is_labelled(labels[:, k])) for k in (1, 2))
    ]
    fewest = min(min(each.counts) for each in areas)
    assert (edema.low, edema.high) == log_odds(weighted_mean(areas[:1], added=ADDED), fewest)[:2]
    assert (mean.low, mean.high) == pytest.approx(log_odds(weighted_mean(areas, added=ADDED), fewest)[:2], abs=1e-12)
    # Of more resamples, as comparisons may need, intervals take those that they always take.
    more = score_images(model, labels, patients.with_resamples(90), MEAN, resamples=60)
    assert more.labels == found.labels and more.averages == found.averages
    assert len(more.by_label["Edema"].drawn["f1"]) == 90


def rare_fracture(patients: int) -> ImageSetScores:
    scores, labels, _ = awkward(2)
    labels[:, 2] = 0
    labels[np.arange(patients) * 10, 2] = 1
    return score_images(ranked_only("m", LABELS, scores), labels, Patients(list(map(str, range(90))), 300), MEAN)


def test_a_mean_is_over_the_same_labels_in_all_resamples() -> None:
    scored = rare_fracture(3)  # missing in about one resample of twenty
    rare, common = (scored.by_label[name].drawn["auroc"] for name in ("Fracture", "Edema"))
    assert 0 < np.isnan(rare).mean() < 0.1
    for name, weights in (("macro", [1, 1]), ("weighted", [3, scored.labels[1].positives])):
        expected = np.average([rare, common], axis=0, weights=weights)
        np.testing.assert_allclose(scored.by_average[name].drawn["auroc"], expected, atol=1e-12)
    assert scored.averages[0].scores["mse"].resamples == (~np.isnan(rare)).sum() < 300


@pytest.mark.parametrize(("patients", "of_label", "of_mean"), [(1, False, False), (2, False, True), (5, True, True)])
def test_few_patients_of_a_class_have_no_interval_and_the_score_says_so(
    patients: int, of_label: bool, of_mean: bool
) -> None:
    found = rare_fracture(patients)
    label, macro = found.labels[2], found.averages[0]
    assert (label.positives, label.positive_patients) == (patients, patients)
    assert (macro.fewest_positives, macro.over["auroc"]) == (patients, ["Edema", "Fracture"])
    for score, has_interval in ((label.scores["auroc"], of_label), (macro.scores["auroc"], of_mean)):
        assert score.value is not None
        assert (score.low is not None) == (score.high is not None) == (score.withheld is None) == has_interval
    words = "1 patient" if patients == 1 else f"{patients} patients"
    if not of_label:
        assert label.scores["mse"].withheld == f"{words} with positive images, fewer than 5"
        assert macro.scores["mse"].withheld == f"Fracture: {words} with positive images, fewer than 5"
    if not of_mean:
        assert macro.scores["auroc"].withheld == "Fracture: 1 patient with positive images, fewer than 2"
    assert found.labels[1].scores["auroc"].low is not None


def test_a_value_that_no_resample_changes_has_no_interval_and_a_share_of_all_has_wilsons() -> None:
    labels = (np.arange(60) % 3 == 0).astype(float)[:, None]
    model = predicted_from_scores("m", ("A",), labels, None, GIVEN, False)
    (found,) = score_images(model, labels, Patients(list(map(str, range(60))), 50), ("A",)).labels
    for metric in ("mcc", "brier"):
        assert found.scores[metric].low is None and "same in all resamples" in str(found.scores[metric].withheld)
    assert found.scores["auroc"].method == "exact" and found.scores["auroc"].low == pytest.approx(0.025 ** (1 / 20))
    assert 0.8 < found.scores["sensitivity"].low < found.scores["specificity"].low < found.scores["accuracy"].low < 1


def test_without_resamples_nothing_has_an_interval_or_a_reason_for_having_none() -> None:
    for part in (*scored().labels[:3], *scored().averages):
        for score in part.scores.values():
            assert score.value is not None and score.low is score.high is score.withheld is None


@pytest.mark.parametrize(("missing", "has_interval"), [(0, True), (1, True), (2, False), (10, False)])
def test_an_interval_needs_nine_resamples_in_ten(missing: int, has_interval: bool) -> None:
    drawn = np.linspace(0.4, 0.6, 10)
    drawn[:missing] = np.nan
    score = with_interval(0.5, drawn, "")
    assert (score.value, score.resamples) == (0.5, 10 - missing)
    assert (score.low is not None) == (score.high is not None) == has_interval


def test_chosen_rows_are_scored_alone() -> None:
    scores, labels, ids = awkward()
    rows = np.arange(90) % 2 == 0
    model = predicted_from_scores("m", LABELS, scores, None, GIVEN, False)
    part = score_images(model, labels, Patients(ids, 0), MEAN, rows)
    alone = predicted_from_scores("m", LABELS, scores[rows], None, GIVEN, False)
    assert part.labels == score_images(alone, labels[rows], Patients(np.array(ids)[rows], 0), MEAN).labels


def test_frequency_groups_are_macro_averages_of_their_labels() -> None:
    def share(positives: int) -> np.ndarray:
        return np.arange(1000) < positives

    assert [frequency_group(share(n)) for n in (101, 100, 10, 9)] == ["head", "medium", "medium", "tail"]
    found = weightings({"a": share(300), "b": share(50), "c": share(2), "d": share(500), "none": share(0)})
    assert found["macro"] == dict.fromkeys("abcd", 1.0)
    assert found["weighted"] == {"a": 300, "b": 50, "c": 2, "d": 500}
    assert (found["head"], found["medium"], found["tail"]) == ({"a": 1.0, "d": 1.0}, {"b": 1.0}, {"c": 1.0})


# ------------------------------------------------------------------------------ thresholds and temperatures


def test_thresholds_come_from_validation_and_are_named() -> None:
    scores, labels, _ = awkward(0)
    valid = (awkward(1)[0] / 2, awkward(1)[1])

    def rule(rule: ThresholdRule | None, validation: tuple[np.ndarray, np.ndarray] | None = valid) -> tuple[str, float]:
        model = predicted_from_scores("m", LABELS, scores, validation, rule, False)
        return model.threshold, float(model.thresholds[1])

    own = predicted_from_scores("m", LABELS, scores, (scores, labels), ThresholdRule("f1"), False)
    assert rule(ThresholdRule("f1"))[0] == "f1 on valid" and rule(None) == rule(ThresholdRule("f1"))
    assert rule(ThresholdRule("f1"))[1] != own.thresholds[1]
    assert rule(ThresholdRule("youden"))[0] == "Youden's J on valid"
    assert rule(GIVEN) == ("0.5 (given)", 0.5)
    assert rule(None, None) == ("0.5 (no validation predictions)", 0.5)
    assert np.isnan(own.thresholds[3:]).all()
    logits = predicted_from_scores("m", LABELS, 4 * scores - 2, None, None, False)
    assert np.isnan(logits.thresholds).all() and logits.threshold.startswith("none: the scores are not probabilities")


def test_scores_are_probabilities_only_where_those_of_validation_are() -> None:
    scores, labels, _ = awkward()
    assert predicted_from_scores("m", LABELS, scores, (scores, labels), None, False).probabilities is not None
    assert predicted_from_scores("m", LABELS, scores, (3 * scores, labels), None, False).probabilities is None
    assert predicted_from_scores("m", LABELS, 3 * scores, (scores, labels), None, False).probabilities is None


@pytest.mark.parametrize(
    ("rule", "calibrate"), [(ThresholdRule("f1"), False), (ThresholdRule("youden"), False), (None, True)]
)
def test_nothing_is_fitted_without_validation(rule: ThresholdRule | None, calibrate: bool) -> None:
    with pytest.raises(ValueError, match="fitted on validation predictions only"):
        predicted_from_scores("m", LABELS, awkward()[0], None, rule, calibrate)


def test_temperatures_make_probabilities_of_logits_and_leave_order_and_decisions() -> None:
    scores, labels, ids = awkward(0)
    valid = awkward(1)[:2]
    odds = (9 * scores - 4, (9 * valid[0] - 4, valid[1]))
    plain, scaled = (predicted_from_scores("m", LABELS, *odds, None, calibrate) for calibrate in (False, True))
    assert plain.probabilities is None and scaled.probabilities is not None
    assert scaled.calibration.endswith("scores taken as logits") and (scaled.temperatures[:3] > 0).all()
    found = [score_images(model, labels, Patients(ids, 0), MEAN).labels[1] for model in (plain, scaled)]
    for metric in ("auroc", "auprc", "f1", "mcc", "mse"):
        assert found[0].scores[metric].value == pytest.approx(found[1].scores[metric].value, abs=1e-12)
    assert found[0].scores["brier"].value is None and found[1].scores["brier"].value < 0.25


def test_temperatures_improve_the_calibration_of_probabilities() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((4000, 1)) < 0.3).astype(float)
    sure = 1 / (1 + np.exp(-8 * (truth + rng.normal(size=(4000, 1)) - 0.9)))
    half = slice(0, 2000), slice(2000, None)
    ids = list(map(str, range(2000)))
    errors = {}
    for calibrate in (False, True):
        model = predicted_from_scores("m", ("A",), sure[half[1]], (sure[half[0]], truth[half[0]]), None, calibrate)
        errors[calibrate] = score_images(model, truth[half[1]], Patients(ids, 0), ("A",)).labels[0].scores
    assert errors[True]["ece"].value < 0.6 * errors[False]["ece"].value
    assert errors[True]["brier"].value < errors[False]["brier"].value
