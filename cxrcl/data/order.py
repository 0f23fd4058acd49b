"""Which samples make the batch of a step, as a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cxrcl.data.streams import ORDER, stream
from cxrcl.errors import ConfigError

# (draw, item): the random numbers of a sample belong to both, so that no two draws of an item are alike.
Key = tuple[int, int]
Order = Callable[[int], Sequence[Key]]  # epoch -> its keys


def in_order(positions: Sequence[int], batch_size: int) -> list[list[Key]]:
    """The keys of batches of samples that are always the same: these positions, one after another."""
    keys = [(0, int(position)) for position in positions]
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the items, int64 [count]: the same for any number of workers and processes."""
    return stream(seed, ORDER, epoch).permutation(count)


def largest_remainder(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the weights that sum to `total`, by the largest remainder (ties: the first)."""
    parts = np.asarray(weights, dtype=float) / max(weights)  # whose sum is finite
    exact = total * parts / parts.sum()
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[rest] += 1
    return counts.tolist()


class Mixture:
    """The order of epochs in which the weight of a source, and not its size, decides on its share.

    An epoch has as many samples as all sources together. A source gives its share of them out of an endless sequence of
    permutations of its items, which goes on where the epoch before left it: no item comes again before all others of
    its source have. Then the epoch is shuffled as a whole. The draw of a key is the number of the permutation, so that
    an item that comes twice in an epoch has other views, crops and texts each time.

    Args:
        parts: the items of each source, int64 [n] each.
        weights: of each source, above 0.
        seed: of the permutations.
    """

    def __init__(self, parts: Sequence[np.ndarray], weights: Sequence[float], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.shares = largest_remainder(sum(map(len, parts)), weights)

    def __call__(self, epoch: int) -> list[Key]:
        """The keys of an epoch, as many as there are items."""
        keys = [key for k in range(len(self.parts)) for key in self._drawn(k, epoch)]
        # Its stream has a number behind those of the sources: none of their permutations is made of the same numbers.
        return [keys[k] for k in stream(self.seed, ORDER, len(self.parts), epoch).permutation(len(keys))]

    def _drawn(self, source: int, epoch: int) -> Iterator[Key]:
        """The keys of one source in an epoch, before the epoch is shuffled."""
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
        count: items of an epoch.
        batch_size: samples of a global batch.
        seed: of the order.
        start_step, total_steps: the first step, and the end of the last one.
        share: (index of the share, number of shares).
        order: the keys of an epoch, `count` of them; None: each item once, the epoch being its draw.

    Raises:
        ConfigError: a batch that is no multiple of the shares, or larger than an epoch.
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
            raise ConfigError(f"batch_size={batch_size} is not divisible by {shares} processes", argument="batch_size")
        if count < batch_size:
            raise ConfigError(
                f"batch_size={batch_size} is larger than the {count} training samples: lower it", argument="batch_size"
            )
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.start_step, self.total_steps = start_step, total_steps
        self.local = slice(which * batch_size // shares, (which + 1) * batch_size // shares)
        self.order = order or self._each_once

    def _each_once(self, epoch: int) -> list[Key]:
        return [(epoch, item) for item in epoch_order(self.count, self.seed, epoch).tolist()]

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches of an epoch."""
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
