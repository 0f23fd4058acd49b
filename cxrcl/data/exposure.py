"""Which images a model was trained on. Its checkpoint keeps this record: a training image is no test of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cxrcl.data.manifest import Manifest

UNNAMED = "(no source named)"


def of(training: Manifest, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The record of a model after training on these rows.

    Args:
        training: the rows of the training split.
        earlier: the record of the checkpoint whose weights the training began with.

    Returns:
        `sources`: name -> number of images; `training_images`: int64 [N], hashes of their file names and of the
        column `source`. No name or id of a patient can be read from it.
    """
    sources: dict[str, int] = dict(earlier["sources"]) if earlier else {}
    for name, count in _sources(training).value_counts().items():
        sources[str(name)] = max(sources.get(str(name), 0), int(count))
    hashes = _hashes(training)
    if earlier:
        hashes = np.concatenate([hashes, np.asarray(earlier["training_images"])])
    return {"sources": sources, "training_images": np.unique(hashes)}


def overlap(record: Mapping[str, Any], scored: Manifest) -> dict[str, Any]:
    """How far the images that a model is scored on are those that it was trained on.

    Args:
        record: what `of` gave,.

    Returns:
        `trained_on`: how many of the scored images it was trained on; `same_sources`: sources of scored images that it
        was trained on, if only with other images.
    """
    return {
        "trained_on": int(np.isin(_hashes(scored), np.asarray(record["training_images"])).sum()),
        "same_sources": sorted(set(_sources(scored)) & set(record["sources"])),
    }


def _sources(rows: Manifest) -> pd.Series:
    """The source of each row [N]: the column `source`, where that is blank the name of the source in the settings."""
    names = _column(rows, "source")
    names = names.where(names != "", _column(rows, "part"))
    return names.where(names != "", UNNAMED)


def _column(rows: Manifest, name: str) -> pd.Series:
    return rows.rows[name] if name in rows.rows else pd.Series("", index=rows.rows.index)


def _hashes(rows: Manifest) -> np.ndarray:
    """int64 [N]."""
    # The same image has another folder after each preparation; its file name within a study stays.
    names = rows.rows["image"].str.replace("\\", "/", regex=False).str.split("/").str[-2:].str.join("/")
    return pd.util.hash_array((_column(rows, "source") + "|" + names).to_numpy(dtype=object)).view(np.int64)
