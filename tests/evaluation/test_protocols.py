"""Published zero-shot rules against slow forms written from the publications, and against golden numbers.

Each rule is checked as a function of arrays, and as the evaluator of its name does it with a model that has these
embeddings. Embeddings are not normalised, classes have different numbers of prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from given_embeddings import FIVE, SCALE, Given, GivenModel, drawn, evaluated, evaluator, golden_protocols
from helpers import FixedData
from torch import nn

from cxrcl.data.text import prompts
from cxrcl.evaluation import protocols

Oracle = Callable[[Given], np.ndarray]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def each(given: Given, score: Callable[[np.ndarray, int, int], float]) -> np.ndarray:
    """score(image, its number, class) of every image and class, [N, 5]."""
    return np.array([[score(image, n, c) for c in range(5)] for n, image in enumerate(given.images)])


def softmax_of(positive: float, negative: float) -> float:
    return np.exp(positive) / (np.exp(positive) + np.exp(negative))


def chexzero(given: Given) -> np.ndarray:
    """Templates normalised, averaged, normalised again; softmax of both cosines without a scale."""

    def weights(group: np.ndarray) -> np.ndarray:
        mean = sum(row / np.linalg.norm(row) for row in group) / len(group)
        return mean / np.linalg.norm(mean)

    pos, neg = ([weights(g) for g in side] for side in (given.positive, given.negative))
    return each(given, lambda image, n, c: softmax_of(cosine(image, pos[c]), cosine(image, neg[c])))


def cxr_clip_pair(given: Given) -> np.ndarray:
    """One prompt a side, here the first; softmax of the two cosines as they are."""
    return each(
        given,
        lambda image, n, c: softmax_of(cosine(image, given.positive[c][0]), cosine(image, given.negative[c][0])),
    )


def cxr_clip_5x200(given: Given) -> np.ndarray:
    """The mean of the cosines with all prompts of a class."""
    return each(given, lambda image, n, c: np.mean([cosine(image, row) for row in given.positive[c]]))


def gloria_similarity(given: Given) -> np.ndarray:
    """Of each prompt (local + global) / 2, of each class the largest."""

    def largest(image: np.ndarray, n: int, c: int) -> float:
        return max((given.local[c][n, p] + cosine(image, row)) / 2 for p, row in enumerate(given.positive[c]))

    return each(given, largest)


def gloria_5x200(given: Given) -> np.ndarray:
    """... then (x - mean) / std of each class over the images, std of the population."""
    raw = gloria_similarity(given)
    columns = []
    for column in raw.T:
        mean = sum(column) / len(column)
        columns.append((column - mean) / np.sqrt(sum((column - mean) ** 2) / len(column)))
    return np.stack(columns, axis=1)


def medclip(given: Given) -> np.ndarray:
    """Logits of the positive prompts, averaged (ensemble=True)."""
    return each(given, lambda image, n, c: np.mean([SCALE * cosine(image, row) for row in given.positive[c]]))


def medclip_max(given: Given) -> np.ndarray:
    """Logits of the positive prompts, the largest (ensemble=False)."""
    return each(given, lambda image, n, c: max(SCALE * cosine(image, row) for row in given.positive[c]))


def biovil(given: Given) -> np.ndarray:
    """Embeddings averaged as they are, the mean normalised; softmax of both cosines."""
    pos, neg = ([g.mean(axis=0) for g in side] for side in (given.positive, given.negative))
    return each(given, lambda image, n, c: softmax_of(cosine(image, pos[c]), cosine(image, neg[c])))


def first_prompts(given: Given) -> Given:
    return Given(
        given.images, [g[:1] for g in given.positive], [g[:1] for g in given.negative], given.local, given.classes
    )


def ours(name: str, given: Given) -> np.ndarray:
    """The function of `cxrcl.evaluation.protocols` of that name."""
    images, positive, negative, local = given.tensors("images", "positive", "negative", "local")
    found = {
        "chexzero": lambda: protocols.chexzero(images, positive, negative),
        "cxr_clip_pair": lambda: protocols.cxr_clip_pair(
            images, *(torch.stack([g[0] for g in side]) for side in (positive, negative))
        ),
        "cxr_clip_5x200": lambda: protocols.cxr_clip_5x200(images, positive),
        "gloria_5x200": lambda: protocols.gloria_5x200(images, positive, local),
        "medclip": lambda: protocols.medclip(images, positive, SCALE),
        "medclip_max": lambda: protocols.medclip(images, positive, SCALE, ensemble=False),
        "biovil": lambda: protocols.biovil(images, positive, negative),
    }[name]()
    return found.numpy()


ORACLES: dict[str, Oracle] = {
    "chexzero": chexzero,
    "cxr_clip_pair": cxr_clip_pair,
    "cxr_clip_5x200": cxr_clip_5x200,
    "gloria_5x200": gloria_5x200,
    "medclip": medclip,
    "medclip_max": medclip_max,
    "biovil": biovil,
}
GOLDEN = {
    "chexzero": "chexzero_probability",
    "cxr_clip_pair": "cxr_clip_pair_probability",
    "cxr_clip_5x200": "cxr_clip_5x200_score",
    "gloria_5x200": "gloria_5x200_published_score",
    "medclip": "medclip_logit_ensemble",
    "medclip_max": "medclip_logit_max",
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ORACLES)
def test_a_published_rule_is_its_slow_form(name: str, seed: int) -> None:
    given = drawn(seed)
    np.testing.assert_allclose(ours(name, given), ORACLES[name](given), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_published_rule_has_the_golden_numbers(name: str) -> None:
    given, values = golden_protocols()
    np.testing.assert_allclose(ours(name, given), values[f"out_{GOLDEN[name]}"], rtol=0, atol=1e-12)


def test_the_golden_cosines_of_unnormalised_averages() -> None:
    given, values = golden_protocols()
    images, positive, negative = given.tensors("images", "positive", "negative")
    for side, groups in (("positive", positive), ("negative", negative)):
        found = protocols.similarity(images, groups, "raw_direction").numpy()
        np.testing.assert_allclose(found, values[f"out_biovil_{side}_cosine"], rtol=0, atol=1e-12)


# -------------------------------------------------------------------------------------- as evaluators of these names


@pytest.mark.parametrize("given", [drawn(0), drawn(1), golden_protocols()[0]], ids=["seed 0", "seed 1", "golden"])
@pytest.mark.parametrize(
    ("name", "settings", "oracle"),
    [
        ("chexzero", {}, chexzero),
        ("biovil", {}, biovil),
        ("medclip", {}, lambda given: 1 / (1 + np.exp(-medclip(given)))),
        ("medclip", {"over": "max"}, lambda given: 1 / (1 + np.exp(-medclip_max(given)))),
        ("pair", {}, cxr_clip_pair),
    ],
)
def test_the_evaluator_of_a_label_rule(name: str, settings: dict[str, Any], oracle: Oracle, given: Given) -> None:
    given = first_prompts(given) if name == "pair" else given
    result = evaluated(name, given, **settings)
    expected = oracle(given)
    assert result.scores is not None and result.scores.probabilities is not None
    np.testing.assert_allclose(result.scores.probabilities, expected, rtol=0, atol=2e-6)
    # Ranked in the same order, but for ties of the precision.
    for k in range(5):
        order = np.argsort(result.scores.scores[:, k])
        assert np.diff(expected[order, k]).min() > -4e-6


@pytest.mark.parametrize("given", [drawn(0), drawn(1), golden_protocols()[0]], ids=["seed 0", "seed 1", "golden"])
@pytest.mark.parametrize(
    ("name", "settings", "oracle"),
    [
        ("cxr_clip_5x200", {}, cxr_clip_5x200),
        ("gloria_5x200", {}, gloria_5x200),
        ("medclip_5x200", {}, medclip),
        ("medclip_5x200", {"over": "max"}, medclip_max),
    ],
)
def test_the_evaluator_of_a_class_rule(name: str, settings: dict[str, Any], oracle: Oracle, given: Given) -> None:
    result = evaluated(name, given, **settings)
    expected = oracle(given)
    assert result.scores is not None
    np.testing.assert_allclose(result.scores.scores, expected, rtol=0, atol=2e-5)
    assert result.metrics["accuracy"] == (expected.argmax(axis=1) == given.classes).mean()


def test_the_golden_accuracies() -> None:
    given, values = golden_protocols()
    for name, settings, key in (
        ("cxr_clip_5x200", {}, "cxr_clip_5x200"),
        ("gloria_5x200", {}, "gloria_5x200_published"),
        ("medclip_5x200", {}, "medclip_logit_ensemble"),
        ("medclip_5x200", {"over": "max"}, "medclip_logit_max"),
    ):
        assert evaluated(name, given, **settings).metrics["accuracy"] == pytest.approx(values[f"out_{key}_accuracy"])


def test_our_own_variant_standardises_on_the_other_split_alone() -> None:
    """Both splits hold the same images here: the published rule and ours agree, and only ours allows one image."""
    given = drawn(2)
    own, published = (evaluated(name, given) for name in ("own_gloria_5x200", "gloria_5x200"))
    assert own.scores is not None and published.scores is not None
    np.testing.assert_allclose(own.scores.scores, published.scores.scores, atol=1e-6)


def test_a_single_image_is_not_standardised() -> None:
    given = drawn(3, images=1)
    np.testing.assert_allclose(ours("gloria_5x200", given), gloria_similarity(given), atol=1e-12)


def test_the_sentences_of_the_biovil_pair_are_those_of_cxr_clip() -> None:
    found = prompts.for_labels("biovil.json", ["Pneumonia"])["Pneumonia"]
    assert found == {"pos": ["Findings suggesting pneumonia."], "neg": ["No evidence of pneumonia"]}


# ---------------------------------------------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("chexzero", {}, "the rule of CheXzero"),
        ("biovil", {}, "the rule of BioViL"),
        ("medclip", {}, "the rule of MedCLIP (Wang et al. 2022), ensemble"),
        ("medclip", {"over": "max"}, "no ensemble"),
        ("medclip", {"scaled": False}, "cxrcl's own rule"),
        ("pair", {}, "cxrcl's own rule"),  # several prompts a side
        ("zero_shot", {}, "cxrcl's own rule"),
        ("cxr_clip_5x200", {}, "the rule of CXR-CLIP"),
        ("medclip_5x200", {}, "the rule of MedCLIP (Wang et al. 2022), ensemble"),
        ("gloria_5x200", {}, "the rule of GLoRIA"),
        ("gloria_5x200", {"by": "global"}, "cxrcl's own rule"),
        ("own_gloria_5x200", {}, "cxrcl's own rule"),
    ],
)
def test_a_rule_says_whose_it_is(name: str, settings: dict[str, Any], said: str) -> None:
    images = torch.zeros(1, 3, 2, 2)
    films = (images, torch.zeros(1, 5), [""], ["p"])
    data = FixedData(FIVE, {"test": films, "valid": films})
    assert said in evaluator(name, data, drawn(0, images=1), **settings).rule
    if name == "pair":
        assert "the rule of CXR-CLIP" in evaluator(name, data, first_prompts(drawn(0, images=1))).rule


class WithoutProjections(nn.Module):
    """A model of before `project_text`: it has unit vectors only."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.whole = GivenModel(given)
        for name in ("tokenizer", "encode_images", "embed_images", "embed_text"):
            setattr(self, name, getattr(self.whole, name))


def test_models_without_projections_lack_one_protocol_and_models_without_a_scale_others() -> None:
    given = drawn(4, images=20)
    model = WithoutProjections(given)
    assert evaluated("chexzero", given, model).scores is not None
    with pytest.raises(ValueError, match=r"has no project_text, .*: set over=direction"):
        evaluated("biovil", given, model)
    for name in ("medclip", "medclip_5x200"):
        with pytest.raises(ValueError, match="has no scale of its similarities: set scaled=false"):
            evaluated(name, given, model)


@pytest.mark.parametrize(("seed", "share"), [(0, 0.18), (1, 0.19)])
def test_maxima_of_local_and_global_apart_decide_otherwise(seed: int, share: float) -> None:
    """The share of decisions is that of docs/protocols.md."""
    given = drawn(seed)
    images, positive, local = given.tensors("images", "positive", "local")
    apart = protocols.similarity(images, positive, "max") + torch.stack([part.amax(dim=1) for part in local], dim=1)
    changed = protocols.standardised(apart / 2).numpy().argmax(axis=1) != gloria_5x200(given).argmax(axis=1)
    assert changed.mean() == pytest.approx(share, abs=0.005)
