"""How often the own text is chosen of two, and what chooses without looking at the image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxrcl.evaluation.metrics.clusters import Deviations, weighted_mean
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import wilson
from cxrcl.evaluation.scores.score_report import Score
from cxrcl.evaluation.scores.subgroups import LEAST_PATIENTS

BALANCED = "balanced"
FOLDS = 5


def right(own: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """1 where the own text is more similar, 0.5 where both are equally, else 0 (also where one is not a number).

    Args:
        own, turned: float [M], similarities of the image with either text.
    """
    return np.where(own > turned, 1.0, np.where(own == turned, 0.5, 0.0))


def shares_of_halves(pairs: pd.DataFrame) -> dict[str, np.ndarray]:
    """The weight of each pair in each share, float [M] by name.

    `to_absent` and `to_present` are the halves: over the findings that have both directions, each with the weight of
    its smaller half, so that both halves are about the same findings, and a text that is preferred whatever the image
    shows gains in one half what it loses in the other. `balanced` is the mean of both. Each finding with both
    directions has its own mean of halves. Pairs that name no finding are one finding.

    Args:
        pairs: columns `finding` and `direction`.
    """
    sizes = pairs.groupby(["finding", "direction"]).size().unstack(fill_value=0)
    sizes = sizes.reindex(columns=["to_absent", "to_present"], fill_value=0)
    of_pair = np.array([sizes.at[key] for key in zip(pairs["finding"], pairs["direction"])], dtype=float)
    least = sizes.min(axis=1).loc[pairs["finding"]].to_numpy(dtype=float)
    halves = {name: (pairs["direction"] == name).to_numpy() for name in sizes.columns}
    shares = {BALANCED: least / of_pair}
    if not least.any():  # one direction only: nothing to balance
        return {name: half.astype(float) for name, half in halves.items() if half.any()}
    shares |= {name: shares[BALANCED] * half for name, half in halves.items()}
    both = [name for name in sizes.index[sizes.min(axis=1) > 0] if name]
    return shares | {name: shares[BALANCED] * (pairs["finding"] == name).to_numpy() for name in both}


def share(values: np.ndarray, weights: np.ndarray, patients: Patients) -> Score:
    """A weighted mean of values in 0 .. 1, with Wilson's interval, patients as clusters of pairs.

    Without resamples, or with fewer than 10 patients, there is no interval.

    Args:
        values, weights: float [M].
        patients: those of the M pairs.
    """
    total = float(weights.sum())
    value = float(weights @ values / total)
    count = len(np.unique(patients.index[weights > 0]))
    if not patients.resamples:
        return Score(value)
    if count < LEAST_PATIENTS:
        return Score(value, withheld=f"{count} patients, fewer than {LEAST_PATIENTS}")
    added = np.bincount(patients.index, weights * (values - value), patients.count) / total  # by each patient
    found = wilson(weighted_mean([Deviations(value, (added,), (count,), count)]), count)
    return Score(value, found.low, found.high, method=found.method)


def of_other_patients(patients: np.ndarray) -> np.ndarray:
    """For each of M pairs the place of a pair of another patient, int [M]; of the same one if it has more than half.

    Args:
        patients: int [M], numbers of patients.
    """
    order = np.argsort(patients, kind="stable")
    moved = np.empty_like(order)
    # In the order of patients, a move by as many places as the largest of them has leads out of every patient.
    moved[order] = np.roll(order, int(np.bincount(patients).max()))
    return moved


def by_text_alone(pairs: pd.DataFrame, weights: np.ndarray, patients: Patients) -> np.ndarray | None:
    """What a classifier of the texts chooses: 1 where it takes the own text, else 0; float [M].

    It reads words and pairs of words of both texts (hypothesis-only baseline, Poliak et al. 2018), and learns from four
    fifths of the patients which of both is true, to judge the last fifth. None with fewer than five patients, or where
    one direction is missing.
    """
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    is_present = (pairs["direction"] == "to_absent").to_numpy()
    if patients.count < FOLDS or is_present.all() or not is_present.any():
        return None
    words = HashingVectorizer(n_features=2**16, ngram_range=(1, 2), token_pattern=r"\w+", alternate_sign=False)
    vectors = hstack([words.transform(pairs["affirmed"]), words.transform(pairs["negated"])]).tocsr()
    said = np.zeros(len(pairs))
    for learn, judge in GroupKFold(FOLDS).split(vectors, groups=patients.index):
        if len(set(is_present[learn])) < 2:
            return None
        model = LogisticRegression(C=10.0, solver="liblinear")  # four times as fast here as the default
        model.fit(vectors[learn], is_present[learn], sample_weight=weights[learn])
        said[judge] = model.predict(vectors[judge])
    return (said == is_present).astype(float)


def measured(
    choosers: Mapping[str, np.ndarray], shares: Mapping[str, np.ndarray], patients: Patients
) -> dict[str, dict[str, Score]]:
    """Chooser -> share -> its value with its interval."""
    return {
        name: {part: share(values, weights, patients) for part, weights in shares.items()}
        for name, values in choosers.items()
    }


def counts(shares: Mapping[str, np.ndarray], patients: Patients) -> dict[str, tuple[int, int]]:
    """Share -> number of its pairs and of their patients."""
    return {
        name: (int((weights > 0).sum()), len(np.unique(patients.index[weights > 0])))
        for name, weights in shares.items()
    }
