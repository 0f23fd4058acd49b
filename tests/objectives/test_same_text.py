"""Which texts are equal, and which pairs of samples that leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cxrcl.objectives.same_text import excluded, text_identity


def identity_of(rows: list[list[int]], length: int) -> list[int]:
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return text_identity(ids, mask).tolist()


def test_padding_does_not_change_an_identity() -> None:
    rows = [[2, 7, 9, 3], [2, 3], [2, 7, 3]]
    assert identity_of(rows, 4) == identity_of(rows, 31)


def test_whatever_lies_under_the_padding_does_not_change_an_identity() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    first, second = text_identity(torch.tensor([[4, 5, 0], [4, 5, 77]]), mask).tolist()
    assert first == second


def test_permutations_prefixes_and_single_changes_differ() -> None:
    base = [2, 11, 12, 13, 14, 3]
    variants = [
        base,
        [2, 12, 11, 13, 14, 3],
        [2, 14, 13, 12, 11, 3],
        base[:5],
        base[:2],
        [*base, 0],
        [*base, 3],
        [0, *base],
        *[[*base[:k], base[k] + 1, *base[k + 1 :]] for k in range(6)],
    ]
    assert len(set(identity_of(variants, 8))) == len(variants)


def test_ten_thousand_random_texts_do_not_collide() -> None:
    rng = np.random.default_rng(0)
    # A small vocabulary and short texts: many differ in one or two pieces only.
    rows = {tuple(rng.integers(0, 30, size=rng.integers(4, 12)).tolist()) for _ in range(12_000)}
    rows = sorted(rows)[:10_000]
    assert len(rows) == 10_000
    assert len(set(identity_of([list(row) for row in rows], 12))) == 10_000


def test_pairs_that_share_a_text_are_excluded_but_not_a_samples_own() -> None:
    found = excluded(torch.tensor([[5], [6]]), torch.tensor([[5], [9], [5], [6]]), first=2)
    assert found.tolist() == [[True, False, False, False], [False, False, False, False]]


def test_one_shared_text_of_several_is_enough() -> None:
    rows, columns = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[7, 8], [7, 8], [2, 9], [9, 4], [1, 3]])
    assert excluded(rows, columns, first=0).tolist() == [
        [False, False, True, False, True],
        [False, False, False, True, True],
    ]


@pytest.mark.parametrize("first", range(-4, 6))
def test_own_columns_may_lie_partly_or_wholly_outside(first: int) -> None:
    found = excluded(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(5, 1, dtype=torch.int64), first)
    assert found.tolist() == [[j != i + first for j in range(5)] for i in range(3)]
