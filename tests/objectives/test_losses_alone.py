"""Losses without an objective: their objectives' values, published numbers, two processes against one, examples."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from helpers import ALONE, TinyImages, assert_golden, golden, in_processes, two_towers, unit_rows
from torch import Tensor
from torch.nn import functional as F

from cxrcl.distributed import Runtime
from cxrcl.models.heads import Linear
from cxrcl.objectives import losses
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.convirt import ConVirt
from cxrcl.objectives.cxr_clip import CxrClip
from cxrcl.objectives.gloria import Gloria
from cxrcl.objectives.losses import (
    clip_loss,
    convirt_loss,
    cxr_clip_loss,
    gloria_loss,
    moco_loss,
    multi_class_loss,
    multi_label_loss,
    nt_xent_loss,
    siglip_loss,
    tiled,
)
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.siglip import SigLip
from cxrcl.objectives.simclr import SimClr

COUNT = 8
IDENTITIES = torch.tensor([0, 1, 2, 0, 4, 0, 6, 2])  # with two processes, equal texts lie on both sides
TWO_IDENTITIES = torch.stack([IDENTITIES, torch.tensor([10, 11, 4, 13, 14, 13, 16, 17])], dim=1)
WORD_COUNTS = torch.tensor([3, 1, 4, 2, 4, 3, 1, 2])
LABELS = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 2, 1, 0, 1, 1]]
LABELS[[0, 1, 5]] = torch.nan  # of two processes one can use 2 samples and one 3


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


# ------------------------------------------------------------------------------------------- their objectives'


def image_and_text() -> tuple[Tensor, Tensor]:
    return unit_rows(1, COUNT, 1, 6), unit_rows(2, COUNT, 1, 6)


@pytest.mark.parametrize("identities", [None, IDENTITIES])
def test_losses_of_pairs_are_those_of_their_objectives(identities: Tensor | None) -> None:
    image, text = image_and_text()
    targets = {} if identities is None else {"text": identities[:, None]}
    clip, siglip = two_towers(Clip, torch.float64), two_towers(SigLip, torch.float64)
    convirt = two_towers(ConVirt, torch.float64, tau=0.3, lambda_=0.6)
    alone = {
        clip: clip_loss(image[:, 0], text[:, 0], clip.log_scale.exp(), identities),
        siglip: siglip_loss(image[:, 0], text[:, 0], siglip.log_scale.exp(), siglip.bias, identities),
        convirt: convirt_loss(image[:, 0], text[:, 0], 0.3, 0.6, identities),
    }
    for objective, loss in alone.items():
        assert torch.equal(loss, objective.loss({"image": image, "text": text}, targets).loss)


@pytest.mark.parametrize("identities", [None, TWO_IDENTITIES])
def test_the_loss_of_cxr_clip_is_that_of_its_objective(identities: Tensor | None) -> None:
    images, texts = unit_rows(1, COUNT, 2, 6), unit_rows(2, COUNT, 2, 6)
    settings = {"image_weight": 0.7, "text_weight": 0.3, "label_smoothing": 0.1}
    model = two_towers(CxrClip, torch.float64, **settings)
    output = model.loss({"image": images, "text": texts}, {} if identities is None else {"text": identities})
    assert torch.equal(cxr_clip_loss(images, texts, model.log_scale.exp(), identities, **settings), output.loss)


def test_the_loss_of_gloria_is_that_of_its_objective() -> None:
    heads = {"region_head": partial(Linear, out_dim=5), "word_head": partial(Linear, out_dim=5)}
    settings = {"attention_scale": 3.0, "word_scale": 2.0, "scale": 6.0, "aggregation": "mean", "local_weight": 0.5}
    (image, text), regions, words = image_and_text(), normal(3, COUNT, 9, 5), normal(4, COUNT, 4, 5)
    embeddings = {"image": image, "text": text, "regions": regions, "words": words}
    model = two_towers(Gloria, torch.float64, **heads, **settings)
    output = model.loss(embeddings, {"text": IDENTITIES[:, None], "counts": WORD_COUNTS})
    alone = gloria_loss(image[:, 0], text[:, 0], regions, words, WORD_COUNTS, IDENTITIES, **settings)
    assert torch.equal(alone, output.loss)


def test_losses_of_images_are_those_of_their_objectives() -> None:
    views = unit_rows(1, COUNT, 2, 6)
    simclr = two_towers(SimClr, torch.float64, temperature=0.3)
    assert torch.equal(nt_xent_loss(*views.unbind(1), 0.3), simclr.loss({"image": views}, {}).loss)
    moco = two_towers(Moco, torch.float64, queue_size=16, temperature=0.3)
    query, key = views[:, :1], views[:, 1:].detach()
    alone = moco_loss(query[:, 0], key[:, 0], moco.queue, 0.3)
    assert torch.equal(alone, moco.loss({"query": query}, {"key": key}).loss)


@pytest.mark.parametrize(("task", "loss"), [("multi_label", multi_label_loss), ("multi_class", multi_class_loss)])
def test_losses_of_labels_are_those_of_the_classifier(task: Any, loss: Callable[..., Tensor]) -> None:
    weights, logits = {"a": 3.0, "c": 0.5}, normal(5, COUNT, 3)
    model = Classify(TinyImages(), ("a", "b", "c"), task=task, class_weights=weights, focal_gamma=1.5).double()
    output = model.loss({"logits": logits}, {"labels": LABELS})
    alone = loss(logits, LABELS, torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64), 1.5)
    assert torch.equal(alone, output.loss)
    plain = Classify(TinyImages(), ("a", "b", "c"), task=task).double().loss({"logits": logits}, {"labels": LABELS})
    assert torch.equal(loss(logits, LABELS), plain.loss)


# ------------------------------------------------------------------------------------------- published numbers


def unit(value: Tensor) -> Tensor:
    return F.normalize(value, dim=-1)


def published(name: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    inputs, values = golden(name)
    return inputs, values, json.loads(str(values["meta"]))


def test_published_numbers_of_clip_and_siglip() -> None:
    inputs, values, _ = published("clip")
    assert_golden(inputs, values, clip_loss(inputs["image"], inputs["text"], inputs["logit_scale"]), within=1e-5)
    inputs, values, _ = published("siglip")
    loss = siglip_loss(inputs["image"], inputs["text"], inputs["logit_scale"], inputs["logit_bias"])
    assert_golden(inputs, values, loss, within=1e-5)


@pytest.mark.parametrize(
    ("name", "temperature", "weight"), [("convirt", "tau", "lambda_"), ("convirt_colab", "temperature", "alpha_weight")]
)
def test_published_numbers_of_convirt(name: str, temperature: str, weight: str) -> None:
    inputs, values, meta = published(name)  # raw vectors: the gradients go through the normalisation
    loss = convirt_loss(unit(inputs["image"]), unit(inputs["text"]), meta[temperature], meta[weight])
    assert_golden(inputs, values, loss, within=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_published_numbers_of_cxr_clip(smoothing: float) -> None:
    inputs, values, meta = published(f"cxr_clip_smoothing{smoothing}")
    loss = cxr_clip_loss(
        torch.stack([inputs["image"], inputs["image_view"]], dim=1),
        torch.stack([inputs["text"], inputs["text2"]], dim=1),
        inputs["logit_scale"],
        image_weight=meta["i2i_weight"],
        text_weight=meta["t2t_weight"],
        label_smoothing=meta["label_smoothing"],
    )
    assert_golden(inputs, values, loss, within=1e-5)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_published_numbers_of_simclr(tau: float) -> None:
    inputs, values, meta = published(f"simclr_tau{tau}")
    loss = nt_xent_loss(unit(inputs["view1"]), unit(inputs["view2"]), meta["temperature"])
    assert_golden(inputs, values, loss, within=1e-10)


def test_published_numbers_of_moco() -> None:
    inputs, values, meta = published("moco")
    key, queue = inputs["key"].detach(), inputs["queue"].detach()
    loss = moco_loss(unit(inputs["query"]), unit(key), queue, meta["temperature"])
    assert_golden({"query": inputs["query"]}, values, loss, within=1e-10)


def test_published_numbers_of_both_parts_of_gloria() -> None:
    inputs, values, meta = published("gloria_global")
    image, text = unit(inputs["image"]), unit(inputs["text"])
    values["out_loss"] = values["out_loss_image_to_text"] + values["out_loss_text_to_image"]
    no_words = {"regions": torch.zeros(6, 1, 1), "words": torch.zeros(6, 1, 1), "counts": torch.ones(6).long()}
    loss = gloria_loss(image, text, **no_words, scale=meta["temp3"], local_weight=0.0)
    assert_golden(inputs, values, loss, within=1e-5)
    for aggregation in ("sum", "mean"):
        inputs, values, meta = published(f"gloria_local_{aggregation}")
        values["out_loss"] = values["out_loss_image_to_text"] + values["out_loss_text_to_image"]
        loss = gloria_loss(
            image.detach(),
            text.detach(),
            inputs["image_regions"].flatten(2).transpose(1, 2),
            inputs["word_embeddings"].transpose(1, 2),
            inputs.pop("word_counts"),
            attention_scale=meta["temp1"],
            word_scale=meta["temp2"],
            scale=meta["temp3"],
            aggregation=meta["agg"],
            global_weight=0.0,
        )
        assert_golden(inputs, values, loss, within=1e-5)


# ---------------------------------------------------------------------------------------------- two processes

Rows = dict[str, Tensor]


def pairs(dim: int = 6, views: int = 0) -> Rows:
    shape = (COUNT, views, dim) if views else (COUNT, dim)
    return {"first": unit_rows(1, *shape), "second": unit_rows(2, *shape)}


LOSSES: dict[str, tuple[Callable[[Rows], Tensor], Callable[[], Rows], int]] = {
    # name: (the loss of rows by name, all rows, logits from which on tiles are used)
    "clip": (lambda x: clip_loss(x["first"], x["second"], x["scale"], x["texts"]), pairs, 1000),
    "clip, identity": (lambda x: clip_loss(x["first"], x["second"], x["scale"]), pairs, 1000),
    "clip, tiled": (lambda x: clip_loss(x["first"], x["second"], x["scale"], x["texts"]), pairs, 1),
    "convirt": (lambda x: convirt_loss(x["first"], x["second"], 0.3, 0.6, x["texts"]), pairs, 1000),
    "siglip": (lambda x: siglip_loss(x["first"], x["second"], x["scale"], x["bias"], x["texts"]), pairs, 1000),
    "cxr_clip": (
        lambda x: cxr_clip_loss(x["first"], x["second"], x["scale"], x["two_texts"], label_smoothing=0.1),
        lambda: pairs(views=2),
        1000,
    ),
    "nt_xent": (lambda x: nt_xent_loss(x["first"], x["second"], 0.3), pairs, 1000),
    "nt_xent, tiled": (lambda x: nt_xent_loss(x["first"], x["second"], 0.3), pairs, 1),
    "moco": (lambda x: moco_loss(x["first"], x["second"].detach(), unit_rows(3, 16, 6).detach()), pairs, 1000),
    "gloria": (
        lambda x: gloria_loss(x["first"], x["second"], x["regions"], x["words"], x["counts"], x["texts"]),
        lambda: {**pairs(), "regions": normal(3, COUNT, 9, 5), "words": normal(4, COUNT, 4, 5)},
        1000,
    ),
    "multi_label": (
        lambda x: multi_label_loss(x["logits"], x["labels"], 3.0, 1.0),
        lambda: {"logits": normal(5, COUNT, 3)},
        1000,
    ),
    "multi_class": (
        lambda x: multi_class_loss(x["logits"], x["labels"], focal_gamma=1.0),
        lambda: {"logits": normal(5, COUNT, 3)},
        1000,
    ),
}


def value_and_gradients(name: str, runtime: Runtime) -> Rows:
    """The mean loss, the gradient of every row of all processes, and the mean gradients of scale and bias."""
    loss_of, rows_of, tiled_from = LOSSES[name]
    share = slice(runtime.shard(COUNT).start, runtime.shard(COUNT).stop)
    rows = {key: value.detach()[share].requires_grad_() for key, value in rows_of().items()}
    fixed = {"texts": IDENTITIES, "two_texts": TWO_IDENTITIES, "counts": WORD_COUNTS, "labels": LABELS}
    learned = {"scale": scalar(6.5), "bias": scalar(-1.5)}
    with mock.patch.object(tiled, "MAX_LOGITS", tiled_from), mock.patch.object(tiled, "TILE_CPU", 3):
        loss = loss_of({**rows, **learned, **{key: value[share] for key, value in fixed.items()}})
        (loss / runtime.world).backward()
    found = {"loss": runtime.mean(loss)}
    found |= {key: runtime.gather_rows(value.grad) for key, value in rows.items() if value.grad is not None}
    means = {key: value.grad for key, value in learned.items() if value.grad is not None}
    return found | {key: runtime.mean(value) * runtime.world for key, value in means.items()}


def of_two_samples(runtime: Runtime) -> dict[str, float]:
    """Losses of two samples, shared by the processes."""
    rows = [unit_rows(seed, 2, 6)[runtime.shard(2)] for seed in (1, 2)]
    losses = {"clip": clip_loss(*rows, 6.5), "nt_xent": nt_xent_loss(*rows)}
    return {name: runtime.mean(loss).item() for name, loss in losses.items()}


def work(runtime: Runtime, folder: Path) -> dict[str, Any]:
    found = {name: value_and_gradients(name, runtime) for name in LOSSES}
    return {**found, "of two samples": of_two_samples(runtime)}


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_processes(2, work, tmp_path_factory.mktemp("group"))


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_have_the_value_and_gradients_of_one(group: list[dict[str, Any]], name: str) -> None:
    alone = value_and_gradients(name, ALONE)
    assert len(alone) > 1 and all(value.abs().max() > 1e-6 for value in alone.values())
    for found in group:
        assert found[name].keys() == alone.keys()
        for key, value in alone.items():
            assert (found[name][key] - value).abs().max() < 1e-10, key


def test_each_process_may_have_a_single_sample(group: list[dict[str, Any]]) -> None:
    for found in group:
        assert found["of two samples"] == pytest.approx(of_two_samples(ALONE), abs=1e-10)


# --------------------------------------------------------------------------------------------------- the doors


def public_losses() -> dict[str, Callable[..., Tensor]]:
    return {name: getattr(losses, name) for name in losses.__all__ if name.endswith("_loss")}


def test_nothing_is_asked_of_torch_distributed_but_whether_it_is_initialised() -> None:
    assert not torch.distributed.is_initialized()
    with mock.patch("torch.distributed.all_gather", side_effect=AssertionError):
        for name in LOSSES:
            assert torch.isfinite(value_and_gradients(name, ALONE)["loss"])


def test_numbers_may_stand_for_scalars() -> None:
    image, text = unit_rows(1, 5, 6), unit_rows(2, 5, 6)
    assert torch.equal(clip_loss(image, text, 6.5), clip_loss(image, text, scalar(6.5)))
    assert torch.equal(siglip_loss(image, text, 6.5, -1.5), siglip_loss(image, text, scalar(6.5), scalar(-1.5)))


def test_logs_are_parts_of_the_loss_without_gradient() -> None:
    (image, text), logs = (rows[:, 0] for rows in image_and_text()), {}
    loss = convirt_loss(image, text, image_to_text_weight=0.6, text_identities=IDENTITIES, logs=logs)
    assert list(logs) == ["loss", "image_to_text", "text_to_image", "equal_texts"]
    assert not any(value.requires_grad for value in logs.values())
    assert torch.equal(0.6 * logs["image_to_text"] + 0.4 * logs["text_to_image"], loss.detach())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: clip_loss(a, b[:4], 1.0), r"shapes \[5, 6\], \[4, 6\]: expected the same"),
        (lambda a, b: convirt_loss(a[0], b[0]), r"shapes \[6\], \[6\]: expected the same"),
        (lambda a, b: clip_loss(a, b, 1.0, torch.arange(4)), r"text identities of shape \[4, 1\]: expected \[5,"),
        (lambda a, b: siglip_loss(a[:1], b[:1], 1.0, 0.0), "two samples or more, found 1"),
        (lambda a, b: cxr_clip_loss(a, b, 1.0), r"images \[5, 6\] and texts \[5, 6\]: expected \[B, 2, D\]"),
        (
            lambda a, b: cxr_clip_loss(a[:, None].expand(5, 2, 6), b[:, None].expand(5, 2, 6), 1.0, torch.arange(5)),
            r"text_identities \[5\]: expected \[5, 2\]",
        ),
        (lambda a, b: nt_xent_loss(a, b[:, :3]), r"shapes \[5, 6\], \[5, 3\]: expected the same"),
        (lambda a, b: moco_loss(a, b[:3], a), r"query \[5, 6\] and key \[3, 6\]"),
        (lambda a, b: gloria_loss(a, b, a, b, torch.ones(5)), r"regions \[5, 6\], words \[5, 6\], counts \[5\]"),
        (lambda a, b: multi_label_loss(a, b[0]), r"logits \[5, 6\] and labels \[6\]"),
        (lambda a, b: multi_class_loss(a, b[:, :3]), r"logits \[5, 6\] and labels \[5, 3\]"),
    ],
)
def test_shapes_that_do_not_suit_are_named(call: Callable[[Tensor, Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(unit_rows(1, 5, 6), unit_rows(2, 5, 6))


def test_every_loss_says_what_it_is_and_has_an_example() -> None:
    assert len(public_losses()) == 9
    for name, loss in public_losses().items():
        text = inspect.getdoc(loss) or ""
        for part in ("Args:", "Returns:", "Raises:", "Example:", "float [b, "):
            assert part in text, (name, part)


@pytest.mark.parametrize("module", [m.name for m in pkgutil.walk_packages(losses.__path__, losses.__name__ + ".")])
def test_examples_give_what_they_show(module: str) -> None:
    torch.manual_seed(0)
    assert doctest.testmod(importlib.import_module(module)).failed == 0
