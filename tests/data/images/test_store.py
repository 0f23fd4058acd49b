"""Packed stores: images that are those of the files, and stores that are damaged or of another manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from encoded_images import deep_colour, encoded, zipped
from packed_stores import PX, as_version_1, content, from_store
from tiny import write_rows

from cxrcl.data import bad_images, manifest
from cxrcl.data.dataset import EvalSet, Sample, TrainSet, probe_images
from cxrcl.data.images import store
from cxrcl.data.images.image_io import read_gray
from cxrcl.data.images.pixels import ImageError
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.store import Store
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader
from cxrcl.data.manifest import Manifest
from cxrcl.data.packing.pack import pack
from cxrcl.errors import DataError
from cxrcl.types import ImageSpec

SPEC = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def samples(data: Manifest, reader: ImageReader = ImageReader(PX)) -> list[Sample]:  # noqa: B008
    made = TrainSet(data.split("train"), RadiographTransform(SPEC), None, "study", 2, 0, 0, reader)
    return [made[epoch, item] for epoch in range(2) for item in range(len(made))]


def same(a: Sample, b: Sample) -> bool:
    first, other = (
        [None if x is None else x.tobytes() for x in (s.images, s.augment, s.labels)] + [s.index, s.unreadable_row]
        for s in (a, b)
    )
    return first == other


def deep(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(200, 4000, (height, width), dtype=np.uint16)


def images_of_every_kind() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (70, 50), dtype=np.uint8)
    large = np.kron(rng.integers(0, 256, (60, 50), dtype=np.uint8), np.ones((8, 8), dtype=np.uint8))
    return {
        "grey.png": encoded(grey),
        "deep.png": encoded(deep(60, 44)),
        "colour.png": deep_colour(rng.integers(0, 65536, (40, 48, 3), dtype=np.uint16)),
        "large.jpg": encoded(large, "JPEG"),
        "small.png": encoded(grey[:20, :18]),
        "images.zip": zipped({"in/a.png": encoded(grey[:64])}),
    }


def a_set(folder: Path, files: dict[str, bytes]) -> Path:
    rows = []
    for k, (name, data) in enumerate(files.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        image = f"{name}!/in/a.png" if name.endswith(".zip") else name
        rows.append({"image": image, "patient": f"p{k}", "study": f"s{k}", "view": "PA", "split": "train"})
    write_rows(folder, rows)
    return folder


def test_images_are_bit_for_bit_those_of_the_files(tmp_path: Path) -> None:
    files = images_of_every_kind()
    try:
        from encoded_images import dicom

        files["chest.dcm"] = dicom(deep(48, 56), BitsStored=12)
    except ImportError:
        pass
    root = a_set(tmp_path / "set", files)
    data = from_store(root, pack(root, tmp_path / "store", PX).store.folder)
    plain = manifest.load(root)
    assert read_gray(root / "large.jpg", 2 * PX).shape < read_gray(root / "large.jpg").shape  # is decoded smaller
    for path, source in zip(data.rows["path"], plain.rows["path"]):
        np.testing.assert_array_equal(ImageReader(PX).read(path), ImageReader(PX).read(source))
    assert all(same(*pair) for pair in zip(samples(data), samples(plain)))


def test_evaluation_and_every_epoch_see_the_same_images(tiny_set: Path, packed: Path) -> None:
    plain, data = manifest.load(tiny_set), from_store(tiny_set, packed)
    assert all(same(*pair) for pair in zip(samples(data), samples(plain)))
    transform = RadiographTransform(SPEC)
    sets = [EvalSet(part, transform, None, views, reader=ImageReader(PX)) for part in (plain, data) for views in (1, 2)]
    assert all(same(sets[0][0, row], sets[2][0, row]) and same(sets[1][0, row], sets[3][0, row]) for row in range(30))
    at_full_size = EvalSet(plain, transform, None)
    assert not same(sets[0][0, 0], at_full_size[0, 0])  # the size matters


def test_a_store_alone_is_a_data_set(own_set: Path, tmp_path: Path) -> None:
    plain = manifest.load(own_set)
    expected = samples(plain)
    folder = pack(own_set, tmp_path / "store", PX).store.folder
    shutil.rmtree(own_set)
    moved = folder.rename(tmp_path / "elsewhere")
    data = from_store(moved, moved)
    assert data.fingerprint() == plain.fingerprint()
    assert all(same(*pair) for pair in zip(samples(data), expected))


def test_the_index_can_be_read_without_this_package(tiny_set: Path, packed: Path) -> None:
    index = np.load(packed / "index.npz")
    pixels = np.fromfile(packed / "images.u8", dtype=np.uint8)
    start, height, width = (int(index[name][7]) for name in ("offset", "height", "width"))
    name = pd.read_csv(packed / "manifest.csv")["image"][7]
    found = pixels[start : start + height * width].reshape(height, width)
    np.testing.assert_array_equal(found, ImageReader(PX).read(tiny_set / name))
    assert (packed / "manifest.csv").read_bytes() == (tiny_set / "manifest.csv").read_bytes()
    assert json.loads((packed / "store.json").read_text())["images"] == 30


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_read_the_store(tiny_set: Path, packed: Path, workers: int) -> None:
    data = from_store(tiny_set, packed).split("train")
    made = TrainSet(data, RadiographTransform(SPEC), None, "image", 1, 0, 0)
    keys = [[(0, item)] for item in range(len(made))]
    collate: Any = list
    found: Any = BatchReader(workers).batches(made, keys, collate)
    assert all(same(batch[0], made[0, item]) for item, batch in enumerate(found))


def test_a_path_into_a_store_is_all_that_a_process_needs(packed: Path) -> None:
    store._opened.cache_clear()
    assert ImageReader().read(store.place(packed, 0)).shape == (30, 24)
    with pytest.raises(DataError, match="not a packed store"):
        ImageReader().read(store.place(packed / "nowhere", 0))


def test_a_bad_image_is_recorded_and_replaced_as_from_files(own_set: Path, tmp_path: Path) -> None:
    (own_set / "images/3_pa.png").write_bytes(b"")
    (own_set / "images/5_pa.png").unlink()
    made = pack(own_set, tmp_path / "store", PX)
    plain, data = manifest.load(own_set), from_store(own_set, made.store.folder)
    assert bad_images.named(plain, made.unreadable()) == "row 7: empty file; row 10: file not found"
    drawn = samples(data)
    assert {sample.unreadable_row for sample in drawn} >= {7, 10}
    assert all(same(*pair) for pair in zip(drawn, samples(plain)))
    training = TrainSet(data.split("train"), RadiographTransform(SPEC), None, "study", 1, 0, 0)
    assert training.why_unreadable(7) == "empty file"
    assert bad_images.find_unreadable(data, range(len(data)), BatchReader(0)) == made.unreadable()
    with pytest.raises(DataError, match="image of row 7 of the manifest: empty file"):
        probe_images(data, count=30)


def test_a_store_of_version_1_is_read(tiny_set: Path, tmp_path: Path) -> None:
    new, old = (pack(tiny_set, tmp_path / name, PX).store.folder for name in ("new", "old"))
    as_version_1(old)
    paths = [from_store(tiny_set, folder).rows["path"] for folder in (new, old)]
    for path, same_image in zip(*paths, strict=True):
        np.testing.assert_array_equal(ImageReader(PX).read(path), ImageReader(PX).read(same_image))
    np.testing.assert_array_equal(ImageReader(PX).read(f"{old}/films.u8!/7"), ImageReader(PX).read(paths[0][7]))
    assert pack(tiny_set, old, PX).new == 0
    assert content(pack(tiny_set, old, PX, overwrite=True).store.folder) == content(new)


def test_a_store_packed_anew_is_read_anew(own_set: Path, tmp_path: Path) -> None:
    folder = pack(own_set, tmp_path / "store", PX).store.folder
    first = ImageReader().read(from_store(own_set, folder).rows["path"][0])
    pack(own_set, folder, 20, overwrite=True)
    assert ImageReader().read(from_store(own_set, folder).rows["path"][0]).shape == (25, 20) != first.shape


# ------------------------------------------------------------------------------------------------------------- refusals


def edited(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (edited("images.u8", lambda data: data[:-1]), r"images\.u8: 20,159 bytes, expected 20,160: copy it"),
    "no images": (lambda folder: (folder / "images.u8").unlink(), r"images\.u8: 0 bytes, expected"),
    "no head": (lambda folder: (folder / "store.json").unlink(), r"not a packed store \(no store\.json\)"),
    "no index": (lambda folder: (folder / "index.npz").unlink(), r"index\.npz: cannot be read \(FileNotFoundError\)"),
    "half an index": (edited("index.npz", lambda data: data[:900]), r"index\.npz: cannot be read \("),
    "a flipped byte in it": (edited("index.npz", lambda data: data[:200] + b"\xff" + data[201:]), r"index\.npz"),
    "half a head": (edited("store.json", lambda data: data[:9]), r"store\.json: damaged"),
    "version": (
        edited("store.json", lambda data: data.replace(b'"version": 2', b'"version": 3')),
        "store of version 3",
    ),
    "another manifest": (
        edited("manifest.csv", lambda data: b"\n".join([*data.split(b"\n")[:1], *data.split(b"\n")[:0:-1]])),
        "does not list the images of the store in their order",
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_store_is_one_line(tiny_set: Path, packed: Path, how: str) -> None:
    damage, reason = DAMAGE[how]
    damage(packed)
    with pytest.raises(DataError, match=reason) as found:
        from_store(tiny_set, packed)
    assert "\n" not in str(found.value)


def test_a_store_alone_with_rows_of_another_order_is_refused(packed: Path) -> None:
    table = pd.read_csv(packed / "manifest.csv", dtype=str, keep_default_na=False)
    table.assign(Edema="").to_csv(packed / "manifest.csv", index=False)  # labels may change
    assert len(from_store(packed, packed)) == 30
    table[::-1].to_csv(packed / "manifest.csv", index=False)
    with pytest.raises(DataError, match="does not list the images"):
        from_store(packed, packed)


def test_an_index_of_other_images_is_refused(packed: Path) -> None:
    with np.load(packed / "index.npz") as file:
        index = dict(file)
    index["offset"][4] += 1
    np.savez(packed / "index.npz", **index)
    with pytest.raises(DataError, match=r"index\.npz: does not belong to images\.u8"):
        Store(packed)


def test_checksums_find_flipped_bits(packed: Path) -> None:
    assert Store(packed).damaged() == []
    data = bytearray((packed / "images.u8").read_bytes())
    data[0] ^= 1
    data[-1] ^= 1
    (packed / "images.u8").write_bytes(data)
    assert Store(packed).damaged() == [0, 29]


def test_images_that_were_not_packed_are_counted_with_the_remedy(own_set: Path, tmp_path: Path) -> None:
    folder = pack(own_set, tmp_path / "store", PX).store.folder
    table = pd.read_csv(own_set / "manifest.csv", dtype=str, keep_default_na=False)
    table[::-1].assign(findings="Another text.", Edema="").to_csv(own_set / "manifest.csv", index=False)
    data = from_store(own_set, folder)  # labels, texts and the order may change
    np.testing.assert_array_equal(
        ImageReader(PX).read(data.rows["path"][0]), ImageReader(PX).read(own_set / data.rows["image"][0])
    )
    table["image"] = ["new.png", *table["image"][1:-1], "newer.png"]
    table.to_csv(own_set / "manifest.csv", index=False)
    line = (
        r"2 of 30 images of .*manifest\.csv are not in the store, first row 2: .*cxrcl pack '.*own set' --out '.*store'"
    )
    with pytest.raises(DataError, match=line + " --read-px 24 --overwrite"):
        from_store(own_set, folder)


def test_a_number_beyond_the_store_is_no_image(packed: Path) -> None:
    with pytest.raises(ImageError, match="no such image in the packed store"):
        ImageReader().read(store.place(packed, 30))
