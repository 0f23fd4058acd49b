"""Image encoders from timm and torchvision."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cxrcl.errors import first_line
from cxrcl.models import layers
from cxrcl.models.base import ImageEncoder, arguments
from cxrcl.models.folders import fault
from cxrcl.models.weights import read
from cxrcl.types import Features, ImageSpec, Side

Colour = tuple[float, float, float]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def side_of(square: Any, what: str) -> Any:
    """A side in pixels, where a config may hold a pair of equal ones; None stays None.

    Raises:
        ValueError: with `what` the config calls it: two that differ.
    """
    sides = set(square) if isinstance(square, list | tuple) else {square}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int | None):
        raise ValueError(f"{what}={square}: only squares are supported")
    return side


def check_patches(size: int, patch: int | None) -> None:
    """Refuse patches that do not tile the input: the border would be cut off in silence.

    Args:
        size, patch: sides in pixels; a patch of None has no such demand.

    Raises:
        ValueError: with the nearest size that does.
    """
    if patch is not None and size % patch:
        nearest = max(1, round(size / patch)) * patch
        raise ValueError(f"size={size} is not a multiple of the patch of {patch} pixels: set size={nearest}")


def local_features(features: Tensor, width: int, num_prefix_tokens: int) -> Tensor:
    """What a model returns before pooling, as local features.

    Args:
        features: float, a map [B, C, h, w] or [B, h, w, C], or tokens [B, prefix + N, C].
        width: C.
        num_prefix_tokens: leading tokens that are no patches, such as the class token.

    Returns:
        float [B, N, C].

    Raises:
        TypeError: several maps.
    """
    if not isinstance(features, Tensor):
        raise TypeError(f"the model gives a {type(features).__name__} of features instead of one map")
    if features.ndim == 3:
        return features[:, num_prefix_tokens:]
    channels_first = features.shape[1] == width
    return features.flatten(2).transpose(1, 2) if channels_first else features.flatten(1, 2)


def patch_side(model: Any) -> int | None:
    """Side in pixels of a timm model's patches; None where they overlap, or there are none."""
    embedding = getattr(model, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    stride = getattr(getattr(embedding, "proj", None), "stride", patch)
    patch, stride = (side if side is None or isinstance(side, int) else side[0] for side in (patch, stride))
    return patch if patch == stride else None


def shapes_alone(encoder: ImageEncoder, what: str) -> tuple[Features, list[Tensor]]:
    """Features of one image in evaluation, and the parameters they depend on, without values and without arithmetic.

    Constants that a model makes on the way are real ones whatever the default device is: BEiT keeps its places of
    patches for all models to come.

    Raises:
        ValueError: with `what` the model is: it does not read images of this size, or gives no such features.
    """
    tensors: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta")) for p in encoder.parameters()}
    tensors |= {id(buffer): buffer.to("meta") for buffer in encoder.buffers()}
    twin = copy.deepcopy(encoder, tensors).eval()  # without copying a value; weights that are tied stay so
    try:
        with torch.device("cpu"):
            image = torch.zeros((1, 3, encoder.spec.size, encoder.spec.size), device="meta")
            return twin(image), list(twin.parameters())
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise ValueError(f"{what}: {first_line(error)}") from error


def _load_weights(model: Any, file: str) -> None:
    """timm itself loads what fits and is silent about the rest once the classifier is gone."""
    if file.endswith((".npz", ".npy")):  # other frameworks' formats, which timm loads by name
        model.load_pretrained(file)
        return
    module = sys.modules[type(model).__module__]
    adapt = getattr(module, "checkpoint_filter_fn", getattr(module, "_checkpoint_filter_fn", None))
    try:
        content = read(Path(file), use_ema=True)
    except ValueError as error:
        raise ValueError(f"weights={file}: {error}") from error
    try:
        keys = model.load_state_dict(adapt(content, model) if adapt else content, strict=False)
    except (KeyError, IndexError) as error:  # the filter looks for tensors of its own
        raise ValueError(f"weights={file}: not the tensors of {type(model).__name__} ({error})") from error
    except RuntimeError as error:  # a heading, and a line for each tensor of another shape
        _, first, *more = str(error).splitlines()
        raise ValueError(f"weights={file}: {1 + len(more)} tensors of another shape: {first.strip()}") from error
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    unexpected = [key for key in keys.unexpected_keys if not key.startswith(tuple(f"{name}." for name in heads))]
    for what, names in (("lacks", keys.missing_keys), ("has beside the model's own", unexpected)):
        if names:
            raise ValueError(f"weights={file}: the file {what} {len(names)} tensors, such as {names[0]}")


class TimmEncoder(ImageEncoder):
    """Any timm model by name, with pooled features and the local ones they are pooled from.

    Args:
        name: a timm model name, such as resnet50, densenet121 or vit_base_patch16_224.
        size: side of the input in pixels. Transformers of another native size are built for this one; position
            embeddings of loaded weights are interpolated.
        pretrained: load timm's weights: from `weights` where that is set, else from the hub (needs a network).
        weights: a local file of weights, loaded strictly but for the classifier.
        mean, std: normalisation of the input; ImageNet's by default.
        channels_last: memory layout of the convolutions; about twice as fast with bf16 on recent CPUs and on CUDA.
        local_layer: where local features are taken, counted from the end: -1 the last stage or block, normalised as
            for pooling; -2 the one before (layer3 of a ResNet, as in GLoRIA).
        checkpointing: recompute activations in the backward pass: less memory, more time. Gradients stay the same, but
            running statistics of BatchNorm see each batch twice.
        options: more arguments of the timm model, such as {norm_layer: groupnorm}.

    Raises:
        ValueError: no such model, one without one map of features and one vector, or not at this size; weights that
            cannot be read or do not fit.
    """

    @classmethod
    def lacking(cls, settings: Mapping[str, Any]) -> list[str]:
        weights = settings.get("weights")
        if weights is None:
            return []
        wrong = fault(Path(weights)) if Path(weights).is_file() else "file not found"
        return [f"weights={weights}: {wrong}"] if wrong else []

    def __init__(
        self,
        name: str,
        size: Side = 224,
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
        self._arguments = arguments(locals(), "pretrained", "weights", "mean", "std")
        import timm

        if not timm.is_model(name):
            close = timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:5]
            raise ValueError(
                f"name={name}: timm has no such model{' (near: ' + ', '.join(close) + ')' if close else ''}"
            )
        if wrong := self.lacking({"weights": weights}):
            raise ValueError(wrong[0])
        self.spec = ImageSpec(size, mean, std)
        extra = dict(options or {})
        native = timm.get_pretrained_cfg(name)
        if native is not None and native.fixed_input_size and native.input_size[1:] != (size, size):
            extra = {"img_size": size, **extra}
        self.model_args = extra
        try:
            model: Any = timm.create_model(name, pretrained=pretrained and weights is None, num_classes=0, **extra)
            if weights is not None:
                _load_weights(model, weights)
        except (TypeError, RuntimeError, OSError, AssertionError, NotImplementedError, AttributeError) as error:
            raise ValueError(f"timm cannot make {name} with {extra}: {first_line(error)}") from error
        check_patches(size, patch_side(model))
        if not hasattr(model, "forward_head") or not hasattr(model, "num_features"):
            raise ValueError(f"timm makes no model with pooled features of {name} with {extra}")
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
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Not every model of timm gives one map and one vector, and none takes every size.

        Raises:
            ValueError: this one does not.
        """
        where = f"timm's {self._arguments['name']} at size={self.spec.size}"
        (pooled, local), _ = shapes_alone(self, where)
        if local.ndim == 3 and not self._prefix and not hasattr(self.model, "num_prefix_tokens"):
            # CoaT and VOLO do not say that a class token leads: patches are a square, so one more is that token.
            self._prefix = int(math.isqrt(local.shape[1]) ** 2 != local.shape[1] > 1)
            local = local[:, self._prefix :]
        if pooled.ndim != 2 or local.ndim != 3 or local.shape[2] != self.local_dim or not local.shape[1]:
            raise ValueError(
                f"{where}: found pooled features {list(pooled.shape)} and local ones {list(local.shape)}, "
                f"expected [1, dim] and [1, N, {self.local_dim}]"
            )
        self.dim = pooled.shape[1]

    def forward(self, images: Tensor) -> Features:
        """Images float32 [B, 3, S, S] -> Features([B, dim], [B, N, local_dim])."""
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
            that hold the feature map, or tokens, and the pooled features; the defaults are those of the ResNets.
        mean, std: normalisation of the input; ImageNet's by default.
        channels_last: memory layout of the convolutions.
    """

    def __init__(
        self,
        name: str,
        size: Side = 224,
        weights: str | None = None,
        local_node: str = "layer4",
        pooled_node: str = "flatten",
        mean: Colour = IMAGENET_MEAN,
        std: Colour = IMAGENET_STD,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self._arguments = arguments(locals(), "weights", "mean", "std")
        from torchvision.models import get_model, list_models
        from torchvision.models.feature_extraction import create_feature_extractor

        if name not in list_models():
            raise ValueError(f"name={name}: torchvision has no such model (it has {', '.join(list_models()[:6])}, ...)")
        self.spec = ImageSpec(size, mean, std)
        if local_node == pooled_node:
            raise ValueError(f"local_node={local_node}, pooled_node={pooled_node}: expected two nodes")
        settings = {"image_size": size} if name.startswith("vit_") else {}
        try:
            full = get_model(name, weights=weights, **settings)
            self.model = create_feature_extractor(full, {local_node: "local", pooled_node: "pooled"})
            with torch.no_grad():
                shapes = self.model.eval()(torch.zeros(1, 3, size, size))
        except (ValueError, KeyError, OSError, RuntimeError, AssertionError) as error:
            what = f"{name} with size={size}, weights={weights}"
            raise ValueError(f"torchvision cannot make {what}: {first_line(error)}") from error
        self.model.train()
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self._layout)
        pooled, local = shapes["pooled"].shape, shapes["local"].shape
        if len(pooled) != 2 or len(local) not in (3, 4):
            raise ValueError(
                f"pooled_node={pooled_node} holds {list(pooled)}, local_node={local_node} {list(local)}: expected "
                "[1, dim], and a map [1, C, h, w] or tokens [1, N, C]"
            )
        self._prefix = int(hasattr(full, "class_token"))
        # Swin's maps have their channels last; the width of the pooled features tells which axis these are.
        last = len(local) == 3 or (local[3] == pooled[1] != local[1])
        self.dim, self.local_dim = pooled[1], local[-1] if last else local[1]

    def forward(self, images: Tensor) -> Features:
        """Images float32 [B, 3, S, S] -> Features([B, dim], [B, N, local_dim])."""
        outputs = self.model(images.contiguous(memory_format=self._layout))
        return Features(outputs["pooled"], local_features(outputs["local"], self.local_dim, self._prefix))

    def layer_names(self) -> list[list[str]]:
        return layers.below("model", layers.of_children(self.model))

    def node(self) -> dict[str, Any]:
        normalisation = {"mean": list(self.spec.mean), "std": list(self.spec.std)}
        return {"_target_": f"{__name__}.TorchvisionEncoder", **self._arguments, **normalisation}
