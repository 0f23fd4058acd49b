"""InfoNCE and text identities against slow loops, closed forms and published numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.objectives.losses import exclude_equal, info_nce, text_identity

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "clip.npz"


def by_double_loop(a: Tensor, b: Tensor, scale: Tensor, identity: list[int] | None) -> tuple[Tensor, Tensor]:
    """The formula, one term at a time: - log( exp(s a_i b_i) / sum_j exp(s a_i b_j) ), j not of i's identity."""
    count = len(a)

    def direction(queries: Tensor, keys: Tensor) -> Tensor:
        total = torch.zeros((), dtype=a.dtype)
        for i in range(count):
            denominator = torch.zeros((), dtype=a.dtype)
            for j in range(count):
                if identity is None or i == j or identity[i] != identity[j]:
                    denominator = denominator + torch.exp(scale * (queries[i] * keys[j]).sum())
            own = torch.exp(scale * (queries[i] * keys[i]).sum())
            total = total - torch.log(own / denominator)
        return total / count

    return direction(a, b), direction(b, a)


def inputs(count: int = 7, dim: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    a = F.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=-1).requires_grad_()
    b = F.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=-1).requires_grad_()
    return a, b, torch.tensor(6.5, dtype=torch.float64, requires_grad=True)


def test_golden_values_and_gradients_of_clip() -> None:
    golden = np.load(GOLDEN)
    assert "already L2-normalised" in json.loads(str(golden["meta"]))["note"]
    tensors = [torch.tensor(golden[f"in_{name}"], requires_grad=True) for name in ("image", "text", "logit_scale")]
    to_text, to_image = info_nce(*tensors)
    loss = (to_text + to_image) / 2
    loss.backward()
    assert abs(loss.item() - golden["out_loss"]) < 1e-5
    for name, tensor in zip(("image", "text", "logit_scale"), tensors, strict=True):
        assert np.abs(tensor.grad.numpy() - golden[f"grad_{name}"]).max() < 1e-5, name


@pytest.mark.parametrize("identity", [None, [0, 1, 2, 3, 4, 5, 6], [0, 1, 0, 3, 1, 0, 6], [4] * 7])
def test_value_and_gradient_equal_a_double_loop(identity: list[int] | None) -> None:
    a, b, scale = inputs()
    ids = None if identity is None else torch.tensor(identity)
    fast = info_nce(a, b, scale, ids)
    slow = by_double_loop(a, b, scale, identity)
    # Unequal weights, so that an exchange of the directions would show.
    fast_grads = torch.autograd.grad(fast[0] + 3 * fast[1], (a, b, scale))
    slow_grads = torch.autograd.grad(slow[0] + 3 * slow[1], (a, b, scale), allow_unused=True)
    for one, other in zip(fast, slow, strict=True):
        assert abs(one.item() - other.item()) < 1e-10
    for one, other in zip(fast_grads, slow_grads, strict=True):
        assert (one - other).abs().max() < 1e-10


def test_identity_of_distinct_texts_changes_nothing_and_of_repeated_texts_does() -> None:
    a, b, scale = inputs()
    plain = info_nce(a, b, scale)
    distinct = info_nce(a, b, scale, torch.arange(7))
    repeated = info_nce(a, b, scale, torch.tensor([0, 1, 2, 3, 4, 5, 0]))
    assert all(torch.equal(x, y) for x, y in zip(plain, distinct, strict=True))
    assert all(y < x - 1e-6 for x, y in zip(plain, repeated, strict=True))


@pytest.mark.parametrize("count", [2, 5, 64])
def test_equal_embeddings_give_the_log_of_the_batch(count: int) -> None:
    same = F.normalize(torch.ones(count, 3, dtype=torch.float64), dim=-1)
    for loss in info_nce(same, same, torch.tensor(20.0, dtype=torch.float64)):
        assert abs(loss.item() - math.log(count)) < 1e-12


def test_all_texts_equal_leaves_no_negative_and_no_loss() -> None:
    a, b, scale = inputs()
    assert [loss.item() for loss in info_nce(a, b, scale, torch.zeros(7, dtype=torch.int64))] == [0.0, 0.0]


def test_excluded_columns_are_those_of_equal_identity_but_not_ones_own() -> None:
    logits = torch.zeros(2, 4)
    found = exclude_equal(logits, torch.tensor([5, 6]), torch.tensor([5, 9, 5, 6]), first=2)
    assert torch.isinf(found).tolist() == [[True, False, False, False], [False, False, False, False]]


# ---------------------------------------------------------------------------------------- text identities


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
