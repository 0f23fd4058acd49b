"""What the view position tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import FixedData, metrics_of
from torch import nn

from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.evaluation.metrics.ranking import auroc
from cxrcl.evaluation.view_only import ViewOnly

NAN = float("nan")


class Viewed(FixedData):
    """Columns: view and sex."""

    def column(self, split: str, name: str) -> list[str]:
        rows = self.splits[split][3]
        return rows if name == "patient" else [row.split()[("view", "sex").index(name)] for row in rows]


@pytest.fixture
def viewed() -> Viewed:
    """In training 3 of 4 AP images and 1 of 3 PA images have the finding; nothing is known of the lateral one's."""
    train = [("AP f", 1), ("AP m", 1), ("AP f", 1), ("AP m", 0), ("PA f", 1), ("PA m", 0), ("PA m", 0), ("LL f", NAN)]
    test = [("AP f", 1), ("AP m", 0), ("PA f", 0), ("PA m", 1), ("LL m", 0), ("XR m", 1)]
    parts = {}
    for name, rows in (("train", train), ("test", test)):
        labels = torch.tensor([[value, NAN] for _, value in rows])
        parts[name] = (torch.zeros(len(rows), 3, 4, 4), labels, [""] * len(rows), [group for group, _ in rows])
    return Viewed(("Edema", "Mass"), parts)


def scores(data: Viewed, alone: Any, **settings: Any) -> np.ndarray:
    result = Evaluators({"it": ViewOnly(data, **settings)}, data, 64)(nn.Module(), alone)["it"]
    return result.scores.scores


def test_the_score_is_the_share_of_positives_in_training(viewed: Viewed, alone: Any) -> None:
    # The lateral image and the unknown view have the share of all, 4 of 7.
    expected = [3 / 4, 3 / 4, 1 / 3, 1 / 3, 4 / 7, 4 / 7]
    assert scores(viewed, alone)[:, 0].tolist() == pytest.approx(expected)
    figures = metrics_of(ViewOnly(viewed), nn.Module(), alone)
    assert figures["auroc/Edema"] == auroc(np.array(expected), np.array([1, 0, 0, 1, 0, 1]))
    assert np.isnan(figures["auroc/Mass"]) and figures["mean_auroc"] == figures["auroc/Edema"]


def test_groups_by_other_columns(viewed: Viewed, alone: Any) -> None:
    assert scores(viewed, alone, columns=["view", "sex"])[:, 0].tolist() == pytest.approx(
        [1, 1 / 2, 1, 0, 4 / 7, 4 / 7]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "test"}, "expected"),
        ({"train": "absent"}, "expected"),
        ({"columns": []}, "expected"),
        ({"mean_over": ["Oedema"]}, "mean_over: no label Oedema; there are Edema, Mass"),
    ],
)
def test_wrong_settings_are_refused(viewed: Viewed, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewOnly(viewed, **settings)
