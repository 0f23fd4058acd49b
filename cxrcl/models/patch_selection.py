"""An encoder that scores its patches, keeps the K best and combines them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cxrcl.models import layers
from cxrcl.models.base import ImageEncoder
from cxrcl.types import Count, Features

Combine = Literal["mean", "weighted_mean", "concat", "soft"]


class PatchScorer(nn.Module):
    """Linear, ReLU, Linear: local features [B, N, D] -> scores float32 [B, N].

    Scores are always computed in float32: bfloat16 has eight bits, in which hundreds of patches would tie. The last
    layer has no bias: ranks and softmax see only differences of scores and would never teach it.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 1, bias=False))

    def forward(self, local: Tensor) -> Tensor:
        with torch.autocast(local.device.type, enabled=False):
            return self.layers(local.float()).squeeze(2)


def best_patches(scores: Tensor, count: int) -> Tensor:
    """Places of the highest scores, best first; of equal scores the earlier place leads.

    Args:
        scores: float [B, N].
        count: how many.

    Returns:
        int64 [B, count].
    """
    return scores.argsort(dim=1, descending=True, stable=True)[:, :count]


def combine_patches(local: Tensor, scores: Tensor, count: int, combine: Combine) -> Tensor:
    """One vector of the best patches of each image, through which the scorer learns.

    With local features x, their scores s and S the `count` best patches:

    - `weighted_mean` (and `soft`, the same over all patches): sum over S of w_k x_k, w = softmax of s within S.
    - `mean`: sum over S of g_k x_k / count, with the gate g_k = sigmoid(s_k) that lets the scorer learn (as in the
      pooling of Graph U-Nets, Gao & Ji 2019, eq. 2).
    - `concat`: the g_k x_k of S side by side, the best first.

    The choice of S has no gradient: patches left out would never learn to come in, and a scorer that starts badly
    would stay so. Attention over all N patches, p = softmax(s), therefore lends its gradient, not its value: w_k has
    the gradient of p_k (exact for count = N, where w = p), and that of N p_k, which is 1 when all scores are equal, is
    added to that of g_k.

    Args:
        local: float [B, N, D].
        scores: float [B, N].
        count: size of S.
        combine: see above.

    Returns:
        float [B, D], or [B, count * D] for `concat`.
    """
    places = best_patches(scores, count)
    attention = scores.softmax(dim=1).gather(1, places)
    lent = attention - attention.detach()  # zero, with a gradient
    chosen = local.gather(1, places[..., None].expand(-1, -1, local.shape[2]))
    chosen_scores = scores.gather(1, places)
    if combine in ("weighted_mean", "soft"):
        weights = chosen_scores.softmax(dim=1).detach() + lent
    else:
        weights = chosen_scores.sigmoid() + scores.shape[1] * lent
    weighted = weights[..., None] * chosen
    if combine == "concat":
        return weighted.flatten(1)
    return weighted.mean(dim=1) if combine == "mean" else weighted.sum(dim=1)


class TopKPatches(ImageEncoder):
    """Another encoder whose pooled features are made of its K best local features, by a learned score.

    Args:
        encoder: the encoder to wrap: a nested node with its own settings.
        num_patches: K; None keeps all.
        combine: `mean`, `weighted_mean`, `concat` (best first; the width is K times the encoder's local width) or
            `soft` (attention over all patches, no selection); see `combine_patches`.
        hidden_dim: of the scorer.
        include_pooled: put the encoder's own pooled features in front, for what no single patch shows.

    Parameters of the encoder that act on its pooled features only (ConvNeXt's last norm) are frozen unless
    `include_pooled`: they would never get a gradient.

    Raises:
        ValueError: the encoder has fewer than `num_patches` local features, or the settings contradict.
    """

    def __init__(
        self,
        encoder: Callable[..., ImageEncoder],
        num_patches: Count | None = 10,
        combine: Combine = "weighted_mean",
        hidden_dim: Count = 128,
        include_pooled: bool = False,
    ) -> None:
        super().__init__()
        if combine == "soft" and num_patches is not None:
            raise ValueError(
                f"num_patches={num_patches}: combine=soft weighs all patches, "
                "set num_patches=null or combine=weighted_mean"
            )
        try:
            inspect.signature(encoder).bind()
        except TypeError as error:
            raise ValueError(f"encoder: {error}") from None
        self.encoder = encoder()
        self.scorer = PatchScorer(self.encoder.local_dim, hidden_dim)
        self._settings = {"num_patches": num_patches, "hidden_dim": hidden_dim, "include_pooled": include_pooled}
        self.combine: Combine = combine
        self.include_pooled = include_pooled
        self.spec = self.encoder.spec
        available = self._probe()
        # The width of `concat` is fixed here, whatever the size of later images; the others may follow them.
        self.num_patches = available if num_patches is None and combine == "concat" else num_patches
        self._count(available)
        self.local_dim = self.encoder.local_dim
        patches_dim = self.local_dim * (self.num_patches or 1) if combine == "concat" else self.local_dim
        self.dim = patches_dim + (self.encoder.dim if include_pooled else 0)

    def _probe(self) -> int:
        """Number of local features of an image of the encoder's size; freezes parameters that they do not need."""
        parameters = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        training = self.encoder.training
        self.encoder.eval()
        with torch.enable_grad():
            pooled, local = self.encoder(torch.zeros(1, 3, self.spec.size, self.spec.size))
            used = local.sum() + (pooled.sum() if self.include_pooled else 0)
        self.encoder.train(training)
        if parameters:
            gradients = torch.autograd.grad(used, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.requires_grad_(gradient is not None)
        return local.shape[1]

    def _count(self, available: int) -> int:
        if self.num_patches is not None and self.num_patches > available:
            raise ValueError(
                f"num_patches={self.num_patches}: the encoder has {available} patches, "
                f"set num_patches to at most {available}, or to null for all"
            )
        return self.num_patches or available

    def forward(self, images: Tensor) -> Features:
        """Images float32 [B, 3, S, S] -> Features([B, dim], [B, N, local_dim]); local ones are all of the encoder's."""
        pooled, local = self.encoder(images)
        combined = combine_patches(local, self.scorer(local), self._count(local.shape[1]), self.combine)
        return Features(torch.cat([pooled, combined], dim=1) if self.include_pooled else combined, local)

    def layer_names(self) -> list[list[str]]:
        """Those of the wrapped encoder, then the scorer."""
        return [*layers.below("encoder", self.encoder.layer_names()), ["scorer"]]

    def scores(self, images: Tensor) -> Tensor:
        """Images float32 [B, 3, S, S] -> scores of all patches, float32 [B, N] in the order of the local features."""
        return self.scorer(self.encoder(images).local)

    def selected(self, images: Tensor) -> Tensor:
        """Images float32 [B, 3, S, S] -> places of the chosen patches among the N, int64 [B, K], best first."""
        scores = self.scores(images)
        return best_patches(scores, self._count(scores.shape[1]))

    def node(self) -> dict[str, Any]:
        settings = {"combine": self.combine, **self._settings}
        return {"_target_": f"{__name__}.TopKPatches", "encoder": self.encoder.node(), **settings}
