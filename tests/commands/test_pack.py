"""scripts/pack.py, and runs on packed stores."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Command, said
from helpers import PACKAGES, ROOT, said_once, settings, tiny_towers, write_manifest

import cxrcl
from cxrcl.app import train as train_module
from cxrcl.app.evaluate import evaluate
from cxrcl.commands.hydra import compose
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.packing.pack import pack as make_store
from cxrcl.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 48 px."""
    return write_manifest(tmp_path_factory.mktemp("packed") / "set", size=48)


@pytest.fixture(scope="module")
def store(studies: Path) -> Path:
    return make_store(studies, studies.parent / "store", 32).store.folder


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_packs_goes_on_and_verifies(own_set: Path, tmp_path: Path) -> None:
    (own_set / "images/3_pa.png").write_bytes(b"")
    words = ("pack", own_set, "--out", tmp_path / "a store", "--read-px", "24", "--workers", "0")
    first, packed, following = said(*words).splitlines()
    assert first.startswith("1 ") and first.endswith("row 7: empty file")
    assert packed.startswith("30 images packed") and str(tmp_path / "a store") in packed and "24 px" in packed
    assert following == f"next: python train.py data.root='{own_set}' data.store='{tmp_path / 'a store'}'"
    assert "30 checksums agree\nalready packed: " in said(*words, "--verify")
    data = bytearray((tmp_path / "a store" / "images.u8").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a store" / "images.u8").write_bytes(data)
    differing = said(*words, "--verify", status=2)
    assert "1 of 30 images differ from their checksums, first row 31: " in differing
    assert "30 images packed" in said(*words, "--verify", "--overwrite")


def test_images_outside_of_the_folder_are_packed_when_allowed(own_set: Path, tmp_path: Path) -> None:
    text = (own_set / "manifest.csv").read_text().replace("images/", "../images/")
    (own_set / "manifest.csv").write_text(text)
    (own_set / "images").rename(tmp_path / "images")
    words = ("pack", own_set, "--out", tmp_path / "store", "--read-px", "24", "--workers", "0")
    refused = said(*words, status=2)
    assert "set allow_outside_root=true (on the command line: --allow-outside-root)\n" in refused
    said(*words, "--allow-outside-root")
    values = tiny_towers(settings(own_set, tmp_path / "run", "evals=[]"))
    values["data"] |= {"root": None, "store": str(tmp_path / "store")}
    assert train_module.train(values, packages=PACKAGES).finished  # the images lie in the store


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["x", "--out", "y", "--read-px", "15"], "--read-px: expected a number, 16 or more, found '15'"),
        (["x", "--out", "y", "--workers", "-1"], "--workers: expected "),
        (["x"], "the following arguments are required: --out"),
        (["nowhere", "--out", "y"], "nowhere/manifest.csv: not found"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], line: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, printed, error = command("pack", *words)
    assert (status, printed) == (2, "") and error.startswith("error: ") and line in error
    assert error.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_the_script_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "pack.py"), "x", "--out", "y", "--read-px", "15"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert found.returncode == 2 and found.stderr.startswith("error: ") and "--read-px: " in found.stderr


# --------------------------------------------------------------------------------------------------- training


def figures(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k and "time" not in k} for row in rows]


def train(data: Path, folder: Path, *overrides: str, **settings_of_data: Any) -> list[dict[str, Any]]:
    base = ("trainer.evaluate_every_steps=4", "evals=[zero_shot]")
    values = tiny_towers(settings(data, folder, *base, *overrides))
    values["data"] |= {key: str(value) if isinstance(value, Path) else value for key, value in settings_of_data.items()}
    train_module.train(values, packages=PACKAGES)
    return figures(folder)


def test_files_and_store_give_equal_losses(studies: Path, store: Path, tmp_path: Path) -> None:
    files = train(studies, tmp_path / "files", read_px=32)
    assert len(files) >= 4 and all("train/loss" in row for row in files[:4])
    assert train(studies, tmp_path / "both", store=store) == files
    assert train(studies, tmp_path / "alone", root=None, store=store, num_workers=2) == files
    sources = {"mine": {"_target_": "cxrcl.data.sources.base.Source", "root": str(studies), "store": str(store)}}
    assert train(studies, tmp_path / "source", root=None, sources=sources) == files
    assert train(studies, tmp_path / "large") != files


def test_the_checkpoint_knows_its_store_and_its_size(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(studies, tmp_path / "store", 32)
    monkeypatch.chdir(tmp_path)
    train(studies, tmp_path / "run", root=None, store="store", read_px=None)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"
    monkeypatch.chdir(ROOT)

    def score(*overrides: str) -> dict[str, float]:
        words = [f"checkpoint='{checkpoint}'", "data.num_workers=0", "device=cpu", "evals=[retrieval]", *overrides]
        found = evaluate(compose("evaluate", words), packages=PACKAGES).results["retrieval"]
        return {name: value for name, value in found.items() if not np.isnan(value)}  # too few patients for intervals

    from_store = score()
    assert from_store == score(f"data.root='{studies}'")  # the images of the files are shrunk as well
    shutil.rmtree(tmp_path / "store")
    assert from_store == score(f"data.root='{studies}'")
    make_store(studies, tmp_path / "other", 24)
    with pytest.raises(ConfigError, match=r"holds images of 24 px, but images are read at 32 px .*--read-px 32"):
        score(f"data.store='{tmp_path / 'other'}'")


def test_single_images_are_shrunk_as_in_training(studies: Path, tmp_path: Path) -> None:
    image = studies / "images" / "000_PA.png"
    shrunk = ImageReader(20).read(image)
    for read_px in (None, 20):
        train(studies, tmp_path / str(read_px), read_px=read_px)
        model = cxrcl.load(tmp_path / str(read_px) / "checkpoints" / "last.pt", allow_packages=["helpers"])
        by_path, by_pixels, small = model.embed_images([image, ImageReader().read(image), shrunk])
        np.testing.assert_array_equal(by_path, by_pixels)
        assert np.array_equal(by_path, small) == (read_px is not None)


def test_evaluating_on_a_store_what_was_trained_on_whole_images_is_a_choice(
    studies: Path, store: Path, tmp_path: Path
) -> None:
    train(studies, tmp_path / "run")
    words = [f"checkpoint='{tmp_path / 'run' / 'checkpoints' / 'last.pt'}'", "data.num_workers=0", "evals=[retrieval]"]
    words += [f"data.store='{store}'", "device=cpu"]
    with pytest.raises(ConfigError, match=r"images of 32 px, but the checkpoint .*: data\.read_px=32 evaluates"):
        evaluate(compose("evaluate", words), packages=PACKAGES)
    assert evaluate(compose("evaluate", [*words, "data.read_px=32"]), packages=PACKAGES).results


def test_crops_that_are_enlarged_are_said_once(studies: Path, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    train(studies, tmp_path / "a", read_px=40)
    assert "are enlarged" not in log.text
    train(studies, tmp_path / "b", read_px=18)
    assert said_once(log, "are enlarged", "18 px", "need 20")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"read_px": 24}, r"store: holds images of 32 px, but images are read at 24 px .*--read-px 24"),
        ({"store": "nowhere"}, r"nowhere: not a packed store \(no store\.json\)"),
        ({"root": None, "store": "nowhere"}, r"nowhere: not a packed store"),
        ({"read_px": 8}, r"data\.read_px=8: input should be greater than or equal to 16"),
        ({"root": None, "store": None, "sources": {"a": None}}, "data: no source"),
        (
            {"root": None, "sources": {"a": {"_target_": "cxrcl.data.sources.base.Source"}}, "store": None},
            "data.sources.a: root and store: null both",
        ),
    ],
)
def test_mistakes_of_a_run_are_one_line(
    studies: Path, store: Path, tmp_path: Path, data: dict[str, Any], line: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=line):
        train(studies, tmp_path / "run", **{"store": store, **data})
    assert not (tmp_path / "run").exists()


def test_a_store_stands_for_one_source(studies: Path, store: Path, tmp_path: Path) -> None:
    node = {"_target_": "cxrcl.data.sources.base.Source", "root": str(studies)}
    with pytest.raises(
        ConfigError, match=r"data\.store=.* stands for one source, but data has a, b: set data\.sources"
    ):
        train(studies, tmp_path / "run", root=None, store=store, sources={"a": node, "b": node})
    make_store(studies, tmp_path / "small", 20)
    sources = {"a": {**node, "store": str(store)}, "b": {**node, "store": str(tmp_path / "small")}}
    with pytest.raises(ConfigError, match="small: holds images of 20 px, but images are read at 32 px"):
        train(studies, tmp_path / "run", root=None, sources=sources)


KILLED = """
import os, signal, numpy as np
from cxrcl.data.loader import BatchReader

class Large:
    def __getitem__(self, key):
        return np.zeros(1 << 20, dtype=np.uint8)

batches = BatchReader(2).batches(Large(), [[(0, k)] for k in range(99)], list)
next(batches)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_of_a_process_that_was_killed_end() -> None:
    command = [sys.executable, "-c", KILLED]
    # Waits for all that hold its output open: workers that stayed would let the time run out.
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert found.returncode == -9 and found.stderr == ""
