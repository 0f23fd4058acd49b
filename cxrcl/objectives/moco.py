"""MoCo v2: an image against its other view and a queue of keys of earlier images (He et al. 2020, Chen et al. 2020)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.distributed import rows_of_all, shuffle, unshuffle
from cxrcl.models.base import ImageEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.losses import moco_loss
from cxrcl.objectives.towers import ImageObjective, encode_views, unit_vectors
from cxrcl.types import Batch, Count, Positive, Share, StepOutput


class Moco(ImageObjective):
    """InfoNCE of a query against the key of its sample and the keys of a queue: `cxrcl.objectives.losses.moco_loss`.

    Keys come from a moving average of the encoder. The queue holds the same keys in every process. It is written after
    the update, past its end and on from the start, so any size suits any batch.

    Args:
        image_encoder: of the queries.
        image_head: makes the projection; called with the encoder's width. An MLP makes v2 out of v1; without
            `batch_norm` it suits encoders that have no batch statistics, such as ViTs.
        queue_size: number of keys.
        momentum: of the moving average (He et al. 2020, equation 2).
        temperature: divides the cosines.
        symmetric: both views are queries and both are keys: two terms, averaged. The keys of both are queued at once.
        shuffle_batch_norm: keys are computed on samples shuffled over processes, so that batch statistics do not tell
            which key belongs to a query (section 3.3). Of no use to encoders without BatchNorm, nor in a single
            process.
        allow_stale_queue: admit a queue larger than the training set, which holds older keys of every image it is
            compared with (some published recipes do).
    """

    num_views: ClassVar[int] = 2
    loss_selects: ClassVar[bool] = False  # query and key encoder start equal: the loss starts low, and rises
    queue: Tensor  # float32 [K, D]
    place: Tensor  # int64 scalar, where the next key is written

    def __init__(
        self,
        image_encoder: ImageEncoder,
        image_head: Callable[..., Head],
        queue_size: Count = 65536,
        momentum: Share = 0.999,
        temperature: Positive = 0.2,
        symmetric: bool = False,
        shuffle_batch_norm: bool = True,
        allow_stale_queue: bool = False,
    ) -> None:
        super().__init__(image_encoder)
        self.image_head = image_head(image_encoder.dim)
        # A list: its tensors are key_tower.0 and key_tower.1, which nobody takes for a checkpoint's `image_encoder`.
        self.key_tower = nn.ModuleList([copy.deepcopy(image_encoder), copy.deepcopy(self.image_head)])
        self.key_tower.requires_grad_(False)
        self.register_load_state_dict_post_hook(_follow)
        self.momentum, self.temperature = momentum, temperature
        self.symmetric, self.shuffle_batch_norm = symmetric, shuffle_batch_norm
        self.allow_stale_queue = allow_stale_queue
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, self.image_head.out_dim), dim=-1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @property
    def embedded_views(self) -> int:
        return 2 if self.symmetric else 1

    def check(self, samples: int, global_batch: int) -> None:
        """Refuses a queue smaller than the keys of a step, or larger than those of the training set.

        Raises:
            ValueError: with the size that suits.
        """
        super().check(samples, global_batch)
        keys_per_sample = self.embedded_views  # each view that is a query has the other as its key
        size, a_step, largest = len(self.queue), global_batch * keys_per_sample, samples * keys_per_sample
        if size < a_step:
            raise ValueError(f"queue_size={size}: a step brings {a_step} keys; set queue_size={a_step} or more")
        # A batch larger than the training set is the plan's business, and no queue would suit it.
        if a_step <= largest < size and not self.allow_stale_queue:
            raise ValueError(
                f"queue_size={size}: larger than the {samples} training samples"
                f"{' x 2 keys' if self.symmetric else ''}, so it holds older keys of the very images that it is "
                f"compared with; set queue_size={largest // a_step * a_step}, or allow_stale_queue=true"
            )

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`query` float32 [B, 1 or 2, D], unit vectors."""
        query = unit_vectors(self.image_head(encode_views(self.image_encoder, batch, self.embedded_views).pooled))
        return {"query": query.unflatten(0, (-1, self.embedded_views))}

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """`key` float32 [B, 1 or 2, D], unit vectors: each of the view that its query is not."""
        assert batch.images is not None
        others = (1, 0) if self.symmetric else (1,)
        return {"key": torch.stack([self._key(batch.images[:, view]) for view in others], dim=1)}

    def _key(self, images: Tensor) -> Tensor:
        """Images float32 [B, 3, S, S] -> keys float32 [B, D], unit vectors."""
        encoder, head = self.key_tower
        if not (self.shuffle_batch_norm and self.training):
            return unit_vectors(head(encoder(images).pooled))
        # Otherwise the BatchNorm statistics that a query and its key share would tell them from the queue's keys.
        shuffled, order = shuffle(images)
        return unshuffle(unit_vectors(head(encoder(shuffled).pooled)), order)

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """Of `query` and `key` float [b, 1 or 2, D]; the keys are left for `after_step`."""
        query, key = embeddings["query"].flatten(0, 1), targets["key"].flatten(0, 1)
        logs: dict[str, Tensor] = {}
        loss = moco_loss(query, key, self.queue, self.temperature, logs=logs)
        return StepOutput(loss, logs, {"key": targets["key"]})

    @torch.no_grad()
    def after_step(self, output: StepOutput, step: int, total: int) -> None:
        """Move the average towards the new weights, and write the keys of all processes into the queue.

        Not in `loss`: the backward pass needs the queue that the forward pass has seen. Not for a skipped update
        either, which is not called.
        """
        trained: list[Tensor] = [*self.image_encoder.parameters(), *self.image_head.parameters()]
        averages: list[Tensor] = [*self.key_tower.parameters()]
        torch._foreach_lerp_(averages, trained, 1 - self.momentum)
        keys = rows_of_all(output.state["key"]).flatten(0, 1).to(self.queue.dtype)
        places = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = keys
        self.place.copy_((self.place + len(keys)) % len(self.queue))

    def chance(self, global_batch: int) -> float:
        """Equal similarities to the key and the K of the queue: log(K + 1)."""
        return math.log(len(self.queue) + 1)


def _follow(model: nn.Module, incompatible: Any) -> None:
    """Weights of a checkpoint that has no such average: the average starts from them."""
    assert isinstance(model, Moco)
    if any("key_tower." in name for name in incompatible.missing_keys):
        for average, trained in zip(model.key_tower, (model.image_encoder, model.image_head), strict=True):
            average.load_state_dict(trained.state_dict())
