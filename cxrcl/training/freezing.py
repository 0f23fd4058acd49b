"""Layers of an encoder that are not trained; `Encoder.layer_names` says which there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from cxrcl.models.base import Encoder

Which = Literal["all"] | Sequence[int] | Mapping[str, int]


def layer_numbers(encoder: Encoder) -> tuple[dict[nn.Parameter, int], int]:
    """The layer of every parameter, 0 at the input, and how many layers there are.

    Raises:
        ValueError: `layer_names` names something that the encoder has not, or does not cover every parameter once.
    """
    parameters, modules = dict(encoder.named_parameters(remove_duplicate=False)), dict(encoder.named_modules())
    layers, where = encoder.layer_names(), f"{type(encoder).__name__}.layer_names()"
    numbers: dict[nn.Parameter, int] = {}
    for number, names in enumerate(layers):
        for name in names:
            if name not in parameters and name not in modules:
                raise ValueError(f"{where}: layer {number} names {name}, which is neither a module nor a parameter")
            for parameter in [parameters[name]] if name in parameters else modules[name].parameters():
                if numbers.setdefault(parameter, number) != number:
                    raise ValueError(f"{where}: {name} is in layers {numbers[parameter]} and {number}")
    if absent := [name for name, parameter in parameters.items() if parameter not in numbers]:
        raise ValueError(f"{where}: {len(absent)} parameters are in no layer, such as {absent[0]}")
    return numbers, len(layers)


def freeze(encoder: Encoder, which: Which) -> None:
    """Take layers out of training: no gradient, and their BatchNorm and dropout stay in evaluation mode.

    Copies of the encoder that are made afterwards (MoCo's key encoder) keep that mode. A part without parameters, such
    as dropout, belongs to the part before it.

    Args:
        which: `all`, numbers of layers (negative ones count from the end), or {all_but_last: N}.

    Raises:
        ValueError: there is no such layer.
    """
    numbers, count = layer_numbers(encoder)
    chosen = _chosen(which, count)
    parameters = {parameter for parameter, number in numbers.items() if number in chosen}
    for parameter in parameters:
        parameter.requires_grad_(False)
    encoder.frozen_parts = tuple(_wholly_in(encoder, parameters))
    encoder.train(encoder.training)


def _chosen(which: Which, count: int) -> set[int]:
    if which == "all":
        return set(range(count))
    if isinstance(which, Mapping):
        trained = which["all_but_last"]
        if not 0 <= trained < count:
            raise ValueError(f"{{all_but_last: {trained}}}: the encoder has {count} layers, expected 0 to {count - 1}")
        return set(range(count - trained))
    assert not isinstance(which, str)
    if strange := [number for number in which if not -count <= number < count]:
        raise ValueError(
            f"no layer {', '.join(map(str, strange))}: the encoder has {count} layers, 0 to {count - 1} "
            f"(or -1 to {-count} from the end)"
        )
    return {number % count for number in which}


def _wholly_in(module: nn.Module, frozen: set[nn.Parameter], name: str = "") -> list[str]:
    """Names of the largest parts that have frozen parameters only, in the order of registration."""
    inside = list(module.parameters())
    if inside and frozen.issuperset(inside):
        return [name]
    names: list[str] = []
    direct = list(module.parameters(recurse=False))
    follows = bool(direct) and frozen.issuperset(direct)
    for child, part in module.named_children():
        path = f"{name}.{child}" if name else child
        inside = list(part.parameters())
        if inside:
            follows = frozen.issuperset(inside)
            names += _wholly_in(part, frozen, path)
        elif follows:
            names.append(path)
    return names
