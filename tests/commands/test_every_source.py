"""Every set that prepare.py knows, from a small download to figures, by the commands as they are typed."""

from __future__ import annotations

import functools
import importlib
import json
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import plain_checkpoint
from command_line import said
from tiny import TINY_RUN, TINY_TEXT

from cxrcl.commands import prepare
from cxrcl.commands.entry import config_folder
from cxrcl.data import manifest

pytestmark = pytest.mark.slow

ANY_LABEL = ("prompts.file=evidence.json", "prompts.uncertain=false")  # its templates speak of every label
SMALL = ("trainer.batch_size=2", "trainer.log_every=1", "evals=[]")
EVALUATION = ("device=cpu", "data.num_workers=0", "resamples=10", "random_weights=false")
SCORED_BY = {"chexpert5x200": "chexpert"}  # sets without training images: the set whose model is scored on them


def small_download(name: str) -> Callable[[Path], list[str]]:
    """Of the set's own tests: writes a small download of it and returns the options of `prepare.py`."""
    wanted = f"tests/data/sources/test_{name}.py with a function small_download(folder: Path) -> list[str]"
    try:
        return importlib.import_module(f"test_{name}").small_download
    except (ModuleNotFoundError, AttributeError) as error:
        pytest.fail(f"{name} has no small download ({error}): add {wanted}, which returns the options of prepare.py")


class Desk:
    """One folder; what was prepared or trained there is not made again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, dict[str, str]()

    def prepared(self, name: str) -> Path:
        out = self.folder / "prepared" / name
        if name not in self.said:
            download = self.folder / "downloads" / name
            download.mkdir(parents=True)
            options = small_download(name)(download)
            self.said[name] = said("prepare", name, f"--source={download}", f"--out={out}", *options)
        return out

    def words(self, name: str) -> list[str]:
        """The settings that choose the set."""
        out = self.prepared(name)
        unit = ["data.unit=image"] if "data.unit=image" in self.said[name] else []
        if (config_folder() / "data" / f"{name}.yaml").exists():
            return [f"data={name}", f"data.sources.{name}.root='{out}'", *unit]
        return [f"data.root='{out}'", *unit]

    def trained(self, name: str, objective: str) -> Path:
        """The folder of the run."""
        run_dir = self.folder / "runs" / f"{name}_{objective}"
        if not run_dir.exists():
            text = (*TINY_TEXT, *ANY_LABEL) if objective == "clip" else ()
            choices = [f"objective={objective}", *self.words(name), *TINY_RUN, *text, *SMALL]
            said("train", *choices, f"run_dir='{run_dir}'")
        return run_dir


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


def figures(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", prepare.datasets())
def test_prepared_and_trained(desk: Desk, name: str) -> None:
    data = manifest.load(desk.prepared(name))
    if name in SCORED_BY:
        assert set(data.rows["split"]) == {"test"}
        return
    for objective in ("clip", "classify") if data.labels else ("clip",):
        run_dir = desk.trained(name, objective)
        steps = figures(run_dir)
        assert [step["step"] for step in steps] == [1, 2]
        assert all(math.isfinite(step["train/loss"]) and step["train/bad_images"] == 0 for step in steps)
        assert any(step["train/gradient_norm"] > 0 for step in steps)
        saved = plain_checkpoint(run_dir / "checkpoints" / "last.pt")
        assert tuple(saved["config"]["labels"]) == data.labels


@pytest.mark.parametrize(
    ("name", "objective", "expected"),
    [
        ("openi", "clip", ("zero_shot/mean_auroc", "retrieval/text_to_image/r1")),
        ("nih", "clip", ("zero_shot/mean_auroc", "retrieval/text_to_image/r1")),
        ("folders", "classify", ("classification/mean_auroc",)),
        ("chexpert5x200", "clip", ("zero_shot/mean_auroc", "retrieval/text_to_image/r1", "cxr_clip_5x200/accuracy")),
    ],
    ids=["reports", "labels", "folders", "test set only"],
)
def test_scored(desk: Desk, name: str, objective: str, expected: tuple[str, ...]) -> None:
    model = desk.trained(SCORED_BY.get(name, name), objective) / "checkpoints" / "last.pt"
    out = desk.folder / "scored" / name
    other = [*desk.words(name), "evals=[zero_shot,retrieval,cxr_clip_5x200]"] if name in SCORED_BY else []
    said("evaluate", f"checkpoint='{model}'", *other, *EVALUATION, f"out='{out}'")
    results = json.loads((out / "results.json").read_text())
    for figure in expected:
        assert 0 <= functools.reduce(operator.getitem, figure.split("/"), results) <= 1
    images = (manifest.load(desk.prepared(name)).rows["split"] == "test").sum()
    assert results["facts"]["images"] == str(images) and images > 0
