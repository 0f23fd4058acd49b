"""Image towers of Hugging Face against transformers itself, with the network refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
import transformers
from builders import features, gradients, perturb, pictures, rewrite, unused
from safetensors.torch import load_file, save_file

from cxrcl.commands.hydra import compose
from cxrcl.config.nodes import build
from cxrcl.models.base import ImageEncoder
from cxrcl.models.huggingface import HuggingFaceVision
from cxrcl.models.image import IMAGENET_MEAN, IMAGENET_STD

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
FEED = {"intermediate_size": 32}
MAPS = {"hidden_sizes": [8, 16], "depths": [1, 1]}
# name, model, config, tokens before the patches, local features of 32 pixels
FAMILIES: dict[str, tuple[Any, Any, int, int]] = {
    "vit": (transformers.ViTModel, transformers.ViTConfig(**SIZES, **FEED), 1, 16),
    "deit": (transformers.DeiTModel, transformers.DeiTConfig(**SIZES, **FEED), 2, 16),
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config(**SIZES), 1, 16),
    "swin": (
        transformers.SwinModel,
        transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
        ),
        0,
        16,
    ),
    "convnext": (
        transformers.ConvNextModel,
        transformers.ConvNextConfig(**MAPS, num_stages=2, image_size=32),
        0,
        16,
    ),
    "resnet": (
        transformers.ResNetModel,
        transformers.ResNetConfig(**MAPS, embedding_size=8, layer_type="basic"),
        0,
        16,
    ),
    "clip": (
        transformers.CLIPModel,
        transformers.CLIPConfig(
            text_config={"vocab_size": 50, "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2},
            vision_config={**SIZES, **FEED},
        ),
        1,
        16,
    ),
}
TRANSFORMERS = ("vit", "deit", "dinov2", "clip")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    builders.refuse_network(monkeypatch)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Any]]:
    """(folder, the image model that transformers makes of it) of each family."""
    found = {}
    for name, (model, config, _, _) in FAMILIES.items():
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        made = perturb(model(config))
        made.save_pretrained(folder)
        found[name] = (str(folder), made.vision_model if name == "clip" else made)
    return found


def tower(saved: dict[str, tuple[str, Any]], name: str, **settings: Any) -> HuggingFaceVision:
    settings = {"size": 32, "pooling": "cls" if name in TRANSFORMERS else "mean", **settings}
    return HuggingFaceVision(saved[name][0], **settings)


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_transformers(saved: dict[str, tuple[str, Any]], name: str) -> None:
    _, _, prefix, count = FAMILIES[name]
    with torch.no_grad():
        theirs = saved[name][1](pixel_values=pictures(32))
    hidden = theirs.last_hidden_state
    tokens = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden
    poolings = {"mean": tokens[:, prefix:].mean(dim=1), "first_token": tokens[:, 0]}
    poolings["pooler"] = theirs.pooler_output.flatten(1)
    if prefix:
        poolings["cls"] = tokens[:, 0]
    for pooling, expected in poolings.items():
        encoder = tower(saved, name, pooling=pooling).eval()
        with torch.no_grad():
            pooled, local = features(encoder)
        assert (pooled - expected).abs().max() < 1e-5, pooling
        assert local.shape == (2, count, encoder.local_dim) and pooled.shape == (2, encoder.dim)
        assert (local - tokens[:, prefix:]).abs().max() < 1e-5
    if not prefix:
        with pytest.raises(ValueError, match=r"pooling=cls: .*Model has no class token, set pooling=mean, pooler or"):
            tower(saved, name, pooling="cls")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_every_trained_parameter_takes_part(saved: dict[str, tuple[str, Any]], name: str, pooling: str) -> None:
    encoder = tower(saved, name, pooling=pooling)
    assert unused(encoder) == []
    frozen = [key for key, parameter in encoder.named_parameters() if not parameter.requires_grad]
    assert frozen == (["model.embeddings.mask_token"] if name == "dinov2" else [])
    if pooling == "mean":
        assert not any("pooler" in key for key, _ in encoder.named_parameters())


@pytest.mark.parametrize("name", ["vit", "clip", "swin", "convnext"])
def test_another_size_interpolates_the_places(saved: dict[str, tuple[str, Any]], name: str) -> None:
    encoder = tower(saved, name, size=48).eval()
    with torch.no_grad():
        local = features(encoder).local
        places = {"interpolate_pos_encoding": True} if name in ("vit", "clip") else {}
        hidden = saved[name][1](pixel_values=pictures(48), **places).last_hidden_state
    assert encoder.spec.size == 48 and local.shape[1] == 36
    tokens = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden
    assert (local - tokens[:, -36:]).abs().max() < 1e-5


def test_a_size_that_patches_do_not_tile_is_one_line(saved: dict[str, tuple[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"size=30 is not a multiple of the patch of 8 pixels: set size=32$"):
        tower(saved, "vit", size=30)


def test_checkpointing_gives_the_same_gradients_and_runs_blocks_twice(saved: dict[str, tuple[str, Any]]) -> None:
    for name in ("vit", "swin"):
        plain, saving = (tower(saved, name, checkpointing=c) for c in (False, True))
        for (key, one), other in zip(gradients(plain).items(), gradients(saving).values(), strict=True):
            assert one is not None and other is not None and torch.allclose(one, other, atol=1e-5), key
        linear = [next(m for m in e.modules() if isinstance(m, torch.nn.Linear)) for e in (plain, saving)]
        once, more = (builders.passes_of(m, e) for m, e in zip(linear, (plain, saving), strict=True))
        assert once == 1 and more > 1, name  # stages of a Swin are recomputed as well as blocks


def test_normalisation_and_size_come_from_the_folder(saved: dict[str, tuple[str, Any]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["resnet"][0], tmp_path / "own"))
    spec = HuggingFaceVision(str(folder), pooling="mean").spec
    assert (spec.size, spec.mean, spec.std) == (224, IMAGENET_MEAN, IMAGENET_STD)
    content = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"shortest_edge": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    spec = HuggingFaceVision(str(folder), pooling="mean").spec
    assert (spec.size, spec.mean, spec.std) == (64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    given = HuggingFaceVision(str(folder), pooling="mean", size=32, mean=(0.0, 0.0, 0.0)).spec
    assert (given.size, given.mean, given.std) == (32, (0.0, 0.0, 0.0), (0.4, 0.5, 0.6))
    assert HuggingFaceVision(str(folder), pooling="mean", std=(1.0, 1.0, 1.0)).spec.std == (1.0, 1.0, 1.0)
    rewrite(folder / "preprocessor_config.json", do_normalize=False)
    assert HuggingFaceVision(str(folder), pooling="mean").spec.std == (1.0, 1.0, 1.0)


def test_nodes_rebuild_the_towers_without_folder_or_network(saved: dict[str, tuple[str, Any]], tmp_path: Path) -> None:
    towers = [tower(saved, name) for name in FAMILIES]
    towers.append(tower(saved, "vit", size=48, pooling="pooler", std=(0.1, 0.2, 0.3), checkpointing=True))
    towers.append(tower(saved, "swin", pooling="first_token"))
    builders.assert_rebuilt_elsewhere(tmp_path, towers)


def test_weights_under_the_heads_of_a_classifier_are_taken(tmp_path: Path) -> None:
    model = perturb(transformers.ViTForImageClassification(FAMILIES["vit"][1]))
    model.save_pretrained(tmp_path)
    encoder = HuggingFaceVision(str(tmp_path))
    assert str(encoder.load_report) == "38 tensors matched, 2 of known heads ignored"
    own = model.vit.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in encoder.model.state_dict().items())
    with pytest.raises(
        ValueError, match=r"38 tensors matched, 2 missing \(pooler\.dense\.bias, pooler\.dense\.weight\)"
    ):
        HuggingFaceVision(str(tmp_path), pooling="pooler")


def test_weights_that_do_not_fit_are_refused(saved: dict[str, tuple[str, Any]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["swin"][0], tmp_path / "own"))
    weights = load_file(folder / "model.safetensors")
    weights["layernorm.bias"] = torch.zeros(3)
    weights["strange"] = weights.pop("layernorm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError) as caught:
        HuggingFaceVision(str(folder), pooling="mean")
    assert str(caught.value) == (
        f"name={folder}: the weights do not fit the model: 41 tensors matched, 1 missing (layernorm.weight), "
        "1 unexpected (strange), 1 mismatched (layernorm.bias [3] for [16])"
    )


def test_half_precision_weights_become_single(saved: dict[str, tuple[str, Any]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["vit"][0], tmp_path / "own"))
    weights = {key: value.half() for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    rewrite(folder / "config.json", dtype="float16")
    assert features(HuggingFaceVision(str(folder))).pooled.dtype == torch.float32


def test_a_type_whose_code_is_in_the_folder_is_refused(saved: dict[str, tuple[str, Any]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["vit"][0], tmp_path / "own"))
    rewrite(folder / "config.json", model_type="mine", auto_map={"AutoModel": "code.Mine"})
    (folder / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ValueError, match=r"transformers has no model_type mine \(code inside of a folder is never run"):
        HuggingFaceVision(str(folder))


def test_the_shipped_config_takes_a_folder(saved: dict[str, tuple[str, Any]]) -> None:
    overrides = ["image_encoder=huggingface", f"image_encoder.name={saved['swin'][0]}"]
    encoder = build(compose("train", overrides)["image_encoder"], ImageEncoder, "image_encoder")
    assert features(encoder).pooled.shape == (2, 16)
