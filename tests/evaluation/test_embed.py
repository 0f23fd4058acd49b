"""Running a model over splits and texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cxrcl.distributed import Runtime
from cxrcl.evaluation.embed import embed_texts, over_images, share


def test_rows_come_in_the_order_of_the_split_whatever_the_batch_size(data: Any, alone: Any) -> None:
    images, labels, *_ = data.splits["valid"]
    for batch_size in (1, 3, 64):
        found = over_images(
            data, "valid", alone, lambda b: {"pixels": b.images.flatten(1), "labels": b.labels}, batch_size
        )
        assert torch.equal(found["pixels"], images.flatten(1))
        assert torch.equal(found["labels"].nan_to_num(9), labels.nan_to_num(9))


def test_rows_are_fp32_on_the_cpu(data: Any, alone: Any) -> None:
    rows = over_images(data, "valid", alone, lambda b: {"half": b.images.flatten(1).bfloat16()}, 64)["half"]
    assert rows.dtype == torch.float32 and rows.device.type == "cpu"


def test_texts_come_back_in_their_own_order(known: Any, alone: Any) -> None:
    texts = ["a long sentence about the heart", "b", "middle one", "b", "", "another long sentence, longer still"]
    expected = torch.stack([known.text(text) for text in texts])
    for batch_size in (1, 2, 128):
        assert torch.allclose(embed_texts(known, texts, alone.device, batch_size), expected, atol=1e-6)


@pytest.mark.parametrize(("count", "world"), [(0, 2), (1, 2), (7, 2), (9, 2), (9, 3), (3, 8)])
def test_processes_share_whole_batches(count: int, world: int) -> None:
    shares = [share(Runtime(rank, world, torch.device("cpu")), count, 2) for rank in range(world)]
    assert [k for part in shares for k in part] == list(range(count))
    assert all(part.start % 2 == 0 for part in shares if part)
