"""The phantom set as a source: drawn on first use."""

from __future__ import annotations

import os
from pathlib import Path

from cxrcl.data.phantom import PhantomSettings, generate
from cxrcl.data.sources.base import Source
from cxrcl.data.text.prompts import Prompts
from cxrcl.types import Count, Part, Positive, Seed, Side


class Phantom(Source):
    """Synthetic images with reports (see `cxrcl.data.phantom`).

    Args:
        root: folder; each combination of settings gets its own sub-folder.
        num_studies: patients' studies to draw.
        size_px: side of the square images.
        seed: of the whole set.
        weight, fraction, prompts: see `Source`.
    """

    def __init__(
        self,
        root: str,
        num_studies: Count = 3000,
        size_px: Side = 96,
        seed: Seed = 0,
        weight: Positive | None = None,
        fraction: Part | None = None,
        prompts: str | Prompts | None = None,
    ) -> None:
        super().__init__(root, weight, fraction, prompts)
        self.settings = PhantomSettings(num_studies=num_studies, size_px=size_px, seed=seed)
        self.root = self.root / f"{num_studies}-studies-{size_px}px-seed{seed}"

    def prepare(self) -> Path:
        return generate(self.root, self.settings, num_workers=os.cpu_count() or 1)
