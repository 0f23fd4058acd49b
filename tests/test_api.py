"""`cxrcl.load`: films and texts in, arrays out."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import as_checkpoint, plain_checkpoint, write_plain
from helpers import PACKAGES, ROOT, TinyImages
from PIL import Image

import cxrcl
from cxrcl import api
from cxrcl.app import restore as restoring
from cxrcl.app.model import build_model, build_transform, prepare
from cxrcl.commands.inference import main as inference
from cxrcl.data import manifest
from cxrcl.data.loader import BatchReader
from cxrcl.data.splits import Splits
from cxrcl.distributed import Runtime
from cxrcl.errors import CheckpointError, ConfigError, DataError
from cxrcl.evaluation.shared_pass import SharedPass, embedding_request

LINEAR = {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6}
CLIP = {"_target_": "cxrcl.objectives.clip.Clip", "image_head": LINEAR, "text_head": LINEAR}
SIMCLR = {"_target_": "cxrcl.objectives.simclr.SimClr", "image_head": LINEAR}
CLASSIFY = {"_target_": "cxrcl.objectives.classify.Classify"}
HEART = {"Big heart": {"pos": ["the heart is enlarged.", "cardiomegaly."], "neg": ["the heart is normal."]}}
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """`make(objective, **config)`: the trained checkpoint with another objective, or other settings, on its towers."""
    folder = tmp_path_factory.mktemp("made")

    def write(objective: dict[str, Any] | None = None, **config: Any) -> Path:
        state = plain_checkpoint(trained)
        state["config"] |= config
        if objective is not None:
            state["config"]["model"]["objective"] = objective
            torch.manual_seed(0)
            model = build_model(state["config"]["model"], state["config"]["labels"], None, PACKAGES)
            state["model"] = model.state_dict()
        path = folder / f"{len(list(folder.iterdir()))}.pt"
        write_plain(state, path)
        return path

    return write


@pytest.fixture(scope="module")
def model(trained: Path) -> api.Model:
    return cxrcl.load(trained, device="cpu")


@pytest.fixture(scope="module")
def films(tiny_set: Path) -> list[Path]:
    return [tiny_set / "images" / f"{name}.png" for name in ("0_pa", "1_pa", "2_pa", "0_lateral", "2_lateral")]


def near(one: np.ndarray, other: np.ndarray, within: float = 1e-6) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool(np.abs(one - other).max() < within)


# --------------------------------------------------------------------------------------------- the same numbers


def test_images_are_embedded_as_by_the_evaluators(trained: Path, tiny_set: Path, model: api.Model) -> None:
    runtime = Runtime(0, 1, torch.device("cpu"))
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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own.json").write_text(json.dumps(own))
    prompts = ["--prompts", str(tmp_path / "own.json")] if own else []
    images = [str(film) for film in films]
    arguments = ["inference.py", "--checkpoint", str(trained), "--json", *prompts, "--image", *images]
    monkeypatch.setattr(sys, "argv", arguments)
    inference()
    printed = json.loads(capsys.readouterr().out)
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


# --------------------------------------------------------------------------------------- batches, order, emptiness


def test_neither_batch_size_nor_order_changes_a_row(trained: Path, model: api.Model, films: list[Path]) -> None:
    texts = ["no effusion", "", "the heart is enlarged. there is an effusion on the left side.", "clips"]
    for size in (1, 2):
        other = cxrcl.load(trained, device="cpu", batch_size=size)
        for name in ("embed_images", "encode_images", "zero_shot"):
            rows = getattr(model, name)(films)
            assert near(getattr(other, name)(films[::-1])[::-1], rows), name
            assert np.abs(rows[0] - rows[1]).max() > 1e-5, name
        assert near(other.embed_texts(texts[::-1])[::-1], model.embed_texts(texts))


def test_batches_are_no_larger_than_asked(trained: Path, films: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    two = cxrcl.load(trained, device="cpu", batch_size=2)
    seen: list[int] = []
    encoder = two._loaded.objective.image_encoder
    encoder.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    two.embed_images(films)
    assert seen == [2, 2, 1]


def test_empty_lists_give_no_rows_of_the_right_width(model: api.Model, make: Make) -> None:
    assert model.embed_images([]).shape == model.embed_texts([]).shape == (0, 256)
    assert model.zero_shot([]).shape == (0, 3) and model.zero_shot([], HEART).shape == (0, 1)
    assert model.encode_images([]).shape == (0, model.encode_images([np.zeros((20, 20))]).shape[1])
    empty = cxrcl.load(make(CLASSIFY), device="cpu").classify([])
    assert empty.shape == (0, 3) and empty.dtype == np.float32


# ------------------------------------------------------------------------------------------------------ input


def test_films_in_memory_are_read_as_files_are(model: api.Model, films: list[Path], tmp_path: Path) -> None:
    eight = np.asarray(Image.open(films[0]))
    sixteen = (eight.astype(np.uint16) + 7) * 200
    Image.fromarray(sixteen).save(tmp_path / "sixteen.png")
    turned = Image.open(films[0])
    turned.getexif()[274] = 6  # to be shown turned by 90 degrees
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    for memory, file in (
        (eight, films[0]),
        (np.flip(np.flip(eight).copy()), films[0]),  # strides below zero
        (Image.open(films[0]), films[0]),
        (sixteen, tmp_path / "sixteen.png"),
        (sixteen / 1e5, tmp_path / "sixteen.png"),
        (Image.open(tmp_path / "sixteen.png"), tmp_path / "sixteen.png"),
        (Image.open(tmp_path / "turned.png"), tmp_path / "turned.png"),
    ):
        assert near(model.embed_images([memory]), model.embed_images([str(file)]))
    assert not near(model.embed_images([tmp_path / "turned.png"]), model.embed_images([films[0]]), 1e-4)


@pytest.mark.parametrize(
    ("film", "said"),
    [
        ("absent.png", "^absent.png: file not found"),
        (np.zeros((20, 20, 3)), r"^images\[1\]: .*found float64 \[20, 20, 3\]"),
        (np.zeros((8, 20)), r"^images\[1\]: 20 x 8 px: a side is below 16 px"),
        (np.full((20, 20), np.nan), r"^images\[1\]: no finite pixel"),
        (Image.fromarray(np.full((20, 20), np.nan, dtype=np.float32)), r"^images\[1\]: no finite pixel"),
        (torch.zeros(20, 20), r"^images\[1\]: .*found Tensor"),
    ],
)
def test_a_film_that_cannot_be_read_is_named_or_skipped(
    model: api.Model, films: list[Path], film: Any, said: str
) -> None:
    given = [films[0], film, films[1]]
    with pytest.raises(DataError, match=said):
        model.embed_images(given)
    for name in ("embed_images", "encode_images", "zero_shot"):
        rows = getattr(model, name)(given, skip_bad=True)
        assert np.isnan(rows[1]).all() and near(rows[[0, 2]], getattr(model, name)(films[:2]))
        assert np.isnan(getattr(model, name)([film], skip_bad=True)).all()


def test_a_truncated_image_of_pillow_is_named(model: api.Model, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(films[0].read_bytes()[:400])
    with pytest.raises(DataError, match=r"^images\[0\]: damaged image"):
        model.embed_images([Image.open(tmp_path / "cut.png")])


def test_a_single_thing_is_no_list(model: api.Model, films: list[Path]) -> None:
    for one in (str(films[0]), films[0], np.zeros((20, 20)), Image.open(films[0])):
        with pytest.raises(DataError, match=r"images: expected a list, found one .*: write \[image\]"):
            model.embed_images(one)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"texts: expected a list, found one str: write \[text\]"):
        model.embed_texts("no effusion")
    with pytest.raises(DataError, match=r"texts\[1\]: expected a string, found nan"):
        model.embed_texts(["no effusion", float("nan")])  # type: ignore[list-item]


def test_long_texts_are_cut(model: api.Model) -> None:
    long = "the heart is enlarged " * 100
    assert near(model.embed_texts([long]), model.embed_texts([long + "no effusion"]))
    assert not near(model.embed_texts(["the heart is enlarged"]), model.embed_texts(["no effusion"]), 1e-4)


# ----------------------------------------------------------------------------------------------------- labels


def test_names_stand_for_the_shipped_sentences_then_those_of_training(
    make: Make, model: api.Model, films: list[Path]
) -> None:
    other = cxrcl.load(make(prompt_sentences={**HEART, "Edema": {"pos": ["x"], "neg": ["y"]}}), device="cpu")
    every = model.zero_shot(films)
    assert near(other.zero_shot(films), every)
    for names, columns in ((["Edema", "No Finding"], [2, 0]), (["No Finding", "Edema"], [0, 2])):
        assert near(other.zero_shot(films, names), every[:, columns])
    assert near(other.zero_shot(films, ["Big heart"]), model.zero_shot(films, HEART))


def test_changed_sentences_change_the_result(model: api.Model, films: list[Path]) -> None:
    own = {"Big heart": {"pos": ["the heart is enlarged."], "neg": ["the heart is normal."]}}
    first = model.zero_shot(films, own)
    own["Big heart"]["pos"], own["Big heart"]["neg"] = own["Big heart"]["neg"], own["Big heart"]["pos"]
    assert near(model.zero_shot(films, own), 1 - first)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["Cardiomegally"], "no sentences for 'Cardiomegally' .did you mean `Cardiomegaly`"),
        (["Edema", "Edema"], "Edema is named twice"),
        ([], "expected one or more"),
        ({}, "expected one or more"),
        ("Edema", "expected a list"),
        ({"Edema": {"pos": ["edema."]}}, "'Edema' needs sentences on both sides"),
        ({"Edema": {"pos": ["edema."], "neg": "no edema."}}, "needs sentences on both sides"),
        ({"Edema": {"pos": ["edema."], "neg": [" "]}}, "needs sentences on both sides"),
        ({"Edema": ["edema.", "no edema."]}, "needs sentences on both sides"),
    ],
    ids=str,
)
def test_labels_without_sentences_are_errors(model: api.Model, films: list[Path], labels: Any, said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=f"labels: .*{said}|labels: {said}"):
        model.zero_shot(films, labels)


# -------------------------------------------------------------------------------------------------- abilities


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


# --------------------------------------------------------------------------------------------------- settings


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


# -------------------------------------------------------------------------------------------- the caller's process


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


# ---------------------------------------------------------------------------------------------------- heat-maps


def test_heat_maps_lie_on_the_films(model: api.Model, films: list[Path]) -> None:
    given = [films[0], np.asarray(Image.open(films[1])), Image.open(films[3])]
    maps = model.heatmap(given, label="Edema")
    assert [found.shape for found in maps] == [(40, 32), (40, 32), (32, 32)]
    assert all(found.dtype == np.float32 and np.isfinite(found).all() and found.max() > 0 for found in maps)
    alone = model.heatmap(given[:1], label="Edema")[0]
    assert near(alone, maps[0], 1e-5)
    assert not near(alone, model.heatmap(given[:1], label="Cardiomegaly")[0])
    assert not near(alone, model.heatmap(given[:1], phrase="edema")[0])


def test_a_map_of_an_exact_kind_has_the_score_as_its_mean(make: Make, films: list[Path]) -> None:
    encoder = {"_target_": "helpers.TinyImages", "size": 16}
    nodes = {**plain_checkpoint(make())["config"]["model"], "image_encoder": encoder, "objective": CLASSIFY}
    found = cxrcl.load(make(CLASSIFY, model=nodes), device="cpu", allow_packages=["helpers"])
    square = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    (map_,) = found.heatmap([square], label="Edema")
    logit = np.log(1 / (1 / found.classify([square])[0, 2] - 1))
    assert map_.mean() == pytest.approx(logit, rel=1e-4)


def test_what_the_model_does_not_see_is_nan(make: Make, films: list[Path]) -> None:
    transform = {**plain_checkpoint(make())["config"]["transform"], "fit": "crop"}
    (map_,) = cxrcl.load(make(transform=transform), device="cpu").heatmap(films[:1], label="Edema")
    assert np.isnan(map_[:4]).all() and np.isnan(map_[36:]).all() and np.isfinite(map_[4:36]).all()


def test_heat_maps_say_what_is_wrong(make: Make, model: api.Model, films: list[Path]) -> None:
    for arguments, said in (
        ({}, "expected a label or a phrase"),
        ({"label": "Edema", "phrase": "edema"}, "expected a label or a phrase"),
        ({"label": "Edma"}, "did you mean `Edema`"),
        ({"phrase": "..."}, "expected words"),
    ):
        with pytest.raises(ConfigError, match=said):
            model.heatmap(films, **arguments)
    with pytest.raises(DataError, match=r"absent\.png: file not found"):
        model.heatmap(["absent.png"], label="Edema")
    classifier = cxrcl.load(make(CLASSIFY), device="cpu")
    with pytest.raises(ConfigError, match="no label 'Edma'"):
        classifier.heatmap(films, label="Edma")
    with pytest.raises(ConfigError, match="not what Classify can do"):
        classifier.heatmap(films, phrase="edema")
