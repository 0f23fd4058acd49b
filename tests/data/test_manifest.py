"""The manifest: every fault is one line with the place and the remedy, and nothing is read as what it is not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxrcl.data import manifest
from cxrcl.errors import DataError

Rows = list[dict[str, str]]
Put = Callable[..., Path]


def row(k: int = 0, **values: str) -> dict[str, str]:
    return {"image": f"{k}.png", "patient": f"p{k}", "study": f"s{k}", "view": "PA", "split": "train", **values}


def fault(folder: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        manifest.load(folder, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def raw(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "manifest.csv").write_bytes(content)
    return tmp_path


def test_a_missing_file_says_what_is_expected(tmp_path: Path) -> None:
    message = fault(tmp_path)
    assert "manifest.csv: not found" in message and "prepare.py" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"image,patient,study,view,split\n", "0 rows"),
        (b"image,patient,view,split\na.png,1,PA,train\n", "no column study; found: image, patient, view, split"),
        (b"image;patient;study;view;split\na.png;1;1;PA;train\n", "its separator is ';', not ','"),
        (b"image\tpatient\tstudy\tview\tsplit\na.png\t1\t1\tPA\ttrain\n", "its separator is '\\t', not ','"),
        ("image,patient,study,view,split\nä.png,1,1,PA,train\n".encode("latin-1"), "not UTF-8 at byte 31"),
        (b'image,patient,study,view,split\n"a.png,1,1,PA,train\n', "not a readable CSV"),
        (b"image,patient,study,view,split\na.png,1,1,PA,train,0\n", "more cells than the 5 columns"),
        (b"image,patient,study,view,split,Edema,Edema\na.png,1,1,PA,train,1,0\n", "Edema stands there more than once"),
    ],
    ids=["empty", "header_only", "missing_column", "semicolons", "tabs", "latin-1", "open_quote", "long_rows", "twice"],
)
def test_unreadable_tables(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in fault(raw(tmp_path, content))


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfimage,patient,study,view,split\na.png,1,1,PA,train\n"
    assert len(manifest.load(raw(tmp_path, content))) == 1


def test_quoted_line_breaks_and_commas_stay_in_their_cell(put: Put) -> None:
    data = manifest.load(put([row(findings='Heart large,\nlungs "clear".'), row(1, findings="")]))
    assert data.rows["findings"].tolist() == ['Heart large,\nlungs "clear".', ""]


def test_ids_stay_strings(put: Put) -> None:
    data = manifest.load(put([row(0, patient="007", study="01"), row(1, patient="7", study="1")]))
    assert data.rows["patient"].tolist() == ["007", "7"] and data.rows["study"].tolist() == ["01", "1"]


@pytest.mark.parametrize("value", ["2", "yes", "0.5", "nan", "-2"])
def test_a_label_is_1_0_minus_1_or_blank(put: Put, value: str) -> None:
    message = fault(put([row(0, Edema="1"), row(1, Edema=value)]))
    assert "'Edema'" in message and repr(value) in message and "1 row, first at row 3" in message


def test_label_values(put: Put) -> None:
    data = manifest.load(put([row(k, Edema=v) for k, v in enumerate(["1", "0", "-1", "", " ", "1.0", "-1.0"])]))
    nan = np.nan
    np.testing.assert_array_equal(data.values[:, 0], np.float32([1, 0, -1, nan, nan, 1, -1]))
    assert data.values.dtype == np.float32


@pytest.mark.parametrize("column", ["image", "patient", "study"])
@pytest.mark.parametrize("value", ["", "  ", "nan", "None", "null"])
def test_blank_ids_are_refused(put: Put, column: str, value: str) -> None:
    message = fault(put([row(0), row(1, **{column: value}), row(2, **{column: value + " "})]))
    assert f"blank {column} in 2 rows, first at row 3" in message


@pytest.mark.parametrize("value", ["val", "Train", "", "train "])
def test_an_unknown_split_is_refused(put: Put, value: str) -> None:
    message = fault(put([row(0, split=value)]))
    assert repr(value) in message and "use train, valid, test" in message


def test_an_image_may_stand_once(put: Put) -> None:
    assert "1 row, first at row 4" in fault(put([row(0), row(1), {**row(2), "image": "0.png"}]))


def test_a_patient_in_two_splits_is_refused_without_naming_the_patient(put: Put) -> None:
    folder = put([row(0, patient="Jane Roe"), row(1, patient="Jane Roe", split="test"), row(2)])
    message = fault(folder)
    assert "1 patients" in message and hashlib.sha256(b"Jane Roe").hexdigest()[:8] in message
    assert "Jane" not in message
    assert len(manifest.load(folder, check_patients=False)) == 3


@pytest.mark.parametrize("image", ["../a.png", "x/../../a.png", "/etc/a.png", "C:\\a.png", "..\\a.png", "~/a.png"])
def test_paths_out_of_the_folder_need_leave(put: Put, image: str) -> None:
    folder = put([row(image=image)])
    assert "allow_outside_root" in fault(folder)
    assert len(manifest.load(folder, allow_outside_root=True)) == 1


def test_paths_are_under_the_folder_with_any_separator(put: Put) -> None:
    folder = put([row(0, image="images\\a b.png"), row(1, image="images/ö..png")])
    expected = [str(folder.resolve() / "images" / name) for name in ("a b.png", "ö..png")]
    assert manifest.load(folder).rows["path"].tolist() == expected


def test_labels_are_all_other_columns_or_those_named_in_that_order(put: Put) -> None:
    folder = put([row(sex="F", age="40", source="x", Edema="1", Fracture="0", text="t")])
    assert manifest.load(folder).labels == ("Edema", "Fracture")
    chosen = manifest.load(folder, labels=["Fracture", "Absent", "Edema"])
    assert chosen.labels == ("Fracture", "Edema") and chosen.values.tolist() == [[0, 1]]


def test_a_column_that_is_no_label_can_be_left_out(put: Put) -> None:
    folder = put([row(note="see report", Edema="1")])
    assert "if the column is not a label, give the names of the labels" in fault(folder)
    assert manifest.load(folder, labels=["Edema"]).labels == ("Edema",)


def test_take_and_split_keep_rows_and_values_together(put: Put, rows: Rows) -> None:
    data = manifest.load(put(rows))
    test = data.split("test")
    assert set(test.rows["split"]) == {"test"} and len(test) == len(test.values) == 6
    again = data.take(np.array([5, 2]))
    assert again.rows["image"].tolist() == [rows[5]["image"], rows[2]["image"]]
    np.testing.assert_array_equal(again.values, data.values[[5, 2]])
    mask = np.arange(len(data)) == 3
    assert data.take(mask).rows["image"].tolist() == [rows[3]["image"]]
    assert len(data.take(np.zeros(len(data), dtype=bool)).split("train")) == 0


def test_with_labels_orders_and_fills(put: Put) -> None:
    data = manifest.load(put([row(Edema="1", Fracture="0")])).with_labels(["Fracture", "Mass", "Edema"])
    assert data.labels == ("Fracture", "Mass", "Edema")
    np.testing.assert_array_equal(data.values, [[0, np.nan, 1]])


def test_what_the_source_states_travels_with_rows_and_labels(put: Put) -> None:
    data = manifest.load(put([row(k, Edema=v, Mass="0") for k, v in enumerate(["1", "-1", "0"])]))
    data = manifest.Manifest(data.rows, data.labels, np.where(data.values == -1, np.nan, data.values), data.values)
    part = data.take(np.array([2, 1])).with_labels(["Mass", "Fracture", "Edema"])
    np.testing.assert_array_equal(part.stated, [[0, np.nan, 0], [0, np.nan, -1]])
    np.testing.assert_array_equal(part.values, [[0, np.nan, 0], [0, np.nan, np.nan]])
    np.testing.assert_array_equal(data.split("train").stated, data.stated)


CHANGES = [
    {"image": "new.png"},
    {"patient": "other"},
    {"study": "other"},
    {"view": "AP"},
    {"split": "test"},
    {"findings": "Other words."},
    {"impression": "Other words."},
    {"text": "Other words."},
    {"Edema": "0"},
    {"Edema": ""},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_fingerprint_follows_each_column_that_matters(put: Put, change: dict[str, str]) -> None:
    whole = {"findings": "a", "impression": "b", "text": "c", "Edema": "1", "sex": "F"}
    before = manifest.load(put([row(0, **whole), row(1, **whole)])).fingerprint()
    same = manifest.load(put([row(0, **whole), row(1, **{**whole, "sex": "M"})], "elsewhere")).fingerprint()
    after = manifest.load(put([row(0, **whole), row(1, **{**whole, **change})])).fingerprint()
    assert before == same and before != after


def test_the_fingerprint_follows_label_names_and_row_order(put: Put) -> None:
    first = manifest.load(put([row(0, Edema="1"), row(1, Edema="1")])).fingerprint()
    renamed = manifest.load(put([row(0, Mass="1"), row(1, Mass="1")])).fingerprint()
    turned = manifest.load(put([row(1, Edema="1"), row(0, Edema="1")])).fingerprint()
    assert len({first, renamed, turned}) == 3


def test_merge_unites_labels_and_tells_patients_apart(put: Put) -> None:
    one = manifest.load(put([row(0, patient="1", study="1", Edema="1", Mass="0")], "one"))
    two = manifest.load(put([row(0, patient="1", study="1", split="test", findings="Clear.", Mass="1")], "two"))
    both = manifest.merge({"a": one, "b": two})
    assert both.labels == ("Edema", "Mass")
    np.testing.assert_array_equal(both.values, np.float32([[1, 0], [np.nan, 1]]))
    assert both.rows["patient"].tolist() == ["a/1", "b/1"] and both.rows["study"].tolist() == ["a/1", "b/1"]
    assert both.rows["findings"].tolist() == ["", "Clear."]
    assert both.rows["path"].nunique() == 2


def test_merge_of_one_source_gives_it_its_name_only(put: Put) -> None:
    one = manifest.load(put([row(0, Edema="1"), row(1)]))
    merged = manifest.merge({"a": one})
    assert one.rows["part"].tolist() == ["", ""] and merged.rows["part"].tolist() == ["a", "a"]
    assert merged.rows.drop(columns="part").equals(one.rows.drop(columns="part"))
    assert merged.values is one.values and merged.fingerprint() == one.fingerprint()


def test_a_column_that_one_source_lacks_is_blank_in_its_rows(put: Put) -> None:
    parts = {"a": manifest.load(put([row(sex="F")], "one")), "b": manifest.load(put([row(findings="Clear.")], "two"))}
    both = manifest.merge(parts).rows
    assert both["part"].tolist() == ["a", "b"]
    assert both["sex"].tolist() == ["F", ""] and both["findings"].tolist() == ["", "Clear."]


def test_a_filter_that_loses_a_source_is_an_error_unless_it_chooses_sources(put: Put) -> None:
    one = manifest.load(put([row(0, sex="F"), row(1, sex="M")], "one"))
    both = manifest.merge({"a": one, "b": manifest.load(put([row(0, view="LL"), row(1, view="Frontal")], "two"))})
    with pytest.raises(DataError, match=r"^no image of the source b is left after filtering by sex \(it has no sex\)"):
        manifest.select(both, None, {"sex": ["F"]})
    with pytest.raises(DataError, match=r"^no image of the source b .* by view \(its views: Frontal, LL\)"):
        manifest.select(both, ["PA"], {})
    assert manifest.select(both, ["PA", "LL"], {"sex": ["F", ""]}).rows["part"].tolist() == ["a", "b"]
    assert manifest.select(both, None, {"part": ["a"], "sex": ["F"]}).rows["part"].tolist() == ["a"]


def test_select_by_view_and_filter(put: Put) -> None:
    folder = put([row(0, sex="F"), row(1, sex="M"), row(2, sex="F", view="AP"), row(3, sex="F", view="Lateral")])
    data = manifest.load(folder)
    assert manifest.select(data, None, {}).rows["image"].tolist() == data.rows["image"].tolist()
    assert manifest.select(data, ["PA", "AP"], {}).rows["image"].tolist() == ["0.png", "1.png", "2.png"]
    assert manifest.select(data, ["PA", "AP"], {"sex": ["F"]}).rows["image"].tolist() == ["0.png", "2.png"]


@pytest.mark.parametrize(
    ("views", "filters", "said"),
    [
        (["LL"], {}, "view 'LL' does not occur in the data: it has AP, PA"),
        (None, {"sex": ["X"]}, "sex 'X' does not occur in the data: it has F, M"),
        (None, {"sex": ["F"], "patient": ["p9"]}, "patient 'p9' does not occur in the data"),
        (None, {"colour": ["red"]}, "filters: colour: no such column; the manifest has image, patient"),
        (["AP"], {"sex": ["F"]}, "no image is left after filtering by view, sex"),
    ],
)
def test_a_selection_that_finds_nothing_is_an_error(
    put: Put, views: list[str] | None, filters: dict[str, list[str]], said: str
) -> None:
    data = manifest.load(put([row(0, sex="F"), row(1, sex="M", view="AP")]))
    with pytest.raises(DataError) as caught:
        manifest.select(data, views, filters)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"Edema": "0"}, {"Edema": "-1"}, {"Edema": ""}, {"findings": "Small."}, {"impression": "Ill."}]
)
def test_images_of_a_study_with_other_labels_or_reports_are_refused(put: Put, change: dict[str, str]) -> None:
    whole = {"patient": "p", "study": "s", "Edema": "1", "findings": "Large.", "impression": "Well."}
    manifest.check_studies(manifest.load(put([row(0, **whole), row(1, **{**whole, "view": "AP"})], "same")))
    other = manifest.load(put([row(0, **whole), row(1, **{**whole, **change}), row(2, **{**whole, "study": "t"})]))
    with pytest.raises(DataError, match=r"^1 studies have images with different labels or reports.* unit=image$"):
        manifest.check_studies(other)


# ------------------------------------------------------------------------------------------------ privacy


def test_messages_hold_no_cell_that_may_name_a_person(put: Put, tmp_path: Path) -> None:
    named = put([{**row(0), "called": "Jane Roe"}, {**row(1), "called": "John Doe"}])
    said = fault(named)
    assert "label 'called' is a text of 8 characters in 2 rows" in said and "Doe" not in said
    with pytest.raises(DataError) as caught:
        manifest.select(manifest.load(named, labels=()), None, {"patient": ["p99"]})
    assert str(caught.value) == "patient 'p99' does not occur in the data"
    (tmp_path / "manifest.csv").write_bytes(b"a.png,Doe,1,PA,train\n" * 2)
    said = fault(tmp_path)
    assert "the first line has to name the columns" in said and "Doe" not in said
