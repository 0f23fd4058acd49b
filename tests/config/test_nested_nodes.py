"""Nodes inside nodes of a config: heads that wait for their width, and objects by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch

from cxrcl.config.nodes import bind, build, wants
from cxrcl.errors import ConfigError
from cxrcl.models.heads import Head
from cxrcl.objectives.base import Objective
from cxrcl.objectives.clip import Clip


def fault(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------- heads inside nodes


def clip_node(**head: Any) -> dict[str, Any]:
    linear = {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6}
    return {"_target_": "cxrcl.objectives.clip.Clip", "image_head": {**linear, **head}, "text_head": linear}


def bind_clip(**head: Any) -> Any:
    provided = dict.fromkeys(("image_encoder", "text_encoder", "labels"))
    return bind(clip_node(**head), Objective, "objective", provided)


def test_a_head_waits_for_its_width() -> None:
    make = bind_clip(bias=False)
    assert make.func is Clip
    head = make.keywords["image_head"](4)
    assert isinstance(head, Head) and head(torch.zeros(2, 4)).shape == (2, 6)
    assert [name for name, _ in head.named_parameters()] == ["layer.weight"]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"out_dmi": 3}, "objective.image_head.out_dmi: Linear has no such setting (did you mean `out_dim`?)"),
        ({"out_dim": "wide"}, "objective.image_head.out_dim='wide'"),
        (
            {"_target_": "cxrcl.training.optim.Cosine"},
            "objective.image_head._target_=cxrcl.training.optim.Cosine: not a Head",
        ),
        ({"_target_": "torch.nn.Linear"}, "objective.image_head._target_=torch.nn.Linear: only cxrcl"),
    ],
)
def test_faults_of_a_head(head: dict[str, Any], said: str) -> None:
    assert said in fault(lambda: bind_clip(**head))


def test_a_head_is_a_mapping() -> None:
    node = {**clip_node(), "image_head": "linear"}
    assert "objective.image_head: expected a mapping" in fault(lambda: bind(node, Objective, "objective"))


# ----------------------------------------------------------------------------------------- nodes by name


class Basket:
    """Takes nested nodes by name."""

    def __init__(self, heads: Mapping[str, Callable[..., Head]], count: int = 1) -> None:
        self.heads = {name: make(4) for name, make in heads.items()}


class Tagged(Head):
    """A nested class with a parameter that comes from outside of the config."""

    def __init__(self, in_dim: int, labels: Sequence[str], out_dim: int = 2) -> None:
        super().__init__()
        self.labels, self.out_dim = labels, out_dim


LINEAR = {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6}
TAGGED = {"_target_": f"{__name__}.Tagged"}


def basket(heads: Any, provided: Mapping[str, Any] = {}) -> Basket:
    node = {"_target_": f"{__name__}.Basket", "heads": heads}
    return build(node, Basket, "objective", provided, ("cxrcl", __name__))


def test_nodes_by_name_wait_for_their_arguments_and_null_leaves_one_out() -> None:
    made = basket({"wide": LINEAR, "gone": None, "with.dot": {**LINEAR, "out_dim": 3}}).heads
    assert {name: head.out_dim for name, head in made.items()} == {"wide": 6, "with.dot": 3}


def test_given_objects_reach_nested_nodes_that_ask_for_them() -> None:
    made = basket({"plain": LINEAR, "tagged": TAGGED}, provided={"labels": ("a", "b")}).heads
    assert made["tagged"].labels == ("a", "b")


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ({"a": {**LINEAR, "out_dmi": 3}}, "objective.heads.a.out_dmi: Linear has no such setting (did you mean"),
        ({"a": LINEAR, "b": {**LINEAR, "out_dim": "wide"}}, "objective.heads.b.out_dim='wide'"),
        (
            {"a": {"_target_": "cxrcl.training.optim.Cosine"}},
            "objective.heads.a._target_=cxrcl.training.optim.Cosine: not a Head",
        ),
        ({"a": {"_target_": "torch.nn.Linear"}}, "objective.heads.a._target_=torch.nn.Linear: only cxrcl"),
        ({"a": {"out_dim": 3}}, "objective.heads.a: expected a mapping with `_target_"),
        ({"a": {**TAGGED, "labels": ["x"]}}, "objective.heads.a.labels: comes from other parts of the config"),
        ({"a": "linear"}, "objective.heads.a: expected a mapping with `_target_"),
        ({"a": {}}, "objective.heads.a: expected a mapping with `_target_"),
        ([LINEAR], "objective.heads: expected a mapping"),
    ],
)
def test_faults_of_nodes_by_name_say_where(heads: Any, said: str) -> None:
    assert said in fault(lambda: basket(heads, provided={"labels": ()}))


def test_what_a_node_wants_includes_what_its_nested_nodes_want() -> None:
    def wanted(**heads: Any) -> set[str]:
        node = {"_target_": f"{__name__}.Basket", "heads": heads}
        return wants(node, Basket, "objective", ("cxrcl", __name__))

    assert wanted() == wanted(gone=None) == {"heads", "count"}
    assert wanted(a=LINEAR, b=TAGGED) == {"heads", "count", "in_dim", "out_dim", "bias", "labels"}
    clip = wants(clip_node(), Objective, "objective")
    assert {"image_encoder", "targets", "in_dim", "bias"} <= clip
    message = fault(lambda: wanted(a={"_target_": "cxrcl.models.heads.Liner"}))
    assert message.startswith("objective.heads.a._target_=cxrcl.models.heads.Liner")
