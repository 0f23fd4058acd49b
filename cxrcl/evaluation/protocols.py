"""Zero-shot rules as functions of embeddings, without a model. Evaluators are composed of these.

images are embeddings [N, D]; a group is the prompts of a label's side or of a class, embeddings [P, D], P of its own.
Both are taken as a model projects them, of any length and in any precision; cosines are between unit vectors. What a
function repeats of others' code stands in its docstring; the sentences are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.evaluation.embed import cosines

Over = Literal["direction", "raw_direction", "mean", "max"]


# ------------------------------------------------------------------------------- from prompts to one similarity


def direction(group: Tensor) -> Tensor:
    """The direction [D] of a group: each prompt normalised, their mean, normalised again.

    Radford et al. 2021, section 3.1.4; `zeroshot_classifier` of CheXzero (Tiu et al. 2022).
    """
    return F.normalize(F.normalize(group, dim=-1).mean(dim=0), dim=-1)


def raw_direction(group: Tensor) -> Tensor:
    """The direction [D] of a group: the mean of its prompts as they are, then normalised; long ones weigh more.

    `ImageTextInferenceEngine.get_similarity_score_from_raw_data` of hi-ml, the code of BioViL (Boecking et al. 2022).
    """
    return F.normalize(group.mean(dim=0), dim=-1)


def by_prompt(images: Tensor, group: Tensor) -> Tensor:
    """Cosines [N, P] of images and the prompts of a group."""
    return cosines(F.normalize(images, dim=-1), F.normalize(group, dim=-1))


def local_and_global(images: Tensor, group: Tensor, local: Tensor) -> Tensor:
    """(local + global) / 2 of each prompt, [N, P]: `get_similarities` of GLoRIA (Huang et al. 2021).

    Args:
        local: similarities of regions and words, [N, P].
    """
    return (local + by_prompt(images, group)) / 2


def over_prompts(similarities: Tensor, over: Over) -> Tensor:
    """The mean or the maximum [N] of similarities with the prompts of a group, [N, P]."""
    return similarities.mean(dim=1) if over == "mean" else similarities.amax(dim=1)


def similarity(images: Tensor, groups: Sequence[Tensor], over: Over) -> Tensor:
    """Similarity of images with each of G groups, [N, G].

    Args:
        over: the cosine to a group's `direction` or `raw_direction`, or the `mean` or `max` of the cosines to its
            prompts.
    """
    if over in ("direction", "raw_direction"):
        made = torch.stack([direction(group) if over == "direction" else raw_direction(group) for group in groups])
        return by_prompt(images, made)
    return torch.stack([over_prompts(by_prompt(images, group), over) for group in groups], dim=1)


# ------------------------------------------------------------------------------------------- from there to scores


def pair_probability(positive: Tensor, negative: Tensor, scale: float = 1.0) -> Tensor:
    """The softmax over the two sides of a label, of which the positive side is the probability: any shape.

    The softmax of two numbers is the sigmoid of their difference.
    """
    return torch.sigmoid(scale * (positive - negative))


def standardised(scores: Tensor, reference: Tensor | None = None) -> Tensor:
    """Scores [N, C] less the mean of each class, divided by its standard deviation (ddof 0).

    `zero_shot_classification` of GLoRIA, which leaves a single image as it is. A class with one score for all images is
    0 (nan there).

    Args:
        reference: scores [M, C] of the images that give mean and deviation; None takes the scores themselves, as
            published: then the answer for an image depends on the others.
    """
    reference = scores if reference is None else reference
    if len(reference) < 2:
        return scores
    return (scores - reference.mean(dim=0)) / reference.std(dim=0, correction=0).clamp_min(1e-12)


# --------------------------------------------------------------------------------------------- published protocols


def chexzero(images: Tensor, positive: Sequence[Tensor], negative: Sequence[Tensor]) -> Tensor:
    """Probabilities [N, C] of CheXzero (Tiu et al. 2022): softmax of the bare cosines to both sides' directions.

    `run_softmax_eval` calls it with one template a side. An ensemble is the mean probability of several checkpoints.
    """
    return pair_probability(similarity(images, positive, "direction"), similarity(images, negative, "direction"))


def cxr_clip_pair(images: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Probabilities [N, C] of CXR-CLIP (You et al. 2023): softmax of two bare cosines, one prompt a side.

    `zeroshot_binary` ("X", "No X") and `zeroshot_binary_BioVIL` of its evaluator.

    Args:
        positive, negative: one prompt for each label, [C, D].
    """
    return pair_probability(by_prompt(images, positive), by_prompt(images, negative))


def cxr_clip_5x200(images: Tensor, classes: Sequence[Tensor]) -> Tensor:
    """Class scores [N, C] of CXR-CLIP (You et al. 2023): the mean cosine over all prompts; the largest is chosen."""
    return similarity(images, classes, "mean")


def gloria_5x200(images: Tensor, classes: Sequence[Tensor], local: Sequence[Tensor]) -> Tensor:
    """Class scores [N, C] of GLoRIA (Huang et al. 2021), `zero_shot_classification`; the largest is chosen.

    The maximum over a class's prompts of (local + global) / 2, then standardised by class over the images.

    Args:
        local: similarities of regions and words, [N, P] for each class.
    """
    joined = [local_and_global(images, group, part) for group, part in zip(classes, local, strict=True)]
    return standardised(torch.stack([over_prompts(part, "max") for part in joined], dim=1))


def medclip(images: Tensor, classes: Sequence[Tensor], scale: float, ensemble: bool = True) -> Tensor:
    """Logits [N, C] of MedCLIP (Wang et al. 2022), `PromptClassifier`: of positive prompts only.

    The mean over a class's prompts (`ensemble`) or the maximum, times the model's learned scale. Several labels an
    image: the sigmoid is the probability; one class an image: the largest is chosen.
    """
    return scale * similarity(images, classes, "mean" if ensemble else "max")


def biovil(images: Tensor, positive: Sequence[Tensor], negative: Sequence[Tensor]) -> Tensor:
    """Probabilities [N, C] with the prompts averaged as hi-ml does for BioViL (Boecking et al. 2022): `raw_direction`.

    hi-ml returns the cosine of one side; CXR-CLIP (You et al. 2023) makes a decision of the pair: the softmax of bare
    cosines.
    """
    return pair_probability(
        similarity(images, positive, "raw_direction"), similarity(images, negative, "raw_direction")
    )
