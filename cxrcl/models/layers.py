"""The layers of networks that others wrote, from their structure: see `cxrcl.models.base.Encoder.layer_names`.

In all of them the last norm counts to the layer before it: what follows the blocks is a layer of its own only where it
has matrices, such as a projection.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

Layers = list[list[str]]


def below(prefix: str, layers: Layers) -> Layers:
    """Names as seen from the module that holds this one as `prefix`."""
    return [[f"{prefix}.{name}" for name in names] for names in layers]


def of_timm(model: Any) -> Layers:
    """Stem, then the stages of a hierarchical network or the blocks of a transformer, as timm itself groups them."""
    from timm.models import group_parameters

    try:
        groups = group_parameters(model, model.group_matcher(coarse=True))
    except (AttributeError, AssertionError):  # a few models do not tell their groups
        return of_children(model)
    return _join_norm(model, [groups[number] for number in sorted(groups)])


def of_stack(model: nn.Module, last: Collection[str] = ()) -> Layers:
    """Embeddings, then each entry of the largest `nn.ModuleList`: transformers, stages of Swin. Without one, one layer.

    Args:
        last: parameters that act behind the blocks although they are registered before them.
    """
    stack = _largest_list(model)
    if stack is None:
        return [[name for name, _ in model.named_parameters()]]
    blocks: Layers = [[f"{stack}.{number}"] for number, _ in model.get_submodule(stack).named_children()]
    first, rest, behind = list[str](), list[str](), False
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if name.startswith(f"{stack}."):
            behind = True
        elif name in last or (behind and id(parameter) not in tables):
            rest.append(name)
        else:  # tables of relative positions may be registered last, but all blocks read them
            first.append(name)
    return _join_norm(model, [first, *blocks, rest])


def of_children(model: nn.Module) -> Layers:
    """Each part that is made of several: the stages of convolutional networks. Single layers between them are joined.

    Where one part holds nearly everything (`features` of a DenseNet), its parts are taken.
    """
    before, after, path = list[str](), list[str](), ""
    while True:
        part, below_it = model.get_submodule(path), f"{path}." if path else ""
        direct = [below_it + name for name, _ in part.named_parameters(recurse=False)]
        children = [(below_it + name, child) for name, child in part.named_children() if size(child)]
        main = [name for name, child in children if size(child) > 0.9 * size(part) and list(child.children())]
        if not main:
            break
        place = [name for name, _ in children].index(main[0])
        before += direct + [name for name, _ in children[:place]]
        after = [name for name, _ in children[place + 1 :]] + after
        path = main[0]
    layers: Layers = [before + direct]
    open_layer = True  # single layers join it
    for name, child in children:
        single = sum(1 for inner in child.modules() if list(inner.parameters(recurse=False))) == 1
        if single and open_layer:
            layers[-1].append(name)
        else:
            layers.append([name])
        open_layer = single
    return _join_norm(model, [*layers, after])


def size(module: nn.Module) -> int:
    """Number of values of all parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _largest_list(model: nn.Module) -> str | None:
    """Name of the ModuleList with the most parameters; of equal ones the outer one."""
    lists = {name: size(part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    return max(lists, key=lambda name: lists[name]) if any(lists.values()) else None


def _join_norm(model: nn.Module, layers: Layers) -> Layers:
    """Without empty layers; a last one that has vectors only joins the one before."""
    layers = [names for names in layers if names]
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    end = [p for name in layers[-1] for p in ([parameters[name]] if name in parameters else modules[name].parameters())]
    if len(layers) > 1 and all(parameter.ndim < 2 for parameter in end):
        layers[-2:] = [layers[-2] + layers[-1]]
    return layers
