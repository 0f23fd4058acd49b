"""Which texts are equal, and which pairs of samples that leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cxrcl.app.data import check_texts
from cxrcl.data.manifest import Manifest
from cxrcl.errors import DataError
from cxrcl.objectives.same_text import excluded, share_of_equal, text_identity


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


# --------------------------------------------------------------------------------------- too many texts are equal


@pytest.mark.parametrize(
    ("texts", "share"),
    [([7] * 5, 1.0), ([1, 2, 3, 4], 0.0), ([4, 4], 1.0), ([1, 2], 0.0), ([3, 3, 9, 9], 1 / 3), ([6, 2, 6, 6], 1 / 2)],
)
def test_share_of_equal_texts_in_closed_form(texts: list[int], share: float) -> None:
    assert share_of_equal(torch.tensor(texts)[:, None]).item() == pytest.approx(share)


def test_share_of_equal_texts_is_that_of_a_loop_over_pairs_of_first_texts() -> None:
    texts = torch.randint(-3, 3, (20, 2), generator=torch.Generator().manual_seed(0)) * 2**61  # as wide as identities
    pairs = [bool(texts[i, 0] == texts[j, 0]) for i in range(20) for j in range(20) if i != j]
    assert 0 < sum(pairs) < len(pairs)
    assert share_of_equal(texts).item() == pytest.approx(sum(pairs) / len(pairs))


class Said:
    """Stands for `cxrcl.data.text.texts.Texts`."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.looked_at: list[int] = []

    def exists(self, row: int) -> bool:
        return bool(self.texts[row])

    def has_report(self, row: int) -> bool:
        return False

    def make(self, row: int, rng: Any) -> str:
        assert rng is None
        self.looked_at.append(row)
        return self.texts[row]


def check(texts: list[str], **arguments: int) -> list[int]:
    said: Any = Said(texts)
    rows = Manifest(pd.DataFrame({"image": texts}), (), np.zeros((len(texts), 0), np.float32))
    check_texts(rows, said, **arguments)
    return said.looked_at


@pytest.mark.parametrize("texts", [["a", "a"], ["a", "", "a"], ["no finding " * 20] * 9])
def test_training_texts_that_are_all_the_same_are_refused(texts: list[str]) -> None:
    count = len([*filter(None, texts)])
    with pytest.raises(DataError, match=rf"the texts of {count} training images are all the same \('[a-z ]+'\)"):
        check(texts)


@pytest.mark.parametrize("texts", [["a", "b"], ["a", "a", "", "b"], ["a"], ["", ""]])
def test_other_training_texts_are_admitted(texts: list[str]) -> None:
    assert check(texts) == [row for row, text in enumerate(texts) if text]


def test_rows_from_all_over_the_training_data_are_looked_at() -> None:
    assert check(["a"] * 999 + ["b"], looked_at=1000) == list(range(1000))
    assert check([*["a"] * 500, *["b"] * 500], looked_at=4) == [0, 250, 500, 750]
    with pytest.raises(DataError, match="of 4 training images"):
        check(["a"] * 999 + ["b"], looked_at=4)
