"""What cells of tables say."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cxrcl.data.sources import cells
from cxrcl.errors import DataError


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


def test_paths_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    written = pd.Series([" a/0.png", ".\\a\\1.png", f"{tmp_path}/link/2.png", f"{tmp_path}/disk/3.png", "/other/4.png"])
    expected = ["a/0.png", "a/1.png", "2.png", "3.png", "/other/4.png"]
    assert cells.relative_paths(written, tmp_path / "link").tolist() == expected
