"""Finding the images and the files of a download."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from downloads import write, write_images, write_zip

from cxrcl.data.sources.download import check_ages, compare_counts, find_file, locate, multi_hot, place
from cxrcl.errors import DataError


def names(*values: str) -> pd.Series:
    return pd.Series(values, dtype=str)


def test_images_lie_in_folders_and_in_zip_files(tmp_path: Path) -> None:
    write_images(tmp_path, ["images_001/images/a.png", "b.dicom"])
    write_zip(tmp_path / "images_002.zip", ["images/c.png", "__MACOSX/images/._c.png", "images/readme.txt"])
    places = locate(names("a.png", "b", "c.png", "d.png"), tmp_path)
    assert places.tolist() == ["images_001/images/a.png", "b.dicom", "images_002.zip!/images/c.png", ""]


def test_an_image_outside_of_zip_files_is_preferred(tmp_path: Path) -> None:
    write_zip(tmp_path / "0.zip", ["a.png", "b.png"])
    write_images(tmp_path, ["0/a.png"])
    assert locate(names("a.png", "b.png"), tmp_path).tolist() == ["0/a.png", "0.zip!/b.png"]


def test_another_format_of_the_same_image_is_found_by_its_stem(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "c.png"])
    assert locate(names("a.png", "c.png"), tmp_path).tolist() == ["a.jpg", "c.png"]
    assert locate(names("a.png", "c.png"), tmp_path, by="name").tolist() == ["", "c.png"]


def test_rows_without_an_image_are_dropped_and_counted(tmp_path: Path) -> None:
    write_images(tmp_path, ["deep/a.jpg", "c.png"])
    table, dropped = pd.DataFrame({"image": ["a.png", "c.png"], "view": ["PA", "AP"]}), dict[str, int]()
    assert place(table, tmp_path, dropped)["image"].tolist() == ["deep/a.jpg", "c.png"] and dropped == {}
    assert place(table, tmp_path, dropped, by="name").to_dict("list") == {"image": ["c.png"], "view": ["AP"]}
    assert dropped == {"no image of that name in the download": 1}


def test_two_images_of_a_name_are_an_error_only_if_the_table_names_them(tmp_path: Path) -> None:
    write_images(tmp_path, ["images/a.png", "masks/a.png", "images/b.png"])
    assert locate(names("b"), tmp_path).tolist() == ["images/b.png"]
    with pytest.raises(DataError, match=r"images/a\.png and masks/a\.png: name the folder .* with --images"):
        locate(names("a"), tmp_path)
    assert locate(names("a"), tmp_path / "images").tolist() == ["a.png"]


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    write_images(tmp_path / "disk", ["a.png"])
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "disk")
    assert locate(names("a"), tmp_path / "source").tolist() == ["images/a.png"]


def test_no_image_at_all_says_what_to_do(tmp_path: Path) -> None:
    write_images(tmp_path, ["notes.txt", "images_01.tar.gz"])
    with pytest.raises(DataError, match=r"none of the 2 images is there \(the first is a\.png\): unpack the 1 tar"):
        locate(names("a.png", "b.png"), tmp_path)
    with pytest.raises(DataError, match="absent: not found"):
        locate(names("a.png"), tmp_path / "absent")
    write(tmp_path / "broken.zip", "cut off")
    with pytest.raises(DataError, match=r"broken\.zip: not a whole zip file"):
        locate(names("a.png"), tmp_path)


def test_find_file_takes_the_first_pattern_and_the_last_name(tmp_path: Path) -> None:
    for name in ("Data_2017.csv", "Data_2017_v2020.csv", "other.csv"):
        write(tmp_path / name, "")
    assert find_file(tmp_path, "Data*.csv", "other.csv").name == "Data_2017_v2020.csv"
    with pytest.raises(DataError, match=r"no x\.csv or y\.csv in it"):
        find_file(tmp_path, "x.csv", "y.csv")


def test_cells_are_parsed_once_each() -> None:
    asked: list[str] = []

    def parse(cell: str) -> list[str]:
        asked.append(cell)
        return cell.split("|") if cell else []

    found = multi_hot(pd.Series(["b|a", "", "b|a", "c"], index=[5, 6, 7, 8]), parse)
    assert asked == ["b|a", "", "c"]
    assert found.columns.tolist() == ["a", "b", "c"] and found.index.tolist() == [5, 6, 7, 8]
    assert found.to_numpy().astype(int).tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_impossible_ages_are_blank() -> None:
    ages = check_ages(pd.Series(["58", "0", "-1", "414", "", "x", "120", "61.0"]))
    assert ages.tolist() == ["58", "0", "", "", "", "", "120", "61"]


def test_counts_are_compared_with_the_published_ones() -> None:
    assert compare_counts({"train": 1200}, {"train": 1200}) == "Counts are the published ones: train 1,200."
    assert compare_counts({"test": 5, "valid": 2}, {"test": 4}) == (
        "Published counts: test 5, valid 2; this download: test 4, valid 0."
    )
