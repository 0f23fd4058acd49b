"""What passes through the doors between rooms.

Shape legend, used in every docstring: B batch, V views of a study, T texts of a study, L word pieces, C labels,
N local image features (patches or grid cells), D embedding, H and W pixels, S side of the model's square input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

MOST_PX = 10_000  # a side longer than any film's: a square of it is a slip, or an attack on memory


class Text(NamedTuple):
    """Word pieces of every text. All int64 [B, T, L]."""

    ids: Tensor
    mask: Tensor  # 1 on real pieces, 0 on padding
    words: Tensor  # index of the word a piece belongs to; -1 on special tokens and padding


@dataclass(slots=True)
class Batch:
    """One batch. The host half carries uint8 images; `to` and the transform's device half make floats of them."""

    images: Tensor | None  # uint8 [B, V, 1, S, S] on the host, float32 [B, V, 3, S, S] for the model
    augment: Tensor | None  # float32 [B, V, P]: the random numbers of the device half; None in evaluation
    text: Text | None
    labels: Tensor  # float32 [B, C]: 1, 0, nan = unknown; -1 = uncertain under the policy `keep`
    index: Tensor  # int64 [B]: row of the manifest's CSV (its header is row 1)
    seen: Features | None = None  # features [B, V, ...] of the images, where they were encoded before
    read: Features | None = None  # features [B, T, ...] of the texts, likewise
    bad: Tensor | None = None  # int64 [B]: row whose film cannot be read, in place of whose sample this is; 0: none

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Called by DataLoader: copies to CUDA wait for nothing only out of page-locked memory."""
        return self._each(lambda tensor: tensor.pin_memory())

    def rows(self, part: slice) -> Batch:
        """Some samples of the batch, as views."""
        return self._each(lambda tensor: tensor[part])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
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
    pooled: Tensor  # [B, dim]
    local: Tensor  # [B, N, local_dim]


class StepOutput(NamedTuple):
    loss: Tensor  # scalar with gradient
    logs: dict[str, Tensor]  # scalars, detached
    state: dict[str, Tensor]  # what `after_step` needs, detached


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What an image encoder expects: a square of `size` pixels, values in [0, 1] normalised by mean and std."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        usable = all(map(math.isfinite, self.mean)) and all(0 < value < math.inf for value in self.std)
        if not usable or self.size > MOST_PX:
            raise ValueError(
                f"size={self.size}, mean={self.mean}, std={self.std}: expected {MOST_PX} pixels at most, and "
                "numbers to normalise by, std above 0"
            )


class Tokens(NamedTuple):
    """Tokenised texts before collation, each a list of lists of int, padded to the longest."""

    ids: list[list[int]]
    mask: list[list[int]]
    words: list[list[int]]


Tokenizer = Callable[[Sequence[str]], Tokens]


class Corpus(Protocol):
    """The training texts, for encoders that learn a vocabulary from them."""

    def learn(self, fit: Callable[[Iterable[str]], str]) -> str:
        """`fit(texts)`, computed once and the same in every process."""


class Encoder(nn.Module):
    """What image and text encoders share."""

    dim: int
    local_dim: int
    frozen_parts: tuple[str, ...] = ()  # modules that stay in evaluation mode, by name (set by `cxrcl.freezing`)

    def node(self) -> dict[str, Any]:
        """The config node that rebuilds this architecture without weights and without a network."""
        raise TypeError(f"{type(self).__name__} does not define node()")

    @classmethod
    def lacking(cls, settings: Mapping[str, Any]) -> list[str]:
        """What a local folder lacks that these settings of the constructor name; looked at before anything is built."""
        return []

    def layer_names(self) -> list[list[str]]:
        """Layers from the input to the output, each as names of its modules and parameters.

        Every parameter belongs to exactly one layer. Freezing and layer-wise learning rates count in these; the
        default is a single one.
        """
        return [[name for name, _ in self.named_parameters()]]

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        for name in self.frozen_parts:
            # Of nn.Module, and not the part's own: the part may be this encoder itself.
            nn.Module.train(self.get_submodule(name), False)
        return self


class ImageEncoder(Encoder):
    """Base of all image encoders: images float32 [B, 3, S, S] -> Features."""

    spec: ImageSpec


class TextEncoder(Encoder):
    """Base of all text encoders: (ids, mask) int64 [B, L] -> Features."""

    tokenizer: Any  # a Tokenizer


class Objective(nn.Module):
    """A task: towers, loss and the training forward in one module, so that DDP wraps exactly one thing.

    `targets`: no gradient, once per step, may be collective. `embed`: differentiable and sample-wise, so that it can
    run in micro-batches. `loss`: couples samples, always in fp32; gathers over processes through
    `cxrcl.distributed.gather`.
    """

    num_views: ClassVar[int] = 1
    num_texts: ClassVar[int] = 0
    per_sample: ClassVar[bool] = False  # True: the loss is a mean over samples, so gradients may be accumulated
    loss_selects: ClassVar[bool] = True  # whether a lower held-out loss tells a better model
    needs_pooled_only: ClassVar[bool] = False  # True: of films, pooled features of one view are all that is looked at

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        raise TypeError(f"{type(self).__name__} does not define embed()")

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        raise TypeError(f"{type(self).__name__} does not define loss()")

    def forward(self, batch: Batch) -> StepOutput:
        with torch.no_grad():
            targets = self.targets(batch)
        return self.full_precision_loss(self.embed(batch), targets)

    def full_precision_loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """`loss` outside of autocast, with 16-bit embeddings made fp32: logits and sums of many terms need it."""
        with torch.autocast(next(iter(embeddings.values())).device.type, enabled=False):
            return self.loss({name: _at_least_fp32(value) for name, value in embeddings.items()}, targets)

    def after_step(self, output: StepOutput, step: int, total: int) -> None:
        """Called after each applied update: clamps, moving averages, queues."""

    def chance(self, global_batch: int) -> float | None:
        """The loss of a model that knows nothing, or None where that has no meaning."""
        return None

    @property
    def embedded_views(self) -> int:
        """How many of the views `embed` looks at; the others are for `targets`."""
        return self.num_views

    def learns_from(self, labels: Tensor) -> Tensor:
        """bool [B]: samples with labels [B, C] that the loss can use. Others are left out of the training data."""
        return torch.ones(len(labels), dtype=torch.bool)

    def check(self, samples: int, global_batch: int) -> None:
        """Called before training with the number of training samples: ValueError where the two do not suit."""
        if global_batch < 2 and not self.per_sample:
            raise ValueError("trainer.batch_size=1: a contrastive loss needs two samples or more")

    def evaluated(self) -> nn.Module:
        """What evaluators and inference see."""
        return self


def _at_least_fp32(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


@runtime_checkable
class EncodesImages(Protocol):
    def encode_images(self, images: Tensor) -> Features:
        """float32 [B, 3, S, S] -> features of the image encoder, before any projection."""


@runtime_checkable
class EmbedsImages(EncodesImages, Protocol):
    def embed_images(self, features: Features) -> Tensor:
        """What `encode_images` gives -> unit vectors float32 [B, D]."""


@runtime_checkable
class EmbedsText(Protocol):
    tokenizer: Tokenizer

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """int64 [B, L] each -> unit vectors float32 [B, D]."""


@runtime_checkable
class MatchesWords(EncodesImages, Protocol):
    tokenizer: Tokenizer

    def embed_words(self, ids: Tensor, mask: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [P, L] each -> words of texts float32 [P, W, D], and how many each has, int64 [P] on the CPU."""

    def match_words(self, features: Features, words: Tensor, counts: Tensor) -> Tensor:
        """What `encode_images` and `embed_words` give -> similarity of image regions and words float32 [B, P]."""


@runtime_checkable
class ScalesSimilarity(Protocol):
    def similarity_scale(self) -> float:
        """The factor that turns cosines into logits."""


@runtime_checkable
class Classifies(EncodesImages, Protocol):
    def classify(self, features: Features) -> Tensor:
        """What `encode_images` gives -> logits float32 [B, C], columns in the order of the data's labels."""


class Gathers(Protocol):
    """What evaluation needs of the processes that share its work (see `cxrcl.distributed.Runtime`)."""

    @property
    def world(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def shard(self, count: int) -> range: ...

    def gather_rows(self, rows: Tensor) -> Tensor: ...

    def mean(self, value: Tensor) -> Tensor: ...


class EvalData(Protocol):
    """Data as evaluators see it: named splits, no augmentation, a fixed order."""

    labels: tuple[str, ...]

    def size(self, split: str) -> int:
        """Number of images of the split; 0 when it has none."""

    def batches(
        self, split: str, positions: Sequence[int], batch_size: int, texts: int = 0, views: int = 1
    ) -> Iterable[Batch]:
        """Device-ready batches of the images at these positions of the split, in order.

        One view is the film without augmentation, one text the fixed text of its study. With more, each is an
        augmentation of the film, or a draw of the text, with random numbers that are fixed for the film.
        """

    def truth(self, split: str) -> Tensor:
        """Labels float32 [N, C] of the split's images: 1, 0, nan = unknown; no image is read."""

    def column(self, split: str, name: str) -> list[str]:
        """A manifest column of the split, one string an image, '' where blank."""

    def texts(self, split: str) -> list[str]:
        """The text of each image's study, '' where it has none."""
