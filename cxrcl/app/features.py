"""Features of a frozen encoder: each image goes through it once, and not in every epoch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from cxrcl.data.cached_features import image_batches
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader
from cxrcl.data.manifest import Manifest
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError
from cxrcl.models.base import ImageEncoder
from cxrcl.objectives.base import Objective
from cxrcl.training.trainer import Precision
from cxrcl.types import Batch, EncodesImages

logger = logging.getLogger(__name__)


def check(objective: Objective, transform: RadiographTransform) -> None:
    """Whether features stay what they are, so that they can be kept.

    Raises:
        ConfigError: the objective needs more than pooled features, the encoder is trained in any part, or the images of
            the training are changed at random.
    """
    setting = "data.cache_features=true"
    if not objective.needs_pooled_only:
        raise ConfigError(
            f"{setting}: {type(objective).__name__} needs more of an image than its pooled features; set it to false"
        )
    was_training = objective.training
    objective.train()
    encoders = [part for part in objective.modules() if isinstance(part, ImageEncoder)]
    moves = any(p.requires_grad for encoder in encoders for p in encoder.parameters()) or any(
        part.training for encoder in encoders for part in encoder.modules()
    )
    objective.train(was_training)
    if moves:
        raise ConfigError(
            f"{setting}: features change while the encoder is trained; freeze the whole of it with "
            "objective.freeze_encoder=true, or set it to false"
        )
    if transform.augments:
        raise ConfigError(
            f"{setting}: the transform changes the images of the training at random, so that one pass is not enough; "
            "set transform=plain, or set it to false"
        )


def paths_in_use(training: Manifest, data: Manifest, splits: Sequence[str]) -> list[str]:
    """Paths of the training images and of those of the evaluated splits, each once."""
    evaluated = data.rows["path"][data.rows["split"].isin(list(splits))]
    return list(dict.fromkeys([*training.rows["path"].astype(str), *evaluated.astype(str)]))


@torch.no_grad()
def encode_once(
    objective: Objective,
    paths: Sequence[str],
    transform: RadiographTransform,
    reader: ImageReader,
    batch_reader: BatchReader,
    prepare: Callable[[Batch], Batch],
    runtime: Runtime,
    precision: Precision,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Pooled features float32 [dim] of the images, on the CPU, by path; those that cannot be read are left out.

    Every process encodes its share; all get the same.
    """
    encoder, mine = cast(EncodesImages, objective.evaluated()), runtime.shard(len(paths))
    objective.eval()
    rows: list[Tensor] = []
    bad: list[bool] = []
    live = runtime.is_main and sys.stderr.isatty()
    if not live:  # a line where nobody looks at a bar
        logger.info(f"{len(paths)} images go through the frozen encoder once")
    with _bar(len(mine), live) as bar, precision.autocast():
        # A process without a share encodes an image, too: the gather needs the width of a row.
        for host in image_batches(paths, mine or range(1), batch_size, transform, reader, batch_reader):
            assert host.unreadable_row is not None
            bad += (host.unreadable_row > 0).tolist()
            batch = prepare(host)
            assert batch.images is not None
            rows.append(encoder.encode_images(batch.images[:, 0]).pooled.float().cpu())
            bar.update(len(host.index))
    pooled = runtime.gather_rows(torch.cat(rows)[: len(mine)]).numpy()
    unread = [flag for part in runtime.gather_objects(bad[: len(mine)]) for flag in part]
    return {path: row for path, row, flag in zip(paths, pooled, unread, strict=True) if not flag}


def _bar(count: int, live: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=count, unit="image", desc="features", dynamic_ncols=True, leave=False, disable=not live)
