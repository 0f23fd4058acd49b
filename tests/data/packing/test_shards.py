"""WebDataset shards: what becomes of their samples, how packing goes on, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from encoded_images import encoded
from packed_stores import PX, content
from tiny import LABELS, tiny_rows

from cxrcl.data import manifest
from cxrcl.data.images import store
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.packing import pack as packing
from cxrcl.data.packing import shards
from cxrcl.data.packing.shards import Rules
from cxrcl.errors import ConfigError, DataError

pytest.importorskip("webdataset")
IMAGE = encoded(np.random.default_rng(0).integers(0, 256, (40, 32), dtype=np.uint8))


def tarred(members: Mapping[str, Any]) -> bytes:
    """A tar file; contents are bytes, or what is written as JSON."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def shard(folder: Path, members: Mapping[str, Any], name: str = "a.tar") -> str:
    (folder / name).write_bytes(tarred(members))
    return str(folder / name)


def packed(folder: Path, members: Mapping[str, Any], **rules: Any) -> tuple[pd.DataFrame, dict[str, int]]:
    """The manifest of a shard, and what was left out."""
    made, left_out = shards.pack([shard(folder, members)], folder / "store", PX, rules=Rules(**rules))
    file = made.store.folder / "manifest.csv"
    return pd.read_csv(file, dtype=str, keep_default_na=False), dict(left_out)


@pytest.fixture
def three(tiny_set: Path, tmp_path: Path) -> str:
    """The 30 images of the tiny set in three shards."""
    rows = tiny_rows()
    for k in range(3):
        members: dict[str, Any] = {}
        for row in rows[10 * k : 10 * k + 10]:
            key = row["image"].removesuffix(".png")
            members[f"{key}.png"] = (tiny_set / row["image"]).read_bytes()
            values = {name: int(row[name]) if row[name] else None for name in LABELS}
            members[f"{key}.json"] = {name: value for name, value in row.items() if name != "image"} | values
        shard(tmp_path, members, f"part-{k}.tar")
    return str(tmp_path / "part-{0..2}.tar")


# --------------------------------------------------------------------------------------------------- content


@pytest.mark.parametrize("workers", [0, 3])
def test_images_and_manifest_are_those_of_the_files(three: str, tiny_set: Path, tmp_path: Path, workers: int) -> None:
    files = packing.pack(tiny_set, tmp_path / "files", PX).store
    made, left_out = shards.pack([three], tmp_path / "store", PX, workers)
    assert (made.store.folder / "images.u8").read_bytes() == (files.folder / "images.u8").read_bytes()
    assert made.new == 30 and not left_out and made.store.damaged() == []
    data = store.attach(manifest.load(tmp_path / "store"), tmp_path / "store", tmp_path / "store")
    assert data.fingerprint() == manifest.load(tiny_set).fingerprint()
    first = ImageReader().read(data.rows["path"][29])
    np.testing.assert_array_equal(first, ImageReader(PX).read(manifest.load(tiny_set).rows["path"][29]))


def test_a_sample_needs_no_more_than_an_image(tmp_path: Path) -> None:
    table, _ = packed(tmp_path, {"/in/a.PNG": IMAGE, "b.jpg": IMAGE}, split="test")
    assert table.to_dict("records") == [
        {"image": "in/a.png", "patient": "/in/a", "study": "/in/a", "view": "unknown", "split": "test"},
        {"image": "b.jpg", "patient": "b", "study": "b", "view": "unknown", "split": "test"},
    ]


def test_members_become_columns(tmp_path: Path) -> None:
    says = {
        "patient": 7,
        "study": "s1",
        "view": "PA",
        "split": "val",
        "age": 63,
        "sex": None,
        "findings": "A.\rB.",
    }
    labels = {"Edema": -1, "Mass": True, "Nodule": "0", "Hernia": float("nan"), "Fracture": 1.0}
    members = {"a.png": IMAGE, "a.json": {**says, **labels}, "a.txt": b" Of the .txt. ", "a.cls": b"1\n"}
    members |= {"b.png": IMAGE, "b.json": {"text": "Of the .json.", "patient": "nan"}, "b.txt": b"not this"}
    table, _ = packed(tmp_path, members, classes=("No", "Yes"))
    first, other = table.to_dict("records")
    columns = "image patient study view split findings text sex age No Yes Edema Mass Nodule Hernia Fracture"
    assert list(table) == columns.split()
    values = "a.png|7|s1|PA|valid|A.\nB.|Of the .txt.||63|0|1|-1|1|0||1"
    assert list(first.values()) == values.split("|")
    assert other["text"] == "Of the .json." and other["patient"] == "b" and other["Edema"] == other["Yes"] == ""


def test_what_no_rule_reads_is_left_out_and_counted(tmp_path: Path) -> None:
    members = {"README": b"", "a.png": IMAGE, "a.seg.png": IMAGE, "a.cls": b"9", "a.json": {"width": 512, "Edema": 1}}
    members |= {"b.png": IMAGE, "b.seg.png": IMAGE, "__index__/c.json": b"{"}
    table, left_out = packed(tmp_path, members, labels=("Edema",))
    assert list(table["Edema"]) == ["1", ""] and "width" not in table
    assert left_out == {
        "members without a suffix": 1,
        "members .seg.png": 2,
        "members .cls": 1,
        "keys 'width' of .json": 1,
    }


def test_an_image_that_cannot_be_read_is_recorded(tmp_path: Path) -> None:
    made, _ = shards.pack([shard(tmp_path, {"a.png": IMAGE, "b.png": b""})], tmp_path / "store", PX)
    assert made.unreadable() == {1: "empty file"}


def test_filters_of_warnings_stay_as_they_were(three: str, tmp_path: Path) -> None:
    before = list(warnings.filters)
    shards.pack([three], tmp_path / "store", PX, 3)
    assert list(warnings.filters) == before


# ------------------------------------------------------------------------------------------------ the shards


def test_patterns_name_shards_in_order(three: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [str(tmp_path / f"part-{k}.tar") for k in range(3)]
    assert shards.expand([three]) == shards.expand([str(tmp_path / "part-*.tar")]) == names
    assert shards.expand(["pipe:cat x-{1..2}.tar", "https://host/{b,a}.tar"]) == [
        *("pipe:cat x-1.tar", "pipe:cat x-2.tar", "https://host/b.tar", "https://host/a.tar")
    ]
    monkeypatch.chdir(tmp_path)
    assert shards.expand(["part-?.tar"]) == [Path(name).name for name in names]


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("nowhere-{0..1}.tar", r"--wds nowhere-0\.tar: no such shard"),
        ("*.tgz", r"\*\.tgz: no such shard"),
        ("a.tar", r"a\.tar is named twice"),
        ("s3://b/a.tar", r"s3: is no known kind of URL; .* 'pipe:aws s3 cp"),
        ("a{.tar", "unbalanced braces"),
    ],
)
def test_wrong_patterns_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shard(tmp_path, {"a.png": IMAGE})
    with pytest.raises(DataError, match=line):
        shards.pack(["a.tar", pattern], tmp_path / "store", PX)
    assert not (tmp_path / "store").exists()


def test_commands_and_compressed_shards_are_streamed(three: str, tmp_path: Path) -> None:
    (tmp_path / "part-1.tar.gz").write_bytes(gzip.compress((tmp_path / "part-1.tar").read_bytes()))
    # The padding is more than a pipe holds: who closes it early stops the command.
    (tmp_path / "padded").write_bytes((tmp_path / "part-0.tar").read_bytes() + bytes(1 << 20))
    patterns = [f"pipe:exec cat {tmp_path}/padded", f"{tmp_path}/part-1.tar.gz", f"file:{tmp_path}/part-2.tar"]
    plain, streamed = shards.pack([three], tmp_path / "x", PX), shards.pack(patterns, tmp_path / "y", PX)
    for name in ("images.u8", "manifest.csv", "index.npz"):
        assert (streamed.packed.store.folder / name).read_bytes() == (plain.packed.store.folder / name).read_bytes()


def whole() -> bytes:
    return tarred({"a.png": IMAGE, "b.png": IMAGE})


TORN = {
    "in an image": (lambda data: data[:900], "unexpected end of data"),
    "between two samples": (lambda data: data[: 512 + -(-len(IMAGE) // 512) * 512], "empty header"),
    "in a header": (lambda data: data[: 512 + -(-len(IMAGE) // 512) * 512 + 99], "truncated header"),
    "a damaged header": (
        lambda data: data[: -(-len(IMAGE) // 512) * 512 + 512] + b"x" * 512 + data[:512],
        "invalid|bad",
    ),
    "compressed": (lambda data: gzip.compress(data)[:900], "unexpected end of data|empty|truncated"),
    "nothing": (lambda _: b"", "empty"),
    "no tar file": (lambda _: b"<html>" * 999, "invalid header|truncated|bad checksum"),
}


@pytest.mark.parametrize("how", TORN)
def test_a_shard_that_is_cut_off_is_an_error(tmp_path: Path, how: str) -> None:
    tear, reason = TORN[how]
    (tmp_path / "a.tar").write_bytes(tear(whole()))
    with pytest.raises(DataError, match=rf"a\.tar: no whole tar file \(.*({reason}).*\): copy") as found:
        shards.pack([str(tmp_path / "a.tar")], tmp_path / "store", PX)
    assert "\n" not in str(found.value)
    with pytest.raises(DataError, match="packing has not finished"):
        store.Store(tmp_path / "store")


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    shard(tmp_path, {"a.png": IMAGE})
    for command in ("exit 3", f"cat {tmp_path / 'a.tar'}; exit 3"):  # the latter printed a whole shard
        with pytest.raises(DataError, match=r"exit 3: cannot be read \(the command ended with 3\)"):
            shards.pack([f"pipe:{command}"], tmp_path / "store", PX)
    # What has packed nothing stands in no one's way.
    assert shards.pack([str(tmp_path / "a.tar")], tmp_path / "store", PX).packed.new == 1


def test_signatures_of_urls_are_not_shown() -> None:
    assert shards._shown("https://host/a.tar?sig=secret") == "https://host/a.tar"
    assert shards._shown("dir/a?.tar") == "dir/a?.tar"


# ---------------------------------------------------------------------------------------------- bad samples

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"a.json": {}}, r"sample 'a': no image among its members \(\.json\): expected one of \.png"),
    "a key with dots": (
        {"1.2.840.dcm": IMAGE},
        r"'1': no image .*\(\.2\.840\.dcm\).* a key ends at its first dot",
    ),
    "two images": ({"a.png": IMAGE, "a.jpg": IMAGE}, r"sample 'a': 2 images \(\.png, \.jpg\), expected one"),
    "one name twice": ({"a.png": IMAGE, "a.PNG": IMAGE}, r"a\.PNG: duplicate file name in tar file"),
    "one key twice": ({"a.png": IMAGE, "b.png": IMAGE, "a.jpg": IMAGE}, "sample 'a': stands in these shards twice"),
    "no JSON": ({"a.png": IMAGE, "a.json": b"{'a': 1}"}, r"\.json: cannot be read \(JSONDecodeError\)"),
    "deep JSON": ({"a.png": IMAGE, "a.json": b"[" * 10**6}, r"\.json: cannot be read \(RecursionError\)"),
    "a list": ({"a.png": IMAGE, "a.json": [1]}, r"\.json: a list, expected an object"),
    "a label": (
        {"a.png": IMAGE, "a.json": {"Edema": 3}},
        "'a': label 'Edema' is 3, expected 1, 0, -1 or .*--labels",
    ),
    "labels in an object": (
        {"a.png": IMAGE, "a.json": {"labels": {"Edema": 1}}},
        "label 'labels' is a dict, expected 1",
    ),
    "a patient": ({"a.png": IMAGE, "a.json": {"patient": ["p"]}}, "'patient' is a list, expected a text or a number"),
    "a split": ({"a.png": IMAGE, "a.json": {"split": "fold 1"}}, "split 'fold 1', expected train, valid or test"),
    "a class": ({"a.png": IMAGE, "a.cls": b"2"}, r"\.cls is '2', expected 0 to 1, as --classes"),
    "a text": ({"a.png": IMAGE, "a.txt": b"\xff"}, r"\.txt: not UTF-8 at byte 0"),
    "half a character": (
        {"a.png": IMAGE, "a.json": b'{"text": "\\ud800"}'},
        "cannot be written as UTF-8",
    ),
    "no samples": ({}, "no sample in 1 shards"),
    "no readable image": ({"a.png": b"x"}, r"none of 1 images tried can be read \(the first: not an image"),
    "no readable image of many": ({f"{k}.png": b"" for k in range(20)}, "none of 16 images tried can be read"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_sample_is_one_line_with_its_shard_and_key(tmp_path: Path, how: str) -> None:
    members, line = BAD[how]
    with pytest.raises(DataError, match=line) as found:
        packed(tmp_path, members, classes=("No", "Yes"))
    assert "\n" not in str(found.value) and str(found.value).startswith((str(tmp_path / "a.tar"), "no"))


def test_a_member_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match=r"a\.tar: a\.png has more than 1,000 bytes"):
        packed(tmp_path, {"a.bin": bytes(2000), "a.png": IMAGE})


def test_a_patient_in_two_splits_is_said_when_the_store_is_whole(tmp_path: Path) -> None:
    members: dict[str, Any] = {"a.png": IMAGE, "a.json": {"patient": "p"}}
    members |= {"b.png": IMAGE, "b.json": {"patient": "p", "split": "test"}}
    for _ in range(2):
        with pytest.raises(DataError, match="1 patients stand in more than one split"):
            packed(tmp_path, members)
    table = pd.read_csv(tmp_path / "store" / "manifest.csv", dtype=str)
    table.assign(split="train").to_csv(tmp_path / "store" / "manifest.csv", index=False)
    assert shards.pack([str(tmp_path / "a.tar")], tmp_path / "store", PX).packed.new == 0


@pytest.mark.parametrize("names", [("a", "a"), ("",), ("view",)])
def test_names_of_labels_that_cannot_be(names: tuple[str, ...]) -> None:
    for option in ("classes", "labels"):
        with pytest.raises(ConfigError, match=f"--{option}: {names[-1]!r} is blank, stands twice, or"):
            Rules(**{option: names})


def test_the_library_is_named_where_it_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(DataError, match=r"pip install 'cxrcl\[wds\]'"):
        shards.pack(["a.tar"], tmp_path / "store", PX)


# ----------------------------------------------------------------------------------------------- interruptions


def test_packing_goes_on_behind_the_last_whole_shard(
    three: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(shards.pack([three], tmp_path / "whole", PX).packed.store.folder)
    reading, count = ImageReader.read_hashed, iter(range(1000))

    def read(self: ImageReader, *arguments: Any) -> tuple[np.ndarray, int]:
        if next(count) == 15:  # in the second shard
            raise KeyboardInterrupt
        return reading(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ImageReader, "read_hashed", read)
        with pytest.raises(KeyboardInterrupt):
            shards.pack([three], tmp_path / "torn", PX)
    (tmp_path / "part-0.tar").write_bytes(b"is not read again")
    made, _ = shards.pack([three], tmp_path / "torn", PX, 2)
    assert made.new == 20 and content(tmp_path / "torn") == whole


def test_a_key_of_a_shard_before_the_interruption_is_known(tmp_path: Path) -> None:
    names = [shard(tmp_path, {"a.png": IMAGE}, "1.tar"), shard(tmp_path, {"a.jpg": IMAGE}, "2.tar")]
    for _ in range(2):
        with pytest.raises(DataError, match=r"2\.tar: sample 'a': stands in these shards twice"):
            shards.pack(names, tmp_path / "store", PX)


def test_a_whole_store_is_left_and_other_shards_or_rules_need_overwrite(
    three: str, tiny_set: Path, tmp_path: Path
) -> None:
    shards.pack([three], tmp_path / "store", PX)
    before = content(tmp_path / "store")
    assert shards.pack([three], tmp_path / "store", PX).packed.new == 0 and content(tmp_path / "store") == before
    part = [str(tmp_path / "part-0.tar")]
    for patterns, px, rules in ((part, PX, Rules()), ([three], 20, Rules()), ([three], PX, Rules(split="test"))):
        with pytest.raises(DataError, match=r"holds images of (24 px|another origin).* --overwrite"):
            shards.pack(patterns, tmp_path / "store", px, rules=rules)
    with pytest.raises(DataError, match="holds images of another origin"):
        packing.pack(tiny_set, tmp_path / "store", PX)
    assert content(tmp_path / "store") == before
    assert shards.pack(part, tmp_path / "store", PX, overwrite=True).packed.new == 10
