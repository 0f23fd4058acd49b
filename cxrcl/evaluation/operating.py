"""From scores to probabilities and decisions: learnt on validation films only, and named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxrcl.evaluation.calibration import are_probabilities, fit_temperature, logits, scaled
from cxrcl.evaluation.scoring import Predicted
from cxrcl.evaluation.thresholds import Rule, fit

DEFAULT = 0.5


def operate(
    name: str,
    labels: Sequence[str],
    scores: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray] | None,
    rule: Rule | None,
    calibrate: bool,
    fitted_on: str = "valid",
) -> Predicted:
    """Scores with their thresholds and, where they are or become some, probabilities.

    Without a rule, thresholds are fitted for F1 where there is a validation split; without one they are 0.5 for
    probabilities, and for other scores there are none.

    Args:
        scores: [N, C].
        validation: scores and labels [M, C] each of the validation split, or None.
        calibrate: one temperature a label, fitted on the validation split. Scores that are no probabilities are taken
            as logits.
        fitted_on: what the validation split is called.

    Raises:
        ValueError: where a rule or the temperatures need a validation split and there is none.
    """
    if validation is None and (calibrate or (rule is not None and rule.is_fitted)):
        what = "temperatures" if calibrate else f"the threshold {rule}"
        raise ValueError(f"{what}: fitted on validation predictions only, and there are none")
    in_range = are_probabilities(scores) and (validation is None or are_probabilities(validation[0]))
    temperatures = np.full(len(labels), np.nan)
    probabilities = scores.astype(float) if in_range else None
    held_out = None if validation is None else validation[0]
    calibration = "none: scores as given"
    if calibrate:
        assert validation is not None
        odds, odds_held_out = (logits(part) if in_range else part for part in (scores, validation[0]))
        temperatures = np.array([fit_temperature(odds_held_out[:, k], validation[1][:, k]) for k in range(len(labels))])
        probabilities, held_out = scaled(odds, temperatures), scaled(odds_held_out, temperatures)
        kind = "probabilities" if in_range else "logits"
        calibration = f"temperature, one a label, on {fitted_on}; scores taken as {kind}"
    thresholds, words = _thresholds(len(labels), held_out, validation, rule, probabilities is not None, fitted_on)
    return Predicted(name, tuple(labels), scores, probabilities, thresholds, temperatures, words, calibration)


def _thresholds(
    count: int,
    held_out: np.ndarray | None,
    validation: tuple[np.ndarray, np.ndarray] | None,
    rule: Rule | None,
    have_probabilities: bool,
    fitted_on: str,
) -> tuple[np.ndarray, str]:
    """[C], and the rule in words."""
    if rule is None and validation is None:
        if have_probabilities:
            return np.full(count, DEFAULT), f"{DEFAULT} (no validation predictions)"
        return np.full(count, np.nan), "none: the scores are not probabilities and there are no validation predictions"
    rule = rule or Rule("f1")
    if not rule.is_fitted:
        assert rule.number is not None
        return np.full(count, rule.number), f"{rule} (given)"
    assert validation is not None and held_out is not None
    return np.array([fit(rule, held_out[:, k], validation[1][:, k]) for k in range(count)]), f"{rule} on {fitted_on}"
