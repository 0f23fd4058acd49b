"""Where on the model's square a score comes from: one value for each cell of a grid over it.

Four kinds, each where it is sound:

- Shares: where pooled features are the mean of the local ones and what follows is linear, a score is the mean of one
  term for each cell, exactly (class activation mapping, Zhou et al. 2016, with a direction between texts as the class).
  Whether it is so is tested, and not told by the model's name.
- Grad-CAM (Selvaraju et al. 2017) elsewhere: sum over channels of the last map of features, each weighed by its mean
  gradient, negative sums set to zero. It is a picture of the slope at the image, not a decomposition of the score.
- Attention of a word over regions, of models that compare the two (GLoRIA, Huang et al. 2021).
- Scores of patches, of encoders that choose by them (`cxrcl.models.patch_selection`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cxrcl.errors import ConfigError
from cxrcl.models.base import ImageEncoder
from cxrcl.models.patch_selection import TopKPatches, best_patches
from cxrcl.objectives.gloria import Gloria
from cxrcl.types import Features, Text

ATTENTION = "attention of the words over image regions (GLoRIA)"
PATCHES = "the scores by which the encoder chooses patches"
AT_A_TIME = 4  # images whose activations are kept for gradients


class ExplainedScores(NamedTuple):
    """L scores of each image that maps explain, as functions of its features.

    Attributes:
        scores: features of B images -> [B, L], differentiable.
        shares: features -> [B, N, L], whose mean over cells are the scores where the pooled features are the mean of
            the local ones and what follows is linear.
        name: of the scores, in words.
    """

    scores: Callable[[Features], Tensor]
    shares: Callable[[Features], Tensor]
    name: str


def cosines(model: Any, directions: Tensor, name: str = "margin") -> ExplainedScores:
    """Scalar products of images' unit vectors with directions float [L, D] of the shared space."""

    def scores(features: Features) -> Tensor:
        return model.embed_images(features) @ directions.T

    def shares(features: Features) -> Tensor:
        projected = model.image_head(features.local)
        length = model.image_head(features.pooled).norm(dim=-1)
        return projected @ directions.T / length[:, None, None]

    return ExplainedScores(scores, shares, name)


def logits(model: Any, columns: Sequence[int]) -> ExplainedScores:
    """Log-odds of some labels of a classifier; in `task=multi_class` those of a label against all the others."""

    def scores(features: Features) -> Tensor:
        return model.classify(features)[:, list(columns)]

    def shares(features: Features) -> Tensor:
        cells = features.local.flatten(0, 1)
        return scores(Features(cells, cells[:, None])).unflatten(0, features.local.shape[:2])

    return ExplainedScores(scores, shares, "log-odds")


def explain(model: Any, explained: ExplainedScores, images: Tensor) -> tuple[Tensor, str]:
    """Maps float32 [B, L, h, w] of images float32 [B, 3, S, S], and what kind they are of; in full precision."""
    with torch.no_grad(), _full_precision(images):
        if not has_shares(explained, model.encode_images(_noise(images))):
            maps, layer = grad_cam(model, explained, images)
            return maps.float().cpu(), f"Grad-CAM of the {explained.name} at {layer}"
        shares = explained.shares(model.encode_images(images))
    kind = f"each cell's term of the {explained.name}, which is their mean (exact)"
    return _as_grid(shares.transpose(1, 2)).float().cpu(), kind


def has_shares(explained: ExplainedScores, features: Features) -> bool:
    """Whether scores are the mean of their shares: pooled features the mean of the local ones, and what follows linear.

    The latter is tried on random cells: on those of a single image it might be as good as linear.
    """
    pooled, local = features
    if local.shape[1] < 2 or pooled.shape[1] != local.shape[2] or not _equal(pooled, local.mean(dim=1)):
        return False
    cells = torch.randn(local.shape, generator=torch.Generator().manual_seed(0)).to(local)
    random = Features(cells.mean(dim=1), cells)
    return _equal(explained.scores(random), explained.shares(random).mean(dim=1))


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape are equal but for rounding."""
    return bool((one - other).abs().max() <= 1e-4 * other.abs().max())


def grad_cam(model: Any, explained: ExplainedScores, images: Tensor) -> tuple[Tensor, str]:
    """Maps [B, L, h, w], and the name of the layer they are made at: the last one whose cells the scores depend on.

    In a transformer that reads the class token this is the block before the last.

    Raises:
        ConfigError: the encoder has no such layer.
    """
    encoder = getattr(model, "image_encoder", None)
    if not isinstance(encoder, ImageEncoder):
        raise ConfigError(f"{type(model).__name__}: its heat-maps need an attribute image_encoder, an ImageEncoder")
    parts = []
    with torch.enable_grad(), _full_precision(images):
        name = _last_layer_with_a_grid(model, explained, encoder, _noise(images))
        for few in images.split(AT_A_TIME):
            scores, outputs, count = _scores_and_outputs(model, explained, encoder, few)
            output = dict(outputs)[name]
            as_cells, slopes = _cells_of(output, len(few), count), _gradients(scores, output)
            assert as_cells is not None and slopes is not None
            weights = torch.stack([as_cells(slope).mean(dim=1) for slope in slopes], dim=1)  # [B, L, C]
            parts.append(_as_grid((weights @ as_cells(output.detach()).transpose(1, 2)).relu()))
    return torch.cat(parts), name


def _last_layer_with_a_grid(model: Any, explained: ExplainedScores, encoder: ImageEncoder, images: Tensor) -> str:
    scores, outputs, count = _scores_and_outputs(model, explained, encoder, images)
    for name, output in _outputs_of_layers(encoder, outputs):
        as_cells = _cells_of(output, len(images), count)
        slopes = _gradients(scores, output) if as_cells is not None and output.requires_grad else None
        if as_cells is not None and slopes is not None and any(as_cells(slope).any() for slope in slopes):
            return name
    raise ConfigError(
        f"{type(encoder).__name__}: no layer has a square grid of features that the score depends on; "
        "no heat-map can be made of it"
    )


def _scores_and_outputs(
    model: Any, explained: ExplainedScores, encoder: ImageEncoder, images: Tensor
) -> tuple[Tensor, list[tuple[str, Tensor]], int]:
    """Scores [B, L] with their graph, outputs of modules on the way, and the number of local features."""
    with _recorded_outputs(encoder) as outputs:
        # With gradients to the images, a frozen encoder has a graph of activations all the same.
        features = model.encode_images(images.detach().clone().requires_grad_())
        return explained.scores(features), outputs, features.local.shape[1]


def _noise(like: Tensor) -> Tensor:
    """One image by which the kind of map is chosen: for a black one, all gradients may be zero."""
    return torch.randn(1, *like.shape[1:], generator=torch.Generator().manual_seed(0)).to(like)


def words_of(phrase: str, count: int) -> list[str]:
    """Names of the words that a tokenizer counts in a phrase, split at blanks and punctuation as BERT does."""
    words = re.findall(r"\w+|[^\w\s]", phrase)
    return words if len(words) == count else [f"word {k + 1}" for k in range(count)]


def attention(model: Gloria, images: Tensor, phrase: str) -> tuple[Tensor, list[str]]:
    """Maps [B, 1 + W, h, w] of a phrase: the mean of its words, then each of its W words; and the words.

    Each map has a sum of one. The mean leaves out the token that opens every text.

    Raises:
        ConfigError: the phrase has no words.
    """
    tokens = model.tokenizer([phrase])
    count = max(tokens.words[0]) + 1
    if count < 1:
        raise ConfigError(f"phrase {phrase!r}: no words")
    text = Text(*(torch.tensor(part, device=images.device).expand(AT_A_TIME, 1, -1) for part in tokens))
    parts = []
    for few in images.split(AT_A_TIME):
        with _full_precision(few):
            by_token = model.attention(few, Text(*(part[: len(few)] for part in text)))
        parts.append(by_token[:, 1 : 1 + count])
    by_word = torch.cat(parts)
    grids = _as_grid(torch.cat([by_word.mean(dim=1, keepdim=True), by_word], dim=1))
    return grids.float().cpu(), words_of(phrase, count)


class Patches(NamedTuple):
    """The patches of B images."""

    scores: Tensor  # float32 [B, h, w], what patches are chosen by
    chosen: Tensor  # int64 [B, K], places in the grid row by row, the best first


def patches(encoder: TopKPatches, images: Tensor) -> Patches:
    """Scores of all patches, and which ones make the pooled features."""
    with torch.no_grad(), _full_precision(images):
        scores = encoder.scores(images)
    count = encoder.num_patches or scores.shape[1]
    return Patches(_as_grid(scores[:, None])[:, 0].cpu(), best_patches(scores, count).cpu())


# ---------------------------------------------------------------------------------------------------- inside


def _full_precision(images: Tensor) -> Any:
    return torch.autocast(images.device.type, enabled=False)


def _as_grid(cells: Tensor) -> Tensor:
    """[B, L, N] -> [B, L, h, w]. The model's input is a square, and so is the grid over it."""
    side = math.isqrt(cells.shape[2])
    if side * side != cells.shape[2]:
        raise ConfigError(f"{cells.shape[2]} local features: expected a square number, the cells of a grid")
    return cells.unflatten(2, (side, side))


@contextmanager
def _recorded_outputs(encoder: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """A context in which outputs of modules are recorded by name, in the order in which they finish."""
    outputs: list[tuple[str, Tensor]] = []

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(first, Tensor):
                outputs.append((name, first))

        return hook

    handles = [module.register_forward_hook(recorder(name)) for name, module in encoder.named_modules() if name]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _outputs_of_layers(encoder: ImageEncoder, outputs: Sequence[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Outputs of whole stages and blocks, the last first.

    Within a block a map is not yet what the next one sees (a query is none at all). Only where a block is not called
    as such, in a traced graph, its parts stand for it.
    """
    called = {name for name, _ in outputs}
    whole = _largest_in_one_layer(encoder)
    for name, output in reversed(outputs):
        above = [other for other in whole if name.startswith(f"{other}.")]
        if name in whole or (above and above[0] not in called):
            yield name, output


def _largest_in_one_layer(encoder: ImageEncoder) -> list[str]:
    """Names of the largest modules that do not reach over the border of two layers."""
    layer_of: dict[str, int] = {}
    parameters = [name for name, _ in encoder.named_parameters()]
    for number, names in enumerate(encoder.layer_names()):
        for name in names:
            layer_of |= {p: number for p in parameters if p == name or p.startswith(f"{name}.")}
    largest: list[str] = []
    for name, _ in encoder.named_modules():
        inside = {layer_of[p] for p in parameters if p.startswith(f"{name}.")}
        if name and len(inside) <= 1 and not any(name.startswith(f"{other}.") for other in largest):
            largest.append(name)
    return largest


def _cells_of(output: Tensor, size: int, cells: int) -> Callable[[Tensor], Tensor] | None:
    """The function that makes cells [B, N, C] of a layer's output; None for one that is no square grid, or of one cell.

    Maps are [B, C, h, h] or [B, h, h, C]; tokens [B, prefix + N, C], where N is the number of local features and
    class and register tokens lead.
    """
    shape = output.shape
    if shape[0] != size:
        return None
    if output.ndim == 4 and shape[2] == shape[3] > 1:
        return lambda value: value.flatten(2).transpose(1, 2)
    if output.ndim == 4 and shape[1] == shape[2] > 1:
        return lambda value: value.flatten(1, 2)
    if output.ndim == 3 and 0 <= shape[1] - cells <= 16 and math.isqrt(cells) ** 2 == cells > 1:
        return lambda value: value[:, value.shape[1] - cells :]
    return None


def _gradients(scores: Tensor, output: Tensor) -> list[Tensor] | None:
    """Gradients of each column of scores [B, L] by the output, each of its shape; None where they do not depend on it.

    Images of a batch do not influence each other, so the gradient of a column's sum holds that of each image.
    """
    slopes = []
    for column in scores.unbind(1):
        (slope,) = torch.autograd.grad(column.sum(), output, retain_graph=True, allow_unused=True)
        if slope is None:
            return None
        slopes.append(slope)
    return slopes
