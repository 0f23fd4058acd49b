"""Two models on the same films: paired bootstrap, and Holm's correction for many comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cxrcl.evaluation.columns import METRICS
from cxrcl.evaluation.measured import Measured, score
from cxrcl.evaluation.score_report import Comparison


def two_sided_p(differences: np.ndarray) -> float:
    """Share of resamples in which the difference is not on its side of 0, twice; nan where no resample has one.

    Where p < 0.05, 0 lies outside the 95 % percentile interval. The sample itself counts as one more resample, so that
    p is never 0 (Davison and Hinkley 1997, section 4.2).
    """
    exist = differences[~np.isnan(differences)]
    if not len(exist):
        return float("nan")
    tail = min((exist <= 0).sum(), (exist >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(exist) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction of a family of p-values; nan are no part of it."""
    values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(values), np.nan)
    order = [k for k in np.argsort(values, kind="stable") if not np.isnan(values[k])]
    largest = 0.0
    for step, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - step) * values[k]))
        corrected[k] = largest
    return corrected.tolist()


def compare(kind: str, models: Mapping[str, Mapping[str, Measured]]) -> list[Comparison]:
    """Each model minus the first, for each metric and each label (or average).

    The p-values of one metric are one family, over labels and models. `Measured` of all must come from the same
    resamples of the same films.

    Args:
        kind: `label` or `average`.
        models: model -> label or average -> Measured.
    """
    (reference, base), *others = models.items()
    found = []
    for metric in METRICS:
        pairs = [(name, label, part, base[label]) for name, parts in others for label, part in parts.items()]
        drawn = [part.drawn[metric] - first.drawn[metric] for _, _, part, first in pairs]
        differences = [
            score(
                part.plain[metric] - first.plain[metric],
                values,
                part.reasons.get(metric) or first.reasons.get(metric, ""),
            )
            for (_, _, part, first), values in zip(pairs, drawn, strict=True)
        ]
        p_values = [
            float("nan") if difference.low is None else two_sided_p(values)
            for difference, values in zip(differences, drawn, strict=True)
        ]
        found += [
            Comparison(name, reference, kind, label, metric, difference, _known(p), _known(corrected))
            for (name, label, _, _), difference, p, corrected in zip(
                pairs, differences, p_values, holm(p_values), strict=True
            )
        ]
    return found


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
