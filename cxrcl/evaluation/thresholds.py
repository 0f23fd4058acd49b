"""Thresholds, learnt on validation films only or given, and always named."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from cxrcl.evaluation.known import known, one_class


@dataclass(frozen=True)
class Rule:
    """How a threshold comes about.

    Attributes:
        kind: `f1`, `youden`, `sensitivity` or `given`.
        number: the sensitivity to reach, or the threshold itself.
    """

    kind: str
    number: float | None = None

    @property
    def is_fitted(self) -> bool:
        return self.kind != "given"

    def __str__(self) -> str:
        texts = {"f1": "f1", "youden": "Youden's J", "given": f"{self.number}"}
        return texts.get(self.kind, f"sensitivity >= {self.number}")


def parse(text: str) -> Rule:
    """`f1`, `youden`, `sensitivity=0.95` or a number.

    Raises:
        ValueError: anything else.
    """
    if text in ("f1", "youden"):
        return Rule(text)
    target = re.fullmatch(r"sensitivity=(.+)", text)
    try:
        number = float(target[1] if target else text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number) or (target and not 0 < number <= 1):
        raise ValueError(f"threshold {text!r}: expected f1, youden, sensitivity=0.95 or a number such as 0.5")
    return Rule("sensitivity" if target else "given", number)


def fit(rule: Rule, scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold of one label: one of its own scores on validation films; films at or above it are positive.

    `f1` takes the greatest F1, `youden` the greatest sensitivity + specificity (Youden 1950), among equals the highest
    threshold; `sensitivity` takes the highest threshold that reaches it.

    Args:
        scores, labels: [N] of the validation split.

    Returns:
        nan where one class only is present.
    """
    if not rule.is_fitted:
        assert rule.number is not None
        return rule.number
    chosen = known(labels)
    scores, positive = scores[chosen], labels[chosen] == 1
    if one_class(int(positive.sum()), int((~positive).sum())):
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    tp = np.cumsum(positive[order])[ends]
    fp = ends + 1 - tp
    if rule.kind == "sensitivity":
        assert rule.number is not None
        best = int(np.argmax(tp / positive.sum() >= rule.number))
    elif rule.kind == "f1":
        best = int(np.argmax(2 * tp / (ends + 1 + positive.sum())))
    else:
        # Exact: J as a fraction over (positives x negatives), so that equals are equals.
        best = int(np.argmax(tp * int((~positive).sum()) - fp * int(positive.sum())))
    return float(scores[order][ends[best]])
