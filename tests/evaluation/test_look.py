"""Evaluators share one pass over films and texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import FixedData
from torch import Tensor

from cxrcl import config, evaluators
from cxrcl.evaluation.look import Ask, Evaluation, Evaluator, Look, embeddings, pooled
from cxrcl.evaluation.retrieval import Retrieval
from cxrcl.evaluation.zero_shot import ZeroShot
from cxrcl.objectives.base import Objective
from cxrcl.types import Features

BOTH = ("valid", "test")
PROMPTS = {"Edema": {"pos": ["edema"], "neg": ["no edema at all"]}}


def films(data: Any, splits: tuple[str, ...] = BOTH) -> Tensor:
    return torch.cat([data.splits[split][0] for split in splits])


def look(known: Any, alone: Any, data: Any, *asks: Ask, batch_size: int = 3) -> Look:
    return Look(known, alone, data, batch_size, asks)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_rows_and_labels_come_in_the_order_of_the_splits(known: Any, data: Any, alone: Any, batch_size: int) -> None:
    seen = look(known, alone, data, embeddings(known, BOTH), pooled(BOTH), batch_size=batch_size)
    turned = ("test", "valid")
    assert torch.equal(seen.rows("pooled", turned), films(data, turned).flatten(1))
    assert torch.equal(seen.rows("embedding", BOTH), known.embed_images(known.encode_images(films(data))))
    expected = torch.cat([data.splits[split][1] for split in turned])
    assert torch.equal(seen.labels(turned).nan_to_num(9), expected.nan_to_num(9))


def test_a_film_is_encoded_once_whatever_is_asked_of_it(known: Any, data: Any, alone: Any) -> None:
    seen = look(known, alone, data, embeddings(known, BOTH), pooled(("test",)))
    for name, splits in (("embedding", BOTH), ("pooled", ("test",)), ("embedding", ("test",))):
        seen.rows(name, splits)
    seen.labels(BOTH)
    assert known.images_seen == 7


def test_what_one_split_is_asked_is_not_computed_of_another(known: Any, data: Any, alone: Any) -> None:
    sizes: list[int] = []

    def compute(features: Features) -> Tensor:
        sizes.append(len(features.pooled))
        return features.pooled

    seen = look(known, alone, data, embeddings(known, BOTH), Ask("costly", ("test",), compute))
    seen.rows("embedding", BOTH)
    assert sizes == [3]


def test_rows_are_fp32_on_the_cpu(known: Any, data: Any, alone: Any) -> None:
    seen = look(known, alone, data, Ask("half", ("test",), lambda features: features.pooled.bfloat16()))
    assert seen.rows("half", ("test",)).dtype == torch.float32


def test_sentences_are_encoded_once_and_come_back_in_their_order(known: Any, data: Any, alone: Any) -> None:
    seen = look(known, alone, data)
    first = seen.texts(["edema", "a large heart", "edema"])
    assert torch.equal(first[0], first[2]) and torch.allclose(first[1], known.text("a large heart"), atol=1e-6)
    known.texts_seen = 0
    assert torch.equal(seen.texts(["a large heart", "clear"])[0], first[1]) and known.texts_seen == 1


def test_evaluators_together_encode_each_film_and_text_once(known: Any, data: Any, alone: Any) -> None:
    both = {"a": ZeroShot(data, lambda *_: PROMPTS, splits=BOTH), "b": Retrieval(data, splits=BOTH)}
    together = Evaluation(both, data, 3)(known, alone)
    assert known.images_seen == 7 and known.texts_seen == 4  # of 2 prompts and 4 reports, 2 are the same
    assert together == {name: Evaluation({name: each}, data, 64)(known, alone)[name] for name, each in both.items()}


def test_nothing_outlives_the_weights(known: Any, data: Any, alone: Any) -> None:
    class First(Evaluator):
        def asks(self, model: Any, device: torch.device) -> list[Ask]:
            return [pooled(BOTH)]

        def run(self, look: Look) -> dict[str, float]:
            return {"film": float(look.rows("pooled", BOTH).sum()), "text": float(look.texts(["edema"])[0, 0])}

    evaluation = Evaluation({"a": First()}, data, 64)
    before = evaluation(known, alone)["a"]
    known.table = -known.table
    data.splits["test"] = tuple(part[1:] for part in data.splits["test"])
    after = evaluation(known, alone)["a"]
    assert after["text"] == -before["text"] and after["film"] != before["film"]


def test_what_evaluators_leave_is_kept_apart(known: Any, data: Any, alone: Any) -> None:
    class Leaves(Evaluator):
        def run(self, look: Look) -> dict[str, float]:
            look.leave("number", len(look.left))
            return {}

    evaluation = Evaluation({"a": Leaves(), "b": Leaves()}, data, 1)
    evaluation(known, alone)
    assert evaluation.left == {"a": {"number": 0}, "b": {"number": 0}}


def test_scores_of_a_held_out_split_are_left_besides(known: Any, data: Any, alone: Any) -> None:
    evaluation = Evaluation({"a": ZeroShot(data, lambda *_: PROMPTS, splits=("test",))}, data, 64)
    figures = evaluation(known, alone)
    assert "held_out" not in evaluation.left["a"] and known.images_seen == 3
    evaluation.held_out = ("valid",)
    assert evaluation(known, alone) == figures
    assert len(evaluation.left["a"]["held_out"].scores) == 4 and known.images_seen == 10


class Counted(FixedData):
    """Notes the size of each batch that is read."""

    def batches(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        for batch in super().batches(*arguments, **named):
            self.read.append(len(batch.index))
            yield batch


class Logits(Objective):
    def encode_images(self, images: Tensor) -> Features:
        return Features(images[:, :, 0, 0], images[:, :0, 0])

    def classify(self, features: Features) -> Tensor:
        return features.pooled


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
    evaluators.build_evaluators({"e": node}, counted, model, 3, config.OWN_PACKAGES, ["e"], alone)(model, alone)
    assert sorted(counted.read) == ([1, 3, 3] if target.startswith("pixel_ridge") else [1, 3])
