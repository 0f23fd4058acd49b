"""Which samples make the batch of a step, as a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cxrcl.data.streams import ORDER, stream
from cxrcl.errors import ConfigError


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the items: the same for any number of workers and processes."""
    return stream(seed, ORDER, epoch).permutation(count)


class GlobalBatches:
    """Keys of this process's share of each global batch, from `start_step` to `total_steps`.

    The global batch of step k is the same for any number of processes: it is cut out of the epoch's order, and each
    process takes a contiguous share. The incomplete batch at the end of an epoch is left out.

    Args:
        share: (index of the share, number of shares).
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, start_step: int, total_steps: int, share: tuple[int, int]
    ) -> None:
        which, shares = share
        if batch_size % shares:
            raise ConfigError(f"trainer.batch_size={batch_size} is not divisible by {shares} processes")
        if count < batch_size:
            raise ConfigError(f"trainer.batch_size={batch_size} is larger than the {count} training samples: lower it")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.start_step, self.total_steps = start_step, total_steps
        self.local = slice(which * batch_size // shares, (which + 1) * batch_size // shares)

    @property
    def steps_per_epoch(self) -> int:
        return self.count // self.batch_size

    def __len__(self) -> int:
        return self.total_steps - self.start_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: tuple[int, Sequence[int]] = (-1, [])
        for step in range(self.start_step, self.total_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if order[0] != epoch:
                order = (epoch, epoch_order(self.count, self.seed, epoch).tolist())
            batch = order[1][position * self.batch_size : (position + 1) * self.batch_size]
            yield [(epoch, item) for item in batch[self.local]]
