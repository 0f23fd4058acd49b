"""A checkpoint on other data than its own: what of the training's choice of images is kept, and that it is said."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from checkpoints import plain_checkpoint, write_plain
from command_line import said
from tiny import tiny_rows, write_rows, write_tiny_set

from cxrcl.app.overrides import as_override
from cxrcl.commands.hydra import compose

LOUD = "NOT TRAINED FOR THESE VIEWS"
Evaluate = Callable[..., tuple[str, dict[str, Any]]]


@pytest.fixture
def checkpoint_of(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """`checkpoint_of(views, **data)`: the tiny checkpoint as if trained on these views, with these settings of data."""

    def write(training_views: Mapping[str, int] | None, **data: Any) -> Path:
        content = plain_checkpoint(trained)
        content["config"] |= {"data": {**content["config"]["data"], **data}, "training_views": training_views}
        file = tmp_path / "frontal" / "checkpoints" / "best.pt"
        write_plain(content, file)
        return file

    return write


@pytest.fixture
def evaluate(tmp_path: Path, blank_pictures: None) -> Evaluate:
    """`evaluate(checkpoint, words...)`: what the command prints, and results.json."""

    def run(checkpoint: Path, *words: str) -> tuple[str, dict[str, Any]]:
        common = ("device=cpu", "data.num_workers=0", "resamples=0", "groups=[]", "random_weights=false")
        line = [f"checkpoint='{checkpoint}'", f"out='{tmp_path / 'out'}'", "evals=[zero_shot]", *common, *words]
        printed = said("evaluate", *line)
        return printed, json.loads((tmp_path / "out" / "results.json").read_text())

    return run


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """The tiny set in another folder."""
    return write_tiny_set(tmp_path / "others")


def renamed_views(folder: Path, names: Mapping[str, str]) -> Path:
    write_rows(folder, [{**row, "view": names.get(row["view"], row["view"])} for row in tiny_rows()])
    return folder


def test_views_of_training_hold_on_other_data_and_it_is_said(
    checkpoint_of: Callable[..., Path], evaluate: Evaluate, others: Path
) -> None:
    file = checkpoint_of({"PA": 12}, views=["PA"])
    printed, results = evaluate(file, f"data.root='{others}'")
    (line,) = [line for line in printed.splitlines() if "data.views=[PA]" in line]
    assert "kept" in line and "4 frontal (PA 4)" in line and "2 lateral (Lateral 2)" in line and LOUD not in printed
    assert results["data"]["views"] == {"PA": 4} and line in results["notes"]
    # The override in the line scores all, and that is said louder still.
    (override,) = [word.strip("()") for word in shlex.split(line) if "data.views=[]" in word]
    printed, results = evaluate(file, f"data.root='{others}'", override)
    (line,) = [line for line in printed.splitlines() if LOUD in line]
    assert "12 frontal (PA 12)" in line and "2 lateral" in line and line in results["notes"]
    assert results["data"]["views"] == {"PA": 4, "Lateral": 2}
    assert results["views"] == {"trained_on": {"PA": 12}, "not_seen": {"Lateral": 2}}
    assert LOUD in (file.parents[2] / "out" / "report.md").read_text()
    assert LOUD in (file.parents[2] / "out" / "report.html").read_text()


def test_data_without_the_views_of_training_are_scored_whole_and_it_is_said(
    checkpoint_of: Callable[..., Path], evaluate: Evaluate, others: Path
) -> None:
    file = checkpoint_of({"PA": 12}, views=["PA"])
    printed, results = evaluate(file, f"data.root='{renamed_views(others, {'PA': 'Lateral'})}'")
    assert LOUD in printed and "dropped" in printed and results["views"]["not_seen"] == {"Lateral": 6}
    printed, results = evaluate(file, f"data.root='{renamed_views(others, {'PA': 'unknown'})}'")
    assert LOUD in printed and results["views"]["not_seen"] == {"Lateral": 2}
    printed, results = evaluate(file, f"data.root='{renamed_views(others, {'PA': '', 'Lateral': ''})}'")
    assert LOUD not in printed  # of what nobody knows nothing is asserted
    assert "dropped" in printed and "of unknown view (blank 6)" in printed and results["views"]["not_seen"] == {}


@pytest.mark.parametrize(
    ("views", "settings"),
    [({"PA": 12}, {}), (None, {"views": ["PA"]}), (None, {"filter": {"view": ["PA"]}})],
    ids=["all there were", "an old file", "an old file with a filter"],
)
def test_a_model_of_frontal_images_that_scores_laterals_says_so(
    checkpoint_of: Callable[..., Path], evaluate: Evaluate, views: Any, settings: Any
) -> None:
    printed, results = evaluate(checkpoint_of(views, **settings), "data.views=[Lateral]", "data.filter={}")
    assert LOUD in printed and results["views"]["not_seen"] == {"Lateral": 2}
    assert results["views"]["trained_on"] == {"PA": None if views is None else 12}
    assert "NOT AMONG THEM: scored Lateral 2" in results["facts"]["views trained on"]


@pytest.mark.parametrize("views", [{"PA": 12, "Lateral": 6}, {"PA": 12, "": 1}, None])
def test_what_is_not_known_is_not_asserted(checkpoint_of: Callable[..., Path], evaluate: Evaluate, views: Any) -> None:
    printed, results = evaluate(checkpoint_of(views))
    assert LOUD not in printed and results["views"] == {"trained_on": views, "not_seen": {}} and results["notes"] == []


def test_choices_among_training_images_are_dropped_with_a_line_each(
    checkpoint_of: Callable[..., Path], evaluate: Evaluate, others: Path, tmp_path: Path
) -> None:
    chosen = {"filter": {"view": ["PA"], "split": ["test", "valid"]}, "fraction": 0.5, "split_lists": "/lists of 1"}
    printed, results = evaluate(
        checkpoint_of(None, label_policy="ones", check_patients=False, labels=["Edema"], **chosen),
        f"data.root='{others}'",
    )
    dropped = [line for line in printed.splitlines() if "of training is dropped" in line]
    assert [shlex.split(line)[0] for line in dropped] == [
        "data.filter={split:[test,valid]}",
        "data.fraction=0.5",
        'data.split_lists="/lists of 1"',
    ]
    kept = [shlex.split(line)[0] for line in printed.splitlines() if "of training is kept" in line]
    assert sorted(kept) == [
        "data.check_patients=false",
        "data.label_policy=ones",
        "data.labels=[Edema]",
        "data.views=[PA]",
    ]
    assert set(dropped) < set(results["notes"]) and results["data"]["filter"] == {}
    # What a line names can be pasted.
    values = compose("evaluate", ["checkpoint=x", *(shlex.split(line)[0] for line in dropped)])["data"]
    assert values["filter"] == {"split": ["test", "valid"]} and values["split_lists"] == "/lists of 1"


def test_given_settings_need_no_line(checkpoint_of: Callable[..., Path], evaluate: Evaluate, others: Path) -> None:
    file = checkpoint_of({"PA": 12}, views=["PA"], fraction=0.5, filter={"split": ["test"]})
    given = ["data.views=[PA]", "data.fraction=1", "data.filter={split:[test]}"]
    printed, results = evaluate(file, f"data.root='{others}'", *given)
    assert results["notes"] == [] and "of training" not in printed
    assert results["data"]["filter"] == {"split": "test"} and results["facts"]["only"] == "split test"


def test_a_filter_that_replaces_that_of_training_on_its_own_data_is_said(
    checkpoint_of: Callable[..., Path], evaluate: Evaluate
) -> None:
    file = checkpoint_of(None, filter={"split": ["test"], "patient": ["016", "017"]})
    printed, results = evaluate(file, "data.filter={view:[PA]}")
    (line,) = results["notes"]
    assert "split: test" in line and "patient: 2 values" in line and "016" not in printed  # patients are not named
    assert evaluate(file)[1]["notes"] == []


def test_labels_that_only_the_model_or_only_the_data_have_are_named(
    trained: Path, tiny_run: list[str], tiny_set: Path, others: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    small = [word for word in tiny_run if not word.startswith("image_encoder")]
    where = [f"data.root='{tiny_set}'", f"run_dir='{tmp_path / 'run'}'", "evals=[]", "trainer.patience=null"]
    said("finetune", f"init_from='{trained}'", *small, *where)
    write_rows(others, [{k.replace("Edema", "Fracture"): v for k, v in row.items()} for row in tiny_rows()])
    printed, results = evaluate(tmp_path / "run", f"data.root='{others}'", "evals=[classification]")
    lacking, foreign = results["notes"]
    assert "Edema" in lacking and "Fracture" in foreign and lacking in printed


def test_training_on_other_views_than_its_start_is_said(
    checkpoint_of: Callable[..., Path], tiny_run: list[str], tiny_set: Path, tmp_path: Path
) -> None:
    small = [word for word in tiny_run if not word.startswith("image_encoder")]
    where = [f"data.root='{tiny_set}'", f"run_dir='{tmp_path / 'run'}'", "evals=[]", "trainer.patience=null"]
    start = f"init_from='{checkpoint_of({'PA': 12})}'"
    printed = said("finetune", start, *small, *where)
    (line,) = [line for line in printed.splitlines() if LOUD in line]
    assert "12 frontal (PA 12)" in line and "6 lateral (Lateral 6)" in line
    assert plain_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["config"]["training_views"] == {
        "PA": 12,
        "Lateral": 6,
    }
    assert LOUD not in said(
        "finetune", start, *small, *where[:1], f"run_dir='{tmp_path / 'again'}'", *where[2:], "data.views=[PA]"
    )


def test_inference_says_for_which_views_a_model_was_made(
    checkpoint_of: Callable[..., Path], tiny_set: Path, tmp_path: Path
) -> None:
    image = ("--image", tiny_set / "images" / "0_lateral.png", "--json", "--device", "cpu")
    rules = [
        json.loads(said("inference", "--checkpoint", checkpoint_of(views), *image))["rule"]
        for views in ({"PA": 12, "AP": 1}, {"PA": 12, "Lateral": 6}, {"PA": 12, "unknown": 1}, None)
    ]
    assert "frontal images alone (PA, AP)" in rules[0] and [rule for rule in rules if "alone" in rule] == rules[:1]


@pytest.mark.parametrize(
    "value", [[], ["PA", "AP axial", "null", "1"], {"sex": ["F"], "age": ["070Y", "it's"]}, 0.5, None, True, "/a b/ü"]
)
def test_a_setting_that_is_printed_can_be_pasted(value: Any) -> None:
    (word,) = shlex.split(as_override("x", value))
    data = compose("evaluate", ["checkpoint=x", word.replace("x=", "+data.free=", 1)])["data"]
    assert data["free"] == value


def test_labels_without_prompts_are_named(trained: Path, others: Path, evaluate: Evaluate) -> None:
    write_rows(others, [{**row, "Scoliosis": "1"} for row in tiny_rows()])
    printed, results = evaluate(trained, f"data.root='{others}'", "data.labels=[Cardiomegaly,Scoliosis]")
    (line,) = results["notes"]
    assert "evals.zero_shot" in line and "Scoliosis" in line and "Cardiomegaly" not in line and line in printed
    asked = "evals.zero_shot.labels=[Cardiomegaly]"
    assert evaluate(trained, f"data.root='{others}'", "data.labels=[Cardiomegaly,Scoliosis]", asked)[1]["notes"] == []
