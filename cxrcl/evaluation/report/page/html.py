"""Markup out of plain values. Whatever is not markup already is escaped: texts of reports come from anywhere."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from cxrcl.evaluation.report.tables import number
from cxrcl.evaluation.scores.score_report import Score


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escaped(text: object) -> Html:
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def join(parts: Iterable[object]) -> Html:
    return Html("".join(map(escaped, parts)))


def void(name: str, **attributes: str | None) -> Html:
    """An element without content; `class_` is the attribute class, and None leaves an attribute out."""
    written = (f' {key.rstrip("_").replace("_", "-")}="{html.escape(v)}"' for key, v in attributes.items() if v)
    return Html(f"<{name}{''.join(written)}>")


def tag(name: str, *content: object, **attributes: str | None) -> Html:
    """An element with content; attributes as in `void`."""
    return Html(f"{void(name, **attributes)}{join(content)}</{name}>")


def table(
    caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], above: Sequence[tuple[str, int]] = ()
) -> Html:
    """Scrolls in its own box where it is wider than the page. The first cell of a row is its header.

    Args:
        caption: read aloud for the table, and shown above it.
        above: a row over the head, texts and the columns that each spans.
        rows: cells; one that begins with `<td` or `<th` is taken as it is.
    """
    spans = [tag("th", text, scope="colgroup", colspan=str(span)) for text, span in above]
    heads = [tag("tr", *spans)] if spans else []
    heads.append(tag("tr", *(_cell(cell, "th", "col") for cell in head)))
    body = [tag("tr", _cell(row[0], "th", "row"), *(_cell(cell, "td") for cell in row[1:])) for row in rows]
    inner = tag("table", tag("caption", caption), tag("thead", *heads), tag("tbody", *body))
    return tag("div", inner, class_="wide", tabindex="0", role="region", aria_label=caption)


def _cell(content: object, name: str, scope: str | None = None) -> Html:
    if isinstance(content, Html) and content.startswith(("<td", "<th")):
        return content
    return tag(name, content, scope=scope)


def left(text: object) -> Html:
    """A cell of words and not of numbers."""
    return tag("td", text, class_="left")


def shown(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where it does not exist."""
    return "–" if value is None or value != value else number(value, digits)


class Footnotes:
    """Reasons why metrics do not exist, each with a letter."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def mark(self, reason: str) -> Html:
        return tag("sup", self.letters.setdefault(reason, _letter(len(self.letters))))

    def score(self, score: Score | None, but: str = "") -> Html:
        """A cell: the value with its interval, or a dash with its reason.

        Args:
            but: what is different about this value.
        """
        if score is None:
            return tag("td", "")
        if score.value is None:
            reason = score.reason or "does not exist"
            return tag("td", "–", self.mark(reason), title=reason, class_="none")
        parts: list[object] = [number(score.value)]
        if score.low is not None:
            parts += [" ", tag("span", f"[{number(score.low)}, {number(score.high)}]", class_="ci")]
        return tag("td", *parts, *([self.mark(but)] if but else []), title=but)

    def below(self) -> Html:
        if not self.letters:
            return Html("")
        notes = (join([tag("sup", letter), " ", reason, ". "]) for reason, letter in self.letters.items())
        return tag("p", *notes, class_="notes")


def _letter(place: int) -> str:
    return chr(ord("a") + place % 26) * (1 + place // 26)


def details(summary: str, *content: object, open_: bool = False) -> Html:
    return tag("details", tag("summary", summary), *content, open="open" if open_ else None)
