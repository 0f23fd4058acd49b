"""Zero-shot scores against explicit loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cxrcl.evaluation.metrics import auroc
from cxrcl.evaluation.zero_shot import ZeroShot, margins, prompt_directions

PROMPTS = {
    "No Finding": {"pos": ["a normal film"], "neg": ["an abnormal film", "disease"]},
    "Cardiomegaly": {"pos": ["the heart is large", "big heart", "cardiomegaly"], "neg": ["the heart is normal"]},
    "Edema": {"pos": ["edema"], "neg": ["no edema", "clear lungs"]},
    "Elsewhere": {"pos": ["other"], "neg": ["none"]},
}


def zero_shot(data: Any, **arguments: Any) -> ZeroShot:
    return ZeroShot(data, lambda _: PROMPTS, **arguments)


def by_loop(known: Any, data: Any, splits: tuple[str, ...], labels: tuple[str, ...]) -> np.ndarray:
    """cos(image, mean positive) - cos(image, mean negative), one number at a time."""
    rows = []
    for split in splits:
        for film in data.splits[split][0]:
            image = film.flatten() / film.flatten().norm()
            row = []
            for label in labels:
                sides = []
                for kind in ("pos", "neg"):
                    total = sum(known.text(sentence) for sentence in PROMPTS[label][kind])
                    sides.append(torch.dot(image, total / total.norm()).item())
                row.append(sides[0] - sides[1])
            rows.append(row)
    return np.array(rows)


def test_scores_are_margins_to_the_mean_prompts(known: Any, data: Any, alone: Any) -> None:
    evaluator = zero_shot(data, splits=("valid", "test"))
    assert evaluator.labels == ("No Finding", "Cardiomegaly", "Edema")
    scores, labels = evaluator.score(known, alone)
    expected = by_loop(known, data, ("valid", "test"), evaluator.labels)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    figures = evaluator.run(known, alone)
    for k, name in enumerate(evaluator.labels):
        assert figures[f"auroc/{name}"] == auroc(expected[:, k], labels[:, k])


def test_each_image_and_each_sentence_is_encoded_once(known: Any, data: Any, alone: Any) -> None:
    zero_shot(data, splits=("valid", "test")).run(known, alone)
    assert known.images_seen == 7
    assert known.texts_seen == 10


def test_an_ensemble_of_one_sentence_repeated_is_that_sentence(known: Any, alone: Any) -> None:
    twice = {"x": {"pos": ["edema", "edema"], "neg": ["clear"]}}
    positive, negative = prompt_directions(known, twice, ["x"], alone.device)
    assert torch.allclose(positive[0], known.text("edema"), atol=1e-6)
    assert torch.allclose(negative.norm(dim=1), torch.ones(1))


def test_margins_stay_in_fp32_under_autocast() -> None:
    images, positive, negative = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    expected = margins(images, positive, negative)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(margins(images, positive, negative), expected)


def test_labels_and_their_mean_can_be_named(known: Any, data: Any, alone: Any) -> None:
    both = ("valid", "test")
    figures = zero_shot(data, splits=both, labels=["Edema", "Cardiomegaly"], mean_over=["Edema"]).run(known, alone)
    assert {key for key in figures if key.startswith("auroc/")} == {"auroc/Edema", "auroc/Cardiomegaly"}
    assert (
        figures["mean_auroc"] == figures["auroc/Edema"] == zero_shot(data, splits=both).run(known, alone)["auroc/Edema"]
    )


def test_normal_films_serve_as_negatives_of_the_named_labels(known: Any, data: Any, alone: Any) -> None:
    plain = zero_shot(data, splits=("valid", "test")).run(known, alone)
    against = zero_shot(data, splits=("valid", "test"), against_normal=["Edema"]).run(known, alone)
    # Film 1 is normal and says nothing about edema.
    assert against["negatives/Edema"] == plain["negatives/Edema"] + 1
    assert against["negatives/Cardiomegaly"] == plain["negatives/Cardiomegaly"]


@pytest.mark.parametrize("argument", ["labels", "mean_over", "against_normal"])
def test_a_label_that_the_data_lack_is_an_error(data: Any, argument: str) -> None:
    with pytest.raises(ValueError, match="no label Oedema; there are No Finding, Cardiomegaly, Edema"):
        zero_shot(data, **{argument: ["Oedema"]})


def test_labels_without_prompts_are_left_out_or_an_error_when_named(data: Any) -> None:
    fewer = {"Edema": PROMPTS["Edema"], "Cardiomegaly": {"pos": ["x"]}}
    assert ZeroShot(data, lambda _: fewer).labels == ("Edema",)
    with pytest.raises(ValueError, match="has no positive and negative prompts for Cardiomegaly"):
        ZeroShot(data, lambda _: fewer, labels=["Cardiomegaly", "Edema"])
    with pytest.raises(ValueError, match="no positive and negative prompts"):
        ZeroShot(data, lambda _: {"Elsewhere": PROMPTS["Elsewhere"]})
