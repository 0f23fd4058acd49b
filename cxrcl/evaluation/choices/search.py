"""Which changes bring a figure to a target: every choice by itself, then two and three together."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cxrcl.evaluation.choices.choice import Change, Choice, Reading, Stage, Unavailable, changes

logger = logging.getLogger(__name__)
Measure = Callable[[Sequence[str], Reading], Mapping[str, float]]
PASSES = (Stage.IMAGES, Stage.WEIGHTS)
EXTENDED = 20  # pairs that a third change is added to
SAME = 1e-6  # figures that differ by less are those of one reading under two names


@dataclass(frozen=True)
class Target:
    """Figures to be reached.

    Attributes:
        figures: name -> value.
        tolerance: the distance that still counts as reached.
    """

    figures: Mapping[str, float]
    tolerance: float

    def distance(self, figures: Mapping[str, float]) -> float:
        """The root of the mean square difference of labels' figures, or that of a mean's where this is larger.

        Infinite where a figure does not exist. A mean is compared by itself: it has less noise than a label has, and
        among many labels it would count for nothing.
        """
        left = {name: figures.get(name, np.nan) - value for name, value in self.figures.items()}
        of_labels = [part for name, part in left.items() if "/" in name]
        parts = [abs(part) for name, part in left.items() if "/" not in name]
        parts += [np.sqrt(np.mean(np.square(of_labels)))] if of_labels else []
        return float(np.inf if np.isnan(parts).any() else max(parts))


@dataclass(frozen=True)
class Tried:
    """A reading with its figures.

    Attributes:
        distance: of the target; infinite where one of its figures does not exist.
    """

    reading: Reading
    figures: Mapping[str, float]
    distance: float

    @property
    def label(self) -> str:
        return " + ".join(change.label for change in self.reading) or "as now"

    @property
    def remedies(self) -> list[str]:
        return [change.variant.remedy for change in self.reading if change.variant.remedy]


@dataclass
class Findings:
    """What a search found.

    Attributes:
        start: the current reading.
        tried: all others that were measured, the nearest to the target first.
        not_tried: what could not be measured -> why.
        without_effect: changes that leave all figures as they are.
        not_measured: number of readings with several changes that were left out for want of time or passes.
        complete: False where it was stopped before every single change was measured.
    """

    target: Target
    start: Tried
    tried: list[Tried] = field(default_factory=list)
    not_tried: dict[str, str] = field(default_factory=dict)
    without_effect: list[str] = field(default_factory=list)
    not_measured: int = 0
    complete: bool = True

    @property
    def reached(self) -> list[Tried]:
        """The shortest readings that reach the target, the nearest first; the current one alone where it does."""
        within = [one for one in (self.start, *self.tried) if one.distance <= self.target.tolerance]
        shortest = min((len(one.reading) for one in within), default=0)
        return [one for one in within if len(one.reading) == shortest]

    def ranked(self, changed: int = 1) -> list[Tried]:
        """Readings with so many changes, the nearest first."""
        return sorted((one for one in self.tried if len(one.reading) == changed), key=lambda one: one.distance)


class Search:
    """Looks for the changes that lead to a target.

    Args:
        choices: all that may be made otherwise.
        measure: names of figures and a reading -> the figures; raises Unavailable.
        target: the figures to be reached.
        beside: further figures to measure.
        seconds: how long readings with several changes may be measured.
        image_pairs: how many of these may need a pass over the images that no single change made.
        known: reasons why variants cannot be tried that the caller knows already, by what they are.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        measure: Measure,
        target: Target,
        beside: Sequence[str] = (),
        seconds: float = 60.0,
        image_pairs: int = 2,
        known: Mapping[str, str] | None = None,
    ) -> None:
        self.measure, self.target, self.seconds, self.image_pairs = measure, target, seconds, image_pairs
        self.names, self.every = list(target.figures), list(dict.fromkeys((*target.figures, *beside)))
        self.changes = changes(choices)
        self.findings = Findings(target, self._tried(()), not_tried=dict(known or {}))

    def run(self) -> Findings:
        """Single changes; then, unless one of them reaches the target, two together, and three.

        Ctrl-C ends the search, and what was measured is kept.
        """
        found = self.findings
        try:
            for number, change in enumerate(self.changes, start=1):
                self._single(number, change)
            if not found.reached:
                self._together()
        except KeyboardInterrupt:
            found.complete = False
            logger.warning("stopped: what was measured is shown")
        found.tried.sort(key=lambda one: (one.distance, len(one.reading)))
        return found

    def _tried(self, reading: Reading) -> Tried:
        figures = self.measure(self.every, reading)
        return Tried(reading, figures, self.target.distance(figures))

    def _single(self, number: int, change: Change) -> None:
        found, started = self.findings, time.monotonic()
        try:
            one = self._tried((change,))
        except Unavailable as error:
            found.not_tried[change.label] = str(error)
            return
        if change.choice.stage in PASSES:
            seconds = time.monotonic() - started
            logger.info(f"{number} of {len(self.changes)}: {change.label}: {self._shown(one)} ({seconds:.1f} s)")
        if np.isinf(one.distance):
            absent = [name for name in self.names if np.isnan(one.figures.get(name, np.nan))]
            found.not_tried[change.label] = f"gives no {', '.join(absent[:3])}"
            return
        if np.abs(self._effect(one.figures)).max() < SAME:
            found.without_effect.append(change.label)
            return
        found.tried.append(one)

    def _shown(self, one: Tried) -> str:
        name = self.names[0]
        return f"{name} {one.figures[name]:.4f}" + (f", {one.distance:.4f} from the target" if self.names[1:] else "")

    # ------------------------------------------------------------------------------------------ several changes
    def _together(self) -> None:
        """Readings of two changes and then of three, those first that would be nearest if effects added up."""
        single = self.findings.ranked(1)
        self._measure_best(itertools.combinations(single, 2))
        if not self.findings.reached:
            self._measure_best(itertools.product(self.findings.ranked(2)[:EXTENDED], single))

    def _effect(self, figures: Mapping[str, float]) -> np.ndarray:
        """By how much the figures of the target differ from the current ones."""
        return np.array([figures[name] - self.findings.start.figures[name] for name in self.names])

    def _measure_best(self, several: Iterable[tuple[Tried, Tried]]) -> None:
        """Measure joined readings for so many seconds."""
        until, passes, start = time.monotonic() + self.seconds, 0, self.findings.start.figures
        joined: dict[Reading, float] = {}
        for first, second in several:
            reading = tuple(sorted((*first.reading, *second.reading), key=lambda change: change.label))
            if len({change.choice.name for change in reading}) == len(reading):
                added = self._effect(first.figures) + self._effect(second.figures)
                figures = {name: start[name] + effect for name, effect in zip(self.names, added, strict=True)}
                joined.setdefault(reading, self.target.distance(figures))
        for place, reading in enumerate(sorted(joined, key=joined.__getitem__)):
            needs_pass = sum(change.choice.stage in PASSES for change in reading) > 1
            if time.monotonic() > until:
                self.findings.not_measured += len(joined) - place
                return
            if needs_pass and passes >= self.image_pairs:
                self.findings.not_measured += 1
                continue
            passes += needs_pass
            with contextlib.suppress(Unavailable):
                one = self._tried(reading)
                if np.isfinite(one.distance):
                    self.findings.tried.append(one)
