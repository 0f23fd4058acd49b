"""From scores to probabilities and decisions: thresholds and temperatures, given or fitted on validation images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxrcl.evaluation.metrics.labels import known
from cxrcl.evaluation.scores.calibration import are_probabilities, fit_temperature, logits, scaled
from cxrcl.evaluation.scores.scoring import Predicted

DEFAULT = 0.5  # of probabilities, without validation images


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold comes about.

    Attributes:
        kind: `f1`, `youden`, `sensitivity` or `given`.
        number: the sensitivity to reach, or the threshold itself; of the other kinds nothing.
    """

    kind: str
    number: float = 0.0

    @property
    def is_fitted(self) -> bool:
        """Whether the threshold depends on validation images."""
        return self.kind != "given"

    def __str__(self) -> str:
        texts = {"f1": "f1", "youden": "Youden's J", "given": f"{self.number}"}
        return texts.get(self.kind, f"sensitivity >= {self.number}")


def parse_rule(text: str) -> ThresholdRule:
    """The rule that a user wrote as `f1`, `youden`, `sensitivity=0.95` or a number.

    Raises:
        ValueError: anything else.
    """
    if text in ("f1", "youden"):
        return ThresholdRule(text)
    target = re.fullmatch(r"sensitivity=(.+)", text)
    try:
        number = float(target[1] if target else text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number) or (target and not 0 < number <= 1):
        raise ValueError(f"threshold {text!r}: expected f1, youden, sensitivity=0.95 or a number such as 0.5")
    return ThresholdRule("sensitivity" if target else "given", number)


def fit_threshold(rule: ThresholdRule, scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold of one label: one of the scores of validation images. Images at or above it are called positive.

    `f1` takes the greatest F1, `youden` the greatest J = sensitivity + specificity - 1 (Youden 1950), among equals the
    highest threshold; `sensitivity` takes the highest threshold that reaches it.

    Args:
        scores: float [N] of the validation split.
        labels: float [N]; images labelled neither 1 nor 0 are left out.

    Returns:
        nan where one class only is present.
    """
    if not rule.is_fitted:
        return rule.number
    scores, positive = known(scores, labels)
    if positive.all() or not positive.any():
        return float("nan")
    descending = np.argsort(-scores, kind="stable")
    # Equal scores are called alike, so thresholds are the last places of runs of equal scores.
    ends = np.append(np.flatnonzero(np.diff(scores[descending])), len(scores) - 1)
    tp = np.cumsum(positive[descending])[ends]
    fp = ends + 1 - tp
    # argmax takes the first of several equals: the highest threshold.
    if rule.kind == "sensitivity":
        best = int(np.argmax(tp / positive.sum() >= rule.number))
    elif rule.kind == "f1":
        best = int(np.argmax(2 * tp / (ends + 1 + positive.sum())))
    else:
        # J times (positives x negatives), in integers: rounding would make unequals of equals.
        best = int(np.argmax(tp * int((~positive).sum()) - fp * int(positive.sum())))
    return float(scores[descending][ends[best]])


def predicted_from_scores(
    name: str,
    labels: Sequence[str],
    scores: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray] | None,
    rule: ThresholdRule | None,
    calibrate: bool,
    fitted_on: str = "valid",
) -> Predicted:
    """Scores with their thresholds and, where they are or become some, probabilities.

    Without a rule, thresholds are fitted for F1 where there is a validation split; without one they are 0.5 for
    probabilities, and for other scores there are none.

    Args:
        scores: float [N, C].
        validation: scores and labels, float [M, C] each, of the validation split, or None.
        calibrate: one temperature a label, fitted on the validation split. Scores that are no probabilities are taken
            as logits.
        fitted_on: name of the validation split.

    Raises:
        ValueError: a rule or the temperatures need a validation split and there is none.
    """
    if validation is None and (calibrate or (rule is not None and rule.is_fitted)):
        what = "temperatures" if calibrate else f"the threshold {rule}"
        raise ValueError(f"{what}: fitted on validation predictions only, and there are none")
    in_range = are_probabilities(scores) and (validation is None or are_probabilities(validation[0]))
    temperatures = np.full(len(labels), np.nan)
    probabilities = scores.astype(float) if in_range else None
    calibration = "none: scores as given"
    if calibrate:
        assert validation is not None
        odds, odds_held_out = (logits(part) if in_range else part for part in (scores, validation[0]))
        temperatures = np.array([fit_temperature(odds_held_out[:, k], validation[1][:, k]) for k in range(len(labels))])
        probabilities = scaled(odds, temperatures)
        # Thresholds are fitted on what they will be compared with: calibrated probabilities.
        validation = (scaled(odds_held_out, temperatures), validation[1])
        kind = "probabilities" if in_range else "logits"
        calibration = f"temperature, one a label, on {fitted_on}; scores taken as {kind}"
    thresholds, threshold = _thresholds(len(labels), validation, rule, probabilities is not None, fitted_on)
    return Predicted(
        name=name,
        labels=tuple(labels),
        scores=scores,
        probabilities=probabilities,
        thresholds=thresholds,
        temperatures=temperatures,
        threshold=threshold,
        calibration=calibration,
    )


def _thresholds(
    count: int,
    validation: tuple[np.ndarray, np.ndarray] | None,
    rule: ThresholdRule | None,
    have_probabilities: bool,
    fitted_on: str,
) -> tuple[np.ndarray, str]:
    """Thresholds float [C], and the rule in words."""
    if rule is not None and not rule.is_fitted:
        return np.full(count, rule.number), f"{rule} (given)"
    if validation is not None:
        rule, (scores, labels) = rule or ThresholdRule("f1"), validation
        fitted = np.array([fit_threshold(rule, scores[:, k], labels[:, k]) for k in range(count)])
        return fitted, f"{rule} on {fitted_on}"
    if have_probabilities:
        return np.full(count, DEFAULT), f"{DEFAULT} (no validation predictions)"
    return np.full(count, np.nan), "none: the scores are not probabilities and there are no validation predictions"
