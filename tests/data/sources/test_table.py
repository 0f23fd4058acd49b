"""A plain table of images and texts."""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path

import pytest
from downloads import fill_images, load, write_images

from cxrcl.commands import prepare
from cxrcl.data.sources import table
from cxrcl.errors import DataError

read = partial(prepare.call, table.read)

TEXTS = ["Heart large, lungs clear.", "Normal chest.", "Effusion.", "Nothing new."]


def put(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """ConVIRT's two columns, quoted commas and all."""
    return put(tmp_path / "set", "image,text\n" + "".join(f'images/{k}.png,"{text}"\n' for k, text in enumerate(TEXTS)))


def test_two_columns_become_a_manifest_that_loads(pairs: Path, tmp_path: Path) -> None:
    prepared = read(pairs)
    data = load(prepared, tmp_path / "out")
    assert prepared.images == pairs and data.rows["text"].tolist() == TEXTS and data.labels == ()
    images = [f"images/{k}.png" for k in range(4)]
    assert data.rows["image"].tolist() == [f"images/{name}" for name in images]
    assert data.rows["patient"].tolist() == data.rows["study"].tolist() == images
    assert set(data.rows["view"]) == {"unknown"}
    assert any("each study counts as a patient" in note for note in prepared.notes)


def test_the_first_pair_of_a_table_without_header_is_not_eaten(tmp_path: Path) -> None:
    source = put(tmp_path / "set", "images/0.png,First.\nimages/1.JPG,Second.\n")
    assert read(source).table["text"].tolist() == ["First.", "Second."]
    assert read(source, header="yes").table["text"].tolist() == ["Second."]
    put(source, "text,image\nFirst.,0.png\n")
    assert read(source, image="image", text="text").table["text"].tolist() == ["First."]
    with pytest.raises(DataError, match="'image' in column 1 is no image file, in 1 of 2 rows"):
        read(source, image="1", text="0", header="no")


def test_a_header_is_looked_for_in_the_image_column_and_behind_a_mark(tmp_path: Path) -> None:
    source = put(tmp_path / "set", "\ufeffimages/0.png;First.\nimages/1.png;Second.\n")
    assert read(source, separator=";").table["text"].tolist() == ["First.", "Second."]
    (source / "pairs.csv").unlink()
    (source / "pairs.tsv.gz").write_bytes(gzip.compress(b"First.\t0.png\nSecond.\t1.png\n"))
    assert read(source, image="1", text="0").table["text"].tolist() == ["First.", "Second."]


def test_text_files_are_read_whole_and_hold_studies_together(tmp_path: Path) -> None:
    source = put(tmp_path / "set", "a_pa.png,texts/a.txt\na_lateral.png,texts/a.txt\nb.png,texts/b.txt\nc.png,\n")
    (source / "texts").mkdir()
    (source / "texts" / "a.txt").write_text("Heart large.\nLungs clear.\n\nEffusion.\n", encoding="utf-8-sig")
    (source / "texts" / "b.txt").write_text("Normal.")
    prepared = read(source)
    whole = "Heart large.\nLungs clear.\n\nEffusion."
    assert prepared.table["text"].tolist() == [whole, whole, "Normal.", ""]
    assert prepared.table["study"].tolist() == ["texts/a.txt", "texts/a.txt", "texts/b.txt", "c.png"]
    assert prepared.table["patient"].equals(prepared.table["study"])
    in_cells = read(source, text_in="cells")
    assert in_cells.table["text"].tolist()[0] == "texts/a.txt" and in_cells.table["study"][0] == "a_pa.png"
    (source / "texts" / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"b.txt: not UTF-8 at byte 3"):
        read(source)
    (source / "texts" / "b.txt").unlink()
    with pytest.raises(DataError, match=r"1 of 2 text files are missing .* first: texts/b.txt"):
        read(source)


def test_one_cell_that_is_no_file_name_makes_them_texts(tmp_path: Path) -> None:
    source = put(tmp_path / "set", "0.png,see a.txt\n1.png,Normal.\n")
    assert read(source).table["text"].tolist() == ["see a.txt", "Normal."]
    with pytest.raises(DataError, match="2 of 2 text files are missing"):
        read(source, text_in="files")


def build(folder: Path) -> Path:
    """Every column there can be, ids with zeros in front, an image twice."""
    lines = ["id,file,report,person,exam,pos,fold,Edema,COVID,age"]
    for k in range(20):
        split = ("training", "val", "test")[max(0, k - 17)]
        lines.append(f"{k},{k}.png,Text {k}.,00{k // 2 if k < 18 else k},e{k},{'PA' if k else ''},{split},{k % 2}.0,,3")
    return put(folder, "\n".join([*lines, lines[-1]]) + "\n")


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return build(tmp_path / "set")


def test_every_column_has_its_option(full: Path, tmp_path: Path) -> None:
    (full / "images").mkdir()
    prepared = read(
        full, image="file", text="report", patient="person", study="4", view="pos", split="fold", labels="Edema,8",
        images="images",
    )  # fmt: skip
    data = load(prepared, tmp_path / "out")
    assert prepared.dropped == {"the same row again": 1} and len(data) == 20 and prepared.images == full / "images"
    assert data.rows["patient"].tolist()[:3] == ["000", "000", "001"] and data.rows["study"][4] == "e4"
    assert data.rows["view"].tolist()[:2] == ["unknown", "PA"]
    assert data.rows["split"].tolist() == ["train"] * 18 + ["valid", "test"]
    assert prepared.labels == ("Edema", "COVID") and prepared.table["Edema"].tolist()[:2] == ["0", "1"]
    assert set(prepared.table["COVID"]) == {""}


def test_splits_are_drawn_by_patient(full: Path) -> None:
    table = read(full, image="1", text="2", patient="person", valid_fraction=0.2, test_fraction=0.3).table
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert table.groupby("patient")["split"].first().value_counts().to_dict() == {"train": 6, "test": 3, "valid": 2}
    other = read(full, image="1", text="2", patient="person", valid_fraction=0.2, test_fraction=0.3, seed=3).table
    assert not other["split"].equals(table["split"])


def test_paths_of_other_systems(tmp_path: Path) -> None:
    source = tmp_path / "set"
    put(source, f"image,text\nimages\\0.png,A.\n./images/1.png,B.\n{source}/images/2.png,C.\n")
    assert read(source).table["image"].tolist() == ["images/0.png", "images/1.png", "images/2.png"]


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("image,text\n0.png,A.\n", {"text": "report"}, "--text report: no such column; found: image, text"),
        ("image,Edema\n0.png,1\n", {}, "column Edema holds labels, no texts"),
        ("id,image,text\n7,0.png,A.\n", {}, "'7' in column id is no image file, in 1 of 1 rows"),
        ("image;text\n0.png;A.\n", {}, "its separator is ';', not ','"),
        ("image,text,Edema\n0.png,A.,yes\n", {"labels": "Edema"}, "label 'Edema' is 'yes' in 1 rows"),
        ("image,text,fold\n0.png,A.,x\n", {"split": "fold"}, "split 'x' in 1 rows"),
        ("image,text\n0.png,A.\n", {"table": "other.csv"}, "other.csv: not found"),
    ],
    ids=["column", "labels", "image", "separator", "label", "split", "table"],
)
def test_faults_are_one_line(tmp_path: Path, content: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(put(tmp_path / "set", content), **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_without_texts(tmp_path: Path) -> None:
    prepared = read(put(tmp_path / "set", "image,Edema\n0.png,1\n1.png,\n"), text="", labels="1")
    assert "text" not in prepared.table and prepared.table["Edema"].tolist() == ["1", ""]


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    build(folder)
    write_images(folder, [f"{k}.png" for k in range(20)])
    fill_images(folder)
    columns = ("--image=file", "--text=report", "--patient=person", "--study=exam", "--view=pos", "--split=fold")
    return [*columns, "--labels=Edema,COVID"]
