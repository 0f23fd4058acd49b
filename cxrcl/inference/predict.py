"""Predictions for images with a checkpoint: what inference.py and `cxrcl.load` share, and what inference.py does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cxrcl import distributed
from cxrcl.app import restore as restoring
from cxrcl.app.other_data import line_on_unknown_views
from cxrcl.app.plan import precision_name
from cxrcl.checkpoint.content import Recipe
from cxrcl.config.nodes import OWN_PACKAGES, Packages
from cxrcl.data.exposure import Exposure
from cxrcl.data.images import image_io
from cxrcl.data.images.image_io import ImageError
from cxrcl.data.images.reader import FULL_SIZE, ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.inference.questions import ALL, Questions, answerer_for
from cxrcl.objectives.base import Objective
from cxrcl.training.trainer import Precision
from cxrcl.types import Batch

ImageInput = str | Path | np.ndarray | Image.Image
T = TypeVar("T")


# ------------------------------------------------------------------------------------------ a checkpoint, ready


@dataclass(frozen=True)
class LoadedModel:
    """The model of a checkpoint on its device, with the preprocessing and the precision of its training.

    Attributes:
        exposure: what it was trained on; None where the checkpoint does not record it.
    """

    objective: Objective
    recipe: Recipe
    step: int
    transform: RadiographTransform
    precision: Precision
    device: torch.device
    exposure: Exposure | None = None

    @property
    def model(self) -> nn.Module:
        """The model that predicts: of a sum of objectives its primary part."""
        return self.objective.evaluated()

    @contextmanager
    def inference_mode(self) -> Iterator[None]:
        """A context without gradients and with the model's precision, whatever the caller's autocast is."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False), self.precision.autocast():
            yield

    def map_images(
        self, images: Sequence[ImageInput], batch_size: int, compute: Callable[[Tensor], Iterable[T]]
    ) -> Iterator[T | ImageError]:
        """For each image its row of `compute(float32 [B, 3, S, S])`, or why it cannot be read."""
        for start in range(0, len(images), batch_size):
            batch = [self._pixels(image) for image in images[start : start + batch_size]]
            readable = [pixels for pixels in batch if not isinstance(pixels, ImageError)]
            rows = iter(compute(self._on_device(readable))) if readable else iter(())
            for pixels in batch:
                yield pixels if isinstance(pixels, ImageError) else next(rows)

    def black_image(self) -> Tensor:
        """One black image, float32 [1, 3, S, S]: for the shape of a row where there is no image."""
        side = self.transform.spec.size
        return self._on_device([np.zeros((1, 1, side, side), dtype=np.uint8)])

    def full_size(self, image: ImageInput) -> np.ndarray:
        """The grey image as it is, uint8 [H, W], whatever size the model reads images in.

        Raises:
            ImageError: it cannot be read.
        """
        return _grey(image, None, FULL_SIZE)

    def _on_device(self, squares: Sequence[np.ndarray]) -> Tensor:
        """Squares uint8 [1, 1, S, S] each -> the model's input float32 [B, 3, S, S]."""
        batch = Batch(torch.from_numpy(np.stack(squares)), None, None, torch.empty(0), torch.empty(0))
        images = self.transform.finish(batch.to(self.device)).images
        assert images is not None
        return images[:, 0]

    def _pixels(self, image: ImageInput) -> np.ndarray | ImageError:
        """The model's square of an image, uint8 [1, 1, S, S], or why it cannot be read."""
        try:
            reader = ImageReader(self.recipe.data.get("read_px"))
            grey = _grey(image, self.transform.needed_side_px(augmented=False), reader)
            return self.transform.geometry(grey, None)[None, None]
        except ImageError as error:
            return error


def load_model(
    path: Path, device: torch.device, precision: str | None = None, packages: Packages = OWN_PACKAGES
) -> LoadedModel:
    """The model of a checkpoint, ready to predict.

    Args:
        precision: auto, fp32, bf16 or fp16; None takes that of training.

    Raises:
        CheckpointError: a file that cannot be used.
        ConfigError: it names a class outside of `packages`.
    """
    checkpoint, objective, transform = restoring.restore(path.expanduser(), packages, device)
    name = precision_name(precision or checkpoint.recipe.precision, device)
    numbers = Precision(name, device)
    return LoadedModel(objective, checkpoint.recipe, checkpoint.step, transform, numbers, device, checkpoint.exposure)


def _grey(image: ImageInput, smallest_side_px: int | None, reader: ImageReader) -> np.ndarray:
    """The grey image, uint8 [H, W]; arrays and images in memory by the range rule of `cxrcl.data.images.image_io`."""
    if isinstance(image, str | Path):
        return reader.read(image, smallest_side_px)
    if isinstance(image, np.ndarray | Image.Image):
        return reader.shrink(image_io.grey(image))
    raise ImageError(f"expected a path, a 2-D array of numbers or a PIL image, found {type(image).__name__}")


# ----------------------------------------------------------------------------------------------- images, one by one


class Predictor:
    """Answers questions about images with one model.

    Args:
        loaded: the model.
        questions: what is to be predicted.
        pictures: a folder for a picture of each image with its heat-maps.

    Attributes:
        rule: how the probabilities come about, and for which views the model was made.
        labels: that have them.

    Raises:
        ConfigError: a question that the model cannot answer.
    """

    def __init__(self, loaded: LoadedModel, questions: Questions = ALL, pictures: Path | None = None) -> None:
        self._loaded, self._model = loaded, cast(Any, loaded.model)
        with loaded.inference_mode():
            self._answerer = answerer_for(loaded.model, loaded.recipe, questions, loaded.device)
        rule, of_views = self._answerer.probabilities.rule, line_on_unknown_views(loaded.recipe)
        self.rule = f"{rule}; {of_views}" if of_views else rule
        self.labels: list[str] = self._answerer.labels
        self._gallery = None
        if pictures is not None:
            from cxrcl.inference.gallery import Gallery  # matplotlib takes a second

            self._gallery = Gallery(self._model, loaded.transform, self._answerer, questions, pictures)

    def predict(self, images: Sequence[Path], batch_size: int = 32) -> Iterator[dict[str, Any]]:
        """An entry for each file, in order, as it is read.

        {image, probabilities: {label: float}}, or {image, error} where it cannot be read. Models that take texts also
        give sentences: [{text, cosine}], the best matches first; with phrases their cosines; with pictures what was
        drawn: heatmap: {picture, maps: [{title, kind, peak}]}, patches: [{box, score}].
        """
        for image, row in zip(images, self._loaded.map_images(images, batch_size, self._answers), strict=True):
            entry: dict[str, Any] = {"image": str(image)}
            try:
                if isinstance(row, ImageError):
                    raise row
                drawn = {} if self._gallery is None else self._gallery.draw(image, row[1])
                entry |= {**row[0], **drawn}
            except ImageError as error:
                entry["error"] = str(error)
            yield entry

    def _answers(self, images: Tensor) -> list[tuple[dict[str, Any], Any]]:
        """The entry and the explanation of each image, float32 [B, 3, S, S]."""
        with self._loaded.inference_mode():
            entries = self._answerer.answers(self._model.encode_images(images))
            explained = [None] * len(entries) if self._gallery is None else self._gallery.explain(images, entries)
        return list(zip(entries, explained, strict=True))


@contextmanager
def opened_model(path: Path, device: str = "auto", packages: Packages = OWN_PACKAGES) -> Iterator[LoadedModel]:
    """The model of a checkpoint in this process, threads and signals set as in training.

    Raises:
        UserError: a checkpoint, or a device, that cannot be used.
    """
    with distributed.start(device) as runtime:
        yield load_model(path, runtime.device, packages=packages)
