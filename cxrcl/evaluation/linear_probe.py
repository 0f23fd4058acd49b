"""What an image encoder has learnt, read off by logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cxrcl.evaluation.shared_pass import Request, SharedPass, pooled_request
from cxrcl.evaluation.supervised import Supervised
from cxrcl.types import EncodesImages


class LinearProbe(Supervised):
    """AUROC of one logistic regression a label on the encoder's standardised pooled features, images not augmented.

    Compare with an encoder of random weights whose batch statistics were estimated (a run with optimizer.lr=0).
    """

    needs: ClassVar[tuple[type, ...]] = (EncodesImages,)

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        return [pooled_request((*self.learns_from, *self.splits))]

    def vectors(self, shared: SharedPass, splits: Sequence[str]) -> Tensor:
        return shared.rows("pooled", splits)

    def estimator(self, penalty: float) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=1 / penalty, max_iter=300)
