"""A folder of pictures: each image with its heat-maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor, nn

from cxrcl.data.images.reader import FULL_SIZE
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.errors import RESEARCH_ONLY
from cxrcl.inference import heatmap_pictures
from cxrcl.inference.explaining import Explainer, Explanation, boxes, peak
from cxrcl.inference.questions import ClassifierAnswerer, Questions, ZeroShotAnswerer
from cxrcl.inference.results import shown

SCALES = (
    "Each map has a scale of its own, from its smallest to its largest cell: something is bright in every map, "
    "whether there is a finding or not."
)
LARGEST_PX = 512  # longer side of an image in its picture
LONGEST_NAME = 200  # bytes of an image's name in that of its picture: file systems end at 255


class Gallery:
    """Draws pictures of images with their heat-maps.

    Args:
        folder: made where it is not there, for its owner alone to look into; pictures of the same names are replaced.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: RadiographTransform,
        answerer: ClassifierAnswerer | ZeroShotAnswerer,
        questions: Questions,
        folder: Path,
    ) -> None:
        self._explainer = Explainer(model, answerer, questions)
        self._transform, self._rule, self._folder = transform, answerer.probabilities.rule, folder
        self._taken: set[str] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def explain(self, images: Tensor, entries: list[dict[str, Any]]) -> list[Explanation]:
        """An explanation for each of the images, float32 [B, 3, S, S], and of the answers that belong to them."""
        return self._explainer.explain(images, entries)

    def draw(self, image: Path, explanation: Explanation) -> dict[str, Any]:
        """Write the picture of an image; returns what its entry of results.json says about it.

        Raises:
            ImageError: the image cannot be read any more.
        """
        pixels = _small(FULL_SIZE.read(image))
        height, width = pixels.shape
        crop = self._transform.evaluation_crop(width, height)
        chosen = boxes(explanation, crop, width, height)
        kinds = dict.fromkeys(
            f"{map_.kind}; {map_.cells.shape[0]} x {map_.cells.shape[1]} cells" for map_ in explanation.maps
        )
        rule = [f"{self._rule[0].upper()}{self._rule[1:]}."] if self._explainer.with_labels else []
        notes = [*(f"Map: {kind}." for kind in kinds), SCALES, *rule, RESEARCH_ONLY]
        path = self._folder / self._name(image)
        heatmap_pictures.draw(path, pixels, crop, explanation.maps, chosen, shown(image.name), notes)
        maps = [
            {"title": map_.title, "kind": map_.kind, "peak": _rounded(peak(map_.cells, crop, width, height))}
            for map_ in explanation.maps
        ]
        entry: dict[str, Any] = {"heatmap": {"picture": f"{self._folder.name}/{path.name}", "maps": maps}}
        if explanation.chosen:
            entry["patches"] = [{"box": _rounded(box.corners), "score": box.score} for box in chosen]
        return entry

    def _name(self, image: Path) -> str:
        """The name of the picture: the image's own, numbered where images of several folders share it."""
        base = shown(image.name).encode()[:LONGEST_NAME].decode(errors="ignore")
        name, number = f"{base}.png", 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{base}_{number}.png"
        self._taken.add(name.casefold())
        return name


def _small(pixels: np.ndarray) -> np.ndarray:
    """An image uint8 [H, W], shrunk where it is larger than its panel."""
    shrink = min(1.0, LARGEST_PX / max(pixels.shape))
    height, width = (max(1, round(side * shrink)) for side in pixels.shape)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 4) for value in values]
