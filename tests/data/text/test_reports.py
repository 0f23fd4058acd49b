"""Report text: cleaning, sentences, sampling."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from cxrcl.data.text.reports import Report, ReportSampler, clean, sentences


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Heart  normal.\n Lungs\tclear.", "Heart normal. Lungs clear."),
        ("Seen by XXXX today.", "Seen by today."),
        ("Compared with ___, stable.", "Compared with, stable."),
        ("xxxx is noted in x-ray.", "is noted in x-ray."),
        ("1. Heart normal. 2. Lungs clear.", "Heart normal. Lungs clear."),
        ("1) Heart normal 2) lungs clear", "Heart normal lungs clear"),
        ("1. Heart normal\n2. Lungs clear", "Heart normal Lungs clear"),
        ("A nodule of 2.5 cm.", "A nodule of 2.5 cm."),
        ("Fracture of rib 5. The heart is normal.", "Fracture of rib 5. The heart is normal."),
        ("Heart normal , lungs clear .", "Heart normal, lungs clear."),
        ("XXXX. XXXX", "."),
        ("caf\ufffd latte", "caf latte"),
        ("", ""),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Heart normal. Lungs clear! Done?", ["Heart normal.", "Lungs clear!", "Done?"]),
        ("A nodule of 2.5 cm is seen. It is new.", ["A nodule of 2.5 cm is seen.", "It is new."]),
        ("Discussed with Dr. Roe at noon. Stable.", ["Discussed with Dr. Roe at noon.", "Stable."]),
        ("Edema vs. infection, e.g. pneumonia.", ["Edema vs. infection, e.g. pneumonia."]),
        ("First\nline. second line", ["First line.", "second line"]),
        ("XXXX", []),
        (" . ", []),
    ],
)
def test_sentences(text: str, found: list[str]) -> None:
    assert sentences(text) == found


def test_min_words_leaves_out_short_sentences() -> None:
    text = "Stable. No change. The heart is normal."
    assert sentences(text, 2) == ["No change.", "The heart is normal."]
    assert sentences(text, 3) == ["The heart is normal."]
    assert ReportSampler(["findings"], min_words=9).read({"findings": text}) == ((), ())


ROW = {"findings": "F one. F two.", "impression": "I one. I two."}
FINDINGS, IMPRESSION = ("F one.", "F two."), ("I one.", "I two.")
REPORT = Report((FINDINGS, IMPRESSION), ())
ALL = FINDINGS + IMPRESSION


def draws(sampler: ReportSampler, report: Report = REPORT, which: int = 0) -> list[tuple[str, ...]]:
    return [sampler.draw(report, np.random.default_rng(k), which) for k in range(60)]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (["findings", "impression"], (FINDINGS, IMPRESSION)),
        (["impression", "findings"], (IMPRESSION, FINDINGS)),
        (["impression"], (IMPRESSION,)),
        ([], ()),
    ],
)
def test_sections_are_read_in_their_order(sections: list[str], expected: tuple[tuple[str, ...], ...]) -> None:
    assert ReportSampler(sections).read(ROW) == Report(expected, ())


def test_a_text_column_that_is_filled_takes_precedence() -> None:
    sampler = ReportSampler(["findings"])
    assert sampler.read({**ROW, "text": "Whole text."}).sections == (("Whole text.",),)
    assert sampler.read({**ROW, "text": "  "}).sections == (FINDINGS,)


def test_all_sentences_are_drawn_by_default_in_any_order() -> None:
    found = draws(ReportSampler(["findings"]))
    assert {tuple(sorted(text)) for text in found} == {ALL}
    assert len(set(found)) > 5


def test_the_number_of_sentences_is_bounded_by_the_report() -> None:
    assert set(draws(ReportSampler(["findings"], num_sentences=1))) == {(sentence,) for sentence in ALL}
    assert all(len(set(text)) == 3 for text in draws(ReportSampler(["findings"], num_sentences=3)))
    assert all(len(text) == 4 for text in draws(ReportSampler(["findings"], num_sentences=9)))


def test_without_shuffle_sentences_keep_their_order() -> None:
    found = draws(ReportSampler(["findings"], num_sentences=2, shuffle=False))
    places = [tuple(ALL.index(sentence) for sentence in text) for text in found]
    assert all(text == tuple(sorted(text)) for text in places) and len(set(places)) == 6


def test_a_draw_from_one_section_takes_each_of_those_that_are_filled() -> None:
    sampler = ReportSampler(["findings"], section="one", shuffle=False)
    assert set(draws(sampler)) == {FINDINGS, IMPRESSION}
    assert 15 < draws(sampler).count(FINDINGS) < 45
    assert set(draws(sampler, Report((IMPRESSION,), ()))) == {IMPRESSION}
    one = ReportSampler(["findings"], num_sentences=1, section="one")
    assert set(draws(one)) == {(sentence,) for sentence in ALL}
    assert ReportSampler(["findings", "impression"]).read({"findings": "", "impression": "I one."}).sections == (
        IMPRESSION[:1],
    )


def test_the_second_text_is_drawn_from_the_rewriting() -> None:
    row = {**ROW, "text_augment": "XXXX Seen one. Seen two. Hm."}
    report = ReportSampler(["findings"]).read(row)
    assert report == Report((FINDINGS,), ("Seen one.", "Seen two."))  # cleaned, and short sentences left out
    sampler = ReportSampler(["findings"], shuffle=False, section="one")
    assert set(draws(sampler, report)) == {FINDINGS} and set(draws(sampler, report, which=1)) == {report.rewritten}
    few = ReportSampler(["findings"], num_sentences=1)
    assert set(draws(few, report, which=1)) == {("Seen one.",), ("Seen two.",)}


def test_without_a_rewriting_both_texts_are_drawn_from_the_report() -> None:
    sampler = ReportSampler(["findings"], shuffle=False)
    assert set(draws(sampler, sampler.read(ROW), which=1)) == {FINDINGS}
    row = {**ROW, "text_augment": "Seen one."}
    assert ReportSampler(["findings"], augmented=False).read(row) == Report((FINDINGS,), ())


def test_a_rewriting_of_nothing_is_not_a_report() -> None:
    assert ReportSampler(["findings"]).read({"findings": "", "text_augment": "Seen one."}) == Report((), ())


@pytest.mark.parametrize("section", ["all", "one"])
def test_evaluation_takes_the_whole_report_in_order(section: Literal["all", "one"]) -> None:
    report = Report((FINDINGS, IMPRESSION), ("Seen one.",))
    assert ReportSampler(["findings"], num_sentences=1, section=section).draw(report, None, 1) == ALL


def test_the_draw_follows_the_random_numbers_alone() -> None:
    sampler = ReportSampler(["findings"], num_sentences=2, section="one")
    assert draws(sampler) == draws(sampler)
