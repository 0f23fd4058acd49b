"""CSV files of what people read: `image, reader` and one column a label, a row for each image that a reader read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrcl.errors import DataError
from cxrcl.evaluation.scores import prediction_files

READER = "reader"


@dataclass(frozen=True)
class Readings:
    """What one reader said of N images: float [N, C] of 1, 0 and nan where he did not say."""

    reader: str
    calls: np.ndarray


def read(
    file: Path, id_column: str, images: Sequence[str], labels: Sequence[str]
) -> tuple[list[Readings], list[str], str]:
    """The readings of these images, of each reader in the order of the file.

    Args:
        images: [N], their names.
        labels: [C]; those that the file lacks were not read.

    Returns:
        The readings, notes on what of the file is left out, and its sha256.

    Raises:
        DataError: one line with what was found and expected.
    """
    table = prediction_files.read(file, id_column, once_by=[READER])
    named = [name for name in table.names if name not in (id_column, READER)]
    shared = [name for name in labels if name in named]
    if not shared:
        raise DataError(
            f"{file}: no column of a scored label; found: {', '.join(named) or 'none'}; scored: {', '.join(labels)}"
        )
    values = prediction_files.label_values(table, shared)
    scored = pd.Index(images)
    if not scored.is_unique:
        raise DataError(f"{file}: {scored[scored.duplicated()][0]!r} names several scored images: score one source")
    place = scored.get_indexer(pd.Index(table.ids))
    if (place < 0).all():
        raise DataError(f"{file}: no image is among the {len(images)} scored ones, first {table.ids.iloc[0]!r}")
    notes = [f"{file.name}: readings of {(place < 0).sum()} images that are not scored are left out"]
    notes = notes if (place < 0).any() else []
    if ignored := [name for name in named if name not in shared]:
        notes.append(f"{file.name}: not scored, no such label: {', '.join(ignored)}")
    names = np.array(table.column(READER))
    readings = []
    for reader in dict.fromkeys(names.tolist()):
        rows = (names == reader) & (place >= 0)
        calls = np.full((len(images), len(labels)), np.nan)
        calls[np.ix_(place[rows], [labels.index(name) for name in shared])] = values[rows]
        readings.append(Readings(reader, calls))
    return readings, notes, table.sha256
