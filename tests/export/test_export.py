"""Exported models: the same model as its checkpoint, wherever one is read, and nothing of the machine."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from checkpoints import as_checkpoint, plain_checkpoint
from export_cases import CLASSIFY, MOCO, SIMCLR, SUM, rewritten, with_objective
from helpers import PACKAGES, equal_everywhere
from tiny import TINY_RUN, TINY_TEXT

import cxrcl
from cxrcl.app import restore as restoring
from cxrcl.app.evaluate import evaluate
from cxrcl.app.model import build_model
from cxrcl.app.train import train
from cxrcl.checkpoint import exported
from cxrcl.checkpoint import find as checkpoint_files
from cxrcl.checkpoint.file import load
from cxrcl.commands import export as script
from cxrcl.commands.hydra import compose
from cxrcl.errors import CheckpointError, ConfigError
from cxrcl.export import exporting, model_card
from cxrcl.export.exporting import Options, export
from cxrcl.training import run_folder as run


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    out = tmp_path_factory.mktemp("exports") / "small clip.v1"
    export(trained, out, Options())
    return out


@pytest.fixture(scope="module")
def films(tiny_set: Path) -> list[Path]:
    return [tiny_set / "images" / f"{name}.png" for name in ("0_pa", "1_pa", "0_lateral")]


# -------------------------------------------------------------------------------------------------- the same model


def test_films_and_texts_are_read_as_by_the_checkpoint(trained: Path, folder: Path, films: list[Path]) -> None:
    one, other = (cxrcl.load(path, device="cpu") for path in (trained, folder))
    texts = ["the heart is enlarged.", "no edema"]
    assert np.array_equal(one.embed_images(films), other.embed_images(films))
    assert np.array_equal(one.embed_texts(texts), other.embed_texts(texts))
    assert np.array_equal(one.zero_shot(films), other.zero_shot(films))
    assert (one.labels, one.step, repr(one)) == (other.labels, other.step, repr(other))


@pytest.mark.parametrize("objective", [SIMCLR, MOCO, CLASSIFY, SUM], ids=["simclr", "moco", "classify", "sum"])
def test_other_objectives(trained: Path, tmp_path: Path, films: list[Path], objective: dict[str, Any]) -> None:
    given = with_objective(trained, tmp_path / "x.pt", objective)
    lines = export(given, tmp_path / "out", Options())
    one, other = (restoring.restore_model(as_checkpoint(plain_checkpoint(path))) for path in (given, tmp_path / "out"))
    assert equal_everywhere(dict(one.state_dict()), dict(other.state_dict()))
    models = [cxrcl.load(path, device="cpu") for path in (given, tmp_path / "out")]
    found = [model.classify(films) if objective is CLASSIFY else model.encode_images(films) for model in models]
    assert np.array_equal(*found) and repr(models[0]) == repr(models[1])
    reads_text = objective is SUM
    assert (tmp_path / "out" / "tokenizer").exists() == reads_text == (tmp_path / "out" / "text_encoder").exists()
    assert any("vocabulary" in line for line in lines) == reads_text
    assert ("queue of MoCo" in (tmp_path / "out" / model_card.NAME).read_text()) == (objective is MOCO)


def test_towers_of_a_package_of_ones_own(trained: Path, tmp_path: Path, films: list[Path]) -> None:
    state = plain_checkpoint(trained)
    state["config"]["model"]["image_encoder"] = {"_target_": "helpers.TinyImages", "size": 16}
    model = build_model(state["config"]["model"], state["config"]["labels"], None, PACKAGES)
    given = rewritten(tmp_path / "x.pt", state, model=model.state_dict(), initial={})
    with pytest.raises(ConfigError, match="only cxrcl may be named here"):
        export(given, tmp_path / "out", Options())
    lines = export(given, tmp_path / "out", Options(), PACKAGES)
    assert [line for line in lines if line.startswith("image_encoder: no folder of its own: TinyImages")]
    with pytest.raises(ConfigError, match="only cxrcl may be named here"):
        cxrcl.load(tmp_path / "out", device="cpu")
    one, other = (cxrcl.load(path, device="cpu", allow_packages=["helpers"]) for path in (given, tmp_path / "out"))
    assert np.array_equal(one.embed_images(films), other.embed_images(films))


def test_what_evaluation_reads_is_the_same(trained: Path, folder: Path) -> None:
    one, other = plain_checkpoint(trained), plain_checkpoint(folder)
    for key in ("exposure", "initial", "versions", "model"):
        assert equal_everywhere(dict(one[key]), dict(other[key])), key
    assert one["progress"]["step"] == other["progress"]["step"]
    for key in ("labels", "model", "transform", "evaluated", "prompt_sentences", "precision"):
        assert one["config"][key] == other["config"][key], key
    assert "exposure" in one and one["initial"]["labels"]
    assert not other["optimizer"] and other["config"]["settings"] is None


def test_of_a_moving_average_the_average_is_given_away(trained: Path, tmp_path: Path) -> None:
    state = plain_checkpoint(trained)
    average = {name: value + 1 for name, value in state["model"].items()}
    given = rewritten(tmp_path / "ema.pt", state, ema=average)
    export(given, tmp_path / "out", Options())
    again = plain_checkpoint(tmp_path / "out")
    assert again["model"] is None and equal_everywhere(again["ema"], average)
    marks = [as_checkpoint(each).fingerprint() for each in (plain_checkpoint(given), again, state)]
    assert marks[0] == marks[1] != marks[2]  # a results.json is of the weights that were used
    assert "| weights | moving average, step 2 |" in (tmp_path / "out" / model_card.NAME).read_text()


def test_an_old_checkpoint_without_a_record_of_its_training(trained: Path, tmp_path: Path) -> None:
    state = plain_checkpoint(trained)
    del state["exposure"], state["initial"]
    export(rewritten(tmp_path / "old.pt", state), tmp_path / "out", Options())
    again = plain_checkpoint(tmp_path / "out")
    assert "exposure" not in again and not again["initial"]
    assert not (tmp_path / "out" / exported.RECORD).exists()
    assert "not recorded in its checkpoint" in (tmp_path / "out" / model_card.NAME).read_text()


def test_evaluate_gives_the_same_report(trained: Path, folder: Path, tiny_set: Path) -> None:
    def scored(path: Path) -> Any:
        common = ["device=cpu", "data.num_workers=0", "resamples=20", "groups=[]", "evals=[zero_shot,view_only]"]
        values = compose("evaluate", [f"checkpoint='{path}'", f"data.root='{tiny_set}'", *common])
        return evaluate(values)

    one, other = scored(trained), scored(folder)
    np.testing.assert_equal(one.results, other.results)
    assert {k: v for k, v in one.facts.items() if k != "checkpoint"} == {
        k: v for k, v in other.facts.items() if k != "checkpoint"
    }
    assert "scored images 0 seen in training" in one.facts["trained on"]
    assert [each.name for each in other.page.proper] == ["small clip.v1"]


def test_evaluate_asks_where_the_data_lie(folder: Path) -> None:
    values = compose("evaluate", [f"checkpoint='{folder}'", "device=cpu"])
    with pytest.raises(
        ConfigError, match=r"does not say where data lie: set data.root=DIR.*trained on images of unknown source\)"
    ):
        evaluate(values)


def test_training_starts_from_it_as_from_its_checkpoint(
    trained: Path, folder: Path, tiny_set: Path, tmp_path: Path
) -> None:
    found = []
    for name, start in (("one", trained), ("other", folder)):
        overrides = [*TINY_RUN, *TINY_TEXT, "evals=[]", f"data.root='{tiny_set}'", f"run_dir='{tmp_path / name}'"]
        done = train(compose("train", [*overrides, f"init_from='{start}'", "trainer.max_steps=1"]))
        found.append(plain_checkpoint(done.checkpoint))
    assert equal_everywhere(dict(found[0]["model"]), dict(found[1]["model"]))
    assert found[0]["exposure"]["sources"] == found[1]["exposure"]["sources"]
    earlier = [each["exposure"]["trainings"][0] for each in found]
    assert equal_everywhere(*earlier) and len(earlier[0]["pixels"]) == 8
    assert not torch.equal(found[0]["model"]["log_scale"], plain_checkpoint(trained)["model"]["log_scale"])


def test_a_training_cannot_go_on_in_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.pt").symlink_to(folder)
    for place in (folder, tmp_path / "run"):
        with pytest.raises(ConfigError, match=r"no optimizer state to go on from: train on .* init_from="):
            run.earlier_checkpoint(str(place), {}, "")


def test_names_of_exported_models_beside_checkpoints(folder: Path, trained: Path) -> None:
    both = checkpoint_files.find_checkpoints([str(folder), str(trained)])
    assert both == [folder, trained]
    assert [name.rpartition("/")[2] for name in checkpoint_files.names_of(both)] == ["small clip.v1", trained.stem]
    assert checkpoint_files.names_of([folder]) == ["small clip.v1"]
    # A report names films: it must not come to lie in the folder that is given away.
    report = checkpoint_files.beside(str(folder), ["test"])
    assert report == folder.parent / "small clip.v1_evaluate_test"
    report.mkdir()
    assert checkpoint_files.find_checkpoints(str(folder.parent / "small*")) == [folder]


# ------------------------------------------------------------------------------------------- nothing of the machine


def test_no_path_no_setting_and_no_filter_leaves_the_machine(trained: Path, tmp_path: Path) -> None:
    state = plain_checkpoint(trained)
    stored, secret = state["config"], "/home/jane.doe/secret"
    stored["settings"]["run_dir"] = f"{secret}/run"
    stored["data"] |= {"root": f"{secret}/films", "store": f"{secret}/store", "filter": {"patient": ["secret-7"]}}
    stored["data"]["sources"] = {
        "ward": {"_target_": "x", "root": secret, "prompts": {"Edema": {"pos": ["wet."], "neg": ["dry."]}}}
    }
    stored["data"]["split_lists"] = "/lists/secret"
    stored["prompts"]["file"] = "secret/prompts.json"  # from the working directory
    stored["transform"]["train_fit"] = None
    given = rewritten(tmp_path / "x.pt", state)
    export(given, tmp_path / "out", Options())
    for file in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        content = file.read_bytes()
        for word in (b"jane", b"secret", str(tmp_path).encode(), str(trained.parent).encode(), b"run_dir"):
            assert word not in content, (file, word)
        assert file.suffix in (".json", ".safetensors", ".md")
    again = plain_checkpoint(tmp_path / "out")["config"]["data"]
    assert again["sources"] == {"ward": {"prompts": {"Edema": {"pos": ["wet."], "neg": ["dry."]}}}}
    assert "root" not in again and "filter" not in again


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("/home/me/bert", "bert"),
        ("~/models/bert/", "bert"),
        (r"C:\Users\me\bert", "bert"),
        ("../me/bert", "bert"),
        ("local-dir:/home/me/bert", "bert"),
        ("microsoft/BiomedNLP", "microsoft/BiomedNLP"),
        ("cxrcl.models.text.BertText", "cxrcl.models.text.BertText"),
        ("gelu", "gelu"),
        (7, 7),
    ],
)
def test_of_a_path_the_last_name_is_left(given: object, left: object) -> None:
    assert exporting.without_folders({"a": [{"b": given}]}) == {"a": [{"b": left}]}


def test_a_vocabulary_learnt_from_reports_is_pointed_out(trained: Path, tmp_path: Path) -> None:
    lines = export(trained, tmp_path / "out", Options())
    assert [line for line in lines if "vocabulary was learnt from the training texts" in line]


# ------------------------------------------------------------------------------------------------------- the folder


def test_what_stands_at_the_place_is_left_alone(trained: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    export(trained, mine, Options())  # an empty folder is as good as none
    with pytest.raises(ConfigError, match="an exported model stands there: add --overwrite"):
        export(trained, mine, Options())
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt, which no export writes"):
        export(trained, mine, Options(overwrite=True))
    assert (mine / "notes.txt").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "file").touch()
    for place, said in ((other, "no exported model: it is left alone"), (tmp_path / "file", "a file stands there")):
        with pytest.raises(ConfigError, match=said):
            export(trained, place, Options(overwrite=True))
    assert [path.name for path in other.iterdir()] == ["config.json"]


def test_the_working_directory_is_not_replaced(trained: Path, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path), pytest.raises(ConfigError, match="is the working directory"):
        export(trained, Path(), Options())


def test_overwriting_replaces_the_whole(trained: Path, tmp_path: Path) -> None:
    out, simclr = tmp_path / "out", with_objective(trained, tmp_path / "x.pt", SIMCLR)
    export(trained, out, Options())
    export(simclr, out, Options(overwrite=True))
    assert not (out / "tokenizer").exists() and plain_checkpoint(out)["config"]["model"].keys() == {
        "objective",
        "image_encoder",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.pt"]


@pytest.mark.parametrize("failing", ["figures_of", "text"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt("No")], ids=["full disk", "Ctrl-C"]
)
def test_a_failure_leaves_the_earlier_export_and_nothing_else(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    out = tmp_path / "out"
    export(trained, out, Options())
    before = (out / exported.CONFIG).read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(model_card, failing, fail)
    with pytest.raises((ConfigError, OSError, KeyboardInterrupt), match="No"):
        export(trained, out, Options(overwrite=True))
    assert (out / exported.CONFIG).read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_export_that_cannot_be_moved_into_place_leaves_the_earlier_one(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    out, rename = tmp_path / "out", Path.rename
    export(trained, out, Options())

    def into_place(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", into_place)
    with pytest.raises((ConfigError, KeyboardInterrupt)):
        export(trained, out, Options(overwrite=True))
    assert load(out).exported and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_weights_that_do_not_come_back_are_not_given_away(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(tensors: dict[str, torch.Tensor], file: Path) -> None:
        save_tensors(
            {name: value * 0.5 if value.is_floating_point() else value for name, value in tensors.items()}, file
        )

    save_tensors = exporting.save_tensors
    monkeypatch.setattr(exporting, "save_tensors", lossy)
    with pytest.raises(CheckpointError, match="other weights were read than written"):
        export(trained, tmp_path / "out", Options())
    assert not any(tmp_path.iterdir())


def test_a_model_that_has_diverged_is_not_given_away(trained: Path, tmp_path: Path) -> None:
    state = plain_checkpoint(trained)
    given = rewritten(tmp_path / "x.pt", state, model={**state["model"], "log_scale": torch.tensor(float("nan"))})
    with pytest.raises(ConfigError, match=r"x\.pt: has diverged \(log_scale holds nan"):
        export(given, tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_an_exported_model_is_not_exported_again(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is an exported model already"):
        export(folder, tmp_path / "out", Options())


# ------------------------------------------------------------------------------------------------------- the script


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, words)])
    script.run()


def test_the_script(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my model"
    call(monkeypatch, trained, "--out", out, "--licence", "CC-BY-NC-4.0")
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        f"written: '{out}' (README.md is its card)",
        f"next: python inference.py --checkpoint '{out}' --image IMAGE",
    ]
    assert "no results.json of evaluate.py: the card has no figures (--results FILE)" in said
    front = yaml.safe_load((out / "README.md").read_text().split("---")[1])
    assert front["license"] == "cc-by-nc-4.0"
    with pytest.raises(ConfigError, match="stands there"):
        call(monkeypatch, trained, "--out", out)
    call(monkeypatch, trained, "--out", out, "--overwrite")
    assert "license" not in yaml.safe_load((out / "README.md").read_text().split("---")[1])
    for words, message in (
        (("--licence", "my own words"), "expected an SPDX identifier"),
        (("--results", tmp_path / "none.json"), "none.json: cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            call(monkeypatch, trained, "--out", tmp_path / "b", *words)


@pytest.mark.slow
def test_onnx_files_are_in_the_card_and_name_no_folder(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    export(trained, tmp_path / "out", Options(onnx=True))
    card = (tmp_path / "out" / model_card.NAME).read_text()
    for name, inputs in (("image", "`images` float32 [batch, 3, 32, 32]"), ("text", "`ids` int64 [batch, length]")):
        content = (tmp_path / "out" / "onnx" / f"{name}.onnx").read_bytes()
        assert f"| `onnx/{name}.onnx` | {inputs}" in card
        assert str(Path(cxrcl.__file__).parent).encode() not in content
    assert json.loads((tmp_path / "out" / exported.CONFIG).read_text())["sha256"].keys() == {
        *(exported.CONFIG, exported.WEIGHTS, exported.PREPROCESS, exported.TOKENIZER, exported.RECORD)
    }
