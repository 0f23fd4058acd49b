"""Which samples an objective learns from, and that the training data are cut to these."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TinyImages, two_towers

from cxrcl.app.data import usable_samples
from cxrcl.data.manifest import Manifest
from cxrcl.distributed import Runtime
from cxrcl.errors import DataError
from cxrcl.models.heads import Linear
from cxrcl.objectives.base import Objective
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.combined import Sum
from cxrcl.objectives.simclr import SimClr

NAN = math.nan
ALONE, SECOND = (Runtime(rank, rank + 1, torch.device("cpu")) for rank in (0, 1))
KNOWN = torch.tensor(
    [[1, 0, 0], [NAN, 1, -1], [0, 0, NAN], [1, 0, 1], [-1, NAN, NAN], [NAN, NAN, NAN], [-1, 0, 1], [-1, -1, 0]]
)
ANY_LABEL = [True, True, True, True, False, False, True, True]
ONE_POSITIVE = [True, True, False, False, False, False, True, False]


def classify(task: Any = "multi_label") -> Classify:
    return Classify(TinyImages(), ("a", "b", "c"), task=task)


def sum_of(*tasks: Any, simclr: bool = False) -> Sum:
    image = TinyImages()
    parts: dict[str, Any] = {task: partial(Classify, image, ("a", "b", "c"), task=task) for task in tasks}
    if simclr:
        parts["simclr"] = partial(SimClr, image, partial(Linear, out_dim=6))
    return Sum(parts, tasks[0])


def training() -> Manifest:
    rows = pd.DataFrame({"image": [f"{k}.png" for k in range(len(KNOWN))]})
    return Manifest(rows, ("a", "b", "c"), KNOWN.numpy(), np.where(KNOWN.isnan(), -1, KNOWN).astype(np.float32))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (classify(), ANY_LABEL),
        (classify("multi_class"), ONE_POSITIVE),
        (two_towers(Clip), [True] * 8),
        (sum_of("multi_class", "multi_label"), ANY_LABEL),  # what one of the parts can use
        (sum_of("multi_class", simclr=True), [True] * 8),
    ],
    ids=["multi_label", "multi_class", "clip", "sum", "sum with simclr"],
)
def test_the_training_data_are_cut_to_what_the_objective_learns_from(
    objective: Objective, expected: list[bool], log: pytest.LogCaptureFixture
) -> None:
    assert objective.learns_from(KNOWN).tolist() == expected
    data = training()
    found = usable_samples(data, objective)
    assert list(found.rows["image"]) == [f"{k}.png" for k in range(8) if expected[k]]
    assert np.array_equal(found.values, KNOWN.numpy()[expected], equal_nan=True)
    assert np.array_equal(found.stated, data.stated[expected])
    left_out = 8 - sum(expected)
    line = f"{left_out} of 8 training images have no label that the objective can use: left out"
    assert log.messages == ([line] if left_out else [])


def test_no_usable_sample_is_an_error() -> None:
    nothing = training().take(np.array([2, 3, 4, 5, 7]))
    with pytest.raises(DataError, match="none of 5 training images has a label that the objective can use"):
        usable_samples(nothing, classify("multi_class"))
    assert len(usable_samples(nothing, classify())) == 3
