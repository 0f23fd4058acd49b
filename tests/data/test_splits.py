"""Splits as evaluators see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ALONE, metrics_of, two_towers
from PIL import Image
from torch import Tensor, nn

from cxrcl.data import manifest
from cxrcl.data.images.reader import FULL_SIZE, ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader
from cxrcl.data.splits import Splits
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.reports import ReportSampler
from cxrcl.data.text.texts import Texts
from cxrcl.errors import ConfigError
from cxrcl.evaluation.classification import Classification
from cxrcl.evaluation.loss import Loss
from cxrcl.objectives.simclr import SimClr
from cxrcl.types import Batch, Features, ImageSpec, Tokens


def numbers(texts: Sequence[str]) -> Tokens:
    return Tokens([[len(t)] for t in texts], [[1] for _ in texts], [[0] for _ in texts])


def splits_of(folder: Path, reader: ImageReader = FULL_SIZE) -> Splits:
    data = manifest.load(folder)
    transform = RadiographTransform(ImageSpec(16, (0.5,) * 3, (0.25,) * 3))

    def make_texts(part: manifest.Manifest) -> Texts:
        return Texts(part, "report", ReportSampler(("findings",), num_sentences=1), PromptSampler("chexpert.json"))

    return Splits(data, transform, make_texts, numbers, transform.finish, BatchReader(0), reader)


@pytest.fixture
def splits(tiny_set: Path) -> Splits:
    return splits_of(tiny_set)


def test_sizes_count_images(splits: Splits) -> None:
    assert [splits.size(name) for name in ("train", "valid", "test")] == [18, 6, 6]
    assert splits.size("absent") == 0
    assert splits.labels == ("No Finding", "Cardiomegaly", "Edema")


def test_columns_and_texts_follow_the_rows_of_the_split(splits: Splits) -> None:
    assert splits.column("valid", "study") == ["s12", "s12", "s13", "s14", "s14", "s15"]
    texts = splits.texts("valid")
    assert texts[2] == "The heart is enlarged. Series number 13 shown." and texts[3] == ""


def test_batches_come_in_the_order_asked_for(splits: Splits) -> None:
    batches = list(splits.batches("test", [4, 1, 0, 5, 2], 2, texts=1))
    assert [(batch.index - 26).tolist() for batch in batches] == [[4, 1], [0, 5], [2]]  # rows of the CSV
    for batch in batches:
        assert batch.images is not None and batch.images.dtype == torch.float32
        assert batch.images.shape[1:] == (1, 3, 16, 16) and batch.augment is None
        assert batch.text is not None
        lengths = [len(splits.texts("test")[k]) for k in (batch.index - 26).tolist()]
        assert batch.text.ids.flatten().tolist() == lengths


def test_texts_are_left_out_when_not_asked_for(splits: Splits) -> None:
    assert next(iter(splits.batches("test", [0], 1, texts=0))).text is None
    assert list(splits.batches("test", [], 4, texts=1)) == []


def test_evaluation_is_the_same_each_time(splits: Splits) -> None:
    first, again = (next(iter(splits.batches("valid", [0, 1], 2, texts=1))) for _ in range(2))
    assert first.images is not None and again.images is not None and torch.equal(first.images, again.images)


def test_images_are_read_as_the_reader_says(splits: Splits, tiny_set: Path) -> None:
    coarse = splits_of(tiny_set, ImageReader(read_px=4))
    fine, blurred = (next(iter(each.batches("valid", [0], 1))).images for each in (splits, coarse))
    assert fine is not None and blurred is not None and fine.shape == blurred.shape
    assert blurred.std() < 0.8 * fine.std()  # noise, averaged


def test_features_come_in_place_of_images_where_a_split_has_them_all(splits: Splits) -> None:
    splits.prepare = lambda batch: batch
    paths = [*splits.part("test").paths, *splits.part("valid").paths[1:]]
    cached = splits.with_features({path: np.full(3, k, dtype=np.float32) for k, path in enumerate(paths)})
    one, other = cached.batches("test", [4, 1, 0], 2)
    assert one.images is None and one.image_features is not None and other.image_features is not None
    assert one.image_features.pooled.tolist() == [[[4.0] * 3], [[1.0] * 3]]
    assert one.image_features.local.shape == (2, 1, 0, 3) and other.image_features.pooled.tolist() == [[[0.0] * 3]]
    assert one.labels.nan_to_num(9).equal(splits.truth("test")[[4, 1]].nan_to_num(9))
    assert one.index.tolist() == [30, 27]  # rows of the CSV
    # Draws and augmentations are made of images, and so is a split of which one has no features.
    read = [cached.batches("test", [0], 1, texts=1), cached.batches("test", [0], 1, views=2)]
    read += [cached.batches("valid", [1], 1), splits.batches("test", [0], 1)]
    assert all(next(iter(batches)).image_features is None for batches in read)


def of_two(splits: Splits, positions: Sequence[int], batch_size: int = 8) -> Batch:
    (batch,) = splits.batches("train", positions, batch_size, texts=2, views=2)
    return batch


def test_two_views_are_different_augmentations_and_two_texts_draws(splits: Splits) -> None:
    batch = of_two(splits, range(8))
    assert batch.images is not None and batch.text is not None
    assert batch.images.dtype == torch.float32 and batch.images.shape == (8, 2, 3, 16, 16)
    assert batch.text.ids.shape[:2] == (8, 2)
    assert all(not torch.equal(*image) for image in batch.images)
    # Drawn sentences are shorter than the fixed text, and the second draw is not always the first.
    fixed = [len(text) for text in splits.texts("train")[:8]]
    draws = batch.text.ids[..., 0]
    assert all(draw < size or size == 0 for row, size in zip(draws.tolist(), fixed, strict=True) for draw in row)
    assert (draws[:, 0] != draws[:, 1]).any()


def test_views_and_texts_belong_to_the_image_and_not_to_its_batch(splits: Splits) -> None:
    whole, again, some = of_two(splits, range(8)), of_two(splits, range(8)), of_two(splits, [5, 2])
    for one, other in ((whole, again), (whole.rows(torch.tensor([5, 2])), some)):
        assert one.images is not None and other.images is not None and torch.equal(one.images, other.images)
        assert one.text is not None and other.text is not None and torch.equal(one.text.ids, other.text.ids)


def test_one_view_is_the_image_itself_and_one_text_the_fixed_one_whatever_the_other(splits: Splits) -> None:
    plain = next(iter(splits.batches("train", [0, 1], 2, texts=1, views=1)))
    images = next(iter(splits.batches("train", [0, 1], 2, texts=2, views=1)))
    texts = next(iter(splits.batches("train", [0, 1], 2, texts=1, views=2)))
    assert plain.images is not None and images.images is not None and torch.equal(plain.images, images.images)
    assert plain.text is not None and texts.text is not None and torch.equal(plain.text.ids, texts.text.ids)


def test_the_loss_over_two_views_is_the_same_at_each_evaluation(splits: Splits) -> None:
    model, alone = two_towers(SimClr).eval(), ALONE
    with torch.no_grad():
        first, again = (metrics_of(Loss(splits, 3), model, alone)["total"] for _ in range(2))
    assert first == again and math.isfinite(first)


def test_labels_without_sentences_do_not_stop_a_classifier(put: Callable[..., Path]) -> None:
    rows = [
        {"image": f"{k}.png", "patient": k, "study": k, "view": "PA", "split": "test", "Scoliosis": k % 2}
        for k in range(4)
    ]
    folder = put(rows)
    for k in range(4):
        Image.fromarray(np.full((16, 16), 200 * (k % 2), np.uint8)).save(folder / f"{k}.png")
    transform = RadiographTransform(ImageSpec(16, (0.5,) * 3, (0.25,) * 3))

    def make_texts(part: manifest.Manifest) -> Texts:
        return Texts(part, "auto", ReportSampler(("findings",)), PromptSampler("chexpert.json"))

    class Brightness(nn.Module):
        def encode_images(self, images: Tensor) -> Features:
            return Features(images.mean(dim=(1, 2, 3))[:, None], images[:, :0, 0])

        def classify(self, features: Features) -> Tensor:
            return features.pooled

    splits = Splits(manifest.load(folder), transform, make_texts, None, transform.finish, BatchReader(0))
    assert splits.size("test") == 4 and splits.column("test", "patient") == ["0", "1", "2", "3"]
    figures = metrics_of(Classification(splits, splits=("test",)), Brightness(), ALONE)
    assert figures["auroc/Scoliosis"] == 1
    with pytest.raises(ConfigError, match=r"chexpert\.json has no sentences for Scoliosis"):
        splits.texts("test")
