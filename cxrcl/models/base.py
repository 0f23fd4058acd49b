"""Base classes of the encoders, and what the rest of the package asks of every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from cxrcl.types import ImageSpec, Tokenizer


def arguments(values: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    """Arguments of a constructor for its `node`, out of its `locals()` before there are others."""
    return {name: value for name, value in values.items() if name not in ("self", "__class__", *left_out)}


class Encoder(nn.Module):
    """What image and text encoders share.

    Attributes:
        dim: width of the pooled features [B, dim].
        local_dim: width of the local features [B, N, local_dim]; 0 where an encoder has none.
        frozen_parts: names of the modules that stay in evaluation mode, set by `cxrcl.freezing.freeze`.
    """

    dim: int
    local_dim: int
    frozen_parts: tuple[str, ...] = ()

    def node(self) -> dict[str, Any]:
        """The config node (`_target_` and settings) that rebuilds this architecture without weights or a network.

        Raises:
            TypeError: the class does not define it.
        """
        raise TypeError(f"{type(self).__name__} does not define node()")

    @classmethod
    def lacking(cls, settings: Mapping[str, Any]) -> list[str]:
        """What is missing from the local folder that these settings of the constructor name; asked before building."""
        return []

    def layer_names(self) -> list[list[str]]:
        """Layers from the input to the output, each as the names of its modules and parameters.

        Every parameter belongs to exactly one layer. Freezing and layer-wise learning rates count in these layers; the
        default is a single one.
        """
        return [[name for name, _ in self.named_parameters()]]

    def train(self, mode: bool = True) -> Any:
        """As `nn.Module.train`, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen_parts:
            # nn.Module's method and not the part's own: the part may be this encoder itself.
            nn.Module.train(self.get_submodule(name), False)
        return self


class ImageEncoder(Encoder):
    """Base of all image encoders: `forward` takes images float32 [B, 3, S, S] and returns `Features`.

    Attributes:
        spec: the images that it expects.
    """

    spec: ImageSpec


class TextEncoder(Encoder):
    """Base of all text encoders: `forward` takes ids and mask, int64 [B, L] each, and returns `Features`.

    Attributes:
        tokenizer: makes the tokens that it expects.
    """

    tokenizer: Tokenizer
