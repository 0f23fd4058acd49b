"""Which films a model was trained on, kept in its checkpoint: a film that it has seen is no test of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cxrcl.data.manifest import Manifest

UNNAMED = "(no source named)"


def of(training: Manifest, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a model has seen after training on these rows.

    Args:
        earlier: what it had seen before, where training began with the weights of another checkpoint.

    Returns:
        `sources`: name -> number of films; `films`: int64, hashes of their file names and of the column `source`. No
        name or id of a patient can be read from it.
    """
    sources: dict[str, int] = dict(earlier["sources"]) if earlier else {}
    for name, count in _sources(training).value_counts().items():
        sources[str(name)] = max(sources.get(str(name), 0), int(count))
    films = _hashes(training)
    if earlier:
        films = np.concatenate([films, np.asarray(earlier["films"], dtype=np.int64)])
    return {"sources": sources, "films": np.unique(films)}


def overlap(seen: Mapping[str, Any], scored: Manifest) -> dict[str, Any]:
    """How a model's training and the films that it is scored on meet.

    Returns:
        `films_seen`: how many of the scored films it was trained on; `same_sources`: sources of scored films that it
        was trained on, with other films at least.
    """
    known = np.asarray(seen["films"], dtype=np.int64)
    return {
        "films_seen": int(np.isin(_hashes(scored), known).sum()),
        "same_sources": sorted(set(_sources(scored)) & set(seen["sources"])),
    }


def _sources(rows: Manifest) -> pd.Series:
    """The column `source`; where it says nothing, the name of the source in the settings."""
    named = _column(rows, "source")
    named = named.where(named != "", _column(rows, "part"))
    return named.where(named != "", UNNAMED)


def _column(rows: Manifest, name: str) -> pd.Series:
    return rows.rows[name] if name in rows.rows else pd.Series("", index=rows.rows.index)


def _hashes(rows: Manifest) -> np.ndarray:
    # The same film has another folder after each preparation; its file name within a study stays.
    names = rows.rows["image"].str.replace("\\", "/", regex=False).str.split("/").str[-2:].str.join("/")
    return pd.util.hash_array((_column(rows, "source") + "|" + names).to_numpy(dtype=object)).view(np.int64)
