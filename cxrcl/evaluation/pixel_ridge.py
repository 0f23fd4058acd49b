"""A baseline without a model: ridge regression on small pictures, trained with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cxrcl.evaluation.embed import over_images
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.evaluation.supervised import Penalties, Supervised
from cxrcl.types import Batch, EvalData, Natural, Side


class PixelRidge(Supervised):
    """AUROC of one ridge regression a label on standardised pixels; the model plays no part.

    A model that has not seen labels should be compared with it: where the ridge does as well, so does a blurred
    picture.

    Args:
        side_px: images are shrunk to this side.
    """

    def __init__(
        self,
        data: EvalData,
        splits: Sequence[str] = ("test",),
        train: str = "train",
        choose_on: str | None = "valid",
        side_px: Side = 32,
        penalties: Penalties = (1.0, 10.0, 100.0, 1e3, 1e4),
        labels: Sequence[str] | None = None,
        mean_over: Sequence[str] | None = None,
        against_normal: Sequence[str] = (),
        resamples: Natural = 0,
    ) -> None:
        super().__init__(data, splits, train, choose_on, penalties, labels, mean_over, against_normal, resamples)
        self.side_px = side_px

    def vectors(self, shared: SharedPass, splits: Sequence[str]) -> Tensor:
        def pixels(batch: Batch) -> Mapping[str, Tensor]:
            assert batch.images is not None
            grey = batch.images[:, 0, :1]
            return {"grey": F.interpolate(grey, size=(self.side_px,) * 2, mode="area").flatten(1)}

        parts = [over_images(self.data, split, shared.runtime, pixels, shared.batch_size) for split in splits]
        return torch.cat([part["grey"] for part in parts])

    def estimator(self, penalty: float) -> Any:
        from sklearn.linear_model import Ridge

        return Ridge(alpha=penalty)
