"""Reading films with a checkpoint: what inference.py and `cxrcl.load` have in common, and what inference.py does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cxrcl import assemble, checkpoint, config, distributed, restoring
from cxrcl.data import image_io
from cxrcl.data import prompts as prompt_files
from cxrcl.data.films import Films
from cxrcl.data.image_io import ImageError
from cxrcl.data.prompts import Prompts
from cxrcl.data.transforms import RadiographTransform
from cxrcl.errors import ConfigError
from cxrcl.evaluation.readers import ClassifierReader, Reader, ZeroShotReader
from cxrcl.trainer import Precision
from cxrcl.types import Batch, Classifies, EmbedsImages, EmbedsText, Objective, ScalesSimilarity

Packages = Sequence[str]
Film = str | Path | np.ndarray | Image.Image
T = TypeVar("T")


# ------------------------------------------------------------------------------------------ a checkpoint, ready


@dataclass(frozen=True)
class Restored:
    """The model of a checkpoint on its device, with the preprocessing and the precision of its training."""

    objective: Objective
    stored: Mapping[str, Any]  # the checkpoint's config
    step: int
    transform: RadiographTransform
    precision: Precision
    device: torch.device

    @property
    def model(self) -> nn.Module:
        """What reads: of a sum of objectives its primary part."""
        return self.objective.evaluated()

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Inside, no gradients and the model's precision, whatever the caller's autocast is."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False), self.precision.autocast():
            yield

    def each(
        self, films: Sequence[Film], batch_size: int, compute: Callable[[Tensor], Iterable[T]]
    ) -> Iterator[T | ImageError]:
        """For each film its row of `compute(float32 [B, 3, S, S])`, or why it cannot be read."""
        for start in range(0, len(films), batch_size):
            pixels = [self._pixels(film) for film in films[start : start + batch_size]]
            good = [film for film in pixels if not isinstance(film, ImageError)]
            rows = iter(compute(self._on_device(good))) if good else iter(())
            for film in pixels:
                yield film if isinstance(film, ImageError) else next(rows)

    def blank(self) -> Tensor:
        """One black film, float32 [1, 3, S, S]: for the shape of a row where there is no film."""
        side = self.transform.spec.size
        return self._on_device([np.zeros((1, 1, side, side), dtype=np.uint8)])

    def _on_device(self, films: Sequence[np.ndarray]) -> Tensor:
        """uint8 [1, 1, S, S] each -> float32 [B, 3, S, S]."""
        batch = Batch(torch.from_numpy(np.stack(films)), None, None, torch.empty(0), torch.empty(0))
        images = self.transform.finish(batch.to(self.device)).images
        assert images is not None
        return images[:, 0]

    def _pixels(self, film: Film) -> np.ndarray | ImageError:
        """uint8 [1, 1, S, S], or why it cannot be read."""
        try:
            films = Films(self.stored["data"].get("read_px"))
            grey = _grey(film, self.transform.needed_side_px(augmented=False), films)
            return self.transform.geometry(grey, None)[None, None]
        except ImageError as error:
            return error


def restore(
    path: Path, device: torch.device, precision: str | None = None, packages: Packages = config.OWN_PACKAGES
) -> Restored:
    """Make a checkpoint ready to read.

    Args:
        precision: auto, fp32, bf16 or fp16; None takes that of training.

    Raises:
        CheckpointError: a file that cannot be used.
        ConfigError: it names a class outside of `packages`.
    """
    state = checkpoint.load(path.expanduser())
    stored = state["config"]
    objective = restoring.restore_model(state, packages, device)
    transform = assemble.build_transform(stored["transform"], objective, packages)
    name = assemble.precision_name(precision or stored["precision"], device)
    return Restored(objective, stored, state["progress"]["step"], transform, Precision(name, device), device)


def _grey(film: Film, smallest_side_px: int, films: Films) -> np.ndarray:
    """uint8 [H, W]; arrays and images in memory by the range rule of `cxrcl.data.image_io`."""
    if isinstance(film, str | Path):
        return films.read(film, smallest_side_px)
    if isinstance(film, np.ndarray | Image.Image):
        return films.shrink(image_io.grey(film))
    raise ImageError(f"expected a path, a 2-D array of numbers or a PIL image, found {type(film).__name__}")


# -------------------------------------------------------------------------------------------------- zero-shot


def sentences_of(stored: Mapping[str, Any]) -> tuple[Prompts, list[str]]:
    """The shipped sentences, and for labels of the user's own those that training used; and the labels to read.

    These are the labels of the data that have both sides; where none has, those of the shipped file.
    """
    shipped = prompt_files.load("zero_shot.json")
    sentences = {**stored["prompt_sentences"], **shipped}
    labels = [name for name in stored["labels"] if sentences.get(name, {}).get("neg")]
    return sentences, labels or list(shipped)


# ------------------------------------------------------------------------------------------------ inference.py


@dataclass(frozen=True)
class Read:
    """Probabilities of each image, and the rule behind them."""

    images: list[dict[str, Any]]  # {image, probabilities: {label: float}} or {image, error}
    rule: str


def predict(
    path: Path,
    images: Sequence[Path],
    prompts: str | None = None,
    device: str = "auto",
    batch_size: int = 32,
    packages: Packages = config.OWN_PACKAGES,
) -> Read:
    """Label probabilities of image files. A file that cannot be read becomes an entry with the reason.

    Raises:
        UserError: a checkpoint or prompts file that cannot be used.
    """
    with distributed.start(device) as runtime:
        restored = restore(path, runtime.device, packages=packages)
        with restored.ready():
            reader = _reader(restored, prompts)
            entries: list[dict[str, Any]] = []
            for image, found in zip(images, restored.each(images, batch_size, reader.run), strict=True):
                result = {"error": str(found)} if isinstance(found, ImageError) else {"probabilities": found}
                entries.append({"image": str(image), **result})
        return Read(entries, reader.rule)


def _reader(restored: Restored, prompts: str | None) -> Reader:
    model = restored.model
    if isinstance(model, Classifies):
        if prompts is not None:
            raise ConfigError("--prompts: this checkpoint is a classifier and reads no text")
        return ClassifierReader(model, restored.stored["labels"])
    if not (isinstance(model, EmbedsImages) and isinstance(model, EmbedsText) and isinstance(model, ScalesSimilarity)):
        raise ConfigError(
            f"{type(model).__name__} neither classifies nor compares images with text: train a classifier on it with "
            "finetune.py init_from=CHECKPOINT"
        )
    if prompts is not None:
        try:
            sentences = prompt_files.load(prompts)
        except ValueError as error:
            raise ConfigError(f"--prompts: {error}") from None
        labels = [name for name, kinds in sentences.items() if kinds.get("neg")]
        if not labels:
            raise ConfigError(f"--prompts {prompts}: no label has `neg` sentences: a probability needs both sides")
    else:
        sentences, labels = sentences_of(restored.stored)
    return ZeroShotReader(model, sentences, labels, restored.device)
