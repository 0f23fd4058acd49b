"""The table of a user's own: its file, and its columns by name or by number."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cxrcl.data.sources.draw import Draw
from cxrcl.data.sources.own_table import Columns, column
from cxrcl.errors import DataError

TABLE = pd.DataFrame({"file": ["a"], "1": ["b"], "Edema": ["1.0"]})
FILE = Path("t.csv")


@pytest.mark.parametrize(("name", "found"), [("file", "file"), ("0", "file"), ("2", "Edema"), ("1", "1")])
def test_columns_by_name_then_by_number(name: str, found: str) -> None:
    assert column(TABLE, name, "image") == found


@pytest.mark.parametrize("name", ["3", "-1", "edema", ""])
def test_a_column_that_is_not_there_names_those_that_are(name: str) -> None:
    with pytest.raises(DataError, match=f"--image {name}: no such column; found: file, 1, Edema .* 0 to 2"):
        column(TABLE, name, "image")


def test_label_columns_are_those_named_else_the_others() -> None:
    assert Columns(labels=" 2 , 2,").label_cells(TABLE, FILE).to_dict("list") == {"Edema": ["1"]}
    assert Columns(labels="2").label_cells(TABLE, FILE, ["file"]).columns.tolist() == ["Edema"]
    assert Columns().label_cells(TABLE, FILE, ["Edema"]).columns.tolist() == ["Edema"]
    assert Columns().label_cells(TABLE, FILE).columns.empty


def test_a_missing_id_is_that_of_the_next_smaller_thing() -> None:
    images, studies = pd.Series(["a.png"]), pd.Series(["s"])
    whole, _ = Columns(patient="file", study="1", view="Edema").manifest(TABLE, images, studies, Draw(), FILE)
    assert whole.loc[0, ["image", "study", "patient", "view"]].tolist() == ["a.png", "b", "a", "1.0"]
    bare, note = Columns().manifest(TABLE, images, studies, Draw(), FILE)
    assert bare.loc[0].tolist() == ["a.png", "s", "s", "unknown", "train"] and "drawn by patient" in note
    _, note = Columns(balanced="Edema").manifest(TABLE, images, studies, Draw(), FILE)
    assert "balanced by Edema" in note


def test_the_only_table_or_the_one_named(tmp_path: Path) -> None:
    (tmp_path / "images.png").touch()
    with pytest.raises(DataError, match=r"0 CSV files \(none\): .*--table"):
        Columns().file(tmp_path)
    (tmp_path / "a.csv").touch()
    assert Columns().file(tmp_path) == (tmp_path / "a.csv", ",")
    (tmp_path / "b.TSV").touch()
    with pytest.raises(DataError, match=r"2 CSV files \(a.csv, b.TSV\)"):
        Columns().file(tmp_path)
    assert Columns(table="b.TSV").file(tmp_path) == (tmp_path / "b.TSV", "\t")


@pytest.mark.parametrize(
    ("given", "name", "mark"),
    [("", "a.csv", ","), ("", "a.tsv.gz", "\t"), ("tab", "a.csv", "\t"), ("\\t", "a.csv", "\t"), (";", "a.tsv", ";")],
)
def test_separators(given: str, name: str, mark: str) -> None:
    assert Columns(table=name, separator=given).file(Path())[1] == mark


def test_a_separator_is_one_character() -> None:
    with pytest.raises(DataError, match=r"--separator , : expected one character"):
        Columns(table="a.csv", separator=", ").file(Path())
