"""What tests of readers share: CSV files of a download, and a reader's result as a folder with a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cxrcl.data import manifest
from cxrcl.data.sources.base import Prepared


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """A CSV, compressed when the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def load(prepared: Prepared, out: Path) -> manifest.Manifest:
    """The manifest as training reads it: `prepared` written down and read back, with its checks."""
    table = prepared.table.assign(image="images/" + prepared.table["image"])
    out.mkdir()
    table.to_csv(out / manifest.FILE_NAME, index=False)
    (out / "images").symlink_to(prepared.images.resolve(), target_is_directory=True)
    loaded = manifest.load(out, labels=prepared.labels)
    other = set(prepared.table) - {*manifest.REQUIRED, *manifest.OPTIONAL, *prepared.labels}
    assert not other, f"{other} would be read as labels"
    assert loaded.labels == prepared.labels
    return loaded


def column(prepared: Prepared, name: str, key: str = "image") -> dict[str, str]:
    """Values of a column by the key's."""
    return dict(zip(prepared.table[key], prepared.table[name]))
