"""Several checkpoints on the same films."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import plain_checkpoint, write_plain

from cxrcl.app import evaluate as evaluate_module
from cxrcl.checkpoint import find as checkpoint_files
from cxrcl.commands.evaluate import check_folder, write_report
from cxrcl.commands.hydra import compose
from cxrcl.errors import ConfigError
from cxrcl.evaluation.metrics import METRICS, auroc
from cxrcl.evaluation.report.content import Page
from cxrcl.evaluation.scores import comparisons, scoring, subgroups
from cxrcl.evaluation.scores.comparisons import holm

Evaluate = Callable[..., Page]


@pytest.fixture
def evaluate(trained: Path) -> Evaluate:
    """`evaluate(overrides...)` of the tiny checkpoint; `checkpoint=` may be named."""

    def run(*overrides: str, asked: Sequence[str] = ()) -> Page:
        named = [] if any(o.startswith("checkpoint=") for o in overrides) else [f"checkpoint='{trained}'"]
        common = ["device=cpu", "data.num_workers=0", "resamples=20", "groups=[]"]
        values = compose("evaluate", [*named, *common, "evals=[zero_shot,view_only]", *overrides])
        page = evaluate_module.evaluate(values, requested_evals=asked).page
        assert page is not None
        return page

    return run


@pytest.fixture
def other(trained: Path, tmp_path: Path) -> Path:
    """The checkpoint again with its image head turned round."""
    state = plain_checkpoint(trained)
    state["model"] = {k: -v if k.startswith("image_head") else v for k, v in state["model"].items()}
    file = tmp_path / "runs" / "other" / "checkpoints" / "best.pt"
    write_plain(state, file)
    return file


# ------------------------------------------------------------------------------------------------ which files


def runs(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def test_a_folder_stands_for_the_best_checkpoint_of_each_run(tmp_path: Path) -> None:
    folder = runs(
        tmp_path, *(f"{run}/checkpoints/{name}.pt" for run, name in (("a", "best"), ("a", "last"), ("b", "last")))
    )
    found = checkpoint_files.find_checkpoints(str(folder))
    assert [str(file.relative_to(folder)) for file in found] == ["a/checkpoints/best.pt", "b/checkpoints/last.pt"]
    assert checkpoint_files.find_checkpoints(str(folder / "a")) == [folder / "a/checkpoints/best.pt"]
    assert checkpoint_files.find_checkpoints(f"{folder}/*/checkpoints/last.pt") == [
        folder / "a/checkpoints/last.pt",
        folder / "b/checkpoints/last.pt",
    ]
    both = checkpoint_files.find_checkpoints([str(folder / "b"), str(folder), "elsewhere.pt"])
    assert [file.parts[-3] if len(file.parts) > 1 else str(file) for file in both] == ["b", "a", "elsewhere.pt"]


def test_names_that_lead_nowhere_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no checkpoints/best\.pt or last\.pt below this folder"):
        checkpoint_files.find_checkpoints(str(tmp_path))
    with pytest.raises(ConfigError, match="no file fits this pattern"):
        checkpoint_files.find_checkpoints(f"{tmp_path}/*.pt")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["outputs/demo/checkpoints/best.pt"], ["demo/best"]),
        (["o/a/checkpoints/best.pt", "o/b/checkpoints/best.pt"], ["a", "b"]),
        (["o/a/checkpoints/best.pt", "o/a/checkpoints/last.pt"], ["best", "last"]),
        (["o/a/1/checkpoints/best.pt", "o/b/1/checkpoints/last.pt"], ["a/1/best", "b/1/last"]),
        (["one.pt", "two.pt"], ["one", "two"]),
        (["a/checkpoints/best.pt", "a/best.pt"], ["a/checkpoints/best", "a/best"]),
    ],
)
def test_checkpoints_are_called_by_what_tells_them_apart(files: list[str], names: list[str]) -> None:
    assert checkpoint_files.names_of([Path(file) for file in files]) == names


# ------------------------------------------------------------------------------------------------ what is found


def test_random_weights_and_controls_stand_beside_the_model(evaluate: Evaluate) -> None:
    page = evaluate()
    assert [one.name for one in page.checkpoints] == ["run0/best", "random weights"] or len(page.checkpoints) == 2
    models = {model.name for model in page.scores["zero_shot"].models}
    assert {"random weights", "shuffled images", "view position only"} < models
    trained, random = (one.scores["zero_shot"] for one in page.checkpoints)
    assert not np.allclose(trained.scores, random.scores) and np.array_equal(
        trained.labels, random.labels, equal_nan=True
    )
    assert len(evaluate("random_weights=false").checkpoints) == 1
    again = evaluate().checkpoints[1].scores["zero_shot"].scores
    assert np.array_equal(again, random.scores)  # always the same ones


def test_the_resamples_of_the_command_reach_every_evaluator(evaluate: Evaluate) -> None:
    page = evaluate("evals=[zero_shot,retrieval]", "random_weights=false")
    (metrics,) = (one.metrics for one in page.checkpoints)
    assert {"mean_auroc_low", "pair/negated_high", "over_prompts/worst_low"} <= set(metrics["zero_shot"])
    assert {"image_to_text/r5_low", "text_to_image/median_rank_high"} <= set(metrics["retrieval"])
    none = evaluate("evals=[zero_shot,retrieval]", "random_weights=false", "resamples=0").checkpoints[0].metrics
    assert not [key for part in none.values() for key in part if key.endswith(("_low", "_high"))]
    training = compose("train", [])["evals"]
    assert [training[name]["resamples"] for name in ("zero_shot", "retrieval")] == [0, 0]


def test_several_checkpoints_stand_in_one_table(
    evaluate: Evaluate, trained: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "OF_MEAN", dict.fromkeys(METRICS, 1))  # the images are of few patients
    monkeypatch.setattr(comparisons, "FEWEST", 1)
    monkeypatch.setattr(scoring, "ENOUGH", 0.0)
    page = evaluate(f"checkpoint=['{trained}','{other}']", "random_weights=false", "ensemble=true")
    assert len(page.checkpoints) == 3 and page.checkpoints[2].name == "ensemble"
    one, two, both = (part.scores["zero_shot"].probabilities for part in page.checkpoints)
    assert one is not None and two is not None and both is not None
    assert np.allclose(one + two, 1) and np.allclose(both, (one + two) / 2)  # margins with the other sign
    report = page.scores["zero_shot"]
    first, second = (model.labels[1] for model in report.models[:2])
    assert first.scores["auroc"].value == pytest.approx(1 - second.scores["auroc"].value)
    assert any(c.model == report.models[1].name and c.reference == report.models[0].name for c in report.comparisons)
    own = [c for c in report.comparisons if c.kind == "average" and c.metric == "auprc"]
    own = [c for c in own if c.model not in page.controls and c.p is not None]
    assert own and [c.p_holm for c in own] == pytest.approx(holm([c.p for c in own]))  # controls are no part of it


def test_any_model_can_be_the_reference(evaluate: Evaluate, trained: Path, other: Path) -> None:
    both = f"checkpoint=['{trained}','{other}']"
    default = evaluate(both, "random_weights=false")
    first, second = (one.name for one in default.checkpoints)
    page = evaluate(both, "random_weights=false", f"reference='{second}'")
    assert [one.name for one in page.checkpoints] == [first, second]
    pairs = {(c.model, c.reference) for c in page.scores["zero_shot"].comparisons}
    assert pairs == {(name, second) for name in (first, "shuffled images", "view position only")}
    # The controls are the reference's, whose scores have the other sign.
    shuffled = (each.scores["zero_shot"].models[2].labels[1].scores["auroc"].value for each in (default, page))
    assert sum(shuffled) == pytest.approx(1)
    with pytest.raises(ConfigError, match=r"reference=third: no such model; expected one of .*last, .*best, ensemble"):
        evaluate(both, "ensemble=true", "reference=third")
    with pytest.raises(ConfigError, match="reference=ensemble: no such model"):
        evaluate(both, "reference=ensemble")


def test_an_ensemble_of_one_is_refused(evaluate: Evaluate) -> None:
    with pytest.raises(ConfigError, match="needs two checkpoints or more"):
        evaluate("ensemble=true")


def test_figures_of_the_report_are_those_of_the_predictions(evaluate: Evaluate) -> None:
    page = evaluate("random_weights=false")
    scores = page.checkpoints[0].scores["zero_shot"]
    (model,) = [m for m in page.scores["zero_shot"].models if m.name == page.checkpoints[0].name]
    for k, label in enumerate(model.labels):
        expected = auroc(scores.scores[:, k], scores.labels[:, k])
        assert (
            label.scores["auroc"].value == pytest.approx(expected, nan_ok=True) or label.scores["auroc"].value is None
        )
        assert page.checkpoints[0].metrics["zero_shot"][f"auroc/{label.label}"] == pytest.approx(expected, nan_ok=True)


def test_thresholds_come_from_a_split_that_is_not_scored(evaluate: Evaluate) -> None:
    def model(*overrides: str) -> Any:
        return evaluate("random_weights=false", *overrides).scores["zero_shot"].models[0]

    assert model().threshold == "f1 on valid"
    assert model("threshold=youden").threshold == "Youden's J on valid"
    assert model("fit_on=null").threshold == "0.5 (no validation predictions)"
    assert model("threshold=0.3").threshold == "0.3 (given)"
    assert "temperature" in model("calibrate=temperature").calibration
    assert model("splits=[valid]", "fit_on=test").threshold == "f1 on test"


@pytest.mark.parametrize("overrides", [["fit_on=null", "threshold=f1"], ["fit_on=test", "calibrate=temperature"]])
def test_nothing_is_fitted_on_scored_films(evaluate: Evaluate, overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="need images that are not scored"):
        evaluate(*overrides)


def test_a_threshold_that_is_none_is_one_line(evaluate: Evaluate) -> None:
    with pytest.raises(ConfigError, match="threshold 'middle': expected f1, youden"):
        evaluate("threshold=middle")


def test_averages_of_the_report_are_over_the_labels_of_the_evaluator(evaluate: Evaluate) -> None:
    page = evaluate("random_weights=false", "evals.zero_shot.mean_over=[Edema]")
    report, figures = page.scores["zero_shot"], page.checkpoints[0].metrics["zero_shot"]
    model, shuffled = report.models[:2]
    assert model.averages[0].over["auroc"] == ["Edema"] and report.rules["averages"] == "over Edema"
    assert model.averages[0].scores["auroc"].value == pytest.approx(figures["mean_auroc"], abs=1e-12)
    assert shuffled.averages[0].scores["auroc"].value == pytest.approx(figures["shuffled_auroc"], abs=1e-12)


def test_films_are_ranked_by_scores_and_not_by_rounded_probabilities(
    evaluate: Evaluate, trained: Path, tmp_path: Path
) -> None:
    state = plain_checkpoint(trained)
    state["model"]["log_scale"] = torch.tensor(30.0)
    file = tmp_path / "certain.pt"
    write_plain(state, file)
    page = evaluate("random_weights=false", "evals=[zero_shot]", f"checkpoint='{file}'")
    found = page.checkpoints[0]
    assert len(np.unique(found.scores["zero_shot"].probabilities)) < len(np.unique(found.scores["zero_shot"].scores))
    for label in page.scores["zero_shot"].models[0].labels:
        assert label.scores["auroc"].value == pytest.approx(found.metrics["zero_shot"][f"auroc/{label.label}"])


def test_a_model_that_has_diverged_has_a_report_without_figures(
    evaluate: Evaluate, trained: Path, tmp_path: Path
) -> None:
    state = plain_checkpoint(trained)
    state["model"] = {k: v * torch.nan if v.is_floating_point() else v for k, v in state["model"].items()}
    file = tmp_path / "diverged.pt"
    write_plain(state, file)
    page = evaluate(
        f"checkpoint='{file}'", "random_weights=false", "evals=[zero_shot,retrieval,representation,linear_probe]"
    )
    write_report(tmp_path / "out", page)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["zero_shot"]["mean_auroc"] is None and results["linear_probe"]["mean_auroc"] is None
    cardiomegaly = page.scores["zero_shot"].models[0].labels[1]
    assert cardiomegaly.scores["auroc"].reason == "a score is not a number" and cardiomegaly.confusion is None


def test_a_column_with_too_many_groups_is_a_note_and_loses_no_work(evaluate: Evaluate, monkeypatch: Any) -> None:
    monkeypatch.setattr(subgroups, "MOST_GROUPS", 1)
    report = evaluate("groups=[view]", "random_weights=false").scores["zero_shot"]
    assert not report.models[0].groups and any("column view has 2 different values" in note for note in report.notes)


def test_scores_by_group(evaluate: Evaluate) -> None:
    page = evaluate("groups=[view,sex]", "random_weights=false")
    report = page.scores["zero_shot"]
    assert {group.group for group in report.models[0].groups} == {"PA", "Lateral"}
    assert any("no column sex" in note for note in report.notes)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evals.zero_shot.splits=[valid]"], r"evals.zero_shot.splits=\['valid'\]: one report has one set of images"),
        (["evals=[gloria_5x200]", "evals.gloria_5x200.labels=[Edema,Cardiomegaly]"], "no local similarity of regions"),
        (["evals=[]"], "no evaluator can run on this model and data"),
        (["splits=[test,test]"], "name one split or more, and each once"),
    ],
)
def test_evaluators_that_cannot_run_are_one_line(evaluate: Evaluate, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(*overrides, asked=("*",))


# ------------------------------------------------------------------------------------------------ exposure


def test_a_model_that_was_trained_on_the_scored_films_is_marked(evaluate: Evaluate) -> None:
    held_out = evaluate("random_weights=false")
    assert ". Of 6 scored images 0 seen in training" in held_out.checkpoints[0].facts.shown()["trained on"]
    assert not held_out.notes
    trained_on = evaluate("random_weights=false", "splits=[train]", "fit_on=test", "evals=[zero_shot]")
    told = trained_on.checkpoints[0].facts.shown()["trained on"]
    assert ". CONTAMINATED: of 18 scored images 8 seen in training (8 by pixels, 0 by name only)" in told
    assert any("CONTAMINATED" in note for note in trained_on.notes)


def test_a_checkpoint_of_before_says_that_it_does_not_know(evaluate: Evaluate, trained: Path, tmp_path: Path) -> None:
    state = plain_checkpoint(trained)
    old = {k: v for k, v in state.items() if k not in ("schema", "exposure", "initial")}
    write_plain(old, tmp_path / "old.pt")
    page = evaluate(f"checkpoint='{tmp_path / 'old.pt'}'", "random_weights=false")
    assert page.checkpoints[0].facts.shown()["trained on"] == "not recorded in this checkpoint"


def test_prompts_of_before_the_training_are_kept(trained: Path) -> None:
    state = plain_checkpoint(trained)
    initial = state["initial"]
    assert initial["labels"] == ["No Finding", "Cardiomegaly", "Edema"]
    assert torch.allclose(initial["directions"].norm(dim=1), torch.ones(3))


def test_a_training_log_that_was_cut_off_ends_no_evaluation(evaluate: Evaluate, other: Path) -> None:
    # The run was killed while it wrote a line, and went on in the same file.
    lines = ['{"step": 2, "train/loss": 3.0}', '{"step": 4, "tr{"step": 4, "train/loss": 2.5}', '{"step": 6, "tra']
    (other.parent.parent / "metrics.jsonl").write_text("\n".join(lines))
    page = evaluate(f"checkpoint='{other}'", "random_weights=false")
    assert page.checkpoints[0].training == [{"step": 2, "train/loss": 3.0}]


def test_the_files_of_a_report(evaluate: Evaluate, tmp_path: Path, blank_pictures: None) -> None:
    page = evaluate()
    written = write_report(tmp_path / "out", page)
    assert written.name == "report.html" and "<script" not in written.read_text()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["zero_shot"]["mean_auroc"] == page.checkpoints[0].metrics["zero_shot"]["mean_auroc"]
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="cannot write there"):
        write_report(tmp_path / "out", page)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"file is no folder that you may write to"):
            check_folder(out)
    check_folder(tmp_path / "new" / "report of today")
    assert not (tmp_path / "new").exists()
