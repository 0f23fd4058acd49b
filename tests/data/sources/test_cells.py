"""Columns, cells and splits of a person's own table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cxrcl.data.sources import cells
from cxrcl.errors import DataError

TABLE = pd.DataFrame({"file": ["a"], "1": ["b"], "Edema": ["c"]})


@pytest.mark.parametrize(("name", "found"), [("file", "file"), ("0", "file"), ("2", "Edema"), ("1", "1")])
def test_columns_by_name_then_by_number(name: str, found: str) -> None:
    assert cells.column(TABLE, name, "image") == found


@pytest.mark.parametrize("name", ["3", "-1", "edema", ""])
def test_a_column_that_is_not_there_names_those_that_are(name: str) -> None:
    with pytest.raises(DataError, match=f"--image {name}: no such column; found: file, 1, Edema .* 0 to 2"):
        cells.column(TABLE, name, "image")


def test_several_columns() -> None:
    assert (
        cells.columns(TABLE, " file, 2 ,", "labels") == ["file", "Edema"] and cells.columns(TABLE, "", "labels") == []
    )


def test_label_cells() -> None:
    given = pd.Series(["1", "1.0", "True", "0", " 0.0 ", "FALSE", "-1", "-1.0", "", "nan", "None"], name="Edema")
    assert cells.as_labels(given, "t.csv").tolist() == ["1"] * 3 + ["0"] * 3 + ["-1"] * 2 + [""] * 3
    with pytest.raises(DataError, match=r"t.csv: label 'Edema' is '2' in 1 rows: expected 1, 0, -1 or blank"):
        cells.as_labels(pd.Series(["1", "2"], name="Edema"), "t.csv")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(["1", "", "0"], True), (["1.0", "nan"], True), (["", "nan"], False), (["1", "2"], False), (["Clear."], False)],
)
def test_columns_that_look_like_labels(given: list[str], expected: bool) -> None:
    assert cells.looks_like_labels(pd.Series(given)) is expected


def test_labels_are_spelled_as_in_chexpert_where_only_the_spelling_differs() -> None:
    names = ["PNEUMONIA", "pleural_effusion", "Normal", "COVID-19", "Lung opacity", "Viral Pneumonia"]
    expected = ["Pneumonia", "Pleural Effusion", "No Finding", "COVID-19", "Lung Opacity", "Viral Pneumonia"]
    assert list(cells.label_names(names, "t.csv").values()) == expected
    with pytest.raises(DataError, match="'Edema' and 'EDEMA' are both the label 'Edema'"):
        cells.label_names(["Edema", "EDEMA"], "t.csv")


def test_split_words() -> None:
    words = pd.Series(["Train", "training", "val", "VALID", "validation", "validate", "dev", "test", " Testing"])
    assert cells.as_splits(words, "t.csv").tolist() == ["train"] * 2 + ["valid"] * 5 + ["test"] * 2
    assert cells.is_split(pd.Series(["val", "NORMAL"])).tolist() == [True, False]
    with pytest.raises(DataError, match="split 'holdout' in 2 rows"):
        cells.as_splits(pd.Series(["train", "holdout", "holdout"]), "t.csv")


def test_the_only_table_or_the_one_named(tmp_path: Path) -> None:
    (tmp_path / "images.png").touch()
    with pytest.raises(DataError, match=r"0 CSV files \(none\): .*--table"):
        cells.the_table(tmp_path, "")
    (tmp_path / "a.csv").touch()
    assert cells.the_table(tmp_path, "") == tmp_path / "a.csv"
    (tmp_path / "b.TSV").touch()
    with pytest.raises(DataError, match=r"2 CSV files \(a.csv, b.TSV\)"):
        cells.the_table(tmp_path, "")
    assert cells.the_table(tmp_path, "b.TSV") == tmp_path / "b.TSV"


@pytest.mark.parametrize(
    ("given", "name", "mark"),
    [("", "a.csv", ","), ("", "a.tsv.gz", "\t"), ("tab", "a.csv", "\t"), ("\\t", "a.csv", "\t"), (";", "a.tsv", ";")],
)
def test_separators(given: str, name: str, mark: str) -> None:
    assert cells.the_separator(given, Path(name)) == mark


def test_a_separator_is_one_character() -> None:
    with pytest.raises(DataError, match="expected one character"):
        cells.the_separator(", ", Path("a.csv"))


PATIENTS = pd.Series([f"p{k // 2}" for k in range(200)])


def shares(splits: pd.Series) -> dict[str, int]:
    assert (splits.groupby(PATIENTS).nunique() == 1).all()
    return splits.groupby(PATIENTS).first().value_counts().to_dict()


def test_splits_are_drawn_where_there_are_none() -> None:
    splits, note = cells.draw_splits(PATIENTS, None, 0.1, 0.2, 0)
    assert shares(splits) == {"train": 70, "test": 20, "valid": 10}
    assert note == "Splits: drawn by patient (train 0.7, valid 0.1, test 0.2 of the patients, seed 0)."
    assert not cells.draw_splits(PATIENTS, None, 0.1, 0.2, 1)[0].equals(splits)


def test_given_splits_stay_and_a_missing_valid_is_drawn_from_train() -> None:
    given = pd.Series(["train"] * 160 + ["test"] * 40)
    splits, note = cells.draw_splits(PATIENTS, given, 0.25, 0.9 - 0.25, 0)
    assert shares(splits) == {"train": 60, "valid": 20, "test": 20} and "valid is drawn from train" in note
    assert (splits[160:] == "test").all()
    for whole, fraction in ((given, 0), (given.replace("train", "valid"), 0.1), (splits, 0.1)):
        kept, note = cells.draw_splits(PATIENTS, whole, fraction, 0.1, 0)
        assert kept.tolist() == whole.tolist() and note == "Splits: as the data has them."


def test_balanced_by_the_set_of_values_of_a_patient() -> None:
    ill = pd.Series(["1" if k % 20 == 1 else "0" for k in range(200)], name="Edema")  # one image of ten patients
    splits, note = cells.draw_splits(PATIENTS, None, 0.1, 0.1, 0, ill)
    assert shares(splits) == {"train": 80, "valid": 10, "test": 10} and "balanced by Edema" in note
    assert splits[ill == "1"].value_counts().to_dict() == {"train": 8, "valid": 1, "test": 1}


@pytest.mark.parametrize("fractions", [(-0.1, 0.1), (0.5, 0.5), (1.5, 0)])
def test_fractions_out_of_range(fractions: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="--valid-fraction"):
        cells.draw_splits(PATIENTS, None, *fractions, 0)
