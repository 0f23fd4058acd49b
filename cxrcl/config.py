"""From YAML to objects, with every mistake answered in one line before any work starts.

Two kinds of config exist. The *skeleton* (`Train`, `Evaluate`, ...) is fixed: pydantic models, unknown keys refused.
A *node* is a mapping with `_target_: package.module.Class`; the signature of that class is its schema. `build` makes
the object: the class must come from an allowed package, be a subclass of the base that the place asks for, and every
key must be a parameter of its constructor. Nothing else in a config can name code.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import reprlib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from cxrcl.errors import ConfigError, UserError

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Node = dict[str, Any]
OWN_PACKAGES = ("cxrcl",)
OPTIMIZER_PACKAGES = ("torch.optim", "timm.optim")


def nearest(name: str, known: Iterable[str]) -> str:
    """' (did you mean `x`?)', or the list of what is known, or nothing."""
    names = sorted(str(k) for k in known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if match:
        return f" (did you mean `{match[0]}`?)"
    return f" (known: {', '.join(names)})" if names else ""


# ---------------------------------------------------------------------------------------------- the skeleton


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


Policy = Literal["ignore", "zeros", "ones", "keep"]


class Reports(_Section):
    """How a report becomes the text of a sample."""

    sections: list[Literal["findings", "impression"]] = ["findings", "impression"]
    sentences: int | None = Field(None, ge=1, description="draw this many sentences; null takes the whole report")
    shuffle: bool = True
    min_words: int = Field(2, ge=1)
    section: Literal["all", "one"] = Field("all", description="one: a draw is made from a random one of the sections")
    augmented: bool = Field(True, description="a second text is drawn from the column text_augment where it is filled")


class Data(_Section):
    root: str | None = None
    store: str | None = None
    read_px: int | None = Field(None, ge=16, description="shrink films to this shorter side; null: their own")
    sources: dict[str, Node | None] = {}
    labels: list[str] | None = None
    views: list[str] | None = None
    filter: dict[str, list[str]] = {}
    fraction: float = Field(1.0, gt=0, le=1, description="of the training patients of each source that names none")
    fraction_seed: int = Field(0, ge=0, description="which patients those are; smaller fractions are inside larger")
    split_lists: str | None = Field(None, description="a folder of lists of films, in place of the column split")
    label_policy: Policy | dict[str, Policy] = "ignore"
    unit: Literal["study", "image"] = "study"
    text: Literal["auto", "report", "prompts"] = "auto"
    reports: Reports = Reports()
    check_patients: bool = True
    allow_outside_root: bool = False
    max_bad_fraction: float = Field(
        0.01, ge=0, le=1, description="stop a training of whose samples more than this had a film that cannot be read"
    )
    skip_bad_images: bool = Field(False, description="leave films that cannot be read out of evaluation")
    cache_tokens: bool = Field(True, description="look up the word pieces of all training sentences at the start")
    cache_features: bool = Field(False, description="encode each film once: for a frozen encoder, without augmentation")
    num_workers: int = Field(2, ge=0)


def _kind_of_freezing(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"all_but_last"}:
        numbers = list(value.values())
    else:
        numbers = value if isinstance(value, list) else [None]
    if value in (None, "all") or all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        return value
    raise PydanticCustomError(
        "freeze", "expected null, all, numbers of layers such as [0,1] (-1 is the last one), or {all_but_last: 2}"
    )


Frozen = Annotated[Literal["all"] | list[int] | dict[str, int] | None, BeforeValidator(_kind_of_freezing)]


class Freeze(_Section):
    """Layers of the towers that are not trained; `cxrcl.models.base.Encoder.layer_names` counts them."""

    image_encoder: Frozen = None
    text_encoder: Frozen = None


class Trainer(_Section):
    batch_size: int = Field(64, ge=1, description="over all processes")
    micro_batch_size: int | None = Field(
        None, ge=1, description="samples of a process that go through the towers at a time; null: all"
    )
    max_epochs: float | None = Field(None, gt=0)
    max_steps: int | None = Field(None, ge=1)
    warmup_epochs: float | None = Field(None, ge=0)
    warmup_steps: int | None = Field(None, ge=0)
    accumulate: int = Field(1, ge=1)
    clip_norm: float | None = Field(1.0, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning rate of a layer over that of the layer above")
    encoder_lr_factor: float = Field(1.0, gt=0, description="learning rate of the towers over that of the heads")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="average the weights for evaluation; null: do not")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    evaluate_every_epochs: float | None = Field(1.0, gt=0)
    evaluate_every_steps: int | None = Field(None, ge=1)
    log_every: int = Field(20, ge=1)
    select: str | None = Field(
        None, description="figure that chooses the best checkpoint, such as zero_shot/mean_auroc"
    )
    select_mode: Literal["max", "min"] | None = None
    lower_batch_size: bool = Field(False, description="to the number of training samples, where there are fewer")
    patience: int | None = Field(
        None, ge=1, description="evaluations without a better `select` after which training ends; null: none"
    )
    keep_best: int = Field(1, ge=0)
    save_every_steps: int | None = Field(None, ge=1)
    sync_batchnorm: bool = False
    deterministic: bool = False


class Study(_Section):
    """Trainings of one command: see `cxrcl.study`."""

    inits: dict[str, bool | str | None] = Field(
        min_length=1, description="start of the encoder -> its file; null: left out; random: true or false"
    )
    fractions: list[Annotated[float, Field(gt=0, le=1)]]
    seeds: list[Annotated[int, Field(ge=0)]]
    draws: list[Annotated[int, Field(ge=0)]]
    probe: bool = Field(True, description="train the last layer only")
    figure: str = "classification/mean_auroc"
    keep: Literal["all", "best", "none"] = Field("best", description="checkpoints of a cell that was scored")


class Train(_Section):
    name: str = "run"
    seed: int = Field(0, ge=0)
    run_dir: str | None = None
    init_from: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout_minutes: float = Field(10.0, gt=0)
    data: Data
    prompts: Node
    transform: Node
    image_encoder: Node | None = None
    text_encoder: Node | None = None
    objective: Node
    optimizer: Node
    schedule: Node
    splits: list[Literal["train", "valid", "test"]] = ["valid"]
    evals: dict[str, Node | None] = {}
    freeze: Freeze = Freeze()
    trainer: Trainer
    study: Study | None = None


class EvaluateData(_Section):
    """What differs from the data that the checkpoint was trained on; null keeps it."""

    root: str | None = None
    store: str | None = None
    read_px: int | None = Field(None, ge=16)
    sources: dict[str, Node | None] = {}
    views: list[str] | None = None
    filter: dict[str, list[str]] | None = None
    fraction: float | None = Field(None, gt=0, le=1)
    fraction_seed: int | None = Field(None, ge=0)
    split_lists: str | None = None
    labels: list[str] | None = None
    label_policy: Policy | dict[str, Policy] | None = None
    num_workers: int = Field(2, ge=0)
    check_patients: bool | None = None
    allow_outside_root: bool | None = None
    skip_bad_images: bool | None = None


class Evaluate(_Section):
    checkpoint: str | list[str]
    splits: list[Literal["train", "valid", "test"]] = ["test"]
    out: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout_minutes: float = Field(10.0, gt=0)
    batch_size: int = Field(64, ge=1)
    fit_on: Literal["train", "valid", "test"] | None = "valid"
    threshold: str | float | None = None
    calibrate: Literal["temperature"] | None = None
    groups: list[str] = []
    resamples: int = Field(1000, ge=0)
    ensemble: bool = False
    random_weights: bool = True
    data: EvaluateData = EvaluateData()
    evals: dict[str, Node | None] = {}


# pydantic names the branch of a union in an error's location; a person wants the key only.
_BRANCH = re.compile(r"(float|int|str|bool|none)$|(is-instance|list|dict|tuple|literal|function-\w+|nullable)\[")


def _one_line(error: pydantic.ValidationError, where: str, fields: Callable[[Sequence[Any]], Iterable[str]]) -> str:
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


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> Iterable[str]:
    for key in location:
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        if not (inspect.isclass(annotation) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return model.model_fields


def parse(values: Mapping[str, Any], schema: type[M]) -> M:
    """Validate plain values against a skeleton.

    Raises:
        ConfigError: all faults at once, each with its key.
    """
    try:
        return schema.model_validate(dict(values))
    except pydantic.ValidationError as error:
        raise ConfigError(_one_line(error, "", functools.partial(_fields_at, schema))) from None


# ------------------------------------------------------------------------------------------------- the nodes


def _allowed(target: str, packages: Sequence[str]) -> bool:
    return any(target == package or target.startswith(package + ".") for package in packages)


def locate(node: Mapping[str, Any], base: type, where: str, packages: Sequence[str] = OWN_PACKAGES) -> type:
    """The class that a node names.

    Raises:
        ConfigError: no `_target_`, outside of `packages`, not importable, or not a subclass of `base`.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise ConfigError(f"{where}: expected a mapping with `_target_: package.module.Class`, found {node!r}")
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
        own = _allowed(target, OWN_PACKAGES)
        hint = "" if own else ": install the package, or set PYTHONPATH to the folder that holds it"
        raise ConfigError(f"{where}._target_={target}: cannot import {module_name} ({error}){hint}") from None
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, base)]
        raise ConfigError(f"{where}._target_={target}: {module_name} has no class {name}{nearest(name, classes)}")
    # The name must lead to where the class is defined: `cxrcl.x.os.Thing` would leave the allowed packages.
    if not issubclass(found, base) or not _allowed(found.__module__, packages):
        article = "an" if base.__name__[0] in "AEIO" else "a"
        raise ConfigError(f"{where}._target_={target}: not {article} {base.__name__}")
    return found


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters by name, annotations resolved."""
    hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    found = dict(list(inspect.signature(cls.__init__).parameters.items())[1:])  # type: ignore[misc]
    return {name: p.replace(annotation=hints.get(name, Any)) for name, p in found.items()}


def bind(
    node: Mapping[str, Any],
    base: type[T],
    where: str,
    given: Mapping[str, Any] = {},
    packages: Sequence[str] = OWN_PACKAGES,
    partial: bool = False,
) -> Callable[..., T]:
    """Check a node against its class and return the call that makes the object, without making it.

    Args:
        base: the class that the object must be an instance of.
        where: the node's path in the config, for messages.
        given: objects offered to the constructor by parameter name; those it does not ask for are not passed. A
            config cannot set them.
        partial: required parameters may be missing (they are passed at the call).

    A parameter annotated `Callable[..., X]`, with X a class, takes a nested node whose class derives from X; it
    receives a callable that still waits for its missing arguments (how heads learn their width). One annotated
    `Mapping[str, Callable[..., X]]` takes nested nodes by name. What is `given` is offered to nested nodes as well.
    """
    cls = locate(node, base, where, packages)
    known = parameters(cls)
    settable = {name: p for name, p in known.items() if name not in given}
    values = {key: value for key, value in node.items() if key != "_target_"}
    for key in values:
        if key in given and key in known:
            raise ConfigError(f"{where}.{key}: comes from other parts of the config and cannot be set here")
        if key not in settable:
            raise ConfigError(f"{where}.{key}: {cls.__name__} has no such setting{nearest(key, settable)}")
    schema: dict[str, Any] = {}
    for name, parameter in settable.items():
        nested, several = _waits_for(parameter.annotation)
        if nested is not None and name in values:
            if not isinstance(values[name], Mapping):
                raise ConfigError(f"{where}.{name}: expected a mapping with `_target_`, found {values[name]!r}")
            nodes = {name: values[name]}
            if several:  # a null takes a node of a shipped config away
                nodes = {f"{name}.{key}": node for key, node in values[name].items() if node is not None}
            made: list[Any] = [bind(v, nested, f"{where}.{k}", given, packages, partial=True) for k, v in nodes.items()]
            values[name] = dict(zip((k.split(".", 1)[1] for k in nodes), made, strict=True)) if several else made[0]
            schema[name] = (Any, ...)
            continue
        if parameter.default is not inspect.Parameter.empty:
            schema[name] = (parameter.annotation, parameter.default)
        elif partial:
            schema[name] = (parameter.annotation | None, None)
        else:
            schema[name] = (parameter.annotation, ...)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    aliases: Any = {f"p_{name}": (kind, Field(default, alias=name)) for name, (kind, default) in schema.items()}
    model = pydantic.create_model(cls.__name__, __config__=config, **aliases)
    try:
        checked = model.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigError(_one_line(error, where, lambda _: settable)) from None
    arguments = {name: getattr(checked, f"p_{name}") for name in values}
    arguments |= {name: value for name, value in given.items() if name in known}
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
    given: Mapping[str, Any] = {},
    packages: Sequence[str] = OWN_PACKAGES,
) -> T:
    """Make the object that a node describes (see `bind`); a ValueError of its constructor becomes a ConfigError."""
    make = bind(node, base, where, given, packages)
    try:
        return make()
    except UserError:
        raise
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def wants(node: Mapping[str, Any], base: type, where: str, packages: Sequence[str] = OWN_PACKAGES) -> set[str]:
    """Names of the parameters of the node's class and of those of nodes nested in it."""
    known = parameters(locate(node, base, where, packages))
    found = set(known)
    for name, parameter in known.items():
        nested, several = _waits_for(parameter.annotation)
        if nested is not None and isinstance(node.get(name), Mapping):
            parts = node[name] if several else {"": node[name]}
            for key, part in parts.items():
                if part is not None:
                    found |= wants(part, nested, f"{where}.{name}{key and '.'}{key}", packages)
    return found


def steps(
    count: int | None, epochs: float | None, steps_per_epoch: int, where: str, default: int | None = None
) -> int | None:
    """One duration out of `<where>_steps` and `<where>_epochs`: converted once, at the start."""
    if count is not None and epochs is not None:
        raise ConfigError(f"{where}_steps={count} and {where}_epochs={epochs} contradict: set one of them to null")
    if count is not None:
        return count
    if epochs is not None:
        return max(0, round(epochs * steps_per_epoch))
    return default


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two nested configs."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        a, b, path = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, path + ".")
        elif a != b:
            found.append(path)
    return found
