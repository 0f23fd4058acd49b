"""Images that cannot be read: what stands in for them in training, and what evaluation leaves out."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxrcl.data import bad_images, manifest
from cxrcl.data.dataset import MAX_STAND_INS, EvalSet, Sample, TrainSet, probe_images
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader
from cxrcl.data.manifest import Manifest
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.reports import ReportSampler
from cxrcl.data.text.texts import Texts
from cxrcl.errors import DataError
from cxrcl.types import ImageSpec

SPEC = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
ROW = 5  # of the training split: the only image of study s3, row 7 of the CSV
ITEM = 3


@pytest.fixture
def data(own_set: Path) -> Manifest:
    """Training data, one image of which is empty."""
    part = manifest.load(own_set).split("train")
    Path(part.rows["path"][ROW]).write_bytes(b"")
    return part


def make(data: Manifest, seed: int = 0, views: int = 1) -> TrainSet:
    texts = Texts(data, "auto", ReportSampler(("findings",), 1), PromptSampler("chexpert.json"))
    return TrainSet(data, RadiographTransform(SPEC), texts, "study", views, 1, seed)


def same(a: Sample, b: Sample) -> bool:
    pairs = ((a.images, b.images), (a.augment, b.augment), (a.labels, b.labels))
    equal = all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)  # type: ignore[arg-type]
    return equal and a.texts == b.texts and a.index == b.index


def ruin(data: Manifest, rows: slice | list[int]) -> None:
    for path in data.rows["path"].to_numpy()[rows]:
        Path(path).write_bytes(b"")


def test_another_sample_of_the_split_stands_in_as_a_whole(data: Manifest) -> None:
    made = make(data)
    assert made.items[ITEM].tolist() == [ROW]
    for epoch in range(5):
        found = made[epoch, ITEM]
        assert found.unreadable_row == 7 and found.index != 7
        (other,) = [k for k, rows in enumerate(made.items) if made.lines[rows[0]] == found.index]
        assert same(found, made[epoch, other]) and made[epoch, other].unreadable_row == 0


def test_who_stands_in_depends_on_seed_epoch_and_row_only(data: Manifest) -> None:
    forwards, backwards = make(data), make(data)
    keys = [(epoch, item) for epoch in range(4) for item in range(len(forwards))]
    first = {key: forwards[key] for key in keys}
    assert all(same(first[key], backwards[key]) for key in reversed(keys))
    assert len({forwards[epoch, ITEM].index for epoch in range(20)}) > 3
    assert len({make(data, seed)[0, ITEM].index for seed in range(20)}) > 3
    ruin(data, [ROW + 1, ROW + 2, ROW + 3])  # the images of the next two studies
    pairs = [(forwards[epoch, ITEM].index, forwards[epoch, ITEM + 2].index) for epoch in range(20)]
    assert any(one != other for one, other in pairs)


def test_samples_whose_images_are_whole_are_as_before(data: Manifest, tiny_set: Path) -> None:
    untouched, made = make(manifest.load(tiny_set).split("train")), make(data)
    for item in range(len(made)):
        if item != ITEM:
            assert same(untouched[0, item], made[0, item]) and made[0, item].unreadable_row == 0


def test_a_stand_in_that_is_bad_itself_is_passed_over(data: Manifest) -> None:
    made = make(data)
    before = made[0, ITEM]
    ruin(data, np.flatnonzero(data.rows["study"] == data.rows["study"][before.index - 2]).tolist())
    after = made[0, ITEM]
    assert after.unreadable_row == before.unreadable_row == 7 and after.index not in (before.index, 7)


def test_one_bad_image_of_a_study_is_named_by_its_own_row(data: Manifest) -> None:
    made = make(data, views=2)
    assert made.items[0].tolist() == [0, 1]
    ruin(data, [1])
    assert made[0, 0].unreadable_row == 3


def test_a_folder_without_images_is_an_error(data: Manifest) -> None:
    ruin(data, slice(None))
    with pytest.raises(DataError, match=f"image of row 7 of the manifest: empty file; .* up to {MAX_STAND_INS} other"):
        make(data)[0, ITEM]
    alone = data.take(np.array([ROW]))
    with pytest.raises(DataError, match="row 7"):
        make(alone)[0, 0]


def test_the_reason_can_be_asked_for(data: Manifest) -> None:
    assert make(data).why_unreadable(7) == "empty file"
    assert make(data).why_unreadable(2) == "it could be read when tried again"


def as_list(samples: list[Sample]) -> list[Sample]:
    return samples


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_find_the_same_stand_ins(data: Manifest, workers: int) -> None:
    made, keys = make(data), [[(epoch, ITEM), (epoch, 0)] for epoch in range(9)]
    batch_reader = BatchReader(workers)
    found = [sample for part in batch_reader.batches(made, keys, as_list) for sample in part]  # type: ignore[arg-type,attr-defined]
    batch_reader.close()
    assert all(same(made[key], sample) for key, sample in zip([k for part in keys for k in part], found, strict=True))
    assert [sample.unreadable_row for sample in found] == [7, 0] * 9
    assert not multiprocessing.active_children()


# ------------------------------------------------------------------------------------------------ evaluation


def test_evaluation_takes_no_stand_in(data: Manifest) -> None:
    with pytest.raises(DataError, match="image of row 7 of the manifest: empty file"):
        EvalSet(data, RadiographTransform(SPEC), None)[0, ROW]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_cannot_be_read_are_found_and_left_out(
    data: Manifest, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bad_images, "_IMAGES_PER_BATCH", 1)
    ruin(data, [0])
    Path(data.rows["path"][9]).unlink()
    found = bad_images.find_unreadable(data, range(len(data)), BatchReader(workers))
    assert found == {0: "empty file", ROW: "empty file", 9: "file not found"}
    assert bad_images.find_unreadable(data, range(1, 9), BatchReader(workers)) == {ROW: "empty file"}
    left = bad_images.leave_out(data, found)
    assert left.rows["line"].tolist() == [line for line in data.rows["line"] if line not in (2, 7, 11)]
    assert np.array_equal(left.values, np.delete(data.values, [0, ROW, 9], axis=0), equal_nan=True)


def test_rows_of_the_csv_are_named(data: Manifest) -> None:
    found = {9: "b", ROW: "a"}
    assert bad_images.named(data, found) == "row 7: a; row 11: b"
    assert bad_images.named(data, found, most=1) == "row 7: a; ..."


def test_a_split_without_any_image_is_an_error(own_set: Path) -> None:
    data = manifest.load(own_set)
    valid = np.flatnonzero(data.rows["split"] == "valid")
    with pytest.raises(DataError, match=r"no image of the split valid can be read \(the first: empty file\)"):
        bad_images.leave_out(data, dict.fromkeys(valid.tolist(), "empty file"))


# ------------------------------------------------------------------------------------------------ at the start


def test_the_probe_may_allow_single_images_of_the_training_split(own_set: Path) -> None:
    data = manifest.load(own_set)
    first, last = Path(data.rows["path"].iloc[0]), Path(data.rows["path"].iloc[-1])
    kept = shutil.copy(last, own_set / "kept.png")
    first.write_bytes(b"")
    with pytest.raises(DataError, match="row 2"):
        probe_images(data)
    probe_images(data, max_bad_fraction=0.01)
    Path(data.rows["path"].iloc[2]).write_bytes(b"")
    with pytest.raises(DataError, match="row 4"):
        probe_images(data, count=len(data), max_bad_fraction=0.01)
    probe_images(data, count=len(data), max_bad_fraction=0.5)
    shutil.copy(kept, first)
    last.write_bytes(b"")  # of the split test, where nothing stands in
    with pytest.raises(DataError, match=f"row {len(data) + 1}"):
        probe_images(data, count=2, max_bad_fraction=0.01)


def test_images_in_zip_files_are_trained_on(
    own_set: Path, put: Callable[..., Path], rows: list[dict[str, str]]
) -> None:
    shutil.make_archive(str(own_set / "images"), "zip", own_set, "images")
    inside = put([{**row, "image": f"images.zip!/{row['image']}"} for row in rows], "zipped")
    shutil.move(own_set / "images.zip", inside / "images.zip")
    plain, zipped = (make(manifest.load(folder).split("train")) for folder in (own_set, inside))
    assert all(same(plain[1, item], zipped[1, item]) for item in range(len(plain)))
    with pytest.raises(DataError, match="lead out of the folder"):
        manifest.load(put([{**rows[0], "image": "../images.zip!/a.png"}], "out"))
