"""Parameter groups and schedules."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers import SMALL, TinyImages
from torch import nn

from cxrcl import assemble, config
from cxrcl.cli import compose
from cxrcl.errors import ConfigError
from cxrcl.objectives.classify import Classify
from cxrcl.optim import Constant, Cosine, Plateau, Schedule, parameter_groups


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.layer_norm = nn.LayerNorm(4)
        self.table = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 4)
        self.tied = self.linear
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_matrices_decay_and_biases_norms_and_scalars_do_not() -> None:
    model = Mixed()
    names = {id(p): name for name, p in model.named_parameters()}
    decay, plain = parameter_groups(model, 0.05)
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert [names[id(p)] for p in decay["params"]] == ["conv.weight", "table.weight", "linear.weight"]
    assert {names[id(p)] for p in plain["params"]} == {
        "conv.bias",
        "norm.weight",
        "norm.bias",
        "layer_norm.weight",
        "layer_norm.bias",
        "linear.bias",
        "scale",
    }


def test_every_trainable_parameter_is_in_exactly_one_group_and_frozen_ones_in_none() -> None:
    model = Mixed()
    grouped = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_an_empty_group_is_left_out() -> None:
    groups = parameter_groups(nn.Linear(2, 2, bias=False), 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1]


def test_cosine_warms_up_and_falls_to_its_end() -> None:
    schedule = Cosine(total_steps=110, warmup_steps=10)
    assert [schedule.factor(step) for step in range(10)] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert schedule.factor(9) == schedule.factor(10) == 1
    assert schedule.factor(60) == pytest.approx(0.5)
    assert schedule.factor(110) == pytest.approx(0)
    assert schedule.factor(35) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    falling = [schedule.factor(step) for step in range(10, 111)]
    assert all(a > b for a, b in itertools.pairwise(falling))


def test_cosine_ends_at_final() -> None:
    schedule = Cosine(100, 0, final=0.2)
    assert schedule.factor(0) == 1
    assert schedule.factor(50) == pytest.approx(0.6)
    assert schedule.factor(100) == schedule.factor(150) == pytest.approx(0.2)


def test_constant_stays_at_one_after_warm_up() -> None:
    schedule = Constant(10, 4)
    assert [schedule.factor(step) for step in range(7)] == [0.25, 0.5, 0.75, 1, 1, 1, 1]


def test_plateau_falls_after_too_many_evaluations_without_improvement() -> None:
    schedule = Plateau(100, 2, decay=0.5, patience=1, threshold=0.1, minimum=0.2)
    factors = []
    for value in (1.0, 2.0, 2.05, 2.05, 2.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        schedule.observe(value, higher_is_better=True)
        factors.append(schedule.factor(50))
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]
    assert [schedule.factor(step) for step in (0, 1)] == [0.5, 1]


def test_plateau_of_a_figure_that_should_fall() -> None:
    schedule = Plateau(100, patience=0)
    for value, factor in ((3.0, 1), (2.0, 1), (1.0, 1), (1.5, 0.5)):
        schedule.observe(value, higher_is_better=False)
        assert schedule.factor(0) == factor


def test_plateau_goes_on_from_its_state() -> None:
    one, other = Plateau(100, patience=2), Plateau(100, patience=2)
    values = [1.0, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8, 2.0, 1.0]
    for value in values[:4]:
        one.observe(value, True)
    other.load_state_dict(one.state_dict())
    for value in values[4:]:
        for schedule in (one, other):
            schedule.observe(value, True)
        assert one.state_dict() == other.state_dict()
    assert one.factor(0) == other.factor(0) < 1


def test_a_schedule_without_a_state_refuses_one() -> None:
    assert Cosine(10).state_dict() == {}
    Cosine(10).load_state_dict({})
    with pytest.raises(ValueError, match="Cosine keeps no state"):
        Cosine(10).load_state_dict({"best": 1.0})


@pytest.mark.parametrize("kind", [Constant, Cosine, Plateau])
@pytest.mark.parametrize(("total", "warmup"), [(10, 10), (10, 11), (10, -1)])
def test_a_warm_up_that_does_not_fit_is_an_error(kind: type[Schedule], total: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="does not fit into 10 steps"):
        kind(total, warmup)


def test_a_warm_up_that_does_not_fit_names_the_setting() -> None:
    settings = config.Trainer(max_epochs=1, warmup_epochs=3)
    plan = assemble.make_plan(settings, 0, Classify(TinyImages(), ("a",)), samples=640)
    node = {"_target_": "cxrcl.optim.Cosine"}
    with pytest.raises(ConfigError, match=r"30 steps does not fit into 10 steps: lower trainer\.warmup_epochs"):
        assemble.build_schedule(node, settings, plan, ("cxrcl",))


@pytest.mark.parametrize(("option", "name"), [("adamw", "AdamW"), ("sgd", "SGD"), ("lamb", "Lamb")])
def test_shipped_optimizers_are_built_with_two_groups_and_step(option: str, name: str) -> None:
    torch.manual_seed(0)
    node = compose("train", [*SMALL, f"optimizer={option}"])["optimizer"]
    model = Classify(TinyImages(norm=True), ("a",))
    optimizer = assemble.build_optimizer(node, model, ("cxrcl",))
    assert type(optimizer).__name__ == name
    assert [group["weight_decay"] for group in optimizer.param_groups] == [node["weight_decay"], 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {3e-3}
    before = model.classifier.weight.detach().clone()
    model.classify(torch.randn(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.classifier.weight)


def test_optimizers_of_other_packages_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\._target_=os\.system"):
        assemble.build_optimizer({"_target_": "os.system"}, Classify(TinyImages(), ("a",)), ("cxrcl",))
    with pytest.raises(ConfigError, match=r"optimizer\.momentun: SGD has no such setting \(did you mean `momentum`"):
        node = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentun": 0.9}
        assemble.build_optimizer(node, Classify(TinyImages(), ("a",)), ("cxrcl",))
