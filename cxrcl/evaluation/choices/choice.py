"""A choice: one thing that an evaluation does in one of several ways. A reading: choices made otherwise than now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeVar

S = TypeVar("S")


class Stage(Enum):
    """Where in an evaluation a choice acts; the value says what must be computed anew."""

    WEIGHTS = "a checkpoint, and passes over images and sentences with it"
    IMAGES = "another pass over the images"
    TEXTS = "another pass over the sentences"
    SCORES = "similarities only"
    ROWS = "the table of images only"
    LABELS = "labels only"
    DECISIONS = "scores and labels only"


class Unavailable(Exception):
    """A variant cannot be tried; the message says why, and what would make it possible."""


@dataclass(frozen=True)
class Variant:
    """One way to do it.

    Attributes:
        name: for a person.
        step: state of the stage -> the state with this done.
        remedy: the override, or the change of code, that does it.
    """

    name: str
    step: Callable[[Any], Any]
    remedy: str = ""


@dataclass(frozen=True)
class Choice:
    """One thing, and the ways to do it.

    Attributes:
        name: for a person; no two choices share it.
        stage: where it acts. The steps of a stage are taken in the order of its choices.
        current: how it is done now.
        others: how else it could be done.
    """

    name: str
    stage: Stage
    current: Variant
    others: tuple[Variant, ...]


class Change(NamedTuple):
    """One choice made otherwise."""

    choice: Choice
    variant: Variant

    @property
    def label(self) -> str:
        return f"{self.choice.name}: {self.variant.name}"


Reading = tuple[Change, ...]  # of different choices; () is the current one


def as_it_is(state: S) -> S:
    """The step of a choice that is made by doing nothing."""
    return state


NOW = Variant("as now", as_it_is)


def key(reading: Reading, *stages: Stage) -> tuple[str, ...]:
    """What tells a reading from others in these stages, or in all: the labels of its changes there."""
    return tuple(sorted(change.label for change in reading if not stages or change.choice.stage in stages))


def state(choices: Iterable[Choice], stage: Stage, reading: Reading, start: S) -> S:
    """The state of a stage after the steps of its choices, each as the reading makes it."""
    chosen = {change.choice.name: change.variant for change in reading}
    for choice in choices:
        if choice.stage is stage:
            start = chosen.get(choice.name, choice.current).step(start)
    return start


def changes(choices: Sequence[Choice]) -> list[Change]:
    """Every single change that there is, cheap stages first: the images last, of the same weights together."""
    order = (Stage.SCORES, Stage.LABELS, Stage.ROWS, Stage.DECISIONS, Stage.TEXTS, Stage.IMAGES, Stage.WEIGHTS)
    every = [Change(choice, variant) for choice in choices for variant in choice.others]
    return sorted(every, key=lambda change: order.index(change.choice.stage))


def chosen(name: str, stage: Stage, variants: Sequence[Variant], current: str) -> Choice:
    """A choice among variants of which one, by its name, is the current one.

    Raises:
        ValueError: none has this name.
    """
    at = [variant.name for variant in variants].index(current)
    return Choice(name, stage, variants[at], tuple(variants[:at]) + tuple(variants[at + 1 :]))
