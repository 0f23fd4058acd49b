"""AUROC of a classifier's logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from torch import Tensor, nn

from cxrcl.evaluation.embed import over_images
from cxrcl.evaluation.scores import auroc_figures, check_names
from cxrcl.types import Batch, Classifies, EvalData, Gathers


class Classification:
    """AUROC of each label.

    Args:
        data: the splits (given by the application).
        splits: pooled before scoring.
        mean_over: labels of the mean; None takes all but `No Finding`.
        resamples: bootstrap resamples of patients; 0 gives no intervals.
        batch_size: images encoded at a time (given by the application).
    """

    needs: ClassVar[tuple[type, ...]] = (Classifies,)
    selects: ClassVar[str] = "mean_auroc"
    higher_is_better: ClassVar[bool] = True

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("valid",),
        mean_over: Sequence[str] | None = None,
        resamples: int = 0,
        batch_size: int = 64,
    ) -> None:
        check_names(mean_over, data.labels, "mean_over")
        self.data, self.splits, self.mean_over, self.resamples = data, tuple(splits), mean_over, resamples
        self.batch_size = batch_size

    def run(self, model: nn.Module, runtime: Gathers) -> dict[str, float]:
        classifier = cast(Classifies, model)

        def compute(batch: Batch) -> Tensor:
            assert batch.images is not None
            return classifier.classify(batch.images[:, 0])

        logits, labels = over_images(self.data, self.splits, runtime, compute, self.batch_size)
        return auroc_figures(
            self.data,
            self.splits,
            logits.numpy(),
            labels.numpy(),
            self.data.labels,
            mean_over=self.mean_over,
            resamples=self.resamples,
        )
