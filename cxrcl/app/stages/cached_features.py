"""Features of a frozen encoder in place of images: each image goes through it once, and not in every epoch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cxrcl.app.exposure import gather_hashes
from cxrcl.app.job import Job
from cxrcl.app.plan import Steps
from cxrcl.app.stages.evaluation import Evaluation
from cxrcl.app.stages.learning import Inputs, Learner, Samples
from cxrcl.config.sections import Train
from cxrcl.data.cached_features import image_batches
from cxrcl.data.dataset import new_hashes
from cxrcl.data.images.pixel_hash import NONE
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.loader import BatchReader
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError
from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.models.base import ImageEncoder
from cxrcl.training.trainer import Precision
from cxrcl.types import EncodesImages

logger = logging.getLogger(__name__)


def check_features(learner: Learner) -> None:
    """Whether features stay what they are, so that they can be kept.

    Raises:
        ConfigError: the objective needs more than pooled features, the encoder is trained in any part, or the images of
            the training are changed at random.
    """
    setting, objective = "data.cache_features=true", learner.objective
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
    if learner.transform.augments:
        raise ConfigError(
            f"{setting}: the transform changes the images of the training at random, so that one pass is not enough; "
            "set transform=plain, or set it to false"
        )


def with_cached_features(
    job: Job[Train],
    inputs: Inputs,
    learner: Learner,
    samples: Samples,
    evaluation: Evaluation,
    steps: Steps,
    batch_reader: BatchReader,
) -> tuple[Samples, Evaluation]:
    """Samples and evaluators that read features, for which every image goes through the frozen encoder once."""
    rows = evaluation.splits.manifest.rows
    evaluated = rows["path"][rows["split"].isin(evaluation.evaluated_splits)]
    paths = list(dict.fromkeys([*samples.manifest.rows["path"].astype(str), *evaluated.astype(str)]))  # each once
    place = {path: k for k, path in enumerate(paths)}
    of_training = torch.tensor([place[path] for path in samples.manifest.rows["path"]])
    hashes = new_hashes(len(paths)).fill_(NONE)  # of the training images alone, and not of those that are on record
    hashes[of_training] = samples.recorder.pixel_hashes
    batch_size = steps.trainer.batch_size
    cached = encode_once(learner, paths, inputs.reader, batch_reader, job.runtime, steps.precision, batch_size, hashes)
    samples.recorder.pixel_hashes[:] = gather_hashes(hashes, job.runtime)[of_training]
    splits = evaluation.splits.with_features(cached)
    evaluators = Evaluators(evaluation.evaluators.evaluators, splits, batch_size)
    return replace(samples, dataset=samples.dataset.with_features(cached)), replace(evaluation, evaluators=evaluators)


@torch.no_grad()
def encode_once(
    learner: Learner,
    paths: Sequence[str],
    reader: ImageReader,
    batch_reader: BatchReader,
    runtime: Runtime,
    precision: Precision,
    batch_size: int,
    pixel_hashes: Tensor | None = None,
) -> dict[str, np.ndarray]:
    """Pooled features float32 [dim] of the images, on the CPU, by path; those that cannot be read are left out.

    Every process encodes its share; all get the same. The hashes of that share are laid into `pixel_hashes`, int64
    [paths], where this is not None (see `data.dataset.TrainSet`).
    """
    encoder, mine = cast(EncodesImages, learner.objective.evaluated()), runtime.shard(len(paths))
    learner.objective.eval()
    rows: list[Tensor] = []
    bad: list[bool] = []
    live = runtime.is_main and sys.stderr.isatty()
    if not live:  # a line where nobody looks at a bar
        logger.info(f"{len(paths)} images go through the frozen encoder once")
    bar = tqdm(total=len(mine), unit="image", desc="features", dynamic_ncols=True, leave=False, disable=not live)
    with bar, precision.autocast():
        # A process without a share encodes an image, too: the gather needs the width of a row.
        places = mine or range(1)
        for host in image_batches(paths, places, batch_size, learner.transform, reader, batch_reader, pixel_hashes):
            assert host.unreadable_row is not None
            bad += (host.unreadable_row > 0).tolist()
            batch = learner.prepare(host)
            assert batch.images is not None
            rows.append(encoder.encode_images(batch.images[:, 0]).pooled.float().cpu())
            bar.update(len(host.index))
    pooled = runtime.gather_rows(torch.cat(rows)[: len(mine)]).numpy()
    unread = [flag for part in runtime.gather_objects(bad[: len(mine)]) for flag in part]
    return {path: row for path, row, flag in zip(paths, pooled, unread, strict=True) if not flag}
