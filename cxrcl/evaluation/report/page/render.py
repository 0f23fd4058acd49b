"""Sections -> a page. A section without data is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cxrcl.evaluation.report.content import Page
from cxrcl.evaluation.report.page import section_run, section_scores, section_space
from cxrcl.evaluation.report.page.html import Html, escaped, join, tag

USE = "Research use only; not for diagnosis."
SECTIONS: tuple[tuple[str, str, Callable[[Page], Html]], ...] = (
    ("scored", "What was scored", section_run.facts),
    ("scores", "Scores", section_scores.by_label),
    ("prompts", "Prompt families and readings", section_scores.readings),
    ("controls", "Controls", section_scores.controls),
    ("comparisons", "Comparison of models", section_scores.comparisons),
    ("classes", "One class of several", section_scores.classes),
    ("curves", "Curves", section_scores.drawn),
    ("decisions", "Decisions and calibration", section_scores.decisions),
    ("groups", "Subgroups", section_scores.subgroups),
    ("retrieval", "Retrieval", section_space.retrieval),
    ("similarity", "Similarity of classes", section_space.similarity),
    ("space", "Images and texts in the common space", section_space.geometry),
    ("other", "Other metrics", section_run.other_metrics),
    ("training", "Training", section_run.training),
    ("settings", "Command and settings", section_run.settings),
)


def render(page: Page) -> str:
    """The whole HTML file."""
    shown = [(key, title, content) for key, title, make in SECTIONS if (content := make(page))]
    links = tag("ul", *(tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in shown))
    header = tag("header", tag("h1", page.title), tag("p", USE, class_="use"), tag("nav", links, aria_label="Contents"))
    body = tag("main", *(tag("section", tag("h2", title), content, id=key) for key, title, content in shown))
    style = Html(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            # Nothing is fetched and nothing runs, whatever a text of the data may say.
            Html(
                '<meta http-equiv="Content-Security-Policy" '
                "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
            ),
            tag("title", page.title),
            tag("style", style),
        ]
    )
    whole = tag("html", tag("head", head), tag("body", header, body, tag("footer", USE)), lang="en")
    return "<!DOCTYPE html>\n" + escaped(whole) + "\n"
