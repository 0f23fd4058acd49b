"""Reading single films: a checkpoint and files in, probabilities out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrcl import assemble, checkpoint, config, distributed
from cxrcl.data import prompts as prompt_files
from cxrcl.data.image_io import ImageError, read_gray
from cxrcl.data.transforms import RadiographTransform
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError
from cxrcl.evaluation.readers import ClassifierReader, Reader, ZeroShotReader
from cxrcl.trainer import Precision
from cxrcl.types import Batch, Classifies, Objective

Packages = Sequence[str]


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
        state = checkpoint.load(path.expanduser())
        stored = state["config"]
        model = assemble.restore_model(state, packages).to(runtime.device)
        transform = assemble.build_transform(stored["transform"], model, packages)
        precision = Precision(assemble.precision_name(stored["precision"], runtime.device), runtime.device)
        with torch.no_grad(), precision.autocast():
            score = _reader(model, stored, prompts, runtime)
            entries: list[dict[str, Any]] = []
            for start in range(0, len(images), batch_size):
                chunk = list(images[start : start + batch_size])
                films = [_film(image, transform) for image in chunk]
                good = [film for film in films if not isinstance(film, str)]
                rows: Iterator[dict[str, float]] = iter(())
                if good:
                    batch = Batch(torch.from_numpy(np.stack(good)), None, None, torch.empty(0), torch.empty(0))
                    ready = assemble.prepare(transform, runtime)(batch).images
                    assert ready is not None
                    rows = iter(score.run(ready[:, 0]))
                for image, film in zip(chunk, films, strict=True):
                    entries.append({"image": str(image)})
                    entries[-1] |= {"error": film} if isinstance(film, str) else {"probabilities": next(rows)}
        return Read(entries, score.rule)


def _film(path: Path, transform: RadiographTransform) -> np.ndarray | str:
    """uint8 [1, 1, S, S], or why the file cannot be read."""
    try:
        return transform.geometry(read_gray(path, transform.spec.size), None)[None, None]
    except ImageError as error:
        return str(error)


def _reader(model: Objective, stored: Mapping[str, Any], prompts: str | None, runtime: Runtime) -> Reader:
    if isinstance(model, Classifies):
        if prompts is not None:
            raise ConfigError("--prompts: this checkpoint is a classifier and reads no text")
        return ClassifierReader(model, stored["labels"])
    if prompts is not None:
        try:
            sentences = prompt_files.load(prompts)
        except ValueError as error:
            raise ConfigError(f"--prompts: {error}") from None
        labels = [name for name, kinds in sentences.items() if kinds.get("neg")]
        if not labels:
            raise ConfigError(f"--prompts {prompts}: no label has `neg` sentences: a probability needs both sides")
    else:
        # The shipped sentences, and for labels of the user's own those that training used.
        sentences = {**stored["prompt_sentences"], **prompt_files.load("zero_shot.json")}
        labels = [name for name in stored["labels"] if sentences.get(name, {}).get("neg")]
        labels = labels or list(prompt_files.load("zero_shot.json"))
    return ZeroShotReader(model, sentences, labels, runtime.device)  # type: ignore[arg-type]
