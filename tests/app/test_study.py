"""Grids of trainings in one command: each cell once, none lost, and what the table says of them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import said
from helpers import settings, write_manifest
from PIL import Image

from cxrcl.app import study
from cxrcl.app import train as train_module
from cxrcl.app.study import Cell
from cxrcl.app.study_report import Record, summaries, table
from cxrcl.app.train import Trained
from cxrcl.config import sections
from cxrcl.errors import ConfigError

pytestmark = pytest.mark.usefixtures("blank_pictures")

VALUES: dict[str, Any] = {
    "image_encoder": {"_target_": "some.Encoder", "weights": None},
    "init_from": None,
    "name": "study",
    "run_dir": None,
    "seed": 0,
    "device": "cpu",
    "splits": ["valid"],
    "data": {"root": "here", "cache_features": True, "num_workers": 0},
    "objective": {"task": "multi_label", "freeze_encoder": False},
    "evals": {"classification": {"_target_": "x", "splits": ["valid"]}, "loss": None, "other": {"_target_": "y"}},
    "trainer": {"batch_size": 8, "evaluate_every_epochs": 1.0, "evaluate_every_steps": None},
    "study": {"anything": 1},
}


def asked(**values: Any) -> sections.Study:
    given = {"inits": {"random": True}, "fractions": [0.1, 1.0], "seeds": [0, 1], "draws": [0, 1, 2]}
    return sections.Study(**{**given, **values})


class Commands:
    """In place of training and evaluation: remembers what it was asked, and gives each cell a figure."""

    def __init__(self, fails: Callable[[dict[str, Any]], bool] = lambda settings: False) -> None:
        self.trained: list[dict[str, Any]] = []
        self.evaluated: list[dict[str, Any]] = []
        self.fails, self.stops_at = fails, -1

    def train(self, settings: dict[str, Any]) -> Trained:
        self.trained.append(settings)
        if self.fails(settings):
            raise RuntimeError("out of\nmemory")
        folder = Path(settings["run_dir"]) / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("best.pt", "last.pt"):
            (folder / name).touch()
        finished = len(self.trained) - 1 != self.stops_at
        return Trained(folder.parent, folder / "best.pt", finished, 5, 1.5, images_per_second=9.0, evals=None)

    def evaluate(self, settings: dict[str, Any]) -> dict[str, dict[str, float]]:
        self.evaluated.append(settings)
        cell = self.trained[-1]
        value = 0.5 + 0.1 * cell["seed"] + 0.01 * cell["data"]["fraction_seed"] + 0.2 * cell["data"]["fraction"]
        return {"classification": {"mean_auroc": value, "mean_auprc": 1 - value}}

    def run(self, folder: Path, given: sections.Study, values: dict[str, Any] = VALUES) -> bool:
        return study.run(values, given, folder, self.train, self.evaluate)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


# -------------------------------------------------------------------------------------------------- the grid


def test_every_cell_is_trained_and_scored_on_test_once(tmp_path: Path) -> None:
    commands = Commands()
    assert commands.run(tmp_path, asked())
    grid = [(s["data"]["fraction"], s["data"]["fraction_seed"], s["seed"]) for s in commands.trained]
    assert grid == [(0.1, d, s) for d in (0, 1, 2) for s in (0, 1)] + [(1.0, 0, s) for s in (0, 1)]
    assert len({s["run_dir"] for s in commands.trained}) == len(grid) == len(commands.evaluated)
    for trained, evaluated in zip(commands.trained, commands.evaluated, strict=True):
        assert trained["splits"] == ["valid"] and trained["study"] is None
        assert evaluated["checkpoint"] == str(Path(trained["run_dir"]) / "checkpoints" / "best.pt")
        assert evaluated["splits"] == evaluated["evals"]["classification"]["splits"] == ["test"]
        assert set(evaluated["evals"]) == {"classification", "other"}
        sections.parse(evaluated, sections.Evaluate)


@pytest.mark.parametrize("probe", [True, False])
def test_a_probe_freezes_the_encoder_and_only_then_features_are_cached(tmp_path: Path, probe: bool) -> None:
    commands = Commands()
    commands.run(tmp_path, asked(probe=probe, fractions=[1.0]))
    assert [s["objective"]["freeze_encoder"] for s in commands.trained] == [probe] * 2
    assert [s["data"]["cache_features"] for s in commands.trained] == [probe] * 2
    assert results(tmp_path)["probe"] == probe
    assert ("fine-tuning of all layers" in (tmp_path / "study.md").read_text()) != probe


def test_the_figure_is_the_one_that_is_asked_for(tmp_path: Path) -> None:
    Commands().run(tmp_path / "a", asked(fractions=[1.0]))
    Commands().run(tmp_path / "b", asked(fractions=[1.0], figure="classification/mean_auprc"))
    values = [results(tmp_path / run)["summary"][0]["mean"] for run in "ab"]
    assert values == pytest.approx([0.75, 0.25])
    with pytest.raises(
        ConfigError, match=r"not measured; there is classification/mean_auroc, classification/mean_aupr"
    ):
        Commands().run(tmp_path / "c", asked(figure="classification/f1"))


# --------------------------------------------------------------------------------------------------- resuming


def test_finished_cells_are_read_from_their_folders(tmp_path: Path) -> None:
    Commands().run(tmp_path, asked())
    before = results(tmp_path)
    again = Commands()
    assert again.run(tmp_path, asked()) and not again.trained
    assert results(tmp_path) == before
    more = Commands()
    more.run(tmp_path, asked(seeds=[0, 1, 2]), {**VALUES, "device": "auto"})
    assert {s["seed"] for s in more.trained} == {2} and len(more.trained) == 4


def test_a_stopped_study_goes_on(tmp_path: Path) -> None:
    first = Commands()
    first.stops_at = 3
    assert not first.run(tmp_path, asked())
    assert len(first.evaluated) == 3 and len(results(tmp_path)["records"]) == 3
    assert "3 of 8 cells were run" in (tmp_path / "study.md").read_text()
    second = Commands()
    assert second.run(tmp_path, asked()) and len(second.trained) == 5


def test_a_failing_cell_is_written_down_and_tried_again(tmp_path: Path) -> None:
    first = Commands(lambda s: s["seed"] == 1 and s["data"]["fraction"] == 0.1 and s["data"]["fraction_seed"] > 0)
    assert first.run(tmp_path, asked())
    assert len(first.trained) == 8 and len(first.evaluated) == 6
    text = (tmp_path / "study.md").read_text()
    assert "- random, 10 %, draw 2, seed 1: out of memory" in text and "(4, 2 failed)" in text
    rows = list(csv.DictReader((tmp_path / "study.csv").open()))
    assert [row["error"] for row in rows].count("out of memory") == 2
    second = Commands()
    assert second.run(tmp_path, asked()) and len(second.trained) == 2
    assert "failed" not in (tmp_path / "study.md").read_text()


@pytest.mark.parametrize(("keep", "left"), [("best", {"best.pt"}), ("all", {"best.pt", "last.pt"}), ("none", set())])
def test_of_a_scored_cell_those_checkpoints_remain_that_are_asked_for(
    tmp_path: Path, keep: Any, left: set[str]
) -> None:
    first = Commands(lambda settings: settings["seed"] == 2)
    first.stops_at = 3
    first.run(tmp_path, asked(fractions=[1.0], seeds=[0, 1, 2, 3], keep=keep))
    found = [{f.name for f in (Path(s["run_dir"]) / "checkpoints").glob("*")} for s in first.trained]
    # What has failed or was stopped is gone on with.
    assert found == [left, left, set(), {"best.pt", "last.pt"}]
    stored = [record.get("checkpoint") for record in results(tmp_path)["records"]]
    assert [file is not None and Path(file).is_file() for file in stored] == [keep != "none"] * 2 + [False]
    again = Commands()
    assert again.run(tmp_path, asked(fractions=[1.0], seeds=[0, 1], keep="all")) and not again.trained


def test_a_figure_that_is_not_a_number_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Commands, "evaluate", lambda self, settings: {"classification": {"mean_auroc": math.nan}})
    with pytest.raises(ConfigError, match=r"the first said: study.figure=classification/mean_auroc: not a number"):
        Commands().run(tmp_path, asked())
    assert results(tmp_path)["summary"][0]["failed"] == 6 and "NaN" not in (tmp_path / "results.json").read_text()


def test_cells_of_an_earlier_version_are_read_by_their_old_names(tmp_path: Path) -> None:
    schedule = {"_target_": "cxrcl.training.optim.Cosine"}
    values = {**VALUES, "schedule": schedule}
    Commands().run(tmp_path, asked(), values)
    for file in tmp_path.glob("*/cell.json"):
        file.write_text(file.read_text().replace("cxrcl.training.optim.Cosine", "cxrcl.optim.Cosine"))
    again = Commands()
    assert again.run(tmp_path, asked(), values) and not again.trained


def test_when_every_cell_fails_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no cell of the study could be finished; the first said: out of memory"):
        Commands(lambda settings: True).run(tmp_path, asked())


def test_cells_of_other_settings_or_other_weights_are_not_taken(tmp_path: Path) -> None:
    start = tmp_path / "weights.pth"
    start.write_bytes(b"one")
    given = asked(inits={"random": True, "imagenet": str(start)}, fractions=[1.0])
    Commands().run(tmp_path / "run", given)
    other = {**VALUES, "data": {**VALUES["data"], "root": "there"}}
    with pytest.raises(ConfigError, match=r"was run with other settings \(data.root\): .* another run_dir"):
        Commands().run(tmp_path / "run", given, other)
    start.write_bytes(b"two")
    with pytest.raises(ConfigError, match="the file of init weights"):
        Commands().run(tmp_path / "run", given)


# ------------------------------------------------------------------------------------------------------ starts


def test_starts_differ_in_their_weights_only(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    for name in ("clip.pt", "in.pth"):
        (tmp_path / name).write_bytes(b"x")
    commands = Commands()
    inits = {"random": True, "imagenet": str(tmp_path / "in.pth"), "clip": str(tmp_path / "clip.pt"), "moco": None}
    commands.run(tmp_path / "run", asked(inits=inits, fractions=[1.0], seeds=[0]))
    encoders = [s["image_encoder"]["weights"] for s in commands.trained]
    assert encoders == [None, str(tmp_path / "in.pth"), None]
    assert [s["init_from"] for s in commands.trained] == [None, None, str(tmp_path / "clip.pt")]
    assert "study.inits.moco: left out" in log.messages
    assert results(tmp_path / "run")["left_out"] == ["moco"]
    assert "Left out: moco." in (tmp_path / "run" / "study.md").read_text()


def test_an_exported_model_is_a_start(tmp_path: Path) -> None:
    """A folder, of which config.json has the checksums of all files."""
    commands, folder = Commands(), tmp_path / "exported"
    given = asked(inits={"clip": str(folder)}, fractions=[1.0], seeds=[0], draws=[0])
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"study\.inits\.clip: .*exported: no such file"):
        commands.run(tmp_path, given)
    (folder / "config.json").write_text("one")
    commands.run(tmp_path, given)
    assert commands.trained[0]["init_from"] == str(folder)
    (folder / "config.json").write_text("another")
    with pytest.raises(ConfigError, match="the file of init weights"):
        commands.run(tmp_path, given)


def test_weights_of_the_hub_are_asked_of_the_encoder(tmp_path: Path) -> None:
    commands = Commands()
    commands.run(tmp_path, asked(inits={"imagenet": "hub"}, fractions=[1.0], seeds=[0]))
    assert commands.trained[0]["image_encoder"]["pretrained"] is True


@pytest.mark.parametrize(
    ("given", "values", "said"),
    [
        ({"inits": {"clip": "nowhere.pt"}}, {}, "study.inits.clip: nowhere.pt: no such file"),
        ({"inits": {"clip": None, "random": False}}, {}, "study.inits: clip, random are left out, so that nothing"),
        ({"inits": {"clip": True}}, {}, "study.inits.clip: expected a file, or null"),
        ({"inits": {"a/b": None, "random": True}}, {}, "names are made of letters"),
        ({"inits": {"random": "x.pt"}}, {}, "study.inits.random=x.pt: starts from no file"),
        ({"seeds": [1, 1]}, {}, r"study.seeds=\[1, 1\]: expected one value or more, each once"),
        ({"draws": []}, {}, r"study.draws=\[\]"),
        ({"figure": "zero_shot/mean_auroc"}, {}, "study.figure=zero_shot/mean_auroc: expected"),
        ({"figure": "loss/total"}, {}, "study.figure=loss/total: expected"),
        ({}, {"image_encoder": None}, "study.inits.random: of which architecture"),
        ({}, {"objective": {}}, "trains a classifier"),
        ({}, {"splits": ["valid", "test"]}, r"^splits=.*: the test split scores a finished checkpoint"),
        ({}, {"evals": {"classification": {"splits": ["test"]}}}, r"^evals.classification.splits=.* cannot choose it"),
        (
            {},
            {"evals": {"classification": {}, "other": {"choose_on": "test"}}},
            "^evals.other.choose_on=test: .*; set valid",
        ),
        ({}, {"data": {"split_lists": "here"}}, r"^study.draws=\[0, 1, 2\]: data.split_lists hold a single draw"),
        ({}, {"trainer": {"evaluate_every_epochs": None, "evaluate_every_steps": None}}, "no figure would choose"),
    ],
)
def test_mistakes_are_told_before_any_cell(
    tmp_path: Path, given: dict[str, Any], values: dict[str, Any], said: str
) -> None:
    commands = Commands()
    with pytest.raises(ConfigError, match=said):
        commands.run(tmp_path / "run", asked(**given), {**VALUES, **values})
    assert not commands.trained and not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------ tables


def test_means_and_standard_deviations_are_those_of_the_cells() -> None:
    values = [0.7, 0.8, 0.9]
    records = [Record({"start": "a", "fraction": 0.1, "value": value}) for value in values]
    records += [
        Record({"start": "a", "fraction": 1.0, "value": 0.95}),
        Record({"start": "b", "fraction": 1.0, "error": "no"}),
    ]
    found = summaries(records)
    assert [(e.start, e.fraction, e.count, e.failed) for e in found] == [
        ("a", 0.1, 3, 0),
        ("a", 1, 1, 0),
        ("b", 1, 0, 1),
    ]
    assert found[0].mean == pytest.approx(0.8) and found[0].sd == pytest.approx(0.1)
    assert found[1].sd is None and found[2].mean is None
    lines = table(found).splitlines()
    assert lines[0].split("|")[1:4] == [" start ", " 10 %              ", " 100 %           "]
    assert "0.800 ± 0.100 (3)" in lines[2] and "0.950 (1)" in lines[2] and "- (0, 1 failed)" in lines[3]


def test_the_picture_is_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # of blank_pictures
    Commands().run(tmp_path, asked())
    with Image.open(tmp_path / "study.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 400
        assert len(set(picture.convert("L").tobytes())) > 20


def test_names_of_cells_are_folders() -> None:
    assert Cell("clip", 0.01, 2, 0).name == "clip_1percent_draw2_seed0"


# ------------------------------------------------------------------------------------------------ the command


SMALL = (
    *("data.num_workers=0", "device=cpu", "trainer.precision=fp32", "trainer.batch_size=8", "trainer.max_steps=4"),
    *("trainer.warmup_steps=0", "trainer.evaluate_every_steps=2", "study.seeds=[0]", "study.draws=[0]"),
    "study.fractions=[0.3,1.0]",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def clip(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("clip")
    return train_module.train(settings(data, run, "trainer.max_steps=1")).checkpoint


def compare(*words: str, status: int = 0) -> str:
    return said("finetune", "experiment=compare_init", *SMALL, *words, status=status)


@pytest.mark.parametrize(
    "task",
    [(), ("objective.task=multi_class", "data.labels=[No Finding,Cardiomegaly]", "study.probe=false")],
    ids=["multi_label", "multi_class"],
)
def test_starts_are_compared_in_one_command(
    data: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    compare(f"data.root='{data}'", f"study.inits.clip='{clip}'", *task)
    folder = tmp_path / "outputs" / "compare_init"
    found = results(folder)
    assert [(e["start"], e["fraction"], e["count"]) for e in found["summary"]] == [
        *(("random", 0.3, 1), ("random", 1.0, 1), ("clip", 0.3, 1), ("clip", 1.0, 1))
    ]
    assert found["left_out"] == ["imagenet", "simclr", "moco"]
    assert all(0 <= record["value"] <= 1 for record in found["records"])
    assert (folder / "clip_30percent_draw0_seed0" / "training_images.csv").read_text() == (
        (folder / "random_30percent_draw0_seed0" / "training_images.csv").read_text()
    )


def test_a_study_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start it without torchrun" in compare(status=2)
