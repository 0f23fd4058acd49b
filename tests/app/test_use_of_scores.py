"""Operating points, readers and intersections of an evaluation, and its predictions.csv scored again by score.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import said

from cxrcl.app import evaluate as evaluate_module
from cxrcl.commands.evaluate import write_report
from cxrcl.commands.hydra import compose
from cxrcl.errors import ConfigError, DataError
from cxrcl.evaluation.report.content import Page
from cxrcl.evaluation.report.results_files import lean, written
from cxrcl.evaluation.scores import subgroups
from cxrcl.evaluation.scores.score_report import ModelScores, plain

Evaluate = Callable[..., Page]
SPLITS = "splits=[train,valid,test]"  # of the tiny data, for more than a handful of patients


@pytest.fixture
def evaluate(trained: Path) -> Evaluate:
    def run(*overrides: str) -> Page:
        common = ["device=cpu", "data.num_workers=0", "resamples=20", "groups=[]", "random_weights=false"]
        page = evaluate_module.evaluate(
            compose("evaluate", [f"checkpoint='{trained}'", *common, "evals=[zero_shot]", *overrides])
        ).page
        assert page is not None
        return page

    return run


def model(page: Page) -> ModelScores:
    return page.scores["zero_shot"].models[0]


def test_curves_are_read_where_the_settings_say(evaluate: Evaluate) -> None:
    assert [(one.fixed, one.least) for one in model(evaluate(SPLITS)).fixed_rates] == [
        ("specificity", 0.9),
        ("sensitivity", 0.9),
    ]
    other = model(evaluate(SPLITS, "at.specificity=[0.5,0.8]", "at.sensitivity=[]"))
    assert [(one.metric, one.least) for one in other.fixed_rates] == [("sensitivity", 0.5), ("sensitivity", 0.8)]
    wide, narrow = (one.macro.value for one in other.fixed_rates)
    assert wide > narrow
    assert other.selective[-1].aurc.value is not None and other.decision_curves[1].net_benefit
    for wrong in ("at.specificity=[1.5]", "+at.ppv=[0.5]"):
        with pytest.raises(ConfigError, match=r"^at"):
            evaluate(wrong)


def test_intersections_are_groups_and_mistakes_in_them_come_before_the_work(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = model(evaluate(SPLITS, "groups=[view,view*split]"))
    groups = {part.group: part for part in found.groups if part.column == "view*split"}
    assert {part.column for part in found.groups} == {"view", "view*split"}
    assert set(groups) == {f"{view}, {split}" for view in ("Lateral", "PA") for split in ("train", "valid", "test")}
    assert groups["PA, train"].images == 12 and groups["PA, train"].averages[0].scores["auroc"].value is not None
    assert groups["PA, test"].images == 4 and groups["PA, test"].averages[0].scores["auroc"].value is None
    monkeypatch.setattr(evaluate_module, "run_evaluators", lambda *_: pytest.fail("worked"))
    with pytest.raises(ConfigError, match=r"groups=\[view\*site\]: no column site"):
        evaluate("groups=[view*site]")
    with pytest.raises(ConfigError, match=r"groups=\[view\*sex\]: the data have no column sex"):
        evaluate("groups=[view*sex]")
    monkeypatch.setattr(subgroups, "MOST_GROUPS", 5)
    with pytest.raises(ConfigError, match=r"groups=\[view\*split\]: columns view and split have 6 different values"):
        evaluate(SPLITS, "groups=[view*split]")


def test_readers_stand_beside_the_model(evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = evaluate(SPLITS)
    scored = page.checkpoints[0]
    assert scored.images is not None
    labels = scored.scores["zero_shot"].labels
    k = next(k for k in range(labels.shape[1]) if {0.0, 1.0} <= set(labels[:, k].tolist()))
    name = scored.scores["zero_shot"].names[k]
    file = tmp_path / "readers.csv"
    always_right = pd.DataFrame({"image": scored.images.names, "reader": "Ada", name: labels[:, k]})
    always_right.to_csv(file, index=False)
    found = evaluate(SPLITS, f"readers='{file}'").scores["zero_shot"]
    (ada,) = found.readers
    assert (ada.reader, ada.label, ada.sensitivity.value, ada.specificity.value) == ("Ada", name, 1, 1)
    assert {(one.reader, one.label) for one in found.models[0].against_readers} == {("Ada", name)}
    assert all(
        one.difference.value is not None and one.difference.value <= 0 for one in found.models[0].against_readers
    )
    assert found.facts["readers"] == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    assert "readers" in found.rules and name in found.models[0].roc
    monkeypatch.setattr(evaluate_module, "run_evaluators", lambda *_: pytest.fail("worked"))
    file.write_text("image,reader,Odema\na.png,Ada,1\n")
    with pytest.raises(DataError, match=r"readers\.csv: no column of a scored label; found: Odema"):
        evaluate(f"readers='{file}'")


def test_predictions_of_an_evaluation_have_the_same_numbers_when_they_are_scored_again(
    evaluate: Evaluate, tiny_set: Path, tmp_path: Path, blank_pictures: None
) -> None:
    pages = {split: evaluate(f"splits=[{split}]", "groups=[view*split]") for split in ("train", "valid")}
    for split, page in pages.items():
        write_report(tmp_path / split, page)
    said(
        "score",
        *(
            "--predictions",
            tmp_path / "train/predictions.csv",
            "--valid-predictions",
            tmp_path / "valid/predictions.csv",
        ),
        *("--labels", tiny_set / "manifest.csv", "--split", "train", "--groups", "view*split"),
        *("--out", tmp_path / "again", "--resamples", "20"),
    )
    again = json.loads((tmp_path / "again/results.json").read_text())["models"][0]
    first = json.loads(written(lean(plain(model(pages["train"])))))
    assert again["threshold"] == first["threshold"] == "f1 on valid"
    compared = [key for key in first if key not in ("name", "threshold", "calibration", "roc", "against_readers")]
    assert_same({key: first[key] for key in compared}, {key: again[key] for key in compared})


def assert_same(one: Any, other: Any) -> None:
    """Equal plain data, numbers to 1e-6: files hold float32 as the shortest text that names it."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, float):
        assert np.isclose(one, other, rtol=1e-6, atol=1e-6)
    else:
        assert one == other
