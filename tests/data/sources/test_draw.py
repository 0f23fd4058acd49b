"""Splits that are drawn, and those of published lists."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from downloads import write

from cxrcl.data.sources.draw import Draw, HeldOut, listed_splits
from cxrcl.errors import DataError

PATIENTS = pd.Series([f"p{k // 2}" for k in range(200)])


def shares(splits: pd.Series) -> dict[str, int]:
    assert (splits.groupby(PATIENTS).nunique() == 1).all()
    return splits.groupby(PATIENTS).first().value_counts().to_dict()


def test_splits_are_drawn_where_there_are_none() -> None:
    splits, note = Draw(valid_fraction=0.1, test_fraction=0.2).splits(PATIENTS)
    assert shares(splits) == {"train": 70, "test": 20, "valid": 10}
    assert note == "Splits: drawn by patient (train 0.7, valid 0.1, test 0.2 of the patients, seed 0)."
    assert not Draw(valid_fraction=0.1, test_fraction=0.2, seed=1).splits(PATIENTS)[0].equals(splits)


@pytest.mark.parametrize("test_fraction", [0.65, None])
def test_given_splits_stay_and_a_missing_valid_is_drawn_from_train(test_fraction: float | None) -> None:
    given = pd.Series(["train"] * 160 + ["test"] * 40)
    splits, note = Draw(valid_fraction=0.25, test_fraction=test_fraction).splits(PATIENTS, given)
    assert shares(splits) == {"train": 60, "valid": 20, "test": 20} and "valid is drawn from train" in note
    assert (splits[160:] == "test").all() and (given[:160] == "train").all()
    for whole, fraction in ((given, 0), (given.replace("train", "valid"), 0.1), (splits, 0.1)):
        kept, note = Draw(valid_fraction=fraction).splits(PATIENTS, whole)
        assert kept.tolist() == whole.tolist() and note == "Splits: as the data has them."


@pytest.mark.parametrize("fractions", [(-0.1, 0.1), (0.1, -0.1), (0.6, 0.4), (float("nan"), 0.1), (0.1, float("nan"))])
def test_fractions_that_leave_nothing_for_train_are_refused(fractions: tuple[float, float]) -> None:
    with pytest.raises(DataError, match=r"^--valid-fraction \S+ --test-fraction \S+: expected 0 or more, and together"):
        Draw(valid_fraction=fractions[0], test_fraction=fractions[1]).splits(PATIENTS)


def test_balanced_by_the_set_of_values_of_a_patient() -> None:
    ill = pd.Series(["1" if k % 20 == 1 else "0" for k in range(200)], name="Edema")  # one image of ten patients
    splits, note = Draw().splits(PATIENTS, balanced=ill)
    assert shares(splits) == {"train": 80, "valid": 10, "test": 10} and "balanced by Edema" in note
    assert splits[ill == "1"].value_counts().to_dict() == {"train": 8, "valid": 1, "test": 1}


@pytest.mark.parametrize(
    ("valid", "test", "said"),
    [(-0.1, 0.1, "-0.1 --test-fraction 0.1:"), (0.5, 0.5, "0.5 --test"), (1.5, 0.0, "1.5 --test"), (1.0, None, "1:")],
)
def test_fractions_out_of_range(valid: float, test: float | None, said: str) -> None:
    with pytest.raises(DataError, match=f"^--valid-fraction {said}"):
        Draw(valid_fraction=valid, test_fraction=test).splits(PATIENTS)


def test_held_out_patients_stay_when_others_are_added() -> None:
    own = pd.Series(["train"] * 160 + ["valid"] * 20 + ["test"] * 20)
    splits, note = HeldOut(hold_out=0.2, develop=0.25).splits(PATIENTS, own)
    counts = shares(splits)
    assert sum(counts.values()) == 100 and 8 < counts["test"] - 20 < 25 and 10 < counts["valid"] < 30
    assert (splits[160:] == "test").all() and "by the SHA-256 of their ids" in note
    fewer = HeldOut(hold_out=0.2, develop=0.25).splits(PATIENTS[::3], own[::3])[0]
    assert fewer.equals(splits[::3])
    last = HeldOut(hold_out=0.2).splits(PATIENTS, own)[0]  # the run after development: valid goes back to train
    assert ((last == "test") == (splits == "test")).all() and set(last) == {"train", "test"}


def test_nothing_is_held_out_by_default() -> None:
    own = pd.Series(["train"] * 180 + ["test"] * 20)
    assert HeldOut().splits(PATIENTS, own) == (own, "Splits: as the data has them.")


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_shares_that_leave_nothing_for_train_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(DataError, match=r"^--hold-out \S+ --develop \S+: expected 0 or more, and together less than 1"):
        HeldOut(hold_out=shares[0], develop=shares[1]).splits(PATIENTS, pd.Series(["train"] * 200))


def test_lists_name_the_images_of_each_split(tmp_path: Path) -> None:
    def read(file: Path) -> pd.Series:
        return pd.Series(file.read_text().split())

    write(tmp_path / "a.txt", "0 1 1")
    write(tmp_path / "b.txt", "2")
    lists = {"a.txt": "train", "b.txt": "test"}
    assert listed_splits(tmp_path, lists, read, "images").to_dict() == {"0": "train", "1": "train", "2": "test"}
    write(tmp_path / "b.txt", "1 0")
    with pytest.raises(DataError, match=r": 2 images stand in two of a\.txt, b\.txt \(the first: 0\): expected lists"):
        listed_splits(tmp_path, lists, read, "images")
