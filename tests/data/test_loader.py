"""Batches: stacking, tokenising, and worker processes that change nothing and never stay behind."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cxrcl.data import manifest
from cxrcl.data.dataset import Sample, TrainSet
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader, Collate
from cxrcl.data.order import GlobalBatches
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.reports import ReportSampler
from cxrcl.data.text.texts import Texts
from cxrcl.data.text.tokens import TokenTable
from cxrcl.errors import DataError
from cxrcl.types import Batch, Features, ImageSpec, Text, Tokens


def letters(texts: Sequence[str]) -> Tokens:
    longest = max(map(len, texts))
    ids = [[ord(c) for c in t] + [0] * (longest - len(t)) for t in texts]
    mask = [[int(i > 0) for i in row] for row in ids]
    return Tokens(ids, mask, [[k if m else -1 for k, m in enumerate(row)] for row in mask])


def texts_of(folder: Path) -> Texts:
    data = manifest.load(folder).split("train")
    return Texts(data, "auto", ReportSampler(("findings",)), PromptSampler("chexpert.json"))


def make(folder: Path) -> TrainSet:
    data, texts = manifest.load(folder).split("train"), texts_of(folder)
    return TrainSet(data, RadiographTransform(ImageSpec(32, (0.5,) * 3, (0.25,) * 3)), texts, "study", 2, 2, 0)


STEPS = GlobalBatches(12, 4, 0, 0, 12, (0, 1))


def read(folder: Path, workers: int, table: TokenTable | None = None) -> list[Batch]:
    batch_reader = BatchReader(workers)
    try:
        return list(batch_reader.batches(make(folder), STEPS, Collate(letters, table)))
    finally:
        batch_reader.close()


def same(one: Batch, other: Batch) -> bool:
    assert one.images is not None and one.augment is not None and one.text is not None
    assert other.images is not None and other.augment is not None and other.text is not None
    pairs = [(one.images, other.images), (one.augment, other.augment), (one.index, other.index)]
    pairs += [(one.labels.nan_to_num(9), other.labels.nan_to_num(9)), *zip(one.text, other.text)]
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_number_of_workers_changes_nothing(tiny_set: Path) -> None:
    alone, helped = read(tiny_set, 0), read(tiny_set, 2)
    assert len(alone) == len(helped) == 12
    assert all(same(a, b) for a, b in zip(alone, helped)) and not same(alone[0], alone[1])
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_a_table_of_tokens_are_the_same(tiny_set: Path, workers: int) -> None:
    table = TokenTable(texts_of(tiny_set).sentences(), letters)
    table.tokenizer = None  # type: ignore[assignment]  # nothing is tokenised any more
    pairs = list(zip(read(tiny_set, workers, table), read(tiny_set, 0), strict=True))
    assert len(pairs) == 12 and all(same(*pair) for pair in pairs)


def test_workers_end_when_the_consumer_fails(tiny_set: Path) -> None:
    batch_reader = BatchReader(2)
    with pytest.raises(RuntimeError, match="consumer"):
        try:
            for _ in batch_reader.batches(make(tiny_set), STEPS, Collate(letters)):
                assert len(multiprocessing.active_children()) == 2
                raise RuntimeError("consumer")
        finally:
            batch_reader.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_one_line_from_any_process(own_set: Path, workers: int) -> None:
    for image in (own_set / "images").glob("*.png"):
        image.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read(own_set, workers)
    assert str(caught.value).startswith("image of row ") and "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_few_batches_are_read_without_workers(tiny_set: Path) -> None:
    batch_reader = BatchReader(2)
    for _ in batch_reader.batches(make(tiny_set), [[(0, 0)], [(0, 1)]], Collate(None)):
        assert not multiprocessing.active_children()


def sample(index: int, **values: Any) -> Sample:
    image = np.full((2, 1, 4, 4), index, np.uint8)
    return Sample(**{"images": image, "augment": None, "texts": [], "labels": np.float32([1]), "index": index} | values)


def test_collate_stacks() -> None:
    batch = Collate(None)([sample(3, texts=[("a",)]), sample(5, texts=[("b",)])])
    assert batch.images is not None and batch.images.shape == (2, 2, 1, 4, 4) and batch.images.dtype == torch.uint8
    assert batch.index.tolist() == [3, 5] and batch.index.dtype == torch.int64
    assert batch.augment is None and batch.text is None and batch.labels.shape == (2, 1)
    drawn = Collate(None)([sample(k, augment=np.ones((2, 4), np.float32)) for k in range(2)])
    assert drawn.augment is not None and drawn.augment.shape == (2, 2, 4)


def test_collate_tokenises_all_texts_in_one_call() -> None:
    calls = []

    def tokenizer(texts: Sequence[str]) -> Tokens:
        calls.append(list(texts))
        return letters(texts)

    batch = Collate(tokenizer)([sample(0, texts=[("a",), ("b", "d")]), sample(1, texts=[("ef",), ("g",)])])
    assert calls == [["a", "b d", "ef", "g"]]
    assert batch.text is not None and batch.text.ids.shape == (2, 2, 3) and batch.text.ids.dtype == torch.int64
    assert batch.text.mask.tolist() == [[[1, 0, 0], [1, 1, 1]], [[1, 1, 0], [1, 0, 0]]]
    assert batch.text.words[0, 0].tolist() == [0, -1, -1]


def test_pinning_reaches_every_tensor_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [field.name for field in fields(Batch)]
    values: dict[str, Any] = {name: torch.tensor([k]) for k, name in enumerate(names)}
    values["text"] = Text(*(torch.tensor([10 + k]) for k in range(len(Text._fields))))
    values["image_features"] = Features(torch.tensor([20]), torch.tensor([21]))
    values["text_features"] = Features(torch.tensor([30]), torch.tensor([31]))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 100)  # the real one needs CUDA
    pinned = Batch(**values).pin_memory()
    for name in names:
        before, after = values[name], getattr(pinned, name)
        if isinstance(before, Text | Features):
            assert type(after) is type(before)
            assert [part.item() for part in after] == [part.item() + 100 for part in before]
        else:
            assert after.item() == before.item() + 100, name


def test_pinning_leaves_out_what_a_batch_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 100)
    pinned = Batch(None, None, None, torch.zeros(1), torch.zeros(1)).pin_memory()
    assert (pinned.images, pinned.augment, pinned.text, pinned.image_features, pinned.text_features) == (None,) * 5
    assert pinned.labels.item() == pinned.index.item() == 100
