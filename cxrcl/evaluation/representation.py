"""How films, texts and classes lie in the common space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from cxrcl.evaluation.averages import off_diagonal_mean
from cxrcl.evaluation.look import Ask, Evaluator, Look, embeddings
from cxrcl.evaluation.projections import FEWEST, Method, Projection, check_method, project
from cxrcl.evaluation.prompted import directions_of
from cxrcl.evaluation.scores import check_names
from cxrcl.types import EmbedsImages, EmbedsText, EvalData

UNIFORMITY_OF = 2000  # films: all their pairs are looked at


@dataclass(frozen=True)
class Dump:
    """Embeddings of all films, for a file.

    Attributes:
        format: `npy` or `parquet`.
        images, splits: [N] names of the films, and the split of each.
        truth: float [N, C] of 1, 0, -1 and nan.
        embeddings: float32 [N, D], unit vectors.
    """

    format: Literal["npy", "parquet"]
    images: list[str]
    splits: list[str]
    labels: tuple[str, ...]
    truth: np.ndarray
    embeddings: np.ndarray


@dataclass(frozen=True)
class Space:
    """What pictures of the common space are drawn from.

    Attributes:
        classes, similarity: names [C], and cosines [C, C] of the directions of their prompts.
        points: float [M, D], sampled films and then the texts of those that have one.
        point_labels, modalities: [M], the one label of a point; `image` or `text`.
        along: `image` and `text` -> float [N], places along the line through the mean film and the mean text; the
            distance of their means is the modality gap. Empty where no film has a text.
    """

    classes: tuple[str, ...]
    similarity: np.ndarray
    points: np.ndarray
    point_labels: list[str]
    modalities: list[str]
    along: dict[str, np.ndarray]
    methods: tuple[Method, ...]
    dimensions: tuple[int, ...]
    seed: int
    dump: Dump | None

    def projections(self) -> list[Projection]:
        """By method and dimension. Computed here, and not in the evaluation: only a report needs them."""
        if len(self.points) < FEWEST or not np.isfinite(self.points).all():
            return []
        return [project(self.points, method, count, self.seed) for method in self.methods for count in self.dimensions]


class Representation(Evaluator):
    """Geometry of the common space: modality gap, alignment and uniformity, similarity of the class prompts.

    `modality_gap` is the distance between the mean film and the mean text, of films with a text (Liang et al. 2022).
    `class_similarity` is the mean cosine between the prompts of two different classes; towards 1 the model cannot tell
    them apart. `alignment` is the mean squared distance of a film and its text, `uniformity_image` and
    `uniformity_text` the log of the mean of exp(-2 d^2) over pairs (Wang and Isola 2020; the lower, the more spread).

    Args:
        data: the splits (given by the application).
        prompts: reads a prompts file (given by the application).
        splits: pooled.
        file: a prompts file; its positive sentences describe the classes.
        labels_keep: classes, and labels of the films that are drawn; None takes all. A film is drawn if exactly one
            of them is positive.
        max_samples_per_class: films drawn of each class, chosen by `seed`.
        method: of pca, tsne and umap, which projections a report shows.
        dimensions: of 2 and 3.
        seed: of the choice of films and of the projections.
        dump: write the embeddings of all films beside the report: null | npy | parquet.
    """

    needs: ClassVar[tuple[type, ...]] = (EmbedsImages, EmbedsText)
    selects: ClassVar[str] = "class_similarity"
    higher_is_better: ClassVar[bool] = False

    def __init__(
        self,
        data: EvalData,
        prompts: Any,
        splits: Sequence[str] = ("valid",),
        file: str = "zero_shot.json",
        labels_keep: Sequence[str] | None = None,
        max_samples_per_class: int = 200,
        method: Sequence[Method] = ("pca", "tsne"),
        dimensions: Sequence[int] = (2, 3),
        seed: int = 0,
        dump: Literal["npy", "parquet"] | None = None,
    ) -> None:
        self.data, self.splits, self.file, self.seed, self.dump = data, tuple(splits), file, seed, dump
        check_names(labels_keep, data.labels, "labels_keep")
        for name in method:
            check_method(name)
        if wrong := [count for count in dimensions if count not in (2, 3)]:
            raise ValueError(f"dimensions: {wrong[0]} cannot be drawn, expected 2 or 3")
        if max_samples_per_class < 1:
            raise ValueError(f"max_samples_per_class={max_samples_per_class}: expected 1 or more")
        if dump == "parquet":
            _check_parquet()
        self.labels = tuple(data.labels if labels_keep is None else labels_keep)
        found = prompts(file, data.labels)
        self.classes = tuple(name for name in self.labels if name in found)
        if len(self.classes) < 2:
            raise ValueError(f"{file} has prompts for {', '.join(self.classes) or 'none'} of the labels: 2 are needed")
        self.sentences = [found[name]["pos"] for name in self.classes]
        self.most, self.methods, self.dimensions = max_samples_per_class, tuple(method), tuple(dimensions)

    def asks(self, model: nn.Module, device: torch.device) -> Sequence[Ask]:
        return [embeddings(model, self.splits)]

    @property
    def rule(self) -> str:
        return "modality gap = distance between the mean film and the mean text; class similarity = mean cosine of two"

    def run(self, look: Look) -> dict[str, float]:
        films = look.rows("embedding", self.splits).double().numpy()
        texts = [text for split in self.splits for text in self.data.texts(split)]
        with_text = [k for k, text in enumerate(texts) if text]
        read = look.texts([texts[k] for k in with_text]).double().numpy() if with_text else films[:0]
        directions = directions_of(look.texts, self.sentences).double().numpy()
        similarity = directions @ directions.T
        along = _along(films[with_text], read)
        chosen, names = self._sample(look.labels(self.splits).numpy())
        place = {film: k for k, film in enumerate(with_text)}
        pairs = [(place[film], name) for film, name in zip(chosen, names, strict=True) if film in place]
        space = Space(
            classes=self.classes,
            similarity=similarity,
            points=np.concatenate([films[chosen], read[[k for k, _ in pairs]]]),
            point_labels=[*names, *(name for _, name in pairs)],
            modalities=["image"] * len(chosen) + ["text"] * len(pairs),
            along=along,
            methods=self.methods,
            dimensions=self.dimensions,
            seed=self.seed,
            dump=self._dumped(look, films),
        )
        look.leave("space", space)
        nothing = float("nan")
        return {
            "modality_gap": float(along["image"].mean() - along["text"].mean()) if along else nothing,
            "alignment": float(((films[with_text] - read) ** 2).sum(axis=1).mean()) if with_text else nothing,
            "uniformity_image": self._uniformity(films),
            "uniformity_text": self._uniformity(read),
            "class_similarity": off_diagonal_mean(similarity),
            "classes": float(len(self.classes)),
        }

    def _sample(self, truth: np.ndarray) -> tuple[list[int], list[str]]:
        """Films with exactly one positive label, at most so many of each, and that label."""
        positive = truth[:, [self.data.labels.index(name) for name in self.labels]] == 1
        single = positive.sum(axis=1) == 1
        chosen: list[int] = []
        names: list[str] = []
        generator = np.random.default_rng(self.seed)
        for k, name in enumerate(self.labels):
            rows = np.sort(generator.permutation(np.flatnonzero(single & positive[:, k]))[: self.most]).tolist()
            chosen += rows
            names += [name] * len(rows)
        return chosen, names

    def _uniformity(self, points: np.ndarray) -> float:
        from scipy.spatial.distance import pdist

        if len(points) < 2:
            return float("nan")
        if len(points) > UNIFORMITY_OF:
            points = points[np.random.default_rng(self.seed).permutation(len(points))[:UNIFORMITY_OF]]
        return float(np.log(np.exp(-2 * pdist(points, "sqeuclidean")).mean()))

    def _dumped(self, look: Look, films: np.ndarray) -> Dump | None:
        if self.dump is None:
            return None
        images = [name for split in self.splits for name in self.data.column(split, "image")]
        splits = [split for split in self.splits for _ in range(self.data.size(split))]
        truth = look.labels(self.splits).numpy()
        return Dump(self.dump, images, splits, self.data.labels, truth, films.astype(np.float32))


def _along(films: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Places of both along the unit vector from the mean text to the mean film."""
    if not len(films) or not (np.isfinite(films).all() and np.isfinite(texts).all()):
        return {}
    line = films.mean(axis=0) - texts.mean(axis=0)
    line /= max(float(np.linalg.norm(line)), 1e-12)
    return {"image": films @ line, "text": texts @ line}


def _check_parquet() -> None:
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError("dump=parquet needs the package pyarrow: pip install 'cxrcl[parquet]', or set dump=npy")
