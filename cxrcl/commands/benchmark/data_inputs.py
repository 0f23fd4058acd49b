"""Images and reports that the data path is timed on: phantoms, enlarged and with the grain of real ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cxrcl.data.images.image_io import read_gray
from cxrcl.data.phantom import PhantomSettings, generate
from cxrcl.data.phantom.report import text_of, write_report
from cxrcl.data.phantom.study import patient_studies
from cxrcl.data.text.reports import sentences


def phantoms(folder: Path, num_studies: int, size_px: int) -> list[np.ndarray]:
    """Images uint8 [`size_px`, `size_px`] of so many studies."""
    root = generate(folder / f"phantom{size_px}", PhantomSettings(num_studies=num_studies, size_px=size_px))
    return [read_gray(path) for path in sorted(root.glob("images/*/*.png"))]


def grainy(image: np.ndarray, width: int, height: int, grain: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 [`height`, `width`]: enlarged, and with noise of standard deviation `grain` added.

    The noise of neighbouring pixels is alike, as behind the optics of a detector.
    """
    noise = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), 0.7)
    large = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(large + noise * (grain / noise.std())), 0, 255).astype(np.uint8)


def write_jpegs(
    folder: Path, images: Sequence[np.ndarray], count: int, size: tuple[int, int], grain: float, quality: int
) -> list[Path]:
    """So many files of `size` (width, height), each with a grain of its own."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{k}.jpg" for k in range(count)]
    for path, image in zip(paths, itertools.cycle(images)):
        Image.fromarray(grainy(image, *size, grain, rng)).save(path, quality=quality)
    return paths


def write_png_set(folder: Path, images: Sequence[np.ndarray], count: int, grain: float) -> list[Path]:
    """So many PNG files with a manifest."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = [folder / "images" / f"{k}.png" for k in range(count)]
    for path, image in zip(paths, itertools.cycle(images)):
        cv2.imwrite(str(path), grainy(image, image.shape[1], image.shape[0], grain, rng))
    rows = [f"images/{path.name},{k},{k},PA,train,0" for k, path in enumerate(paths)]
    (folder / "manifest.csv").write_text("\n".join(["image,patient,study,view,split,Edema", *rows, ""]))
    return paths


def reports(count: int) -> list[tuple[str, ...]]:
    """The sentences of so many reports."""
    studies = (study for patient in itertools.count() for study in patient_studies(0, patient))
    written = (write_report(study, np.random.default_rng([0, k])) for k, study in enumerate(studies))
    texts = (f"{text_of(report.findings)} {text_of(report.impression)}" for report in written)
    return [tuple(sentences(text)) for text in itertools.islice(texts, count)]
