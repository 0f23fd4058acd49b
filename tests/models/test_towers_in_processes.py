"""Towers under DistributedDataParallel, which stops at the second step where a parameter had no gradient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
import transformers
from helpers import in_processes
from torch import Tensor, nn

from cxrcl.config.nodes import build
from cxrcl.distributed import Runtime
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.huggingface import HuggingFaceVision
from cxrcl.models.image import TimmEncoder, TorchvisionEncoder
from cxrcl.models.open_clip import OpenClipImage, OpenClipText
from cxrcl.models.patch_selection import TopKPatches
from cxrcl.models.text import HuggingFaceText
from cxrcl.models.vit import ConvStemViT
from cxrcl.training.freezing import freeze

SWIN = {"img_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 8, 12, 16]}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


class Pooled(nn.Module):
    """The least that an objective makes of a tower: a number of its pooled features."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.encoder(*inputs).pooled.square().mean()


def _two_steps(runtime: Runtime, folder: Path) -> dict[str, list[float]]:
    """The loss before and after a step, by the name of the tower."""
    losses = {}
    for name, node in json.loads((folder / "nodes.json").read_text()).items():
        torch.manual_seed(0)
        encoder = build(node, TextEncoder if name.startswith("text") else ImageEncoder, "encoder")
        if name.endswith("frozen"):
            freeze(encoder, [0, 1])
        inputs = builders.tensors(encoder) if name.startswith("text") else (builders.pictures(encoder.spec.size),)
        model = runtime.wrap(Pooled(encoder))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        losses[name] = []
        for _ in range(2):
            loss = model(*inputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    return losses


@pytest.mark.slow
def test_no_tower_has_parameters_without_a_gradient(tmp_path: Path) -> None:
    dino, bert = tmp_path / "dino", tmp_path / "bert"
    transformers.Dinov2Model(transformers.Dinov2Config(**VIT)).save_pretrained(dino)
    builders.save_text(bert, "pretraining")
    clip = tmp_path / "clip"
    clip.mkdir()
    builders.save_open_clip(clip, builders.CLIP)

    def stem() -> ImageEncoder:
        return ConvStemViT(size=32, width=16, depth=2, heads=2, pooling="mean")

    towers: dict[str, Any] = {
        "timm resnet": TimmEncoder("resnet10t", size=64),
        "timm swin": TimmEncoder("swin_tiny_patch4_window7_224", size=64, options=SWIN),
        "timm convnext": TimmEncoder("convnext_tiny", size=64, options=CONVNEXT, local_layer=-2),
        "timm vit, recomputed, frozen": TimmEncoder("test_vit", size=64, checkpointing=True),
        "torchvision": TorchvisionEncoder("resnet18", size=32),
        "convolutional stem": stem(),
        "top k": TopKPatches(stem, num_patches=3),
        "hugging face": HuggingFaceVision(str(dino)),
        "open_clip": OpenClipImage(str(clip)),
        "text bert": HuggingFaceText(str(bert), max_length=30),
        "text open_clip": OpenClipText(str(clip)),
        "text bert, recomputed, frozen": HuggingFaceText(str(bert), max_length=30, checkpointing=True),
    }
    (tmp_path / "nodes.json").write_text(json.dumps({name: tower.node() for name, tower in towers.items()}))
    one, other = in_processes(2, _two_steps, tmp_path)
    assert list(one) == list(towers) and one == other
    assert all(after != before for before, after in one.values()), one
