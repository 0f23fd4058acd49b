"""Numbers that make no sense are refused in one line, before data are read, and settings without effect are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import said
from tiny import TINY_RUN, TINY_TEXT

Mistake = Callable[..., str]


@pytest.fixture
def mistake() -> Mistake:
    """The one line that a command answers."""

    def run(*words: object) -> str:
        printed = said(*map(str, words), status=2)
        (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in printed
        return line

    return run


@pytest.mark.parametrize(
    "override",
    [
        *("seed=1e20", "trainer.max_epochs=inf", "trainer.clip_norm=nan", "optimizer.lr=inf", "optimizer.lr=-1"),
        *("optimizer.weight_decay=nan", "schedule.final=2", "text_encoder.width=0", "text_encoder.dropout=nan"),
        *("image_encoder.size=0", "objective.image_head.out_dim=0", "objective.temperature=nan"),
        *("evals.zero_shot.resamples=-1", "data.sources.phantom.num_studies=0"),
    ],
)
def test_training_refuses(override: str, mistake: Mistake) -> None:
    assert override.partition("=")[0].rpartition(".")[2] in mistake("train", override)


@pytest.mark.parametrize(
    "override",
    [
        *("resamples=-1", "evals.zero_shot.resamples=-1", "evals.view_only.resamples=-5", "threshold=nan"),
        *("groups=[foo]", "data.views=[PAA]", "data.filter={sex:[X]}"),
    ],
)
def test_evaluation_refuses(override: str, mistake: Mistake, trained: Path) -> None:
    evals = ["evals=[zero_shot,view_only]"] if "view_only" in override else ["evals=[zero_shot]"]
    line = mistake("evaluate", f"checkpoint='{trained}'", *evals, "device=cpu", "data.num_workers=0", override)
    assert override.partition("=")[0].rpartition(".")[2].rstrip("s") in line


def test_the_nearest_column_of_groups_is_named(mistake: Mistake, trained: Path) -> None:
    assert "(did you mean `sex`?)" in mistake("evaluate", f"checkpoint='{trained}'", "groups=[sexx]", "device=cpu")


@pytest.mark.parametrize("words", [("--seed", "-1"), ("--seed=x",), ("--seed", "1e20")])
def test_prepare_refuses(words: tuple[str, ...], mistake: Mistake, tmp_path: Path) -> None:
    assert "--seed" in mistake("prepare", "openi", "--source", tmp_path, "--out", tmp_path / "out", *words)


def test_settings_that_have_no_effect_are_named(tiny_set: Path, tmp_path: Path) -> None:
    where = [*TINY_RUN, *TINY_TEXT, "evals=[]", f"data.root='{tiny_set}'"]
    void = ["trainer.sync_batchnorm=true", "data.fraction_seed=3", "trainer.select_mode=max"]
    named = [
        line for line in said("train", *where, f"run_dir='{tmp_path / 'a'}'", *void).splitlines() if "no effect" in line
    ]
    assert [line.partition(" ")[0] for line in named] == void
    used = ["data.fraction=0.5", "data.fraction_seed=3"]
    assert "no effect" not in said("train", *where, f"run_dir='{tmp_path / 'b'}'", *used)
