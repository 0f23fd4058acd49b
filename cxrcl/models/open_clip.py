"""The two encoders of open_clip models: by open_clip's own names, from a folder, or from the hub.

A folder holds open_clip_config.json and open_clip_model.safetensors (or open_clip_pytorch_model.bin); one whose text
encoder is a Hugging Face model, such as BiomedCLIP, also its tokenizer. Nothing in a folder makes a network needed:
open_clip itself would ask the hub for the text encoder's config even then, so that config is taken from the folder's
config.json, from a setting, or from the shapes of the weights. Each encoder is loaded by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.errors import first_line
from cxrcl.models import folders, hf, layers
from cxrcl.models import tokenizer as tok
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.image import Colour, check_patches, local_features, patch_side, shapes_alone, side_of
from cxrcl.models.open_clip_source import find, hf_text_config, tower_weights
from cxrcl.models.text import num_positions
from cxrcl.models.weights import load_weights
from cxrcl.types import Count, Features, ImageSpec, Side

# open_clip makes both encoders at once; the one that is not wanted is made as small as possible.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
_NO_IMAGE = {"image_size": 1, "patch_size": 1, "width": 1, "head_width": 1, "layers": 1}


def _make(config: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any]) -> Any:
    import open_clip

    try:
        return open_clip.CustomTextCLIP(config["embed_dim"], dict(vision), dict(text), config.get("quick_gelu", False))
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f"open_clip cannot make this encoder: {first_line(error)}") from error


def _of(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """The part of a model's config that describes one encoder: `vision_cfg` or `text_cfg`."""
    part = {"embed_dim": config["embed_dim"], tower: config[tower], "quick_gelu": config.get("quick_gelu", False)}
    return copy.deepcopy(part)


def _file_faults(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with `pretrained` where it is a file and no tag."""
    file = Path(settings.get("pretrained") or "").expanduser()
    fault = folders.fault(file) if file.is_file() else None
    return [f"pretrained={file}: {fault}"] if fault else []


class OpenClipImageTower(ImageEncoder):
    """An open_clip image encoder described entirely by values, without weights: what a checkpoint rebuilds.

    Pooled features are the encoder's embedding, not normalised to unit length; local features are the tokens or the map
    before the projection, without the class token.

    Args:
        config: `embed_dim`, `vision_cfg` and `quick_gelu` of open_clip's model config.
        mean, std: normalisation of the input.
        size: side of the input in pixels; None takes the config's.
        projection: False gives the features before the projection to the shared space.
        checkpointing: recompute activations in the backward pass: less memory, more time.
    """

    def __init__(
        self,
        config: dict[str, Any],
        mean: Colour,
        std: Colour,
        size: Side | None = None,
        projection: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": True}
        native = side_of(vision.get("image_size", 224), "vision_cfg.image_size")
        self.config: dict[str, Any] = _of(config, "vision_cfg")
        self.spec = ImageSpec(native, mean, std)
        self.tower: Any = _make(config, vision, _NO_TEXT).visual
        if getattr(self.tower, "pool_type", None) == "none":
            raise ValueError("vision_cfg.pool_type=none: this encoder does not pool its tokens")
        self._adapt(size, projection, checkpointing)

    def _adapt(self, size: int | None, projection: bool, checkpointing: bool) -> None:
        """What is done after the weights of the native shape are in place."""
        self.projection, self.checkpointing = projection, checkpointing
        self._resize(size or self.spec.size)
        if not projection:
            self._drop_projection()
        if checkpointing:
            if not hasattr(self.tower, "trunk") and not hasattr(self.tower, "transformer"):
                raise ValueError("checkpointing=true: open_clip's ResNets do not support it")
            getattr(self.tower, "trunk", self.tower).set_grad_checkpointing(True)
        (pooled, local), _ = shapes_alone(self, f"open_clip's encoder with size={self.spec.size}")
        self.dim, self.local_dim = pooled.shape[1], local.shape[2]

    def _drop_projection(self) -> None:
        pooled_by_attention = hasattr(self.tower, "attnpool") or hasattr(getattr(self.tower, "head", None), "pool")
        if pooled_by_attention:
            raise ValueError("projection=false: the attention pooling of this encoder is its projection")
        if hasattr(self.tower, "trunk"):
            self.tower.head = nn.Identity()
            self.tower.trunk.reset_classifier(0)
        else:
            self.tower.proj = None

    def _resize(self, size: int) -> None:
        """Fit the encoder to another input; open_clip interpolates the position embeddings."""
        tower = self.tower
        if hasattr(tower, "trunk"):
            patches = getattr(tower.trunk, "patch_embed", None)
            built_for = getattr(patches, "img_size", None)
            check_patches(size, patch_side(tower.trunk))
            if built_for is not None and built_for[0] != size and hasattr(tower.trunk, "set_input_size"):
                tower.set_input_size(size)
        elif hasattr(tower, "attnpool"):
            if size != self.spec.size:
                raise ValueError(
                    f"size={size}: the attention pooling of this encoder takes {self.spec.size} pixels only"
                )
        else:
            from open_clip.model import resize_pos_embed

            check_patches(size, tower.patch_size[0])
            grid, table = size // tower.patch_size[0], tower.positional_embedding
            if grid != tower.grid_size[0]:
                tower.grid_size, tower.image_size = (grid, grid), (size, size)
                weights = {"visual.positional_embedding": table.detach()}
                resize_pos_embed(weights, SimpleNamespace(visual=tower))
                resized = weights["visual.positional_embedding"]
                tower.positional_embedding = nn.Parameter(resized, requires_grad=table.requires_grad)
        self.spec = ImageSpec(size, self.spec.mean, self.spec.std)

    def forward(self, images: Tensor) -> Features:
        """Images float32 [B, 3, S, S] -> Features([B, dim], [B, N, local_dim])."""
        tower = self.tower
        if hasattr(tower, "trunk"):
            features = tower.trunk.forward_features(images)
            pooled = tower.head(tower.trunk.forward_head(features))
            prefix = getattr(tower.trunk, "num_prefix_tokens", 0)
            return Features(pooled, local_features(features, tower.trunk.num_features, prefix))
        if hasattr(tower, "attnpool"):
            grid = tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(images)))))
            return Features(tower.attnpool(grid), grid.flatten(2).transpose(1, 2))
        return Features(*tower(images))

    def layer_names(self) -> list[list[str]]:
        """The projection, or the pooling by attention, is the last one."""
        tower = self.tower
        if hasattr(tower, "trunk"):
            head = [["head"]] if layers.size(tower.head) else []
            return layers.below("tower", layers.below("trunk", layers.of_timm(tower.trunk)) + head)
        if hasattr(tower, "attnpool"):
            stem = [f"{kind}{number}" for number in (1, 2, 3) for kind in ("conv", "bn")]
            stages = [[f"layer{number}"] for number in (1, 2, 3, 4)]
            return layers.below("tower", [stem, *stages, ["attnpool"]])
        return layers.below("tower", layers.of_stack(tower, last=["proj"]))

    def node(self) -> dict[str, Any]:
        return {
            "_target_": f"{__name__}.OpenClipImageTower",
            "config": self.config,
            "mean": list(self.spec.mean),
            "std": list(self.spec.std),
            "size": self.spec.size,
            "projection": self.projection,
            "checkpointing": self.checkpointing,
        }


class OpenClipImage(OpenClipImageTower):
    """The image encoder of an open_clip model.

    Args:
        name: a folder (also as local-dir:FOLDER), hf-hub:ID, or one of open_clip's own names such as ViT-B-32.
        pretrained: with open_clip's own names: one of its tags (needs a network unless cached) or a file of weights;
            None starts from random weights. Folders and hub entries bring their weights.
        size: side of the input in pixels; None takes the model's. Position embeddings are interpolated.
        mean, std: normalisation of the input; None takes the model's.
        projection, checkpointing: see `OpenClipImageTower`.
    """

    @classmethod
    def lacking(cls, settings: Mapping[str, Any]) -> list[str]:
        return folders.lacking(settings.get("name"), "open_clip image", settings) + _file_faults(settings)

    def __init__(
        self,
        name: str,
        pretrained: str | None = None,
        size: Side | None = None,
        mean: Colour | None = None,
        std: Colour | None = None,
        projection: bool = True,
        checkpointing: bool = False,
    ) -> None:
        source = find(name, pretrained, "open_clip image", bool(mean and std))
        super().__init__(source.config, mean or source.mean, std or source.std)
        self.load_report = None
        if source.weights is not None:
            self.load_report = load_weights(self.tower, tower_weights(source.weights, "image"), f"name={name}")
        self._adapt(size, projection, checkpointing)


class OpenClipTextTower(TextEncoder):
    """An open_clip text encoder described entirely by values, without weights: what a checkpoint rebuilds.

    Pooled features are the encoder's embedding, not normalised to unit length; local features are the states of all
    tokens before the projection.

    Args:
        config: `embed_dim`, `text_cfg` and `quick_gelu` of open_clip's model config.
        definition: the content of a `tokenizer.json`.
        max_length: texts are cut to this many tokens.
        hf_config: config of the Hugging Face model where `text_cfg` names one.
        pad_id: id of the padding token.
        clean: see `cxrcl.models.tokenizer.clean_text`.
        projection: False gives the features before the projection to the shared space.
        checkpointing: recompute activations in the backward pass: less memory, more time.
    """

    def __init__(
        self,
        config: dict[str, Any],
        definition: str,
        max_length: Count,
        hf_config: dict[str, Any] | None = None,
        pad_id: int = 0,
        clean: tok.Clean = "none",
        projection: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = _of(config, "text_cfg")
        self.hf_config = copy.deepcopy(hf_config)
        text = {**config["text_cfg"], "output_tokens": True}
        self.tower: Any = (
            _make(config, _NO_IMAGE, text).text
            if hf_config is None
            else _hf_tower(config["embed_dim"], text, hf_config)
        )
        self.tokenizer: tok.PackedTokenizer = tok.PackedTokenizer(definition, max_length, pad_id, clean)
        tok.check_vocabulary(definition, int(self.tower.vocab_size))
        positions = self.tower.context_length if hf_config is None else num_positions(self.tower.transformer)
        if positions is not None and max_length > positions:
            raise ValueError(f"max_length={max_length}: the model has {positions} positions, set at most that many")
        self._adapt(projection, checkpointing)

    def _adapt(self, projection: bool, checkpointing: bool) -> None:
        self.projection, self.checkpointing = projection, checkpointing
        hugging_face = self.hf_config is not None
        if not projection and hugging_face:
            self.tower.proj = nn.Identity()
        elif not projection:
            self.tower.text_projection = None
        if checkpointing and hugging_face:
            hf.recompute(self.tower.transformer)
        elif checkpointing:
            self.tower.set_grad_checkpointing(True)
        width = int(self.tower.transformer.config.hidden_size if hugging_face else self.tower.width)
        projected = projection and (hugging_face or self.tower.text_projection is not None)
        self.dim, self.local_dim = int(self.config["embed_dim"]) if projected else width, width

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        """Ids and mask, int64 [B, L] each -> Features([B, dim], [B, L, local_dim])."""
        tower, length = self.tower, ids.shape[1]
        if self.hf_config is not None:
            output = tower.transformer(input_ids=ids, attention_mask=mask)
            return Features(tower.proj(tower.pooler(output, mask)), output.last_hidden_state)
        # open_clip's encoders attend to all positions: without a causal mask the padding counts, as it did in training.
        padded = F.pad(ids, (0, tower.context_length - length), value=self.tokenizer.pad_id)
        pooled, local = tower(padded)
        return Features(pooled, local[:, :length])

    def layer_names(self) -> list[list[str]]:
        """The projection is the last one."""
        return layers.below("tower", layers.of_stack(self.tower, last=["text_projection"]))

    def node(self) -> dict[str, Any]:
        return {
            "_target_": f"{__name__}.OpenClipTextTower",
            "config": self.config,
            "definition": self.tokenizer.definition,
            "max_length": self.tokenizer.max_length,
            "hf_config": self.hf_config,
            "pad_id": self.tokenizer.pad_id,
            "clean": self.tokenizer.clean,
            "projection": self.projection,
            "checkpointing": self.checkpointing,
        }


def _hf_tower(embed_dim: int, text: Mapping[str, Any], hf_config: Mapping[str, Any]) -> Any:
    """open_clip's adapter around a model built from its config alone."""
    from open_clip import CLIPTextCfg
    from open_clip.hf_model import HFTextEncoder

    try:
        settings = CLIPTextCfg(**text)
    except TypeError as error:
        raise ValueError(f"text_cfg: {error}") from error
    kind = hf.config_of(dict(hf_config))
    if getattr(kind, "is_encoder_decoder", False) or not hasattr(kind, "hidden_size"):
        raise ValueError(f"hf_config.model_type={hf_config['model_type']}: only encoders such as bert are supported")
    tower: Any = HFTextEncoder(
        settings.hf_model_name or "",
        output_dim=embed_dim,
        config=kind,
        pooler_type=settings.hf_pooler_type,
        proj_type=settings.hf_proj_type,
        pretrained=False,
    )
    if not hasattr(tower, "proj"):
        raise ValueError(f"text_cfg.hf_proj_type={settings.hf_proj_type}: {kind.hidden_size} is not {embed_dim} wide")
    # open_clip makes BERT's own pooler for this type of pooling only; elsewhere it would never get a gradient.
    if settings.hf_pooler_type != "cls_pooler" and hasattr(tower.transformer, "pooler"):
        tower.transformer.pooler = None
    return tower


class OpenClipText(OpenClipTextTower):
    """The text encoder of an open_clip model, with its tokenizer.

    Args:
        name, pretrained: see `OpenClipImage`.
        max_length: texts are cut to this many tokens; None takes the model's context length.
        hf_config: config of a Hugging Face text encoder as a mapping with `model_type`, for a folder without a
            config.json; None then reads a BERT's sizes from the shapes of the weights, its heads being 64 wide.
        projection, checkpointing: see `OpenClipTextTower`.
    """

    @classmethod
    def lacking(cls, settings: Mapping[str, Any]) -> list[str]:
        return folders.lacking(settings.get("name"), "open_clip text", settings) + _file_faults(settings)

    def __init__(
        self,
        name: str,
        pretrained: str | None = None,
        max_length: Count | None = None,
        hf_config: dict[str, Any] | None = None,
        projection: bool = True,
        checkpointing: bool = False,
    ) -> None:
        source = find(name, pretrained, "open_clip text")
        text = source.config["text_cfg"]
        weights = None if source.weights is None else tower_weights(source.weights, "text")
        if text.get("hf_model_name"):
            hf_config = hf_text_config(source, weights or {}, hf_config)
        elif hf_config is not None:
            raise ValueError(f"hf_config: the text encoder of {name} is open_clip's own and has no such config")
        definition, pad_id, clean = source.tokenizer()
        length = max_length or int(text.get("context_length", 77))
        super().__init__(source.config, definition, length, hf_config, pad_id, clean)
        self.load_report = None if weights is None else load_weights(self.tower, weights, f"name={name}")
        self._adapt(projection, checkpointing)
