"""Objectives to put on the towers of the trained checkpoint, and sentences for a label of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

LINEAR = {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6}
CLIP = {"_target_": "cxrcl.objectives.clip.Clip", "image_head": LINEAR, "text_head": LINEAR}
SIMCLR = {"_target_": "cxrcl.objectives.simclr.SimClr", "image_head": LINEAR}
CLASSIFY = {"_target_": "cxrcl.objectives.classify.Classify"}
HEART = {"Big heart": {"pos": ["the heart is enlarged.", "cardiomegaly."], "neg": ["the heart is normal."]}}
Make = Callable[..., Path]
