"""Evaluators share one pass over images and texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import FixedData
from torch import Tensor

from cxrcl.app import evaluators
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult, Evaluators
from cxrcl.evaluation.retrieval import Retrieval
from cxrcl.evaluation.shared_pass import Request, SharedPass, embedding_request, pooled_request
from cxrcl.evaluation.zero_shot import ZeroShot
from cxrcl.objectives.base import Objective
from cxrcl.types import Features

BOTH = ("valid", "test")
PROMPTS = {"Edema": {"pos": ["edema"], "neg": ["no edema at all"]}}


def images(data: Any, splits: tuple[str, ...] = BOTH) -> Tensor:
    return torch.cat([data.splits[split][0] for split in splits])


def shared_pass(known: Any, alone: Any, data: Any, *requests: Request, batch_size: int = 3) -> SharedPass:
    return SharedPass(known, alone, data, batch_size, requests)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_rows_and_labels_come_in_the_order_of_the_splits(known: Any, data: Any, alone: Any, batch_size: int) -> None:
    shared = shared_pass(
        known, alone, data, embedding_request(known, BOTH), pooled_request(BOTH), batch_size=batch_size
    )
    turned = ("test", "valid")
    assert torch.equal(shared.rows("pooled", turned), images(data, turned).flatten(1))
    assert torch.equal(shared.rows("embedding", BOTH), known.embed_images(known.encode_images(images(data))))
    expected = torch.cat([data.splits[split][1] for split in turned])
    assert torch.equal(shared.labels(turned).nan_to_num(9), expected.nan_to_num(9))


def test_an_image_is_encoded_once_whatever_is_asked_of_it(known: Any, data: Any, alone: Any) -> None:
    shared = shared_pass(known, alone, data, embedding_request(known, BOTH), pooled_request(("test",)))
    for name, splits in (("embedding", BOTH), ("pooled", ("test",)), ("embedding", ("test",))):
        shared.rows(name, splits)
    shared.labels(BOTH)
    assert known.images_seen == 7


def test_what_one_split_is_asked_is_not_computed_of_another(known: Any, data: Any, alone: Any) -> None:
    sizes: list[int] = []

    def compute(features: Features) -> Tensor:
        sizes.append(len(features.pooled))
        return features.pooled

    shared = shared_pass(known, alone, data, embedding_request(known, BOTH), Request("costly", ("test",), compute))
    shared.rows("embedding", BOTH)
    assert sizes == [3]


def test_rows_are_fp32_on_the_cpu(known: Any, data: Any, alone: Any) -> None:
    shared = shared_pass(known, alone, data, Request("half", ("test",), lambda features: features.pooled.bfloat16()))
    assert shared.rows("half", ("test",)).dtype == torch.float32


def test_sentences_are_encoded_once_and_come_back_in_their_order(known: Any, data: Any, alone: Any) -> None:
    shared = shared_pass(known, alone, data)
    first = shared.texts(["edema", "a large heart", "edema"])
    assert torch.equal(first[0], first[2]) and torch.allclose(first[1], known.text("a large heart"), atol=1e-6)
    known.texts_seen = 0
    assert torch.equal(shared.texts(["a large heart", "clear"])[0], first[1]) and known.texts_seen == 1


def test_projections_are_encoded_once_and_unit_vectors_are_their_directions(known: Any, data: Any, alone: Any) -> None:
    shared = shared_pass(known, alone, data)
    projected = shared.projected_texts(["edema", "a large heart"])
    assert (projected.norm(dim=1) - 1).abs().min() > 0.1
    assert torch.allclose(shared.texts(["edema", "a large heart"]), projected / projected.norm(dim=1, keepdim=True))
    known.texts_seen = 0
    assert torch.equal(shared.projected_texts(["a large heart"])[0], projected[1]) and known.texts_seen == 0


def test_zero_shot_together_encode_each_image_and_text_once(known: Any, data: Any, alone: Any) -> None:
    both = {"a": ZeroShot(data, lambda *_: PROMPTS, splits=BOTH), "b": Retrieval(data, splits=BOTH)}
    together = Evaluators(both, data, 3)(known, alone)
    assert known.images_seen == 7 and known.texts_seen == 4  # of 2 prompts and 4 reports, 2 are the same
    for name, each in both.items():
        assert together[name].metrics == Evaluators({name: each}, data, 64)(known, alone)[name].metrics


def test_images_are_encoded_in_the_precision_of_the_run_whichever_evaluator_comes_first(
    known: Any, data: Any, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    encode = known.encode_images

    def watched(images: Tensor) -> Features:
        seen.append(torch.is_autocast_enabled("cpu"))
        return encode(images)

    monkeypatch.setattr(known, "encode_images", watched)
    of_labels, of_texts = ZeroShot(data, lambda *_: PROMPTS, splits=BOTH), Retrieval(data, splits=BOTH)
    for first, second in ((of_labels, of_texts), (of_texts, of_labels)):
        with torch.autocast("cpu", torch.bfloat16):
            Evaluators({"a": first, "b": second}, data, 64)(known, alone)
    assert seen and all(seen)


def test_nothing_outlives_the_weights(known: Any, data: Any, alone: Any) -> None:
    class First(Evaluator):
        def requests(self, model: Any, device: torch.device) -> list[Request]:
            return [pooled_request(BOTH)]

        def run(self, shared: SharedPass) -> EvaluatorResult:
            image, text = shared.rows("pooled", BOTH).sum(), shared.texts(["edema"])[0, 0]
            return EvaluatorResult({"image": float(image), "text": float(text)})

    evaluation = Evaluators({"a": First()}, data, 64)
    before = evaluation(known, alone)["a"].metrics
    known.table = -known.table
    data.splits["test"] = tuple(part[1:] for part in data.splits["test"])
    after = evaluation(known, alone)["a"].metrics
    assert after["text"] == -before["text"] and after["image"] != before["image"]


def test_a_result_that_is_a_plain_dict_is_refused(known: Any, data: Any, alone: Any) -> None:
    class Plain(Evaluator):
        def run(self, shared: SharedPass) -> Any:
            return {"value": 1.0}

    with pytest.raises(TypeError, match=r"Plain\.run\(\) returned a dict; expected .*EvaluatorResult\(metrics="):
        Evaluators({"a": Plain()}, data, 1)(known, alone)


def test_a_held_out_split_is_scored_besides(known: Any, data: Any, alone: Any) -> None:
    zero_shot = {"a": ZeroShot(data, lambda *_: PROMPTS, splits=("test",))}
    result = Evaluators(zero_shot, data, 64)(known, alone)["a"]
    assert result.held_out is None and known.images_seen == 3
    both = Evaluators(zero_shot, data, 64, held_out=("valid",))(known, alone)["a"]
    assert both.metrics == result.metrics and both.held_out is not None
    assert len(both.held_out.scores) == 4 and known.images_seen == 10


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
    evaluators.build_evaluators({"e": node}, counted, model, 3, OWN_PACKAGES, ["e"], alone)(model, alone)
    assert sorted(counted.read) == ([1, 3, 3] if target.startswith("pixel_ridge") else [1, 3])
