"""Projections from an encoder's width to the shared space."""

from __future__ import annotations

from torch import Tensor, nn

from cxrcl.types import Count, Share


class Head(nn.Module):
    """Base of all heads: `forward` takes features float [B, in_dim] and returns float [B, out_dim].

    Attributes:
        out_dim: width of what it returns.
    """

    out_dim: int


class Linear(Head):
    """One linear map.

    Args:
        in_dim, out_dim: widths.
        bias: CXR-CLIP's projection has one, OpenAI's CLIP has none.
    """

    def __init__(self, in_dim: int, out_dim: Count = 512, bias: bool = True) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.layer = nn.Linear(in_dim, out_dim, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """float [B, in_dim] -> float [B, out_dim]."""
        return self.layer(features)


class MLP(Head):
    """Linear, ReLU, Linear (ConVIRT, Zhang et al. 2020, equation 1; SimCLR's g; MoCo v2's head).

    Args:
        in_dim, out_dim: widths.
        hidden_dim: width of the hidden layer; None takes `in_dim`.
        batch_norm: normalise the hidden layer over the batch before the ReLU.
        dropout: on the hidden layer.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: Count = 512,
        hidden_dim: Count | None = None,
        batch_norm: bool = False,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        self.out_dim = out_dim
        hidden_dim = hidden_dim or in_dim
        norm = [nn.BatchNorm1d(hidden_dim)] if batch_norm else []
        self.layers = nn.Sequential(
            nn.Linear(in_dim, hidden_dim), *norm, nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_dim, out_dim)
        )

    def forward(self, features: Tensor) -> Tensor:
        """float [B, in_dim] -> float [B, out_dim]."""
        return self.layers(features)
