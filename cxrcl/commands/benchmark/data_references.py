"""What ways of reading images and texts are measured against: the plain way that published code takes.

An image is three channels from the start, everything happens to one image after the other on the host, and texts are
tokenised in each batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from cxrcl.types import ImageSpec


def evaluation_pipeline(spec: ImageSpec) -> Any:
    """Shorter side resized, middle cut out, normalised: an RGB image -> float32 [3, S, S]."""
    return transforms.Compose(
        [
            transforms.Resize(spec.size),
            transforms.CenterCrop(spec.size),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )


def training_pipeline(
    spec: ImageSpec,
    scale: tuple[float, float] = (0.8, 1.1),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    clahe_probability: float = 0.5,
    jitter: Any = (0.1, 0.2, 0.2, 0.1),
) -> Any:
    """The training recipe of CXR-CLIP (You et al. 2023) for an RGB image.

    Args:
        scale, ratio: of the area and the aspect of the random crop.
        clahe_probability: of CLAHE with a clip limit from 1 to 4.
        jitter: brightness, contrast, saturation and hue, as torchvision's ColorJitter takes them.
    """
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(spec.size, scale=scale, ratio=ratio),
            transforms.Lambda(lambda image: _equalised(image, clahe_probability)),
            transforms.ColorJitter(*jitter),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )


def _equalised(image: Image.Image, probability: float) -> Image.Image:
    """CLAHE of the lightness of an RGB image, as libraries for photographs do it."""
    if torch.rand(()).item() >= probability:
        return image
    lab = cv2.cvtColor(np.array(image), cv2.COLOR_RGB2LAB)
    limit = torch.empty(()).uniform_(1, 4).item()
    lab[:, :, 0] = cv2.createCLAHE(clipLimit=limit, tileGridSize=(8, 8)).apply(lab[:, :, 0])
    return Image.fromarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def read_batch(paths: Sequence[Path], pipeline: Any) -> Tensor:
    """Files -> float32 [B, 3, S, S]."""
    return torch.stack([pipeline(Image.open(path).convert("RGB")) for path in paths])


def decode(paths: Sequence[Path]) -> np.ndarray:
    """Grey files of one size -> uint8 [B, H, W]."""
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def fast_tokenizer(definition: str, max_length: int) -> Any:
    """Hugging Face's fast tokenizer of a tokenizer.json: texts -> `input_ids` and `attention_mask`, int64 [B, L]."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(definition), pad_token="[PAD]")

    def tokenize(texts: Sequence[str]) -> Any:
        return tokenizer(list(texts), padding="longest", truncation=True, max_length=max_length, return_tensors="pt")

    return tokenize
