"""Running a model over splits and texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import FixedData
from torch import Tensor

from cxrcl import assemble, config
from cxrcl.evaluation.embed import embed_texts, over_images
from cxrcl.types import Objective


def test_rows_come_in_the_order_of_the_splits_whatever_the_batch_size(data: Any, alone: Any) -> None:
    expected = torch.cat([data.splits[split][0] for split in ("test", "valid")]).flatten(1)
    for batch_size in (1, 3, 64):
        rows, labels = over_images(data, ["test", "valid"], alone, lambda b: b.images.flatten(1), batch_size)
        assert torch.equal(rows, expected)
        assert torch.equal(
            labels.nan_to_num(9), torch.cat([data.splits[s][1] for s in ("test", "valid")]).nan_to_num(9)
        )


def test_rows_are_fp32_on_the_cpu(data: Any, alone: Any) -> None:
    rows, _ = over_images(data, ["valid"], alone, lambda b: b.images.flatten(1).bfloat16())
    assert rows.dtype == torch.float32 and rows.device.type == "cpu"


def test_texts_come_back_in_their_own_order(known: Any, alone: Any) -> None:
    texts = ["a long sentence about the heart", "b", "middle one", "b", "", "another long sentence, longer still"]
    expected = torch.stack([known.text(text) for text in texts])
    for batch_size in (1, 2, 128):
        assert torch.allclose(embed_texts(known, texts, alone.device, batch_size), expected, atol=1e-6)


class Counted(FixedData):
    """Notes the size of each batch that is read."""

    def batches(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        for batch in super().batches(*arguments, **named):
            self.read.append(len(batch.index))
            yield batch


class Logits(Objective):
    def classify(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0]


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("zero_shot.ZeroShot", {}),
        ("retrieval.Retrieval", {}),
        ("classification.Classification", {}),
        ("pixel_ridge.PixelRidge", {"train": "test", "choose_on": None, "penalties": [1.0]}),
    ],
)
def test_the_batch_size_of_the_application_reaches_the_batches(
    known: Any, data: Any, alone: Any, target: str, options: dict[str, Any]
) -> None:
    counted = Counted(data.labels, data.splits)
    counted.read = []
    node = {"_target_": f"cxrcl.evaluation.{target}", "splits": ["valid"], **options}
    model: Any = Logits() if target.startswith("classification") else known
    (evaluator,) = assemble.build_evaluators({"e": node}, counted, model, 3, config.OWN_PACKAGES, ["e"], alone).values()
    evaluator.run(model, alone)
    assert sorted(counted.read) == ([1, 3, 3] if target.startswith("pixel_ridge") else [1, 3])
