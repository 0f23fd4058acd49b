"""The section parser, on reports written for these tests."""

from __future__ import annotations

import textwrap

import pytest

from cxrcl.data.text.sections import Sections, split_report


def sections(report: str) -> Sections:
    return split_report(textwrap.dedent(report))


FULL = """
                                     FINAL REPORT
     EXAMINATION:  CHEST (PA AND LAT)

     INDICATION:  ___F with new cough  // pneumonia?

     TECHNIQUE:  Chest PA and lateral

     COMPARISON:  ___

     FINDINGS:

     The lungs are clear.  The heart is
     of normal size.

     IMPRESSION:

     No acute disease.
"""
LUNGS = "The lungs are clear. The heart is of normal size."


def test_a_report_with_all_headings() -> None:
    assert split_report(FULL) == Sections(LUNGS, "No acute disease.")
    assert split_report(FULL.replace("\n", "\r\n")) == Sections(LUNGS, "No acute disease.")


@pytest.mark.parametrize(
    "heading",
    [
        *("IMPRESSION", "IMPRESSIONS:", "IMPRESION:", "IMPRESSSION:", "Impression:", "CONCLUSION:", "OPINION:"),
        *("IMPRESSION AND RECOMMENDATIONS:", "FINAL IMPRESSION:", "IMPRESSION -"),
    ],
)
def test_other_names_and_spellings_of_the_impression(heading: str) -> None:
    assert split_report(FULL.replace("IMPRESSION:", heading)).impression == "No acute disease."


@pytest.mark.parametrize("heading", ["FINDINGS", "FINDING:", "FINDNGS:", "Findings:", "FINDINGS/IMPRESSION:"])
def test_other_names_and_spellings_of_the_findings(heading: str) -> None:
    assert split_report(FULL.replace("FINDINGS:", heading)).findings == LUNGS


def test_headings_in_the_middle_of_a_line() -> None:
    found = sections("HISTORY: Cough. FINDINGS: Lungs clear. No effusion. IMPRESSION: Normal chest.")
    assert found == ("Lungs clear. No effusion.", "Normal chest.")


def test_words_in_capitals_and_colons_within_a_section_are_text() -> None:
    found = sections("""
        FINDINGS: AP view.
        LUNGS: Clear.
        Two lines: one ends in the vena cava.
        IMPRESSION: Normal study of the chest.
    """)
    assert found.findings == "AP view. LUNGS: Clear. Two lines: one ends in the vena cava."
    assert found.impression == "Normal study of the chest."


def test_no_findings_heading_takes_what_follows_the_lines_of_technique_and_comparison() -> None:
    found = sections("""
                                     FINAL REPORT
        PORTABLE CHEST, ___ AT 10:30 A.M.

        HISTORY:

        Fever.

        COMPARISON:  ___ radiograph.

        A tube ends above the carina.

        The lungs are clear.

        IMPRESSION:  Tube in place.
    """)
    assert found == ("A tube ends above the carina. The lungs are clear.", "Tube in place.")


def test_no_heading_at_all_takes_the_last_paragraph_as_the_impression() -> None:
    found = sections("""
        AP CHEST, 3:04 A.M., ___

        COMPARISON: None.

        Both lungs are well aerated. No effusion.

        In summary, no acute disease.
    """)
    assert found == ("Both lungs are well aerated. No effusion.", "In summary, no acute disease.")


def test_history_is_never_taken_for_text() -> None:
    assert sections("HISTORY: Known pneumothorax on the left side.\n\nTECHNIQUE: Portable AP chest film.") == ("", "")


WET = """
     WET READ: ___ ___ ___ 8:50 AM
      Small pleural effusion on the left side.
     ______________________________________________________________________________
"""


def test_the_final_report_replaces_the_preliminary_one() -> None:
    assert split_report(WET + FULL) == split_report(FULL)
    assert split_report(WET.replace("WET READ", "IMPRESSION") + FULL) == split_report(FULL)


def test_a_preliminary_report_alone_is_the_impression() -> None:
    assert split_report(WET) == Sections("", "Small pleural effusion on the left side.")
    assert split_report(WET + "                 FINAL REPORT\n") == split_report(WET)


@pytest.mark.parametrize("heading", ["ADDENDUM:", "FINAL ADDENDUM\n", "ADDENDUM  \n"])
def test_an_addendum_is_left_out(heading: str) -> None:
    addendum = f"\n     {heading} The side was wrong in the first report.\n\n     IMPRESSION: Other text.\n"
    assert split_report(FULL + addendum) == split_report(FULL)
    assert split_report(addendum + FULL) == split_report(FULL)


def test_an_addendum_alone_is_better_than_nothing() -> None:
    assert sections("ADDENDUM: The catheter has been withdrawn.") == ("", "The catheter has been withdrawn.")


def test_of_two_impressions_the_later_one_holds() -> None:
    assert sections("IMPRESSION: First.\n\nFINDINGS: Clear.\n\nIMPRESSION: Second.") == ("Clear.", "Second.")


@pytest.mark.parametrize(
    "tail",
    [
        "RECOMMENDATION(S):  A film in six weeks is advised.\n\n A second paragraph of advice.",
        "NOTIFICATION:  The nurse was told.",
        "NOTIFICATIONS: Told.\n\n RECOMMENDATIONS: CT.",
        "Findings were discussed with Dr. ___ by telephone at 4:10 p.m. on ___.",
        "Dr. ___ was notified. These findings were communicated to the team at 9:15 a.m.",
        "The referring physician was paged.",
    ],
)
def test_closing_words_are_cut(tail: str) -> None:
    assert split_report(FULL + "\n     " + tail) == split_report(FULL)
    assert sections(f"IMPRESSION: Edema.\n {tail}") == ("", "Edema.")


def test_a_call_that_is_followed_by_findings_stays() -> None:
    text = "Edema, as discussed with Dr. Roe. No effusion."
    assert sections(f"IMPRESSION: {text}") == ("", text)


def test_a_ruled_line_is_no_text() -> None:
    assert sections("FINDINGS: Clear lungs.\n ________________\n No effusion.").findings == "Clear lungs. No effusion."


def test_items_of_a_list_keep_their_lines() -> None:
    found = sections("IMPRESSION:\n 1. Edema of both\n lungs.\n 2. Fracture of the left\n rib.")
    assert found.impression == "1. Edema of both lungs.\n2. Fracture of the left rib."


@pytest.mark.parametrize(
    "report", ["", "\n\n", "FINAL REPORT", "___", "CHEST", "IMPRESSION:", "FINDINGS:\n\nIMPRESSION:\n"]
)
def test_reports_without_text(report: str) -> None:
    assert split_report(report) == Sections("", "")
