"""Similarities of images and classes that are described by sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.evaluation.embed import cosines
from cxrcl.evaluation.shared_pass import Request, SharedPass, embedding_request
from cxrcl.types import Features, MatchesWords

Prompts = Mapping[str, Mapping[str, Sequence[str]]]  # label -> "pos" or "neg" -> sentences
Over = Literal["direction", "mean", "max"]
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


class Prompted:
    """Similarity of images with each of G groups of sentences.

    Args:
        groups: sentences of each group, such as the positive prompts of a label.
        over: how the sentences of a group become one number: the cosine to their mean `direction` (the mean unit
            vector, normalised again; Radford et al. 2021, section 3.1.4), or the `mean` or `max` of their similarities.
        by: `global`: cosines of images and sentences; `local`: those of regions and words (`MatchesWords`); `both`:
            their mean (GLoRIA, Huang et al. 2021).
    """

    def __init__(self, groups: Sequence[Sequence[str]], over: Over = "direction", by: By = "global") -> None:
        if over == "direction" and by != "global":
            raise ValueError(f"over=direction, by={by}: words of several sentences have no mean; use over=mean or max")
        self.groups, self.over, self.by = [list(group) for group in groups], over, by
        self.sentences, self.places = _numbered(self.groups)

    def requests(self, model: nn.Module, device: torch.device, splits: Sequence[str]) -> list[Request]:
        """What `similarity` needs of the images of these splits.

        Raises:
            ValueError: the model has no similarity of regions and words, and `by` needs it.
        """
        if self.by == "global":
            return [embedding_request(model, splits)]
        if not isinstance(model, MatchesWords):
            raise ValueError(f"{type(model).__name__} has no local similarity of regions and words: set by=global")
        local = Request(self._local_name, tuple(splits), self._local_similarity(model, device))
        return [local] if self.by == "local" else [embedding_request(model, splits), local]

    def similarity(self, shared: SharedPass, splits: Sequence[str]) -> Tensor:
        """Similarities of the images of the splits with each group, float32 [N, G]."""
        if self.over == "direction":
            return cosines(shared.rows("embedding", splits), directions_of(shared.texts, self.groups))
        if self.by == "local":
            return shared.rows(self._local_name, splits)
        texts = shared.texts(self.sentences)
        # 4,096 images at a time: with hundreds of prompts, all similarities at once would fill the memory.
        parts = [self._reduced(cosines(part, texts)) for part in shared.rows("embedding", splits).split(4096)]
        similarity = torch.cat(parts)
        return similarity if self.by == "global" else (similarity + shared.rows(self._local_name, splits)) / 2

    @property
    def _local_name(self) -> str:
        """The name of the request: equal for equal groups, which are then computed once."""
        return f"local {self.over} {self.groups}"

    def _reduced(self, similarity: Tensor) -> Tensor:
        """Similarities with sentences [N, sentences] -> with groups [N, G]."""
        groups = [similarity[:, places] for places in self.places]
        return torch.stack([g.mean(dim=1) if self.over == "mean" else g.amax(dim=1) for g in groups], dim=1)

    def _local_similarity(self, model: nn.Module, device: torch.device) -> Callable[[Features], Tensor]:
        """Features of B images -> [B, G]; the words of the sentences are encoded before the first image."""
        matcher = cast(MatchesWords, model)
        words: list[tuple[Tensor, Tensor]] = []

        def compute(features: Features) -> Tensor:
            if not words:
                for start in range(0, len(self.sentences), 64):
                    tokens = matcher.tokenizer(self.sentences[start : start + 64])
                    ids = (torch.tensor(part, dtype=torch.int64, device=device) for part in tokens)
                    words.append(matcher.embed_words(*ids))
            return self._reduced(torch.cat([matcher.match_words(features, *part) for part in words], dim=1))

        return compute


def directions_of(embed: Callable[[Sequence[str]], Tensor], groups: Sequence[Sequence[str]]) -> Tensor:
    """The mean unit vector of each group of sentences, normalised again: float [G, D].

    Args:
        embed: N texts -> unit vectors [N, D].
    """
    texts, groups_of_places = _numbered(groups)
    embedded = embed(texts)
    return F.normalize(torch.stack([embedded[places].mean(dim=0) for places in groups_of_places]), dim=-1)


def _numbered(groups: Sequence[Sequence[str]]) -> tuple[list[str], list[list[int]]]:
    """The distinct sentences of all groups, and the places among them of each group's."""
    sentences = sorted({sentence for group in groups for sentence in group})
    place = {sentence: k for k, sentence in enumerate(sentences)}
    return sentences, [[place[sentence] for sentence in group] for group in groups]
