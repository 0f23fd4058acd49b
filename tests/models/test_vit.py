"""The convolutional-stem transformer against PyTorch's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cxrcl.app.restore import load_matching_weights
from cxrcl.commands.hydra import compose
from cxrcl.config.nodes import build
from cxrcl.models.base import ImageEncoder
from cxrcl.models.vit import Block, ConvStemViT, resize_positions

SMALL: dict[str, Any] = {"size": 32, "width": 16, "depth": 2, "heads": 2}


def small(**arguments: Any) -> ConvStemViT:
    torch.manual_seed(0)
    return ConvStemViT(**{**SMALL, **arguments})


def images(height: int = 32, width: int | None = None) -> Tensor:
    return torch.randn(2, 3, height, width or height, generator=torch.Generator().manual_seed(1))


def weighted_loss(features: Tensor) -> Tensor:
    """A loss that LayerNorm does not make constant."""
    return (features * torch.linspace(-1, 2, features.shape[1])).square().sum()


# ------------------------------------------------------------------------------------------------------ shapes


def test_the_published_stem_has_these_shapes() -> None:
    encoder = ConvStemViT(size=224, width=384, depth=1, heads=6).eval()
    shapes = {name: tuple(p.shape) for name, p in encoder.stem.named_parameters()}
    assert shapes == {
        "0.weight": (192, 3, 3, 3),
        "0.bias": (192,),
        "2.weight": (384, 192, 3, 3),
        "2.bias": (384,),
        "4.weight": (384, 384, 3, 3),
        "4.bias": (384,),
    }
    assert encoder.positions.shape == (1, 785, 384) and encoder.class_token.shape == (1, 1, 384)
    with torch.no_grad():
        pooled, local = encoder(images(224)[:1])
    assert pooled.shape == (1, 384) and local.shape == (1, 784, 384)
    assert encoder.dim == encoder.local_dim == 384


@pytest.mark.parametrize(
    ("arguments", "kernels"),
    [
        ({"stem": "conv", "stride": 8}, [(8, 3, 3, 3), (16, 8, 3, 3), (16, 16, 3, 3)]),
        ({"stem": "conv", "stride": 16}, [(2, 3, 3, 3), (4, 2, 3, 3), (8, 4, 3, 3), (16, 8, 3, 3)]),
        ({"stem": "patchify", "stride": 8}, [(16, 3, 8, 8)]),
        ({"stem": "patchify", "stride": 16}, [(16, 3, 16, 16)]),
    ],
)
def test_stems_have_their_stride(arguments: dict[str, Any], kernels: list[tuple[int, ...]]) -> None:
    encoder = small(**arguments)
    found = [tuple(layer.weight.shape) for layer in encoder.stem if isinstance(layer, nn.Conv2d)]
    assert found == kernels
    assert encoder(images()).local.shape == (2, (32 // arguments["stride"]) ** 2, 16)


def test_tokens_are_the_cells_of_the_stem_in_rows() -> None:
    encoder = small()
    cells = encoder.stem(images(32, 48))
    encoder.encoder = nn.Identity()
    nn.init.zeros_(encoder.positions)
    local = encoder(images(32, 48)).local
    assert torch.equal(local[:, 1], cells[:, :, 0, 1]) and torch.equal(local[:, 6], cells[:, :, 1, 0])


# ------------------------------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_block_is_pytorchs_layer(norm: Any, activation: Any) -> None:
    torch.manual_seed(0)
    reference = nn.TransformerEncoderLayer(
        12, 3, 30, 0.0, activation=activation, batch_first=True, norm_first=norm == "pre"
    )
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.5)
    block = Block(12, 3, 30, norm, activation, 0.0)
    block.load_state_dict(reference.state_dict())
    tokens = torch.randn(2, 7, 12)
    assert (block(tokens) - reference(tokens)).abs().max() < 1e-5


class Reference(nn.Module):
    """The hybrid with the published names, made of PyTorch's modules."""

    def __init__(self, width: int, norm_first: bool) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, width // 2), (width // 2, width), (width, width))]
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Sequential(*(layer for c in convolutions for layer in (c, nn.ReLU())))
        self.pos_encoding = nn.Module()
        self.pos_encoding.pos_embed = nn.Parameter(torch.randn(1, 17, width))
        self.pos_encoding.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.transformer = nn.Module()
        layer = nn.TransformerEncoderLayer(width, 2, 4 * width, 0.1, batch_first=True, norm_first=norm_first)
        last = nn.LayerNorm(width) if norm_first else None
        self.transformer.encoder = nn.TransformerEncoder(layer, 2, last, enable_nested_tensor=False)
        for parameter in self.transformer.encoder.parameters():  # PyTorch makes copies of one layer
            nn.init.normal_(parameter, std=0.2)

    def forward(self, pictures: Tensor) -> Tensor:
        tokens = self.patch_embed.proj(pictures).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.pos_encoding.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.transformer.encoder(tokens + self.pos_encoding.pos_embed)


NAMES = {
    "patch_embed.proj.": "stem.",
    "pos_encoding.pos_embed": "positions",
    "pos_encoding.cls_token": "class_token",
    "transformer.encoder.": "encoder.",
}


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_published_weights_give_the_published_features(norm: str) -> None:
    torch.manual_seed(0)
    reference = Reference(16, norm == "pre").eval()
    weights = {}
    for name, value in reference.state_dict().items():
        old = next(prefix for prefix in NAMES if name.startswith(prefix))
        weights[name.replace(old, NAMES[old])] = value
    encoder = small(norm=norm, activation="relu").eval()
    encoder.load_state_dict(weights)
    pooled, local = encoder(images())
    expected = reference(images())
    assert (pooled - expected[:, 0]).abs().max() < 1e-5 and (local - expected[:, 1:]).abs().max() < 1e-5


# ---------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "setting",
    [
        {"size": 48},
        {"width": 32},
        {"depth": 3},
        {"heads": 4},
        {"mlp_ratio": 2.0},
        {"stem": "patchify"},
        {"stride": 16},
        {"stem_norm": "batch"},
        {"stem_activation": "gelu"},
        {"norm": "post"},
        {"activation": "relu"},
        {"pooling": "mean"},
    ],
    ids=str,
)
def test_every_setting_of_the_architecture_changes_the_features(setting: dict[str, Any]) -> None:
    one, other = small(), small(**setting)
    load_matching_weights(other, one.state_dict())
    a, b = one(images()).pooled, other(images(other.spec.size)).pooled
    assert a.shape != b.shape or (a - b).abs().max() > 1e-4
    assert other.node() == {**one.node(), **setting}


def test_pooling_is_the_class_token_or_the_mean_of_the_others() -> None:
    encoder = small(pooling="mean")
    pooled, local = encoder(images())
    assert torch.allclose(pooled, local.mean(dim=1))
    encoder.pooling = "cls"
    assert torch.equal(encoder(images()).local, local) and not torch.allclose(encoder(images()).pooled, pooled)


def test_dropout_acts_in_training_only() -> None:
    encoder = small(dropout=0.5)
    assert not torch.equal(encoder(images()).pooled, encoder(images()).pooled)
    encoder.eval()
    assert torch.equal(encoder(images()).pooled, small().eval()(images()).pooled)


@pytest.mark.parametrize("part", ["attention", "the rest"])
def test_dropout_acts_on_attention_and_on_the_rest(part: str) -> None:
    encoder = small(dropout=0.5)
    for layer in encoder.encoder.layers:
        if part == "attention":
            layer.dropout.p = 0.0
        else:
            layer.self_attn.dropout = 0.0
    assert not torch.equal(encoder(images()).pooled, encoder(images()).pooled)


def test_normalisation_is_announced() -> None:
    spec = small(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)).spec
    assert (spec.size, spec.mean, spec.std) == (32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_checkpointing_recomputes_the_blocks_and_leaves_the_gradients() -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        encoder, passes = small(checkpointing=checkpointing, dropout=0.3), []
        for layer in encoder.encoder.layers:
            layer.linear1.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        torch.manual_seed(5)
        weighted_loss(encoder(images()).pooled).backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
        calls.append(len(passes))
        with torch.no_grad():
            encoder(images())
        assert len(passes) == calls[-1] + 2  # nothing is recomputed without gradients
    assert calls == [2, 4]
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.allclose(plain, recomputed, atol=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"norm": "post", "activation": "relu"}, {"stem": "patchify"}], ids=str)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_every_parameter_takes_part(arguments: dict[str, Any], pooling: str) -> None:
    encoder = small(**arguments, pooling=pooling)
    weighted_loss(encoder(images()).pooled).backward()
    idle = [name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-7]
    assert idle == []


def test_a_stem_with_batch_norm_has_no_idle_biases() -> None:
    encoder = small(stem_norm="batch")
    weighted_loss(encoder(images()).pooled).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 1e-6 for p in encoder.stem.parameters())
    assert sorted({name.split(".")[0] for name, _ in encoder.stem.named_buffers()}) == ["1", "4", "7"]


def test_no_two_layers_start_alike() -> None:
    first, second = small().encoder.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_autocast_keeps_close_and_gives_one_dtype() -> None:
    encoder = small()
    expected = encoder(images()).pooled
    with torch.autocast("cpu", torch.bfloat16):
        training = encoder(images()).pooled
        with torch.no_grad():
            evaluation = encoder.eval()(images()).pooled
    assert training.dtype == evaluation.dtype and torch.equal(training, evaluation)
    assert 0 < (training - expected).abs().max() < 0.1


# ------------------------------------------------------------------------------------------------- other sizes


def test_positions_keep_the_class_token_and_their_orientation() -> None:
    positions = torch.randn(1, 17, 6)
    assert resize_positions(positions, (4, 4)) is positions
    rows = torch.arange(4.0)[:, None].expand(4, 4).reshape(1, 16, 1)
    resized = resize_positions(torch.cat([torch.full((1, 1, 1), 9.0), rows], dim=1), (8, 2))
    assert resized.shape == (1, 17, 1) and resized[0, 0] == 9
    grid = resized[0, 1:, 0].view(8, 2)
    assert torch.equal(grid[:, 0], grid[:, 1]) and (grid[1:, 0] > grid[:-1, 0]).all()


def test_positions_are_interpolated_bicubically() -> None:
    """Twice as many cells: the kernel of Keys (a = -0.75) a quarter and three quarters of a cell away."""
    positions = torch.randn(1, 65, 1)
    column = positions[0, 1:, 0].view(8, 8)
    resized = resize_positions(positions, (16, 8))[0, 1:, 0].view(16, 8)
    near, far = (lambda x: 1.25 * x**3 - 2.25 * x**2 + 1), (lambda x: -0.75 * (x**3 - 5 * x**2 + 8 * x - 4))
    weights = torch.tensor([far(1.25), near(0.25), near(0.75), far(1.75)])
    assert torch.allclose(resized[7], weights @ column[2:6], atol=1e-5)


def test_positions_that_are_no_square_are_an_error() -> None:
    with pytest.raises(ValueError, match="13 position embeddings: expected one for the class token and a square grid"):
        resize_positions(torch.zeros(1, 13, 4), (2, 2))


def test_images_of_another_size_are_taken() -> None:
    encoder = small()
    assert encoder(images(16, 48)).local.shape == (2, 12, 16)
    weighted_loss(encoder(images(48)).pooled).backward()
    assert encoder.positions.grad is not None


def test_weights_of_one_size_fit_an_encoder_of_another() -> None:
    encoder, larger = small().eval(), small(size=48).eval()
    weights = encoder.state_dict()
    weights["positions"] = resize_positions(weights["positions"], (6, 6))
    larger.load_state_dict(weights)
    assert torch.allclose(larger(images(48)).pooled, encoder(images(48)).pooled, atol=1e-6)


def test_images_that_the_stride_does_not_divide_are_an_error() -> None:
    with pytest.raises(ValueError, match="images of 32 x 36 pixels: expected sides divisible by stride=8"):
        small()(images(32, 36))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"size": 36}, "size=36 is not divisible by stride=8: set size=32"),
        ({"size": 4}, "size=4 is not divisible by stride=8: set size=8"),
        ({"heads": 3}, "width=16 is not divisible by heads=3"),
        ({"width": 12, "stride": 16}, "width=12: a conv stem of stride=16 needs a multiple of 8"),
        ({"stem": "patchify", "stem_norm": "batch"}, "stem_norm=batch, .* set stem=conv or leave them"),
        ({"stem": "patchify", "stem_activation": "gelu"}, "stem_activation=gelu: a patchify stem has neither"),
    ],
)
def test_settings_that_do_not_fit_are_errors(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(**arguments)


# ------------------------------------------------------------------------------------------------------ configs


@pytest.mark.parametrize(
    "arguments", [{}, {"norm": "post", "stem_norm": "batch", "mlp_ratio": 2.5}, {"stem": "patchify", "dropout": 0.2}]
)
def test_a_node_rebuilds_the_encoder(arguments: dict[str, Any]) -> None:
    encoder = small(**arguments, checkpointing=True, mean=(0.1, 0.2, 0.3))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert arguments.items() <= encoder.node().items()
    encoder(images())  # moves running statistics
    again = build(encoder.node(), ImageEncoder, "image_encoder").eval()
    again.load_state_dict(encoder.state_dict())
    expected = encoder.eval()(images())
    assert torch.equal(again(images()).pooled, expected.pooled) and torch.equal(again(images()).local, expected.local)
    assert again.node() == encoder.node() and again.spec == encoder.spec


def test_the_small_configs_differ_in_their_stem_only() -> None:
    made = []
    for name in ("vit_convstem_small", "vit_patchify_small"):
        node = compose("train", [f"image_encoder={name}"])["image_encoder"]
        encoder = build(node, ImageEncoder, "image_encoder")
        made.append({k: v.shape for k, v in encoder.state_dict().items() if not k.startswith("stem.")})
        assert encoder(images(96)).local.shape == (2, 144, 128)
    assert made[0] == made[1]
