"""Weights of a checkpoint in the same model, in a sum that it is a part of, and in others."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import as_checkpoint
from helpers import PACKAGES, TinyImages, TinyTexts, batch_of, equal_everywhere, two_towers
from torch import nn

from cxrcl.app import restore
from cxrcl.app.model import build_model
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.checkpoint.file import load, save
from cxrcl.commands.hydra import compose
from cxrcl.errors import ConfigError
from cxrcl.objectives.base import Objective
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.simclr import SimClr
from cxrcl.types import Batch

LINEAR = {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6}
NODES: dict[str, dict[str, Any]] = {
    "clip": {"_target_": "cxrcl.objectives.clip.Clip", "image_head": LINEAR, "text_head": LINEAR},
    "simclr": {"_target_": "cxrcl.objectives.simclr.SimClr", "image_head": LINEAR},
    "moco": {"_target_": "cxrcl.objectives.moco.Moco", "image_head": LINEAR, "queue_size": 10},
    "classify": {"_target_": "cxrcl.objectives.classify.Classify"},
}
TOWERS = {"image_encoder": {"_target_": "helpers.TinyImages"}, "text_encoder": {"_target_": "helpers.TinyTexts"}}


def built(*names: str, labels: tuple[str, ...] = ("a", "b"), **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The objective, or the sum of several, and its checkpoint after its weights have moved."""
    torch.manual_seed(len(names))
    parts = {name: NODES[name] for name in names}
    added = {"_target_": "cxrcl.objectives.combined.Sum", "primary": names[0], "parts": parts, **changes}
    nodes = {"objective": added if len(names) > 1 else parts[names[0]], **TOWERS}
    model = build_model(nodes, labels, None, PACKAGES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    config = {"model": nodes, "labels": list(labels), "evaluated": restore.evaluated_part(model)}
    return model, {"model": copy.deepcopy(model.state_dict()), "config": config}


def start(model: Objective, state: dict[str, Any]) -> None:
    restore.init_from(model, as_checkpoint(state), "a file")


def batch(views: int, texts: int) -> Batch:
    images = torch.randn(5, views, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    ids = [[[1, 4 + k % 3, *[7 + n] * (k + 1), 2] for n in range(texts)] for k in range(5)]
    return batch_of(images, ids if texts else None, torch.tensor([[1.0, 0], [0, torch.nan], [1, 1], [0, 0], [1, 0]]))


def test_a_checkpoint_holds_each_tower_once_by_its_own_name(tmp_path: Path) -> None:
    model, state = built("clip", "simclr", "moco", "classify")
    assert {key.split(".")[0] for key in state["model"]} == {"image_encoder", "text_encoder", "parts"}
    assert not [key for key in state["model"] if key.startswith("parts.") and "_encoder" in key]
    save(as_checkpoint(state), tmp_path / "last.pt")
    restored = restore.restore_model(load(tmp_path / "last.pt"), PACKAGES)
    assert equal_everywhere(dict(restored.state_dict()), dict(model.state_dict()))
    given = batch(2, 1)
    assert torch.equal(restored(given).loss, model.eval()(given).loss)


def test_a_sum_that_reads_no_text_needs_no_text_encoder() -> None:
    model, state = built("simclr", "moco")
    assert model.num_texts == 0 and not any(name.startswith("text_encoder") for name in state["model"])
    assert getattr(model, "tokenizer", None) is None
    fresh, _ = built("simclr", "moco", weights={"moco": 2})
    start(fresh, state)
    assert equal_everywhere(dict(fresh.state_dict()), state["model"])
    assert built("clip", "moco")[0].tokenizer is not None


@pytest.mark.parametrize(
    ("source", "target"),
    [(("clip", "simclr"), ("classify",)), (("clip",), ("clip", "simclr")), (("clip", "classify"), ("moco", "clip"))],
)
def test_towers_travel_between_sums_and_single_objectives(source: tuple[str, ...], target: tuple[str, ...]) -> None:
    _, state = built(*source)
    model, _ = built(*target)
    assert not torch.equal(model.image_encoder.conv.weight, state["model"]["image_encoder.conv.weight"])
    start(model, state)
    own = model.state_dict()
    shared = [key for key in own if key.split(".")[0] in ("image_encoder", "text_encoder")]
    assert shared and all(torch.equal(own[key], state["model"][key]) for key in shared)
    for part in model.modules():
        if isinstance(part, Moco):
            assert torch.equal(part.key_tower[0].conv.weight, own["image_encoder.conv.weight"])


def test_an_objective_starts_from_the_primary_part_of_a_sum_and_the_other_way_round() -> None:
    (both, of_both), (alone, of_alone) = built("clip", "classify"), built("clip")
    start(alone, of_both)
    for name, value in both.parts["clip"].state_dict().items():
        assert torch.equal(alone.state_dict()[name], value), name
    start(both, of_alone)
    assert torch.equal(both.parts["clip"].log_scale, of_alone["model"]["log_scale"])
    assert torch.equal(both.image_encoder.conv.weight, of_alone["model"]["image_encoder.conv.weight"])


def test_only_the_part_with_labels_stays_new_where_they_are_others() -> None:
    _, state = built("clip", "classify", labels=("a", "b"))
    classifier, text_head = "parts.classify.classifier.weight", "parts.clip.text_head.layer.weight"
    model, fresh = built("clip", "classify", "simclr", labels=("b", "c"))
    start(model, state)
    assert torch.equal(model.state_dict()[classifier], fresh["model"][classifier])
    assert torch.equal(model.state_dict()[text_head], state["model"][text_head])
    same, _ = built("clip", "classify", "simclr", labels=("a", "b"))
    start(same, state)
    assert torch.equal(same.state_dict()[classifier], state["model"][classifier])


@pytest.mark.parametrize("name", ["clip_simclr", "clip_classify"])
def test_shipped_configs_build_and_overrides_reach_the_parts(name: str) -> None:
    def loss(*overrides: str) -> float:
        torch.manual_seed(0)
        nodes = {**TOWERS, "objective": compose("train", [f"objective={name}", *overrides])["objective"]}
        model = build_model(nodes, ("a", "b"), None, PACKAGES)
        return model(batch(model.num_views, model.num_texts)).loss.item()

    part = name.removeprefix("clip_")
    plain = loss()
    changed = {loss(f"objective.weights.{part}=2"), loss("objective.parts.clip.temperature=0.1")}
    assert len({plain, *changed}) == 3


# --------------------------------------------------------------------------------------------------------- other models


def checkpoint_of(model: nn.Module) -> Checkpoint:
    return as_checkpoint({"model": {name: value + 1 for name, value in model.state_dict().items()}})


@pytest.mark.parametrize(
    ("encoder", "matching"),
    [
        (TinyImages(width=4, norm=True), 1),  # other widths: a count of batches is a number in both
        (TinyImages(width=8), 2),  # no BatchNorm: its tensors are not there
    ],
)
def test_an_encoder_is_started_from_as_a_whole_or_not_at_all(encoder: TinyImages, matching: int) -> None:
    model = two_towers(Clip, image_encoder=TinyImages(width=8, norm=True))
    message = (
        f"init_from=x.pt: only {matching} of 7 tensors of image_encoder match: the architectures differ; "
        "set image_encoder=... to that of the checkpoint"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        restore.init_from(model, checkpoint_of(two_towers(Clip, image_encoder=encoder)), "x.pt")


def test_an_encoder_that_the_checkpoint_lacks_stays_as_it_is() -> None:
    model, images_only = two_towers(Clip, text_encoder=TinyTexts()), checkpoint_of(two_towers(SimClr))
    before = {name: value.clone() for name, value in model.text_encoder.state_dict().items()}
    restore.init_from(model, images_only, "x.pt")
    assert torch.equal(model.image_encoder.conv.weight, images_only.weights["image_encoder.conv.weight"])
    assert equal_everywhere(dict(model.text_encoder.state_dict()), before)


def test_a_checkpoint_that_shares_nothing_with_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^init_from=x\.pt: no tensor matches this model$"):
        restore.init_from(two_towers(SimClr), checkpoint_of(nn.Linear(2, 2)), "x.pt")
