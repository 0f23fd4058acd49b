"""Weighted epochs: exact shares, no sample again before all others of its source, the same for any world."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from cxrcl.data.order import GlobalBatches, Key, Mixture, epoch_order, largest_remainder

SMALL, LARGE = np.arange(5, 12), np.concatenate([np.arange(5), np.arange(12, 30)])  # 7 and 23 items, interleaved
PARTS = (SMALL, LARGE)


def of(keys: list[Key], part: np.ndarray) -> list[Key]:
    return [key for key in keys if key[1] in part]


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (30, [1, 1], [15, 15]),
        (30, [2, 1], [20, 10]),
        (10, [1, 1, 1], [4, 3, 3]),
        (10, [0.6, 0.25, 0.15], [6, 3, 1]),
        (11, [5, 2, 2], [6, 3, 2]),
        (7, [3], [7]),
        (30, [1e-3, 1], [0, 30]),
        (30, [1e308, 1e308], [15, 15]),
    ],
)
def test_shares_are_as_the_weights_and_sum_to_the_whole(total: int, weights: list[float], expected: list[int]) -> None:
    assert largest_remainder(total, weights) == expected


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (1.0, 9.0)])
def test_each_epoch_has_the_shares_and_the_size_of_all_sources_together(weights: tuple[float, float]) -> None:
    order = Mixture(PARTS, weights, seed=3)
    for epoch in range(5):
        keys = order(epoch)
        assert len(keys) == 30
        assert [len(of(keys, part)) for part in PARTS] == largest_remainder(30, weights)


@pytest.mark.parametrize("weights", [(3.0, 1.0), (1.0, 9.0)])
def test_no_item_comes_again_before_all_others_of_its_source_have(weights: tuple[float, float]) -> None:
    order = Mixture(PARTS, weights, seed=3)
    for part, share in zip(PARTS, largest_remainder(30, weights), strict=True):
        seen: Counter[Key] = Counter()
        for epoch in range(12):
            seen.update(of(order(epoch), part))
            turns, rest = divmod((epoch + 1) * share, len(part))
            for turn in range(turns):
                assert all(seen[turn, item] == 1 for item in part)
            assert sum(seen[turns, item] for item in part) == rest
        assert set(seen.values()) == {1}  # a draw is never repeated: views, crops and texts are new each time


def test_each_turn_and_each_source_has_a_permutation_of_its_own() -> None:
    # A third of two sources is drawn in an epoch: which one would be the same in each turn, or in both.
    alike, third = (np.arange(30), np.arange(30, 60)), np.arange(60, 70)
    order = Mixture((*alike, third), (1, 1, 5), seed=0)
    drawn = [frozenset(item - part[0] for _, item in of(order(epoch), part)) for epoch in (0, 3, 6) for part in alike]
    assert len(set(drawn)) == 6 and {len(items) for items in drawn} == {10}


def test_the_epoch_is_shuffled_as_a_whole() -> None:
    firsts = [sum(key[1] in SMALL for key in Mixture(PARTS, (1, 1), seed)(0)[:15]) for seed in range(40)]
    assert 6 < np.mean(firsts) < 9 and min(firsts) > 0 and max(firsts) < 15


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    one, same, other = (Mixture(PARTS, (2, 1), seed) for seed in (5, 5, 6))
    later = one(7)
    assert [one(epoch) for epoch in range(3)] == [same(epoch) for epoch in range(3)]
    assert same(7) == later and other(7) != later and one(6) != later


@pytest.mark.parametrize("world", [1, 2, 4])
def test_global_batches_of_a_mixture_are_the_same_for_any_number_of_processes(world: int) -> None:
    order = Mixture(PARTS, (2, 1), seed=5)
    alone = list(GlobalBatches(30, 8, 5, 0, 9, (0, 1), order))
    assert alone == [order(step // 3)[step % 3 * 8 : step % 3 * 8 + 8] for step in range(9)]
    parts = [list(GlobalBatches(30, 8, 5, 0, 9, (k, world), order)) for k in range(world)]
    assert [list(itertools.chain(*batches)) for batches in zip(*parts, strict=True)] == alone


@pytest.mark.parametrize("start", [1, 3, 8])
def test_a_mixture_goes_on_at_any_step(start: int) -> None:
    whole, rest = (GlobalBatches(30, 8, 5, first, 9, (1, 2), Mixture(PARTS, (2, 1), 5)) for first in (0, start))
    assert list(rest) == list(whole)[start:]


def test_the_order_of_a_mixture_is_drawn_from_numbers_of_its_own_for_each_source_and_for_the_whole() -> None:
    # Written out: a run that was begun goes on with the same samples after a change of this file.
    def drawn(count: int, *numbers: int) -> np.ndarray:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([5, 3, *numbers]))).permutation(count)

    order = Mixture(PARTS, (7, 23), seed=5)  # weights as the sizes: each source once an epoch
    for epoch in range(3):
        keys = [(epoch, item) for k, part in enumerate(PARTS) for item in part[drawn(len(part), k, epoch)]]
        assert order(epoch) == [keys[k] for k in drawn(30, len(PARTS), epoch)]


def test_without_weights_each_item_comes_once_an_epoch_in_the_order_of_the_seed() -> None:
    keys = list(itertools.chain(*GlobalBatches(30, 10, 5, 0, 6, (0, 1))))
    assert keys == [(epoch, item) for epoch in range(2) for item in epoch_order(30, 5, epoch).tolist()]
    # Written out: a run that was begun goes on with the same samples after a change of this file.
    for epoch in range(2):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([5, 3, epoch])))
        assert epoch_order(30, 5, epoch).tolist() == rng.permutation(30).tolist()


def test_shares_of_1024_processes_are_cut_out_of_one_global_batch() -> None:
    count, batch_size, steps = 5000, 2048, 5

    def keys(share: tuple[int, int]) -> list[list[tuple[int, int]]]:
        return list(GlobalBatches(count, batch_size, 3, 0, steps, share))

    whole = keys((0, 1))
    parts = [keys((rank, 1024)) for rank in range(1024)]
    for step in range(steps):
        assert [key for part in parts for key in part[step]] == whole[step]
        assert {len(part[step]) for part in parts} == {2}
    first_epoch = [item for epoch, item in whole[0] + whole[1] if epoch == 0]
    assert len(set(first_epoch)) == len(first_epoch) == 2 * batch_size


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="not divisible by 3"):
        GlobalBatches(100, 8, 0, 0, 5, (0, 3))
