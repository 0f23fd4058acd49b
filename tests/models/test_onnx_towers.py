"""Towers of every library as ONNX files, against the towers themselves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnxruntime
import pytest
import torch
from builders import CLIP, PLAIN_TEXT, SENTENCES, perturb, tensors
from helpers import TinyImages
from torch import Tensor

from cxrcl.export.onnx_export import write
from cxrcl.models.heads import MLP
from cxrcl.models.huggingface import VisionTower
from cxrcl.models.image import TimmEncoder, TorchvisionEncoder
from cxrcl.models.open_clip import OpenClipImage, OpenClipText
from cxrcl.models.patch_selection import TopKPatches
from cxrcl.models.text import HuggingFaceText
from cxrcl.models.vit import ConvStemViT
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.simclr import SimClr

RESNET = {**CLIP, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}}
# SigLIP's way to read a text: no causal mask, so that the padding counts.
BOTH_WAYS = {**CLIP, "text_cfg": {**PLAIN_TEXT, "no_causal_mask": True, "pool_type": "last"}}
NOWHERE = {"hf_model_name": "nowhere/no-bert", "hf_tokenizer_name": "nowhere/no-bert"}
BERT = {**NOWHERE, "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 30}
BERT_SIZES = {"hidden_size": 128, "num_attention_heads": 2}  # heads 64 wide
TIMM = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
BIOMED = {"embed_dim": 24, "vision_cfg": TIMM, "text_cfg": BERT}
SWIN = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2], "window_size": 2}
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    builders.refuse_network(monkeypatch)


def bert(folder: Path, kind: str = "bert", **settings: Any) -> str:
    (folder / kind).mkdir()
    builders.save_text(folder / kind, kind, **settings)
    return str(folder / kind)


def open_clip(folder: Path, config: dict[str, Any]) -> str:
    (folder / "model").mkdir()
    own = "timm_model_name" not in config["vision_cfg"]
    builders.save_open_clip(folder / "model", config, None if own else Path(bert(folder, **BERT_SIZES)))
    return str(folder / "model")


def vit(**settings: Any) -> ConvStemViT:
    return ConvStemViT(32, 32, 2, 2, **settings)


IMAGES = {
    "timm resnet": lambda _: TimmEncoder("test_resnet", 32),
    "timm resnet, recomputed": lambda _: TimmEncoder("test_resnet", 32, checkpointing=True),
    "timm resnet18, layer3": lambda _: TimmEncoder("resnet18", 64, local_layer=-2),
    "timm densenet": lambda _: TimmEncoder("densenet121", 32),
    "timm convnext": lambda _: TimmEncoder("convnext_atto", 32),
    "timm swin": lambda _: TimmEncoder("swin_tiny_patch4_window7_224", 64, options=SWIN),
    "timm vit": lambda _: TimmEncoder("vit_tiny_patch16_224", 48, options={"depth": 2}),
    "torchvision resnet": lambda _: TorchvisionEncoder("resnet18", 32),
    "conv stem": lambda _: vit(stem_norm="batch", norm="post"),
    "patchify, mean": lambda _: vit(stem="patchify", pooling="mean", checkpointing=True),
    "top k": lambda _: TopKPatches(vit, 4),
    "top k, concat": lambda _: TopKPatches(vit, 4, "concat", include_pooled=True),
    "top k, soft": lambda _: TopKPatches(vit, None, "soft"),
    "hugging face vit": lambda _: VisionTower({"model_type": "vit", "image_size": 32, **VISION}, *HALVES, 64),
    "open_clip vit": lambda folder: OpenClipImage(open_clip(folder, CLIP)),
    "open_clip resnet": lambda folder: OpenClipImage(open_clip(folder, RESNET)),
    "open_clip timm": lambda folder: OpenClipImage(open_clip(folder, BIOMED)),
}
TEXTS = {
    "bert, cls": lambda folder: HuggingFaceText(bert(folder), max_length=30),
    "bert, eos": lambda folder: HuggingFaceText(bert(folder), "eos", 30, last_layers=2, checkpointing=True),
    "roberta, mean": lambda folder: HuggingFaceText(bert(folder, "roberta"), "mean", 30),
    "open_clip": lambda folder: OpenClipText(open_clip(folder, CLIP)),
    "open_clip, both ways": lambda folder: OpenClipText(open_clip(folder, BOTH_WAYS)),
    "open_clip bert": lambda folder: OpenClipText(open_clip(folder, BIOMED)),
}


def some_slow(towers: dict[str, Any], *fast: str) -> list[Any]:
    return [pytest.param(make, id=k, marks=[] if k in fast else pytest.mark.slow) for k, make in towers.items()]


def assert_same(file: Path, expected: Tensor, *inputs: Tensor) -> None:
    session = onnxruntime.InferenceSession(file)
    names = [each.name for each in session.get_inputs()]
    (found,) = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    rows = expected.detach().numpy()
    largest = np.abs(rows).max()
    assert found.shape == rows.shape and np.abs(found - rows).max() < 1e-5 * max(1, largest)
    assert len(rows) == 1 or np.abs(rows - rows[0]).max() > 1e-2 * largest  # not the same whatever is given


@pytest.mark.parametrize("make", some_slow(IMAGES, "top k"))
def test_an_image_tower(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = perturb(SimClr(make(tmp_path), partial(MLP, out_dim=6)))
    size = model.image_encoder.spec.size
    (written,) = write(model, size, None, tmp_path)
    assert written.difference < 1e-5
    for count in (1, 4):
        films = torch.randn(count, 3, size, size) + torch.linspace(-2, 2, count).view(-1, 1, 1, 1)
        assert_same(tmp_path / "image.onnx", model.encode_images(films).pooled, films)


@pytest.mark.parametrize("make", some_slow(TEXTS, "bert, eos", "open_clip, both ways"))
def test_a_text_tower(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = perturb(Clip(TinyImages(), make(tmp_path), partial(MLP, out_dim=6), partial(MLP, out_dim=6)))
    written = write(model, 16, model.tokenizer.max_length, tmp_path)
    assert written[1].difference < 1e-5
    for texts in (["edema"], SENTENCES, ["left pleural effusion " * 20, "heart"]):
        inputs = tensors(model, texts)
        assert_same(tmp_path / "text.onnx", model.embed_text(*inputs), *inputs)
