"""What the text and image encoders of Hugging Face share: configs, weights, and no code out of a folder, ever."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from cxrcl.errors import first_line
from cxrcl.models.weights import LoadReport, demand_all, from_transformers

# Model types by the type they are under their heads: the code of the first is not part of transformers, that of the
# second hides three patches of four, drawn at random, in evaluation too.
ADAPTED = {"cxr-bert": "bert", "vit_mae": "vit"}  # BiomedVLP-CXR-BERT and BioViL-T's text encoder; masked autoencoders
# What else is in the files of two-tower models.
_OTHER_TOWER = ("vision_model.", "text_model.", "visual_projection.", "text_projection.", "logit_scale", "logit_bias")
_ABOUT_THE_FILE = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "auto_map")
# What an encoder decides itself; a name of attention code in the hub would be fetched and run.
_ABOUT_THE_CALL = ("attn_implementation", "_attn_implementation", "return_dict", "output_hidden_states")


def recompute(model: Any) -> None:
    """Turn on gradient checkpointing of a Hugging Face model."""
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # a cache of keys is for generation, and excludes recomputing
    options = {"use_reentrant": False}
    try:
        if hasattr(model, "activation_checkpointing_enable"):  # the name in newer transformers
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    except ValueError as error:
        raise ValueError(f"checkpointing=true: {type(model).__name__} does not support it") from error


def plain(config: Any) -> dict[str, Any]:
    """config.json as plain containers, without what only describes the file it came from."""
    values = {k: v for k, v in config.to_diff_dict().items() if k not in _ABOUT_THE_FILE}
    return {"model_type": config.model_type} | values


def read_config(folder: Path, part: Literal["text", "vision"]) -> tuple[dict[str, Any], str | None]:
    """The content of config.json, of one encoder where it is of a two-tower model such as CLIP, by its `ADAPTED` type.

    Returns:
        The content, and that type, None where it is not adapted.
    """
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if isinstance(inner := values.get(f"{part}_config"), dict):
        values = {"model_type": f"{values['model_type']}_{part}_model", **inner}
    adapted = ADAPTED.get(values["model_type"])
    return values | ({"model_type": adapted} if adapted else {}), adapted


def config_of(values: dict[str, Any]) -> Any:
    """The transformers config of these values.

    Raises:
        ValueError: a type that transformers does not have, or values that it refuses.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    if values["model_type"] not in CONFIG_MAPPING:
        raise ValueError(
            f"config.json: transformers has no model_type {values['model_type']} (code inside of a folder is never run)"
        )
    left_out = ("model_type", *_ABOUT_THE_FILE, *_ABOUT_THE_CALL)
    try:
        return AutoConfig.for_model(values["model_type"], **{k: v for k, v in values.items() if k not in left_out})
    except Exception as error:  # the types are checked by code of many kinds
        raise ValueError(f"config.json: {' '.join(str(error).split())}") from error


def has_fused_attention(config: Any) -> bool:
    """Whether the model of this config can use PyTorch's fused kernel (DeBERTa, MPNet and Megatron's BERT cannot)."""
    from transformers import MODEL_MAPPING

    return bool(getattr(MODEL_MAPPING.get(type(config), None), "_supports_sdpa", False))


def make(config: Any, add_pooling_layer: bool) -> Any:
    """A model of this architecture with random weights; a pooler that nothing reads would never get a gradient.

    Raises:
        ValueError: transformers makes no model of it.
    """
    from transformers import MODEL_MAPPING, AutoModel

    if MODEL_MAPPING.get(type(config), None) is None:
        raise ValueError(f"config.json: transformers has no model by itself for model_type {config.model_type}")
    try:
        return AutoModel.from_config(config, add_pooling_layer=add_pooling_layer, trust_remote_code=False)
    except TypeError:  # a model without that choice
        return AutoModel.from_config(config, trust_remote_code=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the tables of transformers: the encoder's own report says what was loaded."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def load(
    folder: Path, name: str, config: Any, add_pooling_layer: bool, beside: tuple[str, ...] = ()
) -> tuple[Any, LoadReport]:
    """A Hugging Face model with the weights of a folder.

    Args:
        folder: with config.json and weights.
        name: the setting that named it, for messages.
        config: of the model to make.
        add_pooling_layer: keep the model's own pooler.
        beside: prefixes of tensors that the file may hold beside the model's.

    Raises:
        ValueError: a tensor of the model is missing or of another shape, or an unknown one is left over.
    """
    from transformers import AutoModel

    settings = {
        "config": config,
        "local_files_only": True,
        "trust_remote_code": False,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are reported with the rest
        "dtype": torch.float32,  # else that of the file
    }
    try:
        with _quiet():
            try:
                model, info = AutoModel.from_pretrained(folder, add_pooling_layer=add_pooling_layer, **settings)
            except TypeError:
                model, info = AutoModel.from_pretrained(folder, **settings)
    except Exception as error:  # the readers raise errors of many kinds
        reason = first_line(error)
        if isinstance(error, pickle.UnpicklingError):  # PyTorch advises to run what the file says
            reason = "the weights cannot be read as plain tensors: use a folder with model.safetensors"
        raise ValueError(f"name={name}: {reason}") from error
    report = from_transformers(info, model, (*_OTHER_TOWER, *beside))
    return model, demand_all(report, f"name={name}")
