"""CSV files of predictions and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrcl.errors import DataError
from cxrcl.evaluation.scores import prediction_files


def table(folder: Path, text: str, name: str = "t.csv", id_column: str = "image") -> prediction_files.Table:
    file = folder / name
    file.write_text(text.replace(" ", ""), encoding="utf-8")
    return prediction_files.read(file, id_column)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(DataError) as caught:
        table(folder, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("image,A\n", "0 rows"),
        ("film,A\n1,0\n", "no column image to match rows by; found: film, A. Name it with --id-column"),
        ("image,A\na,1\na,0\n", "image is repeated in 1 row, first at row 3: keep one row an image"),
        ("image,A\na,1\n,0\n,0\n", "image is blank in 2 rows, first at row 3"),
        ("image,A,A\na,1,0\n", "column A stands there more than once"),
        ('image,A\n"a,1\n', "not a readable CSV"),
    ],
)
def test_files_that_cannot_be_matched_are_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


def test_a_missing_file_is_named_and_a_folder_stands_for_its_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.csv: not found"):
        prediction_files.read(tmp_path, "image")
    table(tmp_path, "image,A\n007,1\n", "manifest.csv")
    assert prediction_files.read(tmp_path, "image").ids.tolist() == ["007"]


def test_truth_knows_1_0_uncertain_and_blank_and_nothing_else(tmp_path: Path) -> None:
    labels = table(tmp_path, "image,A,B\na,1,0.0\nb,-1,\nc,0,nan\n")
    np.testing.assert_array_equal(
        prediction_files.label_values(labels, ["B", "A"]), [[0, 1], [np.nan, np.nan], [np.nan, 0]]
    )
    for wrong in ("2", "yes", "0.5"):
        with pytest.raises(DataError, match=rf"label 'A' is '{wrong}' in 1 row, first at row 3: labels are 1, 0, -1"):
            prediction_files.label_values(table(tmp_path, f"image,A\na,1\nb,{wrong}\n"), ["A"])


def test_scores_are_matched_by_id_and_name_whatever_the_order(tmp_path: Path) -> None:
    offered = table(tmp_path, "B,image,A\n.1,c,.2\n.3,a,.4\n.5,b,.6\n.7,other,.8\n")
    found = prediction_files.scores(offered, ["A", "B"], pd.Series(["a", "b", "c"]))
    np.testing.assert_array_equal(found, [[0.4, 0.3], [0.6, 0.5], [0.2, 0.1]])
    with pytest.raises(DataError, match="no row for 2 of 3 images, first 'x'"):
        prediction_files.scores(offered, ["A"], pd.Series(["a", "x", "y"]))


@pytest.mark.parametrize("wrong", ["", "high", "inf", "nan"])
def test_every_image_needs_a_score_that_is_a_number(tmp_path: Path, wrong: str) -> None:
    offered = table(tmp_path, f"image,A\na,0.5\nb,{wrong}\n")
    with pytest.raises(DataError, match="the score of 'A' is no number in 1 row, first at row 3"):
        prediction_files.scores(offered, ["A"], pd.Series(["a"]))


def shared(
    folder: Path, *headers: str, labels: str, keep: list[str] | None = None
) -> tuple[tuple[str, ...], list[str]]:
    tables = [table(folder, f"{h}\n{','.join('0' * (h.count(',') + 1))}\n", f"p{k}.csv") for k, h in enumerate(headers)]
    truth = table(folder, f"{labels}\n{','.join('0' * (labels.count(',') + 1))}\n", "l.csv")
    return prediction_files.shared_labels(tables, truth, keep, ["site"])


def test_labels_are_those_that_every_file_has_and_the_others_are_named(tmp_path: Path) -> None:
    found, notes = shared(tmp_path, "image,B,A,C,Q", "image,A,B,site", labels="image,patient,A,B,C,D,view,site")
    assert found == ("A", "B")
    assert notes == ["p0.csv: not scored, no such label: Q", "labels left out, not in every file of predictions: C, D"]
    found, notes = shared(tmp_path, "image,B,A,C", labels="image,A,B,C", keep=["C", "A"])
    assert found == ("C", "A") and notes == []


@pytest.mark.parametrize(
    ("header", "labels", "keep", "message"),
    [
        ("image,A", "image,B", None, r"p0\.csv and .*l\.csv share no label; predictions: A; labels: B"),
        ("image,Pleural_effusion", "image,PleuralEffusion", None, "'Pleural_effusion' is written 'PleuralEffusion' in"),
        ("image,A", "image,A,B", ["B"], r"--labels-keep: .*p0\.csv has no column B; found: A"),
        ("image,A,B", "image,A", ["B"], r"--labels-keep: .*l\.csv has no column B; found: A"),
        ("image,A,C", "image,A,B", ["B", "C"], r"--labels-keep: .*p0\.csv has no column B; found: A, C"),
        ("image,patient", "image,patient", None, "share no label; predictions: none"),
    ],
)
def test_labels_that_do_not_match_are_refused(
    tmp_path: Path, header: str, labels: str, keep: list[str] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        shared(tmp_path, header, labels=labels, keep=keep)


def test_splits_are_chosen_and_must_be_where_there_are_several(tmp_path: Path) -> None:
    labels = table(tmp_path, "image,split,A\na,train,1\nb,test,0\nc,valid,1\n")
    assert prediction_files.of_splits(labels, ["test", "valid"]).ids.tolist() == ["b", "c"]
    with pytest.raises(DataError, match="has the splits test, train, valid: choose with --split"):
        prediction_files.of_splits(labels, None)
    with pytest.raises(DataError, match="no row of split tests; it has test, train, valid"):
        prediction_files.of_splits(labels, ["tests"])
    one = table(tmp_path, "image,A\na,1\n")
    assert prediction_files.of_splits(one, None) is one
    with pytest.raises(DataError, match="no column split"):
        prediction_files.of_splits(one, ["test"])


def test_models_are_named_by_the_shortest_end_that_differs() -> None:
    names = prediction_files.model_names
    assert names([Path("a/p.csv"), Path("a/q.csv")]) == ["p", "q"]
    assert names([Path("a/p.csv"), Path("b/p.csv")]) == ["a/p", "b/p"]
    with pytest.raises(DataError, match="twice"):
        names([Path("p.csv"), Path("p.csv")])


def test_images_that_are_fitted_on_are_not_scored(tmp_path: Path) -> None:
    one, other = table(tmp_path, "image,A\na,1\nb,1\n"), table(tmp_path, "image,A\nb,1\nc,1\n")
    prediction_files.check_apart(one, table(tmp_path, "image,A\nc,1\n"))
    with pytest.raises(DataError, match="1 images, first 'b', are in the scored and in the validation rows"):
        prediction_files.check_apart(one, other)


def test_true_and_false_are_labels_and_blanks_around_cells_are_nothing(tmp_path: Path) -> None:
    file = tmp_path / "l.csv"
    file.write_text("\ufeff image ,split,A,B\n a , test,TRUE,1.0\nb\t,test ,false, 0\n 007 ,valid,True, -1.0 \n")
    labels = prediction_files.read(file, "image")
    assert labels.ids.tolist() == ["a", "b", "007"] and labels.column("split") == ["test", "test", "valid"]
    assert prediction_files.of_splits(labels, ["test"]).ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(prediction_files.label_values(labels, ["A", "B"]), [[1, 1], [0, 0], [1, np.nan]])
    found, notes = prediction_files.shared_labels([table(tmp_path, "image,B\na,1\n")], labels, None, [])
    assert found == ("B",) and notes == ["labels left out, not in every file of predictions: A"]
    for name, cells, message in (
        ("twice", "a,1\n a ,0\n", "image is repeated in 1 row, first at row 3"),
        ("scores", "a,True\n", "the score of 'A' is no number"),
    ):
        file = tmp_path / f"{name}.csv"
        file.write_text(f"image,A\n{cells}")
        with pytest.raises(DataError, match=message):
            prediction_files.scores(prediction_files.read(file, "image"), ["A"], pd.Series(["a"]))
