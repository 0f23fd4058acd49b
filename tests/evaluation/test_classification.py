"""AUROC of a classifier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import metrics_of
from torch import Tensor

from cxrcl.evaluation.classification import Classification
from cxrcl.evaluation.metrics.ranking import auroc
from cxrcl.types import Classifies, Features


class Logits(torch.nn.Module):
    def encode_images(self, images: Tensor) -> Features:
        return Features(images[:, :, 0, 0], images[:, :0, 0])

    def classify(self, features: Features) -> Tensor:
        return features.pooled


def test_metrics_are_those_of_the_logits(data: Any, alone: Any) -> None:
    model = Logits()
    assert isinstance(model, Classifies)
    both = ("valid", "test")
    figures = metrics_of(Classification(data, splits=both, resamples=20), model, alone)
    logits = torch.cat([data.splits[split][0][:, :, 0, 0] for split in both]).numpy()
    labels = torch.cat([data.splits[split][1] for split in both]).numpy()
    for k, name in enumerate(data.labels):
        assert figures[f"auroc/{name}"] == auroc(logits[:, k], labels[:, k])
    assert figures["mean_auroc"] == pytest.approx((figures["auroc/Cardiomegaly"] + figures["auroc/Edema"]) / 2)
    assert {"mean_auroc_low", "mean_auroc_high"} <= set(figures)


def test_the_mean_can_be_over_named_labels(data: Any, alone: Any) -> None:
    figures = metrics_of(Classification(data, splits=("valid", "test"), mean_over=["Edema"]), Logits(), alone)
    assert figures["mean_auroc"] == figures["auroc/Edema"]
