"""What a model has been trained on: recorded while it is trained, and compared with the images that it is scored on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxrcl.checkpoint.content import Checkpoint
from cxrcl.data import exposure
from cxrcl.data.dataset import new_hashes
from cxrcl.data.exposure import Exposure
from cxrcl.data.images.pixel_hash import NONE, NOT_READ
from cxrcl.data.manifest import Manifest
from cxrcl.distributed import Runtime
from cxrcl.evaluation.report.facts import TrainedOn
from cxrcl.models.base import Encoder
from cxrcl.objectives.base import Objective
from cxrcl.types import Batch


class Recorder:
    """The record of a training: images that are not drawn, or that the run is stopped before, are not in it.

    Args:
        training: the rows that samples are made of.
        start: what the weights were trained on before this training; of a resumed run the record so far.
        resumed: whether it is that.
        runtime: of this process.

    Attributes:
        pixel_hashes: int64 [rows], which the workers fill while they read (see `data.dataset.TrainSet`).
    """

    def __init__(self, training: Manifest, start: Exposure, resumed: bool, runtime: Runtime) -> None:
        self.training, self.runtime = training, runtime
        self.pixel_hashes = new_hashes(len(training))
        self._recorded = np.zeros(len(training), dtype=bool)
        if resumed and start.trainings:
            self._recorded = exposure.recorded(start.trainings[-1], training)
            self.pixel_hashes[torch.from_numpy(self._recorded)] = NONE  # they are not asked for again
            self._record = start
        else:
            self._record = exposure.begun(start, runtime.main_decides(exposure.new_salt))
        self._read = np.zeros(len(training), dtype=bool)

    def watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the images of one are noted when it is taken."""
        for batch in batches:
            assert batch.image_rows is not None
            self._read[batch.image_rows.numpy()] = True
            yield batch

    def record(self) -> Exposure:
        """Of all processes, each of which has to call it."""
        mine = np.flatnonzero(self._read & ~self._recorded)
        parts = self.runtime.gather_objects((mine, self.pixel_hashes.numpy()[mine]))
        rows, first = np.unique(np.concatenate([rows for rows, _ in parts]), return_index=True)
        if len(rows):
            pixels = np.concatenate([hashes for _, hashes in parts])[first]
            self.pixel_hashes[torch.from_numpy(rows)] = torch.from_numpy(pixels)
            self._recorded[rows] = True
            self._record = exposure.extended(self._record, self.training.take(rows), pixels)
        return self._record


def start_of_training(
    objective: Objective, nodes: Mapping[str, Mapping[str, Any] | None], init: Checkpoint | None
) -> Exposure:
    """What the weights were trained on that a training begins with.

    Args:
        objective: before its first step.
        nodes: of its encoders, as they were asked for.
        init: the checkpoint of `init_from`.
    """
    record = Exposure() if init is None else init.exposure or Exposure(unrecorded=("the checkpoint of init_from",))
    own = {name: part for name, part in objective.named_modules() if name in nodes and isinstance(part, Encoder)}
    began = [
        f"{name} {Path(str((nodes[name] or {}).get('name', ''))).name}".strip()
        for name, part in own.items()
        if (init is None or name not in init.recipe.model) and _has_weights(part, nodes[name] or {})
    ]
    return replace(record, unrecorded=tuple(dict.fromkeys((*record.unrecorded, *began))))


def _has_weights(part: Encoder, node: Mapping[str, Any]) -> bool:
    """Whether an encoder was made with weights of another place."""
    return bool(node.get("pretrained") or node.get("weights") or getattr(part, "load_report", None) is not None)


def knows_pixels(checkpoint: Checkpoint) -> bool:
    """Whether images can be found by their pixels among those that a checkpoint was trained on."""
    trainings = () if checkpoint.exposure is None else checkpoint.exposure.trainings
    return any(training.pixels is not None and len(training.pixels) > 0 for training in trainings)


def compared(checkpoint: Checkpoint, scored: Manifest, pixels: Mapping[str, int]) -> tuple[TrainedOn | None, list[str]]:
    """What a checkpoint was trained on and how far the scored images are among it, and for each image what it is.

    Args:
        pixels: hashes of the scored images that were read, by path.
    """
    record = checkpoint.exposure
    if record is None:
        return None, []
    hashes = np.array([pixels.get(path, NOT_READ) for path in scored.paths], dtype=np.int64)
    found = exposure.overlap(record, scored, hashes)
    kinds = {"image (pixels)": found.by_pixels, "image (name)": found.by_name, "patient": found.patient}
    kinds |= {"source": found.source, "patient, perhaps": found.perhaps_patient}
    which = np.select(list(kinds.values()), list(kinds), "unknown")
    counts = {
        "seen_by_pixels": found.by_pixels,
        "seen_by_name": found.by_name,
        "patient_seen": found.patient,
        "same_source": found.source,
        "unknown": ~(found.by_pixels | found.by_name | found.patient | found.source),
        "perhaps_patient_seen": found.perhaps_patient,
        "same_patient_id": found.same_patient_id,
    }
    numbers = {name: int(mask.sum()) for name, mask in counts.items()}
    return TrainedOn(record.sources, len(scored), **numbers, not_known=found.not_known), which.tolist()


def gather_hashes(hashes: Tensor, runtime: Runtime) -> Tensor:
    """Hashes int64 [N] of images, each read in one of the processes, in all of them."""
    return reduce(lambda one, other: torch.where(one == NOT_READ, other, one), runtime.gather_objects(hashes))
