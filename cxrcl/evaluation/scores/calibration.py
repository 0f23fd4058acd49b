"""Scores as probabilities: temperature scaling, fitted on validation images."""

from __future__ import annotations

import numpy as np

from cxrcl.evaluation.metrics.labels import known

EXTREME = 1e-12  # probabilities of exactly 0 and 1 have no finite logit
COLDEST, HOTTEST = 1e-4, 1e4


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether every score is in [0, 1], of an array of any shape; False where there is none."""
    return bool(scores.size) and bool(((scores >= 0) & (scores <= 1)).all())


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Log-odds log(p / (1 - p)) of probabilities of any shape, those of 0 and 1 cut at 1e-12; float64."""
    inside = np.clip(probabilities.astype(float), EXTREME, 1 - EXTREME)
    return np.log(inside) - np.log1p(-inside)


def scaled(log_odds: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """Calibrated probabilities sigmoid(logit / T), float [N, C].

    Args:
        log_odds: float [N, C].
        temperatures: float [C]; nan leaves T = 1.
    """
    from scipy.special import expit

    return np.asarray(expit(log_odds / np.where(np.isnan(temperatures), 1.0, temperatures)))


def fit_temperature(log_odds: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of one label with the smallest negative log-likelihood on validation images.

    (Guo et al. 2017, section 4.2, with the two-class likelihood.) Searched between 1e-4 and 1e4: a label that
    validation separates without error, or whose scores point the wrong way, ends at one of the bounds (`at_a_bound`).

    Args:
        log_odds: float [N] of the validation split.
        labels: float [N]; images labelled neither 1 nor 0 are left out.

    Returns:
        nan where validation has one class only.
    """
    from scipy.optimize import minimize_scalar

    log_odds, positive = known(log_odds, labels)
    if positive.all() or not positive.any():
        return float("nan")
    signed = np.where(positive, -log_odds, log_odds)

    def loss(log_temperature: float) -> float:
        # -log sigmoid(z) = log(1 + exp(-z)), without overflow.
        return float(np.logaddexp(0, signed * np.exp(-log_temperature)).mean())

    # Convex in 1 / T, hence one valley in log T as well.
    minimum = minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-9, "maxiter": 500}
    )
    # The search stops a little before a bound, and anywhere where the loss is 0 in double precision.
    return min((COLDEST, float(np.exp(minimum.x)), HOTTEST), key=lambda temperature: loss(np.log(temperature)))


def at_a_bound(temperature: float) -> bool:
    """Whether the search for a temperature ended at the coldest or hottest: no likelihood chose it. False for nan."""
    return temperature in (COLDEST, HOTTEST)
