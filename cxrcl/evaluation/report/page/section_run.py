"""Sections on where metrics come from: facts, rules, training, settings, and what no other section shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cxrcl.evaluation.report.content import Checkpoint, Metrics, Page
from cxrcl.evaluation.report.page import plot_training
from cxrcl.evaluation.report.page.html import Html, details, escaped, join, left, shown, table, tag

COUNTED = ("images", "patients", "resamples", "seed")


def facts(page: Page) -> Html:
    """What was scored, warnings, and the rules."""
    parts: list[object] = [tag("p", note, class_="warning", role="note") for note in _notes(page)]
    parts.append(_list(_facts(page)))
    if len(page.proper) > 1:
        parts.append(_of_checkpoints(page))
    if rules := _rules(page):
        parts.append(details("Rules", _list(rules)))
    return join(parts)


def _facts(page: Page) -> dict[str, Any]:
    """What was scored; of the model first, where there is only one."""
    shown = page.shown_facts(with_rules=False)
    counted = {key: report.facts[key] for report in page.scores.values() for key in COUNTED if key in report.facts}
    model = {key: shown.pop(key) for key in _model_facts(page.proper[0])} if len(page.proper) == 1 else {}
    return {**model, **counted, **shown}


def _model_facts(one: Checkpoint) -> dict[str, str]:
    return {} if one.facts is None else one.facts.shown()


def _notes(page: Page) -> list[str]:
    """Notes of the page, and those of evaluators: named, unless all of them say so."""
    several = [report.notes for name, report in page.scores.items() if name]
    shared = [note for note in several[0] if all(note in notes for notes in several)] if several[1:] else []
    named = [f"{name}: {n}" for name, report in page.scores.items() if name for n in report.notes if n not in shared]
    return [*page.notes, *shared, *named]


def _rules(page: Page) -> dict[str, str]:
    """Rules of evaluators, then of scores; those that are not the same for all evaluators are named after theirs."""
    rules = {} if page.data is None else dict(page.data.rules)
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
    facts = [_model_facts(one) for one in page.proper]
    names = dict.fromkeys(name for part in facts for name in part)
    rows = [[name, *(left(part.get(name, "")) for part in facts)] for name in names]
    heads = [tag("th", one.name, scope="col", class_="left") for one in page.proper]
    return table("Checkpoints", ["", *heads], rows) if rows else Html("")


def training(page: Page) -> Html:
    """Curves of the loss and of metrics during training."""
    parts: list[object] = []
    for one in page.proper:
        drawn = plot_training.training(one.training, one.name)
        if drawn:
            parts += [tag("h3", one.name), drawn] if len(page.proper) > 1 else [drawn]
    return join(parts)


def other_metrics(page: Page) -> Html:
    """Metrics of evaluators that have no section of their own."""
    rows = [
        [f"{page.of(one.name, evaluator)}/{key}", shown(value, 4)]
        for one in page.checkpoints
        for evaluator, metrics in one.metrics.items()
        if evaluator not in page.controls and not _has_section(page, evaluator, metrics)
        for key, value in metrics.items()
    ]
    return table("Metrics that no other section shows", ["metric", "value"], rows) if rows else Html("")


def _has_section(page: Page, evaluator: str, metrics: Metrics) -> bool:
    is_retrieval = any(re.fullmatch(r"(image_to_text|text_to_image)/r\d+", key) for key in metrics)
    is_classes = {"accuracy", "chance"} <= set(metrics)
    return evaluator in page.scores or is_retrieval or is_classes or "class_similarity" in metrics


def settings(page: Page) -> Html:
    """The command that was typed, and the settings."""
    parts: list[object] = [tag("pre", page.command, tabindex="0")] if page.command else []
    if page.config:
        parts.append(details("Settings", tag("pre", page.config, tabindex="0")))
    return join(parts)
