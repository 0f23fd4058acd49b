"""SigLIP against its formula and published numbers."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_golden, assert_same, golden, two_towers, unit_rows
from torch import Tensor

from cxrcl.objectives.losses import siglip_loss, sigmoid, tiled
from cxrcl.objectives.siglip import SigLip

NAMES = [0, 1, 2, 1, 0, 5]


def by_double_loop(a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, names: list[int] | None) -> Tensor:
    total = torch.zeros((), dtype=a.dtype)
    for i in range(len(a)):
        for j in range(len(b)):
            if i == j or names is None or names[i] != names[j]:
                z = 1 if i == j else -1
                total = total - torch.log(1 / (1 + torch.exp(-z * (scale * (a[i] * b[j]).sum() + bias))))
    return total / len(a)


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (4.0, -1.5))
    return unit_rows(1, 6, 5), unit_rows(2, 6, 5), scale, bias


def test_golden_values_and_gradients() -> None:
    given, values = golden("siglip")
    loss = siglip_loss(*(given[name] for name in ("image", "text", "logit_scale", "logit_bias")))
    assert_golden(given, values, loss, within=1e-5)


@pytest.mark.parametrize("names", [None, NAMES, [7] * 6])
@pytest.mark.parametrize("tile", [1, 2, 4, 6, 2048])
def test_value_and_gradient_equal_a_double_loop_whatever_the_tile(
    tile: int, names: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "TILE_CPU", tile)
    leaves = inputs()
    fast = siglip_loss(*leaves, None if names is None else torch.tensor(names))
    assert_same([fast], [by_double_loop(*leaves, names)], leaves, within=1e-10)


def test_the_gradient_follows_what_comes_after() -> None:
    leaves = inputs()
    assert_same([siglip_loss(*leaves) ** 2], [by_double_loop(*leaves, None) ** 2], leaves, within=1e-9)


@pytest.mark.parametrize("names", [None, NAMES])
def test_the_objective_is_that_loss(names: list[int] | None) -> None:
    model, image, text = two_towers(SigLip, torch.float64), unit_rows(1, 6, 1, 6), unit_rows(2, 6, 1, 6)
    known = {} if names is None else {"text": torch.tensor(names)[:, None]}
    output = model.loss({"image": image, "text": text}, known)
    slow = by_double_loop(image[:, 0], text[:, 0], model.log_scale.exp(), model.bias, names)
    assert_same([output.loss], [slow], (image, text, model.log_scale, model.bias), within=1e-10)
    assert output.logs["scale"].item() == pytest.approx(10) and output.logs["bias"].item() == -10
    assert model.chance(6) is None


def test_swapping_the_sides_changes_nothing_and_rotation_neither() -> None:
    a, b, scale, bias = leaves = inputs()
    plain = [siglip_loss(*leaves)]
    rotation, _ = torch.linalg.qr(unit_rows(9, 5, 5).detach())
    assert_same([siglip_loss(b, a, scale, bias)], plain, leaves, within=1e-12)
    assert_same([siglip_loss(a @ rotation, b @ rotation, scale, bias)], plain, leaves, within=1e-12)


def test_extreme_logits_stay_finite() -> None:
    a = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    leaves = (a, torch.tensor(100.0, requires_grad=True), torch.tensor(-10.0, requires_grad=True))
    for b in (a.detach(), -a.detach()):
        loss = siglip_loss(a, b, leaves[1], leaves[2])
        assert all(torch.isfinite(value).all() for value in (loss, *torch.autograd.grad(loss, leaves)))
    assert loss.item() == pytest.approx(110 + 90)


def test_bias_changes_the_loss() -> None:
    embeddings = {"image": unit_rows(1, 6, 1, 6).float(), "text": unit_rows(2, 6, 1, 6).float()}
    one, other = (two_towers(SigLip, bias=bias).loss(embeddings, {}).loss for bias in (-10.0, -5.0))
    assert abs(one - other) > 1e-2


def test_pairs_are_taken_a_tile_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, softplus = [], sigmoid.F.softplus
    monkeypatch.setattr(sigmoid.F, "softplus", lambda logits: shapes.append(tuple(logits.shape)) or softplus(logits))
    monkeypatch.setattr(tiled, "TILE_CPU", 4)
    siglip_loss(*inputs())
    assert [shape for shape in shapes if len(shape) == 2] == [(4, 4), (4, 2), (2, 4), (2, 2)]
