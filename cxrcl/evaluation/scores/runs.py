"""AUROC of a recipe that was trained several times: an interval over patients and over trainings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxrcl.evaluation.metrics.labels import known
from cxrcl.evaluation.metrics.ranking import Ranking
from cxrcl.evaluation.scores.bootstrap import Patients


def auroc_over_runs(
    runs: Sequence[np.ndarray], labels: np.ndarray, patients: Patients
) -> tuple[np.ndarray, np.ndarray]:
    """The mean over runs of each label's AUROC, for the images as they are and in every resample.

    A resample draws patients and runs, both with replacement (a two-way bootstrap: Owen 2007, "The pigeonhole
    bootstrap"), so that its spread holds what another set of patients and what another seed would change. Equal
    `patients` give equal draws of patients: the difference of two recipes on them is a paired one. With S runs the
    resampled variance over runs is (S - 1) / S of the true one: three seeds give a lower bound of what seeds change.

    Args:
        runs: scores of each run, float [N, C]; one for a model without a seed.
        labels: float [N, C]; images labelled neither 1 nor 0 are left out, label by label.
        patients: of the N images.

    Returns:
        float [C] and [R, C]; nan where a class is missing.
    """

    def areas(counts: np.ndarray) -> np.ndarray:
        """[runs, resamples, C]"""
        return np.stack([np.stack([ranking.at(counts)[0] for ranking in of_run], axis=1) for of_run in rankings])

    rankings = [[_ranking(scores[:, c], labels[:, c], patients) for c in range(labels.shape[1])] for scores in runs]
    plain = areas(patients.everyone())[:, 0].mean(axis=0)
    by_run = np.concatenate([areas(counts) for counts in patients.draws(256)], axis=1)
    generator = np.random.default_rng([patients.seed, len(runs)])
    drawn = generator.integers(0, len(runs), (patients.resamples, len(runs)))
    return plain, by_run[drawn.T, np.arange(patients.resamples)].mean(axis=0)


def _ranking(scores: np.ndarray, labels: np.ndarray, patients: Patients) -> Ranking:
    is_known = np.isin(labels, (0, 1))
    scores, positive = known(scores, labels)
    return Ranking(scores, positive, patients.index[is_known], patients.count)
