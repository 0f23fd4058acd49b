"""The classification objective."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from checkpoints import as_checkpoint
from helpers import ALONE, PACKAGES, FixedData, TinyImages, assert_same, batch_of, equal_everywhere, metrics_of
from torch import Tensor

from cxrcl.app import restore as restoring
from cxrcl.app.model import build_model
from cxrcl.errors import ConfigError
from cxrcl.evaluation.loss import Loss
from cxrcl.objectives.classify import Classify
from cxrcl.types import Batch, Classifies, EncodesImages

NAN = math.nan
LABELS = torch.tensor([[1, 0, NAN], [NAN, NAN, NAN], [-1, 1, 0], [0, 0, 1], [1, -1, NAN], [0, NAN, 1]])
# Rows with several positives, with none, and with nothing known have no class; blanks and -1 beside one do not matter.
CLASSES = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [NAN, 1, NAN], [NAN, NAN, NAN], [0, -1, 1]])
# As labels: 3, 4 and 1 positive, 4, 3 and 4 negative. As classes the rows named here are left out: 2, 3 and 1 samples.
TRAINING = torch.tensor(
    [
        [1, 0, 0],
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 1, NAN],
        [-1, 1, NAN],
        [1, 1, 0],  # two positives
        [0, NAN, -1],  # none
        [NAN, NAN, NAN],
    ]
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"class_weights": {"a": 3.0, "c": 0.5}},
    "balanced": {"class_weights": "balanced", "training_labels": TRAINING},
    "focal": {"focal_gamma": 2.0},
    "focal, gamma below 1": {"focal_gamma": 0.5},
    "focal, weights": {"focal_gamma": 1.5, "class_weights": {"b": 4.0}},
}
variants = pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)
tasks = pytest.mark.parametrize("task", ["multi_label", "multi_class"])


def classify(norm: bool = False, freeze: bool = False, **arguments: Any) -> Classify:
    torch.manual_seed(0)
    return Classify(TinyImages(norm=norm), ("a", "b", "c"), freeze_encoder=freeze, **arguments)


def truth_of(task: str) -> Tensor:
    return (LABELS if task == "multi_label" else CLASSES).double()


def random_logits() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return (2 * torch.randn(6, 3, dtype=torch.float64, generator=generator)).requires_grad_()


def loss_by_loop(logits: Tensor, labels: Tensor, task: str, weights: list[float], gamma: float) -> Tensor:
    """Mean over samples with a truth of w (1 - p)^gamma (- log p), p the probability of what is true."""
    samples = []
    for row, known in zip(logits, labels, strict=True):
        terms = []
        if task == "multi_class":
            positive = [k for k, y in enumerate(known) if y == 1]
            if len(positive) == 1:
                p = row[positive[0]].exp() / sum(x.exp() for x in row)
                terms.append(weights[positive[0]] * (1 - p) ** gamma * -p.log())
        else:
            for x, y, weight in zip(row, known, weights, strict=True):
                if y in (0, 1):
                    p = 1 / (1 + torch.exp(-x if y == 1 else x))
                    terms.append((weight if y == 1 else 1.0) * (1 - p) ** gamma * -p.log())
        if terms:
            samples.append(sum(terms) / len(terms))
    return torch.stack(samples).mean()


def batch(labels: Tensor = LABELS) -> Batch:
    images = torch.randn(len(labels), 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return batch_of(images, labels=labels)


def by_double_loop(logits: Tensor, labels: Tensor) -> float:
    """Mean over samples with a known label of the mean over these of - log p(label)."""
    samples = []
    for row, known in zip(logits.tolist(), labels.tolist(), strict=True):
        terms = [
            -math.log(1 / (1 + math.exp(-x))) if y == 1 else -math.log(1 - 1 / (1 + math.exp(-x)))
            for x, y in zip(row, known, strict=True)
            if y in (0, 1)
        ]
        if terms:
            samples.append(sum(terms) / len(terms))
    return sum(samples) / len(samples)


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


@variants
@tasks
def test_parts_of_usable_samples_accumulate_to_the_gradient_of_the_whole(task: str, arguments: dict[str, Any]) -> None:
    model, labels = classify(task=task, **arguments).double(), truth_of(task)
    labels = labels[model.learns_from(labels)].repeat(2, 1)[:6]
    given = batch(labels=labels)
    given.images = given.images.double()
    assert Classify.per_sample
    model(given).loss.backward()
    whole = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for start, end in ((0, 1), (1, 3), (3, 6)):
        (model(given.rows(slice(start, end))).loss * (end - start) / 6).backward()
    for grad, parameter in zip(whole, model.parameters(), strict=True):
        assert grad.abs().max() > 1e-6 and (grad - parameter.grad).abs().max() < 1e-12


@tasks
def test_samples_that_are_not_used_change_nothing(task: str) -> None:
    model, logits, labels = classify(task=task).double(), random_logits(), truth_of(task)
    used = model.learns_from(labels)
    assert 0 < used.sum() < len(used)
    all_of_them = model.loss({"logits": logits}, {"labels": labels}).loss
    assert_same([all_of_them], [model.loss({"logits": logits[used]}, {"labels": labels[used]}).loss], [logits], 1e-12)


@tasks
def test_where_no_sample_is_used_loss_and_gradient_are_zero(task: str) -> None:
    logits = random_logits()
    loss = classify(task=task).loss({"logits": logits}, {"labels": torch.full((6, 3), NAN)}).loss
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_classify_gives_the_logits_of_the_first_view() -> None:
    model = classify()
    assert isinstance(model, Classifies) and isinstance(model, EncodesImages)
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


@pytest.mark.parametrize("freeze", [False, True])
def test_a_layer_norm_stands_before_the_last_layer_and_is_trained_with_it(freeze: bool) -> None:
    model = classify(freeze=freeze, layer_norm=True)
    given = batch()
    seen = model.encode_images(given.images[:, 0])
    rows = seen.pooled.detach()
    normal = (rows - rows.mean(dim=1, keepdim=True)) / (rows.var(dim=1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    expected = normal @ model.classifier.weight.T + model.classifier.bias
    assert (model.classify(seen) - expected).abs().max() < 1e-5
    assert (model.embed(given)["logits"] - expected).abs().max() < 1e-5
    model(given).loss.backward()
    assert model.norm.weight.grad is not None and (model.image_encoder.conv.weight.grad is None) == freeze


def test_a_checkpoint_of_before_there_was_a_layer_norm_fits() -> None:
    assert set(classify().state_dict()) | {"norm.weight", "norm.bias"} == set(classify(layer_norm=True).state_dict())


def test_the_last_layer_starts_with_the_spread_that_is_asked_for() -> None:
    torch.manual_seed(0)
    labels = [str(k) for k in range(2000)]
    weight = Classify(TinyImages(width=32), labels, init_std=2e-5).classifier.weight.detach()
    assert float(weight.std()) == pytest.approx(2e-5, rel=0.02) and abs(float(weight.mean())) < 1e-6
    assert Classify(TinyImages(width=32), labels).classifier.weight.std() > 0.05


def test_no_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="no label column"):
        Classify(TinyImages(), ())


# ------------------------------------------------------------------------------- classes, weights, focal loss


@variants
@tasks
def test_value_and_gradient_equal_a_loop(task: str, arguments: dict[str, Any]) -> None:
    model, logits, labels = classify(task=task, **arguments).double(), random_logits(), truth_of(task)
    slow = loss_by_loop(logits, labels, task, model.class_weights.tolist(), arguments.get("focal_gamma", 0.0))
    assert_same([model.loss({"logits": logits}, {"labels": labels}).loss], [slow], [logits], within=1e-10)


def test_every_variant_of_each_task_is_another_loss() -> None:
    given = {"logits": random_logits()}, {"labels": CLASSES.double()}
    models = [classify(task=task, **a).double() for task in ("multi_label", "multi_class") for a in VARIANTS.values()]
    assert len({model.loss(*given).loss.item() for model in models}) == 2 * len(VARIANTS)


def test_log_odds_of_classes_are_those_of_the_softmax() -> None:
    model, images = classify(task="multi_class"), batch().images[:, 0]
    probabilities = model.embed(batch())["logits"].softmax(dim=1)
    assert (model.classify(model.encode_images(images)).sigmoid() - probabilities).abs().max() < 1e-6
    assert (classify().classify(model.encode_images(images)) == classify().embed(batch())["logits"]).all()


def test_log_odds_of_a_certain_class_are_finite() -> None:
    model = classify(task="multi_class")
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([300.0, 0.0, 0.0]))
    assert torch.isfinite(model.classify(model.encode_images(batch().images[:, 0]))).all()


@tasks
@pytest.mark.parametrize("gamma", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("extreme", [40.0, 200.0, 3e4])
def test_focal_loss_of_the_extremely_confident_is_finite(task: str, gamma: float, extreme: float) -> None:
    logits = torch.tensor([[extreme, -extreme, -extreme], [-extreme, extreme, 0.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    loss = classify(task=task, focal_gamma=gamma).loss({"logits": logits}, {"labels": labels}).loss
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    # What is right has no part, what is wrong the whole.
    assert logits.grad[0].abs().max() < 1e-6 and logits.grad[1].abs().max() > 0.1


def test_balanced_weights_of_labels_are_negatives_over_positives() -> None:
    model = classify(class_weights="balanced", training_labels=TRAINING)
    assert model.class_weights.tolist() == pytest.approx([4 / 3, 3 / 4, 4.0])


def test_balanced_weights_of_classes_are_samples_over_classes_times_samples_of_the_class() -> None:
    model = classify(task="multi_class", class_weights="balanced", training_labels=TRAINING)
    assert model.class_weights.tolist() == pytest.approx([6 / 6, 6 / 9, 6 / 3])


def test_given_weights_are_one_where_none_is_given() -> None:
    assert classify(class_weights={"c": 2.5}).class_weights.tolist() == [1.0, 1.0, 2.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weights": {"a": 1.0, "d": 2.0}}, r"class_weights: no label d \(labels: a, b, c\)"),
        ({"class_weights": {"a": 0.0}}, r"class_weights=\{a: 0.0\}: expected numbers above 0"),
        ({"class_weights": {"a": NAN}}, "expected numbers above 0"),
        ({"class_weights": "balanced", "training_labels": TRAINING[[0, 1, 3]]}, "no positive of b"),
    ],
)
@tasks
def test_wrong_weights_are_refused(task: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classify(task=task, **arguments)


def test_balanced_labels_need_negatives_and_balanced_classes_do_not() -> None:
    given: dict[str, Any] = {
        "class_weights": "balanced",
        "training_labels": torch.eye(3).masked_fill(torch.eye(3) == 0, NAN),
    }
    with pytest.raises(ValueError, match="no negative of a, b, c"):
        classify(**given)
    assert classify(task="multi_class", **given).class_weights.tolist() == [1.0, 1.0, 1.0]


def test_positives_of_samples_that_are_not_used_do_not_balance_classes() -> None:
    with pytest.raises(ValueError, match="no positive of a"):
        classify(task="multi_class", class_weights="balanced", training_labels=TRAINING[2:])  # a: beside b only


def test_one_class_is_none() -> None:
    with pytest.raises(ValueError, match="task=multi_class: a is the only label"):
        Classify(TinyImages(), ("a",), task="multi_class")


@tasks
def test_only_plain_classes_have_a_chance(task: str) -> None:
    for name, arguments in VARIANTS.items():
        expected = math.log(3) if (task, name) == ("multi_class", "plain") else None
        assert classify(task=task, **arguments).chance(64) == expected
    model = classify(task="multi_class")
    for labels in (torch.eye(3), CLASSES, CLASSES[:3]):  # all, half and a third of the samples are used
        loss = model.loss({"logits": torch.zeros(len(labels), 3)}, {"labels": labels}).loss
        assert loss.item() == pytest.approx(model.chance(64), abs=1e-6)


# --------------------------------------------------------------------------------------- configs and checkpoints


def built(known: Tensor = TRAINING, **settings: Any) -> tuple[dict[str, Any], Any]:
    node = {"_target_": "cxrcl.objectives.classify.Classify", **settings}
    nodes = {"objective": node, "image_encoder": {"_target_": "helpers.TinyImages"}}
    return nodes, build_model(nodes, ("a", "b", "c"), None, PACKAGES, known)


def state_of(nodes: dict[str, Any], model: Classify) -> dict[str, Any]:
    return {"model": copy.deepcopy(model.state_dict()), "config": {"model": nodes, "labels": ["a", "b", "c"]}}


def moved(model: Classify) -> Classify:
    """As after some training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("stored", [{"class_weights": {"a": 2}}, {"class_weights": "balanced"}, {}], ids=str)
@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"class_weights": {"a": 5}}, [5.0, 1.0, 1.0]),
        ({"class_weights": "balanced"}, [1.0, 3.0, 1.0]),
        ({}, [1.0, 1.0, 1.0]),
    ],
    ids=str,
)
def test_weights_of_the_loss_do_not_travel_with_init_from(
    stored: dict[str, Any], own: dict[str, Any], expected: list[float]
) -> None:
    source = state_of(*built(**stored))
    before = copy.deepcopy(source["model"])
    model = moved(built(torch.tensor([[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0.0]]), **own)[1])
    restoring.init_from(model, as_checkpoint(source), "a file")
    assert model.class_weights.tolist() == pytest.approx(expected)
    assert torch.equal(model.classifier.weight, before["classifier.weight"])
    assert equal_everywhere(source["model"], before)  # nor is the checkpoint changed


@tasks
@pytest.mark.parametrize("weights", ["balanced", {"a": 2.0}, None])
def test_a_restored_classifier_has_the_loss_of_training(task: str, weights: Any) -> None:
    nodes, model = built(class_weights=weights, task=task)
    moved(model).eval()
    assert (model.class_weights == 1).all() == (weights is None)
    # No training labels are at hand.
    found, given = restoring.restore_model(as_checkpoint(state_of(nodes, model)), PACKAGES), batch(TRAINING)
    assert equal_everywhere(dict(found.state_dict()), dict(model.state_dict()))
    seen = model.encode_images(given.images[:, 0])
    assert torch.equal(found.classify(found.encode_images(given.images[:, 0])), model.classify(seen))
    data = FixedData(("a", "b", "c"), {"valid": (given.images[:, 0], TRAINING, [""] * 9, [""] * 9)})
    one, other = (metrics_of(Loss(data, batch_size=4), each, ALONE) for each in (found, model))
    assert one == other and one["total"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_std": 0.0}, "objective.init_std=0.0: input should be greater than 0"),
        ({"class_weights": "some"}, "objective.class_weights='some'"),
        ({"class_weights": {"d": 1}}, "no label d"),
        ({"task": "ordinal"}, "objective.task='ordinal'"),
        ({"training_labels": []}, "objective.training_labels: comes from other parts"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(**settings)
