"""Similarities of images and classes that are described by sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from cxrcl.evaluation import protocols
from cxrcl.evaluation.embed import embed_texts
from cxrcl.evaluation.protocols import Over
from cxrcl.evaluation.shared_pass import Request, SharedPass, embedding_request
from cxrcl.types import EmbedsImages, EmbedsText, Features, MatchesWords, ProjectsText, ScalesSimilarity

Prompts = Mapping[str, Mapping[str, Sequence[str]]]  # label -> "pos" or "neg" -> sentences
By = Literal["global", "local", "both"]


def class_prompts(
    prompts: Callable[[str, Sequence[str]], Prompts], file: str, labels: Sequence[str], keep: Sequence[str] | None
) -> dict[str, Sequence[str]]:
    """The positive sentences of the classes that a prompts file and the data have: class -> sentences.

    Args:
        prompts: file, labels -> its sentences.
        labels: those of the data.
        keep: of them, the classes; None takes all.

    Raises:
        ValueError: there are fewer than two.
    """
    sentences = prompts(file, labels)
    classes = {name: sentences[name]["pos"] for name in (labels if keep is None else keep) if name in sentences}
    if len(classes) < 2:
        raise ValueError(f"{file} has prompts for {', '.join(classes) or 'none'} of the labels: 2 are needed")
    return classes


OWN_RULE = "cxrcl's own rule"


def check_scale(model: nn.Module, scaled: bool) -> None:
    """Raises ValueError where a model without a scale is to be `scaled`."""
    if scaled and not isinstance(model, ScalesSimilarity):
        raise ValueError(f"{type(model).__name__} has no scale of its similarities: set scaled=false")


class Prompted:
    """Similarity of images with each of G groups of sentences.

    Args:
        groups: sentences of each group, such as the positive prompts of a label.
        over: how the sentences of a group become one similarity, see `cxrcl.evaluation.protocols.similarity`.
        by: `global`: cosines of images and sentences; `local`: similarities of regions and words (`MatchesWords`);
            `both`: their mean for each sentence (GLoRIA, Huang et al. 2021).
    """

    def __init__(self, groups: Sequence[Sequence[str]], over: Over = "direction", by: By = "global") -> None:
        if over not in ("mean", "max") and by != "global":
            raise ValueError(f"over={over}, by={by}: words of several sentences have no mean; use over=mean or max")
        self.groups, self.over, self.by = [list(group) for group in groups], over, by
        self.sentences, self.places = _numbered(self.groups)

    def requests(self, model: nn.Module, device: torch.device, splits: Sequence[str]) -> list[Request]:
        """What `similarity` needs of the images of these splits.

        Raises:
            ValueError: the model lacks what `over` or `by` needs of it.
        """
        kind = type(model).__name__
        if self.over == "raw_direction" and not isinstance(model, ProjectsText):
            raise ValueError(
                f"{kind} has no project_text, and over=raw_direction needs embeddings before they are normalised: set "
                "over=direction"
            )
        if self.by == "global":
            return [embedding_request(model, splits)]
        if not isinstance(model, MatchesWords):
            raise ValueError(f"{kind} has no local similarity of regions and words: set by=global")
        return [Request(self._local_name, tuple(splits), self._with_words(model, device))]

    def similarity(self, shared: SharedPass, splits: Sequence[str]) -> Tensor:
        """Similarities of the images of the splits with each group, float32 [N, G]."""
        if self.by != "global":
            return shared.rows(self._local_name, splits)
        texts = shared.projected_texts if self.over == "raw_direction" else shared.texts
        groups = self._by_group(texts(self.sentences))
        # 4,096 images at a time: with hundreds of prompts, all similarities at once would fill the memory.
        parts = shared.rows("embedding", splits).split(4096)
        return torch.cat([protocols.similarity(part, groups, self.over) for part in parts])

    @property
    def rule(self) -> str:
        """The similarity with a group, in words."""
        each = {"global": "the cosine", "local": "the local similarity", "both": "(local + global) / 2"}[self.by]
        return {
            "direction": "cosine to the mean direction of the prompts (normalised, averaged, normalised)",
            "raw_direction": "cosine to the mean of the unnormalised prompts",
            "mean": f"mean over the prompts of {each}",
            "max": f"maximum over the prompts of {each}",
        }[self.over]

    @property
    def _local_name(self) -> str:
        """The name of the request: equal for equal groups, which are then computed once."""
        return f"{self.by} {self.over} {self.groups}"

    def _by_group(self, by_sentence: Tensor) -> list[Tensor]:
        """Rows [sentences, ...] -> those of each group [P, ...]."""
        return [by_sentence[places] for places in self.places]

    def _with_words(self, model: nn.Module, device: torch.device) -> Callable[[Features], Tensor]:
        """Features of B images -> similarities [B, G], the sentences encoded before the first image.

        Joined while the images pass: similarities with each sentence are never held for all images.
        """
        matcher = cast(MatchesWords, model)
        words: list[tuple[Tensor, Tensor]] = []
        texts: list[Tensor] = []

        def compute(features: Features) -> Tensor:
            if not words:
                for start in range(0, len(self.sentences), 64):
                    tokens = matcher.tokenizer(self.sentences[start : start + 64])
                    ids = (torch.tensor(part, dtype=torch.int64, device=device) for part in tokens)
                    words.append(matcher.embed_words(*ids))
                if self.by == "both":
                    texts.append(embed_texts(cast(EmbedsText, model), self.sentences, device).to(device))
            local = torch.cat([matcher.match_words(features, *part) for part in words], dim=1)
            joined = [local[:, places] for places in self.places]
            if self.by == "both":
                images = cast(EmbedsImages, model).embed_images(features).float()
                joined = [
                    protocols.local_and_global(images, group, part)
                    for group, part in zip(self._by_group(texts[0]), joined, strict=True)
                ]
            return torch.stack([protocols.over_prompts(part, self.over) for part in joined], dim=1)

        return compute


def directions_of(embed: Callable[[Sequence[str]], Tensor], groups: Sequence[Sequence[str]]) -> Tensor:
    """The direction of each group of sentences, float [G, D], see `cxrcl.evaluation.protocols.direction`.

    Args:
        embed: N texts -> unit vectors [N, D].
    """
    texts, groups_of_places = _numbered(groups)
    embedded = embed(texts)
    return torch.stack([protocols.direction(embedded[places]) for places in groups_of_places])


def _numbered(groups: Sequence[Sequence[str]]) -> tuple[list[str], list[list[int]]]:
    """The distinct sentences of all groups, and the places among them of each group's."""
    sentences = sorted({sentence for group in groups for sentence in group})
    place = {sentence: k for k, sentence in enumerate(sentences)}
    return sentences, [[place[sentence] for sentence in group] for group in groups]
