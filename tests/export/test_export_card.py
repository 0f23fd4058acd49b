"""The card of an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoints import plain_checkpoint
from export_cases import CLASSIFY, SIMCLR, rewritten, with_objective
from huggingface_hub import ModelCard

from cxrcl.app.evaluate import evaluate
from cxrcl.checkpoint.file import load
from cxrcl.commands.evaluate import write_report
from cxrcl.commands.hydra import compose
from cxrcl.errors import DataError
from cxrcl.export import model_card
from cxrcl.export.exporting import Options, export


@pytest.fixture(scope="module")
def scored(trained: Path, tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results.json about the trained checkpoint."""
    settings = ["device=cpu", "data.num_workers=0", "resamples=20", "groups=[]", "splits=[train]", "fit_on=null"]
    values = compose("evaluate", [f"checkpoint='{trained}'", f"data.root='{tiny_set}'", *settings])
    page = evaluate(values, requested_evals=()).page
    assert page is not None
    return write_report(tmp_path_factory.mktemp("scored"), page).with_name("results.json")


def card(checkpoint_file: Path, folder: Path, **options: Any) -> str:
    export(checkpoint_file, folder, Options(**options))
    return (folder / model_card.NAME).read_text(encoding="utf-8")


def test_it_begins_as_the_hub_wants_and_says_what_it_is_not_for(trained: Path, tmp_path: Path) -> None:
    text = card(trained, tmp_path / "out", licence="MIT")
    front = yaml.safe_load(text.split("---")[1])
    assert front == {
        "license": "mit",
        "library_name": "cxrcl",
        "tags": ["chest-x-ray", "radiology", "contrastive-learning"],
    }
    assert "**Research use only; not for diagnosis.**" in text and text.endswith("## Licence\n\nMIT\n")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert [line[3:] for line in headings] == [
        *(
            "Intended use",
            "Model",
            "Training data",
            "Evaluation",
            "Preprocessing",
            "How to load it",
            "Files",
            "Licence",
        ),
    ]
    assert "## Licence\n\nNot stated." in card(trained, tmp_path / "none")


def test_it_tells_the_data_and_their_exposure(trained: Path, tmp_path: Path) -> None:
    state = plain_checkpoint(trained)
    state["config"]["data"] |= {"views": ["PA", "AP"], "filter": {"source": ["iu"], "ward no": ["p7", "p8"]}}
    state["config"]["data"] |= {"fraction": 0.5, "sources": {"ward": {"fraction": 0.1}, "iu": {"fraction": None}}}
    state["config"]["settings"]["trainer"]["accumulate"] = 3
    state["config"]["training_views"] = {"PA": 5, "AP": 2}
    state["exposure"]["sources"] = {"ward | b": 12, "iu": 7}
    text = card(rewritten(tmp_path / "x.pt", state), tmp_path / "out")
    assert "| source | images |\n| --- | --- |\n| iu | 7 |\n| ward \\| b | 12 |" in text
    assert "- views: 7 frontal (PA 5, AP 2)\n- only source: iu\n- only ward no: 2 values" in text and "p7" not in text
    assert "- fraction of the patients: 0.5, of ward 0.1\n" in text and "batches of 12 |" in text
    assert "- training 1: 8 images by name, 8 images by pixels, 8 patients\n" in text
    assert "- prompts: chexpert.json" in text


def test_it_tells_the_preprocessing(trained: Path, tmp_path: Path) -> None:
    state = plain_checkpoint(trained)
    state["config"]["transform"] |= {"fit": "crop", "eval_crop": 0.875, "mean": 0.5, "std": 0.2}
    text = card(rewritten(tmp_path / "x.pt", state), tmp_path / "out")
    assert "cut to its middle square, of which the middle 0.875 of the side is taken, brought to 32 x 32 px" in text
    assert "mean [0.5, 0.5, 0.5] and standard deviation [0.2, 0.2, 0.2]" in text
    values = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert {k: values[k] for k in ("size", "mean", "std", "fit", "eval_crop")} == {
        **{"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3, "fit": "crop", "eval_crop": 0.875}
    }


@pytest.mark.parametrize("old_file", [False, True])
@pytest.mark.parametrize("contaminated", [False, True])
def test_a_result_on_training_images_is_marked(
    trained: Path, scored: Path, tmp_path: Path, old_file: bool, contaminated: bool
) -> None:
    content = json.loads(scored.read_text())
    words = "iu (3 films). CONTAMINATED: 3 of 3 scored films were trained on" if contaminated else "iu (3 films)"
    content["facts"]["trained on"] = words
    content["trained_on"] |= {"contaminated": 3 * contaminated, "perhaps_patient_seen": 0}
    if old_file:
        del content["trained_on"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    text = card(trained, tmp_path / "out", results=[tmp_path / "results.json"])
    assert (f"**Not a test: {words}.**" in text) == contaminated
    assert (ModelCard(text).data.eval_results is None) == contaminated  # the hub would list them as those of a test


def test_names_from_anywhere_cannot_change_the_card(trained: Path, scored: Path, tmp_path: Path) -> None:
    evil = "x |\n\n## Intended use\n\n---\n[<img src=y> **Diagnosis**](z)"
    state, content = plain_checkpoint(trained), json.loads(scored.read_text())
    state["config"]["labels"][0] = content["scores"]["zero_shot"]["models"][0]["labels"][0]["label"] = evil
    state["config"]["data"] |= {"views": [evil], "filter": {evil: [], "source": [evil]}}
    state["exposure"]["sources"] = state["config"]["training_views"] = {evil: 1}
    content["facts"] |= {"splits": evil, "trained on": f"CONTAMINATED {evil}", "zero_shot rule": evil}
    results = []
    for contaminated in (1, 0):
        content["trained_on"] |= {"contaminated": contaminated, "perhaps_patient_seen": 0}
        results.append(tmp_path / f"{contaminated}.json")
        results[-1].write_text(json.dumps(content))
    model = rewritten(tmp_path / "x.pt", state)
    told = ModelCard(card(model, tmp_path / "told", results=results[1:])).data
    assert {each.dataset_split for each in told.eval_results} == {evil} and told.library_name == "cxrcl"
    text = card(model, tmp_path / "out", results=results[:1])
    assert sum(line.startswith("## Intended") for line in text.splitlines()) == 1
    shown = r"x \| ## Intended use --- \[\<img src=y\> \*\*Diagnosis\*\*\](z)"
    assert text.count("Diagnosis") == text.count(shown) == 9


def test_it_lists_the_files_that_there_are(trained: Path, tmp_path: Path) -> None:
    classifier = with_objective(trained, tmp_path / "x.pt", CLASSIFY)
    for file, directions in ((trained, True), (classifier, False)):
        text = card(file, tmp_path / f"{directions}")
        assert ("trained on, and directions of the prompts" in text) == ("`tokenizer/`" in text) == directions


@pytest.mark.parametrize(
    ("objective", "code", "use"),
    [
        (None, "model.zero_shot(", "one space"),
        (SIMCLR, "model.encode_images(", "features of images"),
        (CLASSIFY, "model.classify(", "probability for each of its labels"),
    ],
    ids=["clip", "simclr", "classify"],
)
def test_it_shows_what_the_model_can_do(
    trained: Path, tmp_path: Path, objective: dict[str, Any] | None, code: str, use: str
) -> None:
    given = trained if objective is None else with_objective(trained, tmp_path / "x.pt", objective)
    text = card(given, tmp_path / "out")
    python = text.partition("```python")[2].partition("```")[0]
    compile(python, "card", "exec")
    assert code in python and use in text
    assert text.count("model.") - text.count("model.safetensors") == python.count("model.")


# ---------------------------------------------------------------------------------------------------------- figures


def test_figures_come_from_the_evaluation_with_their_intervals(trained: Path, scored: Path, tmp_path: Path) -> None:
    text = card(trained, tmp_path / "out", results=[scored])
    content = json.loads(scored.read_text())
    model = content["scores"]["zero_shot"]["models"][0]
    label = next(each for each in model["labels"] if each["label"] == "Cardiomegaly")
    auroc = label["scores"]["auroc"]
    shown = f"{auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})"
    assert f"| Cardiomegaly | {label['positives']} / {label['negatives']} | {shown} |" in text
    macro = next(each for each in model["averages"] if each["name"] == "macro")["scores"]["auroc"]
    assert f"| zero_shot | {macro['value']:.3f} ({macro['low']:.3f} to {macro['high']:.3f}) |" in text
    assert "| zero_shot: random weights |" in text and "| zero_shot: shuffled images |" in text
    assert "### Split train, 18 images" in text and "**Not a test: " in text  # the training films themselves
    assert "20 resamples of the" in text and "Retrieval, image to text" in text
    assert str(scored.parent) not in text and str(trained) not in text


def test_the_hub_is_told_the_means_of_the_model(trained: Path, scored: Path, tmp_path: Path) -> None:
    content = json.loads(scored.read_text())
    content["trained_on"] |= {"contaminated": 0, "perhaps_patient_seen": 0}
    content["scores"]["view_only"] = content["scores"]["zero_shot"]  # no model plays a part in it
    (tmp_path / "results.json").write_text(json.dumps(content))
    told = ModelCard(card(trained, tmp_path / "out", licence="MIT", results=[tmp_path / "results.json"])).data
    assert told.license == "mit" and told.model_name == "Chest X-ray model (Clip)"
    macro = next(each for each in content["scores"]["zero_shot"]["models"][0]["averages"] if each["name"] == "macro")

    def interval(score: dict[str, float]) -> str:
        return "" if score["low"] is None else f" ({score['low']:.3f} to {score['high']:.3f})"

    assert [(each.metric_type, each.metric_value, each.metric_name) for each in told.eval_results] == [
        (kind, round(score["value"], 3), f"mean {name}, zero_shot{interval(score)}")
        for kind, name, score in (
            ("roc_auc", "AUROC", macro["scores"]["auroc"]),
            ("average_precision", "AUPRC", macro["scores"]["auprc"]),
        )
    ]
    (place,) = {(each.task_type, each.dataset_split, each.dataset_revision) for each in told.eval_results}
    assert place == ("zero-shot-image-classification", "train", content["facts"]["manifest"])


def test_results_in_the_folder_of_the_run_are_found(trained: Path, scored: Path, tmp_path: Path) -> None:
    file = tmp_path / "run" / "checkpoints" / "last.pt"
    rewritten(file, plain_checkpoint(trained))
    content = json.loads(scored.read_text())
    for name in ("evaluate_test", "evaluate_train"):
        (file.parents[1] / name).mkdir()
    (file.parents[1] / "evaluate_train" / "results.json").write_text(json.dumps(content))
    content["facts"]["fingerprint of the weights"] = "0" * 16
    (file.parents[1] / "evaluate_test" / "results.json").write_text(json.dumps(content))
    lines = export(file, tmp_path / "out", Options())
    (left,) = [line for line in lines if line.startswith("not in the card")]
    assert "evaluate_test/results.json: is about" in left and left.endswith("has now: evaluate it again")
    text = (tmp_path / "out" / model_card.NAME).read_text()
    assert text.count("### Split train") == 1 and "No figures were given" not in text


def test_results_of_other_weights_are_refused(trained: Path, scored: Path, tmp_path: Path) -> None:
    """The same run once more, in the same folder, with the same number of steps."""
    state = plain_checkpoint(trained)
    weights = {**state["model"], "log_scale": state["model"]["log_scale"] + 1e-6}
    again = rewritten(tmp_path / "again.pt", state, model=weights)
    with pytest.raises(DataError, match=r"is about .* with other weights than .*again\.pt has now"):
        export(again, tmp_path / "out", Options(results=[scored]))
    assert not (tmp_path / "out").exists()
    # Wherever the same weights lie, whatever their file is called.
    assert "### Split train" in card(rewritten(tmp_path / "moved.pt", state), tmp_path / "out", results=[scored])


def test_results_of_the_exported_model_are_those_of_its_checkpoint(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "out", Options())
    assert load(tmp_path / "out").fingerprint() == load(trained).fingerprint()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[" * 100_000, '{"facts": {"checkpoint": "x"}}', '{"facts": [], "scores": {}}']
)
def test_files_that_evaluate_did_not_write_are_refused(trained: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=r"not what this evaluate\.py writes about a single checkpoint"):
        export(trained, tmp_path / "out", Options(results=[tmp_path / "results.json"]))
