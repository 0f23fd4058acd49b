"""Figures of any reading, from what a model makes of images and sentences; what readings share is computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cxrcl.evaluation.choices.choice import Choice, Reading, Stage, Unavailable, key, state
from cxrcl.evaluation.choices.figures import Decisions, at_one_half, figures, with_intervals
from cxrcl.evaluation.choices.labels import Rows, Truth
from cxrcl.evaluation.choices.scoring import START, Embedded, Scored, score
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import Score

KEPT = 32  # score arrays: each is as large as the labels


@dataclass(frozen=True)
class Members:
    """What one or several models make of the images.

    Attributes:
        embedded: of each.
        of_figures: the figure is the mean of theirs; else it is that of the mean probability.
    """

    embedded: Sequence[Embedded]
    of_figures: bool = False


class Bench:
    """Measures readings.

    Args:
        choices: all that there are.
        embed: reading -> what its models make of the images and sentences; looks at weights, images and texts only.
        truth: labels of all images as the source has them.
        rows: all images that are encoded.
    """

    def __init__(
        self, choices: Sequence[Choice], embed: Callable[[Reading], Members], truth: Truth, rows: Rows
    ) -> None:
        self.choices, self.embed, self.truth, self.rows = tuple(choices), embed, truth, rows
        self._scored: OrderedDict[tuple[str, ...], tuple[list[Scored], bool]] = OrderedDict()

    def figures(self, names: Sequence[str], reading: Reading = ()) -> dict[str, float]:
        """The figures of these names.

        Raises:
            Unavailable: the reading cannot be measured.
        """
        parts = [figures(names, *part) for part in self._parts(reading)]
        return {name: float(np.mean([part[name] for part in parts])) for name in names}

    def intervals(self, names: Sequence[str], reading: Reading = (), resamples: int = 1000) -> Mapping[str, Score]:
        """The figures with their intervals over resamples of the patients; of a mean of models those of the first."""
        rows = state(self.choices, Stage.ROWS, reading, self.rows)
        column = "patient" if "patient" in rows.table else "image"
        patients = Patients(rows.table[column][rows.keep].to_numpy(dtype=str), resamples)
        scored, truth, decisions = self._parts(reading)[0]
        return with_intervals(names, scored, truth, decisions, patients)

    def _parts(self, reading: Reading) -> list[tuple[Scored, Truth, Decisions]]:
        """Scores of the scored images, their labels and how decisions are made; of each model that has its own."""
        rows = state(self.choices, Stage.ROWS, reading, self.rows)
        truth = state(self.choices, Stage.LABELS, reading, self.truth)
        decisions = state(self.choices, Stage.DECISIONS, reading, Decisions(at_one_half))
        truth = replace(truth, values=truth.values[rows.keep])
        scored, of_figures = self._scores(reading)
        if not of_figures and len(scored) > 1:
            mean = np.mean([one.probabilities for one in scored], axis=0)
            scored = [Scored(mean, mean)]
        return [(Scored(*(part[rows.keep] for part in one)), truth, decisions) for one in scored]

    def _scores(self, reading: Reading) -> tuple[list[Scored], bool]:
        at = key(reading, Stage.WEIGHTS, Stage.IMAGES, Stage.TEXTS, Stage.SCORES)
        if at not in self._scored:
            members = self.embed(reading)
            how = state(self.choices, Stage.SCORES, reading, START)
            scored = [score(one, how, self.truth.names) for one in members.embedded]
            if len(scored[0].scores) != len(self.rows.table):
                raise Unavailable(f"{len(scored[0].scores)} images were encoded, expected {len(self.rows.table)}")
            self._scored[at] = scored, members.of_figures
            if len(self._scored) > KEPT:
                self._scored.popitem(last=False)
        return self._scored[at]
