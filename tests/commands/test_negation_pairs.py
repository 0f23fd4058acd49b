"""scripts/negation_pairs.py on folders with made-up reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command_line import Command


def test_pairs_are_written_and_counted(command: Command, own_set: Path) -> None:
    status, printed, _ = command("negation_pairs", own_set)
    assert status == 0 and f"written: {own_set / 'negation.csv'}" in printed
    rows = pd.read_csv(own_set / "negation.csv", dtype=str, keep_default_na=False)
    assert set(rows["finding"]) == {"Cardiomegaly"} and set(rows["direction"]) == {"to_absent", "to_present"}
    assert f"16 of 16 reports give pairs, {len(rows)} with their images" in printed
    assert "sentences are drawn from these reports alone" in printed
    assert f"data.root='{own_set}' 'evals=[negation]'" in printed


def test_mistakes_are_one_line(command: Command, tmp_path: Path, own_set: Path) -> None:
    for root, said in ((tmp_path / "nowhere", "manifest.csv: not found"), (_mute(own_set), "none of 16 reports")):
        status, _, error = command("negation_pairs", root)
        assert status == 2 and error.count("\n") == 1 and said in error, error


def test_a_manifest_without_reports_is_named(command: Command, own_set: Path) -> None:
    file = own_set / "manifest.csv"
    pd.read_csv(file, dtype=str).drop(columns=["findings", "impression"]).to_csv(file, index=False)
    status, _, error = command("negation_pairs", own_set)
    assert status == 2 and "no column findings" in error


@pytest.mark.usefixtures("blank_pictures")
def test_the_report_shows_pairs_beside_chance_and_controls(
    command: Command, own_set: Path, trained: Path, tmp_path: Path
) -> None:
    command("negation_pairs", own_set)
    words = [f"data.root='{own_set}'", "evals=[negation]", "splits=[valid,test]", "device=cpu", "data.num_workers=0"]
    status, printed, error = command("evaluate", f"checkpoint='{trained}'", *words, f"out='{tmp_path / 'one'}'")
    assert status == 0, error
    head = (
        "| sentence pairs | pairs | patients | own chosen | chance | other patient's image | mean image | shorter text"
    )
    assert head in " ".join(printed.split()) and "| POS" in printed and "negation/sentence" not in printed
    markdown, page = ((tmp_path / "one" / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert "own chosen" in markdown and "Pairs: " in markdown and "sha256" in markdown
    assert "Further evaluations" in page and "own chosen" in page and "random weights / negation" in page
    metrics = json.loads((tmp_path / "one" / "results.json").read_text())["negation"]
    assert metrics["sentence"]["model/balanced"] == metrics["accuracy"] and "POS_mean_auroc" in metrics

    other = Path(shutil.copy(trained, tmp_path / "other.pt"))
    both = f"checkpoint=['{trained}','{other}']"
    status, printed, error = command("evaluate", both, *words, "random_weights=false", f"out='{tmp_path / 'two'}'")
    assert status == 0 and printed.count(" / negation: sentence pairs") == 2, error


def test_evaluation_without_pairs_says_how_they_are_made(command: Command, own_set: Path, trained: Path) -> None:
    words = [f"checkpoint='{trained}'", f"data.root='{own_set}'", "evals=[negation]", "splits=[test]", "device=cpu"]
    status, _, error = command("evaluate", *words)
    assert status == 2 and error.count("\n") == 1
    assert f"`python scripts/negation_pairs.py '{own_set}'` makes pairs" in error


def _mute(folder: Path) -> Path:
    """The folder with reports that the rules do not read."""
    file = folder / "manifest.csv"
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    rows[["findings", "impression"]] = rows[["findings", "impression"]].where(
        rows["findings"] == "", "Film of a chest."
    )
    rows.to_csv(file, index=False)
    return folder
