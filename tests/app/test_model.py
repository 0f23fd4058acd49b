"""What is said about the towers of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TinyImages, two_towers

from cxrcl.app.check import check_encoder_folders
from cxrcl.app.model import prompt_directions, say_what_was_loaded
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.errors import ConfigError
from cxrcl.models.heads import Linear
from cxrcl.models.patch_selection import TopKPatches
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.moco import Moco


def test_what_encoders_lack_inside_of_others_is_told_with_the_rest(tmp_path: Path) -> None:
    timm = {"_target_": "cxrcl.models.image.TimmEncoder", "name": "resnet18", "weights": str(tmp_path / "none.pth")}
    image = {"_target_": "cxrcl.models.patch_selection.TopKPatches", "encoder": timm}
    text = {"_target_": "cxrcl.models.text.HuggingFaceText", "name": str(tmp_path / "none")}
    with pytest.raises(ConfigError) as caught:
        check_encoder_folders({"_target_": "cxrcl.objectives.clip.Clip"}, image, text, OWN_PACKAGES)
    assert str(caught.value) == (
        f"image_encoder.encoder: weights={tmp_path / 'none.pth'}: file not found; "
        f"text_encoder: name={tmp_path / 'none'}: no such folder"
    )


class Loaded(TinyImages):
    load_report: Any = "7 tensors matched"


class Fresh(TinyImages):
    load_report = None


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (Loaded, ["image_encoder: 7 tensors matched"]),
        (partial(TopKPatches, Loaded, num_patches=2), ["image_encoder.encoder: 7 tensors matched"]),
        (Fresh, []),
        (TinyImages, []),
    ],
)
def test_what_was_loaded_is_said_once_for_each_tower(encoder: Any, said: list[str], log: Any) -> None:
    say_what_was_loaded(Moco(encoder(), partial(Linear, out_dim=6), queue_size=4))  # has a copy of its tower
    assert log.messages == said


@pytest.mark.parametrize("labels", [(), ("Ward 3",)], ids=["reports only", "labels without prompts"])
def test_without_prompts_for_its_labels_a_set_has_no_directions(labels: tuple[str, ...]) -> None:
    assert prompt_directions(two_towers(Clip), labels, torch.device("cpu")) is None
