"""Parameter groups and schedules."""

from __future__ import annotations

import itertools
import json
import math
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from checkpoints import plain_checkpoint
from helpers import SMALL, TinyImages, settings, write_manifest
from timm.optim import param_groups_layer_decay
from torch import nn

from cxrcl.app.plan import build_optimizer, build_schedule, make_plan
from cxrcl.app.train import train
from cxrcl.commands.hydra import compose
from cxrcl.config import sections
from cxrcl.errors import ConfigError
from cxrcl.models.heads import Linear
from cxrcl.models.image import TimmEncoder
from cxrcl.models.patch_selection import TopKPatches
from cxrcl.models.text import BertText
from cxrcl.models.tokenizer import learn_wordpiece
from cxrcl.models.vit import ConvStemViT
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.training.freezing import freeze
from cxrcl.training.optim import Constant, Cosine, Plateau, Schedule, parameter_groups


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


# ------------------------------------------------------------------------------------------ layer-wise rates


def rates(model: nn.Module, layer_decay: float = 0.5) -> dict[str, float]:
    """The factor of the learning rate of every trained parameter."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.05, layer_decay, lr=8.0)
    for group in groups:
        plain = {parameter.ndim < 2 for parameter in group["params"]}
        assert plain == {group["weight_decay"] == 0} and group["weight_decay"] in (0, 0.05)
    factors = {names[parameter]: group["lr"] / 8 for group in groups for parameter in group["params"]}
    assert set(factors) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return factors


def of(factors: dict[str, float], *parts: str) -> list[set[float]]:
    """The factors of all parameters of each part."""
    return [{factor for name, factor in factors.items() if name.startswith(part)} for part in parts]


def test_rates_fall_from_the_heads_down_a_vit() -> None:
    encoder = ConvStemViT(size=16, width=8, depth=3, heads=2, stride=8)
    found = rates(Classify(encoder, ("a",)))
    blocks = [f"image_encoder.encoder.layers.{k}." for k in range(3)]
    parts = ("classifier.", "image_encoder.encoder.norm", *reversed(blocks))
    assert of(found, *parts) == [{1}, {0.5}, {0.5}, {0.25}, {0.125}]
    assert of(found, *(f"image_encoder.{k}" for k in ("stem", "class_token", "positions"))) == [{0.0625}] * 3


def test_rates_fall_from_the_heads_down_both_towers() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    definition = learn_wordpiece(["the heart is enlarged", "no effusion"], 60)
    text = BertText({"model_type": "bert", "vocab_size": 60, **sizes}, definition)
    head = partial(Linear, out_dim=6)
    found = rates(Clip(TimmEncoder("resnet10t", 32), text, head, head), 0.25)
    assert of(found, "log_scale", "image_head.", "text_head.") == [{1.0}] * 3
    stages = [f"image_encoder.model.{part}" for part in ("layer4", "layer3", "layer2", "layer1", "conv1", "bn1")]
    assert of(found, *stages) == [{1 / 4}, {1 / 16}, {1 / 64}, {1 / 256}, {1 / 1024}, {1 / 1024}]
    layers = [f"text_encoder.model.{part}" for part in ("encoder.layer.1", "encoder.layer.0", "embeddings")]
    assert of(found, *layers) == [{1 / 4}, {1 / 16}, {1 / 64}]


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_rates_are_those_of_timm_for_a_network_with_its_classifier(name: str) -> None:
    theirs = timm.create_model(name, num_classes=3)
    names = {parameter: key for key, parameter in theirs.named_parameters()}
    groups = param_groups_layer_decay(theirs, layer_decay=0.7)
    expected = {names[parameter]: group["lr_scale"] for group in groups for parameter in group["params"]}
    found = rates(Classify(TimmEncoder(name, 160), ("a", "b", "c")), 0.7)
    renamed = {key.replace("image_encoder.model.", ""): factor for key, factor in found.items()}
    classifier = "fc" if name == "test_resnet" else "head"
    assert {key.replace("classifier", classifier): pytest.approx(v) for key, v in renamed.items()} == expected


def test_the_layers_of_an_encoder_in_an_encoder_are_counted_once() -> None:
    inner = {"size": 16, "width": 8, "depth": 2, "heads": 2, "stride": 8}
    found = rates(Classify(TopKPatches(partial(ConvStemViT, **inner), num_patches=2), ("a",)))
    inside = [f"image_encoder.encoder.{part}" for part in ("encoder.layers.1", "encoder.layers.0", "stem")]
    assert of(found, "classifier", "image_encoder.scorer", *inside) == [{1}, {0.5}, {0.25}, {0.125}, {0.0625}]


def test_frozen_layers_have_no_rate_and_leave_those_of_the_others() -> None:
    encoder = ConvStemViT(size=16, width=8, depth=2, heads=2, stride=8)
    whole = rates(Classify(encoder, ("a",)))
    freeze(encoder, [0, 1])
    found = rates(Classify(encoder, ("a",)))
    assert found.items() <= whole.items()
    assert of(found, "image_encoder.stem", "image_encoder.encoder.layers.0") == [set()] * 2


def test_the_first_group_has_the_rate_of_the_heads_and_the_schedule_moves_all() -> None:
    model = Classify(TinyImages(), ("a",))
    node = {"_target_": "torch.optim.SGD", "lr": 0.8}
    optimizer = build_optimizer(node, model, ("cxrcl",), 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.8, 0.8, 0.4, 0.4]
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.classify(model.encode_images(torch.randn(2, 3, 16, 16))).sum().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.8 if name.startswith("classifier") else 0.4
        assert torch.allclose(parameter, before[name] - factor * parameter.grad), name


def test_a_run_with_layer_decay_logs_the_rate_of_the_heads(tmp_path: Path) -> None:
    data, moved = write_manifest(tmp_path / "set"), {}
    for decay in ("1.0", "0.5"):
        overrides = ("schedule=constant", "trainer.max_steps=1", "optimizer=sgd", "trainer.clip_norm=null")
        overrides += (f"trainer.layer_decay={decay}",)
        done = train({**settings(data, tmp_path / decay, *overrides), "evals": {}})
        (logged,) = (json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines())
        assert logged["train/learning_rate"] == 3e-3
        moved[decay] = plain_checkpoint(done.checkpoint)["model"]
    same = {key for key, value in moved["1.0"].items() if torch.equal(value, moved["0.5"][key])}
    assert "image_head.layer.weight" in same and "image_encoder.model.layer4.0.conv1.weight" not in same


def test_without_layer_decay_the_groups_are_as_before() -> None:
    groups = parameter_groups(Classify(TinyImages(), ("a",)), 0.05, 1.0, lr=0.1)
    assert [set(group) for group in groups] == [{"params", "weight_decay"}] * 2


def test_a_rate_of_the_encoders_alone_makes_one_more_pair_of_groups_however_many_layers_they_have() -> None:
    encoder = ConvStemViT(size=16, width=8, depth=3, heads=2, stride=8)
    groups = parameter_groups(Classify(encoder, ("a",)), 0.05, lr=2.0, encoder_lr_factor=0.5)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(2, 0.05), (2, 0), (1, 0.05), (1, 0)]


def test_layer_decay_needs_a_rate() -> None:
    node = {"_target_": "torch.optim.AdamW"}
    model = Classify(TinyImages(), ("a",))
    assert build_optimizer(node, model, ("cxrcl",))
    with pytest.raises(
        ConfigError,
        match=r"^trainer\.layer_decay=0\.5: multiplies a learning rate, but the optimizer has no lr: set optimizer\.lr",
    ):
        build_optimizer(node, model, ("cxrcl",), 0.5)
    for wrong in (0, 1.1, -1):
        with pytest.raises(ValueError, match="layer_decay"):
            sections.Trainer(layer_decay=wrong)


# -------------------------------------------------------------------------------------------------- schedules


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


def test_plateau_takes_an_equal_figure_for_none_that_is_better_even_without_a_threshold() -> None:
    schedule = Plateau(100, patience=0, threshold=0.0)
    for value, factor in ((1.0, 1), (1.0, 0.5), (1.25, 0.5), (1.25, 0.25)):
        schedule.observe(value, higher_is_better=True)
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
    settings = sections.Trainer(max_epochs=1, warmup_epochs=3)
    plan = make_plan(settings, 0, Classify(TinyImages(), ("a",)), samples=640)
    node = {"_target_": "cxrcl.training.optim.Cosine"}
    with pytest.raises(
        ConfigError, match=r"30 steps does not fit into 10 steps: .*trainer\.warmup_steps, trainer\.warmup_epochs"
    ):
        build_schedule(node, settings, plan, ("cxrcl",))


@pytest.mark.parametrize(("option", "name"), [("adamw", "AdamW"), ("sgd", "SGD"), ("lamb", "Lamb")])
def test_shipped_optimizers_are_built_with_two_groups_and_step(option: str, name: str) -> None:
    torch.manual_seed(0)
    node = compose("train", [*SMALL, f"optimizer={option}"])["optimizer"]
    model = Classify(TinyImages(norm=True), ("a",))
    optimizer = build_optimizer(node, model, ("cxrcl",))
    assert type(optimizer).__name__ == name
    assert [group["weight_decay"] for group in optimizer.param_groups] == [node["weight_decay"], 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {3e-3}
    before = model.classifier.weight.detach().clone()
    model.classify(model.encode_images(torch.randn(2, 3, 16, 16))).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.classifier.weight)


def test_optimizers_of_other_packages_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\._target_=os\.system"):
        build_optimizer({"_target_": "os.system"}, Classify(TinyImages(), ("a",)), ("cxrcl",))
    with pytest.raises(ConfigError, match=r"optimizer\.momentun: SGD has no such setting \(did you mean `momentum`"):
        node = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentun": 0.9}
        build_optimizer(node, Classify(TinyImages(), ("a",)), ("cxrcl",))
