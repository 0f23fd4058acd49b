"""The classification objective."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import TinyImages, batch_of
from torch import Tensor

from cxrcl.objectives.classify import Classify
from cxrcl.types import Batch, Classifies

NAN = math.nan
LABELS = torch.tensor([[1, 0, NAN], [NAN, NAN, NAN], [-1, 1, 0], [0, 0, 1], [1, -1, NAN], [0, NAN, 1]])


def classify(norm: bool = False, freeze: bool = False) -> Classify:
    torch.manual_seed(0)
    return Classify(TinyImages(norm=norm), ("a", "b", "c"), freeze_encoder=freeze)


def batch(rows: slice = slice(None)) -> Batch:
    images = torch.randn(len(LABELS), 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return batch_of(images[rows], labels=LABELS[rows])


def by_double_loop(logits: Tensor, labels: Tensor) -> float:
    """Mean over samples of the mean over known labels of - log p(label)."""
    total = 0.0
    for row, known in zip(logits.tolist(), labels.tolist(), strict=True):
        terms = [
            -math.log(1 / (1 + math.exp(-x))) if y == 1 else -math.log(1 - 1 / (1 + math.exp(-x)))
            for x, y in zip(row, known, strict=True)
            if y in (0, 1)
        ]
        total += sum(terms) / len(terms) if terms else 0.0
    return total / len(labels)


def test_loss_is_cross_entropy_over_known_labels_only() -> None:
    model = classify()
    logits = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    loss = model.loss({"logits": logits}, {"labels": LABELS.double()}).loss
    assert abs(loss.item() - by_double_loop(logits.detach(), LABELS)) < 1e-10
    loss.backward()
    unknown = ~((LABELS == 0) | (LABELS == 1))
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[unknown] == 0).all() and (logits.grad[~unknown] != 0).all()


def test_extreme_logits_and_unknown_labels_give_finite_loss_and_gradient() -> None:
    logits = torch.tensor([[200.0, -200.0, 50.0]], requires_grad=True)
    loss = classify().loss({"logits": logits}, {"labels": torch.tensor([[0.0, 1.0, NAN]])}).loss
    loss.backward()
    assert loss.item() == pytest.approx(200) and torch.isfinite(logits.grad).all()


def test_two_halves_accumulate_to_the_gradient_of_the_whole() -> None:
    model = classify()
    assert Classify.per_sample
    model(batch()).loss.backward()
    whole = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for rows in (slice(0, 3), slice(3, 6)):
        (model(batch(rows)).loss / 2).backward()
    for grad, parameter in zip(whole, model.parameters(), strict=True):
        assert torch.allclose(grad, parameter.grad, atol=1e-7)


def test_classify_gives_the_logits_of_the_first_view() -> None:
    model = classify()
    assert isinstance(model, Classifies)
    given = batch()
    expected = model.classifier(model.image_encoder(given.images[:, 0]).pooled)
    assert torch.equal(model.embed(given)["logits"], expected)


def test_frozen_encoder_gets_no_gradient_and_keeps_its_statistics() -> None:
    model = classify(norm=True, freeze=True)
    before = {name: value.clone() for name, value in model.image_encoder.state_dict().items()}
    model.train()
    assert model.training and not model.image_encoder.training and not model.image_encoder.norm.training
    model(batch()).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in model.image_encoder.parameters())
    assert all(p.grad is not None for p in model.classifier.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.image_encoder.state_dict().items())


def test_free_encoder_trains_and_updates_its_statistics() -> None:
    model = classify(norm=True).train()
    before = model.image_encoder.norm.running_mean.clone()
    model(batch()).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not torch.equal(before, model.image_encoder.norm.running_mean)


def test_no_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="no label column"):
        Classify(TinyImages(), ())
