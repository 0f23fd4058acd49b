"""The tiny set, packed."""

from __future__ import annotations

from pathlib import Path

import pytest
from packed_stores import PX

from cxrcl.data.packing import pack as packing


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images a batch: 15 of them in the tiny set."""
    monkeypatch.setattr(packing, "_BATCH_BYTES", 2 * PX * PX)


@pytest.fixture
def packed(tiny_set: Path, tmp_path: Path) -> Path:
    return packing.pack(tiny_set, tmp_path / "store", PX).store.folder
