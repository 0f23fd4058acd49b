"""A stopped run goes on to exactly the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import plain_checkpoint
from helpers import PACKAGES, StopsRun, equal_everywhere, settings, write_manifest

from cxrcl.app.train import Trained, train
from cxrcl.errors import ConfigError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data") / "set", studies=40, size=40)


HARD = (  # all that draws random numbers: augmentation, sentences, dropout, BatchNorm's batches
    "data.reports.sentences=2",
    "transform.blur_probability=0.5",
    "text_encoder.dropout=0.2",
    "schedule=cosine",
    "trainer.warmup_steps=3",
    "trainer.max_steps=20",
    "trainer.evaluate_every_steps=5",
    "trainer.batch_size=8",
)


def run(data: Path, folder: Path, stop_at: int | None = None, workers: int = 0, extra: tuple[str, ...] = ()) -> Trained:
    values = settings(data, folder, *HARD, *extra)
    values["data"]["num_workers"] = workers
    values["evals"] = {"stops": {"_target_": "helpers.StopsRun"}}
    StopsRun.at = stop_at
    return train(values, packages=PACKAGES)


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = run(data, tmp_path_factory.mktemp("unbroken"))
    assert done.finished and done.steps == 20
    return plain_checkpoint(done.folder / "checkpoints" / "last.pt")


def test_a_stopped_run_goes_on_to_exactly_the_same_weights(
    data: Path, tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    # 28 studies in batches of 8 are 3 steps an epoch: step 10 lies inside the fourth.
    first = run(data, tmp_path, stop_at=2)
    assert not first.finished and first.steps == 10
    half = plain_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert not equal_everywhere(half["model"], unbroken["model"])
    second = run(data, tmp_path, workers=2)
    assert second.finished and second.steps == 20
    last = plain_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert equal_everywhere(last["model"], unbroken["model"])
    assert equal_everywhere(last["optimizer"], unbroken["optimizer"])
    assert last["optimizer"]["state"] and any("running_mean" in key for key in last["model"])
    # The same command on a finished run changes nothing.
    again = run(data, tmp_path)
    assert again.finished and again.steps == 20
    assert equal_everywhere(plain_checkpoint(tmp_path / "checkpoints" / "last.pt"), last)


def test_the_seed_decides(data: Path, tmp_path: Path, unbroken: dict[str, Any]) -> None:
    run(data, tmp_path, extra=("seed=1",))
    other = plain_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert not equal_everywhere(other["model"], unbroken["model"])


def test_other_settings_in_the_same_folder_are_refused(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, stop_at=1)
    with pytest.raises(ConfigError, match=r"other settings \(seed\)"):
        run(data, tmp_path, extra=("seed=1",))
