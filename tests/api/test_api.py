"""`cxrcl.load`: films and texts in, arrays out; the same numbers as those of the commands."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from api_models import CLASSIFY, CLIP, HEART, SIMCLR, Make
from checkpoints import as_checkpoint, plain_checkpoint, write_plain
from command_line import Command
from helpers import ALONE, PACKAGES, ROOT, TinyImages, near

import cxrcl
from cxrcl import api
from cxrcl.app import restore as restoring
from cxrcl.app.model import build_transform, prepare
from cxrcl.data import manifest
from cxrcl.data.loader import BatchReader
from cxrcl.data.splits import Splits
from cxrcl.errors import CheckpointError, ConfigError, DataError
from cxrcl.evaluation.shared_pass import SharedPass, embedding_request


def test_images_are_embedded_as_by_the_evaluators(trained: Path, tiny_set: Path, model: api.Model) -> None:
    runtime = ALONE
    state = plain_checkpoint(trained)
    clip: Any = restoring.restore_model(as_checkpoint(state))
    transform = build_transform(state["config"]["transform"], clip, PACKAGES)
    data = manifest.load(tiny_set)
    no_texts: Any = None
    splits = Splits(data, transform, no_texts, None, prepare(transform, runtime), BatchReader(0))
    with torch.no_grad():
        shared = SharedPass(clip, runtime, splits, 64, [embedding_request(clip, ["valid"])])
        expected = shared.rows("embedding", ["valid"])
    found = model.embed_images(splits.column("valid", "path"))
    assert near(found, expected.numpy()) and np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("own", [None, HEART], ids=["shipped prompts", "own prompts"])
def test_probabilities_are_those_that_inference_prints(
    trained: Path,
    model: api.Model,
    films: list[Path],
    own: dict[str, Any] | None,
    command: Command,
    tmp_path: Path,
) -> None:
    (tmp_path / "own.json").write_text(json.dumps(own))
    prompts = ["--prompts", tmp_path / "own.json"] if own else []
    _, out, _ = command("inference", "--checkpoint", trained, "--json", *prompts, "--image", *films)
    printed = json.loads(out)
    found = model.zero_shot(films, own)
    assert near(found, np.array([[*e["probabilities"].values()] for e in printed["images"]], dtype=np.float32))
    assert model.rule == printed["rule"]
    if own is None:
        assert model.labels == tuple(printed["images"][0]["probabilities"])


def test_a_classifier_gives_the_sigmoids_of_its_labels(make: Make, films: list[Path]) -> None:
    path = make(CLASSIFY)
    classifier = cxrcl.load(path, device="cpu")
    assert classifier.labels == ("No Finding", "Cardiomegaly", "Edema") and "sigmoid" in str(classifier.rule)
    last: Any = restoring.restore_model(as_checkpoint(plain_checkpoint(path))).classifier
    with torch.no_grad():
        expected = last(torch.from_numpy(classifier.encode_images(films))).sigmoid().numpy()
    assert near(classifier.classify(films), expected)


def test_of_a_sum_the_primary_part_is_read(make: Make, films: list[Path]) -> None:
    parts = {"simclr": SIMCLR, "clip": CLIP}
    both = cxrcl.load(
        make({"_target_": "cxrcl.objectives.combined.Sum", "primary": "clip", "parts": parts}), device="cpu"
    )
    assert both.zero_shot(films, HEART).shape == (5, 1) and both.embed_texts(["a"]).shape == (1, 6)
    assert "Clip (of a Sum)" in repr(both)


# ------------------------------------------------------------------------------------------------------------ abilities


def test_what_a_model_cannot_do_is_said_with_what_it_can(make: Make, model: api.Model, films: list[Path]) -> None:
    simclr = cxrcl.load(make(SIMCLR), device="cpu")
    assert simclr.encode_images(films).shape[0] == 5 and simclr.labels == () and simclr.rule is None
    for name in ("embed_images", "embed_texts", "zero_shot"):
        with pytest.raises(ConfigError, match=rf"^{name}: not what SimClr can do \(it has encode_images\); .*clip"):
            getattr(simclr, name)([])
    for other, said in ((simclr, "SimClr"), (model, "Clip")):
        with pytest.raises(ConfigError, match=rf"^classify: not what {said} can do .*finetune.py"):
            other.classify([])
    with pytest.raises(ConfigError, match=r"^zero_shot: not what Classify can do \(it has encode_images, classify\)"):
        cxrcl.load(make(CLASSIFY), device="cpu").zero_shot([])


def test_repr_says_what_it_is(model: api.Model, make: Make) -> None:
    for part in ("Clip", "step 2", "image_encoder TimmEncoder", "text_encoder BertText", "Edema", "cpu, float32"):
        assert part in repr(model)
    assert "labels: none" in repr(cxrcl.load(make(SIMCLR), device="cpu")) and model.step == 2


# ------------------------------------------------------------------------------------------------------------- settings


def test_precision_is_that_of_training_unless_said_otherwise(make: Make, model: api.Model, films: list[Path]) -> None:
    path = make(precision="bf16")
    coarse = cxrcl.load(path, device="cpu").embed_images(films)
    assert not near(coarse, model.embed_images(films), 1e-5) and near(coarse, model.embed_images(films), 0.05)
    exact = cxrcl.load(path, device="cpu", precision="fp32")
    images, texts = model.embed_images(films), model.embed_texts(["no effusion"])
    assert near(exact.embed_images(films), images) and coarse.dtype == np.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the caller's own
        assert near(exact.embed_images(films), images) and near(exact.embed_texts(["no effusion"]), texts)


def test_a_package_of_ones_own_is_admitted_by_name(make: Make, trained: Path, films: list[Path]) -> None:
    towers = {**plain_checkpoint(trained)["config"]["model"], "image_encoder": TinyImages().node()}
    path = make(SIMCLR, model=towers)
    with pytest.raises(ConfigError, match="helpers"):
        cxrcl.load(path, device="cpu")
    assert cxrcl.load(path, device="cpu", allow_packages=["helpers"]).encode_images(films).shape == (5, 8)


def test_arguments_that_cannot_be_used_are_errors(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(trained.read_bytes()[:-5000])
    for path in (tmp_path / "absent.pt", tmp_path / "cut.pt", str(tmp_path)):
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            cxrcl.load(path)
    for arguments, said in (
        ({"device": "tpu"}, "device=tpu: expected auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:99"}, "device=cuda:99: PyTorch finds"),
        ({"batch_size": 0}, "batch_size=0: expected 1 or more"),
        ({"precision": "int8"}, "precision=int8: expected auto, fp32"),
    ):
        with pytest.raises(ConfigError, match=said):
            cxrcl.load(trained, **arguments)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- the caller's process


def test_the_process_stays_as_it_was(trained: Path, films: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):  # as torchrun would set them
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS")

    def settings() -> list[Any]:
        found: list[Any] = [torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()]
        return [*found, torch.get_rng_state().tolist(), torch.distributed.is_initialized(), torch.is_autocast_enabled()]

    before = settings()
    model = cxrcl.load(trained, device="cpu")
    model.zero_shot(films)
    with pytest.raises(DataError):
        model.embed_images(["absent.png"])
    assert settings() == before
    assert not model._loaded.objective.training


def test_the_checkpoint_is_enough(trained: Path, films: list[Path], model: api.Model, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.pt"
    shutil.copyfile(trained, moved)
    alone = cxrcl.load(str(moved), device="cpu")
    moved.unlink()
    assert near(alone.zero_shot(films), model.zero_shot(films))


def test_a_setting_of_another_version_names_the_file(trained: Path, tmp_path: Path) -> None:
    state = plain_checkpoint(trained)
    state["config"]["transform"]["blur_px"] = 0.5
    write_plain(state, tmp_path / "old.pt")
    with pytest.raises(ConfigError, match=r"old\.pt: transform\.blur_px=0\.5"):
        cxrcl.load(tmp_path / "old.pt")


def test_load_is_an_attribute_of_the_package() -> None:
    assert cxrcl.load is api.load and "load" in dir(cxrcl)
    with pytest.raises(AttributeError, match="module 'cxrcl' has no attribute 'laod'"):
        cxrcl.laod  # type: ignore[attr-defined]  # noqa: B018


def test_the_page_runs(
    trained: Path, make: Make, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run, path in (("demo", trained), ("classifier", make(CLASSIFY))):
        (tmp_path / "outputs" / run / "checkpoints").mkdir(parents=True)
        shutil.copyfile(path, tmp_path / "outputs" / run / "checkpoints" / "best.pt")
    for k, film in enumerate(films):
        patient = tmp_path / "data" / "phantom" / "set" / "images" / f"p{k}"
        patient.mkdir(parents=True)
        shutil.copyfile(film, patient / "s01_pa.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) > 2 and names["scores"].shape == (5, 3)
