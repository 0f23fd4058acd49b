"""Settings of report text in whole trainings: the cache changes no loss, the other settings do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import PACKAGES, CharTokenizer, settings, tiny_towers, write_manifest

from cxrcl.app.train import train
from cxrcl.checkpoint.file import load
from cxrcl.data import loader
from cxrcl.data.text.tokens import TokenTable
from cxrcl.errors import DataError
from cxrcl.inference.questions import sentences_of
from cxrcl.types import Tokens


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of two sections, with rewritings."""
    folder = write_manifest(tmp_path_factory.mktemp("reports"), studies=24)
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    number = table["study"].str[1:]
    table["impression"] = "Compared with film " + number + ". No change at all."
    table["text_augment"] = "In other words, film " + number + ". It has been looked at."
    table.to_csv(folder / "manifest.csv", index=False)
    return folder


def losses(data: Path, run_dir: Path, *overrides: str, tiny: bool = False) -> list[float]:
    values = settings(data, run_dir, "evals=[]", "trainer.max_steps=3", *overrides)
    done = train(tiny_towers(values) if tiny else values, packages=PACKAGES)
    lines = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[TokenTable | None]:
    """Those that trainings took their texts from."""
    made: list[TokenTable | None] = []
    init = loader.Collate.__init__

    def spy(self: Any, tokenizer: Any, table: TokenTable | None = None) -> None:
        made.append(table)
        init(self, tokenizer, table)

    monkeypatch.setattr(loader.Collate, "__init__", spy)
    return made


@pytest.mark.parametrize("objective", ["cxr_clip", "gloria"])
def test_the_cache_changes_no_loss(
    objective: str, reports: Path, tmp_path: Path, tables: list[TokenTable | None]
) -> None:
    choice = f"objective={objective}"
    cached = losses(reports, tmp_path / "cached", choice)
    assert len(tables) == 1 and tables[0] is not None and len(tables[0]) > 30
    live = losses(reports, tmp_path / "live", choice, "data.cache_tokens=false")
    assert tables[1:] == [None]
    assert len(cached) == 3 and cached == live


def test_a_tokenizer_that_cannot_be_cached_is_one_line(
    reports: Path,
    tmp_path: Path,
    tables: list[TokenTable | None],
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    forwards = CharTokenizer.__call__
    assert losses(reports, tmp_path / "forwards", tiny=True) and "data.cache_tokens" not in log.text

    def backwards(self: CharTokenizer, texts: list[str]) -> Tokens:
        return forwards(self, [text[::-1] for text in texts])

    monkeypatch.setattr(CharTokenizer, "__call__", backwards)
    assert losses(reports, tmp_path / "backwards", tiny=True)
    assert [table is None for table in tables] == [False, True]
    assert log.text.count("data.cache_tokens: ") == 1


@pytest.mark.parametrize("setting", ["reports.section=one", "reports.augmented=false"])
def test_what_a_text_is_drawn_from_is_a_setting(setting: str, reports: Path, tmp_path: Path) -> None:
    first, other = (
        losses(reports, tmp_path / name, "objective=cxr_clip", *more, tiny=True)
        for name, more in (("a", ()), ("b", (f"data.{setting}",)))
    )
    assert len(first) == 3 and first != other


def test_sentences_made_of_a_template_are_kept_with_the_checkpoint(reports: Path, tmp_path: Path) -> None:
    """So that inference asks about labels which only the template speaks of."""
    table = pd.read_csv(reports / "manifest.csv", dtype=str, keep_default_na=False)
    table = table.rename(columns={"Edema": "Hummocks"})
    (reports / "renamed").mkdir()
    table.to_csv(reports / "renamed" / "manifest.csv", index=False)
    (reports / "renamed" / table["image"].iloc[0].partition("/")[0]).symlink_to(reports / "images")
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"*": {"pos": ["{} is seen."], "neg": ["no {lower}."], "unc": ["maybe {lower}."]}}))
    losses(reports / "renamed", tmp_path / "run", "data.text=prompts", f"prompts.file='{file}'")
    stored = load(tmp_path / "run" / "checkpoints" / "last.pt").recipe
    assert stored.prompt_sentences["Hummocks"]["neg"] == ["no hummocks."]
    assert "Hummocks" in sentences_of(stored)[1]


def test_equal_reports_are_refused_without_showing_them(reports: Path, tmp_path: Path) -> None:
    table = pd.read_csv(reports / "manifest.csv", dtype=str, keep_default_na=False)
    (reports / "equal").mkdir()
    table.assign(findings="Jane Roe has edema.", impression="").to_csv(reports / "equal" / "manifest.csv", index=False)
    with pytest.raises(DataError, match="are all the same: there is nothing to contrast") as caught:
        losses(reports / "equal", tmp_path / "run", "data.text=report")
    assert "Jane" not in str(caught.value)
