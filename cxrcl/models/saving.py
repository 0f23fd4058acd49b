"""Encoders as folders of the libraries whose models they are: transformers, open_clip, timm. No file is pickled.

A folder holds an encoder by itself: neither the heads of an objective, nor what an encoder of ours adds (its pooling,
or the mix of its last layers).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from cxrcl.models import folders, hf
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.huggingface import VisionTower
from cxrcl.models.image import TimmEncoder
from cxrcl.models.open_clip import OpenClipImageTower, OpenClipTextTower
from cxrcl.models.text import BertText
from cxrcl.models.tokenizer import PackedTokenizer
from cxrcl.types import ImageSpec

TOKENIZER = "tokenizer.json"
# How an image becomes the square, by the `fit` of our transform.
_OPEN_CLIP_MODES = {"pad": "longest", "crop": "shortest", "squash": "squash"}
_TIMM_MODES = {"pad": "border", "crop": "center", "squash": "squash"}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before it is encoded.

    Folders state the nearest that their library has. On images of the size itself that is the same, pixel for pixel;
    others are interpolated in another way, timm pads with the mean, and open_clip has no `eval_crop`.

    Attributes:
        spec: its size and normalisation.
        fit: `pad`, `crop` or `squash`, as in our transform.
        eval_crop: share of the side that is cut out of the middle.
    """

    spec: ImageSpec
    fit: str
    eval_crop: float = 1.0


@dataclass(frozen=True)
class Saved:
    """A folder that was written.

    Attributes:
        folder: its name.
        code: how its library loads it, relative to the parent folder.
        note: which of its outputs were trained, and which not.
    """

    folder: str
    code: str
    note: str


def save_towers(
    image: ImageEncoder | None,
    text: TextEncoder | None,
    preprocessing: Preprocessing,
    scale: float | None,
    folder: Path,
) -> tuple[list[Saved], list[str]]:
    """Write the encoders that have a library into folders below `folder`.

    Args:
        image, text: the encoders, None where there is none.
        preprocessing: what is done to an image.
        scale: of cosines to logits, for open_clip; None where it was not learned.
        folder: what they are written below.

    Returns:
        The folders, and a line for each encoder that has none.
    """
    if isinstance(image, OpenClipImageTower) and isinstance(text, OpenClipTextTower) and _are_one_model(image, text):
        return [_save_open_clip(image, text, preprocessing, scale, folder / "open_clip")], []
    saved, lines = [], []
    for name, tower in (("image_encoder", image), ("text_encoder", text)):
        if isinstance(tower, VisionTower):
            saved.append(_save_vision(tower, preprocessing, folder / name))
        elif isinstance(tower, BertText):
            saved.append(_save_text(tower, folder / name))
        elif isinstance(tower, TimmEncoder):
            saved.append(_save_timm(tower, preprocessing, folder / name))
        elif isinstance(tower, OpenClipImageTower | OpenClipTextTower):
            lines.append(
                f"{name}: no folder of its own: open_clip loads both encoders of one model, with their projections"
            )
        elif tower is not None:
            kind = type(tower).__name__
            lines.append(f"{name}: no folder of its own: {kind} is no model of transformers, open_clip or timm")
    return saved, lines


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """A .safetensors file of these tensors, each under its name.

    Tensors that share memory are refused by the format. Here each gets a copy of its own: all names stand in the file,
    and a module that ties them again is given equal values.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    copies = {name: part.detach().cpu().clone(memory_format=torch.contiguous_format) for name, part in tensors.items()}
    file.write_bytes(save(copies, metadata={"format": "pt"}))  # safetensors' save_file makes one for this user alone


def save_json(content: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_tokenizer(tokenizer: PackedTokenizer, folder: Path) -> None:
    """A folder for AutoTokenizer of transformers; tokenizer.json is the definition, letter for letter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER).write_text(tokenizer.definition, encoding="utf-8")
    added = {token["id"]: token["content"] for token in json.loads(tokenizer.definition)["added_tokens"]}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": tokenizer.max_length}
    # Any other token would be split off from texts as a special one.
    padding = {"pad_token": added[tokenizer.pad_id]} if tokenizer.pad_id in added else {}
    save_json({**settings, **padding, "clean_up_tokenization_spaces": False}, folder / "tokenizer_config.json")


# ------------------------------------------------------------------------------------------------ transformers


def _save_vision(tower: VisionTower, preprocessing: Preprocessing, folder: Path) -> Saved:
    _save_transformers(tower.model, folder)
    save_json(_processor(preprocessing), folder / "preprocessor_config.json")
    resized = ", interpolate_pos_encoding=True" if "interpolate_pos_encoding" in tower._call else ""
    pooler = "" if tower.pooling == "pooler" else ", not `pooler_output`, which was not trained"
    note = f"Call it with images of {preprocessing.spec.size} px{resized}; read `last_hidden_state`{pooler}."
    return Saved(folder.name, _auto("AutoModel", folder.name), note)


def _save_text(tower: BertText, folder: Path) -> Saved:
    _save_transformers(tower.model, folder)
    save_tokenizer(tower.tokenizer, folder)
    layers = (
        f"the {tower.layer_mix} of the last {tower.last_layers} layers" if tower.last_layers > 1 else "the last layer"
    )
    cut = f"Texts are cut to {tower.tokenizer.max_length} tokens; pooling is `{tower.pooling}` over {layers}"
    code = f"{_auto('AutoModel', folder.name)}, AutoTokenizer likewise"
    return Saved(folder.name, code, f"{cut}: read `last_hidden_state`, not a pooler's output, which was not trained.")


def _auto(name: str, folder: str) -> str:
    return f'transformers.{name}.from_pretrained("{folder}")'


def _save_transformers(model: Any, folder: Path) -> None:
    """The files that `save_pretrained` writes, without what it takes from the machine."""
    config = {"architectures": [type(model).__name__], **hf.plain(model.config), "dtype": "float32"}
    save_json(config, folder / "config.json")
    # A norm that only the pooler reads is left out of some towers, but no reader of the folder would do without.
    whole = hf.make(model.config, add_pooling_layer=False).state_dict()
    save_tensors({**whole, **model.state_dict()}, folder / "model.safetensors")


def _processor(preprocessing: Preprocessing) -> dict[str, Any]:
    spec, side = preprocessing.spec, math.floor(preprocessing.spec.size / preprocessing.eval_crop)
    sizes = {
        "pad": {"max_height": side, "max_width": side},  # what the cut from the middle lacks is black
        "crop": {"shortest_edge": side},
        "squash": {"height": side, "width": side},
    }
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": sizes[preprocessing.fit],
        "do_center_crop": True,
        "crop_size": {"height": spec.size, "width": spec.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }


# -------------------------------------------------------------------------------------------------------- timm


def _save_timm(tower: TimmEncoder, preprocessing: Preprocessing, folder: Path) -> Saved:
    spec, name = preprocessing.spec, str(tower.node()["name"]).split(".")[0]  # what follows the dot are timm's weights
    values = {
        "input_size": [3, spec.size, spec.size],
        "mean": list(spec.mean),
        "std": list(spec.std),
        "crop_pct": preprocessing.eval_crop,
        "crop_mode": _TIMM_MODES[preprocessing.fit],
        "interpolation": "bilinear",
        "num_classes": 0,
    }
    config = {"architecture": name, "num_classes": 0, "model_args": tower.model_args, "pretrained_cfg": values}
    save_json(config, folder / "config.json")
    save_tensors(tower.model.state_dict(), folder / "model.safetensors")
    code = f'timm.create_model("local-dir:{folder.name}", pretrained=True)'
    return Saved(folder.name, code, f"Pooled features of images of {spec.size} px.")


# --------------------------------------------------------------------------------------------------- open_clip


def _are_one_model(image: OpenClipImageTower, text: OpenClipTextTower) -> bool:
    both = [(tower.config["embed_dim"], tower.config["quick_gelu"]) for tower in (image, text)]
    return image.projection and text.projection and both[0] == both[1]


def _save_open_clip(
    image: OpenClipImageTower, text: OpenClipTextTower, preprocessing: Preprocessing, scale: float | None, folder: Path
) -> Saved:
    vision = {**image.config["vision_cfg"], "image_size": image.spec.size}
    words = dict(text.config["text_cfg"])
    note = "The shared space is that of open_clip's own projections; the heads of the objective are not in it."
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if text.hf_config is not None:
        words["hf_model_pretrained"] = False
        save_json(text.hf_config, folder / "config.json")  # where cxrcl looks, and AutoConfig
        note += (
            f" open_clip asks the hub for the configuration of {words['hf_model_name']}; without a network set "
            "`hf_model_name` in open_clip_config.json to this folder."
        )
    if words.get("hf_tokenizer_name"):
        save_tokenizer(text.tokenizer, folder)
    model = {"embed_dim": image.config["embed_dim"], "quick_gelu": image.config["quick_gelu"], "custom_text": True}
    colours = {"mean": list(preprocessing.spec.mean), "std": list(preprocessing.spec.std)}
    shape = {
        "size": preprocessing.spec.size,
        "mode": "RGB",
        "interpolation": "bilinear",
        "resize_mode": _OPEN_CLIP_MODES[preprocessing.fit],
    }
    config = {"model_cfg": {**model, "vision_cfg": vision, "text_cfg": words}, "preprocess_cfg": {**shape, **colours}}
    save_json(config, folder / folders.OPEN_CLIP_CONFIG)
    tensors = {**_named("visual", image.tower), **_named("text", text.tower)}
    tensors["logit_scale"] = torch.tensor(math.log(1 / 0.07 if scale is None else scale))
    save_tensors(tensors, folder / folders.OPEN_CLIP_WEIGHTS[0])
    return Saved(folder.name, f'open_clip.create_model_and_transforms("local-dir:{folder.name}")', note)


def _named(prefix: str, tower: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tower.state_dict().items()}
