"""A training as far as it reads images: what is recorded of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cxrcl.app.exposure import Recorder
from cxrcl.data import exposure, manifest
from cxrcl.data.dataset import TrainSet
from cxrcl.data.exposure import Exposure
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader, Collate
from cxrcl.data.order import GlobalBatches
from cxrcl.distributed import Runtime
from cxrcl.types import ImageSpec

SALT = "ab" * 16


class Logged(ImageReader):
    """Writes the images that it hashes, a line each, to `folder`/hashed.txt beside theirs."""

    def read_hashed(self, path: Any, side_px: int | None = None) -> tuple[np.ndarray, int]:
        with Path(path).parents[1].joinpath("hashed.txt").open("a") as file:
            file.write(f"{path}\n")
        return super().read_hashed(path, side_px)


def read_in_training(runtime: Runtime, root: Path, workers: int = 0, steps: int = 60) -> Exposure:
    """The record of so many steps of 4 studies on the training split of `root`/manifest.csv."""
    rows = manifest.load(root).split("train")
    recorder = Recorder(rows, exposure.begun(Exposure(), SALT), True, runtime)
    transform = RadiographTransform(ImageSpec(16, (0.5,) * 3, (0.25,) * 3))
    samples = TrainSet(rows, transform, None, "study", 1, 0, 0, Logged(), pixel_hashes=recorder.pixel_hashes)
    keys = GlobalBatches(len(samples), 4, 0, 0, steps, (runtime.rank, runtime.world))
    for step, _ in enumerate(recorder.watched(BatchReader(workers).batches(samples, keys, Collate(None)))):
        if step % 7 == 0:
            recorder.record()
    return recorder.record()
