"""Scores by group."""

from __future__ import annotations

import numpy as np
import pytest
from score_data import LABELS, awkward
from sklearn import metrics

from cxrcl.evaluation.metrics.labels import is_labelled
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import Gap, GroupScores
from cxrcl.evaluation.scores.subgroups import LEAST_PATIENTS, age_bands, columns_of, groups_of, score_groups
from cxrcl.evaluation.scores.thresholds import ThresholdRule, predicted_from_scores

SCORES, TRUTH, IDS = awkward(3, count=240)
SEX = ["F" if k % 3 else "M" for k in range(236)] + ["(blank)"] * 4


def by_sex(resamples: int = 0, labels: tuple[str, ...] = LABELS) -> tuple[list[GroupScores], list[Gap]]:
    columns = [LABELS.index(name) for name in labels]
    model = predicted_from_scores("m", labels, SCORES[:, columns], None, ThresholdRule("given", 0.5), False)
    return score_groups(model, TRUTH[:, columns], Patients(IDS, resamples), labels[1:], "sex", SEX)


def test_each_group_is_scored_on_its_own_images() -> None:
    groups, _ = by_sex()
    assert [(group.group, group.images) for group in groups] == [("F", 157), ("M", 79), ("(blank)", 4)]
    for group in groups[:2]:
        rows = (np.array(SEX) == group.group) & is_labelled(TRUTH[:, 1])
        expected = metrics.roc_auc_score(TRUTH[rows, 1], SCORES[rows, 1])
        assert group.labels[1].scores["auroc"].value == pytest.approx(expected, abs=1e-12)
        assert group.labels[1].images == rows.sum() and group.labels[1].positives == TRUTH[rows, 1].sum()
        assert group.patients == len({IDS[k] for k in range(240) if SEX[k] == group.group})


def test_the_gap_is_between_the_best_and_the_worst_group_and_blank_is_none() -> None:
    groups, gaps = by_sex(100)
    found = {(gap.label, gap.metric): gap for gap in gaps}
    for metric in ("auroc", "brier"):
        values = {group.group: group.labels[1].scores[metric].value for group in groups[:2]}
        gap = found["Edema", metric]
        assert gap.gap.value == pytest.approx(max(values.values()) - min(values.values()), abs=1e-12)
        best = (max if metric == "auroc" else min)(values, key=values.__getitem__)
        assert gap.best == best and {gap.best, gap.worst} == {"F", "M"}
        assert gap.gap.low < gap.gap.value < gap.gap.high
    assert ("Only ones", "auroc") not in found


def test_the_mean_gap_is_over_labels_that_every_group_has() -> None:
    before = TRUTH.copy()
    try:
        TRUTH[np.array(SEX) == "M", 2] = 0
        groups, gaps = by_sex()
    finally:
        TRUTH[:] = before
    (mean,) = [gap for gap in gaps if (gap.label, gap.metric) == ("macro", "auroc")]
    (edema,) = [gap for gap in gaps if (gap.label, gap.metric) == ("Edema", "auroc")]
    assert mean.over == ["Edema"] and mean.gap.value == edema.gap.value
    assert groups[0].averages[0].over["auroc"] == ["Edema", "Fracture"]


def test_underdiagnosis_is_the_share_of_images_with_disease_that_are_called_no_finding() -> None:
    groups, _ = by_sex(100)
    for group in groups[:2]:
        sick = (np.array(SEX) == group.group) & (TRUTH[:, 0] == 0)
        rate = group.underdiagnosis
        assert rate.value == pytest.approx((SCORES[sick, 0] >= 0.5).mean(), abs=1e-12)
        assert rate.low < rate.value < rate.high
    without, _ = by_sex(labels=LABELS[1:])
    assert without[0].underdiagnosis.value is None
    assert without[0].underdiagnosis.reason == "no scores for No Finding"


def test_ages_fall_into_bands_of_years() -> None:
    ages = ["0", "19.9", "20", "063Y", "80", "101", "", "n/a", "-3", " 45 "]
    bands = ["0-19", "0-19", "20-39", "60-79", "80+", "80+", "(blank)", "(blank)", "(blank)", "40-59"]
    assert age_bands(ages) == bands == groups_of("age", ages) == groups_of("Age", ages)


def test_other_columns_are_taken_as_they_are_up_to_thirty_groups() -> None:
    assert groups_of("view", ["PA", "", " AP"]) == ["PA", "(blank)", "AP"]
    assert len(set(groups_of("site", [str(k) for k in range(30)]))) == 30
    with pytest.raises(ValueError, match="column site has 31 different values: at most 30"):
        groups_of("site", [str(k) for k in range(31)])


def test_intersections_are_groups_of_two_columns_or_more() -> None:
    columns = (["F", "M", " F", "", "M"], ["063Y", "5", "70", "30", "n/a"], ["PA", "AP", "PA", "AP", "PA"])
    assert groups_of("sex*age*view", *columns) == ["F, 60-79, PA", "M, 0-19, AP", "F, 60-79, PA", "(blank)", "(blank)"]
    assert columns_of(" sex * age ") == ["sex", "age"] and columns_of("sex") == ["sex"]
    with pytest.raises(ValueError, match="columns site and sex have 40 different values: at most 30"):
        groups_of("site*sex", [str(k % 20) for k in range(40)], ["F" if k < 20 else "M" for k in range(40)])


def test_a_group_of_few_patients_is_counted_and_has_neither_metrics_nor_a_gap() -> None:
    few = LEAST_PATIENTS - 1
    whose = sorted(set(IDS))
    assigned = ["few" if whose.index(one) < few else "F" if k % 2 else "M" for k, one in enumerate(IDS)]
    model = predicted_from_scores("m", LABELS, SCORES, None, ThresholdRule("given", 0.5), False)
    groups, gaps = score_groups(model, TRUTH, Patients(IDS, 20), LABELS[1:], "sex", assigned)
    small = next(group for group in groups if group.group == "few")
    assert (small.patients, small.images) == (few, assigned.count("few"))
    edema = small.labels[1]
    rows = (np.array(assigned) == "few") & is_labelled(TRUTH[:, 1])
    assert edema.positives == TRUTH[rows, 1].sum() > 0 and edema.confusion is None and edema.reliability is None
    for score in (*edema.scores.values(), *small.averages[0].scores.values(), small.underdiagnosis):
        assert score.value is None and score.low is None and score.reason == "9 patients, fewer than 10"
    assert gaps and not any("few" in (gap.best, gap.worst) for gap in gaps)
    enough = ["few" if whose.index(one) <= few else "F" for one in IDS]
    groups, gaps = score_groups(model, TRUTH, Patients(IDS, 20), LABELS[1:], "sex", enough)
    assert groups[1].labels[1].scores["auroc"].value is not None
    assert any("few" in (gap.best, gap.worst) for gap in gaps)
