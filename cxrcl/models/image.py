"""Image towers from timm and torchvision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrcl.types import Features, ImageEncoder, ImageSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _tokens(features: Tensor, width: int, num_prefix_tokens: int) -> Tensor:
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
        size: side of the input in pixels.
        pretrained: load timm's weights: from `weights` when given, else from the hub (needs a network).
        weights: a local file of weights, loaded strictly but for the classifier.
        mean, std: normalisation of the input; ImageNet's by default.
        channels_last: memory layout of the convolutions; about twice as fast with bf16 on recent CPUs and on CUDA.
        options: more arguments of the timm model, such as {norm_layer: groupnorm}.
    """

    def __init__(
        self,
        name: str,
        size: int = 224,
        pretrained: bool = False,
        weights: str | None = None,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        channels_last: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        import timm

        if not timm.is_model(name):
            close = timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:5]
            raise ValueError(
                f"name={name}: timm has no such model{' (near: ' + ', '.join(close) + ')' if close else ''}"
            )
        if weights is not None and not Path(weights).is_file():
            raise ValueError(f"weights={weights}: file not found")
        self._arguments = {"name": name, "size": size, "channels_last": channels_last, "options": options}
        self.spec = ImageSpec(size, mean, std)
        extra = dict(options or {})
        try:
            model: Any = timm.create_model(name, pretrained=pretrained and weights is None, num_classes=0, **extra)
            if weights is not None:
                _load_weights(model, weights)
        except (TypeError, RuntimeError, OSError) as error:
            raise ValueError(f"timm cannot make {name} with {extra}: {str(error).splitlines()[0]}") from error
        # Pooled features may be wider than the map (timm's head_hidden_size: MobileNetV3 and its kin).
        self.dim = int(getattr(model, "head_hidden_size", model.num_features))
        self.local_dim = int(model.num_features)
        self._prefix = int(getattr(model, "num_prefix_tokens", 0))
        self.model: Any = model
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self._layout)

    def forward(self, images: Tensor) -> Features:
        """float32 [B, 3, S, S] -> Features([B, dim], [B, N, local_dim])."""
        features = self.model.forward_features(images.contiguous(memory_format=self._layout))
        pooled = self.model.forward_head(features, pre_logits=True)
        return Features(pooled, _tokens(features, self.local_dim, self._prefix))

    def node(self) -> dict[str, Any]:
        normalisation = {"mean": list(self.spec.mean), "std": list(self.spec.std)}
        return {"_target_": f"{__name__}.TimmEncoder", **self._arguments, **normalisation}


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
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
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
        return Features(found["pooled"], _tokens(found["local"], self.local_dim, 0))

    def node(self) -> dict[str, Any]:
        normalisation = {"mean": list(self.spec.mean), "std": list(self.spec.std)}
        return {"_target_": f"{__name__}.TorchvisionEncoder", **self._arguments, **normalisation}
