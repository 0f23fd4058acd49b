"""A folder of pictures: each film with its heat-maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor, nn

from cxrcl.data.films import FULL_SIZE
from cxrcl.data.transforms import RadiographTransform
from cxrcl.inference import RESEARCH_ONLY, heatmap_pictures
from cxrcl.inference.explaining import Explainer, Explanation, boxes, peak
from cxrcl.inference.questions import Asked, ClassifierQuestions, ZeroShotQuestions
from cxrcl.inference.results import shown

SCALES = (
    "Each map has a scale of its own, from its smallest to its largest cell: something is bright in every map, "
    "whether there is a finding or not."
)
LARGEST_PX = 512  # longer side of a film in its picture
LONGEST_NAME = 200  # bytes of a film's name in that of its picture: file systems end at 255


class Gallery:
    """
    Args:
        folder: made where it is not there, for its owner alone to look into; pictures of the same names are replaced.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: RadiographTransform,
        questions: ClassifierQuestions | ZeroShotQuestions,
        asked: Asked,
        folder: Path,
    ) -> None:
        self._explainer = Explainer(model, questions, asked)
        self._transform, self._rule, self._folder = transform, questions.reader.rule, folder
        self._taken: set[str] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def explain(self, images: Tensor, entries: list[dict[str, Any]]) -> list[Explanation]:
        return self._explainer.explain(images, entries)

    def draw(self, image: Path, explanation: Explanation) -> dict[str, Any]:
        """Write the picture of a film; returns what its entry of results.json tells of it.

        Raises:
            ImageError: the film, which was there, is so no longer.
        """
        film = _small(FULL_SIZE.read(image))
        height, width = film.shape
        crop = self._transform.evaluation_crop(width, height)
        chosen = boxes(explanation, crop, width, height)
        kinds = dict.fromkeys(
            f"{map_.kind}; {map_.cells.shape[0]} x {map_.cells.shape[1]} cells" for map_ in explanation.maps
        )
        rule = [f"{self._rule[0].upper()}{self._rule[1:]}."] if self._explainer.with_labels else []
        notes = [*(f"Map: {kind}." for kind in kinds), SCALES, *rule, RESEARCH_ONLY]
        path = self._folder / self._name(image)
        heatmap_pictures.draw(path, film, crop, explanation.maps, chosen, shown(image.name), notes)
        maps = [
            {"title": map_.title, "kind": map_.kind, "peak": _rounded(peak(map_.cells, crop, width, height))}
            for map_ in explanation.maps
        ]
        told: dict[str, Any] = {"heatmap": {"picture": f"{self._folder.name}/{path.name}", "maps": maps}}
        if explanation.chosen:
            told["patches"] = [{"box": _rounded(box.corners), "score": box.score} for box in chosen]
        return told

    def _name(self, image: Path) -> str:
        """The film's own name; numbered where films of several folders share it."""
        base = shown(image.name).encode()[:LONGEST_NAME].decode(errors="ignore")
        name, number = f"{base}.png", 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{base}_{number}.png"
        self._taken.add(name.casefold())
        return name


def _small(film: np.ndarray) -> np.ndarray:
    """uint8 [H, W], shrunk where it is larger than its panel."""
    shrink = min(1.0, LARGEST_PX / max(film.shape))
    height, width = (max(1, round(side * shrink)) for side in film.shape)
    return cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 4) for value in values]
