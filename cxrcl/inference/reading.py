"""Reading films with a checkpoint: what inference.py and `cxrcl.load` have in common, and what inference.py does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cxrcl import assemble, config, distributed, restoring
from cxrcl.data import image_io
from cxrcl.data.films import FULL_SIZE, Films
from cxrcl.data.image_io import ImageError
from cxrcl.data.transforms import RadiographTransform
from cxrcl.inference.questions import ALL, Asked, questions
from cxrcl.objectives.base import Objective
from cxrcl.trainer import Precision
from cxrcl.types import Batch

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

    def full_size(self, film: Film) -> np.ndarray:
        """uint8 [H, W] as it is, whatever size the model reads films in.

        Raises:
            ImageError: it cannot be read.
        """
        return _grey(film, None, FULL_SIZE)

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
    state, objective, transform = restoring.restore(path.expanduser(), packages, device)
    stored = state["config"]
    name = assemble.precision_name(precision or stored["precision"], device)
    return Restored(objective, stored, state["progress"]["step"], transform, Precision(name, device), device)


def _grey(film: Film, smallest_side_px: int | None, films: Films) -> np.ndarray:
    """uint8 [H, W]; arrays and images in memory by the range rule of `cxrcl.data.image_io`."""
    if isinstance(film, str | Path):
        return films.read(film, smallest_side_px)
    if isinstance(film, np.ndarray | Image.Image):
        return films.shrink(image_io.grey(film))
    raise ImageError(f"expected a path, a 2-D array of numbers or a PIL image, found {type(film).__name__}")


# ------------------------------------------------------------------------------------------------ films, one by one


class Reading:
    """What is asked of films, of one model.

    Args:
        pictures: a folder for a picture of each film with its heat-maps.

    Attributes:
        rule: behind the probabilities.
        labels: that have them.

    Raises:
        ConfigError: a question that the model cannot answer.
    """

    def __init__(self, restored: Restored, asked: Asked = ALL, pictures: Path | None = None) -> None:
        self._restored, self._model = restored, cast(Any, restored.model)
        with restored.ready():
            self._questions = questions(restored.model, restored.stored, asked, restored.device)
        self.rule: str = self._questions.reader.rule
        self.labels: list[str] = self._questions.labels
        self._gallery = None
        if pictures is not None:
            from cxrcl.inference.gallery import Gallery  # matplotlib takes a second

            self._gallery = Gallery(self._model, restored.transform, self._questions, asked, pictures)

    def of(self, images: Sequence[Path], batch_size: int = 32) -> Iterator[dict[str, Any]]:
        """An entry for each file, in order, as it is read.

        {image, probabilities: {label: float}}, or {image, error} where it cannot be read. Models that read texts also
        give sentences: [{text, cosine}], the best matches first; with phrases their cosines; with pictures what was
        drawn: heatmap: {picture, maps: [{title, kind, peak}]}, patches: [{box, score}].
        """
        for image, row in zip(images, self._restored.each(images, batch_size, self._answers), strict=True):
            entry: dict[str, Any] = {"image": str(image)}
            try:
                if isinstance(row, ImageError):
                    raise row
                drawn = {} if self._gallery is None else self._gallery.draw(image, row[1])
                entry |= {**row[0], **drawn}
            except ImageError as error:
                entry["error"] = str(error)
            yield entry

    def _answers(self, films: Tensor) -> list[tuple[dict[str, Any], Any]]:
        """Of float32 [B, 3, S, S]."""
        with self._restored.ready():
            entries = self._questions.answers(self._model.encode_images(films))
            drawn = [None] * len(entries) if self._gallery is None else self._gallery.explain(films, entries)
        return list(zip(entries, drawn, strict=True))


@contextmanager
def opened(path: Path, device: str = "auto", packages: Packages = config.OWN_PACKAGES) -> Iterator[Restored]:
    """A checkpoint in this process, threads and signals set as in training.

    Raises:
        UserError: a checkpoint, or a device, that cannot be used.
    """
    with distributed.start(device) as runtime:
        yield restore(path, runtime.device, packages=packages)
