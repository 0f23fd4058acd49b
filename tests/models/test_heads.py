"""Projections."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cxrcl.models.heads import MLP, Head, Linear


@pytest.mark.parametrize("head", [Linear(6, 4), Linear(6, 4, bias=False), MLP(6, 4), MLP(6, 4, hidden_dim=9)])
def test_heads_map_to_their_width(head: Head) -> None:
    assert head(torch.randn(3, 6)).shape == (3, 4) and head.out_dim == 4


def test_linear_is_one_map_with_or_without_bias() -> None:
    features = torch.randn(3, 6)
    assert len(list(Linear(6, 4).parameters())) == 2
    head = Linear(6, 4, bias=False)
    (weight,) = head.parameters()
    assert torch.allclose(head(features), features @ weight.T, atol=1e-6)


def test_mlp_is_linear_relu_linear() -> None:
    head, features = MLP(6, 4, hidden_dim=5), torch.randn(3, 6)
    first, bias, second, other = head.parameters()
    assert first.shape == (5, 6)
    expected = F.relu(features @ first.T + bias) @ second.T + other
    assert torch.allclose(head(features), expected, atol=1e-6)
    assert next(MLP(6, 4).parameters()).shape == (6, 6)


def test_dropout_acts_in_training_only() -> None:
    head, features = MLP(6, 4, hidden_dim=64, dropout=0.5), torch.randn(3, 6)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


def test_batch_norm_normalises_the_hidden_layer_before_the_relu() -> None:
    head, features = MLP(6, 4, hidden_dim=5, batch_norm=True), torch.randn(7, 6)
    first, bias, gain, shift, second, other = head.parameters()
    with torch.no_grad():
        gain.uniform_(0.5, 2.0)
        shift.uniform_(-1.0, 1.0)
    hidden = features @ first.T + bias
    normalised = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt() * gain + shift
    expected = F.relu(normalised) @ second.T + other
    assert torch.allclose(head(features), expected, atol=1e-5)
    assert not torch.allclose(head.eval()(features), expected, atol=1e-2)  # running statistics, not those of the batch


def test_without_batch_norm_samples_are_independent() -> None:
    features = torch.randn(7, 6)
    for batch_norm in (False, True):
        head = MLP(6, 4, batch_norm=batch_norm)
        assert torch.allclose(head(features)[:3], head(features[:3]), atol=1e-6) != batch_norm
