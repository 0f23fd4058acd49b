"""The commands as a person types them: from another folder, spaces and umlauts in every path, no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from checkpoints import plain_checkpoint
from command_line import said
from helpers import ROOT, SMALL, said_once, settings, write_manifest

from cxrcl.app.evaluate import evaluate
from cxrcl.app.train import Trained, train
from cxrcl.errors import ConfigError, DataError

PHANTOM = ("data.sources.phantom.num_studies=120", "data.sources.phantom.size_px=48")


class Desk:
    """A working directory that is not the repository.

    Training, and the evaluation of what it wrote, are processes of their own; the commands after them need not be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "räume und mehr"
        self.folder.mkdir()
        self.environment = {**os.environ, "CXRCL_DATA": str(self.folder / "dätä here"), "HF_HUB_OFFLINE": "1"}
        self.environment["OMP_NUM_THREADS"] = "1"

    def run(self, script: str, *arguments: str, status: int = 0, launcher: tuple[str, ...] = ()) -> str:
        command = [*(launcher or (sys.executable,)), str(ROOT / script), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run_here(self, name: str, *words: str, status: int = 0) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("CXRCL_DATA", self.environment["CXRCL_DATA"])
            return said(name, *words, status=status)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def trained(desk: Desk) -> tuple[Path, str]:
    printed = desk.run(
        "train.py",
        *SMALL,
        *PHANTOM,
        "trainer.max_steps=12",
        "trainer.evaluate_every_steps=6",
        "transform=radiograph",
        "run_dir='lauf eins'",
    )
    return desk.folder / "lauf eins", printed


@pytest.fixture(scope="module")
def probed(desk: Desk, trained: tuple[Path, str]) -> tuple[Path, str]:
    printed = desk.run_here(
        "finetune",
        "init_from='lauf eins/checkpoints/best.pt'",
        *PHANTOM,
        "trainer.max_epochs=null",
        "trainer.max_steps=4",
        "trainer.warmup_epochs=null",
        "trainer.batch_size=8",
        "trainer.precision=fp32",
        "data.num_workers=0",
        "device=cpu",
        "run_dir='probe ä'",
    )
    return desk.folder / "probe ä", printed


def test_training_writes_a_run_that_says_what_comes_next(desk: Desk, trained: tuple[Path, str]) -> None:
    folder, printed = trained
    names = {path.name for path in folder.iterdir() if path.suffix != ".patch"}  # there is one while code is changed
    assert names == {"checkpoints", "metrics.jsonl", "tensorboard", "config.yaml", "starts.yaml", "log.txt"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.pt", "last.pt"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "zero_shot/mean_auroc" in line] == [6, 12]
    assert all(0 < line["retrieval/image_to_text/r5"] <= 1 for line in lines if "loss/total" in line)
    assert "python evaluate.py checkpoint=" in printed
    # Nothing is written beside the run and the data.
    assert {path.name for path in desk.folder.iterdir()} <= {"lauf eins", "dätä here", "probe ä"}


def test_a_checkpoint_is_evaluated_in_a_fresh_process_without_the_network(
    desk: Desk, trained: tuple[Path, str]
) -> None:
    small = ["resamples=20", "data.labels=[Cardiomegaly,Edema]", "device=cpu", "data.num_workers=0"]
    printed = desk.run("evaluate.py", "checkpoint='lauf eins/checkpoints/best.pt'", *small)
    results = json.loads((trained[0] / "evaluate_test" / "results.json").read_text())
    assert results["facts"]["splits"] == "test" and results["facts"]["step"] in ("6", "12")
    assert 0 <= results["zero_shot"]["mean_auroc"] <= 1
    assert 0 <= results["retrieval"]["text_to_image"]["r10"] <= 1
    # A classifier's evaluator does not fit: a remark, for the user did not name it.
    assert "evals.classification is left out: Clip does not meet Classifies" in printed
    assert "| Cardiomegaly" in (trained[0] / "evaluate_test" / "report.md").read_text()


def test_an_evaluator_that_does_not_fit_is_an_error_when_named(desk: Desk, trained: tuple[Path, str]) -> None:
    printed = desk.run_here(
        "evaluate", "checkpoint='lauf eins/checkpoints/best.pt'", "evals=[classification]", "device=cpu", status=2
    )
    assert printed.splitlines()[-1] == "error: evals.classification: Clip does not meet Classifies"
    assert "Traceback" not in printed


def test_films_are_read(desk: Desk, trained: tuple[Path, str]) -> None:
    films = sorted((desk.folder / "dätä here").rglob("*.png"))[:2]
    copy = desk.folder.parent / "films of ü"
    copy.mkdir()
    for film in films:
        shutil.copy(film, copy)
    (copy / "z.png").write_text("no film")
    printed = desk.run_here(
        "inference",
        *("--checkpoint", str(trained[0] / "checkpoints" / "best.pt"), "--image", str(copy), "--json"),
        status=1,
    )
    found = json.loads(printed[: printed.rindex("}") + 1])
    assert found["note"] == "Research use only; not for diagnosis."
    assert all(0 < value < 1 for entry in found["images"][:2] for value in entry["probabilities"].values())
    assert len(found["images"][0]["probabilities"]) == 14
    assert found["images"][2]["error"] == "not an image in a known format"


def test_finetuning_starts_from_the_weights_and_says_what_it_took(probed: tuple[Path, str]) -> None:
    folder, printed = probed
    (line,) = [line for line in printed.splitlines() if line.startswith("init_from")]
    assert "tensors matched" in line and "2 missing (classifier.bias, classifier.weight)" in line
    first = plain_checkpoint(folder.parent / "lauf eins" / "checkpoints" / "best.pt")
    last = plain_checkpoint(folder / "checkpoints" / "last.pt")
    assert last["config"]["model"]["image_encoder"] == first["config"]["model"]["image_encoder"]
    assert "text_encoder" not in last["config"]["model"]
    key = "image_encoder.model.conv1.0.weight"
    moved = (last["model"][key] - first["model"][key]).abs().max()
    assert 0 < moved < 0.05


def test_the_classifier_is_evaluated(desk: Desk, probed: tuple[Path, str], blank_pictures: None) -> None:
    printed = desk.run_here(
        "evaluate",
        "checkpoint='probe ä/checkpoints/last.pt'",
        "device=cpu",
        "splits=[valid,test]",
        "out='ergebnis ß'",
    )
    results = json.loads((desk.folder / "ergebnis ß" / "results.json").read_text())
    shutil.rmtree(desk.folder / "ergebnis ß")
    assert 0 <= results["classification"]["mean_auroc"] <= 1 and "zero_shot" not in results
    assert "evals.zero_shot is left out: Classify does not meet EmbedsImages, EmbedsText" in printed


# ------------------------------------------------------------------------------------------- without new processes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def start(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train({**settings(data, tmp_path_factory.mktemp("start")), "evals": {}}).checkpoint


def finetune(data: Path, folder: Path, start: Path, **changes: Any) -> Trained:
    values = settings(data, folder, "init_from=x", name="finetune") | {"init_from": str(start), "evals": {}, **changes}
    return train(values)


def test_starting_from_another_architecture_is_an_error(data: Path, start: Path, tmp_path: Path) -> None:
    other = {"_target_": "cxrcl.models.image.TimmEncoder", "name": "resnet10t", "size": 32}
    with pytest.raises(ConfigError, match=r"init_from=.*: only \d+ of \d+ tensors of image_encoder match"):
        finetune(data, tmp_path, start, image_encoder=other)
    assert list(tmp_path.iterdir()) == []


def test_starting_from_a_checkpoint_keeps_its_vocabulary_on_other_texts(
    start: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    other = write_manifest(tmp_path / "other")
    table = pd.read_csv(other / "manifest.csv", dtype=str)
    table["findings"] = "Xylophones were found in every third zebra. " + table["findings"]
    table.to_csv(other / "manifest.csv", index=False)
    values = settings(other, tmp_path / "run", "init_from=x", "optimizer.lr=0")
    done = train({**values, "init_from": str(start), "evals": {}})
    before, after = plain_checkpoint(start), plain_checkpoint(done.checkpoint)
    (line,) = [line for line in log.messages if line.startswith("init_from")]
    assert line.endswith(f": {len(before['model'])} tensors matched")
    assert after["config"]["model"]["text_encoder"] == before["config"]["model"]["text_encoder"]
    tower = [key for key in after["model"] if key.startswith("text_encoder.")]
    assert tower and all(torch.equal(before["model"][key], after["model"][key]) for key in tower)


def test_starting_with_another_tokenizer_is_an_error(data: Path, start: Path, tmp_path: Path) -> None:
    node = dict(plain_checkpoint(start)["config"]["model"]["text_encoder"])
    definition = json.loads(node["definition"])
    pieces = definition["model"]["vocab"]
    a, b = list(pieces)[-2:]
    pieces[a], pieces[b] = pieces[b], pieces[a]  # every shape stays
    values = settings(data, tmp_path / "run", "init_from=x") | {"init_from": str(start), "evals": {}}
    values["text_encoder"] = {**node, "definition": json.dumps(definition)}
    with pytest.raises(ConfigError, match="its tokenizer is another one") as caught:
        train(values)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_without_rows_to_score_the_last_checkpoint_is_the_result(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    folder = write_manifest(tmp_path / "set")
    table = pd.read_csv(folder / "manifest.csv", dtype=str)
    table[table["split"] != "valid"].to_csv(folder / "manifest.csv", index=False)
    values = settings(folder, tmp_path / "run", "trainer.evaluate_every_steps=2")
    assert values["evals"]
    with pytest.raises(DataError, match=r"splits: no row has the split valid; set splits=\[\.\.\.\]"):
        train(values, requested_evals=["*"])
    assert not (tmp_path / "run").exists()
    done = train(values)
    assert done.checkpoint.name == "last.pt" and done.finished
    assert said_once(log, "no row has the split valid") and "is left out" not in log.text


def test_a_linear_probe_leaves_the_encoder_as_it_was(data: Path, start: Path, tmp_path: Path) -> None:
    node = {"_target_": "cxrcl.objectives.classify.Classify", "freeze_encoder": True}
    done = finetune(data, tmp_path, start, objective=node)
    before, after = plain_checkpoint(start)["model"], plain_checkpoint(done.checkpoint)["model"]
    tower = [key for key in after if key.startswith("image_encoder.")]
    assert tower and all(torch.equal(before[key], after[key]) for key in tower)


def test_a_restored_model_gives_the_numbers_of_the_trained_one(data: Path, start: Path, tmp_path: Path) -> None:
    """Figures of the last evaluation of training are those of evaluate.py on the checkpoint."""
    values = settings(data, tmp_path, "trainer.evaluate_every_steps=4", "evals=[retrieval,loss]")
    done = train(values)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    from cxrcl.commands.hydra import compose

    asked = compose(
        "evaluate", ["checkpoint=x", "evals=[retrieval,loss]", "splits=[valid]", "device=cpu", "batch_size=8"]
    )
    asked |= {"checkpoint": str(done.folder / "checkpoints" / "last.pt")}
    scored = evaluate(asked)
    for name, figures in scored.results.items():
        for figure, value in figures.items():
            if figure.endswith(("_low", "_high")):  # training makes no resamples
                continue
            assert lines[-1][f"{name}/{figure}"] == pytest.approx(value, abs=1e-6), figure


def test_a_balanced_classifier_learns_from_usable_films_and_keeps_its_weights(
    data: Path, start: Path, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    table = pd.read_csv(data / "manifest.csv", dtype=str, keep_default_na=False)
    classes = ["No Finding", "Cardiomegaly", "Edema"]
    table = table[table["split"] == "train"]
    positive = (table[classes] == "1").to_numpy()
    used = positive.sum(axis=1) == 1
    assert 0 < used.sum() < len(used)
    node = {"_target_": "cxrcl.objectives.classify.Classify", "task": "multi_class", "class_weights": "balanced"}
    values = settings(data, tmp_path, "init_from=x", "trainer.evaluate_every_steps=4", "evals=[loss]", name="finetune")
    done = train({**values, "init_from": str(start), "objective": node})
    assert said_once(log, f"{(~used).sum()} of {len(used)} training images", "left out")
    assert said_once(log, f" {table['study'][used].nunique()} studies")
    last = done.folder / "checkpoints" / "last.pt"
    weights = plain_checkpoint(last)["model"]["class_weights"]
    assert weights.tolist() == pytest.approx(used.sum() / (3 * positive[used].sum(axis=0)))
    from cxrcl.commands.hydra import compose

    line = ["checkpoint=x", "evals=[loss]", "splits=[valid]", "device=cpu", "batch_size=8", "data.num_workers=0"]
    scored = evaluate(compose("evaluate", line) | {"checkpoint": str(last)})
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (trained,) = [line["loss/total"] for line in lines if "loss/total" in line]
    assert scored.results["loss"]["total"] == pytest.approx(trained, abs=1e-6) and trained > 0


# --------------------------------------------------------------------------------------------------------- slow ones


@pytest.mark.slow
def test_two_processes_begin_as_one_does(desk: Desk) -> None:
    overrides = [
        *[o for o in SMALL if not o.startswith(("image_encoder", "trainer.max_steps"))],
        *PHANTOM,
        "image_encoder=groupnorm",
        "image_encoder.size=32",
        "text_encoder.dropout=0",
        "evals=[]",
        "trainer.max_steps=3",
    ]
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    first = []
    for name, how in (("eins", ()), ("zwei", launcher)):
        desk.run("train.py", *overrides, f"name={name}", launcher=how)
        (folder,) = (desk.folder / "outputs" / name).iterdir()
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 3]
        first.append(lines[0]["train/loss"])
    shutil.rmtree(desk.folder / "outputs")
    assert abs(first[0] - first[1]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("films", [7, 9])
def test_two_processes_evaluate_exactly_as_one(desk: Desk, trained: tuple[Path, str], films: int) -> None:
    root = next((desk.folder / "dätä here").glob("phantom/*"))
    table = pd.read_csv(root / "manifest.csv", dtype=str, keep_default_na=False)
    scored = table[table["split"] == "test"].head(films)
    few = desk.folder / f"{films} films"
    few.mkdir()
    (few / "images").symlink_to(root / "images")
    pd.concat([table[table["split"] != "test"].head(40), scored]).to_csv(few / "manifest.csv", index=False)
    evals = "evals=[zero_shot,retrieval,view_only,representation]"
    common = [f"checkpoint='{trained[0]}'", f"data.root='{few}'", "batch_size=2", "device=cpu", evals, "resamples=20"]
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    written = []
    for name, how in (("one", ()), ("two", launcher)):
        desk.run("evaluate.py", *common, f"out='{few / name}'", launcher=how)
        results = json.loads((few / name / "results.json").read_text())
        assert results.pop("run")["environment"]["processes"] == len(written) + 1
        written.append([results, (few / name / "predictions.csv").read_bytes()])
    assert written[0] == written[1]


@pytest.mark.slow
def test_a_run_that_is_told_to_end_goes_on_to_the_same_weights(desk: Desk) -> None:
    import signal

    overrides = [*[o for o in SMALL if "max_steps" not in o], *PHANTOM, "evals=[]", "trainer.max_steps=150"]
    command = [sys.executable, str(ROOT / "train.py"), *overrides, "run_dir='unterbrochen'", "data.num_workers=2"]
    running = subprocess.Popen(command, cwd=desk.folder, env=desk.environment, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("step 5/"):
            running.send_signal(signal.SIGTERM)
            break
    rest = running.communicate(timeout=300)[0]
    assert running.returncode == 130 and "stopped after step" in rest
    desk.run("train.py", *overrides, "run_dir='unterbrochen'")
    desk.run("train.py", *overrides, "run_dir='am Stück'")
    one, other = (
        plain_checkpoint(desk.folder / name / "checkpoints" / "last.pt")["model"]
        for name in ("unterbrochen", "am Stück")
    )
    for name in ("unterbrochen", "am Stück"):
        shutil.rmtree(desk.folder / name)
    assert all(torch.equal(one[key], other[key]) for key in one)
