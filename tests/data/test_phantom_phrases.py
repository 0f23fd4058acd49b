"""The wording of phantom reports: every text can be written, and every finding has one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import resources
from string import Formatter
from typing import Any

import numpy as np
import pytest

from cxrcl.data.phantom import LABELS
from cxrcl.data.phantom.phrases import PHRASES, Phrases
from cxrcl.data.phantom.study import PATHOLOGIES, patient_studies, sample_finding

OF_A_FINDING = {
    *("a", "s", "is", "side", "Side", "sides", "loc", "place", "Place", "base", "wall", "apex"),
    *("grade", "gradely", "size", "cm", "nodule", "lump", "several", "number"),
}
SLOTS = {
    "nouns": OF_A_FINDING | {"plural"},
    "affirmations": OF_A_FINDING,
    "hedged": OF_A_FINDING,
    "frames": {"np", "Np", "bare", "Bare", "is", "nn"},
    "remarks": {"bow"},
}
GROUPS = [field.name for field in fields(Phrases)]


def lists(group: str) -> Iterator[tuple[str, list[str]]]:
    """Each list of texts of a group, by what it speaks of."""
    found = getattr(PHRASES, group)
    yield from ((str(entry.labels), entry.texts) for entry in found) if group == "denials" else found.items()


@pytest.mark.parametrize("group", GROUPS)
def test_every_text_can_be_written(group: str) -> None:
    for name, texts in lists(group):
        assert texts, name
        for text in texts:
            slots = {slot for _, slot, _, _ in Formatter().parse(text) if slot is not None}
            assert slots <= SLOTS.get(group, set()), (name, text, slots)
            choices = re.findall(r"\[([^\[\]]*)\]", text)
            assert all(len(options) > 1 and all(options) for options in (choice.split("|") for choice in choices)), text
            assert text.strip() and not re.search(r"[\[\]|]", re.sub(r"\[[^\[\]]*\]", "", text)), text


def test_whole_sentences_end_and_phrases_do_not() -> None:
    for group in GROUPS:
        for name, texts in lists(group):
            whole = group in {"affirmations", "frames", "technique", "remarks", "impressions"}
            for text in texts:
                assert text.endswith(".") == (whole or text.startswith("*")), (name, text)


def test_no_key_stands_twice() -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs), pairs
        return dict(pairs)

    text = (resources.files("cxrcl.data.phantom") / "phrases.json").read_text(encoding="utf-8")
    assert set(json.loads(text, object_pairs_hook=once)) == set(GROUPS)


def test_texts_speak_of_the_findings_that_there_are() -> None:
    drawn = {f for patient in range(300) for study in patient_studies(0, patient) for f in study.findings}
    rng = np.random.default_rng(0)
    drawn |= {sample_finding(kind, rng) for kind in PATHOLOGIES for _ in range(50)}
    forms = {f"{f.kind}/{f.form}" for f in drawn if f.form}
    known = {*PATHOLOGIES, *forms, "Lung Lesion/multiple"}
    assert set(PHRASES.nouns) <= known and set(PHRASES.affirmations) <= known
    assert all({f.kind, f"{f.kind}/{f.form}"} & {*PHRASES.nouns, *PHRASES.affirmations} for f in drawn)
    assert set(PHRASES.hedged) == set(PATHOLOGIES)


def test_denials_are_of_labels_and_are_used_at_times() -> None:
    for denial in PHRASES.denials:
        assert denial.labels and set(denial.labels) <= set(LABELS[1:]) and 0 < denial.weight <= 1
    assert {label for denial in PHRASES.denials for label in denial.labels} == set(LABELS[1:])
