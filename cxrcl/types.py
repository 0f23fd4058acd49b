"""The types that packages of this project hand to each other, and the protocols by which they know each other.

Shape legend, used in every docstring: B batch (b the rows of one process, where both occur), V views of a study,
T texts of a study, L tokens of a text, C labels, N local image features (patches or grid cells), D width of an
embedding, H and W pixels, S side of the model's square input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

NEGATION_PAIRS = "negation.csv"  # beside a manifest: scripts/negation_pairs.py writes it, evals=negation reads it
MAX_SIZE_PX = 10_000  # longer than any radiograph's side: a larger square is a slip, or an attack on memory

# Ranges of settings. `cxrcl.config.nodes.bind` checks them; constructors called from Python trust their caller.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[Share, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy, scikit-learn and PyTorch all take
Side = Annotated[int, Field(ge=1, le=MAX_SIZE_PX)]


class Text(NamedTuple):
    """The tokens of every text of a batch, padded to the longest: int64 [B, T, L] each."""

    ids: Tensor  # index into the tokenizer's vocabulary
    mask: Tensor  # 1 on tokens, 0 on padding
    words: Tensor  # number of the word that a token is part of, from 0; -1 on special tokens and padding


@dataclass(slots=True)
class Batch:
    """One batch of samples.

    On the host it carries uint8 images; `to` brings it to the device, where the device half of the transform
    (`cxrcl.data.images.transforms`) makes floats of them.
    """

    images: Tensor | None  # uint8 [B, V, 1, S, S] on the host, float32 [B, V, 3, S, S] for the model
    augment: Tensor | None  # float32 [B, V, P]: the random numbers of the device half; None in evaluation
    text: Text | None  # None where the objective uses no text
    labels: Tensor  # float32 [B, C]: 1, 0, nan = unknown; -1 = uncertain under the policy `keep`
    index: Tensor  # int64 [B]: row of the manifest's CSV (its header is row 1)
    image_features: Features | None = None  # [B, V, ...] in place of the images, where they were encoded before
    text_features: Features | None = None  # [B, T, ...] in place of the texts, likewise
    unreadable_row: Tensor | None = None  # int64 [B]: CSV row of the unreadable image that a sample replaces; 0: none
    image_rows: Tensor | None = None  # int64 [B, V]: place of each image among the training rows; None in evaluation

    def to(self, device: torch.device) -> Batch:
        """A batch on `device`; copies out of page-locked memory do not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Called by DataLoader: only copies out of page-locked memory to CUDA do not wait."""
        return self._map(lambda tensor: tensor.pin_memory())

    def rows(self, part: slice) -> Batch:
        """Some samples of the batch, as views of its tensors."""
        return self._map(lambda tensor: tensor[part])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Text | Features):
                value = type(value)(*map(change, value))
            elif value is not None:
                value = change(value)
            moved[field.name] = value
        return Batch(**moved)


class Features(NamedTuple):
    """What an encoder makes of images or texts, before any projection; float, in the precision it computed in."""

    pooled: Tensor  # [B, dim]
    local: Tensor  # [B, N, local_dim] of patches or grid cells, [B, L, local_dim] of tokens


class StepOutput(NamedTuple):
    """What an objective makes of a batch."""

    loss: Tensor  # scalar with gradient
    logs: dict[str, Tensor]  # scalars, detached
    state: dict[str, Tensor]  # what `Objective.after_step` needs, detached


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What an image encoder expects: a square of `size` pixels, values in [0, 1] normalised by mean and std.

    Raises:
        ValueError: a size above 10,000 pixels, a mean that is not finite, or a std that is not above 0.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        usable = all(map(math.isfinite, self.mean)) and all(0 < value < math.inf for value in self.std)
        if not usable or self.size > MAX_SIZE_PX:
            raise ValueError(
                f"size={self.size}, mean={self.mean}, std={self.std}: expected {MAX_SIZE_PX} pixels at most, and "
                "numbers to normalise by, std above 0"
            )


class Tokens(NamedTuple):
    """Tokens of several texts before they become tensors: lists of one row [L] a text, padded to the longest.

    The rows hold what those of `Text` do.
    """

    ids: list[list[int]]
    mask: list[list[int]]
    words: list[list[int]]


Tokenizer = Callable[[Sequence[str]], Tokens]


class Corpus(Protocol):
    """The training texts, for text encoders that learn their vocabulary from them."""

    def learn(self, fit: Callable[[Iterable[str]], str]) -> str:
        """What `fit(texts)` returns, computed in one process and given to all."""


@runtime_checkable
class ComputesLoss(Protocol):
    """An objective, as far as held-out data are concerned (`cxrcl.objectives.base.Objective` says more)."""

    num_views: int
    num_texts: int
    per_sample: bool

    def learns_from(self, labels: Tensor) -> Tensor:
        """Labels float32 [B, C] -> bool [B]: samples that the loss can use."""

    def __call__(self, batch: Batch) -> StepOutput:
        """The loss of a batch."""


@runtime_checkable
class EncodesImages(Protocol):
    def encode_images(self, images: Tensor) -> Features:
        """Images float32 [B, 3, S, S] -> features of the image encoder, before any projection."""


@runtime_checkable
class EmbedsImages(EncodesImages, Protocol):
    def embed_images(self, features: Features) -> Tensor:
        """Features as `encode_images` returns them -> unit vectors float32 [B, D]."""


@runtime_checkable
class EmbedsText(Protocol):
    tokenizer: Tokenizer

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask, int64 [B, L] each -> unit vectors float32 [B, D]."""


@runtime_checkable
class ProjectsText(EmbedsText, Protocol):
    def project_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask, int64 [B, L] each -> projections float32 [B, D], of which `embed_text` has the directions."""


@runtime_checkable
class MatchesWords(EncodesImages, Protocol):
    tokenizer: Tokenizer

    def embed_words(self, ids: Tensor, mask: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of P texts, int64 [P, L] each -> words float32 [P, W, D] and word counts int64 [P] on the CPU."""

    def match_words(self, features: Features, words: Tensor, counts: Tensor) -> Tensor:
        """Similarity float32 [B, P] of B images and P texts.

        Args:
            features: of images, as `encode_images` returns them.
            words, counts: of texts, as `embed_words` returns them.
        """


@runtime_checkable
class ScalesSimilarity(Protocol):
    def similarity_scale(self) -> float:
        """The factor that turns cosines into logits."""


@runtime_checkable
class Classifies(EncodesImages, Protocol):
    def classify(self, features: Features) -> Tensor:
        """Features as `encode_images` returns them -> logits float32 [B, C], columns in the order of the labels."""


class Gathers(Protocol):
    """What evaluation needs of the processes that share its work (see `cxrcl.distributed.Runtime`)."""

    @property
    def world(self) -> int:
        """Number of processes."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""

    def shard(self, count: int) -> range:
        """This process's positions among `count`."""

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Rows [n, ...] of each process -> those of all [N, ...], in the order of processes; n may differ."""

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes of a tensor that has the same shape in all of them."""


class EvalData(Protocol):
    """Data as evaluators read them: named splits, no augmentation, a fixed order."""

    labels: tuple[str, ...]

    def size(self, split: str) -> int:
        """Number of images of the split; 0 where the data have no such split."""

    def batches(
        self, split: str, positions: Sequence[int], batch_size: int, texts: int = 0, views: int = 1
    ) -> Iterable[Batch]:
        """Device-ready batches of the images at these positions of the split, in order.

        Args:
            split, positions: which images.
            batch_size: of each batch but the last.
            texts: texts of each image: one is the fixed text of its study, more are draws of it.
            views: views of each image: one is the image without augmentation, more are augmentations of it. Draws and
                augmentations use random numbers that are fixed for the image.
        """

    def truth(self, split: str) -> Tensor:
        """Labels float32 [N, C] of the split's images: 1, 0, nan = unknown. Reads no image."""

    def column(self, split: str, name: str) -> list[str]:
        """A manifest column of the split, one string an image, '' where blank."""

    def texts(self, split: str) -> list[str]:
        """The text of each image's study, '' where it has none."""
