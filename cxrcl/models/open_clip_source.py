"""Where an open_clip model comes from: its config, normalisation, tokenizer and weights, found but not built."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from cxrcl.errors import first_line, nearest
from cxrcl.models import folders, weights
from cxrcl.models import tokenizer as tok
from cxrcl.models.image import Colour

# Where the text encoder's tensors lie at the top level of a file (open_clip's class CLIP) instead of under `text.`
_FLAT_TEXT = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "attn_mask")
_SHARED = ("logit_scale", "logit_bias", "text_decoder.")


@dataclass(frozen=True)
class Source:
    """A model that exists in a folder, in the hub's cache or in open_clip, before it is built."""

    name: str
    config: dict[str, Any]  # open_clip's model_cfg
    mean: Colour
    std: Colour
    weights: Path | None  # None: random
    folder: Path | None  # None: one of open_clip's own names

    def tokenizer(self) -> tuple[str, int, tok.Clean]:
        """(tokenizer.json content, pad id, how texts are cleaned)."""
        text = self.config["text_cfg"]
        settings = dict(text.get("tokenizer_kwargs") or {})
        is_clip_bpe = not text.get("hf_tokenizer_name")
        clean = settings.pop("clean", "lower" if is_clip_bpe else "whitespace")
        if text.get("tokenizer_mode"):
            settings["tokenizer_mode"] = text["tokenizer_mode"]
        if settings:
            raise ValueError(f"name={self.name}: tokenizer settings that are not supported: {', '.join(settings)}")
        if is_clip_bpe:
            return tok.clip_bpe(), 0, clean
        definition, pad_id = tok.from_folder(self.folder or folders.fetch(text["hf_tokenizer_name"]))
        return definition, pad_id, clean


def find(name: str, pretrained: str | None, kind: folders.Kind, normalised: bool = False) -> Source:
    """A folder, a hub entry or one of open_clip's own names.

    Raises:
        ValueError: nothing of this name, or a folder that cannot be loaded (see `folders.describe`).
    """
    has_place = "/" in name or name.startswith(("local-dir:", "hf-hub:")) or Path(name).expanduser().is_dir()
    if not has_place:
        return _built_in(name, pretrained)
    if pretrained is not None:
        raise ValueError(f"pretrained={pretrained}: {name} brings its own weights, set pretrained=null")
    folder = folders.locate(name, kind, normalised)
    content = json.loads((folder / folders.OPEN_CLIP_CONFIG).read_text(encoding="utf-8"))
    colours = {**_openai_colours(), **(content.get("preprocess_cfg") or {})}  # a text encoder needs none
    weights_file = folders.weights_file(folder, folders.OPEN_CLIP_WEIGHTS)
    return Source(name, content["model_cfg"], tuple(colours["mean"]), tuple(colours["std"]), weights_file, folder)


def _built_in(name: str, pretrained: str | None) -> Source:
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        hint = nearest(name, open_clip.list_models(), listed=False)
        raise ValueError(f"name={name}: neither a folder nor one of open_clip's models{hint}")
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    file = None
    if tag:
        if tag.get("quick_gelu", False) != config.get("quick_gelu", False):
            other = name.removesuffix("-quickgelu") if config.get("quick_gelu") else f"{name}-quickgelu"
            raise ValueError(f"pretrained={pretrained}: these weights were trained with another GELU, set name={other}")
        try:
            file = Path(open_clip.download_pretrained(tag))
        except Exception as error:  # the clients for the network raise errors of many kinds
            reason = f"{first_line(error)} (with no network, give a local file)"
            raise ValueError(f"pretrained={pretrained}: {reason}") from error
    elif pretrained is not None:
        file = Path(pretrained).expanduser()
        if not file.is_file():
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            raise ValueError(f"pretrained={pretrained}: neither a file nor a tag of {name} (tags: {tags})")
        if fault := folders.fault(file):
            raise ValueError(f"pretrained={pretrained}: {fault}")
    mean, std = (tuple(tag.get(key) or default) for key, default in _openai_colours().items())
    return Source(name, config, mean, std, file, None)


def _openai_colours() -> dict[str, Colour]:
    """The normalisation of OpenAI's CLIP, open_clip's own default."""
    import open_clip

    return {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}


def tower_weights(file: Path, tower: Literal["image", "text"]) -> dict[str, Tensor]:
    """The tensors of one encoder by its own names; those of neither encoder keep theirs, and are refused later."""
    tensors: dict[str, Tensor] = {}
    content = weights.read(file)
    nested = any(key.startswith("text.") for key in content)
    for key, value in content.items():
        if key.startswith("visual."):
            if tower == "image":
                tensors[key.removeprefix("visual.")] = value
        elif key.startswith("text.") or (not nested and key.startswith(_FLAT_TEXT)):
            if tower == "text":
                tensors[key.removeprefix("text.")] = value
        elif not key.startswith(_SHARED):
            tensors[f"{file.name}:{key}"] = value
    return tensors


def hf_text_config(
    source: Source, tensors: Mapping[str, Tensor], hf_config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The Hugging Face config of a text encoder: the setting, the folder's config.json, or the weights' shapes."""
    if hf_config is not None:
        if "model_type" not in hf_config:
            raise ValueError(f"hf_config: no model_type among {', '.join(hf_config) or 'nothing'}")
        return dict(hf_config)
    folder = source.folder or folders.fetch(source.config["text_cfg"]["hf_model_name"])
    if (folder / "config.json").is_file():
        wrong: list[str] = []
        content = folders.read_json(folder, "config.json", wrong)
        if content is not None and "model_type" in content:
            return content
        raise ValueError(f"name={source.name}: {'; '.join(wrong) or 'config.json names no model_type'}")
    try:
        return _bert_of_shapes(tensors)
    except (KeyError, ValueError) as error:
        hf_name = source.config["text_cfg"]["hf_model_name"]
        raise ValueError(
            f"name={source.name}: the weights of the text encoder are no plain BERT's ({error}): put the "
            f"config.json of {hf_name} into the folder, or set hf_config"
        ) from error


def _bert_of_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A BERT's sizes. Its number of heads leaves no trace in the weights: 64 wide, as in every published size.

    Raises:
        KeyError, ValueError: not the tensors of a BERT.
    """
    tables = {
        name: tensors[f"transformer.embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    }
    matches = (re.match(r"transformer\.encoder\.layer\.(\d+)\.", key) for key in tensors)
    layers = {int(match[1]) for match in matches if match}
    width = tables["word"].shape[1]
    if width % 64:
        raise ValueError(f"{width} is not a multiple of 64")
    if len(tables["token_type"]) != 2:  # RoBERTa has the same names, one type, and counts positions from 2 on
        raise ValueError(f"{len(tables['token_type'])} types of token")
    return {
        "model_type": "bert",
        "vocab_size": len(tables["word"]),
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": math.floor(width / 64),
        "intermediate_size": tensors["transformer.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": len(tables["position"]),
        "type_vocab_size": 2,
    }
