"""NT-Xent against its formula and published numbers."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers import assert_golden, assert_same, golden, two_towers, unit_rows
from torch import Tensor
from torch.nn import functional as F

from cxrcl.objectives.losses import nt_xent_loss
from cxrcl.objectives.simclr import SimClr
from cxrcl.objectives.towers import unit_vectors
from cxrcl.types import EmbedsImages, EncodesImages


def by_double_loop(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    rows = [*a, *b]
    total = torch.zeros((), dtype=a.dtype)
    for i, row in enumerate(rows):
        terms = {k: torch.exp((row * other).sum() / temperature) for k, other in enumerate(rows) if k != i}
        total = total - torch.log(terms[(i + len(a)) % len(rows)] / sum(terms.values()))
    return total / len(rows)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_golden_values_and_gradients(tau: float) -> None:
    given, values = golden(f"simclr_tau{tau}")
    assert json.loads(str(values["meta"]))["temperature"] == tau
    # The file's inputs are raw: its gradients go through the normalisation.
    views = [unit_vectors(given[name]) for name in ("view1", "view2")]
    assert_golden(given, values, nt_xent_loss(*views, tau), within=1e-10)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_value_and_gradient_equal_a_double_loop(count: int, temperature: float) -> None:
    views = unit_rows(1, count, 5), unit_rows(2, count, 5)
    assert_same([nt_xent_loss(*views, temperature)], [by_double_loop(*views, temperature)], views, within=1e-10)


def test_the_objective_is_that_loss() -> None:
    model, views = two_towers(SimClr, torch.float64, temperature=0.3), unit_rows(1, 6, 2, 6)
    slow = by_double_loop(*views.unbind(1), 0.3)
    assert_same([model.loss({"image": views}, {}).loss], [slow], [views], within=1e-10)


def test_swapping_the_views_and_rotation_change_nothing() -> None:
    a, b = views = unit_rows(1, 6, 5), unit_rows(2, 6, 5)
    rotation, _ = torch.linalg.qr(unit_rows(9, 5, 5).detach())
    plain = [nt_xent_loss(a, b, 0.3)]
    assert_same([nt_xent_loss(b, a, 0.3)], plain, views, within=1e-12)
    assert_same([nt_xent_loss(a @ rotation, b @ rotation, 0.3)], plain, views, within=1e-12)


@pytest.mark.parametrize("count", [2, 16])
def test_collapsed_embeddings_give_chance(count: int) -> None:
    same = F.normalize(torch.ones(count, 3, dtype=torch.float64), dim=-1)
    assert nt_xent_loss(same, same, 0.5).item() == pytest.approx(math.log(2 * count - 1), abs=1e-12)


def test_low_temperatures_and_extreme_cosines_stay_finite() -> None:
    a = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = nt_xent_loss(a, -a, 0.01)
    # Four anchors have their positive at -100 and a negative at +100, two have four negatives at 0.
    assert loss.item() == pytest.approx((4 * 200 + 2 * (100 + math.log(4))) / 6)
    assert torch.isfinite(torch.autograd.grad(loss, a)[0]).all()


def test_temperature_changes_the_loss() -> None:
    views = {"image": unit_rows(1, 6, 2, 6).float()}
    one, other = (two_towers(SimClr, temperature=value).loss(views, {}).loss for value in (0.5, 0.1))
    assert abs(one - other) > 1e-2


def test_a_single_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs two samples or more, found 1"):
        nt_xent_loss(torch.ones(1, 3), torch.ones(1, 3), 0.5)


def test_evaluation_sees_features_before_the_projection() -> None:
    model = two_towers(SimClr)
    assert isinstance(model, EncodesImages) and not isinstance(model, EmbedsImages)
