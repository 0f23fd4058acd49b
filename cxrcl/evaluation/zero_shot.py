"""Zero-shot classification with a pair of prompt ensembles for each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import nn

from cxrcl.evaluation.evaluator import EvaluatorResult
from cxrcl.evaluation.metrics import mean_auroc
from cxrcl.evaluation.prompted import By, Over, Prompted
from cxrcl.evaluation.scorer import Scorer
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.shared_pass import Request, SharedPass
from cxrcl.types import EmbedsImages, EmbedsText, EvalData, ScalesSimilarity


class ZeroShot(Scorer):
    """AUROC of each label from the margin between its positive and its negative prompts.

    Three readings of each prompt file are scored: `combined`, the margin, which is the score proper; `affirmative`, the
    positive prompts alone; and `negated`, the negative prompts alone, with the sign turned round. Published models fall
    from .92 to .49 where they have to read negations.

    Args:
        file: a prompts file; labels that it or the data lacks are left out.
        other_files: further prompts for the same labels: a model's metric should not depend on its prompts. Adds
            their means, and the mean and the worst over all files.
        over, by: how a label's prompts become one similarity, see `cxrcl.evaluation.prompted.Prompted`.
        scaled: the margin is multiplied by the model's learned scale before it becomes a probability; not where a
            protocol takes the softmax of bare cosines.
        labels, against_normal, mean_over, resamples: see `cxrcl.evaluation.scorer.Scorer`.
    """

    needs: ClassVar[tuple[type, ...]] = (EmbedsImages, EmbedsText)

    def __init__(
        self,
        data: EvalData,
        prompts: Any,
        splits: Sequence[str] = ("valid",),
        file: str = "zero_shot.json",
        other_files: Sequence[str] = (),
        labels: Sequence[str] | None = None,
        over: Over = "direction",
        by: By = "global",
        scaled: bool = True,
        mean_over: Sequence[str] | None = None,
        against_normal: Sequence[str] = (),
        resamples: int = 0,
    ) -> None:
        super().__init__(data, splits, mean_over, resamples)
        self.score_only(labels, against_normal)
        self.file, self.scaled = file, scaled
        sentences = prompts(file, data.labels)
        described = [name for name in self.labels if sentences.get(name, {}).get("neg")]
        lacking = [name for name in labels or () if name not in described]
        if not data.labels:
            raise ValueError("the data have no labels")
        if lacking or not described:
            raise ValueError(f"{file} has no positive and negative prompts for {', '.join(lacking or data.labels)}")
        self.score_only(described, against_normal)
        self.families: dict[str, tuple[tuple[str, ...], Prompted]] = {}
        for name in dict.fromkeys((file, *other_files)):
            family = prompts(name, data.labels)
            covered = tuple(label for label in self.labels if family.get(label, {}).get("neg"))
            if not covered:
                raise ValueError(f"{name} has no positive and negative prompts for {', '.join(self.labels)}")
            sides = [family[label][kind] for kind in ("pos", "neg") for label in covered]
            self.families[name.removesuffix(".json").rpartition("/")[2]] = (covered, Prompted(sides, over, by))

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        return [r for _, prompted in self.families.values() for r in prompted.requests(model, device, self.splits)]

    def score(self, shared: SharedPass, splits: Sequence[str]) -> Scores:
        from scipy.special import expit

        _, prompted = next(iter(self.families.values()))
        positive, negative = _sides(prompted, shared, splits)
        margin = positive - negative
        scale = cast(ScalesSimilarity, shared.model).similarity_scale() if self.scaled else 1.0
        return Scores(
            names=self.labels,
            scores=margin,
            labels=self.truth(shared, splits),
            # The softmax over both sides is the sigmoid of their difference.
            probabilities=expit(scale * margin.astype(float)),
        )

    def run(self, shared: SharedPass) -> EvaluatorResult:
        result = super().run(shared)
        assert result.scores is not None
        metrics, labels = dict(result.metrics), result.scores.labels
        for name, (covered, prompted) in self.families.items():
            known = labels[:, [self.labels.index(label) for label in covered]]
            positive, negative = _sides(prompted, shared, self.splits)
            for reading, scores in (
                ("combined", positive - negative),
                ("affirmative", positive),
                ("negated", -negative),
            ):
                metrics[f"{name}/{reading}"] = mean_auroc(scores, known, covered, self.mean_over)
        means = [metrics[f"{name}/combined"] for name in self.families]
        metrics["over_prompts/mean"], metrics["over_prompts/worst"] = float(np.mean(means)), float(np.min(means))
        return replace(result, metrics=metrics)

    @property
    def rule(self) -> str:
        over = {
            "direction": "the cosine to the mean direction of a side's prompts",
            "mean": "the mean similarity with a side's prompts",
            "max": "the largest similarity with a side's prompts",
        }[next(iter(self.families.values()))[1].over]
        times = ", times the model's learned scale" if self.scaled else ""
        return f"score = {over}, positive minus negative; probability = softmax over both sides{times}; not calibrated"


def _sides(prompted: Prompted, shared: SharedPass, splits: Sequence[str]) -> list[np.ndarray]:
    """Similarities with the positive and with the negative prompts, float32 [N, C] each."""
    return np.split(prompted.similarity(shared, splits).numpy(), 2, axis=1)
