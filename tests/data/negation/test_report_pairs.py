"""Pairs of free reports: what is read, what is turned, and hashes in place of texts. The reports are made up."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from cxrcl.data.negation.pairs import Pair
from cxrcl.data.negation.recipe import from_tables, indiana, tables_of
from cxrcl.data.negation.report_pairs import Donors, Sentence, donors_of, read_reports, study_pairs
from cxrcl.data.negation.rules import read_sentence

REAL = os.environ.get("CXRCL_REAL_DATA")
REPORTS = {
    "a": ("The heart is normal in size. Lines over the chest.", "No pneumonia."),
    "b": ("Mild cardiomegaly. Degenerative change.", "No acute process."),
    "c": ("There is a small left pleural effusion. Stable aorta.", ""),
    "d": ("No pleural effusion. Heart is large.", "Stable cardiomegaly."),
    "e": ("XXXX cardiomegaly.", "No evidence of XXXX effusion."),
    "f": ("", ""),
    "g": ("There is no focal consolidation, pleural effusion or pneumothorax.", ""),
}


def read(reports: dict[str, tuple[str, str]] = REPORTS) -> dict[str, list[Sentence]]:
    rows = [{"study": key, "findings": first, "impression": second} for key, (first, second) in reports.items()]
    return read_reports(pd.DataFrame(rows))


def made(reports: dict[str, list[Sentence]]) -> dict[str, list[Pair]]:
    return {one.study: one.pairs for one in study_pairs(reports, donors_of(reports.values()))}


@pytest.mark.parametrize(
    ("sentence", "present", "findings"),
    [
        ("No pneumothorax.", False, ["Pneumothorax"]),
        ("There is no focal consolidation, pleural effusion, or pneumothorax.", False, None),
        ("Negative for pneumonia", False, ["Pneumonia"]),
        ("No evidence of pulmonary edema is seen.", False, ["Edema"]),
        ("There are no nodules or masses.", False, ["Lung Lesion", "Lung Lesion"]),
        ("Heart size within normal limits.", False, ["Cardiomegaly"]),
        ("The heart is not enlarged.", False, ["Cardiomegaly"]),
        ("The heart is mildly enlarged.", True, ["Cardiomegaly"]),
        ("Stable mild cardiomegaly.", True, ["Cardiomegaly"]),
        ("There is a small right pleural effusion.", True, ["Pleural Effusion"]),
        ("Patchy airspace disease in the left lower lobe.", True, ["Lung Opacity"]),
        ("Healed left rib fractures are noted.", True, ["Fracture"]),
    ],
)
def test_sentences_that_are_read(sentence: str, present: bool, findings: list[str] | None) -> None:
    statement = read_sentence(sentence)
    assert statement is not None and statement.present == present and not statement.weak
    assert list(statement.findings) == (findings or ["Consolidation", "Pleural Effusion", "Pneumothorax"])


@pytest.mark.parametrize(
    "sentence",
    [
        "Possible left pleural effusion.",
        "No change in the left pleural effusion.",
        "Pneumothorax has resolved.",
        "Cardiomegaly and pulmonary edema.",
        "Opacity that may represent pneumonia.",
        "No pneumothorax on the right but a small one on the left.",
        "Cardiac silhouette is unremarkable.",
        "The lungs are clear.",
        "Effusion versus thickening.",
        "Calcified nodule in the left lung.",
    ],
)
def test_sentences_that_are_left_alone(sentence: str) -> None:
    assert read_sentence(sentence) is None


@pytest.mark.parametrize(
    "sentence",
    [
        "No large pleural effusion.",
        "No definite pneumothorax.",
        "The heart is borderline enlarged.",
        "No acute fracture.",
        "No focal infiltrate.",
    ],
)
def test_weak_statements_are_read_and_not_turned(sentence: str) -> None:
    statement = read_sentence(sentence)
    assert statement is not None and statement.weak and Sentence(sentence, statement).says is None


def test_a_sentence_is_replaced_by_one_that_says_the_opposite() -> None:
    pairs, turned = made(read()), ("Pleural Effusion", "to_absent")
    assert pairs["c"] == [
        Pair("sentence", *turned, "There is a small left pleural effusion.", "No pleural effusion."),
        Pair(
            "report",
            *turned,
            "There is a small left pleural effusion. Stable aorta.",
            "No pleural effusion. Stable aorta.",
            "Stable aorta.",
        ),
    ]
    sentence, report = pairs["a"]
    assert sentence.direction == report.direction == "to_present" and sentence.finding == "Cardiomegaly"
    assert sentence.affirmed in {"Mild cardiomegaly.", "Stable cardiomegaly."}
    assert sentence.negated == "The heart is normal in size." and sentence.omitted == ""
    assert report.affirmed == f"{sentence.affirmed} Lines over the chest. No pneumonia."
    assert report.omitted == "Lines over the chest. No pneumonia."


def test_what_would_contradict_itself_is_not_turned() -> None:
    pairs = made(read())
    # "Heart is large" still says it in d; "no acute process" may stand beside a denial in b.
    assert [(one.unit, one.finding) for one in pairs["d"]] == [
        ("sentence", "Pleural Effusion"), ("report", "Pleural Effusion"), ("sentence", "Cardiomegaly")
    ]  # fmt: skip
    assert [one.unit for one in pairs["b"]] == ["sentence", "report"]
    normal = read({**REPORTS, "h": ("The heart is normal in size.", "No acute process.")})
    assert [one.unit for one in made(normal)["h"]] == ["sentence"]
    both = read({**REPORTS, "i": ("The heart is normal in size.", "Cardiomegaly.")})
    assert made(both)["i"] == []


def test_lists_and_sentences_with_removed_words_are_not_turned() -> None:
    pairs = made(read())
    assert pairs["g"] == [] and pairs["e"] == [] and "f" not in pairs


def test_sentences_are_drawn_as_often_as_they_stand_in_the_collection() -> None:
    donors = Donors({("Edema", True): {"k1": 3, "k2": 1}}, {"k1": "Edema.", "k2": "Mild edema."})
    drawn = [donors.draw(("Edema", True), f"{seed:x}") for seed in range(400)]
    assert drawn.count("Edema.") == 300 and drawn.count("Mild edema.") == 100
    assert donors.draw(("Edema", False), "0") is None


# -------------------------------------------------------------------------------------------------- the recipe


def test_hashes_are_stable() -> None:
    """Other hashes: the rules changed, and with them every published figure."""
    reports = read()
    listed, said = tables_of(reports, donors_of(reports.values()))
    assert listed.to_csv(index=False) == HASHES
    assert len(said) == 6 and set(said["times"]) == {1}


HASHES = """report,pairs
2483a41276f9f98c,f58ce9627ffa134a
79833e0ba6b3af13,43a504ed560f1285
c13df7806d35c7fa,d47c7627326f4c7b
d0631c5088addc77,800a95b08cdf4951
"""


def test_more_reports_give_the_same_pairs_and_other_reports_are_said() -> None:
    reports = read()
    own = donors_of(reports.values())
    recipe = from_tables(*tables_of(reports, own))
    more = read({**REPORTS, "z": ("Severe cardiomegaly.", ""), "y": ("Right pleural effusion.", "")})
    donors = recipe.donors_among(donors_of(more.values()))
    assert donors is not None
    assert recipe.compared(more, donors).endswith(
        "4 of 4 reports give the pairs that it lists; 2 further reports give pairs"
    )
    part = {key: reports[key] for key in ("a", "b", "c")}
    assert "MISMATCH" in recipe.compared(part, donors_of(part.values()))
    assert "1 are not among these data" in recipe.compared(part, own)
    assert recipe.donors_among(donors_of(read({"q": ("Edema.", "")}).values())) is None


def test_the_indiana_recipe_holds_hashes_alone() -> None:
    recipe = indiana()
    assert len(recipe.reports) > 500 and not recipe.donors.texts
    hashes = [*recipe.reports, *recipe.reports.values(), *(key for of in recipe.donors.counts.values() for key in of)]
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in hashes)


@pytest.mark.skipif(not REAL, reason="CXRCL_REAL_DATA does not name a folder with reports.csv")
def test_the_indiana_reports_give_the_pairs_of_the_recipe() -> None:
    assert REAL is not None
    table = pd.read_csv(Path(REAL) / "reports.csv", dtype=str, keep_default_na=False)
    reports = read_reports(table.rename(columns={"study_id": "study"}))
    recipe = indiana()
    donors = recipe.donors_among(donors_of(reports.values()))
    assert donors is not None
    said = recipe.compared(reports, donors)
    assert "MISMATCH" not in said and f"{len(recipe.reports)} of {len(recipe.reports)} reports" in said
