"""Negation: is the own text more similar to an image than the same text with one finding turned?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult
from cxrcl.evaluation.negation import choices, tables
from cxrcl.evaluation.negation.pair_file import read_pairs
from cxrcl.evaluation.protocols import Over
from cxrcl.evaluation.scorer import label_metrics
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.score_report import Score, Scores
from cxrcl.evaluation.shared_pass import Request, SharedPass, embedding_request
from cxrcl.evaluation.zero_shot import ZeroShot
from cxrcl.types import EmbedsImages, EmbedsText, EvalData, Natural

READINGS = {"combined": "PNC", "affirmative": "POS", "negated": "NEG"}


class Negation(Evaluator):
    """Share of pairs whose own text is more similar to the image than the turned one (ties: one half), by direction.

    Both directions weigh alike for each finding, so that a preference for a text whatever the image shows comes to one
    half: chance. Beside the model stand choosers that do not look at the image: the image of another patient, the mean
    image, the shorter text, and a classifier of the texts. Of reports with an omitted version, the shares in which the
    own text comes before the omitted one, that before the turned one, and all three in this order (in the manner of
    CXR-Align, Ko and Park 2025). AUROC of labels by affirmative (POS), negated (NEG) and both prompts (PNC).

    Args:
        pairs: a CSV file (see `cxrcl.evaluation.negation.pair_file`); None takes negation.csv beside each manifest,
            which `scripts/negation_pairs.py` makes.
        file: prompts of POS, NEG and PNC; None leaves them out, and so do data without labels.
        over, labels, mean_over, against_normal: of these, see `cxrcl.evaluation.zero_shot.ZeroShot`.
        resamples: of patients, for intervals of AUROC; 0 gives no intervals at all.
    """

    needs: ClassVar[tuple[type, ...]] = (EmbedsImages, EmbedsText)
    selects: ClassVar[str] = "accuracy"

    def __init__(
        self,
        data: EvalData,
        prompts: Any,
        splits: Sequence[str] = ("test",),
        pairs: str | None = None,
        file: str | None = "zero_shot.json",
        over: Over = "direction",
        labels: Sequence[str] | None = None,
        mean_over: Sequence[str] | None = None,
        against_normal: Sequence[str] = (),
        resamples: Natural = 0,
    ) -> None:
        self.data, self.splits, self.file, self.resamples = data, tuple(splits), file, resamples
        self.pairs, self.sha256 = read_pairs(data, self.splits, pairs)
        self._by_text: dict[str, np.ndarray | None] = {}
        self.zero_shot = None
        if file is not None and data.labels:
            self.zero_shot = ZeroShot(
                data,
                prompts,
                splits,
                file=file,
                labels=labels,
                over=over,
                mean_over=mean_over,
                against_normal=against_normal,
                scaled=False,
            )

    @property
    def rule(self) -> str:
        units = ", ".join(f"{count} of {unit}s" for unit, count in self.pairs["unit"].value_counts().items())
        return f"{super().rule} Pairs: {units}, sha256 {self.sha256}"

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        of_prompts = [] if self.zero_shot is None else self.zero_shot.requests(model, device)
        return [embedding_request(model, self.splits), *of_prompts]

    def run(self, shared: SharedPass) -> EvaluatorResult:
        images = shared.rows("embedding", self.splits)
        metrics: dict[str, float] = {}
        shown = []
        for unit, pairs in self.pairs.groupby("unit", sort=False):
            pairs = pairs.reset_index(drop=True)
            patients = Patients(pairs["patient"].tolist(), self.resamples)
            shares = choices.shares_of_halves(pairs)
            scores = choices.measured(self._choosers(shared, images, pairs, shares, patients), shares, patients)
            counts = choices.counts(shares, patients)
            ordered = self._ordered(shared, images, pairs)
            shown += tables.of_unit(str(unit), counts, scores, ordered)
            metrics.setdefault("accuracy", _value(next(iter(scores["model"].values()))))
            metrics |= _named(str(unit), scores) | _named(f"{unit}_order", ordered)
            for part, (of_pairs, of_patients) in counts.items():
                metrics |= {f"{unit}_pairs/{part}": float(of_pairs), f"{unit}_patients/{part}": float(of_patients)}
        readings = self._readings(shared)
        if readings:
            shown.append(tables.of_readings({READINGS[name]: part for name, part in readings.items()}))
            for reading, values in readings.items():
                metrics |= {f"{READINGS[reading]}_{key}": value for key, value in values.items()}
        return EvaluatorResult(metrics, artifacts={"tables": shown})

    def _choosers(
        self,
        shared: SharedPass,
        images: Tensor,
        pairs: pd.DataFrame,
        shares: Mapping[str, np.ndarray],
        patients: Patients,
    ) -> dict[str, np.ndarray]:
        """Chooser -> how right it is on each pair, float [M]: the model first, then what does not look at the image."""
        own, turned = shared.texts(pairs["own"].tolist()), shared.texts(pairs["turned"].tolist())
        rows = torch.tensor(pairs["row"].tolist())
        mean_image = F.normalize(images[rows.unique()].mean(dim=0, keepdim=True), dim=-1)
        other = rows[torch.from_numpy(choices.of_other_patients(patients.index))]
        shorter = [-pairs[name].str.len().to_numpy(dtype=float) for name in ("own", "turned")]
        found = {
            "model": choices.right(_similar(images[rows], own), _similar(images[rows], turned)),
            "other patient's image": choices.right(_similar(images[other], own), _similar(images[other], turned)),
            "mean image": choices.right(_similar(mean_image, own), _similar(mean_image, turned)),
            "shorter text": choices.right(*shorter),
        }
        unit = str(pairs["unit"].iloc[0])
        if unit not in self._by_text:  # the same for every model
            self._by_text[unit] = choices.by_text_alone(pairs, next(iter(shares.values())), patients)
        by_text = self._by_text[unit]
        return found if by_text is None else {**found, "texts alone": by_text}

    def _ordered(self, shared: SharedPass, images: Tensor, pairs: pd.DataFrame) -> dict[str, dict[str, Score]]:
        """Comparison with the omitted text -> share by direction, of the pairs that have one."""
        pairs = pairs[pairs["omitted"] != ""].reset_index(drop=True)
        if pairs.empty:
            return {}
        patients = Patients(pairs["patient"].tolist(), self.resamples)
        rows = images[torch.tensor(pairs["row"].tolist())]
        own, omitted, turned = (
            _similar(rows, shared.texts(pairs[name].tolist())) for name in ("own", "omitted", "turned")
        )
        before = {
            "own over omitted": choices.right(own, omitted),
            "omitted over turned": choices.right(omitted, turned),
            "all in order": ((own > omitted) & (omitted > turned)).astype(float),
        }
        return choices.measured(before, choices.shares_of_halves(pairs), patients)

    def _readings(self, shared: SharedPass) -> dict[str, dict[str, float]]:
        """Reading of the prompts -> AUROC of labels and their mean, with intervals."""
        if self.zero_shot is None:
            return {}
        patients = Patients([p for split in self.splits for p in self.data.column(split, "patient")], self.resamples)
        by_reading = self.zero_shot.readings(shared, self.splits)
        truth = self.zero_shot.truth(shared, self.splits)
        names = self.zero_shot.labels
        return {
            reading: {
                key: value
                for key, value in label_metrics(
                    Scores(names, scores, truth, mean_over=self.zero_shot.mean_over), patients
                ).items()
                if "auprc" not in key
            }
            for reading, scores in by_reading.items()
        }


def _similar(images: Tensor, texts: Tensor) -> np.ndarray:
    """Cosines of unit vectors [M, D] (or of one image, [1, D]) and [M, D], float64 [M]."""
    return (images.double() * texts.double()).sum(dim=1).numpy()


def _value(score: Score) -> float:
    return float("nan") if score.value is None else score.value


def _named(prefix: str, scores: Mapping[str, Mapping[str, Score]]) -> dict[str, float]:
    """Metrics by name: `<prefix>/<chooser>/<share>`, `<prefix>_low/...` and `<prefix>_high/...`."""
    metrics: dict[str, float] = {}
    for chooser, parts in scores.items():
        for part, score in parts.items():
            name = f"{chooser}/{part}".replace(" ", "_").replace("'", "")
            metrics[f"{prefix}/{name}"] = _value(score)
            if score.low is not None and score.high is not None:
                metrics |= {f"{prefix}_low/{name}": score.low, f"{prefix}_high/{name}": score.high}
    return metrics
