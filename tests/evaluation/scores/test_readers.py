"""Models beside readers: every number against one computed image by image."""

from __future__ import annotations

import numpy as np
import pytest
from score_data import LABELS, awkward

from cxrcl.evaluation.metrics.labels import is_labelled
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.comparisons import holm
from cxrcl.evaluation.scores.models import score_models
from cxrcl.evaluation.scores.reader_files import Readings
from cxrcl.evaluation.scores.score_report import AgainstReader, ReaderScores, ScoreReport
from cxrcl.evaluation.scores.scoring import ranked_only
from cxrcl.evaluation.scores.statistics import Counted, Drawn
from cxrcl.evaluation.scores.use import with_use

COUNT = 160
SCORES, TRUTH, IDS = awkward(7, count=COUNT, levels=40)
EDEMA = LABELS.index("Edema")


def readings() -> list[Readings]:
    """Two readers: A read every image but five, B the first hundred; both read Edema and Only ones, A also Fracture."""
    rng = np.random.default_rng(3)
    found = []
    for reader, read, right in (("A", np.arange(5, COUNT), 0.8), ("B", np.arange(100), 0.65)):
        calls = np.full((COUNT, len(LABELS)), np.nan)
        for k in (1, 2, 3) if reader == "A" else (1, 3):
            truth = np.nan_to_num(TRUTH[read, k]) == 1
            calls[read, k] = np.where(rng.random(len(read)) < right, truth, ~truth)
        found.append(Readings(reader, calls))
    return found


READ = readings()


def report(resamples: int = 0) -> ScoreReport:
    model, patients = ranked_only("m", LABELS, SCORES), Patients(IDS, resamples)
    scored = score_models([model], TRUTH, patients, LABELS[1:], {}, {})
    return with_use(scored, [model], TRUTH, patients, LABELS[1:], [], READ)


def slow(scores: np.ndarray, positive: np.ndarray, called: np.ndarray) -> dict[str, float]:
    """The reader's point, and the model's best rate of all thresholds where the other is the reader's or more."""
    sensitivity, specificity = called[positive].mean(), (~called)[~positive].mean()
    points = [((scores >= t)[positive].mean(), (scores < t)[~positive].mean()) for t in [*np.unique(scores), np.inf]]
    return {
        "reader's sensitivity": float(sensitivity),
        "reader's specificity": float(specificity),
        "sensitivity": float(max(one for one, other in points if other >= specificity)),
        "specificity": float(max(other for one, other in points if one >= sensitivity)),
    }


def expected(reader: int, k: int, weights: np.ndarray | None = None) -> dict[str, float]:
    calls = READ[reader].calls[:, k]
    rows = np.flatnonzero(is_labelled(calls) & is_labelled(TRUTH[:, k]))
    rows = rows if weights is None else np.repeat(rows, weights[rows])
    return slow(SCORES[rows, k], TRUTH[rows, k] == 1, calls[rows] == 1)


def point(found: ScoreReport, reader: str, label: str = "Edema") -> ReaderScores:
    return next(one for one in found.readers if (one.reader, one.label) == (reader, label))


def against(found: ScoreReport, reader: str, metric: str, label: str = "Edema") -> AgainstReader:
    parts = found.models[0].against_readers
    return next(one for one in parts if (one.reader, one.label, one.metric) == (reader, label, metric))


def test_a_reader_is_a_point_and_the_model_is_read_off_its_curve_there() -> None:
    found = report()
    for place, reader in enumerate("AB"):
        numbers = expected(place, EDEMA)
        one = point(found, reader)
        assert one.sensitivity.value == pytest.approx(numbers["reader's sensitivity"], abs=1e-12)
        assert one.specificity.value == pytest.approx(numbers["reader's specificity"], abs=1e-12)
        for metric in ("sensitivity", "specificity"):
            part = against(found, reader, metric)
            assert part.value.value == pytest.approx(numbers[metric], abs=1e-12)
            assert part.difference.value == pytest.approx(numbers[metric] - numbers[f"reader's {metric}"], abs=1e-12)
            assert part.p is part.difference.low is None  # without resamples


def test_only_images_that_the_reader_read_and_whose_label_is_known_count() -> None:
    found = report()
    calls = READ[1].calls[:, EDEMA]
    known = is_labelled(calls) & is_labelled(TRUTH[:, EDEMA])
    one = point(found, "B")
    assert (one.images, one.unknown) == (known.sum(), 100 - known.sum()) and one.unknown > 0
    assert (one.positives, one.negatives) == ((TRUTH[known, EDEMA] == 1).sum(), (TRUTH[known, EDEMA] == 0).sum())
    assert one.patients == len({IDS[k] for k in np.flatnonzero(known)})
    assert {(part.reader, part.label) for part in found.readers} == {
        *((reader, label) for reader in "AB" for label in ("Edema", "Only ones")),
        ("A", "Fracture"),
        ("mean of 2 readers", "Edema"),
    }
    assert "Fracture" in found.models[0].roc and "No Finding" not in found.models[0].roc


def test_intervals_and_p_values_find_reader_and_threshold_anew_in_each_resample() -> None:
    patients = Patients(IDS, 150)  # as many as Holm's correction of three comparisons takes
    counts = np.concatenate(list(patients.draws(50)), axis=1)
    weights = [counts[patients.index, k].astype(int) for k in range(150)]
    found = report(50)
    for place, reader in enumerate("AB"):
        plain = expected(place, EDEMA)
        drawn = [expected(place, EDEMA, each) for each in weights]
        read = is_labelled(READ[place].calls[:, EDEMA])
        whose = Counted(*(len(set(patients.index[read & (TRUTH[:, EDEMA] == call)])) for call in (1, 0)))
        for metric in ("sensitivity", "specificity"):
            differences = np.array([one[metric] - one[f"reader's {metric}"] for one in drawn])
            part = against(found, reader, metric)
            alone = Drawn(plain[metric] - plain[f"reader's {metric}"], differences, whose)
            interval = alone.score()
            assert (part.difference.low, part.difference.high) == pytest.approx(
                (interval.low, interval.high), abs=1e-12
            )
            assert part.p == alone.p()
    family = [one for one in found.models[0].against_readers if one.metric == "sensitivity" and one.reader in "AB"]
    corrected = holm([np.nan if one.p is None else one.p for one in family])
    np.testing.assert_array_equal([np.nan if one.p_holm is None else one.p_holm for one in family], corrected)


def test_the_mean_reader_is_the_mean_of_points_and_of_differences() -> None:
    found = report(40)
    mean = point(found, "mean of 2 readers")
    for metric in ("sensitivity", "specificity"):
        each = [getattr(point(found, reader), metric).value for reader in "AB"]
        assert getattr(mean, metric).value == pytest.approx(np.mean(each))
        part = against(found, "mean of 2 readers", metric)
        differences = [against(found, reader, metric).difference.value for reader in "AB"]
        assert part.difference.value == pytest.approx(np.mean(differences))
        assert part.difference.low < part.difference.value < part.difference.high
        assert part.p_holm == part.p  # one label: a family of one
    assert mean.images == (is_labelled(TRUTH[:, EDEMA])).sum()  # read by one of them at least


def test_a_label_of_one_class_has_the_reason_in_place_of_numbers() -> None:
    found = report(20)
    one, part = point(found, "A", "Only ones"), against(found, "A", "sensitivity", "Only ones")
    assert one.negatives == 0 and one.sensitivity.value is None and "0 negatives" in one.sensitivity.reason
    assert part.value.value is part.p is part.p_holm is None and "0 negatives" in part.difference.reason


def test_a_model_that_is_the_reader_differs_by_nothing() -> None:
    calls = READ[0].calls
    model, patients = ranked_only("m", LABELS, np.nan_to_num(calls)), Patients(IDS, 30)
    scored = score_models([model], TRUTH, patients, LABELS[1:], {}, {})
    found = with_use(scored, [model], TRUTH, patients, LABELS[1:], [], READ[:1])
    for metric in ("sensitivity", "specificity"):
        part = against(found, "A", metric)
        assert part.difference.value == part.difference.low == part.difference.high == 0 and part.p == 1
    assert not any("mean" in one.reader for one in found.readers)
