"""`cxrcl explain` on a tiny checkpoint: it starts from the figures of `evaluate`, and finds what an override does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, said

from cxrcl.app.evaluate import evaluate
from cxrcl.commands.hydra import compose

QUICK = ("splits=[train]", "device=cpu", "resamples=20", "data.num_workers=0", "seconds=2")


@pytest.fixture(scope="module")
def explained(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with every pass, and what it printed. The target is what data.label_policy=ones gives."""
    out = tmp_path_factory.mktemp("explained")
    target = json.dumps(figures_of(trained, "data.label_policy=ones"))
    (out / "target.json").write_text(target)
    words = (f"checkpoint={trained}", f"target={out / 'target.json'}", f"out={out}", *QUICK)
    return out, said("explain", *words)


def figures_of(trained: Path, *overrides: str) -> dict[str, float]:
    """AUROC by label, of `evaluate`."""
    return {name: value for name, value in metrics_of(trained, *overrides).items() if name.startswith("auroc/")}


def metrics_of(trained: Path, *overrides: str) -> Mapping[str, float]:
    shared = ["splits=[train]", "evals=[zero_shot]", "fit_on=null", "random_weights=false", "resamples=0", "groups=[]"]
    values = compose("evaluate", [f"checkpoint='{trained}'", "device=cpu", "data.num_workers=0", *shared, *overrides])
    return evaluate(values).results["zero_shot"]


def read(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "explain.json").read_text())
    return content


def test_it_starts_from_the_figures_of_evaluate(explained: tuple[Path, str], trained: Path) -> None:
    assert read(explained[0])["current"]["figures"] == pytest.approx(
        figures_of(trained) | {"mean_auroc": read(explained[0])["current"]["figures"]["mean_auroc"]}, abs=1e-6
    )


def test_what_an_override_of_evaluate_does_is_found_and_given_back_as_the_override(
    explained: tuple[Path, str],
) -> None:
    out, printed = explained
    labels = [[change["variant"] for change in one["changes"]] for one in read(out)["reached"]]
    assert ["uncertain: ones"] in labels
    assert "data.label_policy=ones" in printed and "data.label_policy=ones" in (out / "explain.md").read_text()


def test_every_stage_was_tried(explained: tuple[Path, str]) -> None:
    content = read(explained[0])
    tried = {change["needs"] for one in content["single"] for change in one["changes"]}
    assert {"another pass over the images", "another pass over the sentences", "similarities only"} <= tried
    assert content["complete"] and content["identity"]["manifest"]


def test_passes_are_kept_and_serve_without_the_images(
    explained: tuple[Path, str], trained: Path, tmp_path: Path, command: Command
) -> None:
    (stored,) = (explained[0] / "embeddings").iterdir()
    words = (f"checkpoint={trained}", "target=0.5", f"embeddings={stored}", f"out={tmp_path}", "data.root=/nowhere")
    status, _, errors = command("explain", *words, *QUICK)
    assert status == 0, errors
    now, before = (read(folder)["current"]["figures"]["mean_auroc"] for folder in (tmp_path, explained[0]))
    assert now == pytest.approx(before, abs=1e-9)
    variants = {change["choice"] for one in read(tmp_path)["single"] for change in one["changes"]}
    assert "normalisation" in variants  # that pass was kept as well


def test_of_a_dump_choices_after_the_encoders_are_tried_and_the_rest_is_listed(
    trained: Path, tmp_path: Path, command: Command
) -> None:
    overrides = [f"checkpoint='{trained}'", "splits=[train]", "device=cpu", "data.num_workers=0", f"out='{tmp_path}'"]
    overrides += ["evals=[representation,zero_shot]", "evals.representation.dump=npy", "evals.representation.method=[]"]
    assert command("evaluate", *overrides, "random_weights=false", "resamples=0", "groups=[]", "fit_on=null")[0] == 0
    words = (
        f"checkpoint={trained}",
        "target=0.5",
        f"embeddings={tmp_path / 'embeddings.npy'}",
        f"out={tmp_path / 'e'}",
    )
    status, _, errors = command("explain", *words, *QUICK)
    assert status == 0, errors
    content, results = read(tmp_path / "e"), json.loads((tmp_path / "results.json").read_text())
    assert content["current"]["figures"]["mean_auroc"] == pytest.approx(results["zero_shot"]["mean_auroc"], abs=1e-6)
    assert "embeddings are stored" in content["not_tried"]["window: inverted"]
    needs = {change["needs"] for one in content["single"] for change in one["changes"]}
    assert "another pass over the images" not in needs and "similarities only" in needs


def test_passes_of_explain_are_laid_into_the_spread_that_evaluate_reports(
    explained: tuple[Path, str], trained: Path, own_run: Path
) -> None:
    checkpoint = own_run / "checkpoints" / trained.name
    before = metrics_of(checkpoint)
    folder = own_run / "explain_train"
    folder.mkdir()
    (folder / "explain.json").write_text((explained[0] / "explain.json").read_text())
    after = metrics_of(checkpoint)
    single = {change_of(one): one["figures"]["mean_auroc"] for one in read(folder)["single"]}
    assert "alone/window: inverted" not in before
    assert after["alone/window: inverted"] == single["window: inverted"]
    assert after["multiverse/readings"] > before["multiverse/readings"] > 20
    # Of other images: what was measured there says nothing here.
    assert "alone/window: inverted" not in metrics_of(checkpoint, "data.views=[PA]")


def change_of(one: dict[str, Any]) -> str:
    (change,) = one["changes"]
    return f"{change['choice']}: {change['variant']}"


@pytest.fixture
def own_run(trained: Path, tmp_path: Path) -> Path:
    """The run's folder, for a test that adds to it."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(trained, tmp_path / "run" / "checkpoints")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("target=nowhere.json", "target=nowhere.json: expected a number"),
        ("'target={Unknown: 0.5}'", "target={'Unknown': 0.5}: no figure that the data have"),
        ("figure=mean_beauty", "mean_beauty: no such figure"),
        ("passes=[colour]", "passes: no choice colour; there are"),
        ("embeddings=nowhere", "embeddings=nowhere: expected a folder that explain wrote"),
        ("evals=[retrieval]", "evals: expected a zero-shot evaluator"),
        ("evals.zero_shot.over=max evals.zero_shot.by=local", "has no local similarity"),
    ],
)
def test_a_mistake_is_one_line(trained: Path, tmp_path: Path, command: Command, word: str, said: str) -> None:
    words = [one.strip("'") for one in (word.split() if "{" not in word else [word])]
    target = () if "target" in word else ("target=0.5",)
    status, _, errors = command("explain", f"checkpoint={trained}", f"out={tmp_path}", *target, *QUICK, *words)
    assert status == 2 and said in errors and errors.count("\n") == 1, errors
