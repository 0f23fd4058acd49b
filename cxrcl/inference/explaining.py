"""Which heat-maps go with the questions about an image, and where they lie on it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from cxrcl.data.images.geometry import Crop, place_on_image
from cxrcl.inference import heatmaps
from cxrcl.inference.questions import ClassifierAnswerer, Questions, ZeroShotAnswerer
from cxrcl.models.patch_selection import TopKPatches
from cxrcl.objectives.gloria import Gloria

SHOWN = 5  # labels of an image that get a map where none were named: the most probable
MARGIN = "margin (positive minus negative cosine)"


class HeatMap(NamedTuple):
    """One map over an image."""

    title: str
    cells: np.ndarray  # float32 [h, w], a grid over the model's square
    kind: str


class Box(NamedTuple):
    """One patch that the encoder chose."""

    corners: tuple[float, float, float, float]  # x0, y0, x1, y1 as fractions of the image, cut at its border
    score: float


class Explanation(NamedTuple):
    """The maps of one image."""

    maps: list[HeatMap]
    chosen: list[int]  # cells of the first map that the encoder chose, the best first; of encoders that do not: none


class Explainer:
    """Maps of phrases where there are some, and of labels where they were named or there are no phrases."""

    def __init__(self, model: nn.Module, answerer: ClassifierAnswerer | ZeroShotAnswerer, questions: Questions) -> None:
        self.model, self.answerer = model, answerer
        self.phrases = list(getattr(answerer, "phrases", ()))
        self.with_labels = questions.labels is not None or not self.phrases
        self.shown = None if questions.labels is not None else SHOWN

    def explain(self, images: Tensor, entries: list[dict[str, Any]]) -> list[Explanation]:
        """An explanation for each of the images, float32 [B, 3, S, S], and of the answers that belong to them."""
        maps: list[list[HeatMap]] = [[] for _ in entries]
        chosen: list[list[int]] = [[] for _ in entries]
        encoder = getattr(self.model, "image_encoder", None)
        if isinstance(encoder, TopKPatches):
            patches = heatmaps.patches(encoder, images)
            for k, cells in enumerate(patches.scores.numpy()):
                maps[k].append(HeatMap("score of each patch", cells, heatmaps.PATCHES))
                chosen[k] = patches.chosen[k].tolist()
        if self.phrases:
            self._phrases(images, entries, maps)
        if self.with_labels:
            self._labels(images, entries, maps)
        return [Explanation(*row) for row in zip(maps, chosen, strict=True)]

    def _phrases(self, images: Tensor, entries: list[dict[str, Any]], maps: list[list[HeatMap]]) -> None:
        titles = [[f"{text} (cosine {entry['phrases'][text]:.2f})" for text in self.phrases] for entry in entries]
        if isinstance(self.model, Gloria):
            for place, phrase in enumerate(self.phrases):
                grids, words = heatmaps.attention(self.model, images, phrase)
                below = words if len(words) > 1 else []  # of one word, the mean is its map
                for k, cells in enumerate(grids.numpy()):
                    named = zip([titles[k][place], *below], cells)
                    maps[k] += [HeatMap(title, map_, heatmaps.ATTENTION) for title, map_ in named]
            return
        assert isinstance(self.answerer, ZeroShotAnswerer)
        vectors = self.answerer.phrase_vectors.to(images.device)
        grids, kind = heatmaps.explain(self.model, heatmaps.cosines(self.model, vectors, "cosine"), images)
        for k, cells in enumerate(grids.numpy()):
            maps[k] += [HeatMap(title, map_, kind) for title, map_ in zip(titles[k], cells, strict=True)]

    def _labels(self, images: Tensor, entries: list[dict[str, Any]], maps: list[list[HeatMap]]) -> None:
        grids, kind = heatmaps.explain(self.model, label_scores(self.model, self.answerer, images), images)
        for k, cells in enumerate(grids.numpy()):
            probabilities = entries[k]["probabilities"]
            ranked = sorted(self.answerer.labels, key=lambda name: -probabilities[name])
            for name in ranked[: self.shown] if self.shown else self.answerer.labels:
                title = f"{name}  {probabilities[name]:.2f}"
                maps[k].append(HeatMap(title, cells[self.answerer.labels.index(name)], kind))


def label_scores(
    model: Any, answerer: ClassifierAnswerer | ZeroShotAnswerer, images: Tensor
) -> heatmaps.ExplainedScores:
    """The scores of labels that maps explain."""
    if isinstance(answerer, ClassifierAnswerer):
        return heatmaps.logits(model, answerer.columns)
    return heatmaps.cosines(model, answerer.directions.to(images.device), MARGIN)


def peak(cells: np.ndarray, crop: Crop, width: int, height: int) -> tuple[float, float]:
    """The centre of the largest cell that is centred on the image, (x, y) as fractions of the image.

    Where no cell is (a narrow strip between black borders), that of the largest, moved to the image's border.
    """
    rows, columns = cells.shape
    places = []
    for place in np.argsort(-cells, axis=None, kind="stable").tolist():
        row, column = divmod(place, columns)
        x, y = place_on_image(crop, ((column + 0.5) / columns, (row + 0.5) / rows))
        places.append((x / width, y / height))
    inside = [place for place in places if min(place) >= 0 and max(place) <= 1]
    x, y = (inside or places)[0]
    return min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)


def boxes(explanation: Explanation, crop: Crop, width: int, height: int) -> list[Box]:
    """Chosen patches that lie on the image, at least in part: others are in the black border of fit=pad."""
    visible = []
    for place in explanation.chosen:
        scores = explanation.maps[0].cells
        rows, columns = scores.shape
        row, column = divmod(place, columns)
        x0, y0 = place_on_image(crop, (column / columns, row / rows))
        x1, y1 = place_on_image(crop, ((column + 1) / columns, (row + 1) / rows))
        corners = (max(x0, 0) / width, max(y0, 0) / height, min(x1, width) / width, min(y1, height) / height)
        if corners[0] < corners[2] and corners[1] < corners[3]:
            visible.append(Box(corners, float(scores[row, column])))
    return visible
