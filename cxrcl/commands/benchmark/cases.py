"""The losses that are timed: for each, inputs of a size and contenders that do the same work on them.

A contender is called with nothing and returns what it made and its gradients, so that all can be compared. The first,
`reference`, is a plain form of `references`; the others are those of this package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.commands.benchmark import references
from cxrcl.distributed import Runtime
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Linear
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.cxr_clip import CxrClip
from cxrcl.objectives.local_similarity import merge_words, pair_scores
from cxrcl.objectives.losses import clip_loss, moco_loss, nt_xent_loss, siglip_loss
from cxrcl.training.micro_batch import BatchGradient
from cxrcl.types import Batch, Features, ImageSpec, Text


@dataclass(frozen=True)
class Aim:
    """What a contender should reach; None where nothing is asked."""

    time: float | None = None  # reference / ours, at least
    memory: float | None = None  # likewise
    waits: int | None = None  # for the device, at most


class Outcome(NamedTuple):
    value: Tensor  # the loss, or what was made
    gradients: tuple[Tensor, ...] = ()


Contender = Callable[[], Outcome]
Contenders = dict[str, Contender]


def there_and_back(loss: Callable[..., Tensor], *leaves: Tensor) -> Contender:
    """Forward and backward of `loss(*leaves)`, with the gradients of all leaves."""

    def run() -> Outcome:
        value = loss(*leaves)
        return Outcome(value.detach(), torch.autograd.grad(value, leaves))

    return run


def forms(leaves: Sequence[Tensor], reference: Callable[..., Tensor], ours: Callable[..., Tensor]) -> Contenders:
    """Two forms of a loss on the same leaves."""
    return {"reference": there_and_back(reference, *leaves), "ours": there_and_back(ours, *leaves)}


# ------------------------------------------------------------------------------------------------- inputs


def normal(like: Tensor, seed: int, *shape: int) -> Tensor:
    """The same normal numbers on every device."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(like)


def unit_rows(like: Tensor, sides: int, *shape: int) -> list[Tensor]:
    """Unit vectors with gradient, whose rows belong together as those of towers trained for a while do."""
    common = normal(like, 0, *shape)
    rows = [F.normalize(common + 2 * normal(like, side + 1, *shape), dim=-1) for side in range(sides)]
    return [part.requires_grad_() for part in rows]


# -------------------------------------------------------------------------------------------------- cases

REGIONS, WIDTH, LENGTHS = 19 * 19, 768, (30, 97)  # of GLoRIA's image and text features
ATTENTION, WORDS, PAIRS = 4.0, 5.0, 10.0  # its three temperatures, which multiply


def gloria_local(size: int, like: Tensor) -> Contenders:
    """GLoRIA's local loss: both cross-entropies of the local similarity of all images and all captions."""
    regions = (0.1 * normal(like, 0, size, REGIONS, WIDTH)).requires_grad_()
    features = regions.detach().transpose(1, 2).contiguous().requires_grad_()
    words = (0.1 * normal(like, 1, size, LENGTHS[1], WIDTH)).requires_grad_()
    counts = torch.randint(LENGTHS[0], LENGTHS[1] + 1, (size,), generator=torch.Generator().manual_seed(2))
    own = torch.arange(size, device=like.device)

    def both_ways(scores: Tensor) -> Tensor:
        return F.cross_entropy(PAIRS * scores, own) + F.cross_entropy(PAIRS * scores.T, own)

    def by_caption(features: Tensor, words: Tensor) -> Tensor:
        return both_ways(references.pair_scores(features, words, counts.tolist(), ATTENTION, WORDS))

    def reference() -> Outcome:
        value, (of_features, of_words) = there_and_back(by_caption, features, words)()
        return Outcome(value, (of_features.transpose(1, 2), of_words))

    def ours(regions: Tensor, words: Tensor, low_memory: bool) -> Tensor:
        form = partial(pair_scores, attention_scale=ATTENTION, word_scale=WORDS, aggregation="sum")
        return both_ways(form(regions, words, counts, low_memory=low_memory))

    return {
        "reference": reference,
        "ours": there_and_back(partial(ours, low_memory=False), regions, words),
        "low memory": there_and_back(partial(ours, low_memory=True), regions, words),
    }


def word_merge(size: int, like: Tensor) -> Contenders:
    """Word pieces to words of four layers of a text model, 97 pieces a text, 1.4 a word. Forward only."""
    layers = normal(like, 0, size, 4, LENGTHS[1], WIDTH)
    shares = torch.tensor([0.0, 0.7, 0.2, 0.1])  # of words of 0, 1, 2 and 3 pieces
    lengths = torch.multinomial(
        shares, size * LENGTHS[1], replacement=True, generator=torch.Generator().manual_seed(1)
    ).view(size, -1)
    inside = [torch.repeat_interleave(row)[: LENGTHS[1] - 2] for row in lengths]
    words = F.pad(torch.stack(inside), (1, 1), value=-1).to(like.device)

    def ours() -> Outcome:
        merged, _ = merge_words(layers.sum(dim=1), words)
        return Outcome(merged)

    return {"reference": lambda: Outcome(references.merge_words(layers, words)), "ours": ours}


def two_towers(
    reference: Callable[..., Tensor], ours: Callable[..., Tensor], width: int, *constants: float
) -> Callable[[int, Tensor], Contenders]:
    """A loss of two batches of unit vectors of this width and of learned numbers that begin as `constants`."""

    def make(size: int, like: Tensor) -> Contenders:
        numbers = [like.new_tensor(value).requires_grad_() for value in constants]
        return forms([*unit_rows(like, 2, size, width), *numbers], reference, ours)

    return make


class _NoImages(ImageEncoder):
    """The loss of an objective needs no tower."""

    spec = ImageSpec(1, (0.0,) * 3, (1.0,) * 3)
    dim = local_dim = 1


class _NoTexts(TextEncoder):
    dim = local_dim = 1


def cxr_clip(size: int, like: Tensor) -> Contenders:
    """CXR-CLIP's loss: two images and two texts of each study, 512 wide."""
    head = partial(Linear, out_dim=1)
    objective = CxrClip(_NoImages(), _NoTexts(), head, head, targets="identity").to(like)
    leaves = [*unit_rows(like, 2, size, 2, 512), objective.log_scale]

    def reference(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
        return references.cxr_clip(images, texts, log_scale.exp(), objective.image_weight, objective.text_weight)

    def ours(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
        return objective.loss({"image": images, "text": texts}, {}).loss

    return forms(leaves, reference, ours)


def moco(size: int, like: Tensor) -> Contenders:
    """A query against a queue of 65,536 keys, 128 wide."""
    query, key = unit_rows(like, 2, size, 128)
    key = key.detach()
    queue = F.normalize(normal(like, 9, 65536, 128), dim=1)
    queue_by_column = queue.T.contiguous()  # as published code keeps it

    reference = partial(references.moco, key=key, queue=queue_by_column, temperature=0.2)
    return forms([query], reference, partial(moco_loss, key=key, queue=queue, temperature=0.2))


class _SmallTexts(TextEncoder):
    """Two layers of 128, mean over pieces."""

    dim = local_dim = 128

    def __init__(self) -> None:
        super().__init__()
        self.pieces = nn.Embedding(1000, self.dim)
        layer = nn.TransformerEncoderLayer(self.dim, 4, 4 * self.dim, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        local = self.layers(self.pieces(ids))
        return Features(local.mean(dim=1), local)


def micro_batch(size: int, like: Tensor) -> Contenders:
    """A step of CLIP (ResNet18 with GroupNorm on 64 x 64) at once, and an eighth of the batch at a time."""
    from cxrcl.models.image import TimmEncoder

    torch.manual_seed(0)
    head = partial(Linear, out_dim=128)
    # Residual branches that begin at zero would have no gradient to compare.
    options = {"norm_layer": "groupnorm", "zero_init_last": False}
    images = TimmEncoder("resnet18", size=64, channels_last=False, options=options)
    objective = Clip(images, _SmallTexts(), head, head, targets="identity").to(like)
    ids = torch.randint(1000, (size, 1, 32), generator=torch.Generator().manual_seed(1)).to(like.device)
    text = Text(ids, torch.ones_like(ids), torch.zeros_like(ids))
    index = torch.arange(size, device=like.device)
    batch = Batch(normal(like, 2, size, 1, 3, 64, 64), None, text, like.new_zeros(size, 0), index)

    def outcome(loss: Tensor) -> Outcome:
        return Outcome(loss.detach(), tuple(p.grad for p in objective.parameters() if p.grad is not None))

    def ours() -> Outcome:
        objective.zero_grad(set_to_none=True)
        chunk = math.ceil(size / 8)
        gradient = BatchGradient(objective, Runtime(0, 1, like.device), nullcontext, lambda loss: loss, chunk)
        return outcome(gradient.add(batch, weight=1.0, last=True, watch=lambda loss: None).loss)

    def reference() -> Outcome:
        objective.zero_grad(set_to_none=True)
        loss = objective(batch).loss
        loss.backward()
        return outcome(loss)

    return {"reference": reference, "ours": ours}


@dataclass(frozen=True)
class Case:
    """Sizes, and what each contender should reach at each of them on a CPU.

    Args:
        make: (size, a tensor of the device and dtype wanted) -> contenders.
        aims: by size and contender; all of these sizes are measured.
        large: likewise, measured when asked for.
        quick: a size that takes no time.
        rounds: of the full sizes.
        waits: count how often the device would have to be waited for.
    """

    make: Callable[[int, Tensor], Contenders]
    aims: Mapping[int, Mapping[str, Aim]]
    quick: int
    rounds: int
    large: Mapping[int, Mapping[str, Aim]] = field(default_factory=dict)
    waits: bool = False


CASES = {
    "gloria_local": Case(gloria_local, {48: {"ours": Aim(2.0, 2.0), "low memory": Aim(1.5, 5.0)}}, quick=3, rounds=3),
    "word_merge": Case(word_merge, {48: {"ours": Aim(4.0, waits=0)}}, quick=2, rounds=9, waits=True),
    "clip": Case(
        two_towers(references.clip, clip_loss, 512, 1 / 0.07),
        {1024: {"ours": Aim(1.2)}, 4096: {"ours": Aim(1.5)}, 8192: {"ours": Aim(1.5, 8.0)}},
        quick=16,
        rounds=5,
        large={16384: {"ours": Aim(1.4, 20.0)}},
    ),
    "siglip": Case(
        two_towers(references.siglip, siglip_loss, 512, 10.0, -10.0), {4096: {"ours": Aim()}}, quick=16, rounds=5
    ),
    "cxr_clip": Case(cxr_clip, {1024: {"ours": Aim()}}, quick=16, rounds=7),
    "nt_xent": Case(
        two_towers(partial(references.nt_xent, temperature=0.5), partial(nt_xent_loss, temperature=0.5), 128),
        {1024: {"ours": Aim(1.3)}},
        quick=16,
        rounds=15,
    ),
    "moco": Case(moco, {256: {"ours": Aim(1.0)}}, quick=4, rounds=9),
    # The towers run forward twice: 1.33 times the work by count, 1.45 times the time at most. Smaller chunks than two
    # samples would be convolved another way, and a ReLU near zero would show it in fp32 (`quick`).
    "micro_batch": Case(micro_batch, {256: {"ours": Aim(1 / 1.45)}}, quick=16, rounds=5),
}
