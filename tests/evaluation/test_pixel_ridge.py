"""The pixel baseline."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import FixedData, metrics_of
from torch import nn

from cxrcl.evaluation.pixel_ridge import PixelRidge


@pytest.fixture
def planted() -> FixedData:
    """`seen` brightens a corner by a little, `noise` follows nothing, `constant` has one class."""
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[Any, ...]:
        images = torch.randn(count, 1, 32, 32, generator=generator)
        labels = (torch.rand(count, 3, generator=generator) < 0.5).float()
        labels[:, 2] = 1
        images[:, 0, :16, :16] += 0.35 * labels[:, :1, None]
        labels[::9, 0] = torch.nan
        return images.expand(-1, 3, -1, -1), labels, [""] * count, [str(k) for k in range(count)]

    return FixedData(("seen", "noise", "constant"), {"train": part(160), "valid": part(60), "test": part(80)})


def test_a_planted_signal_is_learnt_and_noise_is_not(planted: FixedData, alone: Any) -> None:
    figures = metrics_of(PixelRidge(planted, side_px=8), nn.Identity(), alone)
    assert figures["auroc/seen"] > 0.9
    assert 0.3 < figures["auroc/noise"] < 0.7
    assert figures["auroc/constant"] != figures["auroc/constant"]
    assert figures["mean_auroc"] == pytest.approx((figures["auroc/seen"] + figures["auroc/noise"]) / 2)


def test_the_penalty_is_chosen_on_the_other_split(planted: FixedData, alone: Any) -> None:
    one = [metrics_of(PixelRidge(planted, side_px=16, penalties=(p,)), nn.Identity(), alone) for p in (1e-3, 1e3)]
    chosen = metrics_of(PixelRidge(planted, splits=("test",), side_px=16, penalties=(1e-3, 1e3)), nn.Identity(), alone)
    assert chosen["auroc/seen"] == max(figures["auroc/seen"] for figures in one)


@pytest.mark.parametrize("splits", [("train",), ("valid",), ("test", "train")])
def test_it_is_not_scored_on_what_it_learns_from(planted: FixedData, splits: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="it cannot be scored on them as well"):
        PixelRidge(planted, splits=splits)


def test_without_a_choosing_split_the_validation_split_can_be_scored(planted: FixedData, alone: Any) -> None:
    figures = PixelRidge(planted, splits=("valid",), choose_on=None, side_px=8, penalties=(10.0,))
    assert metrics_of(figures, nn.Identity(), alone)["auroc/seen"] > 0.85


def test_without_a_choosing_split_folds_of_the_training_patients_choose(planted: FixedData, alone: Any) -> None:
    def of(*penalties: float) -> PixelRidge:
        return PixelRidge(planted, splits=("valid", "test"), choose_on=None, side_px=16, penalties=penalties)

    one = [metrics_of(of(penalty), nn.Identity(), alone) for penalty in (1e-3, 1e3)]
    both = PixelRidge(planted, splits=("valid", "test"), choose_on=None, side_px=16, penalties=(1e-3, 1e3))
    assert metrics_of(both, nn.Identity(), alone)["auroc/seen"] == max(figures["auroc/seen"] for figures in one)


def test_only_the_named_labels_are_scored(planted: FixedData, alone: Any) -> None:
    figures = metrics_of(PixelRidge(planted, labels=("noise",), side_px=8), nn.Identity(), alone)
    assert [key for key in figures if key.startswith("auroc/")] == ["auroc/noise"]
    with pytest.raises(ValueError, match="no label absent"):
        PixelRidge(planted, labels=("absent",))
