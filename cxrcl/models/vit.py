"""A vision transformer whose tokens come from a convolutional stem."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cxrcl.models.base import ImageEncoder, arguments
from cxrcl.models.image import IMAGENET_MEAN, IMAGENET_STD
from cxrcl.types import Count, Features, ImageSpec, Positive, Share

Stem = Literal["conv", "patchify"]
StemNorm = Literal["none", "batch"]
Activation = Literal["relu", "gelu"]
NormPlacement = Literal["pre", "post"]
Pooling = Literal["cls", "mean"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}

# Output channels of the stem's convolutions as shares of the width. At stride 8 the last map keeps full width twice
# (the published hybrid); at stride 16 channels double as in Xiao et al. 2021: one more convolution at
# full width would bring the stem near the cost of the transformer.
STEM_SHARES = {8: (2, 1, 1), 16: (8, 4, 2, 1)}


def conv_stem(width: int, stride: int, norm: StemNorm, activation: Activation) -> nn.Sequential:
    """3x3 convolutions of stride 2, each with its norm and activation: [B, 3, H, W] -> [B, width, H/stride, W/stride].

    Xiao et al. 2021, "Early convolutions help transformers see better", without their last 1x1 convolution.
    """
    layers: list[nn.Module] = []
    channels = 3
    for share in STEM_SHARES[stride]:
        # BatchNorm subtracts the mean, so a bias before it would have no effect and no gradient.
        convolution = nn.Conv2d(channels, width // share, 3, stride=2, padding=1, bias=norm == "none")
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
        layers.append(convolution)
        if norm == "batch":
            layers.append(nn.BatchNorm2d(width // share))
        layers.append(ACTIVATIONS[activation]())
        channels = width // share
    return nn.Sequential(*layers)


def resize_positions(embedding: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings [1, 1 + N, D] of a square grid -> [1, 1 + rows * columns, D] of `grid` = (rows, columns).

    The first position is the class token's and stays; the others are interpolated bicubically (no antialiasing). The
    forward pass uses it for images of another size. It also fits the weights of one size to an encoder built with
    another: `weights["positions"] = resize_positions(weights["positions"], (size // stride, size // stride))`.

    Raises:
        ValueError: N is not a square number.
    """
    number = embedding.shape[1] - 1
    side = math.isqrt(number)
    if side * side != number:
        raise ValueError(f"{number + 1} position embeddings: expected one for the class token and a square grid")
    if grid == (side, side):
        return embedding
    cells = embedding[:, 1:].float().transpose(1, 2).unflatten(2, (side, side))
    resized = F.interpolate(cells, size=grid, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([embedding[:, :1], resized.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


class SelfAttention(nn.Module):
    """Multi-head self-attention by PyTorch's fused kernel: [B, L, D] -> [B, L, D]."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.in_proj_weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One transformer layer: [B, L, D] -> [B, L, D], parameters named as in `nn.TransformerEncoderLayer`.

    PyTorch's own layer changes to another kernel in evaluation without gradient, which keeps the whole
    [B, heads, L, L] attention in memory and, under autocast on a CPU, returns another dtype than in training.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, norm: NormPlacement, activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        self.norm_first = norm == "pre"
        self.self_attn = SelfAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        for layer in (self.self_attn.out_proj, self.linear1, self.linear2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def _attend(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.self_attn(tokens))

    def _feed_forward(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.dropout(self.activation(self.linear1(tokens)))))

    def forward(self, tokens: Tensor) -> Tensor:
        if self.norm_first:
            tokens = tokens + self._attend(self.norm1(tokens))
            return tokens + self._feed_forward(self.norm2(tokens))
        tokens = self.norm1(tokens + self._attend(tokens))
        return self.norm2(tokens + self._feed_forward(tokens))


class Transformer(nn.Module):
    """Blocks, then a last LayerNorm where they are pre-norm: [B, L, D] -> [B, L, D]."""

    def __init__(self, blocks: list[Block], width: int, checkpointing: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        # A post-norm block ends with a norm of its own.
        self.norm = nn.LayerNorm(width) if blocks[0].norm_first else nn.Identity()
        self.checkpointing = checkpointing

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(layer, tokens, use_reentrant=False)
            else:
                tokens = layer(tokens)
        return self.norm(tokens)


class ConvStemViT(ImageEncoder):
    """A vision transformer over the cells of a convolutional stem, or over plain patches.

    Square images of `size` give (size / stride)^2 tokens and a class token; images of another size are taken too,
    with interpolated positions. `norm=post, activation=relu, dropout=0.1` at stride 8 is the hybrid of the MoCo work
    on chest X-rays; pre-norm trains without a long warm-up (Xiong et al. 2020).

    Args:
        size: side of the input in pixels, divisible by `stride`.
        width, depth, heads: of the transformer.
        mlp_ratio: width of the feed-forward layers as a multiple of `width`.
        stem: `conv`, 3x3 convolutions of stride 2 (`conv_stem`), or `patchify`, one convolution of kernel = stride.
        stride: pixels from one token to the next.
        stem_norm, stem_activation: after each convolution of the `conv` stem.
        norm: LayerNorm before (`pre`, with a last one at the end) or after (`post`) attention and feed-forward layer.
        activation: of the feed-forward layers.
        dropout: on attention, hidden layers and what each adds to the tokens.
        pooling: the class token, or the mean of the others.
        checkpointing: recompute the blocks in the backward pass: less memory, about a third more time.
        mean, std: normalisation of the input; ImageNet's by default.

    Raises:
        ValueError: sizes that do not divide, or stem settings that the stem does not have.
    """

    def __init__(
        self,
        size: Count = 224,
        width: Count = 384,
        depth: Count = 12,
        heads: Count = 6,
        mlp_ratio: Positive = 4.0,
        stem: Stem = "conv",
        stride: Literal[8, 16] = 8,
        stem_norm: StemNorm = "none",
        stem_activation: Activation = "relu",
        norm: NormPlacement = "pre",
        activation: Activation = "gelu",
        dropout: Share = 0.0,
        pooling: Pooling = "cls",
        checkpointing: bool = False,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self._arguments = arguments(locals()) | {"mean": list(mean), "std": list(std)}
        hidden = max(1, int(width * mlp_ratio))
        if width % heads:
            raise ValueError(f"width={width} is not divisible by heads={heads}")
        if size % stride:
            raise ValueError(
                f"size={size} is not divisible by stride={stride}: set size={max(stride, size - size % stride)}"
            )
        if stem == "patchify" and (stem_norm, stem_activation) != ("none", "relu"):
            raise ValueError(
                f"stem_norm={stem_norm}, stem_activation={stem_activation}: a patchify stem has neither, "
                "set stem=conv or leave them at none and relu"
            )
        if stem == "conv" and width % STEM_SHARES[stride][0]:
            raise ValueError(
                f"width={width}: a conv stem of stride={stride} needs a multiple of {STEM_SHARES[stride][0]}"
            )
        self.spec = ImageSpec(size, mean, std)
        self.dim = self.local_dim = width
        self.stride = stride
        self.pooling: Pooling = pooling
        if stem == "conv":
            self.stem = conv_stem(width, stride, stem_norm, stem_activation)
        else:
            self.stem = nn.Sequential(nn.Conv2d(3, width, stride, stride=stride))
        # The channels of a cell lie together then, so that a map becomes tokens without a copy.
        self.stem.to(memory_format=torch.channels_last)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + (size // stride) ** 2, width))
        for parameter in (self.class_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)
        blocks = [Block(width, heads, hidden, norm, activation, dropout) for _ in range(depth)]
        self.encoder = Transformer(blocks, width, checkpointing)

    def forward(self, images: Tensor) -> Features:
        """Images float32 [B, 3, H, W] -> Features([B, width], [B, H/stride * W/stride, width]), local features in rows.

        Raises:
            ValueError: H or W is not divisible by the stride.
        """
        height, width = images.shape[2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f"images of {height} x {width} pixels: expected sides divisible by stride={self.stride}")
        cells = self.stem(images.contiguous(memory_format=torch.channels_last))
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), cells.flatten(2).transpose(1, 2)], dim=1)
        tokens = self.encoder(tokens + resize_positions(self.positions, (cells.shape[2], cells.shape[3])))
        local = tokens[:, 1:]
        return Features(tokens[:, 0] if self.pooling == "cls" else local.mean(dim=1), local)

    def layer_names(self) -> list[list[str]]:
        """Stem and positions, then the blocks, the last one with the norm behind it."""
        blocks = [[f"encoder.layers.{number}"] for number in range(len(self.encoder.layers))]
        return [["stem", "class_token", "positions"], *blocks[:-1], [*blocks[-1], "encoder.norm"]]

    def node(self) -> dict[str, Any]:
        return {"_target_": f"{__name__}.ConvStemViT", **self._arguments}
