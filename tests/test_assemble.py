"""What is said about the towers of a run."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from helpers import TinyImages

from cxrcl import assemble
from cxrcl.models.heads import Linear
from cxrcl.models.patch_selection import TopKPatches
from cxrcl.objectives.moco import Moco


class Loaded(TinyImages):
    load_report: Any = "7 tensors matched"


class Fresh(TinyImages):
    load_report = None


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (Loaded, "image_encoder: 7 tensors matched\n"),
        (partial(TopKPatches, Loaded, num_patches=2), "image_encoder.encoder: 7 tensors matched\n"),
        (Fresh, ""),
        (TinyImages, ""),
    ],
)
def test_what_was_loaded_is_said_once_for_each_tower(encoder: Any, said: str, capsys: Any) -> None:
    assemble.say_what_was_loaded(Moco(encoder(), partial(Linear, out_dim=6), queue_size=4))  # has a copy of its tower
    assert capsys.readouterr().out == said
