"""Base of evaluators that score labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from cxrcl.evaluation.known import labels_of_mean
from cxrcl.evaluation.look import Evaluator, Look
from cxrcl.evaluation.ranking import auroc
from cxrcl.evaluation.score_report import Scores
from cxrcl.evaluation.scores import label_figures
from cxrcl.types import EvalData


class Scorer(Evaluator):
    """Figures of label scores. `shuffled_auroc` is the mean where each film has the scores of another: about one half,
    or something is wrong with labels or films.

    Args:
        data: the splits.
        splits: pooled before scoring.
        mean_over: labels of the mean; None takes all but `No Finding`.
        resamples: bootstrap resamples of patients; 0 gives no intervals.
    """

    selects: ClassVar[str] = "mean_auroc"

    def __init__(self, data: EvalData, splits: Sequence[str], mean_over: Sequence[str] | None, resamples: int) -> None:
        self.data, self.splits, self.mean_over, self.resamples = data, tuple(splits), mean_over, resamples

    def score(self, look: Look, splits: Sequence[str]) -> Scores:
        """Scores of the films of splits that were asked for, in their order."""
        raise TypeError(f"{type(self).__name__} does not define score()")

    def run(self, look: Look) -> dict[str, float]:
        found = replace(self.score(look, self.splits), mean_over=self.mean_over)
        look.leave("scores", found)
        if look.held_out:
            look.leave("held_out", self.score(look, look.held_out))
        figures = label_figures(
            *(self.data, self.splits, found.scores, found.truth, found.labels), self.mean_over, self.resamples
        )
        shuffled = np.random.default_rng(0).permutation(len(found.scores))
        return figures | {
            "shuffled_auroc": mean_auroc(found.scores[shuffled], found.truth, found.labels, self.mean_over)
        }


def mean_auroc(
    scores: np.ndarray, truth: np.ndarray, labels: Sequence[str], mean_over: Sequence[str] | None = None
) -> float:
    """Mean over labels but `No Finding`, or over `mean_over`, of those that have both classes; nan where none has.

    Args:
        scores, truth: [N, C].
    """
    chosen = labels_of_mean(labels, mean_over)
    found = [auroc(scores[:, k], truth[:, k]) for k, name in enumerate(labels) if name in chosen]
    known = [value for value in found if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
