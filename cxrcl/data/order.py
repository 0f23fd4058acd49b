"""Which samples make the batch of a step, as a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cxrcl.data.streams import ORDER, stream
from cxrcl.errors import ConfigError

# (draw, item): the random numbers of a sample belong to both, so that no two draws of an item are alike.
Key = tuple[int, int]
Order = Callable[[int], Sequence[Key]]  # epoch -> its keys


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the items: the same for any number of workers and processes."""
    return stream(seed, ORDER, epoch).permutation(count)


def largest_remainder(total: int, weights: Sequence[float]) -> list[int]:
    """`total` in whole numbers that are as the weights, by the largest remainder (ties: the first one)."""
    parts = np.asarray(weights, dtype=float) / max(weights)  # whose sum is finite
    exact = total * parts / parts.sum()
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[rest] += 1
    return counts.tolist()


class Mixture:
    """Epochs in which each source has a share of its own, whatever its size.

    An epoch has as many samples as all sources together. A source gives its share of them out of an endless sequence of
    permutations of its items, which goes on where the epoch before left it: no item comes again before all others of
    its source have. Then the epoch is shuffled as a whole. The draw of a key is the number of the permutation, so that
    an item that comes twice in an epoch has other views, crops and texts each time.

    Args:
        parts: the items of each source.
        weights: of each source, above 0.
    """

    def __init__(self, parts: Sequence[np.ndarray], weights: Sequence[float], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.shares = largest_remainder(sum(map(len, parts)), weights)

    def __call__(self, epoch: int) -> list[Key]:
        keys = [key for k in range(len(self.parts)) for key in self._drawn(k, epoch)]
        # Its stream has a number behind those of the sources: none of their permutations is made of the same numbers.
        return [keys[k] for k in stream(self.seed, ORDER, len(self.parts), epoch).permutation(len(keys))]

    def _drawn(self, source: int, epoch: int) -> Iterator[Key]:
        items, share = self.parts[source], self.shares[source]
        place, end = epoch * share, (epoch + 1) * share
        while place < end:
            turn, first = divmod(place, len(items))
            order = items[stream(self.seed, ORDER, source, turn).permutation(len(items))]
            taken = order[first : first + end - place].tolist()
            yield from ((turn, item) for item in taken)
            place += len(taken)


class GlobalBatches:
    """Keys of this process's share of each global batch, from `start_step` to `total_steps`.

    The global batch of step k is the same for any number of processes: it is cut out of the epoch's order, and each
    process takes a contiguous share. The incomplete batch at the end of an epoch is left out.

    Args:
        share: (index of the share, number of shares).
        order: the keys of an epoch, `count` of them; None: each item once, the epoch being its draw.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        start_step: int,
        total_steps: int,
        share: tuple[int, int],
        order: Order | None = None,
    ) -> None:
        which, shares = share
        if batch_size % shares:
            raise ConfigError(f"trainer.batch_size={batch_size} is not divisible by {shares} processes")
        if count < batch_size:
            raise ConfigError(f"trainer.batch_size={batch_size} is larger than the {count} training samples: lower it")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.start_step, self.total_steps = start_step, total_steps
        self.local = slice(which * batch_size // shares, (which + 1) * batch_size // shares)
        self.order = order or self._each_once

    def _each_once(self, epoch: int) -> list[Key]:
        return [(epoch, item) for item in epoch_order(self.count, self.seed, epoch).tolist()]

    @property
    def steps_per_epoch(self) -> int:
        return self.count // self.batch_size

    def __len__(self) -> int:
        return self.total_steps - self.start_step

    def __iter__(self) -> Iterator[list[Key]]:
        order: tuple[int, Sequence[Key]] = (-1, [])
        for step in range(self.start_step, self.total_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if order[0] != epoch:
                order = (epoch, self.order(epoch))
            yield list(order[1][position * self.batch_size : (position + 1) * self.batch_size][self.local])
