"""scripts/pack.py --wds, and runs on the store that it makes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from command_line import said
from helpers import PACKAGES, settings, tiny_towers, write_manifest

from cxrcl.app.evaluate import evaluate
from cxrcl.app.train import train
from cxrcl.commands.hydra import compose

pytest.importorskip("webdataset")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set as two shards."""
    folder = tmp_path_factory.mktemp("shards")
    root = write_manifest(folder / "set", size=48)
    table = pd.read_csv(root / "manifest.csv", dtype=str, keep_default_na=False)
    for k in range(2):
        with tarfile.open(folder / f"{k}.tar", "w") as archive:
            for row in table[k::2].to_dict("records"):
                image = row.pop("image")
                archive.add(root / image, image)
                content = json.dumps(row).encode()
                header = tarfile.TarInfo(str(Path(image).with_suffix(".json")))
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    return str(folder / "{0..1}.tar")


def test_a_store_of_shards_is_trained_on_and_evaluated(shards: str, tmp_path: Path) -> None:
    store = tmp_path / "a store"
    words = ["--wds", shards, "--out", str(store), "--read-px", "32", "--workers", "2", "--verify"]
    for what in ("images packed", "already packed"):
        printed = said("pack", *words)
        assert "| train |" in printed and "checksums agree" in printed and what in printed
        assert printed.endswith(f"next: python train.py data.store='{store}'\n")
    values = tiny_towers(settings(store, tmp_path / "run", "trainer.max_steps=2", "evals=[]"))
    values["data"] |= {"root": None, "store": str(store)}
    done = train(values, packages=PACKAGES)
    assert done.finished
    overrides = [f"checkpoint='{done.checkpoint}'", "data.num_workers=0", "device=cpu", "evals=[retrieval]"]
    assert evaluate(compose("evaluate", overrides), packages=PACKAGES).results["retrieval"]


def test_what_is_left_out_is_said(shards: str, tmp_path: Path) -> None:
    words = ["--wds", shards, "--out", str(tmp_path / "store"), "--labels", "Edema, Mass", "--workers", "0"]
    printed = said("pack", *words)
    assert "keys 'Cardiomegaly' of .json\n" in printed and "'Edema'" not in printed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "expected either MANIFEST_DIR or --wds PATTERN"),
        (["x", "--wds", "y"], "expected either MANIFEST_DIR or --wds PATTERN"),
        (["x", "--split", "test"], "--split: has no meaning without --wds"),
        (["--wds", "x.tar", "--allow-outside-root"], "--allow-outside-root: has no meaning with --wds"),
        (["--wds", "x.tar", "--classes", "a,a"], "--classes: 'a' is blank, stands twice"),
        (["--wds", "x.tar"], "--wds x.tar: no such shard"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert line in said("pack", *words, "--out", "store", status=2)
    assert list(tmp_path.iterdir()) == []
