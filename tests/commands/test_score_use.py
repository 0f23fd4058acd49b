"""scripts/score.py: operating points, intersections, readers and the files of evaluate.py, in whole runs on files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import said

pytestmark = pytest.mark.usefixtures("blank_pictures")

LABELS = ["Edema", "Mass"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """120 images of 60 patients, one model's predictions, and two readers of whom one read the first half only."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"image": [f"{k}.png" for k in range(120)], "patient": [f"p{k // 2}" for k in range(120)]})
    rows["sex"], rows["view"] = rng.choice(["F", "M"], 120), rng.choice(["PA", "AP"], 120)
    truth = (rng.random((120, 2)) < 0.4).astype(int)
    rows[LABELS] = truth
    rows.to_csv(tmp_path / "labels.csv", index=False)
    scores = np.round(1 / (1 + np.exp(-rng.normal(size=(120, 2)) - 1.5 * (truth - 0.5))), 2)
    rows[["image"]].assign(Edema=scores[:, 0], Mass=scores[:, 1]).to_csv(tmp_path / "p.csv", index=False)
    calls = np.where(rng.random((120, 2)) < 0.75, truth, 1 - truth)
    ada = rows[["image"]].assign(reader="Ada", Edema=calls[:, 0])
    eve = rows[["image"]].assign(reader="Eve", Edema=1 - calls[:, 1], Mass=calls[:, 1])[:60]
    pd.concat([ada, eve]).to_csv(tmp_path / "readers.csv", index=False)
    return tmp_path


def words(files: Path, *options: object, predictions: str = "p.csv") -> list[object]:
    given = ["--predictions", files / predictions, "--labels", files / "labels.csv", "--resamples", "30", "--overwrite"]
    return [*given, "--out", files / "out", *options]


def run(files: Path, *options: object, predictions: str = "p.csv") -> Any:
    said("score", *words(files, *options, predictions=predictions))
    return json.loads((files / "out/results.json").read_text())


def test_curves_are_read_where_it_is_said(files: Path) -> None:
    usual = run(files)["models"][0]["fixed_rates"]
    assert [(one["metric"], one["least"]) for one in usual] == [("sensitivity", 0.9), ("specificity", 0.9)]
    (half,) = run(files, "--at", "specificity=0.5")["models"][0]["fixed_rates"]
    assert half["labels"]["Edema"]["value"] > usual[0]["labels"]["Edema"]["value"]
    assert half["labels"]["Edema"]["low"] < half["labels"]["Edema"]["value"] <= half["labels"]["Edema"]["high"]
    assert run(files, "--at", "")["models"][0]["fixed_rates"] == []


def test_intersections_of_groups(files: Path) -> None:
    results = run(files, "--groups", "sex*view,view")
    groups = results["models"][0]["groups"]
    assert [part["group"] for part in groups if part["column"] == "sex*view"] == ["F, AP", "F, PA", "M, AP", "M, PA"]
    assert {gap["column"] for gap in results["models"][0]["gaps"]} == {"sex*view", "view"}


def test_readers_are_points_beside_the_model(files: Path) -> None:
    results = run(files, "--readers", files / "readers.csv")
    points = {(one["reader"], one["label"]): one for one in results["readers"]}
    assert set(points) == {("Ada", "Edema"), ("Eve", "Edema"), ("Eve", "Mass"), ("mean of 2 readers", "Edema")}
    assert points["Ada", "Edema"]["images"] == 120 and points["Eve", "Mass"]["patients"] == 30
    against = {(o["reader"], o["label"], o["metric"]): o for o in results["models"][0]["against_readers"]}
    ada = against["Ada", "Edema", "sensitivity"]
    own = points["Ada", "Edema"]["sensitivity"]["value"]
    assert ada["difference"]["value"] == pytest.approx(ada["value"]["value"] - own)
    assert ada["difference"]["low"] < ada["difference"]["high"] and 0 < ada["p"] <= ada["p_holm"] <= 1
    assert str(files / "readers.csv") in results["facts"]["files"] and "readers" in results["rules"]
    assert run(files)["readers"] == []


def test_an_evaluator_of_a_file_of_evaluate_is_scored(files: Path) -> None:
    plain = run(files)
    offered = pd.read_csv(files / "p.csv")
    offered = offered.rename(columns={name: f"zero_shot/{name}/probability" for name in LABELS})
    for name in LABELS:
        offered[f"zero_shot/{name}/score"] = np.log(offered[f"zero_shot/{name}/probability"])
        offered[f"random weights / zero_shot/{name}/score"] = 0.5
    offered["image"] = " " + offered["image"] + " "
    offered.to_csv(files / "predictions.csv", index=False, encoding="utf-8-sig")
    results = run(files, "--evaluator", "zero_shot", predictions="predictions.csv")
    assert results["facts"]["evaluator"] == "zero_shot"
    for key in ("labels", "averages", "fixed_rates", "selective", "decision_curves"):
        assert results["models"][0][key] == plain["models"][0][key]
    printed = said("score", *words(files, predictions="predictions.csv"), status=2)
    assert "choose with --evaluator: 'zero_shot', 'random weights / zero_shot'" in printed and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--at", "specificity=2"], "--at 'specificity=2': expected specificity=0.9 or sensitivity=0.95"),
        (["--groups", "sex*site"], "no column site"),
        (["--groups", "sex*image"], "--groups: columns sex and image have 120 different values: at most 30"),
        (["--readers", "nobody.csv"], "nobody.csv: not found"),
        (["--evaluator", "zero_shot"], "is no predictions.csv of evaluate.py"),
    ],
)
def test_mistakes_are_one_line(files: Path, options: list[str], message: str) -> None:
    printed = said("score", *words(files, *options), status=2)
    assert message in printed and printed.count("\n") == 1


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf", ""])
def test_a_prediction_that_is_no_number_is_one_line(files: Path, wrong: str) -> None:
    table = pd.read_csv(files / "p.csv", dtype=str)
    table.loc[3, "Mass"] = wrong
    table.to_csv(files / "p.csv", index=False)
    printed = said("score", *words(files), status=2)
    assert "the score of 'Mass' is no number in 1 row, first at row 5" in printed and printed.count("\n") == 1
