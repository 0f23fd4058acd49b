"""A table as plain data, and as text for the terminal and Markdown files; `page` shows the same tables as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxrcl.evaluation.scores.score_report import Score


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Attributes:
        text: None where the value does not exist.
        aside: what stands beside it in softer print: its interval, its chance level.
        note: a footnote: why the value does not exist, or what is different about it.
        share: of the row's images, 0 .. 1: the page shows it as a shade. None: no shade.
    """

    text: str | None
    aside: str = ""
    note: str = ""
    share: float | None = None


Row = Sequence[Cell | str]  # a text stands for the cell of that text


@dataclass(frozen=True)
class Table:
    """Rows below a head.

    Attributes:
        caption: what the table shows; a page writes it above the table and reads it aloud, a file makes it a heading.
        head: names of the columns, that of the row headers first.
        rows: the first cell of each is its header.
        above: texts over the head, and the number of columns that each spans; on the page only.
        words: places of the columns that hold words and no numbers: the page aligns them on the left.
        totals: number of rows at the end that sum up the others: the page draws a line above them.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]
    above: Sequence[tuple[str, int]] = ()
    words: Sequence[int] = ()
    totals: int = 0

    def cells(self) -> list[list[Cell]]:
        """The rows, texts as cells too."""
        return [[Cell(part) if isinstance(part, str) else part for part in row] for row in self.rows]

    def letters(self) -> dict[str, str]:
        """Footnote -> its letter, in the order in which they come."""
        notes = dict.fromkeys(cell.note for row in self.cells() for cell in row if cell.note)
        return {note: chr(ord("a") + place % 26) * (1 + place // 26) for place, note in enumerate(notes)}

    def text(self) -> str:
        """A Markdown table with its footnotes below, without its caption; nothing where there are no rows."""
        if not self.rows:
            return ""
        letters = self.letters()

        def shown(cell: Cell) -> str:
            parts = (
                "-" if cell.text is None else cell.text,
                cell.aside,
                f"({letters[cell.note]})" if cell.note else "",
            )
            return " ".join(part for part in parts if part)

        table = aligned([self.head, *([shown(cell) for cell in row] for row in self.cells())])
        notes = " ".join(f"({letter}) {note}." for note, letter in letters.items())
        return f"{table}\n\n{notes}" if notes else table


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other; the first row is the header."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits, or a dash where it does not exist."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def number_cell(value: float | None, digits: int = 3, aside: str = "") -> Cell:
    """The cell of a number, which may not exist."""
    return Cell(None if value is None or value != value else number(value, digits), aside)


def score_cell(score: Score, but: str = "") -> Cell:
    """The cell of a value with its interval or, where either does not exist, with the reason.

    Args:
        but: what is different about this value.
    """
    if score.value is None:
        return Cell(None, note=score.reason or "does not exist")
    interval = "" if score.low is None else f"[{number(score.low)}, {number(score.high)}]"
    without = f"no interval: {score.withheld}" if score.withheld else ""
    return Cell(number(score.value), interval, "; ".join(note for note in (but, without) if note))
