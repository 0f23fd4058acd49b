"""A table, and its text."""

from __future__ import annotations

from cxrcl.evaluation.report.table import Cell, Table, aligned, number_cell, score_cell
from cxrcl.evaluation.scores.score_report import Score

TABLE = Table(
    "Scores",
    ["label", "one", "two"],
    [
        ["Edema", Cell("0.812", "[0.700, 0.900]"), Cell("0.7", note="of other images")],
        ["Nodule", Cell(None, note="no positives"), Cell(None, "(7)", "of other images")],
    ],
)


def test_columns_stand_below_each_other_and_reasons_below_them() -> None:
    assert TABLE.text().splitlines() == [
        "| label  | one                  | two       |",
        "|--------|----------------------|-----------|",
        "| Edema  | 0.812 [0.700, 0.900] | 0.7 (a)   |",
        "| Nodule | - (b)                | - (7) (a) |",
        "",
        "(a) of other images. (b) no positives.",
    ]


def test_each_footnote_has_a_letter_of_its_own_after_z_as_well() -> None:
    many = Table("", ["k"], [[Cell("1", note=str(k))] for k in range(53)])
    letters = many.letters()
    assert len(set(letters.values())) == 53
    assert [letters[str(k)] for k in (0, 25, 26, 51, 52)] == ["a", "z", "aa", "zz", "aaa"]


def test_a_table_without_rows_has_no_text() -> None:
    assert Table("Scores", ["label"], []).text() == ""


def test_a_bar_in_a_name_is_no_column() -> None:
    assert aligned([["label"], ["a|b"]]).splitlines()[-1] == "| a\\|b  |"


def test_cells_of_numbers_and_scores() -> None:
    assert number_cell(0.25, 2) == Cell("0.25") and number_cell(None) == number_cell(float("nan")) == Cell(None)
    assert score_cell(Score(0.25, 0.125, 0.5), "of others") == Cell("0.250", "[0.125, 0.500]", "of others")
    assert score_cell(Score(None, reason="no threshold"), "of others") == Cell(None, note="no threshold")
    assert score_cell(Score(None)) == Cell(None, note="does not exist")
