"""Prompt files and the sampling of sentences for labels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cxrcl.data.labels import CHEXPERT
from cxrcl.data.text import prompts
from cxrcl.data.text.prompts import PromptSampler

NAN = float("nan")
LABELS = ("No Finding", "Edema", "Mass", "Fracture", "Effusion")
FILE = {name: {kind: [f"{name} {kind} {k}." for k in range(3)] for kind in prompts.KINDS} for name in LABELS}


def text(sampler: PromptSampler, values: dict[str, float], rng: np.random.Generator | None) -> str:
    return " ".join(sampler.draw(values, rng))


def draws(sampler: PromptSampler, values: dict[str, float], count: int = 60) -> list[str]:
    return [text(sampler, values, np.random.default_rng(k)) for k in range(count)]


def mentioned(text: str) -> list[tuple[str, str]]:
    """(label, kind) of each sentence, in order."""
    sentences = [s.strip() for s in text.split(".") if s.strip()]
    return [(s.rsplit(" ", 2)[0], s.rsplit(" ", 2)[1]) for s in sentences]


@pytest.mark.parametrize("name", ["chexpert.json", "plain.json", "zero_shot.json"])
def test_shipped_files_fit_the_schema_and_the_chexpert_names(name: str) -> None:
    content = prompts.load(name)
    assert tuple(content) == CHEXPERT
    for kinds in content.values():
        for forms in kinds.values():
            assert len(set(forms)) == len(forms)


def test_the_chexpert_file_has_forms_enough() -> None:
    for label, kinds in prompts.load("chexpert.json").items():
        assert len(kinds["pos"]) >= 7 and len(kinds["neg"]) >= 10 and len(kinds["unc"]) >= 20, label


def test_prompts_against_normal_deny_no_finding() -> None:
    """A normal image stands on the negative side of every finding; the positive sides are those of zero_shot.json."""
    usual, found = prompts.load("zero_shot.json"), prompts.load("against_normal.json")
    assert list(found) == list(usual) and found.pop("No Finding") == usual["No Finding"]
    for label, kinds in found.items():
        assert kinds == {"pos": usual[label]["pos"], "neg": usual["No Finding"]["pos"]}, label


def test_parts_are_combined_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('{"A": {"pos": {"severity": ["", "large"], "name": ["mass", "nodule"], "place": ["on the left"]}}}')
    assert prompts.load(str(file))["A"]["pos"] == [
        *("mass on the left", "nodule on the left", "large mass on the left", "large nodule on the left")
    ]


def test_the_five_findings_have_the_published_numbers_of_prompts() -> None:
    counts = {label: len(set(kinds["pos"])) for label, kinds in prompts.load("five_findings.json").items()}
    assert counts == {
        **{"Atelectasis": 210, "Cardiomegaly": 15, "Consolidation": 192, "Edema": 18, "Pleural Effusion": 54}
    }


def test_a_star_stands_for_labels_without_prompts_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('{"A": {"pos": ["own"]}, "*": {"pos": ["{}.", "with {lower}"], "neg": ["no {}"]}}')
    found = prompts.for_labels(str(file), ["A", "Hilar Mass"])
    assert found == {
        "A": {"pos": ["own"]},
        "Hilar Mass": {"pos": ["Hilar Mass.", "with hilar mass"], "neg": ["no Hilar Mass"]},
    }
    assert prompts.for_labels("plain.json", ["Hilar Mass"]) == prompts.load("plain.json")


@pytest.mark.parametrize("name", ["pair.json", "evidence.json", "biovil.json", "chexzero.json"])
def test_templates_speak_of_any_label(name: str) -> None:
    sampler = PromptSampler(name, num_negatives=1)
    sampler.check(["Hilar Mass"])
    assert "ilar " in text(sampler, {"Hilar Mass": 1.0}, None)
    assert "ilar " in text(sampler, {"Hilar Mass": 0.0}, np.random.default_rng(0))


def test_no_sentence_of_a_label_stands_under_two_kinds() -> None:
    for label, kinds in prompts.load("chexpert.json").items():
        everything = [form for forms in kinds.values() for form in forms]
        assert len(set(everything)) == len(everything), label


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "found list"),
        ("{}", "found dict"),
        ('{"A": ["x"]}', "/A needs at least one sentence"),
        ('{"A": {"neg": ["x"]}}', "/A needs at least one sentence"),
        ('{"A": {"pos": []}}', "/A needs at least one sentence"),
        ('{"A": {"pos": ["x"], "negative": ["y"]}}', "/A/negative: unknown kind, use pos, neg, unc"),
        ('{"A": {"pos": "x"}}', "/A/pos: expected a list"),
        ('{"A": {"pos": ["x", " "]}}', "/A/pos/1: expected a sentence"),
        ('{"A": {"pos": ["x"], "unc": ["y", 3]}}', "/A/unc/1: expected a sentence, found 3"),
        ('{"A": {"pos": {"place": "left"}}}', "/A/pos/place: expected a list of phrases, found 'left'"),
        ('{"A": {"pos": {"place": []}}}', "/A/pos/place: expected a list of phrases"),
        ('{"A": {"pos": {"a": ["x", ""], "b": ["", "x"]}}}', "/A/pos: its parts give the sentence 'x' twice"),
        ('{"A": {"pos": {"a": [""], "b": [" "]}}}', "/A/pos/0: expected a sentence"),
        ('{"A": {"pos": ["x"]}, "A": {"pos": ["y"]}}', "the key 'A' stands twice"),
        ('{"A": {"pos": ["x"], "pos": ["y"]}}', "the key 'pos' stands twice"),
    ],
)
def test_each_fault_gives_file_and_place(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "own.json"
    file.write_text(content)
    with pytest.raises(ValueError) as caught:
        prompts.load(str(file))
    assert said in str(caught.value) and str(file) in str(caught.value)


def test_a_file_that_is_not_there_lists_the_shipped_ones() -> None:
    with pytest.raises(ValueError, match=r"chexpert\.json, chexzero\.json, .*, zero_shot\.json"):
        prompts.load("chexprt.json")


def test_a_file_of_ones_own_is_read_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"A": {"pos": ["a shadow."]}}), encoding="utf-8-sig")
    assert prompts.load(str(file)) == {"A": {"pos": ["a shadow."]}}


VALUES = {"No Finding": 0.0, "Edema": 1.0, "Mass": 1.0, "Fracture": -1.0, "Effusion": NAN}


def test_each_positive_gets_one_sentence() -> None:
    for text in draws(PromptSampler(FILE), VALUES):
        assert sorted(mentioned(text)) == [("Edema", "pos"), ("Mass", "pos")]


@pytest.mark.parametrize(("asked", "found"), [(0, 0), (1, 1), (2, 2), (5, 3)])
def test_the_number_of_negatives(asked: int, found: int) -> None:
    values = {"No Finding": 0.0, "Edema": 1.0, "Mass": 0.0, "Fracture": 0.0, "Effusion": NAN}
    for text in draws(PromptSampler(FILE, num_negatives=asked), values):
        negatives = [label for label, kind in mentioned(text) if kind == "neg"]
        assert len(negatives) == len(set(negatives)) == found and "Effusion" not in negatives


def test_every_negative_is_drawn_at_some_time() -> None:
    values = {"No Finding": 0.0, "Mass": 0.0, "Fracture": 0.0}
    seen = Counter(mentioned(text)[0] for text in draws(PromptSampler(FILE, num_negatives=1), values))
    assert set(seen) == {(label, "neg") for label in values}


def test_blank_labels_are_negatives_only_when_asked() -> None:
    values = {"Edema": 1.0, "Mass": NAN}
    zero = PromptSampler(FILE, num_negatives=2)
    blank = PromptSampler(FILE, num_negatives=2, negatives_from="zero_and_blank")
    assert {kind for text in draws(zero, values) for _, kind in mentioned(text)} == {"pos"}
    assert all(("Mass", "neg") in mentioned(text) for text in draws(blank, values))


def test_uncertain_labels_are_mentioned_only_when_asked() -> None:
    assert all(("Fracture", "unc") not in mentioned(text) for text in draws(PromptSampler(FILE), VALUES))
    assert all(("Fracture", "unc") in mentioned(text) for text in draws(PromptSampler(FILE, uncertain=True), VALUES))


def test_forms_and_order_vary_and_follow_the_random_numbers_alone() -> None:
    sampler = PromptSampler(FILE)
    texts = draws(sampler, VALUES)
    assert {mentioned(text)[0][0] for text in texts} == {"Edema", "Mass"}
    assert len(set(texts)) > 10
    assert texts == draws(PromptSampler(FILE), VALUES)


def test_no_finding_has_its_sentence() -> None:
    values = dict.fromkeys(LABELS, 0.0) | {"No Finding": 1.0}
    assert {tuple(mentioned(text)) for text in draws(PromptSampler(FILE), values)} == {(("No Finding", "pos"),)}


@pytest.mark.parametrize(
    ("value", "options", "speaks"),
    [
        (1.0, {}, True),
        (0.0, {}, False),
        (0.0, {"num_negatives": 1}, True),
        (NAN, {"num_negatives": 1}, False),
        (NAN, {"num_negatives": 1, "negatives_from": "zero_and_blank"}, True),
        (NAN, {"negatives_from": "zero_and_blank"}, False),
        (-1.0, {"num_negatives": 1}, False),
        (-1.0, {"uncertain": True}, True),
    ],
)
def test_can_speak_tells_whether_a_sentence_comes(value: float, options: dict, speaks: bool) -> None:
    sampler = PromptSampler(FILE, **options)
    assert sampler.can_speak({"Edema": value}) is speaks
    assert bool(text(sampler, {"Edema": value}, np.random.default_rng(0))) is speaks
    assert bool(text(sampler, {"Edema": value}, None)) is speaks


def test_evaluation_takes_first_forms_in_the_order_of_labels() -> None:
    sampler = PromptSampler(FILE, num_negatives=1, uncertain=True)
    assert text(sampler, VALUES, None) == "Edema pos 0. Mass pos 0."
    assert text(sampler, {"Edema": 0.0, "Mass": 0.0, "Fracture": -1.0}, None) == "Edema neg 0. Fracture unc 0."


def test_check_names_labels_without_sentences() -> None:
    with pytest.raises(ValueError, match="no sentences for Scoliosis"):
        PromptSampler(FILE).check(["Edema", "Scoliosis"])
    positives = {"Edema": {"pos": ["edema."]}}
    PromptSampler(positives).check(["Edema"])
    with pytest.raises(ValueError, match=r"no `neg` sentences for Edema: .* set num_negatives=0$"):
        PromptSampler(positives, num_negatives=1).check(["Edema"])
    with pytest.raises(ValueError, match=r"no `unc` sentences for Edema: .* set uncertain=false$"):
        PromptSampler(positives, uncertain=True).check(["Edema"])
