"""Similarities of films and classes that are described by sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.evaluation.look import Ask, Look, embeddings
from cxrcl.types import Features, MatchesWords

Prompts = Mapping[str, Mapping[str, Sequence[str]]]
Over = Literal["direction", "mean", "max"]
By = Literal["global", "local", "both"]


class Prompted:
    """Similarity of films with each of several groups of sentences.

    Args:
        groups: sentences of each group, such as the positive prompts of a label.
        over: how the sentences of a group become one number: the cosine to their mean `direction` (the mean unit
            vector, normalised again; Radford et al. 2021, section 3.1.4), or the `mean` or `max` of their similarities.
        by: `global`: cosines of films and sentences; `local`: those of regions and words (`MatchesWords`); `both`:
            their mean (GLoRIA, Huang et al. 2021).
    """

    def __init__(self, groups: Sequence[Sequence[str]], over: Over = "direction", by: By = "global") -> None:
        if over == "direction" and by != "global":
            raise ValueError(f"over=direction, by={by}: words of several sentences have no mean; use over=mean or max")
        self.groups, self.over, self.by = [list(group) for group in groups], over, by
        self.sentences = sorted({sentence for group in self.groups for sentence in group})
        place = {sentence: k for k, sentence in enumerate(self.sentences)}
        self.places = [[place[sentence] for sentence in group] for group in self.groups]

    def asks(self, model: nn.Module, device: torch.device, splits: Sequence[str]) -> list[Ask]:
        asks = [] if self.by == "local" else [embeddings(model, splits)]
        return asks if self.by == "global" else [*asks, Ask(self._local, tuple(splits), self._matched(model, device))]

    def of(self, look: Look, splits: Sequence[str]) -> Tensor:
        """float32 [N, groups] of the films of the splits."""
        if self.over == "direction":
            directions = directions_of(look.texts, self.groups)
            with torch.autocast("cpu", enabled=False):  # bf16 would make ties of near neighbours
                return look.rows("embedding", splits) @ directions.T
        if self.by == "local":
            return look.rows(self._local, splits)
        texts = look.texts(self.sentences)
        films = look.rows("embedding", splits)
        with torch.autocast("cpu", enabled=False):
            found = torch.cat([self._reduced(part @ texts.T) for part in films.split(4096)])
        return found if self.by == "global" else (found + look.rows(self._local, splits)) / 2

    @property
    def _local(self) -> str:
        return f"local {self.over} {self.groups}"

    def _reduced(self, similarity: Tensor) -> Tensor:
        """[N, sentences] -> [N, groups]."""
        groups = [similarity[:, places] for places in self.places]
        return torch.stack([g.mean(dim=1) if self.over == "mean" else g.amax(dim=1) for g in groups], dim=1)

    def _matched(self, model: nn.Module, device: torch.device) -> Callable[[Features], Tensor]:
        """Features of films -> [B, groups]; the words of the sentences are encoded before the first film."""
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
    """Mean unit vector of each group of sentences, normalised again: [groups, D].

    Args:
        embed: texts -> unit vectors [N, D].
    """
    texts = sorted({sentence for group in groups for sentence in group})
    place = {text: k for k, text in enumerate(texts)}
    embedded = embed(texts)
    return F.normalize(torch.stack([embedded[[place[text] for text in group]].mean(dim=0) for group in groups]), dim=-1)
