"""CSV files of readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxrcl.errors import DataError
from cxrcl.evaluation.scores import reader_files

IMAGES, LABELS = ["a", "b", "c"], ["Edema", "Fracture", "Mass"]
HEAD = "reader,image,Mass,Edema,note\n"


def read(folder: Path, text: str, images: list[str] = IMAGES) -> tuple[list[reader_files.Readings], list[str], str]:
    file = folder / "readers.csv"
    file.write_text(text, encoding="utf-8")
    return reader_files.read(file, "image", images, LABELS)


def test_readings_are_matched_by_image_reader_and_label(tmp_path: Path) -> None:
    text = f"\ufeff{HEAD}Eve, b ,1,TRUE,\nAda,a,0,,\nAda,c,1.0,false,\n Eve,a,,-1,\nAda,z,1,1,\n"
    (eve, ada), notes, digest = read(tmp_path, text)
    nan = np.nan
    assert (eve.reader, ada.reader) == ("Eve", "Ada") and len(digest) == 64
    np.testing.assert_array_equal(eve.calls, [[nan, nan, nan], [1, nan, 1], [nan, nan, nan]])
    np.testing.assert_array_equal(ada.calls, [[nan, nan, 0], [nan, nan, nan], [0, nan, 1]])
    assert notes == [
        "readers.csv: readings of 1 images that are not scored are left out",
        "readers.csv: not scored, no such label: note",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,Edema\na,1\n", "no column reader; found: image, Edema"),
        ("reader,Edema\nEve,1\n", "no column image to match rows by"),
        ("reader,image,Odema\nEve,a,1\n", "no column of a scored label; found: Odema; scored: Edema, Fracture, Mass"),
        ("reader,image\nEve,a\n", "no column of a scored label; found: none"),
        ("reader,image,Edema\nEve,a,2\n", "label 'Edema' is '2' in 1 row, first at row 2"),
        ("reader,image,Edema\nEve,a,1\nEve,a ,0\n", "image and reader are repeated in 1 row, first at row 3"),
        ("reader,image,Edema\n ,a,1\n", "reader is blank in 1 row"),
        ("reader,image,Edema\nEve,x,1\n", "no image is among the 3 scored ones, first 'x'"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_two_scored_images_of_one_name_cannot_be_matched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'a' names several scored images"):
        read(tmp_path, "reader,image,Edema\nEve,a,1\n", ["a", "b", "a"])
