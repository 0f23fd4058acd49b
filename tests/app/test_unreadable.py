"""Films that cannot be read, in whole runs: training goes on with others and says so, evaluation leaves them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import PACKAGES, said_once, settings, tiny_towers

from cxrcl.app import train as train_module
from cxrcl.app.evaluate import evaluate
from cxrcl.app.train import Trainer
from cxrcl.commands.hydra import compose
from cxrcl.errors import DataError


def empty(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "images" / name).write_bytes(b"")


def train(data: Path, folder: Path, *overrides: str) -> list[dict[str, Any]]:
    """Figures of a training of 20 steps of 8 samples, that is of 20 epochs of 12 studies."""
    base = ("trainer.max_steps=20", "evals=[]", "trainer.log_every=5")
    train_module.train(tiny_towers(settings(data, folder, *base, *overrides)), packages=PACKAGES)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_goes_on_names_the_row_once_and_counts(
    own_set: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    empty(own_set, "3_pa.png")
    figures = train(own_set, tmp_path / "run", "data.max_bad_fraction=0.3")
    assert said_once(log, "row 7", "empty file")
    counts = [row["train/bad_images"] for row in figures]
    assert counts == sorted(counts) and 5 < counts[-1] <= 20


def test_too_many_stop_the_run_after_100_samples(own_set: Path, tmp_path: Path) -> None:
    empty(own_set, "3_pa.png")
    message = (
        r"^\d+ of 120 samples had an image .* max_bad_fraction=0\.01.* \(on the command line: data\.max_bad_fraction="
    )
    with pytest.raises(DataError, match=message):
        train(own_set, tmp_path / "run")


def test_more_than_one_in_100_may_be_bad_from_the_start(own_set: Path, tmp_path: Path) -> None:
    empty(own_set, "0_pa.png", "1_pa.png", "2_pa.png")
    assert train(own_set, tmp_path / "run", "data.max_bad_fraction=0.9")
    with pytest.raises(DataError, match=r"image of row \d+ of the manifest: empty file"):
        train(own_set, tmp_path / "other")


def test_films_of_a_split_that_is_not_used_may_be_bad(own_set: Path, tmp_path: Path) -> None:
    table = pd.read_csv(own_set / "manifest.csv", dtype=str)
    for name in table["image"][table["split"] == "test"]:
        (own_set / name).write_bytes(b"")
    assert train(own_set, tmp_path / "run")
    with pytest.raises(DataError, match=r"image of row \d+ of the manifest: empty file"):
        train(own_set, tmp_path / "other", "evals=[zero_shot]", "splits=[test]")


def test_none_are_allowed_with_0(own_set: Path, tmp_path: Path) -> None:
    empty(own_set, "0_pa.png")  # which is probed
    with pytest.raises(DataError, match="image of row 2 of the manifest: empty file"):
        train(own_set, tmp_path / "run", "data.max_bad_fraction=0")


def test_going_on_keeps_the_count(own_set: Path, tmp_path: Path) -> None:
    empty(own_set, "3_pa.png")
    whole = train(own_set, tmp_path / "whole", "data.max_bad_fraction=0.3")
    parts = tmp_path / "parts"
    values = tiny_towers(
        settings(own_set, parts, "trainer.max_steps=20", "evals=[]", "trainer.log_every=5", "data.max_bad_fraction=0.3")
    )
    stopping = Trainer._save
    with pytest.MonkeyPatch.context() as patch:
        values["trainer"]["save_every_steps"] = 10

        def stop(self: Any, score: float | None) -> None:
            stopping(self, score)
            if self.done == 10:
                raise KeyboardInterrupt

        patch.setattr(Trainer, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            train_module.train(values, packages=PACKAGES)
    train_module.train(values, packages=PACKAGES)
    last = json.loads((parts / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["train/bad_images"] == whole[-1]["train/bad_images"]


def test_evaluation_leaves_out_when_told(trained: Path, own_set: Path) -> None:
    empty(own_set, "16_pa.png")
    overrides = [f"checkpoint='{trained}'", f"data.root='{own_set}'", "data.num_workers=0", "evals=[retrieval]"]
    with pytest.raises(DataError, match=r"image of row \d+ of the manifest: empty file"):
        evaluate(compose("evaluate", overrides))
    scored = evaluate(compose("evaluate", [*overrides, "data.skip_bad_images=true"]))
    assert scored.facts["left out, cannot be read"] == "1" and scored.facts["images"] == "5"


def test_training_evaluates_without_bad_films_when_told(
    own_set: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    empty(own_set, "13_pa.png")
    base = ("trainer.max_steps=2", "trainer.evaluate_every_steps=2", "evals=[retrieval]")
    values = tiny_towers(settings(own_set, tmp_path / "a", *base))
    with pytest.raises(DataError, match="empty file"):
        train_module.train(values, packages=PACKAGES)
    values = tiny_towers(settings(own_set, tmp_path / "b", *base, "data.skip_bad_images=true"))
    assert train_module.train(values, packages=PACKAGES).finished
    assert said_once(log, "left out", "row 22: empty file").startswith("1 ")
