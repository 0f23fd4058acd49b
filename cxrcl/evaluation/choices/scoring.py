"""From embeddings to scores: how several prompts become one similarity, and both sides of a label one score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit, log_softmax, softmax

from cxrcl.evaluation import protocols
from cxrcl.evaluation.choices.choice import Choice, Stage, Unavailable, Variant, chosen


class Scored(NamedTuple):
    """What images are ranked by, and what is called a probability: float [N, C] each."""

    scores: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Embedded:
    """What a model makes of images and sentences.

    Attributes:
        images: float32 [N, D], unit vectors.
        positive, negative: label -> float32 [n, D], its sentences as the text head gives them, not normalised.
        scale: the model's learned factor; None where it has none.
    """

    images: np.ndarray
    positive: Mapping[str, np.ndarray]
    negative: Mapping[str, np.ndarray]
    scale: float | None = None


Over = Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]  # images [N, D], G groups [n, D] -> [N, G]
Sides = Callable[[np.ndarray, np.ndarray | None, float], Scored]  # positive, negative [N, C], factor -> scores


@dataclass(frozen=True)
class Scoring:
    """How similarities become scores.

    Attributes:
        over: how the sentences of a side become one similarity.
        sides: how both sides become a score and a probability.
        scaled: whether cosines are multiplied by the learned scale first.
    """

    over: Over
    sides: Sides
    scaled: bool = True


def by_protocol(over: protocols.Over) -> Over:
    """As `cxrcl.evaluation.protocols.similarity` computes it."""

    def similarity(images: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
        rows, sentences = torch.from_numpy(images), [torch.from_numpy(group) for group in groups]
        if over in ("direction", "raw_direction"):
            return protocols.similarity(rows, sentences, over).numpy()
        # One product for all groups: `protocols.similarity` would normalise the images for each of them.
        every = protocols.by_prompt(rows, torch.cat(sentences)).split([len(group) for group in groups], dim=1)
        return torch.stack([protocols.over_prompts(part, over) for part in every], dim=1).numpy()

    return similarity


def first_sentence(images: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Cosine to the first sentence alone."""
    return by_protocol("direction")(images, [group[:1] for group in groups])


def margin(positive: np.ndarray, negative: np.ndarray | None, factor: float) -> Scored:
    """Positive minus negative; the softmax over both sides is the sigmoid of the margin."""
    difference = positive - _both(negative)
    return Scored(difference, expit(factor * difference))


def positive_only(positive: np.ndarray, negative: np.ndarray | None, factor: float) -> Scored:
    """The positive sentences alone, and the sigmoid of their similarity."""
    return Scored(positive, expit(factor * positive))


def cosine_only(positive: np.ndarray, negative: np.ndarray | None, factor: float) -> Scored:
    """The positive sentences alone, and the cosine itself in place of a probability."""
    return Scored(positive, np.clip(positive, 0, 1))


def negative_only(positive: np.ndarray, negative: np.ndarray | None, factor: float) -> Scored:
    """The negative sentences alone, with the sign turned round."""
    against = -_both(negative)
    return Scored(against, expit(factor * against))


def softmax_of_labels(positive: np.ndarray, negative: np.ndarray | None, factor: float) -> Scored:
    """Softmax of the positive similarities over all labels, as if an image had exactly one of them."""
    there = np.isfinite(positive).all(axis=0)
    scores, probabilities = (np.full(positive.shape, np.nan) for _ in range(2))
    scores[:, there] = log_softmax(factor * positive[:, there], axis=1)
    probabilities[:, there] = softmax(factor * positive[:, there], axis=1)
    return Scored(scores, probabilities)


def _both(negative: np.ndarray | None) -> np.ndarray:
    if negative is None:
        raise Unavailable("these prompts have no negative sentences")
    return negative


def _over(name: str, over: Over, remedy: str) -> Variant:
    return Variant(name, lambda state: replace(state, over=over), remedy)


def _sides(name: str, sides: Sides, remedy: str) -> Variant:
    return Variant(name, lambda state: replace(state, sides=sides), remedy)


def _scaled(yes: bool) -> Callable[[Scoring], Scoring]:
    return lambda state: replace(state, scaled=yes)


def choices(over: str, sides: str, scaled: bool, evaluator: str = "zero_shot") -> list[Choice]:
    """The choices of this stage.

    Args:
        over, sides, scaled: the current ones, as `cxrcl.evaluation.zero_shot.ZeroShot` calls them.
        evaluator: whose settings a remedy overrides.
    """
    of = f"evals.{evaluator}"
    averages = {
        "direction": _over("mean direction", by_protocol("direction"), f"{of}.over=direction"),
        "raw_direction": _over("mean embedding", by_protocol("raw_direction"), f"{of}.over=raw_direction"),
        "mean": _over("mean similarity", by_protocol("mean"), f"{of}.over=mean"),
        "max": _over("largest similarity", by_protocol("max"), f"{of}.over=max"),
        "first": _over("first sentence only", first_sentence, f"{of}.file=FILE with one sentence a side"),
    }
    scores = {
        "both": _sides("positive minus negative", margin, f"{of}.sides=both"),
        "positive": _sides("positive only, sigmoid", positive_only, f"{of}.sides=positive"),
        "cosine": _sides("positive only, cosine", cosine_only, "probability = cos(image, positive)"),
        "negative": _sides("negative only", negative_only, "score = -cos(image, negative)"),
        "softmax": _sides(
            "softmax over labels", softmax_of_labels, "softmax(scale * cos(image, positive), dim=labels)"
        ),
    }
    scales = {
        yes: Variant(name, _scaled(yes), f"{of}.scaled={str(yes).lower()}")
        for yes, name in ((True, "learned scale"), (False, "bare cosines"))
    }
    return [
        chosen("averaging of prompts", Stage.SCORES, list(averages.values()), averages[over].name),
        chosen("score", Stage.SCORES, list(scores.values()), scores[sides].name),
        chosen("scale", Stage.SCORES, list(scales.values()), scales[scaled].name),
    ]


START = Scoring(by_protocol("direction"), margin)


def score(embedded: Embedded, how: Scoring, labels: Sequence[str]) -> Scored:
    """Scores of the N images for C labels, nan for labels that the prompts do not name.

    Raises:
        Unavailable: the score needs negative sentences, and a label has none.
    """
    named = [name for name in labels if len(embedded.positive.get(name, ()))]
    if not named:
        raise Unavailable("the prompts name none of the labels")
    columns = [list(labels).index(name) for name in named]

    def side(groups: Mapping[str, np.ndarray]) -> np.ndarray:
        similarity = np.full((len(embedded.images), len(labels)), np.nan)
        similarity[:, columns] = how.over(embedded.images, [groups[name] for name in named])
        return similarity

    negative = side(embedded.negative) if all(len(embedded.negative.get(name, ())) for name in named) else None
    factor = 1.0 if embedded.scale is None or not how.scaled else embedded.scale
    return how.sides(side(embedded.positive), negative, factor)
