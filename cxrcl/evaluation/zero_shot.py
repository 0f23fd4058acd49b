"""Zero-shot classification with a pair of prompt ensembles for each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import nn

from cxrcl.evaluation.look import Ask, Look
from cxrcl.evaluation.prompted import By, Over, Prompted
from cxrcl.evaluation.score_report import Scores
from cxrcl.evaluation.scorer import Scorer, mean_auroc
from cxrcl.evaluation.scores import NO_FINDING, check_names, labels_against_normal
from cxrcl.types import EmbedsImages, EmbedsText, EvalData, MatchesWords, ScalesSimilarity


class ZeroShot(Scorer):
    """AUROC of each label from the margin between its positive and its negative prompts.

    Three readings of each prompt file are scored: `combined`, the margin, which is the score proper; `affirmative`, the
    positive prompts alone; and `negated`, the negative prompts alone, with the sign turned round. Published models fall
    from .92 to .49 where they have to read negations.

    Args:
        data: the splits (given by the application).
        prompts: reads a prompts file (given by the application).
        splits: pooled before scoring.
        file: a prompts file; labels that it or the data lacks are left out.
        other_files: further prompts for the same labels: a model's figure should not hang on its prompts. Their means,
            and the mean and the worst over all files, are given.
        labels: score these only; None scores all that have prompts.
        over, by: how a label's prompts become one similarity, see `cxrcl.evaluation.prompted.Prompted`.
        scaled: the margin is multiplied by the model's learned scale before it becomes a probability; not where a
            protocol takes the softmax of bare cosines.
        mean_over: labels of the mean; None takes all but `No Finding`.
        against_normal: labels whose negatives are the films labelled `No Finding`.
        resamples: bootstrap resamples of patients; 0 gives no intervals.
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
        self.file, self.scaled = file, scaled
        check_names(labels, data.labels, "labels")
        check_names((*against_normal, NO_FINDING) if against_normal else (), data.labels, "against_normal")
        found = prompts(file, data.labels)
        wanted = data.labels if labels is None else tuple(labels)
        self.labels = tuple(name for name in wanted if found.get(name, {}).get("neg"))
        lacking = [name for name in labels or () if name not in self.labels]
        if not data.labels:
            raise ValueError("the data have no labels")
        if lacking or not self.labels:
            raise ValueError(f"{file} has no positive and negative prompts for {', '.join(lacking or data.labels)}")
        check_names(mean_over, self.labels, "mean_over")
        self.against_normal = against_normal
        self.families: dict[str, tuple[tuple[str, ...], Prompted]] = {}
        for name in dict.fromkeys((file, *other_files)):
            family = prompts(name, data.labels)
            covered = tuple(label for label in self.labels if family.get(label, {}).get("neg"))
            if not covered:
                raise ValueError(f"{name} has no positive and negative prompts for {', '.join(self.labels)}")
            sides = [family[label][kind] for kind in ("pos", "neg") for label in covered]
            self.families[name.removesuffix(".json").rpartition("/")[2]] = (covered, Prompted(sides, over, by))

    def asks(self, model: nn.Module, device: torch.device) -> Sequence[Ask]:
        if not isinstance(model, MatchesWords) and next(iter(self.families.values()))[1].by != "global":
            raise ValueError(f"{type(model).__name__} has no local similarity of regions and words: set by=global")
        return [ask for _, family in self.families.values() for ask in family.asks(model, device, self.splits)]

    def score(self, look: Look, splits: Sequence[str]) -> Scores:
        from scipy.special import expit

        positive, negative = self._sides(look, splits, self.families[next(iter(self.families))])
        margin = positive - negative
        scale = cast(ScalesSimilarity, look.model).similarity_scale() if self.scaled else 1.0
        known = labels_against_normal(self.data, look.labels(splits).numpy(), self.against_normal)
        columns = [self.data.labels.index(name) for name in self.labels]
        return Scores(self.labels, margin, known[:, columns], expit(scale * margin.astype(float)))

    def run(self, look: Look) -> dict[str, float]:
        figures = super().run(look)
        truth = look.left["scores"].truth
        means: list[float] = []
        for name, family in self.families.items():
            chosen = [self.labels.index(label) for label in family[0]]
            positive, negative = self._sides(look, self.splits, family)
            for reading, scores in (
                ("combined", positive - negative),
                ("affirmative", positive),
                ("negated", -negative),
            ):
                mean = mean_auroc(scores, truth[:, chosen], family[0], self.mean_over)
                figures[f"{name}/{reading}"] = mean
                means += [mean] if reading == "combined" else []
        figures["over_prompts/mean"], figures["over_prompts/worst"] = float(np.mean(means)), float(np.min(means))
        return figures

    @staticmethod
    def _sides(
        look: Look, splits: Sequence[str], family: tuple[tuple[str, ...], Prompted]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Similarities with the positive and with the negative prompts, [N, C] each."""
        labels, prompted = family
        both = prompted.of(look, splits).numpy()
        return both[:, : len(labels)], both[:, len(labels) :]

    @property
    def rule(self) -> str:
        over = {
            "direction": "the cosine to the mean direction of a side's prompts",
            "mean": "the mean similarity with a side's prompts",
            "max": "the largest similarity with a side's prompts",
        }[next(iter(self.families.values()))[1].over]
        times = ", times the model's learned scale" if self.scaled else ""
        return f"score = {over}, positive minus negative; probability = softmax over both sides{times}; not calibrated"
