"""Published lists of images in place of the column `split`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxrcl.data import manifest
from cxrcl.data.manifest import Manifest
from cxrcl.data.split_lists import apply_lists
from cxrcl.errors import ConfigError, DataError

IMAGES = ["a/one.a.png", "a/two.png", "b/three.jpg", "c/train/four.dcm", "c/val/four.png", "five.PNG", "six.png"]


@pytest.fixture
def whole(put: Callable[..., Path]) -> Manifest:
    """Seven images of as many patients, all of them in train."""
    same = {"study": "1", "view": "PA", "split": "train"}
    rows = [{"image": name, "patient": str(k), **same, "Edema": str(k % 2)} for k, name in enumerate(IMAGES)]
    return manifest.load(put(rows))


def lists(folder: Path, **names: list[str]) -> Path:
    folder.mkdir()
    for stem, lines in {"val": ["two"], "test": ["three"], **names}.items():
        (folder / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    return folder


def listed(data: Manifest) -> dict[str, str]:
    return dict(zip(data.rows["image"], data.rows["split"], strict=True))


@pytest.mark.parametrize("name", ["one.a", "one.a.png", "a/one.a.png", "./a/one.a.jpeg", "a\\one.a.png"])
def test_an_image_goes_by_its_path_its_file_name_or_that_without_the_suffix(
    whole: Manifest, tmp_path: Path, name: str
) -> None:
    data, said = apply_lists(whole, lists(tmp_path / "lists", train=["", "six", f" {name} ", "c/train/four.png"]))
    expected = {0: "train", 1: "valid", 2: "test", 3: "train", 6: "train"}
    assert listed(data) == {IMAGES[k]: split for k, split in expected.items()}
    np.testing.assert_array_equal(data.values, whole.values[list(expected)])
    assert "train 3 (train.txt), valid 1 (val.txt), test 1 (test.txt); 2 images are in none of them" in said
    assert set(whole.rows["split"]) == {"train"}  # the manifest itself stays as it was


@pytest.mark.parametrize(("fraction", "image"), [(1.0, "six"), (0.1, "five"), (0.01, "one"), (0.07, "four")])
def test_each_fraction_has_a_list_of_its_own(whole: Manifest, tmp_path: Path, fraction: float, image: str) -> None:
    names = {"train": ["six"], "train_10": ["five"], "train_1": ["one.a"], "train_7": ["train/four"]}
    data, _ = apply_lists(whole, lists(tmp_path / "lists", **names), fraction)
    (name,) = data.split("train").rows["image"]
    assert image in name


def test_valid_may_be_called_valid(whole: Manifest, tmp_path: Path) -> None:
    folder = lists(tmp_path / "lists", train=["six"])
    (folder / "val.txt").rename(folder / "valid.txt")
    assert len(apply_lists(whole, folder)[0].split("valid")) == 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"train": ["six", "", "seven", "eight"]}, "2 of 3 images are not in the manifest, first at line 3"),
        ({"train": ["ix"]}, "1 of 1 images are not"),  # the end of a name is not a name
        ({"train": ["four"]}, "1 of 1 images are the name of several images, first at line 1"),
        ({"train": ["five", "a/two"]}, r"val.txt: 1 images stand in train.txt as well, first at line 1"),
        (
            {"train": ["five"], "test": ["six", "five"]},
            r"test.txt: 1 images stand in train.txt as well, first at line 2",
        ),
        ({"train": ["name,label", "six,1"]}, "2 of 2 images are not in the manifest.*expected on each line the name"),
        ({"train": [""]}, "train.txt: names no image"),
    ],
)
def test_lists_that_do_not_suit_the_images_are_refused(
    whole: Manifest, tmp_path: Path, names: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        apply_lists(whole, lists(tmp_path / "lists", **names))


def test_a_missing_list_is_named(whole: Manifest, tmp_path: Path) -> None:
    folder = lists(tmp_path / "lists", train_1=["six"])
    with pytest.raises(ConfigError, match=r"no train_10.txt for fraction=0.1 \(lists there: test.txt, train_1.txt"):
        apply_lists(whole, folder, 0.1)
    (folder / "test.txt").unlink()
    with pytest.raises(ConfigError, match=r"no train.txt, test.txt \(lists there"):
        apply_lists(whole, folder)
    with pytest.raises(ConfigError, match=r"^split_lists=nowhere: no such folder"):
        apply_lists(whole, Path("nowhere"))


def test_a_file_that_is_no_text_is_refused(whole: Manifest, tmp_path: Path) -> None:
    folder = lists(tmp_path / "lists")
    (folder / "train.txt").write_bytes(b"six\n\xff")
    with pytest.raises(DataError, match=r"train.txt: not UTF-8 at byte 4"):
        apply_lists(whole, folder)
