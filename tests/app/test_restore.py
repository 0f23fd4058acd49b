"""Weights of a checkpoint in another model."""

from __future__ import annotations

import re

import pytest
import torch
from checkpoints import as_checkpoint
from helpers import TinyImages, TinyTexts, equal_everywhere, two_towers
from torch import nn

from cxrcl.app import restore
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.errors import ConfigError
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.simclr import SimClr


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
