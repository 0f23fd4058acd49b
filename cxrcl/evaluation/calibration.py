"""How well scores serve as probabilities, and temperature scaling."""

from __future__ import annotations

import numpy as np

from cxrcl.evaluation.known import known, one_class

BINS = 15
EXTREME = 1e-12  # probabilities of exactly 0 and 1 have no finite logit
COLDEST, HOTTEST = 1e-4, 1e4


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether every score is in [0, 1]."""
    return bool(scores.size) and bool(((scores >= 0) & (scores <= 1)).all())


def bin_of(probabilities: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Number of the bin: equal widths over [0, 1], closed above; the first holds 0 as well."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)


def reliability(probabilities: np.ndarray, positive: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """The reliability curve: what the films of each bin were said to be, and what they were; no empty bins."""
    place, edges = bin_of(probabilities, bins), np.linspace(0, 1, bins + 1)
    return [
        {
            "from": float(edges[k]),
            "to": float(edges[k + 1]),
            "films": int((place == k).sum()),
            "mean_probability": float(probabilities[place == k].mean()),
            "share_of_positives": float(positive[place == k].mean()),
        }
        for k in np.unique(place)
    ]


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Log odds, those of 0 and 1 cut at 1e-12."""
    inside = np.clip(probabilities.astype(float), EXTREME, 1 - EXTREME)
    return np.log(inside) - np.log1p(-inside)


def scaled(log_odds: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """Probabilities sigmoid(logit / T): log_odds [N, C], temperatures [C] (nan leaves T = 1)."""
    from scipy.special import expit

    return np.asarray(expit(log_odds / np.where(np.isnan(temperatures), 1.0, temperatures)))


def fit_temperature(log_odds: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of one label with the smallest negative log likelihood on validation films.

    (Guo et al. 2017, section 4.2, with the two-class likelihood.) Searched between 1e-4 and 1e4: a label that
    validation separates without error, or whose scores point the wrong way, ends at one of the bounds.

    Args:
        log_odds, labels: [N] of the validation split.

    Returns:
        nan where validation has one class only.
    """
    from scipy.optimize import minimize_scalar

    chosen = known(labels)
    log_odds, positive = log_odds[chosen], labels[chosen] == 1
    if one_class(int(positive.sum()), int((~positive).sum())):
        return float("nan")
    signed = np.where(positive, -log_odds, log_odds)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, signed * np.exp(-log_temperature)).mean())

    # Convex in 1 / T, hence one valley in log T as well.
    found = minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-9, "maxiter": 500}
    )
    return float(np.exp(found.x))
