"""Zero-shot classification among classes of which each image has exactly one, such as CheXpert 5x200."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from cxrcl.evaluation import protocols
from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult, check_label_names, patients_of
from cxrcl.evaluation.prompted import OWN_RULE, By, Over, Prompted, check_scale, class_prompts
from cxrcl.evaluation.scores.query_intervals import Queries, bounds, macro_intervals
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.shared_pass import Request, SharedPass
from cxrcl.types import EmbedsImages, EmbedsText, EvalData, Natural, ScalesSimilarity

# over, by, standardise, scaled -> whose rule it is.
PUBLISHED = {
    ("mean", "global", "none", False): "CXR-CLIP (You et al. 2023)",
    ("mean", "global", "none", True): "MedCLIP (Wang et al. 2022), ensemble",
    ("max", "global", "none", True): "MedCLIP (Wang et al. 2022), no ensemble",
    ("max", "both", "scored", False): "GLoRIA (Huang et al. 2021)",
}


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
        scaled: similarities are multiplied by the model's learned scale, which changes no decision.
        standardise: the similarities with each class lose their mean and are divided by their standard deviation over
            the images of the split `standardise_on`, or over the scored images themselves (`scored`: those with exactly
            one of the classes), as the published code of GLoRIA does. The latter makes the answer for one image depend
            on the others that are scored with it.
        standardise_on: this split must not be scored.
        resamples: of the patients, for intervals; 0 gives none. What standardises stays as it is.
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
        scaled: bool = False,
        standardise: Literal["none", "split", "scored"] = "none",
        standardise_on: str = "train",
        resamples: Natural = 0,
    ) -> None:
        self.data, self.splits, self.file = data, tuple(splits), file
        check_label_names(labels, data.labels, "labels")
        sentences = class_prompts(prompts, file, data.labels, keep=labels)
        self.labels = tuple(sentences)
        if standardise == "split" and (standardise_on in splits or not data.size(standardise_on)):
            raise ValueError(f"standardise_on={standardise_on}: expected a split that is not scored and has images")
        self.reference_splits = (standardise_on,) if standardise == "split" else ()
        self.standardise, self.scaled = standardise, scaled
        self.patients = patients_of(data, splits, resamples)
        self.prompted = Prompted(list(sentences.values()), over, by)

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        check_scale(model, self.scaled)
        return self.prompted.requests(model, device, tuple(dict.fromkeys((*self.splits, *self.reference_splits))))

    def _similarity(self, shared: SharedPass, splits: Sequence[str]) -> Tensor:
        scale = cast(ScalesSimilarity, shared.model).similarity_scale() if self.scaled else 1.0
        return scale * self.prompted.similarity(shared, splits).double()

    def run(self, shared: SharedPass) -> EvaluatorResult:
        columns = [self.data.labels.index(name) for name in self.labels]
        labels = shared.labels(self.splits).numpy()[:, columns]
        has_one = (labels == 1).sum(axis=1) == 1
        of_images = self._similarity(shared, self.splits)
        if self.standardise != "none":
            reference = self._similarity(shared, self.reference_splits) if self.reference_splits else of_images[has_one]
            of_images = protocols.standardised(of_images, reference)
        similarity = of_images.numpy()
        scores = Scores(names=self.labels, scores=similarity, labels=labels)
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
        if self.patients.resamples:
            metrics |= self._intervals(np.flatnonzero(has_one), actual, chosen)
        confusion = ClassConfusion(self.labels, confusion_matrix(actual, chosen, labels=range(len(self.labels))))
        return EvaluatorResult(metrics, scores=scores, artifacts={"confusion": confusion})

    def _intervals(self, images: np.ndarray, actual: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
        """Of accuracy, macro F1 and the recalls, by name.

        Args:
            images: int [N], places of the images among all.
            actual, chosen: int [N], their classes.
        """
        queries = Queries(self.patients, images)
        metrics = bounds("accuracy", queries.share(actual == chosen))
        for name, interval in macro_intervals(queries, actual, chosen, len(self.labels)).items():
            metrics |= bounds(name, interval)
        for k in np.unique(actual):
            of_class = Queries(self.patients, images[actual == k])
            metrics |= bounds("recall", of_class.share(chosen[actual == k] == k), f"/{self.labels[k]}")
        return metrics

    @property
    def rule(self) -> str:
        standard = {
            "none": "",
            "split": f", standardised by class over the split {', '.join(self.reference_splits)}",
            "scored": ", standardised by class over the scored images (depends on which images are scored)",
        }[self.standardise]
        known = PUBLISHED.get((self.prompted.over, self.prompted.by, self.standardise, self.scaled))
        whose = OWN_RULE if known is None else f"the rule of {known}"
        times = ", times the model's scale" if self.scaled else ""
        return f"{whose}: class with the largest {self.prompted.rule}{times}{standard}"
