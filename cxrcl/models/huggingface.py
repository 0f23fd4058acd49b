"""Image encoders of Hugging Face: ViT, DeiT, Swin, ConvNeXt, DINOv2, ResNet, CLIP's image encoder, ..."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from cxrcl.models import folders, hf, layers
from cxrcl.models.base import ImageEncoder
from cxrcl.models.image import IMAGENET_MEAN, IMAGENET_STD, Colour, check_patches, local_features, shapes_alone, side_of
from cxrcl.types import Features, ImageSpec, Side

Pooling = Literal["cls", "mean", "pooler", "first_token"]
# Parameters that stand before the patches of the sequence.
_PREFIX = ("cls_token", "class_embedding", "distillation_token", "register_tokens")
# The last norm of these models is part of their pooling alone.
_POOLING_NORM = {"convnext": "layernorm", "convnextv2": "layernorm", "clip_vision_model": "post_layernorm"}


class VisionTower(ImageEncoder):
    """A Hugging Face image model described entirely by values, without weights: what a checkpoint rebuilds.

    Local features are the patch tokens, or the cells of the last map, without class tokens.

    Args:
        config: the model's `config.json` as a mapping.
        mean, std: normalisation of the input.
        size: side of the input in pixels; position embeddings are interpolated when it is not the config's.
        pooling: `cls` takes the class token, `mean` averages the local features, `pooler` is the model's own output
            `pooler_output`, `first_token` the first of the sequence whatever it is: published CXR-CLIP (You et al.
            2023) takes it of Swin, where it is the patch at the top left.
        checkpointing: recompute activations in the backward pass: less memory, more time.
    """

    def __init__(
        self,
        config: dict[str, Any],
        mean: Colour,
        std: Colour,
        size: Side = 224,
        pooling: Pooling = "cls",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        kind = hf.config_of(config)
        native = side_of(getattr(kind, "image_size", size), "config.json: image_size")
        check_patches(size, side_of(getattr(kind, "patch_size", 1), "config.json: patch_size"))
        self.spec = ImageSpec(size, mean, std)
        self.pooling: Pooling = pooling
        self.checkpointing = checkpointing
        self._fit(hf.make(kind, add_pooling_layer=pooling == "pooler"), native)

    def _fit(self, model: Any, native: int) -> None:
        """Take a model: leave out what this pooling does not read, and learn its shapes."""
        self.model: Any = model
        norm = _POOLING_NORM.get(model.config.model_type)
        if norm is not None and self.pooling != "pooler":
            setattr(model, norm, torch.nn.Identity())
        self._prefix = sum(
            1 if p.ndim == 1 else p.shape[1] for key, p in model.named_parameters() if key.split(".")[-1] in _PREFIX
        )
        self._call: dict[str, Any] = {}
        if self.spec.size != native and "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
            self._call["interpolate_pos_encoding"] = True
        if self.pooling == "cls" and not self._prefix:
            raise ValueError(
                f"pooling=cls: {type(model).__name__} has no class token, set pooling=mean, pooler or first_token"
            )
        if self.checkpointing:
            hf.recompute(model)
        self._measure()

    def _measure(self) -> None:
        """Widths, and parameters that no feature depends on, from a pass over shapes alone."""
        what = f"{type(self.model).__name__} with size={self.spec.size}, pooling={self.pooling}"
        (pooled, local), free = shapes_alone(self, what)
        self.dim, self.local_dim = pooled.shape[1], local.shape[2]
        gradients = torch.autograd.grad(pooled.sum() + local.sum(), free, allow_unused=True)
        # A parameter without a gradient would stop DDP, which waits for one from each.
        for parameter, gradient in zip(self.parameters(), gradients, strict=True):
            if gradient is None:  # such as DINOv2's mask token, which belongs to its own training
                parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> Features:
        """Images float32 [B, 3, S, S] -> Features([B, dim], [B, N, local_dim])."""
        output = self.model(pixel_values=images, **self._call)
        hidden = output.last_hidden_state
        local = local_features(hidden, hidden.shape[1] if hidden.ndim == 4 else hidden.shape[-1], self._prefix)
        if self.pooling == "mean":
            return Features(local.mean(dim=1), local)
        if self.pooling == "pooler":
            if getattr(output, "pooler_output", None) is None:
                raise TypeError("the model has no pooler_output, set pooling=mean, cls or first_token")
            return Features(output.pooler_output.flatten(1), local)
        return Features(hidden[:, 0] if hidden.ndim == 3 else local[:, 0], local)

    def layer_names(self) -> list[list[str]]:
        return layers.below("model", layers.of_stack(self.model))

    def node(self) -> dict[str, Any]:
        return {
            "_target_": f"{__name__}.VisionTower",
            "config": hf.plain(self.model.config),
            "mean": list(self.spec.mean),
            "std": list(self.spec.std),
            "size": self.spec.size,
            "pooling": self.pooling,
            "checkpointing": self.checkpointing,
        }


class HuggingFaceVision(VisionTower):
    """A pre-trained Hugging Face image model by folder or hub id. Remote code is never run.

    Args:
        name: a folder with config.json and weights (then nothing touches the network), or a hub id.
        size: side of the input in pixels; None takes the model's.
        pooling: see `VisionTower`.
        mean, std: normalisation of the input; None takes those of preprocessor_config.json (or of the image processor
            in processor_config.json), or ImageNet's where the folder has no such file.
        checkpointing: see `VisionTower`.
    """

    @classmethod
    def lacking(cls, settings: Mapping[str, Any]) -> list[str]:
        return folders.lacking(settings.get("name"), "hf image", settings)

    def __init__(
        self,
        name: str,
        size: Side | None = None,
        pooling: Pooling = "cls",
        mean: Colour | None = None,
        std: Colour | None = None,
        checkpointing: bool = False,
    ) -> None:
        folder = folders.locate(name, "hf image", bool(mean and std))
        values, adapted = hf.read_config(folder, "vision")
        preprocessor = folders.preprocessor(folder, []) or {}
        if not preprocessor.get("do_normalize", True):
            preprocessor |= {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
        mean = mean or tuple(preprocessor.get("image_mean", IMAGENET_MEAN))
        std = std or tuple(preprocessor.get("image_std", IMAGENET_STD))
        try:
            kind = hf.config_of(values)
            native = side_of(getattr(kind, "image_size", None), "config.json: image_size")
            native = native or _requested_side(preprocessor) or 224
            with torch.device("meta"):  # the model is made a second time, from the file: here only its shape counts
                super().__init__(hf.plain(kind), mean, std, size or native, pooling, checkpointing)
        except ValueError as error:
            raise ValueError(f"name={name}: {error}") from error
        beside = ("decoder.",) if adapted else ()  # of a masked autoencoder
        model, self.load_report = hf.load(folder, name, kind, pooling == "pooler", beside)
        self._fit(model, native)


def _requested_side(preprocessor: dict[str, Any]) -> int | None:
    """The side of the input that a preprocessor_config.json asks for."""
    size = preprocessor.get("crop_size") or preprocessor.get("size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    return size if isinstance(size, int) else None
