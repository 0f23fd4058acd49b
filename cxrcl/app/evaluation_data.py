"""The images that a checkpoint is scored on, read as the model was trained to see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxrcl.app.data import image_reader, load_data, text_maker, without_unreadable
from cxrcl.app.job import Job
from cxrcl.app.model import prepare
from cxrcl.app.sources import build_sources, prompts_of, with_known_sentences
from cxrcl.checkpoint.content import Checkpoint, Recipe
from cxrcl.config import sections
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader
from cxrcl.data.manifest import Manifest
from cxrcl.data.splits import Splits
from cxrcl.errors import ConfigError, DataError
from cxrcl.objectives.base import Objective
from cxrcl.types import Classifies


@dataclass(frozen=True)
class EvaluationData:
    """What a checkpoint is scored on.

    Attributes:
        cfg: settings of the data: those of training, with what the user set laid over.
        splits: of all rows of the manifest.
        scored: rows of the scored splits, split by split.
        left_out: number of images left out as unreadable; None where that was not asked for.
    """

    cfg: sections.Data
    splits: Splits
    scored: Manifest
    left_out: int | None


def data_settings(cfg: sections.Evaluate, checkpoint: Checkpoint, file: Path) -> sections.Data:
    """The data settings of training, with what the user set for this evaluation laid over.

    Raises:
        ConfigError: an exported model, which does not say where data lie, and no data named.
    """
    if checkpoint.exported and cfg.data.root is None and cfg.data.store is None and not cfg.data.sources:
        exposure = checkpoint.origin.exposure
        trained_on = ", ".join(exposure.sources if exposure else ()) or "images of unknown source"
        raise ConfigError(
            f"checkpoint={file}: an exported model does not say where data lie: set data.root=DIR, or data=<name> "
            f"(it was trained on {trained_on})"
        )
    return sections.parse(overlaid(checkpoint.recipe.data, cfg.data), sections.Data)


def overlaid(stored: Mapping[str, Any], changes: sections.EvaluateData) -> dict[str, Any]:
    """Stored settings of the data, with the changes that are not null laid over."""
    values = {key: value for key, value in changes.model_dump().items() if value is not None and key != "sources"}
    if changes.root is not None or changes.store is not None or changes.sources:
        # Other data: filters of the training data mean nothing there.
        sources = with_known_sentences(changes.sources, stored["sources"])
        values = {"filter": {}, "views": None, "fraction": 1.0, "split_lists": None, **values}
        values |= {"sources": sources, "root": changes.root, "store": changes.store}
    return {**stored, **values}


def open_data(
    job: Job[sections.Evaluate],
    cfg: sections.Data,
    recipe: Recipe,
    objective: Objective,
    transform: RadiographTransform,
    batch_reader: BatchReader,
) -> EvaluationData:
    """Read the manifest, and make its splits ready for the model.

    Raises:
        UserError: data that cannot be read, lack a split that is scored, or are a store of images of another size than
            the model was trained on.
    """
    scored_splits, runtime = job.cfg.splits, job.runtime
    sources = build_sources(cfg, job.packages)
    reader = image_reader(cfg, sources)
    if reader.read_px != cfg.read_px:
        raise ConfigError(
            f"the store holds images of {reader.read_px} px, but the checkpoint was trained on images of any size: "
            f"data.read_px={reader.read_px} evaluates it on these all the same"
        )
    manifest = load_data(cfg, sources, runtime)
    if isinstance(objective.evaluated(), Classifies):
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
    )
    for split in scored_splits:
        if not splits.size(split):
            raise DataError(f"splits: no row has the split {split}; set splits=[...] to ones that the data has")
    scored = np.concatenate([np.flatnonzero(manifest.rows["split"] == split) for split in scored_splits])
    left_out = len(unreadable) if cfg.skip_bad_images else None
    return EvaluationData(cfg, splits, manifest.take(scored), left_out)
