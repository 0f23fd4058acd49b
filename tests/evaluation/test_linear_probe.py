"""Logistic regression on the features of an encoder."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FixedData, TinyImages, TinyTexts, metrics_of
from torch import Tensor, nn

from cxrcl import types
from cxrcl.app import evaluators
from cxrcl.commands.hydra import compose
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.errors import ConfigError
from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.evaluation.linear_probe import LinearProbe
from cxrcl.evaluation.metrics.ranking import auroc
from cxrcl.models.heads import Linear
from cxrcl.objectives.base import Objective
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.combined import Sum
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.simclr import SimClr
from cxrcl.training.trainer import Precision, evaluate
from cxrcl.types import EncodesImages

LABELS = ("seen", "noise", "blank", "No Finding")


def pooled(rows: Tensor) -> types.Features:
    """Without local features."""
    return types.Features(rows, rows[:, None, :0])


class Features(nn.Module):
    """A fixed random projection of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.map = torch.randn(3 * 64, 24, generator=torch.Generator().manual_seed(3)) / 8

    def encode_images(self, images: Tensor) -> types.Features:
        return pooled(images.flatten(1) @ self.map)


class Random(nn.Module):
    """Features that have nothing to do with the image."""

    def encode_images(self, images: Tensor) -> types.Features:
        generator = torch.Generator().manual_seed(int(1000 * images.sum().abs()))
        return pooled(torch.randn(len(images), 8, generator=generator))


@pytest.fixture
def planted() -> FixedData:
    """`seen` moves the image along a direction, `noise` follows nothing, `blank` marks `seen` and no negative."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(3, 8, 8, generator=generator)

    def part(count: int) -> tuple[Any, ...]:
        labels = (torch.rand(count, 4, generator=generator) < 0.5).float()
        images = torch.randn(count, 3, 8, 8, generator=generator) + 0.5 * labels[:, 0, None, None, None] * direction
        labels[:, 2] = torch.where(labels[:, 0] == 1, 1.0, torch.nan)
        labels[:, 3] = 1 - labels[:, 0]
        labels[::9, 0] = torch.nan
        return images, labels, [""] * count, [str(k // 2) for k in range(count)]

    return FixedData(LABELS, {"train": part(160), "valid": part(80), "test": part(100)})


def run(
    data: FixedData, alone: Any, model: nn.Module | None = None, batch_size: int = 64, **settings: Any
) -> dict[str, float]:
    return metrics_of(LinearProbe(data, **settings), model or Features(), alone, batch_size)


def test_a_planted_signal_is_learnt_and_noise_is_not(planted: FixedData, alone: Any) -> None:
    figures = run(planted, alone)
    assert figures["auroc/seen"] > 0.85 and 0.35 < figures["auroc/noise"] < 0.65
    assert figures["auroc/blank"] != figures["auroc/blank"]  # one class only
    assert figures["mean_auroc"] == pytest.approx((figures["auroc/seen"] + figures["auroc/noise"]) / 2)


def test_random_features_know_nothing(planted: FixedData, alone: Any) -> None:
    assert 0.35 < run(planted, alone, Random())["auroc/seen"] < 0.65


def test_the_metrics_are_those_of_logistic_regression_on_standardised_features(planted: FixedData, alone: Any) -> None:
    from sklearn.linear_model import LogisticRegression

    model = Features()
    parts = [planted.splits[name] for name in ("train", "test")]
    (x, y), (x_test, y_test) = [(model.encode_images(p[0]).pooled.numpy(), p[1][:, 0].numpy()) for p in parts]
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    fitted = LogisticRegression(C=1 / 30, max_iter=300).fit((x - x.mean(0)) / x.std(0), y)
    expected = auroc(fitted.decision_function((x_test - x.mean(0)) / x.std(0)), y_test)
    assert run(planted, alone, penalties=(30.0,))["auroc/seen"] == pytest.approx(expected, abs=1e-3)


# ------------------------------------------------------------------------------------------------ the penalty

WEAK, STRONG = 1e-4, 1e5


def by_penalty(
    data: FixedData, alone: Any, splits: tuple[str, ...], label: str = "seen", **settings: Any
) -> dict[float, float]:
    return {
        penalty: run(data, alone, splits=splits, penalties=(penalty,), **settings)[f"auroc/{label}"]
        for penalty in (WEAK, STRONG)
    }


def test_the_penalty_is_the_best_on_the_choosing_split(planted: FixedData, alone: Any) -> None:
    on_valid = by_penalty(planted, alone, ("valid",), choose_on=None)
    on_test = by_penalty(planted, alone, ("test",))
    assert on_valid[WEAK] != on_valid[STRONG] and on_test[WEAK] != on_test[STRONG]
    best = max(on_valid, key=lambda penalty: on_valid[penalty])
    assert run(planted, alone, penalties=(WEAK, STRONG))["auroc/seen"] == on_test[best]
    # Held-out labels the other way round choose the other one.
    planted.splits["valid"][1][:, 0] = 1 - planted.splits["valid"][1][:, 0]
    (other,) = {WEAK, STRONG} - {best}
    assert run(planted, alone, penalties=(WEAK, STRONG))["auroc/seen"] == on_test[other]


@pytest.mark.parametrize(("label", "chosen"), [("seen", WEAK), ("noise", STRONG)])  # WEAK fits the noise it has seen
def test_without_a_choosing_split_folds_that_keep_patients_together_choose(
    planted: FixedData, alone: Any, label: str, chosen: float
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, labels, _, patients = planted.splits["train"]
    column = LABELS.index(label)
    known = ~labels[:, column].isnan()
    x, y, groups = (
        Features().encode_images(images).pooled[known].numpy(),
        labels[known, column].numpy(),
        np.array(patients)[known],
    )
    quality = {}
    for penalty in (WEAK, STRONG):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=300))
        scores = cross_val_predict(model, x, y, groups=groups, cv=GroupKFold(5), method="decision_function")
        quality[penalty] = auroc(scores, y)
    assert max(quality, key=lambda penalty: quality[penalty]) == chosen
    both = run(planted, alone, splits=("valid", "test"), choose_on=None, penalties=(WEAK, STRONG))
    single = by_penalty(planted, alone, ("valid", "test"), label, choose_on=None)
    assert single[WEAK] != single[STRONG] and both[f"auroc/{label}"] == single[chosen]


@pytest.mark.parametrize("positive", [1, 30])
def test_folds_without_a_positive_or_a_second_patient_break_nothing(
    planted: FixedData, alone: Any, positive: int
) -> None:
    """One patient has every positive; or there is one patient only."""
    images, labels, texts, _ = planted.splits["train"]
    labels[:, 0] = 0
    labels[:positive, 0] = 1
    patients = ["one"] * positive + ["one" if positive == 30 else str(k) for k in range(positive, len(images))]
    planted.splits["train"] = (images, labels, texts, patients)
    assert run(planted, alone, choose_on=None, labels=("seen",))["auroc/seen"] == pytest.approx(0.5, abs=0.5)


# ---------------------------------------------------------------------------------------------- other settings


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_metrics_do_not_depend_on_the_batch_size(planted: FixedData, alone: Any, batch_size: int) -> None:
    found, plain = run(planted, alone, batch_size=batch_size), run(planted, alone)
    assert found == pytest.approx(plain, abs=1e-3, nan_ok=True)


def test_the_batch_size_is_that_of_the_passes(planted: FixedData, alone: Any) -> None:
    seen = []

    class Counting(Features):
        def encode_images(self, images: Tensor) -> types.Features:
            seen.append(len(images))
            return super().encode_images(images)

    run(planted, alone, Counting(), batch_size=50)
    assert seen == [50, 50, 50, 10, 50, 30, 50, 50]  # train, valid, test


def test_each_setting_changes_the_metrics(planted: FixedData, alone: Any) -> None:
    plain = run(planted, alone)
    assert run(planted, alone, splits=("valid",), choose_on="test")["auroc/seen"] != plain["auroc/seen"]
    assert run(planted, alone, train="valid", choose_on="train")["auroc/seen"] != plain["auroc/seen"]
    assert run(planted, alone, choose_on=None, penalties=(WEAK,))["auroc/seen"] != plain["auroc/seen"]
    assert "auroc/noise" not in run(planted, alone, labels=("seen",))
    assert run(planted, alone, mean_over=("seen",))["mean_auroc"] == plain["auroc/seen"]
    assert run(planted, alone, against_normal=("blank",))["auroc/blank"] > 0.85
    low, high = (run(planted, alone, resamples=20)[f"auroc_{name}/seen"] for name in ("low", "high"))
    assert low < plain["auroc/seen"] < high


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": ("train",)}, "it cannot be scored on them as well"),
        ({"splits": ("valid", "test")}, "train=train, choose_on=valid"),
        ({"choose_on": "train"}, "each is another split"),
        ({"labels": ("absent",)}, "no label absent"),
        ({"mean_over": ("absent",)}, "no label absent"),
    ],
)
def test_wrong_settings_are_refused(planted: FixedData, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearProbe(planted, **settings)


@pytest.mark.parametrize("empty", ["train", "valid"])
def test_a_split_without_images_is_named(planted: FixedData, empty: str) -> None:
    planted.splits[empty] = tuple(part[:0] for part in planted.splits[empty])
    with pytest.raises(ValueError, match=f"no row has the split {empty}"):
        LinearProbe(planted)


# ------------------------------------------------------------------------------------------------ what it needs


def objectives() -> dict[str, Objective]:
    image, head = TinyImages(), partial(Linear, out_dim=4)
    parts = {"one": partial(SimClr, image, head), "two": partial(Classify, image, LABELS)}
    return {
        "simclr": SimClr(TinyImages(), head),
        "clip": Clip(TinyImages(), TinyTexts(), head, head),
        "moco": Moco(TinyImages(), head, queue_size=8),
        "classify": Classify(TinyImages(), LABELS),
        "sum": Sum(parts, "one"),
    }


def evaluation(data: FixedData, model: Any, alone: Any) -> Evaluators:
    nodes = compose("evaluate", ["checkpoint=none", "evals=[linear_probe]"])["evals"]
    return evaluators.build_evaluators(nodes, data, model, 16, OWN_PACKAGES, ["*"], alone)


@pytest.mark.parametrize("name", objectives())
def test_every_objective_with_an_image_tower_is_probed(planted: FixedData, alone: Any, name: str) -> None:
    model, images = objectives()[name], planted.splits["test"][0]
    found = evaluate(model, evaluation(planted, model, alone), alone, Precision("fp32", alone.device))
    assert 0 < found["linear_probe"].metrics["mean_auroc"] < 1
    seen = model.evaluated()
    assert isinstance(seen, EncodesImages) and torch.equal(
        seen.encode_images(images).pooled, seen.image_encoder(images).pooled
    )


def test_a_model_that_encodes_no_images_is_refused(planted: FixedData, alone: Any) -> None:
    with pytest.raises(ConfigError, match="does not meet EncodesImages"):
        evaluation(planted, Objective(), alone)


def test_held_out_images_are_scored_by_the_models_of_the_scored_ones(
    planted: FixedData, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []
    fit_one = LinearProbe._fit_one
    monkeypatch.setattr(LinearProbe, "_fit_one", lambda *given: fits.append(given[1]) or fit_one(*given))
    probe = {"it": LinearProbe(planted, penalties=(1.0, 10.0))}
    alone_scored = Evaluators(probe, planted, 64)(Features(), alone)["it"]
    once = len(fits)
    both = Evaluators(probe, planted, 64, held_out=("valid",))(Features(), alone)["it"]
    assert both.metrics["mean_auroc"] == alone_scored.metrics["mean_auroc"] and alone_scored.held_out is None
    assert both.held_out is not None and len(fits) == 2 * once and len(both.held_out.scores) == 80
