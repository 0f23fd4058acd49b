"""Sections on where figures come from: facts, rules, training, settings, and what no other section shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cxrcl.evaluation.page import plot_training
from cxrcl.evaluation.page.html import Html, details, escaped, join, left, shown, table, tag
from cxrcl.evaluation.page.parts import Figures, Page

RULE = " rule"
COUNTED = ("films", "patients", "resamples", "seed")


def facts(page: Page) -> Html:
    """What was scored, warnings, and the rules."""
    known = {key: value for key, value in _facts(page).items() if not key.endswith(RULE)}
    parts: list[object] = [tag("p", note, class_="warning", role="note") for note in _notes(page)]
    parts.append(_list(known))
    if len(page.proper) == 1:
        own = page.proper[0].facts
        parts[-1] = _list({**{k: v for k, v in own.items() if not k.endswith(RULE)}, **known})
    elif page.proper:
        parts.append(_of_checkpoints(page))
    if rules := _rules(page):
        parts.append(details("Rules", _list(rules)))
    return join(parts)


def _facts(page: Page) -> dict[str, Any]:
    counted = {key: report.facts[key] for report in page.scores.values() for key in COUNTED if key in report.facts}
    return {**counted, **page.facts}


def _notes(page: Page) -> list[str]:
    """Those of the page, and those of evaluators: named, unless all of them say so."""
    several = [report.notes for name, report in page.scores.items() if name]
    shared = [note for note in several[0] if all(note in notes for notes in several)] if several[1:] else []
    named = [f"{name}: {n}" for name, report in page.scores.items() if name for n in report.notes if n not in shared]
    return [*page.notes, *shared, *named]


def _rules(page: Page) -> dict[str, str]:
    """Of evaluators, then of scores; those that are not the same for all evaluators are named after theirs."""
    own = [page.facts, *(one.facts for one in page.checkpoints)]
    rules = {key.removesuffix(RULE): str(v) for part in own for key, v in part.items() if key.endswith(RULE)}
    for name, report in page.scores.items():
        for key, text in report.rules.items():
            rules[key if rules.get(key, text) == text else f"{key} ({name})"] = text
    return rules


def _list(values: Mapping[str, Any]) -> Html:
    pairs = ((tag("dt", key), tag("dd", _shown(value))) for key, value in values.items())
    return tag("dl", *(part for pair in pairs for part in pair))


def _shown(value: object) -> Html:
    if isinstance(value, Mapping):
        return tag("div", *(tag("div", f"{key}: {part}") for key, part in value.items()))
    return escaped(", ".join(map(str, value)) if isinstance(value, list | tuple) else value)


def _of_checkpoints(page: Page) -> Html:
    names = [key for one in page.proper for key in one.facts if not key.endswith(RULE)]
    rows = [[key, *(left(one.facts.get(key, "")) for one in page.proper)] for key in dict.fromkeys(names)]
    heads = [tag("th", one.name, scope="col", class_="left") for one in page.proper]
    return table("Checkpoints", ["", *heads], rows) if rows else Html("")


def training(page: Page) -> Html:
    parts: list[object] = []
    for one in page.proper:
        drawn = plot_training.training(one.training, one.name)
        if drawn:
            parts += [tag("h3", one.name), drawn] if len(page.proper) > 1 else [drawn]
    return join(parts)


def other_figures(page: Page) -> Html:
    """Of evaluators that have no section of their own."""
    rows = [
        [f"{page.of(one.name, evaluator)}/{key}", shown(value, 4)]
        for one in page.checkpoints
        for evaluator, figures in one.figures.items()
        if evaluator not in page.controls and not _has_section(page, evaluator, figures)
        for key, value in figures.items()
    ]
    return table("Figures that no other section shows", ["figure", "value"], rows) if rows else Html("")


def _has_section(page: Page, evaluator: str, figures: Figures) -> bool:
    retrieved = any(re.fullmatch(r"(image_to_text|text_to_image)/r\d+", key) for key in figures)
    return (
        evaluator in page.scores or retrieved or {"accuracy", "chance"} <= set(figures) or "class_similarity" in figures
    )


def settings(page: Page) -> Html:
    parts: list[object] = [tag("pre", page.command, tabindex="0")] if page.command else []
    if page.config:
        parts.append(details("Settings", tag("pre", page.config, tabindex="0")))
    return join(parts)
