"""scripts/score.py: whole runs on files."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import said
from helpers import ROOT
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.usefixtures("blank_pictures")

LABELS = ["No Finding", "Edema", "Pleural Effusion"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A manifest of 200 test and 200 validation films, and the predictions of two models for all of them."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"image": [f"{k:03d}.png" for k in range(400)], "patient": [f"p{k // 2}" for k in range(400)]})
    rows["view"], rows["sex"] = rng.choice(["PA", "AP"], 400), rng.choice(["F", "M"], 400)
    rows["age"] = rng.integers(1, 95, 400)
    rows["split"] = np.repeat(["test", "valid"], 200)
    truth = (rng.random((400, 3)) < 0.4).astype(int)
    for k, name in enumerate(LABELS):
        rows[name] = truth[:, k]
    rows.loc[::9, "Edema"] = -1
    rows["Edema"] = rows["Edema"].astype(str).where(rows.index % 10 != 0, "")
    rows.to_csv(tmp_path / "manifest.csv", index=False)
    for name, strength in (("weak", 0.7), ("strong", 2.5)):
        scores = 1 / (1 + np.exp(-rng.normal(size=(400, 3)) - strength * (truth - 0.5)))
        table = pd.DataFrame(scores, columns=LABELS).assign(image=rows["image"]).sample(frac=1, random_state=1)
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


def words(files: Path, *options: str, models: tuple[str, ...] = ("weak",)) -> list[str]:
    given = ["--predictions", *(str(files / f"{name}.csv") for name in models), "--resamples", "50"]
    return [*given, "--labels", str(files / "manifest.csv"), "--split", "test", "--out", str(files / "out"), *options]


def run(files: Path, *options: str) -> Any:
    """results.json of a run with few resamples."""
    said("score", *words(files, *options))
    return json.loads((files / "out/results.json").read_text())


def test_a_table_of_two_models_with_differences(files: Path) -> None:
    printed = said("score", *words(files, "--groups", "sex,age", models=("weak", "strong")))
    results = json.loads((files / "out/results.json").read_text())
    rows = pd.read_csv(files / "manifest.csv").query("split == 'test' and Edema >= 0").set_index("image")
    offered = pd.read_csv(files / "strong.csv").set_index("image").loc[rows.index]
    edema = results["models"][1]["labels"][1]
    assert edema["scores"]["auroc"]["value"] == pytest.approx(roc_auc_score(rows["Edema"], offered["Edema"]), abs=1e-12)
    assert edema["images"] == len(rows) and edema["unknown"] == 200 - len(rows)
    macro = results["models"][0]["averages"][0]
    assert macro["name"] == "macro" and macro["over"]["auroc"] == LABELS[1:]
    assert {(group["column"], group["group"]) for group in results["models"][1]["groups"]} >= {
        ("sex", "F"),
        ("age", "0-19"),
    }
    (better,) = [
        one
        for one in results["comparisons"]
        if (one["kind"], one["label"], one["metric"]) == ("average", "macro", "auroc")
    ]
    assert better["difference"]["low"] > 0 and better["p_holm"] < 0.2 and better["reference"] == "weak"
    facts = results["facts"]
    assert facts["images"] == 200 and facts["patients"] == 100 and facts["split"] == "test"
    for name in ("weak.csv", "manifest.csv"):
        assert facts["files"][str(files / name)] == hashlib.sha256((files / name).read_bytes()).hexdigest()
    markdown = (files / "out/report.md").read_text()
    line = next(line for line in printed.splitlines() if line.startswith("| Edema"))
    assert f"{edema['scores']['auroc']['value']:.3f} [" in line and line in markdown
    assert results["models"][0]["threshold"] == "0.5 (no validation predictions)"
    page = (files / "out/report.html").read_text()
    assert f"{edema['scores']['auroc']['value']:.3f}" in page and "<script" not in page
    assert "Precision and recall" in page  # curves are drawn of the predictions


def test_thresholds_and_temperatures_are_fitted_on_the_validation_split(files: Path) -> None:
    valid = ("--valid-predictions", str(files / "weak.csv"), "--overwrite")
    plain = run(files)["models"][0]
    f1 = run(files, *valid)["models"][0]
    assert f1["threshold"] == "f1 on valid"
    scaled = run(files, *valid, "--threshold", "youden", "--calibrate", "temperature")["models"][0]
    assert scaled["threshold"] == "Youden's J on valid" and scaled["calibration"].startswith("temperature")
    assert {len({m["labels"][1][key] for m in (plain, f1, scaled)}) for key in ("threshold",)} == {3}
    ece = [m["labels"][1]["scores"]["ece"]["value"] for m in (plain, scaled)]
    assert ece[0] != ece[1] and scaled["labels"][1]["temperature"] is not None
    turned_over = pd.read_csv(files / "manifest.csv").query("split == 'valid'").drop(columns="split")
    turned_over["Edema"] = (1 - turned_over["Edema"]).where(turned_over["Edema"] >= 0)
    turned_over.to_csv(files / "other.csv", index=False)
    turned = run(files, *valid, "--valid-labels", str(files / "other.csv"))["models"][0]
    assert turned["labels"][1]["threshold"] != f1["labels"][1]["threshold"]
    assert turned["labels"][2] == f1["labels"][2]


def test_another_model_can_be_the_reference(files: Path) -> None:
    said("score", *words(files, "--reference", "strong", models=("weak", "strong")))
    results = json.loads((files / "out/results.json").read_text())
    assert {(one["model"], one["reference"]) for one in results["comparisons"]} == {("weak", "strong")}
    assert [model["name"] for model in results["models"]] == ["weak", "strong"]
    assert "## Differences to strong" in (files / "out/report.md").read_text()


def test_each_further_option_changes_what_it_says(files: Path) -> None:
    plain = run(files)

    def edema(results: Any) -> Any:
        return next(part for part in results["models"][0]["labels"] if part["label"] == "Edema")["scores"]["mse"]

    kept = run(files, "--overwrite", "--labels-keep", "Pleural Effusion", "Edema")
    assert [part["label"] for part in kept["models"][0]["labels"]] == ["Pleural Effusion", "Edema"]
    over = run(files, "--overwrite", "--mean-over", "Edema", "No Finding")["models"][0]["averages"][0]
    assert over["over"]["auroc"] == ["No Finding", "Edema"]
    seed = edema(run(files, "--overwrite", "--seed", "1"))
    more = edema(run(files, "--overwrite", "--resamples", "60"))
    films = edema(run(files, "--overwrite", "--patient-column", "image"))
    both = edema(run(files, "--overwrite", "--split", "test,valid"))
    assert len({one["low"] for one in (edema(plain), seed, more, films, both)}) == 5
    same = pytest.approx(edema(plain)["value"], abs=1e-12)
    assert all(one["value"] == same for one in (seed, more, films)) and both["value"] != same
    given = run(files, "--overwrite", "--threshold", "0.7")["models"][0]
    assert given["threshold"] == "0.7 (given)" and given["labels"][1]["threshold"] == 0.7
    assert run(files, "--overwrite", "--resamples", "0")["models"][0]["labels"][1]["scores"]["f1"]["low"] is None
    for name in ("weak", "manifest"):
        pd.read_csv(files / f"{name}.csv").rename(columns={"image": "film"}).to_csv(files / f"{name}.csv", index=False)
    assert edema(run(files, "--overwrite", "--id-column", "film")) == edema(plain)


def test_without_patients_every_image_is_one_and_the_report_says_so(files: Path) -> None:
    pd.read_csv(files / "manifest.csv").drop(columns="patient").to_csv(files / "manifest.csv", index=False)
    results = run(files)
    assert results["facts"]["patients"] == 200 and "every image for a patient of its own" in results["notes"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "f1"], "--threshold f1 is fitted on validation images, never on those scored"),
        (["--calibrate", "temperature"], "--calibrate temperature is fitted on validation images"),
        (["--threshold", "best"], "--threshold 'best': expected f1"),
        (["--valid-predictions", "a.csv", "b.csv"], "2 files for 1 models"),
        (["--valid-labels", "l.csv"], "there are no --valid-predictions"),
        (["--mean-over", "Odema"], "--mean-over: no label Odema; there are No Finding"),
        (["--reference", "best"], "--reference best: no such model; expected one of weak"),
        (["--resamples", "-1"], "expected a number, 0 or more"),
        (["--groups", "site"], "no column site"),
        (["--groups", "patient"], "--groups: column patient has 100 different values"),
        (["--patient-column", "who"], "no column who"),
    ],
)
def test_mistakes_are_one_line(files: Path, options: list[str], message: str) -> None:
    printed = said("score", *words(files, *options), status=2)
    assert message in printed and printed.count("\n") == 1
    assert not (files / "out").exists()


def test_earlier_scores_are_kept_unless_told_otherwise(files: Path) -> None:
    run(files)
    assert "add --overwrite" in said("score", *words(files), status=2)
    run(files, "--overwrite")


def test_validation_images_cannot_be_scored(files: Path) -> None:
    printed = said("score", *words(files, "--split", "valid", "--valid-predictions", str(files / "weak.csv")), status=2)
    assert "are in the scored and in the validation rows" in printed


def test_the_command_needs_no_torch_and_answers_a_mistake_with_one_line(files: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "scripts/score.py", *words(files, "--resamples", "5")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.stdout.endswith("False\n"), done.stderr
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert again.returncode == 2 and again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
