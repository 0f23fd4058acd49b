"""InfoNCE against slow loops, closed forms, invariances and published numbers."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers import assert_golden, assert_same, golden, info_nce_by_loop, unit_rows
from torch import Tensor
from torch.nn import functional as F

from cxrcl.objectives.losses import cross_entropy, gather_sides, info_nce

IDENTITIES = [None, [0, 1, 2, 3, 4, 5, 6], [0, 1, 0, 3, 1, 0, 6], [4] * 7]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return unit_rows(3, 7, 5), unit_rows(4, 7, 5), torch.tensor(6.5, dtype=torch.float64, requires_grad=True)


def contrast(a: Tensor, b: Tensor, scale: Tensor, identity: list[int] | None = None, smoothing: float = 0.0) -> list:
    texts = None if identity is None else torch.tensor(identity)[:, None]
    return list(info_nce(*gather_sides([a, b], [texts, texts]), scale, smoothing))


def test_golden_values_and_gradients_of_clip() -> None:
    given, values = golden("clip")
    assert "already L2-normalised" in json.loads(str(values["meta"]))["note"]
    assert_golden(given, values, sum(contrast(given["image"], given["text"], given["logit_scale"])) / 2, within=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("identity", IDENTITIES)
def test_value_and_gradient_equal_a_double_loop(identity: list[int] | None, smoothing: float) -> None:
    a, b, scale = inputs()
    names = identity or list(range(7))
    slow = info_nce_by_loop(a, b, scale, lambda i, j: names[i] == names[j], smoothing)
    assert_same(contrast(a, b, scale, identity, smoothing), slow, (a, b, scale), within=1e-10)


def test_images_may_stand_for_several_texts() -> None:
    a, b, scale = inputs()
    own, column = torch.tensor([[k, k + 1] for k in range(7)]), torch.arange(7)[:, None]
    fast = info_nce(*gather_sides([a, b], [own, column]), scale)
    slow = info_nce_by_loop(a, b, scale, lambda i, j: j in (i, i + 1))
    assert_same(fast, slow, (a, b, scale), within=1e-10)


def test_a_side_without_texts_leaves_nothing_out() -> None:
    a, b, scale = inputs()
    one, other = gather_sides([a, b], [torch.zeros(7, 1, dtype=torch.int64), None])
    assert other.texts is None and other.gathered_texts is None and one.gathered_texts is not None
    assert_same(info_nce(one, other, scale), contrast(a, b, scale), (a, b, scale), within=1e-12)


def test_identity_of_distinct_texts_changes_nothing_and_of_repeated_texts_does() -> None:
    a, b, scale = inputs()
    plain = contrast(a, b, scale)
    distinct = contrast(a, b, scale, [0, 1, 2, 3, 4, 5, 6])
    repeated = contrast(a, b, scale, [0, 1, 2, 3, 4, 5, 0])
    assert all(torch.equal(x, y) for x, y in zip(plain, distinct, strict=True))
    assert all(y < x - 1e-6 for x, y in zip(plain, repeated, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("count", [2, 5, 64])
def test_equal_embeddings_give_the_log_of_the_batch(count: int, smoothing: float) -> None:
    same = F.normalize(torch.ones(count, 3, dtype=torch.float64), dim=-1)
    for loss in contrast(same, same, torch.tensor(20.0, dtype=torch.float64), smoothing=smoothing):
        assert abs(loss.item() - math.log(count)) < 1e-12


def test_all_texts_equal_leaves_no_negative_and_no_loss() -> None:
    a, b, scale = inputs()
    losses = contrast(a, b, scale, [4] * 7)
    assert [loss.item() for loss in losses] == [0.0, 0.0]
    assert all(grad.abs().max() == 0 for grad in torch.autograd.grad(sum(losses), (a, b, scale)))


def test_swapping_the_sides_swaps_the_directions() -> None:
    a, b, scale = inputs()
    identity = [0, 1, 0, 3, 1, 0, 6]
    forth, back = contrast(a, b, scale, identity, 0.1), contrast(b, a, scale, identity, 0.1)
    assert_same(forth, back[::-1], (a, b, scale), within=1e-12)
    assert abs(forth[0] - forth[1]) > 1e-3


def test_order_of_samples_and_rotation_of_the_space_do_not_matter() -> None:
    a, b, scale = inputs()
    identity = [0, 1, 0, 3, 1, 0, 6]
    plain = contrast(a, b, scale, identity, 0.1)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    permuted = contrast(a[order], b[order], scale, [identity[k] for k in order], 0.1)
    assert_same(permuted, plain, (a, b, scale), within=1e-12)
    rotation, _ = torch.linalg.qr(unit_rows(9, 5, 5).detach())
    assert_same(contrast(a @ rotation, b @ rotation, scale, identity, 0.1), plain, (a, b, scale), within=1e-12)


def test_smoothing_is_that_of_pytorch_where_nothing_is_left_out() -> None:
    logits = unit_rows(1, 4, 9) * 5
    own = torch.arange(3, 7)
    expected = F.cross_entropy(logits, own, label_smoothing=0.3)
    assert abs(cross_entropy(logits, 3, 0.3) - expected) < 1e-12
    assert abs(cross_entropy(logits, 3) - expected) > 1e-2


def test_a_single_sample_has_nothing_to_be_contrasted_with() -> None:
    with pytest.raises(ValueError, match="needs two samples or more, found 1"):
        gather_sides([torch.ones(1, 3), torch.ones(1, 3)])
