"""The share of a training step that goes to its data, measured in the demo's own training on one core."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from cxrcl.app.train import train
from cxrcl.commands.hydra import compose
from cxrcl.data.loader import BatchReader, Collate
from cxrcl.data.packing import pack as packing
from cxrcl.data.phantom import PhantomSettings, generate
from cxrcl.types import Batch

SKIPPED = 5  # steps at the start, in which workers start and memory is asked for

TINY = (
    *("image_encoder.name=test_resnet", "image_encoder.options={}", "image_encoder.size=32"),
    *("text_encoder.width=16", "text_encoder.depth=1", "trainer.batch_size=4"),
)


class TimedFeed(BatchReader):
    """A feed that notes when it is asked for a batch and when it has given it."""

    clock: Callable[[], float] = time.perf_counter
    moments: list[tuple[float, float]] = []  # of the batches of the last loop, in seconds

    def batches(self, dataset: Any, keys: Any, collate: Collate) -> Iterator[Batch]:
        TimedFeed.moments = []
        inner = super().batches(dataset, keys, collate)
        while True:
            asked = TimedFeed.clock()
            batch = next(inner, None)
            if batch is None:
                return
            TimedFeed.moments.append((asked, TimedFeed.clock()))
            yield batch


def share(moments: list[tuple[float, float]]) -> float:
    """Percent of the time from one request for a batch to the next that its making takes, the first steps left out."""
    kept = moments[SKIPPED:]
    waited = sum(given - asked for asked, given in kept[:-1])
    return 100 * waited / (kept[-1][0] - kept[0][0])


def images_on_disk(folder: Path, quick: bool) -> tuple[Path, Path]:
    """Phantom images of the demo's size as files, and a packed store of them."""
    root = generate(folder / "phantom", PhantomSettings(num_studies=40 if quick else 600))
    packing.pack(root, folder / "store", read_px=96)
    return root, folder / "store"


def demo_step(folder: Path, run_dir: Path, steps: int, from_store: bool, num_workers: int, quick: bool) -> float:
    """Train the demo's model for so many steps; percent of a step that its data take.

    With workers, of the time that passes: what a step waits. Without, of the processor time: what making a batch costs.

    Args:
        folder: what `images_on_disk` gave, one of the two.
    """
    overrides = [
        *("experiment=demo", "evals=[]", "device=cpu", f"run_dir='{run_dir}'", f"data.num_workers={num_workers}"),
        *(f"data.{'store' if from_store else 'root'}='{folder}'", f"trainer.max_steps={SKIPPED + steps + 1}"),
        *("trainer.warmup_steps=1", "trainer.evaluate_every_steps=null"),
        *(TINY if quick else ()),
    ]
    clock = time.perf_counter if num_workers else time.process_time
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("cxrcl.app.train.BatchReader", TimedFeed))
        stack.enter_context(mock.patch.object(TimedFeed, "clock", clock))
        stack.enter_context(mock.patch.dict(os.environ, OMP_NUM_THREADS="1"))  # else all cores are taken
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            stack.enter_context(redirect(io.StringIO()))
        train(compose("train", overrides))
    return share(TimedFeed.moments)
