"""Image towers from timm and torchvision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrcl.models import layers
from cxrcl.models.folders import fault
from cxrcl.types import Features, ImageEncoder, ImageSpec

Colour = tuple[float, float, float]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_patches(size: int, patch: int) -> None:
    """Raises ValueError when patches do not tile the input: the border would be cut off in silence."""
    if size % patch:
        nearest = max(1, round(size / patch)) * patch
        raise ValueError(f"size={size} is not a multiple of the patch of {patch} pixels: set size={nearest}")


def local_features(features: Tensor, width: int, num_prefix_tokens: int) -> Tensor:
    """A feature map [B, C, h, w] or [B, h, w, C], or tokens [B, prefix + N, C] -> local features [B, N, C]."""
    if features.ndim == 3:
        return features[:, num_prefix_tokens:]
    channels_first = features.shape[1] == width
    return features.flatten(2).transpose(1, 2) if channels_first else features.flatten(1, 2)


def _load_weights(model: Any, file: str) -> None:
    """timm itself loads what fits and is silent about the rest once the classifier is gone."""
    from timm.models import load_checkpoint

    module = sys.modules[type(model).__module__]
    adapt = getattr(module, "checkpoint_filter_fn", getattr(module, "_checkpoint_filter_fn", None))
    keys = load_checkpoint(model, file, strict=False, filter_fn=adapt, weights_only=True)
    if keys is None:  # a numpy file, which timm loads by name
        return
    classifier = model.pretrained_cfg.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    strange = [key for key in keys.unexpected_keys if not key.startswith(tuple(f"{name}." for name in names))]
    for what, found in (("lacks", keys.missing_keys), ("has beside the model's own", strange)):
        if found:
            raise ValueError(f"weights={file}: the file {what} {len(found)} tensors, such as {found[0]}")


class TimmEncoder(ImageEncoder):
    """Any timm model by name, with pooled features and the local ones they are pooled from.

    Args:
        name: a timm model name, such as resnet50, densenet121 or vit_base_patch16_224.
        size: side of the input in pixels. Transformers of another native size are built for this one; position
            embeddings of loaded weights are interpolated.
        pretrained: load timm's weights: from `weights` when given, else from the hub (needs a network).
        weights: a local file of weights, loaded strictly but for the classifier.
        mean, std: normalisation of the input; ImageNet's by default.
        channels_last: memory layout of the convolutions; about twice as fast with bf16 on recent CPUs and on CUDA.
        local_layer: where local features are taken, counted from the end: -1 the last stage or block, normalised as
            for pooling; -2 the one before (layer3 of a ResNet, as in GLoRIA).
        checkpointing: recompute activations in the backward pass: less memory, more time.
        options: more arguments of the timm model, such as {norm_layer: groupnorm}.
    """

    def __init__(
        self,
        name: str,
        size: int = 224,
        pretrained: bool = False,
        weights: str | None = None,
        mean: Colour = IMAGENET_MEAN,
        std: Colour = IMAGENET_STD,
        channels_last: bool = True,
        local_layer: int = -1,
        checkpointing: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        import timm

        if not timm.is_model(name):
            close = timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:5]
            raise ValueError(
                f"name={name}: timm has no such model{' (near: ' + ', '.join(close) + ')' if close else ''}"
            )
        if weights is not None:
            if not Path(weights).is_file():
                raise ValueError(f"weights={weights}: file not found")
            if wrong := fault(Path(weights)):
                raise ValueError(f"weights={weights}: {wrong}")
        self._arguments = {
            "name": name,
            "size": size,
            "channels_last": channels_last,
            "local_layer": local_layer,
            "checkpointing": checkpointing,
            "options": options,
        }
        self.spec = ImageSpec(size, mean, std)
        extra = dict(options or {})
        native = timm.get_pretrained_cfg(name)
        if native is not None and native.fixed_input_size and native.input_size[1:] != (size, size):
            extra = {"img_size": size, **extra}
        try:
            model: Any = timm.create_model(name, pretrained=pretrained and weights is None, num_classes=0, **extra)
            if weights is not None:
                _load_weights(model, weights)
        except (TypeError, RuntimeError, OSError, AssertionError) as error:
            reason = (str(error) or repr(error)).splitlines()[0]
            raise ValueError(f"timm cannot make {name} with {extra}: {reason}") from error
        patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
        if patch is not None:
            check_patches(size, patch[0])
        # Pooled features may be wider than the map (timm's head_hidden_size: MobileNetV3 and its kin).
        self.dim = int(getattr(model, "head_hidden_size", model.num_features))
        self.local_dim = int(model.num_features) if local_layer == -1 else _width(model, local_layer)
        self.local_layer = local_layer
        self._prefix = int(getattr(model, "num_prefix_tokens", 0))
        self.model: Any = model
        if checkpointing:
            try:
                model.set_grad_checkpointing(True)
            except (AssertionError, AttributeError, NotImplementedError) as error:
                raise ValueError(f"checkpointing=true: timm's {name} does not support it") from error
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self._layout)

    def forward(self, images: Tensor) -> Features:
        """float32 [B, 3, S, S] -> Features([B, dim], [B, N, local_dim])."""
        images = images.contiguous(memory_format=self._layout)
        if self.local_layer == -1:
            features = self.model.forward_features(images)
            local = local_features(features, self.local_dim, self._prefix)
        else:
            features, (grid,) = self.model.forward_intermediates(images, [self.local_layer], output_fmt="NCHW")
            local = grid.flatten(2).transpose(1, 2)
        return Features(self.model.forward_head(features, pre_logits=True), local)

    def layer_names(self) -> list[list[str]]:
        return layers.below("model", layers.of_timm(self.model))

    def node(self) -> dict[str, Any]:
        normalisation = {"mean": list(self.spec.mean), "std": list(self.spec.std)}
        return {"_target_": f"{__name__}.TimmEncoder", **self._arguments, **normalisation}


def _width(model: Any, layer: int) -> int:
    """Channels of a stage or block, counted from the end."""
    stages = getattr(model, "feature_info", ())
    if layer >= 0 or -layer > len(stages) or not hasattr(model, "forward_intermediates"):
        raise ValueError(f"local_layer={layer}: expected -1 to -{max(1, len(stages))}, counted from the end")
    return int(stages[layer]["num_chs"])


class TorchvisionEncoder(ImageEncoder):
    """A torchvision classification model, its features read at two named nodes of the graph.

    Args:
        name: a torchvision model name, such as resnet50.
        size: side of the input in pixels.
        weights: a torchvision weights name (DEFAULT, IMAGENET1K_V2; needs a network unless cached), or None.
        local_node, pooled_node: nodes of the traced graph (torchvision.models.feature_extraction.get_graph_node_names)
            that hold the feature map and the pooled features; the defaults are those of the ResNets.
        mean, std: normalisation of the input; ImageNet's by default.
        channels_last: memory layout of the convolutions.
    """

    def __init__(
        self,
        name: str,
        size: int = 224,
        weights: str | None = None,
        local_node: str = "layer4",
        pooled_node: str = "flatten",
        mean: Colour = IMAGENET_MEAN,
        std: Colour = IMAGENET_STD,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        from torchvision.models import get_model, list_models
        from torchvision.models.feature_extraction import create_feature_extractor

        if name not in list_models():
            raise ValueError(f"name={name}: torchvision has no such model (it has {', '.join(list_models()[:6])}, ...)")
        self._arguments = {
            "name": name,
            "size": size,
            "local_node": local_node,
            "pooled_node": pooled_node,
            "channels_last": channels_last,
        }
        self.spec = ImageSpec(size, mean, std)
        try:
            full = get_model(name, weights=weights)
            self.model = create_feature_extractor(full, {local_node: "local", pooled_node: "pooled"})
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(f"torchvision cannot make {name}: {error}") from error
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self._layout)
        with torch.no_grad():
            shapes = self.model.eval()(torch.zeros(1, 3, size, size))
        self.model.train()
        self.dim, self.local_dim = shapes["pooled"].shape[1], shapes["local"].shape[1]

    def forward(self, images: Tensor) -> Features:
        """float32 [B, 3, S, S] -> Features([B, dim], [B, N, local_dim])."""
        found = self.model(images.contiguous(memory_format=self._layout))
        return Features(found["pooled"], local_features(found["local"], self.local_dim, 0))

    def layer_names(self) -> list[list[str]]:
        return layers.below("model", layers.of_children(self.model))

    def node(self) -> dict[str, Any]:
        normalisation = {"mean": list(self.spec.mean), "std": list(self.spec.std)}
        return {"_target_": f"{__name__}.TorchvisionEncoder", **self._arguments, **normalisation}
