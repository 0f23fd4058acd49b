"""Report text: cleaning, sentences, sampling."""

from __future__ import annotations

import numpy as np
import pytest

from cxrcl.data.reports import ReportSampler, clean, sentences


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
    assert ReportSampler(["findings"], min_words=9).read({"findings": text}) == []


ROW = {"findings": "F one. F two.", "impression": "I one. I two."}
REPORT = ["F one.", "F two.", "I one.", "I two."]


def texts(sampler: ReportSampler, report: list[str], count: int = 60) -> list[str]:
    return [sampler.sample(report, np.random.default_rng(k)) for k in range(count)]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (["findings", "impression"], REPORT),
        (["impression", "findings"], REPORT[2:] + REPORT[:2]),
        (["impression"], REPORT[2:]),
        ([], []),
    ],
)
def test_sections_are_read_in_their_order(sections: list[str], expected: list[str]) -> None:
    assert ReportSampler(sections).read(ROW) == expected


def test_a_text_column_that_is_filled_takes_precedence() -> None:
    sampler = ReportSampler(["findings"])
    assert sampler.read({**ROW, "text": "Whole text."}) == ["Whole text."]
    assert sampler.read({**ROW, "text": "  "}) == ["F one.", "F two."]


def test_all_sentences_are_drawn_by_default_in_any_order() -> None:
    found = texts(ReportSampler(["findings"]), REPORT)
    assert {tuple(sorted(sentences(text))) for text in found} == {tuple(REPORT)}
    assert len(set(found)) > 5


def test_the_number_of_sentences_is_bounded_by_the_report() -> None:
    one = texts(ReportSampler(["findings"], num_sentences=1), REPORT)
    assert set(one) == set(REPORT)
    assert all(len(set(sentences(t))) == 3 for t in texts(ReportSampler(["findings"], num_sentences=3), REPORT))
    assert all(len(sentences(t)) == 4 for t in texts(ReportSampler(["findings"], num_sentences=9), REPORT))


def test_without_shuffle_sentences_keep_their_order() -> None:
    sampler = ReportSampler(["findings"], num_sentences=2, shuffle=False)
    found = [[REPORT.index(s) for s in sentences(text)] for text in texts(sampler, REPORT)]
    assert all(places == sorted(places) for places in found) and len({tuple(places) for places in found}) == 6


def test_evaluation_takes_the_whole_report_in_order() -> None:
    assert ReportSampler(["findings"], num_sentences=1).sample(REPORT, None) == " ".join(REPORT)


def test_the_draw_follows_the_random_numbers_alone() -> None:
    sampler = ReportSampler(["findings"], num_sentences=2)
    assert texts(sampler, REPORT) == texts(sampler, REPORT)
