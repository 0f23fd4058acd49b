"""Where a score comes from: closed forms, finite differences, and the layers that gradients are taken at."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from helpers import CharTokenizer, TinyImages, two_towers
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.errors import ConfigError
from cxrcl.inference import heatmaps
from cxrcl.models.base import ImageEncoder
from cxrcl.models.heads import MLP, Linear
from cxrcl.models.image import TimmEncoder
from cxrcl.models.patch_selection import TopKPatches
from cxrcl.models.vit import ConvStemViT
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.gloria import Gloria
from cxrcl.types import Features, ImageSpec, Text


def films(number: int = 3, side: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=dtype)


def directions(dim: int = 6) -> Tensor:
    return torch.randn(2, dim, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def clip() -> Any:
    return two_towers(Clip, temperature=0.07, targets="identity").eval()


def classifier(encoder: ImageEncoder) -> Any:
    torch.manual_seed(0)
    return Classify(encoder, ("a", "b")).eval()


# ------------------------------------------------------------------------------------------------- exact terms


def test_terms_of_a_cosine_are_those_of_the_projected_cells_and_their_mean_is_the_cosine(clip: Any) -> None:
    maps, kind = heatmaps.explain(clip, heatmaps.cosines(clip, directions(), "margin"), films())
    assert maps.shape == (3, 2, 4, 4) and "term of the margin" in kind and "exact" in kind
    with torch.no_grad():
        pooled, local = clip.encode_images(films())
        cosines = clip.embed_images(Features(pooled, local)) @ directions().T
        head = clip.image_head.layer
        for film in range(3):
            length = head(pooled[film]).norm()
            for k, cell in enumerate(local[film]):
                expected = (head.weight @ cell + head.bias) @ directions().T / length
                assert torch.allclose(maps[film, :, k // 4, k % 4], expected, atol=1e-6)
    assert torch.allclose(maps.mean(dim=(2, 3)), cosines, atol=1e-6)


def test_terms_of_log_odds_have_them_as_their_mean() -> None:
    model = classifier(TinyImages())
    maps, kind = heatmaps.explain(model, heatmaps.logits(model, [1]), films())
    with torch.no_grad():
        expected = model.classify(model.encode_images(films()))[:, 1:]
    assert maps.shape == (3, 1, 4, 4) and "exact" in kind
    assert torch.allclose(maps.mean(dim=(2, 3)), expected, atol=1e-6)


def test_a_term_belongs_to_its_cell(clip: Any) -> None:
    model = classifier(TinyImages())
    changed = films()
    changed[:, :, 4:8, 8:12] += 3  # row 1, column 2
    one, other = (heatmaps.explain(model, heatmaps.logits(model, [0]), x)[0][:, 0] for x in (films(), changed))
    differs = (one - other).abs() > 1e-6
    assert differs[:, 1, 2].all() and differs.sum() == 3


@pytest.mark.parametrize("what", ["mlp head", "class token", "one cell", "one of several classes", "layer norm"])
def test_terms_are_not_claimed_where_they_are_not_exact(what: str) -> None:
    encoder: ImageEncoder = TinyImages()
    if what in ("class token", "one cell"):
        encoder = ConvStemViT(16, 8, 2, 2) if what == "class token" else tiny("resnet", 32)
    model: Any = classifier(encoder)
    scores = heatmaps.logits(model, [0])
    if what == "mlp head":
        model = two_towers(Clip, temperature=0.07, targets="identity", image_head=partial(MLP, out_dim=6)).eval()
        scores = heatmaps.cosines(model, directions())
    if what == "one of several classes":
        model = Classify(encoder, ("a", "b", "c"), task="multi_class").eval()
        scores = heatmaps.logits(model, [0])
    if what == "layer norm":
        model.classifier = nn.Sequential(nn.LayerNorm(encoder.dim), model.classifier)
    for images in (films(side=encoder.spec.size), torch.zeros(2, 3, encoder.spec.size, encoder.spec.size)):
        assert heatmaps.explain(model, scores, images)[1].startswith("Grad-CAM of the ")


# ---------------------------------------------------------------------------------------------------- Grad-CAM


def tiny(name: str, size: int) -> TimmEncoder:
    return TimmEncoder(f"test_{name}", size)


@pytest.mark.parametrize(
    ("encoder", "layer"),
    [
        (partial(ConvStemViT, 32, 16, 3, 2), "encoder.layers.1"),
        (partial(ConvStemViT, 32, 16, 3, 2, pooling="mean"), "encoder.norm"),
        (partial(tiny, "resnet", 64), "model.layer4"),
        (partial(tiny, "vit", 160), "model.blocks.4"),
        (partial(tiny, "efficientnet", 64), "model.bn2"),
        (partial(tiny, "convnext", 64), "model.norm_pre"),
        (partial(tiny, "resnet", 32), "model.layer3"),  # where layer4 has one cell
    ],
    ids=["class token", "mean", "resnet", "timm vit", "efficientnet", "convnext", "one cell"],
)
def test_grad_cam_is_that_of_finite_differences_at_the_last_layer_with_a_grid(encoder: Any, layer: str) -> None:
    model = classifier(encoder()).double().requires_grad_(False)  # frozen: gradients of films are enough
    side = model.image_encoder.spec.size
    images = films(2, side, torch.float64)
    scores = heatmaps.ExplainedScores(
        lambda features: model.classifier(features.pooled), lambda features: features.local, ""
    )
    maps, found = heatmaps.grad_cam(model, scores, images)
    assert found == layer and maps.ndim == 4 and maps.shape[2] == maps.shape[3] > 1
    part = model.image_encoder.get_submodule(layer)
    tokens = "layers" in layer or "blocks" in layer or layer.endswith("encoder.norm")
    number = maps.shape[2] * maps.shape[3]

    def score(channel: int | None, step: float, kept: list[Tensor]) -> Tensor:
        """Scores [B, L] with `step` added to a channel in every cell of the layer's output."""

        def push(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            output = output.clone()
            cells = output[:, -number:] if tokens else output.flatten(2).transpose(1, 2)
            kept.append(cells.clone())
            if channel is not None:
                (output[:, -number:, channel] if tokens else output[:, channel]).add_(step)
            return output

        handle = part.register_forward_hook(push)
        with torch.no_grad():
            value = scores.scores(model.encode_images(images))
        handle.remove()
        return value

    kept: list[Tensor] = []
    score(None, 0.0, kept)
    channels = kept[0].shape[2]
    slopes = [(score(c, 1e-5, []) - score(c, -1e-5, [])) / 2e-5 for c in range(channels)]
    weights = torch.stack(slopes, dim=2) / number  # [B, L, C]
    expected = (weights @ kept[0].transpose(1, 2)).relu().view_as(maps)
    assert expected.abs().max() > 0 and torch.allclose(maps, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


def test_grad_cam_leaves_the_model_as_it_was_and_needs_no_company() -> None:
    model = classifier(ConvStemViT(32, 16, 2, 2))
    scores = heatmaps.logits(model, [0, 1])
    many = films(heatmaps.AT_A_TIME + 2, 32)
    with torch.no_grad():
        together, _ = heatmaps.explain(model, scores, many)
        alone = torch.cat([heatmaps.explain(model, scores, film[None])[0] for film in many])
    assert together.shape == (len(many), 2, 4, 4) and torch.allclose(together, alone, atol=1e-6)
    assert all(p.grad is None for p in model.parameters()) and not model.training
    assert not any(part._forward_hooks for part in model.modules())


def test_grad_cam_reaches_through_a_choice_of_patches() -> None:
    model = classifier(TopKPatches(partial(ConvStemViT, 32, 16, 2, 2), 3))
    maps, layer = heatmaps.grad_cam(model, heatmaps.logits(model, [0, 1]), films(side=32))
    assert layer == "encoder.encoder.norm" and maps.shape == (3, 2, 4, 4) and maps.max() > 0


class NoGrid(ImageEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.spec, self.dim, self.local_dim = ImageSpec(16, (0.5,) * 3, (0.25,) * 3), 4, 4
        self.layer = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Features:
        pooled = self.layer(images.mean(dim=(2, 3)))
        return Features(pooled, pooled[:, None])


def test_an_encoder_without_a_grid_is_told() -> None:
    model = classifier(NoGrid())
    with pytest.raises(ConfigError, match="NoGrid: no layer has a square grid"):
        heatmaps.explain(model, heatmaps.logits(model, [0]), films())


# ------------------------------------------------------------------------------------------- attention, patches


@pytest.fixture
def gloria() -> Any:
    heads = {"region_head": partial(Linear, out_dim=5, bias=False), "word_head": partial(Linear, out_dim=5)}
    return two_towers(Gloria, **heads).eval()


def test_attention_of_a_phrase_is_that_of_its_words_and_their_mean(gloria: Any) -> None:
    images = films(heatmaps.AT_A_TIME + 1)
    maps, words = heatmaps.attention(gloria, images, "left lung base")
    assert words == ["left", "lung", "base"] and maps.shape == (len(images), 4, 4, 4)
    assert torch.allclose(maps.sum(dim=(2, 3)), torch.ones(len(images), 4), atol=1e-5)
    assert torch.allclose(maps[:, 0], maps[:, 1:].mean(dim=1), atol=1e-6)
    text = Text(*(torch.tensor(part * len(images))[:, None] for part in CharTokenizer()(["left lung base"])))
    slots = gloria.attention(images, text)
    assert torch.allclose(maps[:, 1:].flatten(2), slots[:, 1:4], atol=1e-6)
    assert not torch.allclose(maps[:, 1], maps[:, 2])
    other, _ = heatmaps.attention(gloria, images, "right lung base")
    assert not torch.allclose(maps[:, 1], other[:, 1])


def test_words_are_named_where_they_can_be_counted() -> None:
    assert heatmaps.words_of("no left-sided effusion.", 6) == ["no", "left", "-", "sided", "effusion", "."]
    assert heatmaps.words_of("no effusion", 3) == ["word 1", "word 2", "word 3"]


def test_a_phrase_without_words_is_refused(gloria: Any) -> None:
    with pytest.raises(ConfigError, match="no words"):
        heatmaps.attention(gloria, films(), "")


def test_patches_are_those_that_the_encoder_chooses() -> None:
    torch.manual_seed(0)
    encoder = TopKPatches(partial(ConvStemViT, 32, 16, 2, 2), 3).eval()
    found = heatmaps.patches(encoder, films(side=32))
    with torch.no_grad():
        assert torch.equal(found.chosen, encoder.selected(films(side=32)))
        assert torch.equal(found.scores.flatten(1), encoder.scores(films(side=32)))
    assert found.scores.shape == (3, 4, 4) and found.chosen.shape == (3, 3)


def test_scores_are_cosines_of_unit_vectors(clip: Any) -> None:
    with torch.no_grad():
        features = clip.encode_images(films())
        found = heatmaps.cosines(clip, F.normalize(directions(), dim=1)).scores(features)
    assert found.shape == (3, 2) and (found.abs() <= 1 + 1e-6).all()
