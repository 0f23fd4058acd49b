"""The images that a checkpoint is scored on, read as the model was trained to see them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cxrcl.app.data import image_reader, load_data, text_maker, without_unreadable
from cxrcl.app.exposure import gather_hashes
from cxrcl.app.job import Job
from cxrcl.app.model import prepare
from cxrcl.app.other_data import Laid, keep_views, line_on_views, lines_on_labels, overlaid, views_not_seen
from cxrcl.app.sources import build_sources, prompts_of
from cxrcl.checkpoint.content import Checkpoint, Recipe
from cxrcl.config import sections
from cxrcl.data.exposure import UNNAMED
from cxrcl.data.images.pixel_hash import NOT_READ
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader
from cxrcl.data.manifest import Manifest
from cxrcl.data.splits import Splits
from cxrcl.data.views import counted
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, DataError
from cxrcl.objectives.base import Objective
from cxrcl.types import Classifies

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationData:
    """What a checkpoint is scored on.

    Attributes:
        cfg: settings of the data: those of training, with what the user set laid over.
        splits: of all rows of the manifest.
        scored: rows of the scored splits, split by split.
        views: view -> number of scored images.
        views_not_seen: of these, what the model was not trained on as far as that is known.
        left_out: number of images left out as unreadable; None where that was not asked for.
        notes: what of the training's choice of images and labels holds here, and what does not.
        runtime: of this process.
    """

    cfg: sections.Data
    splits: Splits
    scored: Manifest
    views: Mapping[str, int]
    views_not_seen: Mapping[str, int]
    left_out: int | None
    notes: Sequence[str]
    runtime: Runtime

    def know_pixels(self, hashes: Mapping[str, int]) -> None:
        """Take over hashes of images, by path, that were read before."""
        for split, room in self.splits.pixel_hashes.items():
            room[:] = torch.tensor([hashes.get(path, NOT_READ) for path in self.splits.part(split).paths])

    def pixel_hashes(self) -> dict[str, int]:
        """Hashes of the pixels of the scored images, by path, as far as any process has read them by now."""
        hashes = [gather_hashes(room, self.runtime) for room in self.splits.pixel_hashes.values()]
        paths = [path for split in self.splits.pixel_hashes for path in self.splits.part(split).paths]
        return dict(zip(paths, torch.cat(hashes).tolist(), strict=True)) if hashes else {}


def data_settings(cfg: sections.Evaluate, checkpoint: Checkpoint, file: Path) -> Laid:
    """The data settings of training, with what the user set for this evaluation laid over.

    Raises:
        ConfigError: an exported model, which does not say where data lie, and no data named.
    """
    if checkpoint.exported and cfg.data.root is None and cfg.data.store is None and not cfg.data.sources:
        sources = checkpoint.exposure.sources if checkpoint.exposure else ()
        trained_on = ", ".join(name for name in sources if name != UNNAMED) or "images of unknown source"
        raise ConfigError(
            f"checkpoint={file}: an exported model does not say where data lie: set data.root=DIR, or data=<name> "
            f"(it was trained on {trained_on})"
        )
    return overlaid(checkpoint.recipe.data, cfg.data)


def open_data(
    job: Job[sections.Evaluate],
    laid: Laid,
    recipe: Recipe,
    objective: Objective,
    transform: RadiographTransform,
    batch_reader: BatchReader,
    hash_pixels: bool = False,
) -> EvaluationData:
    """Read the manifest, and make its splits ready for the model.

    Args:
        hash_pixels: hash the scored images while they are read.

    Raises:
        UserError: data that cannot be read, lack a split that is scored, or are a store of images of another size than
            the model was trained on.
    """
    scored_splits, runtime, cfg = job.cfg.splits, job.runtime, laid.settings
    sources = build_sources(cfg, job.packages)
    reader = image_reader(cfg, sources)
    if reader.read_px != cfg.read_px:
        raise ConfigError(
            f"the store holds images of {reader.read_px} px, but the checkpoint was trained on images of any size: "
            f"data.read_px={reader.read_px} evaluates it on these all the same"
        )
    manifest, notes = load_data(cfg, sources, runtime), list(laid.lines)
    if laid.views_of_training is not None:
        manifest, lines = keep_views(manifest, laid.views_of_training, scored_splits)
        notes += lines
    if isinstance(objective.evaluated(), Classifies):
        notes += lines_on_labels(recipe.labels, manifest.labels)
        manifest = manifest.with_labels(recipe.labels)
    unreadable: Mapping[int, str] = {}
    if cfg.skip_bad_images:
        manifest, unreadable = without_unreadable(manifest, scored_splits, batch_reader, runtime, reader)
    prompts = prompts_of({**recipe.prompts, "file": recipe.prompt_sentences}, sources, job.packages)
    splits = Splits(
        manifest,
        transform,
        text_maker(cfg, prompts),
        getattr(objective, "tokenizer", None),
        prepare(transform, runtime),
        batch_reader,
        reader,
        hashed=scored_splits if hash_pixels else (),
    )
    for split in scored_splits:
        if not splits.size(split):
            raise DataError(f"splits: no row has the split {split}; set splits=[...] to ones that the data has")
    scored = np.concatenate([np.flatnonzero(manifest.rows["split"] == split) for split in scored_splits])
    data = manifest.take(scored)
    views = counted(data.rows["view"])
    not_seen = views_not_seen(recipe, views)
    notes += line_on_views(recipe, views)
    for note in notes:
        logger.warning(note)
    left_out = len(unreadable) if cfg.skip_bad_images else None
    return EvaluationData(cfg, splits, data, views, not_seen, left_out, notes, runtime)
