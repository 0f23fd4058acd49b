"""Files that an earlier version wrote go on to work: tests/fixtures/main_ab3ea6e, made by write_old_files.py."""

from __future__ import annotations

import json
import shlex
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import torch
from tiny import TINY_RUN, TINY_TEXT, write_tiny_set
from write_old_files import arithmetic, fingerprints

import cxrcl

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "main_ab3ea6e"
EXPECTED = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
EVALUATION = ("data.root=tiny", "device=cpu", "data.num_workers=0", "random_weights=false", "out=scores")
Command = Callable[..., Path]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blank_pictures: None) -> Command:
    """Run a command in a folder with the data set `tiny`, in this process; returns the folder."""
    write_tiny_set(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: str) -> Path:
        assert command_line.run(name, *words) == 0
        return tmp_path

    return run


def last_state(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def as_far_as(expected: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What is found under the keys that are expected: later versions add intervals and other figures."""
    return {k: as_far_as(part, found[k]) if isinstance(part, dict) else found[k] for k, part in expected.items()}


@pytest.mark.parametrize("name", ["last.pt", "export"])
def test_a_model_gives_the_embeddings_that_it_gave(name: str, tmp_path: Path) -> None:
    write_tiny_set(tmp_path / "tiny")
    rows = cxrcl.load(OLD / name, device="cpu").embed_images([tmp_path / image for image in EXPECTED["embeddings"]])
    np.testing.assert_allclose(rows, [*EXPECTED["embeddings"].values()], atol=1e-5)


@pytest.mark.parametrize("name", ["last.pt", "export"])
def test_a_model_gets_the_scores_that_it_got(name: str, command: Command) -> None:
    folder = command("evaluate", f"checkpoint={OLD / name}", "evals=[zero_shot,retrieval]", *EVALUATION)
    results = json.loads((folder / "scores" / "results.json").read_text(encoding="utf-8"))
    assert results["facts"]["manifest"] == EXPECTED["manifest"]
    assert as_far_as(EXPECTED["scores"], results) == EXPECTED["scores"]


def test_it_is_known_what_a_checkpoint_was_trained_on(command: Command) -> None:
    folder = command("evaluate", f"checkpoint={OLD / 'last.pt'}", "evals=[zero_shot]", "splits=[train]", *EVALUATION)
    results = json.loads((folder / "scores" / "results.json").read_text(encoding="utf-8"))
    assert "CONTAMINATED" in results["facts"]["trained on"]


def test_a_run_that_was_stopped_at_half_goes_on_to_the_same_weights(command: Command, tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD / "half_run", tmp_path / "half_run"))
    assert last_state(run)["progress"]["step"] == EXPECTED["half_run"]["step"]
    command("train", *shlex.split((run / "overrides.txt").read_text(encoding="utf-8")), "run_dir=half_run")
    state = last_state(run)
    assert [line["step"] for line in metrics(run) if "train/loss" in line] == [
        *range(1, state["progress"]["total"] + 1)
    ]
    assert state["progress"]["step"] == state["progress"]["total"]
    weights, unbroken = fingerprints(state["model"]), EXPECTED["unbroken_run"]
    assert weights.keys() == unbroken.keys()
    if arithmetic() == EXPECTED["arithmetic"]:
        assert weights == unbroken
    else:  # rounding differs, and Adam amplifies it
        warnings.warn("other libraries or another processor: the weights are compared by their norms", stacklevel=1)
        for name, (_, norm) in weights.items():
            assert norm == pytest.approx(unbroken[name][1], rel=0.02, abs=0.02), name


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("old_constant", [1, 1, 1, 1]),
        ("old_cosine", [1, 0.625 + 0.375 * 0.5**0.5, 0.625, 0.625 - 0.375 * 0.5**0.5]),
        ("old_plateau", [1, 1, 0.5, 0.3]),
    ],
)
def test_configs_that_name_classes_by_their_old_places_are_composed(
    schedule: str, factors: list[float], command: Command
) -> None:
    chosen = ["--config-dir", str(OLD / "configs"), f"schedule={schedule}", "prompts=old", "transform=old"]
    run = ["data.root=tiny", "run_dir=run", "trainer.max_steps=4", "trainer.warmup_steps=0", "trainer.log_every=1"]
    evaluated = ["trainer.evaluate_every_steps=1", "evals=[retrieval]"]
    folder = command("train", *chosen, *TINY_RUN, *TINY_TEXT, *run, *evaluated)
    rates = [line["train/learning_rate"] for line in metrics(folder / "run") if "train/learning_rate" in line]
    assert np.array(rates) / rates[0] == pytest.approx(factors)
