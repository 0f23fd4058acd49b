"""InfoNCE a tile at a time against the whole matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import assert_same, batch_of, info_nce_by_loop, two_towers, unit_rows
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cxrcl.objectives.base import Objective
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.cxr_clip import CxrClip
from cxrcl.objectives.losses import gather_sides, info_nce, nt_xent_loss, tiled
from cxrcl.objectives.losses.tiled import TiledInfoNce, TiledNtXent
from cxrcl.objectives.simclr import SimClr

tiled_info_nce = TiledInfoNce.apply
COUNT = 8
TEXTS = {
    "none": None,
    "distinct": [[k] for k in range(COUNT)],
    "repeated": [[0], [1], [0], [3], [1], [0], [6], [0]],
    "pairs": [[0, 1], [2, 3], [1, 4], [5, 6], [6, 7], [8, 9], [3, 0], [9, 9]],
    "all equal": [[5]] * COUNT,
}


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    scale = torch.tensor(6.5, dtype=torch.float64, requires_grad=True)
    return unit_rows(1, COUNT, 5), unit_rows(2, COUNT, 5), scale


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tile", [1, 3, 4, 7, 8, 64])
def test_values_and_gradients_are_those_of_the_whole_matrix(
    tile: int, smoothing: float, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "TILE_CPU", tile)
    a, b, scale = inputs()
    names = None if TEXTS[texts] is None else torch.tensor(TEXTS[texts])
    plain = info_nce(*gather_sides([a, b], [names, names]), scale, smoothing)
    by_tile = tiled_info_nce(a, b, scale, names, names, smoothing)
    assert_same(by_tile, plain, (a, b, scale), within=1e-10)


@pytest.fixture
def tiles_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE_CPU", 3)


@pytest.mark.usefixtures("tiles_of_three")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_values_and_gradients_are_those_of_a_double_loop(smoothing: float) -> None:
    a, b, scale = inputs()
    rows, columns = torch.tensor(TEXTS["pairs"]), torch.tensor(TEXTS["repeated"])
    slow = info_nce_by_loop(a, b, scale, lambda i, j: columns[j, 0] in rows[i], smoothing)
    assert_same(tiled_info_nce(a, b, scale, rows, columns, smoothing), slow, (a, b, scale), within=1e-10)


@pytest.mark.usefixtures("tiles_of_three")
def test_the_gradient_is_that_of_numbers_next_to_the_point() -> None:
    a, b, scale = inputs()
    names = torch.tensor(TEXTS["repeated"])
    assert torch.autograd.gradcheck(lambda *x: tiled_info_nce(*x, names, names, 0.1), (a, b, scale))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_cosines_at_the_largest_scale_stay_finite(
    sign: float, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "TILE_CPU", 2)
    # Cosines rise from tile to tile by steps of 100 logits: sums of exponentials would overflow in fp32.
    a = F.normalize(torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3 + [[-1.0, 1e-4]] * 3), dim=-1)
    rows = [a.clone().requires_grad_(), (sign * a.flip(0)).requires_grad_()]
    scale = torch.tensor(100.0, requires_grad=True)
    found = tiled_info_nce(*rows, scale, None, None, smoothing)
    assert_same(found, info_nce(*gather_sides(rows), scale, smoothing), (*rows, scale), within=2e-3)


@pytest.mark.usefixtures("tiles_of_three")
def test_a_row_whose_negatives_are_all_left_out_has_no_loss_and_no_gradient() -> None:
    a, b, scale = inputs()
    # The first sample shares a text with every other one; the others share none.
    names = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7]] + [[k] * 8 for k in range(1, COUNT)])
    losses = tiled_info_nce(a, b, scale, names, names, 0.0)
    (grad,) = torch.autograd.grad(sum(losses), a)
    assert grad[0].abs().max() < 1e-15 and (grad[1:].abs().amax(dim=1) > 1e-4).all()
    rest = tiled_info_nce(a[1:], b[1:], scale, names[1:], names[1:], 0.0)
    assert all(abs(one - other * 7 / 8) < 1e-12 for one, other in zip(losses, rest, strict=True))


# ------------------------------------------------------------------------------------------------------- NT-Xent


def tiled_views(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    own = torch.cat([a, b])
    return TiledNtXent.apply(own, own, torch.arange(len(own)).roll(len(a)), 1 / temperature)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("tile", [1, 2, 3, 4, 5, 11, 12, 64])
def test_nt_xent_has_the_value_and_gradient_of_the_whole_matrix(
    tile: int, count: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "TILE_CPU", tile)
    a, b = unit_rows(1, count, 5), unit_rows(2, count, 5)
    assert_same([tiled_views(a, b, temperature)], [nt_xent_loss(a, b, temperature)], (a, b), within=1e-10)


@pytest.mark.usefixtures("tiles_of_three")
def test_the_gradient_of_nt_xent_is_that_of_numbers_next_to_the_point() -> None:
    views = unit_rows(1, 4, 5), unit_rows(2, 4, 5)
    assert torch.autograd.gradcheck(lambda *x: 3 * tiled_views(*x, 0.3), views)


def test_nt_xent_of_extreme_cosines_at_a_low_temperature_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE_CPU", 2)
    a = F.normalize(torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3 + [[-1.0, 1e-4]] * 3), dim=-1).requires_grad_()
    assert_same([tiled_views(a, -a.flip(0), 0.01)], [nt_xent_loss(a, -a.flip(0), 0.01)], [a], within=2e-3)


# ------------------------------------------------------------------------------------------------ the threshold


@pytest.fixture
def tilings(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The rows of every matrix that was made in tiles, of three by three here."""
    made, tiles = [], tiled.tiles
    monkeypatch.setattr(tiled, "tiles", lambda rows, *others: made.append(rows) or tiles(rows, *others))
    monkeypatch.setattr(tiled, "TILE_CPU", 3)
    return made


def batch(views: int, texts: int) -> Any:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, views, 3, 16, 16, generator=generator, dtype=torch.float64)
    return batch_of(images, [[[1, 5 + (k + n) % 4, 9, 2] for n in range(texts)] for k in range(5)])


@pytest.mark.parametrize("targets", ["identity", "same_text"])
@pytest.mark.parametrize(("objective", "contrasts"), [(Clip, 1), (CxrClip, 6)])
def test_large_batches_are_tiled_with_the_same_results(
    objective: type[Objective],
    contrasts: int,
    targets: str,
    tilings: list[Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = two_towers(objective, torch.float64, targets=targets)
    given = batch(objective.num_views, objective.num_texts)
    plain = model(given)
    monkeypatch.setattr(tiled, "MAX_LOGITS", 26)
    model(given)
    assert tilings == []
    monkeypatch.setattr(tiled, "MAX_LOGITS", 25)
    found = model(given)
    assert len(tilings) == contrasts
    assert_same([found.loss], [plain.loss], list(model.parameters()), within=1e-10)
    for name, value in plain.logs.items():
        assert abs(found.logs[name] - value) < 1e-10, name


def test_large_batches_of_views_are_tiled_with_the_same_results(
    tilings: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = two_towers(SimClr, torch.float64), batch(2, 1)
    plain = model(given)
    monkeypatch.setattr(tiled, "MAX_LOGITS", 101)
    model(given)
    assert tilings == []
    monkeypatch.setattr(tiled, "MAX_LOGITS", 100)  # two views of five samples
    found = model(given)
    assert len(tilings) == 1
    assert_same([found.loss], [plain.loss], list(model.parameters()), within=1e-10)


# --------------------------------------------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return result


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_memory_is_linear_in_the_batch(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE_CPU", 16)
    a, b = unit_rows(1, 256, 4), unit_rows(2, 256, 4)
    names, scale = torch.arange(256)[:, None] // 2, torch.tensor(5.0, requires_grad=True)
    with Largest() as by_tile:
        sum(tiled_info_nce(a, b, scale, names, names, smoothing)).backward()
    assert by_tile.numel == 256 * 4  # the embeddings; a tile has 256
    with Largest() as plain:
        sum(info_nce(*gather_sides([a, b], [names, names]), scale, smoothing)).backward()
    assert plain.numel == 256 * 256


def test_memory_of_nt_xent_is_linear_in_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILE_CPU", 16)
    a, b = unit_rows(1, 128, 4), unit_rows(2, 128, 4)
    with Largest() as by_tile:
        tiled_views(a, b, 0.5).backward()
    assert by_tile.numel == 256 * 4
    with Largest() as plain:
        nt_xent_loss(a, b, 0.5).backward()
    assert plain.numel == 256 * 256
