"""The simulation of coverage, and by it the intervals that reports have."""

from __future__ import annotations

import importlib.util
import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import bootstrap

from cxrcl.evaluation.metrics import auroc
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import percentile
from cxrcl.evaluation.scores.scoring import score_images

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "interval_coverage.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("interval_coverage", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_simulated_test_set_has_the_patients_and_the_auroc_that_it_is_asked_for(script: ModuleType) -> None:
    predicted, labels, member = script.sample([20, 50], 0.8, 4, (1,), larger=40)
    assert np.bincount(member).max() == 4 and len(np.unique(member)) == 40 * script.PATIENTS
    for k, patients in enumerate((20, 50)):
        assert len(np.unique(member[labels[:, k] == 1])) == 40 * patients
        assert auroc(predicted.scores[:, k], labels[:, k]) == pytest.approx(0.8, abs=0.015)
    assert np.corrcoef(predicted.scores.T)[0, 1] > 0.3  # labels of an image are alike


def test_bca_is_scipys(script: ModuleType) -> None:
    values = np.random.default_rng(0).lognormal(size=40)
    result = bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(1))
    own = script.bca(values.mean(), result.bootstrap_distribution, values - values.mean())
    assert own == pytest.approx(tuple(result.confidence_interval), rel=1e-3)
    assert own[0] > percentile(result.bootstrap_distribution).low
    assert script.bca(1.0, np.ones(9), np.zeros(3)) == (1.0, 1.0)


@pytest.mark.parametrize("positives", [[20], [10, 20, 30]])
def test_the_default_is_what_reports_have(script: ModuleType, positives: list[int]) -> None:
    part = script.sample(positives, 0.8, 4, (3,))
    predicted, labels, member = part
    found = {method: bounds for method, *bounds in script.intervals_of_area(part, 50, 1)}
    reported = score_images(predicted, labels, Patients(member, 50, 1), predicted.labels)
    parts = reported.averages[0] if len(positives) > 1 else reported.labels[0]
    assert found["default"] == pytest.approx([parts.scores["auroc"].low, parts.scores["auroc"].high], abs=1e-12)
    of_drawn = (reported.by_average["macro"] if len(positives) > 1 else reported.by_label["L0"]).drawn["auroc"]
    assert found["percentile"] == pytest.approx(percentile(of_drawn)[:2], abs=1e-12)


def test_tables_are_written_for_reading_and_for_further_use(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "MEANS", {"5 labels of 10": [10] * 5})
    monkeypatch.setattr(script, "PATIENTS", 60)
    given = ["--out", str(tmp_path), "--simulations", "2", "--resampled", "1", "--resamples", "20"]
    script.main(given)
    areas, means, others, tests = (
        json.loads((tmp_path / f"{name}.json").read_text())["rows"] for name in ("areas", "means", "others", "tests")
    )
    assert (len(areas), len(means), len(others), len(tests)) == (30, 6, 80, 6)
    for row in (*areas, *means):
        assert {"default", "percentile", "BCa"} <= set(row["coverage"]) == set(row["width"])
        assert row["simulations"]["default"] == 2 and row["simulations"]["BCa"] == 1 and row["true"] == row["AUROC"]
    assert {row["metric"] for row in others} == set(script.OTHERS)
    assert all(row["p < 0.05"] in (0, 0.5, 1) for row in tests)
    lines = (tmp_path / "areas.md").read_text().splitlines()
    assert len(lines) == 32 and all(name in lines[0] for name in ("AUROC", "default", "percentile", "BCa"))


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("auroc", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("positives", [[10], [20], [50], [10] * 5, [3, 10, 20, 50, 50]])
def test_the_interval_of_auroc_covers_from_ten_positive_patients(
    script: ModuleType, positives: list[int], auroc: float, most: int
) -> None:
    row = script.covered_area("", positives, auroc, most, Namespace(simulations=2000, resampled=0, resamples=0))
    assert row["coverage"]["default"] >= 0.93
