"""Zero-shot classification among classes of which each image has exactly one, such as CheXpert 5x200."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult, check_label_names
from cxrcl.evaluation.prompted import By, Over, Prompted, class_prompts
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.shared_pass import Request, SharedPass
from cxrcl.types import EmbedsImages, EmbedsText, EvalData


class ClassConfusion(NamedTuple):
    """Numbers of images [C, C] by class (row) and by the class that was chosen (column)."""

    classes: tuple[str, ...]
    counts: np.ndarray


class ZeroShotClasses(Evaluator):
    """Accuracy of the class whose prompts are most similar to the image, over images with exactly one of the classes.

    Args:
        file: a prompts file; its positive sentences describe the classes.
        labels: the classes; None takes all labels that the file and the data have.
        over, by: how a class's prompts become one similarity, see `cxrcl.evaluation.prompted.Prompted`.
        standardise: the similarities with each class lose their mean and are divided by their standard deviation over
            the images of the split `standardise_on`, or over the scored images themselves (`scored`), as the published
            code of GLoRIA does. The latter makes the answer for one image depend on the others that are scored with it.
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
        check_label_names(labels, data.labels, "labels")
        sentences = class_prompts(prompts, file, data.labels, keep=labels)
        self.labels = tuple(sentences)
        if standardise == "split" and (standardise_on in splits or not data.size(standardise_on)):
            raise ValueError(f"standardise_on={standardise_on}: expected a split that is not scored and has images")
        self.reference_splits: tuple[str, ...] = {"none": (), "split": (standardise_on,), "scored": self.splits}[
            standardise
        ]
        self.standardise = standardise
        self.prompted = Prompted(list(sentences.values()), over, by)

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        return self.prompted.requests(model, device, tuple(dict.fromkeys((*self.splits, *self.reference_splits))))

    def run(self, shared: SharedPass) -> EvaluatorResult:
        similarity = self.prompted.similarity(shared, self.splits).double().numpy()
        if self.reference_splits:
            reference = self.prompted.similarity(shared, self.reference_splits).double().numpy()
            similarity = (similarity - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-12)
        columns = [self.data.labels.index(name) for name in self.labels]
        labels = shared.labels(self.splits).numpy()[:, columns]
        scores = Scores(names=self.labels, scores=similarity, labels=labels)
        has_one = (labels == 1).sum(axis=1) == 1
        metrics = {"images": float(has_one.sum()), "chance": 1 / len(self.labels)}
        if not has_one.any():
            return EvaluatorResult({**metrics, "accuracy": float("nan"), "macro_f1": float("nan")}, scores=scores)
        from sklearn.metrics import confusion_matrix, f1_score, recall_score

        actual, chosen = (labels[has_one] == 1).argmax(axis=1), similarity[has_one].argmax(axis=1)
        present = np.unique(actual)
        metrics |= {
            "accuracy": float((actual == chosen).mean()),
            "macro_f1": float(f1_score(actual, chosen, labels=present, average="macro", zero_division=0)),
            "macro_recall": float(recall_score(actual, chosen, labels=present, average="macro", zero_division=0)),
        }
        for k in present:
            metrics[f"recall/{self.labels[k]}"] = float((chosen[actual == k] == k).mean())
            metrics[f"images/{self.labels[k]}"] = float((actual == k).sum())
        confusion = ClassConfusion(self.labels, confusion_matrix(actual, chosen, labels=range(len(self.labels))))
        return EvaluatorResult(metrics, scores=scores, artifacts={"confusion": confusion})

    @property
    def rule(self) -> str:
        over = {"mean": "mean", "max": "largest", "direction": "mean direction's"}[self.prompted.over]
        standard = {
            "none": "",
            "split": f", standardised by class over the split {', '.join(self.reference_splits)}",
            "scored": ", standardised by class over the scored images (depends on which images are scored)",
        }[self.standardise]
        return f"class with the {over} {self.prompted.by} similarity over its prompts{standard}"
