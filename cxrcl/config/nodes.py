"""Nodes: mappings with `_target_: package.module.Class`, from which objects are made.

The signature of the class is the schema of its node. `build` makes the object: the class must come from an allowed
package, be a subclass of the base that the place asks for, and every key must be a parameter of its constructor.
Nothing else in a config can name code.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import reprlib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pydantic
from pydantic import ConfigDict, Field

from cxrcl.config.moved import current_target
from cxrcl.errors import ConfigError, UserError, nearest

T = TypeVar("T")
Node = dict[str, Any]
Packages = Sequence[str]  # whose classes a node may name
OWN_PACKAGES = ("cxrcl",)
OPTIMIZER_PACKAGES = ("torch.optim", "timm.optim")


# pydantic names the branch of a union in an error's location; a person wants the key only.
_BRANCH = re.compile(r"(float|int|str|bool|none)$|(is-instance|list|dict|tuple|literal|function-\w+|nullable)\[")


def one_line(error: pydantic.ValidationError, where: str, fields: Callable[[Sequence[Any]], Iterable[str]]) -> str:
    faults: dict[str, str] = {}
    for fault in error.errors():
        keys = [str(k) for k in fault["loc"] if not _BRANCH.match(str(k))]
        path = ".".join([where, *keys] if where else keys)
        if path in faults:  # another branch of the same union
            continue
        if fault["type"] == "extra_forbidden":
            faults[path] = f"{path}: no such setting{nearest(keys[-1], fields(fault['loc'][:-1]))}"
        elif fault["type"] == "missing":
            faults[path] = f"{path}: missing, set it with {path}=..."
        elif fault["type"] == "list_type" and isinstance(fault["input"], str):
            faults[path] = f"{path}={fault['input']!r}: expected a list: '{path}=[{fault['input']}]'"
        else:
            message = fault["msg"][0].lower() + fault["msg"][1:]
            faults[path] = f"{path}={reprlib.repr(fault['input'])}: {message}"
    return "; ".join(faults.values())


def _allowed(target: str, packages: Packages) -> bool:
    return any(target == package or target.startswith(package + ".") for package in packages)


def locate(node: Mapping[str, Any], base: type, where: str, packages: Packages = OWN_PACKAGES) -> type:
    """The class that a node names.

    Raises:
        ConfigError: no `_target_`, outside of `packages`, not importable, or not a subclass of `base`.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise ConfigError(f"{where}: expected a mapping with `_target_: package.module.Class`, found {node!r}")
    target = current_target(target)
    if not _allowed(target, packages):
        hint = (
            "" if target.startswith("_") else "; a package of your own is named by --allow-package on the command line"
        )
        raise ConfigError(f"{where}._target_={target}: only {', '.join(packages)} may be named here{hint}")
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise ConfigError(f"{where}._target_={target}: expected package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        is_absent = isinstance(error, ModuleNotFoundError) and module_name.split(".")[0] == error.name
        hint = "" if not is_absent else ": install the package, or set PYTHONPATH to the folder that holds it"
        raise ConfigError(f"{where}._target_={target}: cannot import {module_name} ({error}){hint}") from None
    cls = getattr(module, name, None)
    if not inspect.isclass(cls):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, base)]
        raise ConfigError(f"{where}._target_={target}: {module_name} has no class {name}{nearest(name, classes)}")
    # The name must lead to where the class is defined: `cxrcl.x.os.Thing` would leave the allowed packages.
    if not issubclass(cls, base) or not _allowed(cls.__module__, packages):
        article = "an" if base.__name__[0] in "AEIO" else "a"
        raise ConfigError(f"{where}._target_={target}: not {article} {base.__name__}")
    return cls


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters by name, annotations resolved."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    declared = dict(list(inspect.signature(cls.__init__).parameters.items())[1:])  # type: ignore[misc]
    return {name: p.replace(annotation=hints.get(name, Any)) for name, p in declared.items()}


def bind(
    node: Mapping[str, Any],
    base: type[T],
    where: str,
    provided: Mapping[str, Any] = {},
    packages: Packages = OWN_PACKAGES,
    partial: bool = False,
) -> Callable[..., T]:
    """Check a node against its class and return the call that makes the object, without making it.

    Args:
        base: the class that the object must be an instance of.
        where: the node's path in the config, for messages.
        provided: objects offered to the constructor by parameter name; those it does not ask for are not passed. A
            config cannot set them.
        partial: required parameters may be missing (they are passed at the call).

    A parameter annotated `Callable[..., X]`, with X a class, takes a nested node whose class derives from X; it
    receives a callable that still waits for its missing arguments (how heads learn their width). One annotated
    `Mapping[str, Callable[..., X]]` takes nested nodes by name. What is `provided` is offered to nested nodes as well.
    """
    cls = locate(node, base, where, packages)
    declared = parameters(cls)
    settable = {name: p for name, p in declared.items() if name not in provided}
    values = {key: value for key, value in node.items() if key != "_target_"}
    for key in values:
        if key in provided and key in declared:
            raise ConfigError(f"{where}.{key}: comes from other parts of the config and cannot be set here")
        if key not in settable:
            raise ConfigError(f"{where}.{key}: {cls.__name__} has no such setting{nearest(key, settable)}")
    schema: dict[str, Any] = {}
    for name, parameter in settable.items():
        nested, several = _waits_for(parameter.annotation)
        if nested is not None and name in values:
            if not isinstance(values[name], Mapping):
                raise ConfigError(f"{where}.{name}: expected a mapping with `_target_`, found {values[name]!r}")
            if several:  # a null takes a node of a shipped config away
                values[name] = {
                    key: bind(part, nested, f"{where}.{name}.{key}", provided, packages, partial=True)
                    for key, part in values[name].items()
                    if part is not None
                }
            else:
                values[name] = bind(values[name], nested, f"{where}.{name}", provided, packages, partial=True)
            schema[name] = (Any, ...)
        elif parameter.default is not inspect.Parameter.empty:
            schema[name] = (parameter.annotation, parameter.default)
        elif partial:
            schema[name] = (parameter.annotation | None, None)
        else:
            schema[name] = (parameter.annotation, ...)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False)
    aliases: Any = {f"p_{name}": (kind, Field(default, alias=name)) for name, (kind, default) in schema.items()}
    model = pydantic.create_model(cls.__name__, __config__=config, **aliases)
    try:
        checked = model.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigError(one_line(error, where, lambda _: settable)) from None
    arguments = {name: getattr(checked, f"p_{name}") for name in values}
    arguments |= {name: value for name, value in provided.items() if name in declared}
    return functools.partial(cls, **arguments)


def _waits_for(annotation: Any) -> tuple[type | None, bool]:
    """X of an annotation `Callable[..., X]` where X is a class, else None; and whether a mapping of them is asked."""
    several = typing.get_origin(annotation) is Mapping and typing.get_args(annotation)[0] is str
    if several:
        annotation = typing.get_args(annotation)[1]
    if typing.get_origin(annotation) is not Callable:
        return None, several
    made = typing.get_args(annotation)[-1]
    return (made if inspect.isclass(made) else None), several


def build(
    node: Mapping[str, Any],
    base: type[T],
    where: str,
    provided: Mapping[str, Any] = {},
    packages: Packages = OWN_PACKAGES,
) -> T:
    """Make the object that a node describes (see `bind`); a ValueError of its constructor becomes a ConfigError."""
    make = bind(node, base, where, provided, packages)
    try:
        return make()
    except UserError:
        raise
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def wants(node: Mapping[str, Any], base: type, where: str, packages: Packages = OWN_PACKAGES) -> set[str]:
    """Names of the parameters of the node's class and of those of nodes nested in it."""
    declared = parameters(locate(node, base, where, packages))
    names = set(declared)
    for name, parameter in declared.items():
        nested, several = _waits_for(parameter.annotation)
        if nested is not None and isinstance(node.get(name), Mapping):
            parts = node[name] if several else {"": node[name]}
            for key, part in parts.items():
                if part is not None:
                    names |= wants(part, nested, f"{where}.{name}{key and '.'}{key}", packages)
    return names


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two nested configs.

    A setting that only the new one has, at the default of its class, is none: a later version brought it.
    """
    keys: list[str] = []
    for key in sorted({*old, *new}):
        a, b, path = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            keys += differences(a, b, path + ".")
        elif a != b and not (key not in old and _is_default(new, key)):
            keys.append(path)
    return keys


def _is_default(node: Mapping[str, Any], key: str) -> bool:
    """Whether a setting of a node has the default of its class; False for classes of other packages."""
    try:
        declared = parameters(locate(node, object, key))
    except ConfigError:
        return False
    return key in declared and declared[key].default == node[key]
