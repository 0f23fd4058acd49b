"""Zero-shot classification among classes of which each film has exactly one, such as CheXpert 5x200."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from cxrcl.evaluation.look import Ask, Evaluator, Look
from cxrcl.evaluation.prompted import By, Over, Prompted
from cxrcl.evaluation.score_report import Scores
from cxrcl.evaluation.scores import check_names
from cxrcl.types import EmbedsImages, EmbedsText, EvalData, MatchesWords


class ZeroShotClasses(Evaluator):
    """Accuracy of the class whose prompts are most similar to the film, over films with exactly one of the classes.

    Args:
        data: the splits (given by the application).
        prompts: reads a prompts file (given by the application).
        splits: pooled before scoring.
        file: a prompts file; its positive sentences describe the classes.
        labels: the classes; None takes all labels that the file and the data have.
        over, by: how a class's prompts become one similarity, see `cxrcl.evaluation.prompted.Prompted`.
        standardise: the similarities with each class lose their mean and are divided by their standard deviation over
            the films of the split `standardise_on`, or over the scored films themselves (`scored`), as the published
            code of GLoRIA does. The latter makes the answer for one film depend on the others that are scored with it.
        standardise_on: this split must not be scored.
    """

    needs: ClassVar[tuple[type, ...]] = (EmbedsImages, EmbedsText)
    selects: ClassVar[str] = "accuracy"

    def __init__(
        self,
        data: EvalData,
        prompts: Any,
        splits: Sequence[str] = ("valid",),
        file: str = "five_findings.json",
        labels: Sequence[str] | None = None,
        over: Over = "mean",
        by: By = "global",
        standardise: Literal["none", "split", "scored"] = "none",
        standardise_on: str = "train",
    ) -> None:
        self.data, self.splits, self.file = data, tuple(splits), file
        check_names(labels, data.labels, "labels")
        found = prompts(file, data.labels)
        self.labels = tuple(name for name in (data.labels if labels is None else labels) if name in found)
        if len(self.labels) < 2:
            raise ValueError(f"{file} has prompts for {', '.join(self.labels) or 'none'} of the labels: 2 are needed")
        if standardise == "split" and (standardise_on in splits or not data.size(standardise_on)):
            raise ValueError(f"standardise_on={standardise_on}: expected a split that is not scored and has films")
        self.on: tuple[str, ...] = {"none": (), "split": (standardise_on,), "scored": self.splits}[standardise]
        self.standardise = standardise
        self.prompted = Prompted([found[name]["pos"] for name in self.labels], over, by)

    def asks(self, model: nn.Module, device: torch.device) -> Sequence[Ask]:
        if not isinstance(model, MatchesWords) and self.prompted.by != "global":
            raise ValueError(f"{type(model).__name__} has no local similarity of regions and words: set by=global")
        return self.prompted.asks(model, device, tuple(dict.fromkeys((*self.splits, *self.on))))

    def run(self, look: Look) -> dict[str, float]:
        scores = self.prompted.of(look, self.splits).double().numpy()
        if self.on:
            reference = self.prompted.of(look, self.on).double().numpy()
            scores = (scores - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-12)
        columns = [self.data.labels.index(name) for name in self.labels]
        truth = look.labels(self.splits).numpy()[:, columns]
        single = (truth == 1).sum(axis=1) == 1
        look.leave("scores", Scores(self.labels, scores, truth))
        figures = {"films": float(single.sum()), "chance": 1 / len(self.labels)}
        if not single.any():
            return {**figures, "accuracy": float("nan"), "macro_f1": float("nan")}
        from sklearn.metrics import f1_score, recall_score

        is_, said = (truth[single] == 1).argmax(axis=1), scores[single].argmax(axis=1)
        present = np.unique(is_)
        figures |= {
            "accuracy": float((is_ == said).mean()),
            "macro_f1": float(f1_score(is_, said, labels=present, average="macro", zero_division=0)),
            "macro_recall": float(recall_score(is_, said, labels=present, average="macro", zero_division=0)),
        }
        for k in present:
            figures[f"recall/{self.labels[k]}"] = float((said[is_ == k] == k).mean())
            figures[f"films/{self.labels[k]}"] = float((is_ == k).sum())
        look.leave("confusion", {"classes": self.labels, "counts": _confusion(is_, said, len(self.labels))})
        return figures

    @property
    def rule(self) -> str:
        over = {"mean": "mean", "max": "largest", "direction": "mean direction's"}[self.prompted.over]
        standard = {
            "none": "",
            "split": f", standardised by class over the split {', '.join(self.on)}",
            "scored": ", standardised by class over the scored films (depends on which films are scored)",
        }[self.standardise]
        return f"class with the {over} {self.prompted.by} similarity over its prompts{standard}"


def _confusion(is_: np.ndarray, said: np.ndarray, count: int) -> np.ndarray:
    """Films by class (row) and by the class that was chosen (column)."""
    return np.bincount(is_ * count + said, minlength=count * count).reshape(count, count)
