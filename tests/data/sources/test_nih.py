"""NIH ChestX-ray14: the table with its odd header, the two families of lists, images in folders and zip files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from downloads import column, fill_images, load, positives, row, write, write_images, write_zip

from cxrcl.commands import prepare
from cxrcl.data.sources import nih
from cxrcl.errors import DataError

read = partial(prepare.call, nih.read)

# The header's last two names hold commas, so they are four columns; a comma ends every line.
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
IMAGES = [
    ("00000001_000.png", "Cardiomegaly|Effusion", "1", "058Y", "M", "PA"),
    ("00000001_001.png", "No Finding", "1", "58", "M", "AP"),
    ("00000002_000.png", "Pleural_Thickening", "2", "414", "F", "PA"),
    ("00000003_000.png", "Hernia", "3", "011M", "F", "PA"),
    ("00000004_000.png", "No Finding", "4", "70", "M", "PA"),
    ("00000005_000.png", "Edema", "5", "9", "M", "PA"),
]


def entries(images: list[tuple[str, ...]] = IMAGES, header: str = HEADER) -> str:
    lines = [
        f"{n},{found},0,{pid},{age},{sex},{view},2682,2749,0.143,0.143,\n" for n, found, pid, age, sex, view in images
    ]
    return header + "".join(lines)


def build(source: Path) -> Path:
    write(source / "Data_Entry_2017.csv", entries())
    # The lists are in another order than the table.
    names = [image[0] for image in IMAGES]
    write(source / "train_val_list.txt", "\n".join(reversed(names[:4])) + "\n")
    write(source / "test_list.txt", names[4] + "\n")
    write(source / "benchx" / "train.txt", f"{names[2]} 0 1\n\n {names[5]} 0 0\r\n")
    write(source / "benchx" / "val.txt", f"{names[3]}\n")
    write(source / "benchx" / "test.txt", f"images/{names[0]}\nimages/{names[1]}\n")
    write_images(source / "images_001" / "images", [names[0], names[1], names[4]])
    write_zip(source / "images_002.zip", [f"images/{name}" for name in (names[2], names[3], names[5])])
    return source


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return build(tmp_path / "nih")


def test_an_image(download: Path) -> None:
    prepared = read(download, valid_fraction=0)
    first = row(prepared, "00000001_000.png")
    assert first["image"] == "images_001/images/00000001_000.png"
    assert (first["patient"], first["study"], first["view"]) == ("1", "00000001_000", "PA")
    assert (first["sex"], first["age"], first["source"], first["split"]) == ("M", "58", "nih", "train")
    assert positives(prepared, "00000001_000.png") == ["Cardiomegaly", "Pleural Effusion"]
    assert len(positives(prepared, "00000001_000.png", "0")) == 13
    assert positives(prepared, "00000002_000.png") == ["Pleural Thickening"]
    assert positives(prepared, "00000004_000.png") == ["No Finding"]


def test_images_may_stay_in_their_zip_files(download: Path) -> None:
    places = read(download).table["image"]
    assert "images_002.zip!/images/00000002_000.png" in places.tolist()


def test_ages_in_years_months_and_days(download: Path) -> None:
    ages = column(read(download), "age")
    assert [ages[f"0000000{k}_000.png"] for k in (1, 2, 3, 4)] == ["58", "", "0", "70"]
    assert any("1 ages above 120" in note for note in read(download).notes)


def test_the_official_split_and_what_is_in_no_list(download: Path, tmp_path: Path) -> None:
    prepared = read(download, valid_fraction=0.34)
    splits = column(prepared, "split")
    assert splits.pop("00000004_000.png") == "test"
    assert sorted(splits.values()).count("valid") >= 1 and "00000005_000.png" not in splits
    assert splits["00000001_000.png"] == splits["00000001_001.png"]
    assert prepared.dropped == {"images in none of the lists": 1}
    assert len(load(prepared, tmp_path / "out")) == 5
    assert set(column(read(download, valid_fraction=0), "split").values()) == {"train", "test"}
    drawn = {tuple(read(download, valid_fraction=0.34, seed=seed).table["split"]) for seed in range(6)}
    assert len(drawn) > 1


def test_the_split_of_benchx(download: Path, tmp_path: Path) -> None:
    prepared = read(download, split="benchx", lists="benchx")
    assert column(prepared, "split") == {
        "00000001_000.png": "test",
        "00000001_001.png": "test",
        "00000002_000.png": "train",
        "00000003_000.png": "valid",
        "00000005_000.png": "train",
    }
    assert any("train 78,468, valid 11,219, test 22,433" in note for note in prepared.notes)
    assert prepared.table.equals(read(download, split="benchx", lists=str(download / "benchx")).table)
    load(prepared, tmp_path / "out")
    with pytest.raises(DataError, match=r"train\.txt: not found: name the folder of the lists with --lists"):
        read(download, split="benchx")


def test_an_image_in_two_lists(download: Path) -> None:
    write(download / "benchx" / "val.txt", "00000002_000.png\n")
    with pytest.raises(DataError, match=r"1 images stand in two of train\.txt, val\.txt, test\.txt"):
        read(download, split="benchx", lists="benchx")


def test_a_part_of_the_images(download: Path) -> None:
    (download / "images_002.zip").unlink()
    whole = column(read(download, split="benchx", lists="benchx"), "split")
    assert set(whole) == {"00000001_000.png", "00000001_001.png"}
    prepared = read(download)
    assert prepared.dropped == {"images in none of the lists": 1, "no image of that name in the download": 2}


def test_a_resized_copy_is_chosen_by_its_folder(download: Path) -> None:
    write_images(download / "small", [image[0].replace(".png", ".jpg") for image in IMAGES])
    with pytest.raises(DataError, match="two images of the same name"):
        read(download)
    prepared = read(download, images="small")
    assert prepared.images == download / "small" and prepared.table["image"].iloc[0] == "00000001_000.jpg"


def test_later_releases_of_the_table(download: Path) -> None:
    header = HEADER.replace("Patient Gender", "Patient Sex")
    write(download / "Data_Entry_2017_v2020.csv", entries(IMAGES[:3] + IMAGES[:1], header))
    prepared = read(download)
    assert prepared.dropped["images that stand twice in the table"] == 1
    assert sorted(column(prepared, "sex").values()) == ["F", "M", "M"]
    assert any("Data_Entry_2017_v2020.csv" in note for note in prepared.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            entries([("00000001_000.png", "Effusion|Covid", "1", "58", "M", "PA")]),
            "finding 'Covid': expected Atelectasis",
        ),
        (entries(header=HEADER.replace("Patient Gender", "Gender")), "no column Patient Gender or Patient Sex"),
        (entries(header=HEADER.replace("Finding Labels", "Labels")), "no column Finding Labels"),
        (entries(header=HEADER.replace(",\n", "\n")), "rows have more cells"),
    ],
    ids=["finding", "sex", "labels", "shifted columns"],
)
def test_faults_of_the_table(download: Path, text: str, said: str) -> None:
    write(download / "Data_Entry_2017.csv", text)
    with pytest.raises(DataError, match=said):
        read(download)


def small_download(folder: Path) -> list[str]:
    """A download whose images can be read, large enough to train on; the options that `prepare.py` needs for it."""
    build(folder)
    more = [(f"000000{k}_000.png", ("No Finding", "Edema|Mass")[k % 2], str(k), "60", "F", "PA") for k in range(10, 18)]
    write(folder / "Data_Entry_2017.csv", entries(IMAGES + more))
    for k, name in enumerate(["train_val_list.txt", "test_list.txt"]):
        write(folder / name, (folder / name).read_text() + "\n".join(row[0] for row in more[4 * k :][:4]) + "\n")
    write_images(folder / "images_003" / "images", [row[0] for row in more])
    fill_images(folder)
    return ["--valid-fraction=0.34"]
