"""What all readers share: tables as strings, and splits by patient."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrcl.data.sources.base import read_table, split_patients
from cxrcl.errors import DataError

SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def put(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_cells_stay_as_they_are_written(tmp_path: Path) -> None:
    table = read_table(put(tmp_path, "\ufeffid , value\n007,NA\n12,1.0\n,\n"), ["id", "value"])
    assert table["id"].tolist() == ["007", "12", ""] and table["value"].tolist() == ["NA", "1.0", ""]


def test_quoted_line_breaks_and_commas_are_text(tmp_path: Path) -> None:
    table = read_table(put(tmp_path, 'id,text\n1,"Heart large,\nlungs clear."\n'), ["text"])
    assert table["text"].tolist() == ["Heart large,\nlungs clear."]


def test_zipped_tables_other_separators_and_no_header(tmp_path: Path) -> None:
    zipped = put(tmp_path, gzip.compress(b"a;b\n1;2\n"), "table.csv.gz")
    assert read_table(zipped, ["b"], separator=";")["b"].tolist() == ["2"]
    assert read_table(zipped, ["0", "1"], separator=";", header=False)["0"].tolist() == ["a", "1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "table.csv: not found: look again"),
        ("", "the file is empty"),
        ("a,c\n1,2\n", "no column b; found: a, c"),
        ("a;b\n1;2\n", "one single column 'a;b': its separator is ';', not ','"),
        ("a,b\n1,2,3\n1,2,3\n", "rows have more cells than the 2 columns of the header"),
        (b"a,b\n1,\xe9t\xe9\n", "not UTF-8 at byte 6"),
        ("a,b\n1,2\n3,4,5\n", "not a readable CSV"),
    ],
    ids=["missing", "empty", "column", "separator", "shifted", "latin-1", "ragged"],
)
def test_faults_of_a_table_are_one_line(tmp_path: Path, content: str | bytes | None, said: str) -> None:
    if content is not None:
        put(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "table.csv", ["a", "b"], "look again")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_zipped_tables_are_one_line(tmp_path: Path) -> None:
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 1000)
    with pytest.raises(DataError, match="not a readable CSV"):
        read_table(put(tmp_path, whole[:-20], "table.csv.gz"), ["a"])


def rows(num_patients: int = 200) -> pd.Series:
    """Patients with one to three rows, in no order."""
    names = [f"p{k}" for k in range(num_patients) for _ in range(1 + k % 3)]
    return pd.Series(np.random.default_rng(0).permutation(names))


def test_a_patient_has_one_split_and_shares_hold() -> None:
    patients = rows()
    splits = split_patients(patients, SHARES)
    assert (splits.groupby(patients).nunique() == 1).all()
    assert splits.groupby(patients).first().value_counts().to_dict() == {"train": 160, "valid": 20, "test": 20}


def test_the_order_of_rows_does_not_matter_but_the_seed_does() -> None:
    patients = rows()
    splits = split_patients(patients, SHARES).groupby(patients).first()
    again = patients.sort_values(ignore_index=True)
    assert split_patients(again, SHARES).groupby(again).first().equals(splits)
    assert not split_patients(patients, SHARES, seed=1).groupby(patients).first().equals(splits)


@pytest.mark.parametrize("shares", [{"train": 0.5, "test": 0.4}, {"train": 1.1, "test": -0.1}])
def test_shares_have_to_sum_to_one(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected shares that sum to 1"):
        split_patients(rows(), shares)


@pytest.mark.parametrize("seed", range(3))
def test_every_group_is_shared_out_alike(seed: int) -> None:
    patients = rows(300)
    rare = patients.str[1:].astype(int) % 30 == 0  # ten of 300 patients
    groups = rare.map({True: "rare", False: "common"})
    splits = split_patients(patients, SHARES, seed, groups)
    assert (splits.groupby(patients).nunique() == 1).all()
    counts = pd.crosstab(groups, splits, values=patients, aggfunc="nunique")
    assert counts.sum().to_dict() == {"train": 240, "valid": 30, "test": 30}
    assert counts.loc["rare"].to_dict() == {"train": 8, "valid": 1, "test": 1}


def test_a_small_group_is_not_always_in_train() -> None:
    patients = rows(100)
    groups = patients.isin(["p1", "p2"]).map({True: "a", False: "b"})  # the first group by name
    found = {split_patients(patients, SHARES, seed, groups)[groups == "a"].nunique() for seed in range(20)}
    assert found == {1, 2}


def test_drawing_within_groups_still_depends_on_the_seed() -> None:
    patients = rows()
    groups = pd.Series("one", index=patients.index)
    draws = [split_patients(patients, SHARES, seed, groups).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
