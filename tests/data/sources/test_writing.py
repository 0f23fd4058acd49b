"""From a reader's answer to a folder: what is refused, and what is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cxrcl.data import manifest
from cxrcl.data.sources import writing
from cxrcl.data.sources.base import Prepared
from cxrcl.errors import DataError


def table(**columns: list[str]) -> pd.DataFrame:
    given = {
        "Edema": ["1", "0", "", "-1"],
        "image": ["a/0.png", "a/1.png", "b/2.png", "b/3.png"],
        "patient": ["007", "007", "8", "9"],
        "study": ["s0", "s0", "s2", "s3"],
        "view": ["PA", "Lateral", "PA", "AP"],
        "split": ["train", "train", "valid", "test"],
        "findings": ['Heart "large",\nlungs clear.', "", "Clear.", ""],
    }
    return pd.DataFrame({**given, **columns})


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    for name in table()["image"]:
        (tmp_path / "download" / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "download" / "images" / name).touch()
    return Prepared(table(), ("Edema",), tmp_path / "download" / "images", {"no view": 3, "no text": 0}, ("A note.",))


def write(prepared: Prepared, out: Path, **settings: Any) -> writing.Written:
    given: dict[str, Any] = {"dataset": "a_set", "source": prepared.images.parent, "options": {}, "version": "cxrcl 1"}
    return writing.write(prepared, out, **{**given, **settings})


def test_the_folder_loads_as_data(prepared: Prepared, tmp_path: Path) -> None:
    write(prepared, tmp_path / "out")
    data = manifest.load(tmp_path / "out")
    assert data.labels == ("Edema",) and data.rows["patient"].tolist() == ["007", "007", "8", "9"]
    assert data.rows["image"].tolist() == [f"images/{name}" for name in prepared.table["image"]]
    assert data.rows["findings"].tolist() == prepared.table["findings"].tolist()
    assert data.stated[:2, 0].tolist() == [1, 0] and data.stated[3, 0] == -1
    assert all(Path(path).is_file() for path in data.rows["path"])
    header = (tmp_path / "out" / "manifest.csv").read_text().partition("\n")[0]
    assert header == "image,patient,study,view,split,findings,Edema"


def test_carriage_returns_in_a_report_do_not_break_the_rows(prepared: Prepared, tmp_path: Path) -> None:
    findings = ["Heart large.\rLungs clear.", "a\r\nb", "\r", ""]
    write(replace(prepared, table=table(findings=findings)), tmp_path / "out")
    read = manifest.load(tmp_path / "out").rows["findings"].tolist()
    assert read == ["Heart large.\nLungs clear.", "a\nb", "\n", ""]


def test_the_card_counts(prepared: Prepared, tmp_path: Path) -> None:
    options = {"seed": 1, "table": str(tmp_path / "labels.csv")}
    written = write(prepared, tmp_path / "out", options=options)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card == written.card
    train = {"images": 2, "studies": 1, "patients": 1, "images with text": 1}
    assert card["splits"]["train"] == train and list(card["splits"]) == ["train", "valid", "test"]
    assert card["views"]["PA"] == {"train": 1, "valid": 1, "test": 0}
    assert card["labels"]["Edema"]["train"] == {"present": 1, "absent": 1, "uncertain": 0, "blank": 0}
    assert card["labels"]["Edema"]["valid"] == {"present": 0, "absent": 0, "uncertain": 0, "blank": 1}
    assert (
        card["version"] == "cxrcl 1"
        and card["dropped"] == {"no view": 3}
        and card["notes"] == ["A note."]
        and card["images_checked"] == 4
    )
    content = (tmp_path / "out" / "manifest.csv").read_bytes()
    assert card["manifest_sha256"] == hashlib.sha256(content).hexdigest()
    text = (tmp_path / "out" / "card.md").read_text()
    assert "| train |      2 |" in text and "- 3: no view" in text and "- A note." in text
    for file in ("card.json", "card.md"):  # whose computer it was is nobody's business
        content = (tmp_path / "out" / file).read_text()
        assert "download" in content and "labels.csv" in content and str(tmp_path) not in content


def test_the_same_data_give_the_same_bytes(prepared: Prepared, tmp_path: Path) -> None:
    hashes = [write(prepared, tmp_path / name).card["manifest_sha256"] for name in ("one", "two")]
    other = replace(prepared, table=table(Edema=["1", "0", "", ""]))
    assert hashes[0] == hashes[1] != write(other, tmp_path / "three").card["manifest_sha256"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"patient": ["1", "", "2", "3"]}, "blank patient in 1 rows, first: 'a/1.png'"),
        ({"patient": ["1", "nan", "2", "3"]}, "blank patient in 1 rows"),
        ({"study": ["1", "1", " ", ""]}, "blank study in 2 rows, first: 'b/2.png'"),
        ({"patient": ["7", "8", "8", "7"]}, "2 patients are in more than one split, first: '7' in test and train"),
        ({"split": ["train", "train", "val", "test"]}, "split is 'val' in 1 rows: expected train, valid, test"),
        ({"image": ["a/0.png", "a/0.png", "b/2.png", "b/3.png"]}, "1 rows name an image that another row has"),
        ({"image": ["a/0.png", "/a/1.png", "b/2.png", "../3.png"]}, "2 images lie outside"),
        ({"Edema": ["1", "0", "2.0", ""]}, "Edema is '2.0' in 1 rows: expected 1, 0, -1, blank"),
        ({"image": ["a/0.png", "a/1.png", "b/9.png", "c/3.png"]}, "2 of 4 images that were looked for are missing"),
    ],
    ids=["blank", "nan", "study", "leak", "split", "twice", "outside", "label", "missing"],
)
def test_unfit_data_are_refused_and_nothing_is_written(
    prepared: Prepared, tmp_path: Path, columns: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        write(replace(prepared, table=table(**columns)), tmp_path / "out")
    assert said in str(caught.value) and not (tmp_path / "out").exists()


def test_empty_data_are_refused_with_what_was_dropped(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image is left \(dropped 3: no view\)"):
        write(replace(prepared, table=table().iloc[:0]), tmp_path / "out")


def test_a_label_cannot_be_called_like_another_column(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label 'view'"):
        write(replace(prepared, labels=("Edema", "view")), tmp_path / "out")


def test_a_reader_cannot_smuggle_in_a_column(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Fracture"):
        write(replace(prepared, table=table(Fracture=["1"] * 4)), tmp_path / "out")


def test_missing_images_can_be_left_out(prepared: Prepared, tmp_path: Path) -> None:
    (prepared.images / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=r"first: a/1.png: .*--drop-missing"):
        write(prepared, tmp_path / "out")
    written = write(prepared, tmp_path / "out", num_checked=0)
    assert len(written.table) == 4 and written.card["images_checked"] == 0
    written = write(prepared, tmp_path / "out", num_checked=1, drop_missing=True)
    assert written.card["dropped"] == {"no view": 3, "image file missing": 1} and len(written.table) == 3
    for name in ("a/0.png", "b/2.png", "b/3.png"):
        (prepared.images / name).unlink()
    with pytest.raises(DataError, match="no image of the table is there"):
        write(prepared, tmp_path / "none", drop_missing=True)


def test_the_link_is_replaced_but_no_folder_of_yours(prepared: Prepared, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "old").mkdir()
    out.mkdir()
    (out / "images").symlink_to(tmp_path / "old")
    write(prepared, out)
    assert (out / "images").resolve() == prepared.images
    (tmp_path / "taken" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match="choose another --out"):
        write(prepared, tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["images"]


def test_images_that_lie_in_the_folder_already_need_no_link(prepared: Prepared, tmp_path: Path) -> None:
    images = prepared.images.rename(prepared.images.parent / "images")
    write(replace(prepared, images=images), images.parent)
    assert not images.is_symlink() and len(manifest.load(images.parent)) == 4


@pytest.mark.parametrize("new", [True, False], ids=["new folder", "folder with a manifest"])
def test_an_interruption_leaves_nothing_behind(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    out = tmp_path / "out"
    if not new:
        out.mkdir()
        (out / "manifest.csv").write_text("old")
    written = Path.write_bytes

    def stop(path: Path, data: bytes) -> int:
        if path.name == "manifest.csv":
            written(path, data[:20])
            raise KeyboardInterrupt
        return written(path, data)

    monkeypatch.setattr(Path, "write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        write(prepared, out)
    assert (
        not out.exists() if new else {path.name: path.read_text() for path in out.iterdir()} == {"manifest.csv": "old"}
    )


def test_folders_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    source, out = tmp_path / "download", tmp_path / "out"
    source.mkdir()
    writing.check_folders(source, out)
    for wrong in (source, tmp_path / "out" / ".." / "download"):
        out.mkdir(exist_ok=True)
        with pytest.raises(DataError, match="it is the source itself"):
            writing.check_folders(source, wrong)
    with pytest.raises(DataError, match="no such folder"):
        writing.check_folders(tmp_path / "absent", out)
    (out / "manifest.csv").touch()
    with pytest.raises(DataError, match="with --force"):
        writing.check_folders(source, out)
    writing.check_folders(source, out, force=True)
    with pytest.raises(DataError, match="a file of that name"):
        writing.check_folders(source, out / "manifest.csv")


def test_studies_whose_images_differ_are_known() -> None:
    labels = {"Edema": ["1", "1", "", ""]}
    assert writing.has_mixed_studies(table(findings=["a", "a", "b", "c"]))  # labels of the first study differ
    assert writing.has_mixed_studies(table(**labels))  # texts do
    assert not writing.has_mixed_studies(table(findings=["a", "a", "b", "c"], **labels))
