"""A baseline without a model: ridge regression on small pictures, trained with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from cxrcl.evaluation.embed import over_images
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.evaluation.supervised import Penalties, Supervised
from cxrcl.types import Batch, EvalData


class PixelRidge(Supervised):
    """AUROC of one ridge regression a label on standardised pixels; the model plays no part.

    Trained on the labels of `train`; the penalty with the best AUROC on held-out images is taken for each label. A
    model that has not seen labels should be compared with it: where the ridge does as well, so does a blurred picture.

    Args:
        data: the splits (given by the application).
        splits: pooled before scoring.
        train: the split that gives the labels.
        choose_on: the split that chooses the penalty; None when every other split is scored.
        side_px: images are shrunk to this side.
        penalties: tried for each label; without `choose_on`, five folds of the training patients choose.
        labels: score these only; None scores all.
        mean_over, against_normal, resamples: as for `cxrcl.evaluation.zero_shot.ZeroShot`.
    """

    needs: ClassVar[tuple[type, ...]] = ()

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("test",),
        train: str = "train",
        choose_on: str | None = "valid",
        side_px: int = 32,
        penalties: Penalties = (1.0, 10.0, 100.0, 1e3, 1e4),
        labels: Sequence[str] | None = None,
        mean_over: Sequence[str] | None = None,
        against_normal: Sequence[str] = (),
        resamples: int = 0,
    ) -> None:
        super().__init__(data, splits, train, choose_on, penalties, labels, mean_over, against_normal, resamples)
        self.side_px = side_px

    def vectors(self, shared: SharedPass, splits: Sequence[str]) -> tuple[Tensor, Tensor]:
        return over_images(self.data, splits, shared.runtime, self._pixels, shared.batch_size)

    def _pixels(self, batch: Batch) -> Tensor:
        """Grey values float32 [B, side_px * side_px]."""
        assert batch.images is not None
        grey = batch.images[:, 0, :1]
        return F.interpolate(grey, size=(self.side_px,) * 2, mode="area").flatten(1)

    def estimator(self, penalty: float) -> Any:
        from sklearn.linear_model import Ridge

        return Ridge(alpha=penalty)
