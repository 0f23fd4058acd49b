"""Zero-shot classification with prompts of each label's presence and, for most rules, of its absence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cxrcl.evaluation import protocols
from cxrcl.evaluation.choices.labels import Rows, Truth
from cxrcl.evaluation.choices.multiverse import spread
from cxrcl.evaluation.evaluator import EvaluatorResult, patients_of
from cxrcl.evaluation.metrics import labels_of_mean
from cxrcl.evaluation.prompted import OWN_RULE, By, Over, Prompted, check_scale
from cxrcl.evaluation.scorer import Scorer, labels_against_normal
from cxrcl.evaluation.scores.query_intervals import bounds
from cxrcl.evaluation.scores.reading_intervals import Reading, mean_interval
from cxrcl.evaluation.scores.score_report import Scores
from cxrcl.evaluation.shared_pass import Request, SharedPass
from cxrcl.types import EmbedsImages, EmbedsText, EvalData, Natural, ProjectsText, ScalesSimilarity

Sides = Literal["both", "positive"]
MULTIVERSE_COLUMNS = ("patient", "study", "view")  # by which a reading may choose among the images

# over, sides, scaled -> whose rule it is, by global similarity.
PUBLISHED = {
    ("direction", "both", False): "CheXzero (Tiu et al. 2022)",
    ("raw_direction", "both", False): "BioViL (Boecking et al. 2022)",
    ("mean", "positive", True): "MedCLIP (Wang et al. 2022), ensemble",
    ("max", "positive", True): "MedCLIP (Wang et al. 2022), no ensemble",
}


class ZeroShot(Scorer):
    """AUROC of each label from its prompts: from the margin between both sides, or from the positive ones.

    Three readings of each prompt file are scored: `combined`, the margin; `affirmative`, the positive prompts alone;
    and `negated`, the negative prompts alone, with the sign turned round. Published models fall from .92 to .49 where
    they have to read negations. With `sides=positive` the affirmative reading is the only one.

    Args:
        file: a prompts file; labels that it or the data lacks are left out.
        other_files: further prompts for the same labels: a model's metric should not depend on its prompts. Adds
            their means, and the mean and the worst over all files.
        over, by: how a label's prompts become one similarity, see `cxrcl.evaluation.prompted.Prompted`.
        sides: `both`: the score is positive minus negative, the probability the softmax over both; `positive`: the
            score is the similarity with the positive prompts, the probability its sigmoid.
        scaled: before it becomes a probability the score is multiplied by the model's learned scale; not where a
            protocol takes the softmax of bare cosines.
        labels, against_normal, mean_over, resamples: see `cxrcl.evaluation.scorer.Scorer`.
        multiverse: None, as in training; else the spread of the mean AUROC over other readings stands among the
            metrics (`cxrcl.evaluation.choices.multiverse`), those of `multiverse` (change -> mean AUROC) included.
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
        sides: Sides = "both",
        scaled: bool = True,
        mean_over: Sequence[str] | None = None,
        against_normal: Sequence[str] = (),
        resamples: Natural = 0,
        multiverse: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(data, splits, mean_over, resamples)
        self.score_only(labels, against_normal)
        self.file, self.sides, self.scaled, self.multiverse = file, sides, scaled, multiverse
        self.kinds = ("pos", "neg") if sides == "both" else ("pos",)
        wanted = "positive and negative" if sides == "both" else "positive"
        sentences = prompts(file, data.labels)
        described = [name for name in self.labels if self._describes(sentences.get(name, {}))]
        lacking = [name for name in labels or () if name not in described]
        if not data.labels:
            raise ValueError("the data have no labels")
        if lacking or not described:
            raise ValueError(f"{file} has no {wanted} prompts for {', '.join(lacking or data.labels)}")
        self.score_only(described, against_normal)
        self.families: dict[str, tuple[tuple[str, ...], Prompted]] = {}
        self.sentences: dict[str, Any] = {}
        for name in dict.fromkeys((file, *other_files)):
            self.sentences[name] = family = prompts(name, data.labels)
            covered = tuple(label for label in self.labels if self._describes(family.get(label, {})))
            if not covered:
                raise ValueError(f"{name} has no {wanted} prompts for {', '.join(self.labels)}")
            groups = [family[label][kind] for kind in self.kinds for label in covered]
            self.families[name.removesuffix(".json").rpartition("/")[2]] = (covered, Prompted(groups, over, by))
        _, self.prompted = next(iter(self.families.values()))

    def _describes(self, kinds: Any) -> bool:
        return all(kinds.get(kind) for kind in self.kinds)

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        check_scale(model, self.scaled)
        return [r for _, prompted in self.families.values() for r in prompted.requests(model, device, self.splits)]

    def _sides(self, prompted: Prompted, shared: SharedPass, splits: Sequence[str]) -> Sequence[Tensor]:
        """Similarities with the positive and, with both sides, with the negative prompts, float32 [N, C] each."""
        return prompted.similarity(shared, splits).chunk(len(self.kinds), dim=1)

    def score(self, shared: SharedPass, splits: Sequence[str]) -> Scores:
        positive, *negative = (side.double() for side in self._sides(self.prompted, shared, splits))
        # One side has the softmax against 0, which is the sigmoid.
        other = negative[0] if negative else torch.zeros_like(positive)
        scale = cast(ScalesSimilarity, shared.model).similarity_scale() if self.scaled else 1.0
        return Scores(
            names=self.labels,
            scores=(positive - other).float().numpy(),
            labels=self.truth(shared, splits),
            probabilities=protocols.pair_probability(positive, other, scale).numpy(),
        )

    def readings(self, shared: SharedPass, splits: Sequence[str]) -> dict[str, np.ndarray]:
        """Scores float32 [N, C] of each reading of the first file of prompts; the first is the score proper."""
        return self._readings(*self._sides(self.prompted, shared, splits))

    def run(self, shared: SharedPass) -> EvaluatorResult:
        result = super().run(shared)
        assert result.scores is not None
        metrics, labels = dict(result.metrics), result.scores.labels
        patients = patients_of(self.data, self.splits, self.resamples)
        scored: list[Reading] = []  # the score proper of each file
        for name, (covered, prompted) in self.families.items():
            truth = labels[:, [self.labels.index(label) for label in covered]]
            readings = self._readings(*self._sides(prompted, shared, self.splits))
            read = {key: Reading(covered, scores, truth) for key, scores in readings.items()}
            scored.append(next(iter(read.values())))
            for key, each in read.items():
                metrics[f"{name}/{key}"] = each.mean_auroc(self.mean_over)
                if self.resamples:
                    metrics |= bounds(f"{name}/{key}", mean_interval([each], self.mean_over, patients))
        means = [each.mean_auroc(self.mean_over) for each in scored]
        metrics["over_prompts/mean"], metrics["over_prompts/worst"] = float(np.mean(means)), float(np.min(means))
        if self.resamples:
            worst = scored[int(np.argmin(means))]
            metrics |= bounds("over_prompts/mean", mean_interval(scored, self.mean_over, patients))
            metrics |= bounds("over_prompts/worst", mean_interval([worst], self.mean_over, patients))
        if self.multiverse is not None and self.prompted.by == "global":
            metrics |= self._spread(shared, self.multiverse)
        return replace(result, metrics=metrics)

    def _spread(self, shared: SharedPass, image_readings: Mapping[str, float]) -> dict[str, float]:
        """The mean AUROC over the readings that need no second pass over the images."""
        embed = shared.projected_texts if isinstance(shared.model, ProjectsText) else shared.texts

        def of_images(column: str) -> list[str]:
            return [value for split in self.splits for value in self.data.column(split, column)]

        table = pd.DataFrame({name: of_images(name) for name in MULTIVERSE_COLUMNS})
        names = tuple(self.data.labels)
        labels = labels_against_normal(shared.labels(self.splits).numpy(), names, self.against_normal)
        return spread(
            shared.rows("embedding", self.splits).numpy(),
            {file: {k: v for k, v in of.items() if k in self.labels} for file, of in self.sentences.items()},
            lambda sentences: embed(sentences).numpy(),
            Truth(names, labels, tuple(labels_of_mean(self.labels, self.mean_over))),
            Rows(table, np.ones(len(table), dtype=bool)),
            self.prompted.over,
            self.sides,
            image_readings,
        )

    @staticmethod
    def _readings(positive: Tensor, negative: Tensor | None = None) -> dict[str, np.ndarray]:
        """Scores [N, C] of each reading; the first is the score proper."""
        if negative is None:
            return {"affirmative": positive.numpy()}
        return {
            "combined": (positive - negative).numpy(),
            "affirmative": positive.numpy(),
            "negated": -negative.numpy(),
        }

    @property
    def rule(self) -> str:
        times = " times the model's scale" if self.scaled else ""
        score, probability = (
            ("positive minus negative", f"softmax over both sides{times}")
            if self.sides == "both"
            else ("positive prompts only", f"sigmoid of the score{times}")
        )
        return f"{self._whose}: score = {self.prompted.rule}, {score}; probability = {probability}; not calibrated"

    @property
    def _whose(self) -> str:
        of = self.prompted
        if of.by != "global":
            return OWN_RULE
        if (self.sides, self.scaled) == ("both", False) and of.over == "mean" and all(len(g) == 1 for g in of.groups):
            return "the rule of CXR-CLIP (You et al. 2023)"
        known = PUBLISHED.get((of.over, self.sides, self.scaled))
        return OWN_RULE if known is None else f"the rule of {known}"
