"""Fractions of the training patients: whole patients, nested, the same alone and in a mixture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrcl.data import manifest
from cxrcl.data.fractions import keep_fractions, write_index
from cxrcl.data.manifest import Manifest

Load = Callable[..., Manifest]


@pytest.fixture
def load(put: Callable[..., Path]) -> Load:
    """100 patients of train with one to three images, five of valid, five of test; by key of the source."""

    def make(*keys: str) -> Manifest:
        rows = []
        for k in range(110):
            split = "train" if k < 100 else "valid" if k < 105 else "test"
            for image in range(k % 3 + 1):
                whole = {"image": f"{k}_{image}.png", "patient": f"{k:03d}", "study": "1", "view": "PA", "split": split}
                rows.append({**whole, "Edema": str(k % 2)})
        folder = put(rows)
        return manifest.merge({key: manifest.load(folder) for key in keys})

    return make


def patients(data: Manifest, split: str = "train") -> set[str]:
    return set(data.split(split).rows["patient"])


@pytest.mark.parametrize(("fraction", "count"), [(0.001, 1), (0.01, 1), (0.015, 2), (0.07, 7), (0.5, 50), (0.995, 100)])
def test_so_many_patients_stay_with_all_their_images(load: Load, fraction: float, count: int) -> None:
    whole = load("a")
    data = keep_fractions(whole, {"a": fraction}, 0)
    kept = patients(data)
    assert len(kept) == count
    expected = whole.rows["patient"].isin(kept) | (whole.rows["split"] != "train")
    assert data.rows["image"].tolist() == whole.rows["image"][expected].tolist()
    np.testing.assert_array_equal(data.values, whole.values[expected.to_numpy()])


def test_valid_and_test_are_left_as_they_are(load: Load) -> None:
    whole = load("a")
    data = keep_fractions(whole, {"a": 0.01}, 0)
    for split in ("valid", "test"):
        assert data.split(split).rows.equals(whole.split(split).rows)


def test_smaller_fractions_are_inside_larger_ones_whatever_the_seed(load: Load) -> None:
    for seed in range(3):
        kept = [patients(keep_fractions(load("a"), {"a": f}, seed)) for f in (0.01, 0.1, 0.5)]
        assert kept[0] < kept[1] < kept[2]


def test_the_seed_chooses_the_patients(load: Load) -> None:
    kept = {frozenset(patients(keep_fractions(load("a"), {"a": 0.2}, seed))) for seed in (0, 0, 1, 2)}
    assert len(kept) == 3


def test_neither_the_order_of_rows_nor_other_patients_change_who_comes_first(load: Load) -> None:
    whole = load("a")
    turned = whole.take(np.arange(len(whole))[::-1])
    fewer = whole.take((whole.rows["patient"] != min(patients(whole))).to_numpy())
    kept = patients(keep_fractions(whole, {"a": 0.2}, 0))
    assert patients(keep_fractions(turned, {"a": 0.2}, 0)) == kept
    assert len(patients(keep_fractions(fewer, {"a": 0.2}, 0)) & kept) >= 19


def test_a_source_has_the_same_patients_alone_and_beside_another(load: Load) -> None:
    alone = patients(keep_fractions(load("a"), {"a": 0.1}, 0))
    both = patients(keep_fractions(load("a", "b"), {"a": 0.1}, 0))
    assert both == {f"a/{p}" for p in alone} | {f"b/{p}" for p in patients(load("b"))}


def test_patients_are_no_plain_first_ones(load: Load) -> None:
    kept = [int(patient) for patient in patients(keep_fractions(load("a"), {"a": 0.2}, 0))]
    assert 30 < np.mean(kept) < 70


def test_the_index_names_each_image_once_even_where_the_training_split_is_scored(load: Load, tmp_path: Path) -> None:
    data = keep_fractions(load("a"), {"a": 0.1}, 0)
    training, valid = data.split("train").rows, data.split("valid").rows
    write_index(tmp_path / "index.csv", data.split("train"), data, ("train", "valid"))
    found = pd.read_csv(tmp_path / "index.csv", dtype=str)
    assert list(found) == ["image", "split"]
    assert found["image"].tolist() == [*training["image"], *valid["image"]]
    assert found["split"].tolist() == ["train"] * len(training) + ["valid"] * len(valid)


def test_the_fingerprint_follows_the_fraction(load: Load) -> None:
    prints = {keep_fractions(load("a"), {"a": f}, seed).fingerprint() for f, seed in [(0.1, 0), (0.2, 0), (0.1, 1)]}
    assert len({load("a").fingerprint(), *prints}) == 4
    assert keep_fractions(load("a"), {"a": 1.0}, 0).fingerprint() == load("a").fingerprint()
