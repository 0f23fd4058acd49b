"""Texts of rows: reports, sentences for labels by source, rewritings, and all sentences that draws can give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxrcl.data import manifest
from cxrcl.data.manifest import Manifest
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.reports import ReportSampler
from cxrcl.data.text.texts import Texts
from cxrcl.errors import ConfigError, DataError

Put = Callable[..., Path]


def row(number: int, **cells: Any) -> dict[str, Any]:
    return {"image": f"{number}.png", "patient": number, "study": number, "view": "PA", "split": "train", **cells}


def sampler(*labels: str, word: str = "", **options: Any) -> PromptSampler:
    kinds = ("pos", "neg")
    return PromptSampler(
        {name: {kind: [f"{word}{name} {kind} {k}." for k in range(2)] for kind in kinds} for name in labels}, **options
    )


def texts(
    data: Manifest, prompts: PromptSampler | Mapping[str, PromptSampler], mode: str = "auto", **report: Any
) -> Texts:
    return Texts(data, mode, ReportSampler(("findings", "impression"), **report), prompts)


def drawn(made: Texts, row: int, which: int = 0) -> set[str]:
    return {s for k in range(40) for s in made.draw(row, np.random.default_rng(k), which)}


# --------------------------------------------------------------------------------------------- rewritings


@pytest.fixture
def rewritten(put: Put) -> Manifest:
    first = {"findings": "Heart is large. Lungs are clear.", "text_augment": "A large heart. Clear lungs."}
    return manifest.load(put([row(0, **first), row(1, findings="No edema."), row(2, text_augment="An orphan text.")]))


def test_the_second_text_is_the_rewriting_and_evaluation_takes_the_report(rewritten: Manifest) -> None:
    made = texts(rewritten, sampler())
    assert drawn(made, 0) == {"Heart is large.", "Lungs are clear."}
    assert drawn(made, 0, which=1) == {"A large heart.", "Clear lungs."}
    assert drawn(made, 1, which=1) == {"No edema."}
    assert made.draw(0, None, 1) == ("Heart is large.", "Lungs are clear.")
    assert made.make(0, None) == "Heart is large. Lungs are clear."
    assert not made.exists(2) and made.draw(2, np.random.default_rng(0), 1) == ()


def test_rewritings_are_a_column_of_their_own(rewritten: Manifest, put: Put) -> None:
    assert rewritten.labels == ()
    changed = rewritten.rows.assign(text_augment="Other words.")
    assert Manifest(changed, (), rewritten.values).fingerprint() != rewritten.fingerprint()
    study = [{**row(k, text_augment=f"Rewriting {k}."), "study": "s", "patient": "p"} for k in range(2)]
    with pytest.raises(DataError, match="different labels or reports"):
        manifest.check_studies(manifest.load(put(study, "study")))


def test_a_vocabulary_is_learnt_from_reports_and_their_rewritings(rewritten: Manifest) -> None:
    found = ["Heart is large. Lungs are clear.", "A large heart. Clear lungs.", "No edema.", ""]
    assert list(texts(rewritten, sampler()).corpus()) == found
    assert "A large heart. Clear lungs." not in texts(rewritten, sampler(), augmented=False).corpus()


# --------------------------------------------------------------------------------------------- by source


@pytest.fixture
def mixed(put: Put) -> Manifest:
    """Two sources: `a` states Edema, `b` states Mass and has a report in its second row."""
    one = manifest.load(put([row(0, Edema=1), row(1, Edema=0)], "a"))
    other = manifest.load(put([row(0, Mass=1), row(1, Mass=0, findings="No mass is seen.")], "b"))
    return manifest.merge({"a": one, "b": other})


def test_each_source_speaks_with_its_own_prompts(mixed: Manifest) -> None:
    made = texts(mixed, {"a": sampler("Edema", word="A "), "b": sampler("Mass", word="B ")})
    assert drawn(made, 0) == {"A Edema pos 0.", "A Edema pos 1."}
    assert drawn(made, 2) == {"B Mass pos 0.", "B Mass pos 1."}
    assert [made.exists(k) for k in range(4)] == [True, False, True, True]


def test_only_labels_that_a_source_states_need_sentences(mixed: Manifest) -> None:
    prompts = {"a": sampler("Edema"), "b": sampler("Edema")}
    with pytest.raises(ConfigError, match="has no sentences for Mass"):
        texts(mixed, prompts)
    with pytest.raises(ConfigError, match="has no sentences for Mass"):
        texts(mixed, sampler("Edema"))  # one for all has to know them all
    reports = mixed.take(np.array([0, 1, 3]))  # what is left of `b` has reports
    assert drawn(texts(reports, prompts), 2) == {"No mass is seen."}
    assert texts(mixed, prompts, "report").exists(3)


def test_labels_of_another_source_are_not_blank_ones(mixed: Manifest) -> None:
    options = {"num_negatives": 5, "negatives_from": "zero_and_blank"}
    both = sampler("Edema", "Mass", **options)
    assert drawn(texts(mixed, {"a": both, "b": both}), 1) == {"Edema neg 0.", "Edema neg 1."}
    assert len(drawn(texts(mixed, both), 1)) == 4


# --------------------------------------------------------------------------------------------- all sentences


def test_sentences_are_all_that_can_be_drawn(mixed: Manifest, rewritten: Manifest) -> None:
    prompts = {"a": sampler("Edema", num_negatives=1), "b": sampler("Mass", num_negatives=1)}
    made = texts(mixed, prompts)
    assert made.sentences() == set().union(*(drawn(made, k) for k in range(4))) | {"Mass neg 0.", "Mass neg 1."}
    made = texts(rewritten, sampler())
    assert made.sentences() == drawn(made, 0) | drawn(made, 0, 1) | drawn(made, 1)
    assert texts(rewritten, sampler(), augmented=False).sentences() == drawn(made, 0) | drawn(made, 1)
    assert texts(mixed, sampler("Edema", "Mass"), "report").sentences() == {"No mass is seen."}


def test_equal_sentences_are_one_string(put: Put) -> None:
    data = manifest.load(put([row(k, findings="Heart is large." + " No edema." * k) for k in range(3)]))
    made = texts(data, sampler())
    first = [made.draw(k, None)[0] for k in range(3)]
    assert first[0] is first[1] is first[2]
