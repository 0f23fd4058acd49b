"""Zero-shot classification with a pair of prompt ensembles for each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.evaluation.embed import embed_texts, over_images
from cxrcl.evaluation.scores import NO_FINDING, auroc_figures, check_names, labels_against_normal
from cxrcl.types import Batch, EmbedsImages, EmbedsText, EvalData, Gathers

RULE = (
    "probability = softmax over the cosines to the mean positive and the mean negative prompt, "
    "times the model's learned scale; not calibrated"
)


def prompt_directions(
    model: EmbedsText, prompts: Mapping[str, Mapping[str, Sequence[str]]], labels: Sequence[str], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean unit vector of each label's positive and negative prompts, normalised again: [C, D] each.

    (Ensembling of Radford et al. 2021, section 3.1.4, with the pair of CheXzero, Tiu et al. 2022.)
    """
    texts = sorted({sentence for name in labels for kind in ("pos", "neg") for sentence in prompts[name][kind]})
    place = {text: k for k, text in enumerate(texts)}
    embedded = embed_texts(model, texts, device)

    def mean(kind: str) -> Tensor:
        rows = [embedded[[place[sentence] for sentence in prompts[name][kind]]].mean(dim=0) for name in labels]
        return F.normalize(torch.stack(rows), dim=-1)

    return mean("pos"), mean("neg")


def margins(images: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """cos(image, positive) - cos(image, negative): [N, D], [C, D], [C, D] -> [N, C]."""
    with torch.autocast(images.device.type, enabled=False):  # bf16 would make ties of near neighbours
        return images @ (positive - negative).T


class ZeroShot:
    """AUROC of each label from the margin between its positive and its negative prompts.

    Args:
        data: the splits (given by the application).
        prompts: prompt pairs by label (given by the application, read from `file`).
        splits: pooled before scoring.
        file: a prompts file; labels that it or the data lacks are left out.
        labels: score these only; None scores all that have prompts.
        mean_over: labels of the mean; None takes all but `No Finding`.
        against_normal: labels whose negatives are the films labelled `No Finding`.
        resamples: bootstrap resamples of patients; 0 gives no intervals.
        batch_size: images encoded at a time (given by the application).
    """

    needs: ClassVar[tuple[type, ...]] = (EmbedsImages, EmbedsText)
    selects: ClassVar[str] = "mean_auroc"
    higher_is_better: ClassVar[bool] = True

    def __init__(
        self,
        data: EvalData,
        prompts: Any,
        splits: Sequence[str] = ("valid",),
        file: str = "zero_shot.json",
        labels: Sequence[str] | None = None,
        mean_over: Sequence[str] | None = None,
        against_normal: Sequence[str] = (),
        resamples: int = 0,
        batch_size: int = 64,
    ) -> None:
        self.data, self.splits = data, tuple(splits)
        self.file = file
        self.prompts = prompts(file)
        check_names(labels, data.labels, "labels")
        check_names((*against_normal, NO_FINDING) if against_normal else (), data.labels, "against_normal")
        wanted = data.labels if labels is None else tuple(labels)
        self.labels = tuple(name for name in wanted if self.prompts.get(name, {}).get("neg"))
        lacking = [name for name in labels or () if name not in self.labels]
        if lacking or not self.labels:
            raise ValueError(f"{file} has no positive and negative prompts for {', '.join(lacking or data.labels)}")
        check_names(mean_over, self.labels, "mean_over")
        self.mean_over, self.against_normal, self.resamples = mean_over, against_normal, resamples
        self.batch_size = batch_size

    def run(self, model: nn.Module, runtime: Gathers) -> dict[str, float]:
        scores, labels = self.score(model, runtime)
        return auroc_figures(
            self.data, self.splits, scores, labels, self.labels, mean_over=self.mean_over, resamples=self.resamples
        )

    def score(self, model: nn.Module, runtime: Gathers) -> tuple[np.ndarray, np.ndarray]:
        """Margins and labels, float [N, C] each, columns as in `self.labels`."""
        encoder = cast(EmbedsImages, model)

        def compute(batch: Batch) -> Tensor:
            assert batch.images is not None
            return encoder.embed_images(batch.images[:, 0])

        images, everything = over_images(self.data, self.splits, runtime, compute, self.batch_size)
        positive, negative = prompt_directions(cast(EmbedsText, model), self.prompts, self.labels, runtime.device)
        known = labels_against_normal(self.data, everything.numpy(), self.against_normal)
        columns = [self.data.labels.index(name) for name in self.labels]
        return margins(images, positive, negative).numpy(), known[:, columns]
