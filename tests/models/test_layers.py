"""The layers that encoders tell: every parameter once, in the order of the computation, of the expected parts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import builders
import pytest
from helpers import TinyImages
from test_open_clip import BERT_SIZES, BIOMED, CLIP, PLAIN_TEXT, RESNET
from torch import nn

from cxrcl.models import layers
from cxrcl.models.base import Encoder, ImageEncoder
from cxrcl.models.huggingface import VisionTower
from cxrcl.models.image import TimmEncoder, TorchvisionEncoder
from cxrcl.models.open_clip import OpenClipImageTower, OpenClipTextTower
from cxrcl.models.patch_selection import TopKPatches
from cxrcl.models.text import BertText
from cxrcl.models.vit import ConvStemViT
from cxrcl.training.freezing import layer_numbers

GREY = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SMALL_VIT = {"width": 16, "depth": 3, "heads": 2, "size": 32}
VISION = {"patch_size": 8, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
SWIN = {"patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}


def vision(kind: str, **config: Any) -> VisionTower:
    pooling = "cls" if kind in ("vit", "clip_vision_model") else "mean"
    return VisionTower({"model_type": kind, "image_size": 32, **config}, *GREY, 32, pooling)


def bert(kind: str = "bert") -> BertText:
    return BertText({"model_type": kind, **builders.bert_sizes()}, builders.DEFINITION, max_length=20)


def open_clip_text(config: dict[str, Any], hf_config: dict[str, Any] | None = None) -> OpenClipTextTower:
    return OpenClipTextTower(config, builders.DEFINITION, 10, hf_config)


def features(name: str, **nodes: str) -> TorchvisionEncoder:
    return TorchvisionEncoder(name, 64, **nodes)


# By name: how it is made, how many layers it has, and of each of some layers a parameter that it must have.
FAMILIES: dict[str, tuple[Callable[[], Encoder], int, dict[int, str]]] = {
    "timm resnet": (partial(TimmEncoder, "resnet18", 32), 5, {0: "model.bn1.bias", 4: "model.layer4.1.bn2.bias"}),
    "timm densenet": (partial(TimmEncoder, "densenet121", 32), 5, {4: "model.features.norm5.bias"}),
    "timm convnext": (
        partial(TimmEncoder, "convnext_atto", 32),
        5,
        {0: "model.stem.0.bias", 4: "model.head.norm.bias"},
    ),
    "timm swin": (
        partial(TimmEncoder, "swin_tiny_patch4_window7_224", 56, options={"depths": (1, 1, 1, 1), "embed_dim": 24}),
        5,
        {0: "model.patch_embed.proj.weight", 2: "model.layers.1.downsample.norm.bias", 4: "model.norm.bias"},
    ),
    "timm vit": (
        partial(TimmEncoder, "test_vit", 160),
        7,
        {0: "model.pos_embed", 3: "model.blocks.2.norm1.bias", 6: "model.norm.bias"},
    ),
    "torchvision resnet": (partial(features, "resnet18"), 5, {0: "model.bn1.bias", 1: "model.layer1.0.bn1.bias"}),
    "torchvision densenet": (
        partial(features, "densenet121", local_node="features.norm5"),
        8,
        {0: "model.features.norm0.bias", 7: "model.features.norm5.bias"},
    ),
    "torchvision regnet": (
        partial(features, "regnet_y_400mf", local_node="trunk_output"),
        5,
        {0: "model.stem.0.weight", 1: "model.trunk_output.block1.block1-0.proj.0.weight"},
    ),
    "hf vit": (
        partial(vision, "vit", **VISION),
        4,
        {0: "model.embeddings.cls_token", 3: "model.layernorm.bias"},
    ),
    "hf swin": (partial(vision, "swin", **SWIN), 3, {2: "model.layernorm.bias"}),
    "hf clip": (partial(vision, "clip_vision_model", **VISION), 4, {}),
    "hf resnet": (
        partial(vision, "resnet", embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]),
        3,
        {0: "model.embedder.embedder.normalization.bias"},
    ),
    "convstem pre": (partial(ConvStemViT, **SMALL_VIT), 4, {0: "stem.0.bias", 3: "encoder.norm.bias"}),
    "convstem post": (partial(ConvStemViT, norm="post", **SMALL_VIT), 4, {0: "positions"}),
    "top-k": (
        lambda: TopKPatches(partial(ConvStemViT, **SMALL_VIT), num_patches=2),
        5,
        {0: "encoder.positions", 4: "scorer.layers.0.bias"},
    ),
    "open_clip vit": (
        partial(OpenClipImageTower, CLIP, *GREY),
        4,
        {0: "tower.class_embedding", 2: "tower.transformer.resblocks.1.ln_1.bias", 3: "tower.proj"},
    ),
    "open_clip vit without projection": (
        partial(OpenClipImageTower, CLIP, *GREY, projection=False),
        3,
        {2: "tower.ln_post.bias"},
    ),
    "open_clip resnet": (
        partial(OpenClipImageTower, RESNET, *GREY),
        6,
        {0: "tower.bn3.bias", 5: "tower.attnpool.c_proj.bias"},
    ),
    "open_clip timm": (partial(OpenClipImageTower, BIOMED, *GREY), 8, {7: "tower.head.proj.weight"}),
    "open_clip text": (
        partial(open_clip_text, {**CLIP, "text_cfg": {**PLAIN_TEXT, "vocab_size": 200}}),
        4,
        {0: "tower.positional_embedding", 3: "tower.text_projection"},
    ),
    "open_clip bert": (
        partial(open_clip_text, BIOMED, {"model_type": "bert", **builders.bert_sizes(**BERT_SIZES)}),
        4,
        {0: "tower.transformer.embeddings.LayerNorm.bias", 3: "tower.proj.0.weight"},
    ),
    "bert": (
        bert,
        3,
        {0: "model.embeddings.word_embeddings.weight", 2: "model.encoder.layer.1.output.LayerNorm.bias"},
    ),
    "electra": (partial(bert, "electra"), 3, {0: "model.embeddings.LayerNorm.bias"}),
    "distilbert": (
        lambda: BertText(
            {"model_type": "distilbert", "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 200},
            builders.DEFINITION,
        ),
        3,
        {2: "model.transformer.layer.1.output_layer_norm.bias"},
    ),
    "a user's own": (partial(TinyImages, norm=True), 1, {0: "norm.bias"}),
}


def used_in_order(encoder: Encoder) -> list[nn.Parameter]:
    """Parameters of modules in the order in which a forward pass enters them."""
    seen: dict[nn.Parameter, None] = {}
    hooks = [
        part.register_forward_pre_hook(lambda part, _: seen.update(dict.fromkeys(part.parameters(recurse=False))))
        for part in encoder.modules()
        if part is not encoder
    ]
    builders.features(encoder.eval())
    for hook in hooks:
        hook.remove()
    return list(seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_hold_every_parameter_once_from_the_input_to_the_output(family: str) -> None:
    make, count, some = FAMILIES[family]
    encoder = make()
    numbers, found = layer_numbers(encoder)
    assert found == count and set(numbers.values()) == set(range(count))
    named = dict(encoder.named_parameters())
    assert set(numbers) == set(named.values())
    for number, name in some.items():
        assert numbers[named[name]] == number, name
    names = {parameter: name for name, parameter in named.items()}
    # Parameters that lie beside modules are entered with their parent, before its parts.
    order = [(numbers[p], names[p]) for p in used_in_order(encoder) if names[p].rpartition(".")[0] not in ("tower",)]
    assert order and [number for number, _ in order] == sorted(number for number, _ in order), order


def test_tables_that_all_blocks_read_belong_to_the_embeddings() -> None:
    encoder = BertText(
        {"model_type": "mpnet", **builders.bert_sizes()}, builders.DEFINITION, max_length=20, attention="eager"
    )
    numbers, count = layer_numbers(encoder)
    table = encoder.model.encoder.relative_attention_bias.weight
    assert list(encoder.parameters())[-1] is table and (numbers[table], count) == (0, 3)


def test_a_network_without_a_list_of_blocks_is_one_layer() -> None:
    assert layers.of_stack(nn.Sequential(nn.Linear(2, 2))) == [["0.weight", "0.bias"]]


def test_a_model_of_timm_that_tells_no_groups_is_cut_at_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TimmEncoder("resnet10t", size=64)
    monkeypatch.delattr(type(encoder.model), "group_matcher")  # MetaFormer, PiT and RDNet have none
    numbers, count = layer_numbers(encoder)
    assert count == 6 and set(numbers.values()) == set(range(count))


class Own(ImageEncoder):
    def __init__(self, names: list[list[str]]) -> None:
        super().__init__()
        self.names = names
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def layer_names(self) -> list[list[str]]:
        return self.names


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([["first"]], "Own.layer_names(): 2 parameters are in no layer, such as second.weight"),
        ([["first"], ["second", "first.bias"]], "Own.layer_names(): first.bias is in layers 0 and 1"),
        ([["first", "third"]], "Own.layer_names(): layer 0 names third, which is neither a module nor a parameter"),
    ],
)
def test_layers_that_do_not_fit_are_an_error(names: list[list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        layer_numbers(Own(names))
    assert layer_numbers(Own([["first.weight"], ["first.bias", "second"]]))[1] == 2


def test_layers_are_those_of_the_rebuilt_tower() -> None:
    encoder = FAMILIES["open_clip bert"][0]()
    node = json.loads(json.dumps(encoder.node()))
    node.pop("_target_")
    assert OpenClipTextTower(**node).layer_names() == encoder.layer_names()
