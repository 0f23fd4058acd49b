"""Coverage and time of the intervals of use, for docs/operating_points.md: `pytest -m slow -s` on this file."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from cxrcl.evaluation.metrics.label_metrics import LabelColumn
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.decision_curves import score_decision_curves
from cxrcl.evaluation.scores.fixed_rates import DEFAULT, score_fixed_rates
from cxrcl.evaluation.scores.reader_files import Readings
from cxrcl.evaluation.scores.readers import against_readers
from cxrcl.evaluation.scores.score_report import Score
from cxrcl.evaluation.scores.scoring import ranked_only
from cxrcl.evaluation.scores.selective import score_selective

SHIFT = 1.5  # of scores where an image is positive: an AUROC of 0.856
READER = {"sensitivity": 0.75, "specificity": 0.85}
ACT = 0.2  # threshold probability


def probability(score: np.ndarray, share: float) -> np.ndarray:
    return np.asarray(expit(SHIFT * score - SHIFT**2 / 2 + np.log(share / (1 - share))))


def truth(share: float) -> dict[str, float]:
    """The numbers of all images, by formula or of two million of them."""
    rng = np.random.default_rng(99)
    positive = rng.random(2_000_000) < share
    p = probability(rng.normal(size=len(positive)) + SHIFT * positive, share)
    called = p >= 0.5
    wrong = (called != positive)[np.argsort(-np.where(called, p, 1 - p))]
    act = p >= ACT
    return {
        "sensitivity at specificity 0.9": norm.cdf(SHIFT - norm.ppf(0.9)),
        "specificity at sensitivity 0.9": norm.cdf(SHIFT - norm.ppf(0.9)),
        "AURC": (np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean(),
        "net benefit": (act & positive).mean() - (act & ~positive).mean() * ACT / (1 - ACT),
        "sensitivity minus a reader's": norm.cdf(SHIFT - norm.ppf(READER["specificity"])) - READER["sensitivity"],
        "specificity minus a reader's": norm.cdf(SHIFT - norm.ppf(READER["sensitivity"])) - READER["specificity"],
    }


def found(seed: int, count: int, share: float, resamples: int) -> dict[str, Score]:
    """The same of a test set: patients with one to four images, which are positive together and whose scores, and
    whose readings, are alike."""
    rng = np.random.default_rng((count, seed))
    member = np.repeat(np.arange(count), rng.integers(1, 5, count))

    def alike() -> np.ndarray:
        return (rng.normal(size=count)[member] + rng.normal(size=len(member))) / np.sqrt(2)

    positive = (rng.random(count) < share)[member]
    p = probability(alike() + SHIFT * positive, share)
    uniform = norm.cdf(alike())
    called = np.where(positive, uniform < READER["sensitivity"], uniform > READER["specificity"])
    patients = Patients(member, resamples, seed)
    column = {"a": LabelColumn(p, positive, patients.index, p, p >= 0.5)}
    at_specificity, at_sensitivity = score_fixed_rates(column, patients, [], DEFAULT)
    (curve,) = score_decision_curves(column, patients)
    k = curve.thresholds.index(ACT)
    readings = [Readings("r", called[:, None].astype(float))]
    more, further = against_readers(ranked_only("m", ("a",), p[:, None]), readings, positive[:, None] * 1.0, patients)
    return {
        "sensitivity at specificity 0.9": at_specificity.labels["a"],
        "specificity at sensitivity 0.9": at_sensitivity.labels["a"],
        "AURC": score_selective(column, patients, [])[0].aurc,
        "net benefit": Score(curve.net_benefit[k], curve.low[k], curve.high[k]),
        "sensitivity minus a reader's": more.difference,
        "specificity minus a reader's": further.difference,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("count", "share"), [(300, 0.05), (300, 0.07), (300, 0.1), (300, 0.3), (1000, 0.1)])
def test_intervals_hold_the_true_value(count: int, share: float) -> None:
    expected = truth(share)
    held: dict[str, list[bool]] = {name: [] for name in expected}
    for seed in range(500):
        for name, score in found(seed, count, share, 400).items():
            if score.low is not None and score.high is not None:
                held[name].append(score.low <= expected[name] <= score.high)
    shares = {name: round(float(np.mean(each)), 3) for name, each in held.items()}
    print(f"\n{count * share:.0f} of {count} patients positive: {shares}, of {min(map(len, held.values()))} or more")
    assert all(0.88 < each < 0.98 for each in shares.values())


@pytest.mark.slow
def test_a_thousand_resamples_of_a_large_test_set_take_seconds() -> None:
    """14 labels and 25,000 images."""
    rng = np.random.default_rng(0)
    positive = rng.random((25_000, 14)) < np.linspace(0.002, 0.3, 14)
    scores = expit(rng.normal(size=positive.shape) + 1.5 * positive - 1.5)
    patients = Patients(rng.integers(0, 10_000, 25_000), 1000)
    columns = {
        f"label {k}": LabelColumn(s, y, patients.index, s, s >= 0.5)
        for k, (s, y) in enumerate(zip(scores.T, positive.T, strict=True))
    }
    for name, of_columns in (
        ("fixed rates", lambda: score_fixed_rates(columns, patients, list(columns), DEFAULT)),
        ("AURC", lambda: score_selective(columns, patients, list(columns))),
        ("decision curves", lambda: score_decision_curves(columns, patients)),
    ):
        start = time.process_time()
        of_columns()
        taken = time.process_time() - start
        print(f"{name}: {taken:.1f} s")
        assert taken < 20
