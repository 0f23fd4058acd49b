"""The wording of phantom reports, which stands in `phrases.json`.

In each text `[a|b]` is a choice and `{slot}` is filled from the finding (see `report`). Countable noun phrases carry
`{a}` and `{s}`, so that they can be read in the singular and in the plural.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

Texts = list[str]


class Denial(NamedTuple):
    """What is said of something absent or normal.

    Attributes:
        labels: what is denied.
        rank: its place in the report.
        weight: how often it is used.
        texts: noun phrases for the frames of denials or, marked with *, whole sentences.
    """

    labels: list[str]
    rank: int
    weight: float
    texts: Texts


@dataclass(frozen=True)
class Phrases:
    """Texts by what they speak of.

    Attributes:
        nouns: noun phrases of what is present, by label or label/form.
        affirmations: whole sentences that affirm, likewise, beside the frames.
        hedged: what a hedge may speak of, by label.
        frames: sentences around a noun phrase, where {Np} starts a sentence and {np} carries its article.
        trends: how a finding has changed since the previous study.
        technique: of the examination, by its views.
        remarks: on the anatomy; they carry no label.
        impressions: whole sentences of the impression.
    """

    nouns: dict[str, Texts]
    affirmations: dict[str, Texts]
    hedged: dict[str, Texts]
    frames: dict[str, Texts]
    trends: dict[str, Texts]
    denials: list[Denial]
    technique: dict[str, Texts]
    remarks: dict[str, Texts]
    impressions: dict[str, Texts]


def _load() -> Phrases:
    content = json.loads((resources.files("cxrcl.data.phantom") / "phrases.json").read_text(encoding="utf-8"))
    content["denials"] = [Denial(**denial) for denial in content["denials"]]
    return Phrases(**content)


PHRASES = _load()
