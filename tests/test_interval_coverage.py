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
from cxrcl.evaluation.scores.intervals import percentile

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


def test_tables_are_written_for_reading_and_for_further_use(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "MEANS", {"5 labels of 10": [10] * 5, "5 labels of 5 to 50": [5, 10, 20, 50, 50]})
    monkeypatch.setattr(script, "PATIENTS", 60)
    given = ["--out", str(tmp_path), "--simulations", "2", "--resamples", "20", "--tables", "areas", "means", "tests"]
    script.main(given)
    areas, means, tests = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("areas", "means", "tests"))
    assert areas["simulations"] == 2 and areas["resamples"] == 20 and len(areas["rows"]) == 30
    for row in (*areas["rows"], *means["rows"]):
        assert {"default", "percentile", "BCa"} <= set(row["coverage"]) == set(row["width"])
        assert all(share in (0, 0.5, 1) for share in row["coverage"].values())
    assert {row["positive patients"] for row in means["rows"]} == {"5 labels of 10", "5 labels of 5 to 50"}
    assert all(set(row["p < 0.05"]) == {"auroc", "auprc"} for row in tests["rows"])
    lines = (tmp_path / "areas.md").read_text().splitlines()
    assert len(lines) == 32 and all(name in lines[0] for name in ("AUROC", "default", "percentile", "BCa"))


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("auroc", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("positives", [[10], [20], [50], [10] * 5, [3, 10, 20, 50, 50]])
def test_the_interval_of_auroc_covers_from_ten_positive_patients(
    script: ModuleType, positives: list[int], auroc: float, most: int
) -> None:
    runs = Namespace(simulations=1000, resamples=1)
    (row,) = script.covered("", positives, auroc, most, ["auroc"], runs)
    assert row["coverage"]["default"] >= 0.93
