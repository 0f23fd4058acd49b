"""Sections: the fixed skeleton of a config as pydantic models; unknown keys are refused, every mistake is one line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from cxrcl.config.nodes import Node, one_line
from cxrcl.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


# ---------------------------------------------------------------------------------------------- the skeleton


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy, scikit-learn and PyTorch all take
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
    read_px: int | None = Field(None, ge=16, description="shrink images to this shorter side; null: their own")
    sources: dict[str, Node | None] = {}
    labels: list[str] | None = None
    views: list[str] | None = None
    filter: dict[str, list[str]] = {}
    fraction: float = Field(1.0, gt=0, le=1, description="of the training patients of each source that names none")
    fraction_seed: int = Field(0, ge=0, description="which patients those are; smaller fractions are inside larger")
    split_lists: str | None = Field(None, description="a folder of lists of images, in place of the column split")
    label_policy: Policy | dict[str, Policy] = "ignore"
    unit: Literal["study", "image"] = "study"
    text: Literal["auto", "report", "prompts"] = "auto"
    reports: Reports = Reports()
    check_patients: bool = True
    allow_outside_root: bool = False
    max_bad_fraction: float = Field(
        0.01, ge=0, le=1, description="stop a training of whose samples more than this had an image that cannot be read"
    )
    skip_bad_images: bool = Field(False, description="leave images that cannot be read out of evaluation")
    cache_tokens: bool = Field(True, description="look up the word pieces of all training sentences at the start")
    cache_features: bool = Field(
        False, description="encode each image once: for a frozen encoder, without augmentation"
    )
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
    """Trainings of one command: see `cxrcl.app.study`."""

    inits: dict[str, bool | str | None] = Field(
        min_length=1, description="start of the encoder -> its file; null: left out; random: true or false"
    )
    fractions: list[Annotated[float, Field(gt=0, le=1)]]
    seeds: list[Seed]
    draws: list[Annotated[int, Field(ge=0)]]
    probe: bool = Field(True, description="train the last layer only")
    figure: str = "classification/mean_auroc"
    keep: Literal["all", "best", "none"] = Field("best", description="checkpoints of a cell that was scored")


class Train(_Section):
    name: str = "run"
    seed: Seed = 0
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
    groups: list[str] = Field([], description="columns; sex*age are the intersections of both")
    at: dict[Literal["specificity", "sensitivity"], list[Annotated[float, Field(gt=0, lt=1)]]] = Field(
        {}, description="where ROC curves are read"
    )
    readers: str | None = Field(None, description="a CSV of people's readings: image, reader and one column a label")
    resamples: int = Field(1000, ge=0)
    reference: str | None = None
    ensemble: bool = False
    random_weights: bool = True
    data: EvaluateData = EvaluateData()
    evals: dict[str, Node | None] = {}


class Explain(_Section):
    checkpoint: str | list[str]
    target: float | str | dict[str, float]
    figure: str = Field("mean_auroc", description="what a target of one number is")
    of: str | None = Field(None, description="entry of a results.json that is the target; null: the evaluator's name")
    tolerance: float | None = Field(None, ge=0, description="how near is reached; null: by the digits of the target")
    splits: list[Literal["train", "valid", "test"]] = ["test"]
    out: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout_minutes: float = Field(10.0, gt=0)
    batch_size: int = Field(64, ge=1)
    prompts: list[str] = Field([], description="further prompts files to try")
    passes: list[str] | None = Field(None, description="choices whose passes over the images are made; null: all")
    images: int = Field(5000, ge=1, description="of a pass, at most; images that are scored now are always in")
    embeddings: str | None = Field(None, description="stored embeddings in place of the images")
    seconds: float = Field(60.0, ge=0, description="for readings with several changes")
    resamples: int = Field(1000, ge=0)
    data: EvaluateData = EvaluateData()
    evals: dict[str, Node | None] = {}


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
        raise ConfigError(one_line(error, "", functools.partial(_fields_at, schema))) from None


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
