"""How images, texts and classes lie in the common space."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult, check_label_names
from cxrcl.evaluation.metrics import off_diagonal_mean
from cxrcl.evaluation.projections import FEWEST, Method, Projection, check_method, project
from cxrcl.evaluation.prompted import class_prompts, directions_of
from cxrcl.evaluation.shared_pass import Request, SharedPass, embedding_request
from cxrcl.types import Count, EmbedsImages, EmbedsText, EvalData, Seed

UNIFORMITY_OF = 2000  # images: all their pairs are computed


@dataclass(frozen=True)
class Dump:
    """Embeddings of all images, for a file.

    Attributes:
        format: `npy` or `parquet`.
        images, splits: [N] names of the images, and the split of each.
        names: of the labels, [C].
        labels: float [N, C] of 1, 0, -1 and nan.
        embeddings: float32 [N, D], unit vectors.
    """

    format: Literal["npy", "parquet"]
    images: list[str]
    splits: list[str]
    names: tuple[str, ...]
    labels: np.ndarray
    embeddings: np.ndarray


@dataclass(frozen=True)
class Space:
    """What pictures of the common space are drawn from.

    Attributes:
        classes, similarity: names [C], and cosines float [C, C] of the directions of their prompts.
        points: float [M, D], sampled images and then the texts of those that have one.
        point_labels, modalities: [M], the one label of a point; `image` or `text`.
        along: `image` and `text` -> float [N], places along the line through the mean image and the mean text; the
            distance of their means is the modality gap. Empty where no image has a text.
        methods, dimensions, seed: of the projections.
        dump: what is written to a file, or None.
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
        """The points in few dimensions, by method and dimension. Computed here, since only a report needs them."""
        if len(self.points) < FEWEST or not np.isfinite(self.points).all():
            return []
        return [project(self.points, method, count, self.seed) for method in self.methods for count in self.dimensions]


class Representation(Evaluator):
    """Geometry of the common space: modality gap, alignment and uniformity, similarity of the class prompts.

    `modality_gap` is the distance between the mean image and the mean text, of images with a text (Liang et al. 2022).
    `class_similarity` is the mean cosine between the prompts of two different classes; towards 1 the model cannot tell
    them apart. `alignment` is the mean squared distance of an image and its text, `uniformity_image` and
    `uniformity_text` the log of the mean of exp(-2 d^2) over pairs (Wang and Isola 2020; the lower, the more spread).

    Args:
        file: a prompts file; its positive sentences describe the classes.
        labels_keep: classes, and labels of the images that are drawn; None takes all. An image is drawn if exactly
            one of them is positive.
        max_samples_per_class: images drawn of each class, chosen by `seed`.
        method: of pca, tsne and umap, which projections a report shows.
        dimensions: of 2 and 3.
        seed: of the choice of images and of the projections.
        dump: write the embeddings of all images beside the report: null | npy | parquet.
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
        max_samples_per_class: Count = 200,
        method: Sequence[Method] = ("pca", "tsne"),
        dimensions: Sequence[Literal[2, 3]] = (2, 3),
        seed: Seed = 0,
        dump: Literal["npy", "parquet"] | None = None,
    ) -> None:
        self.data, self.splits, self.file, self.seed, self.dump = data, tuple(splits), file, seed, dump
        check_label_names(labels_keep, data.labels, "labels_keep")
        for name in method:
            check_method(name)
        if dump == "parquet" and importlib.util.find_spec("pyarrow") is None:
            raise ValueError("dump=parquet needs the package pyarrow: pip install 'cxrcl[parquet]', or set dump=npy")
        self.labels = tuple(data.labels if labels_keep is None else labels_keep)
        self.sentences = class_prompts(prompts, file, data.labels, keep=labels_keep)
        self.max_per_class, self.methods, self.dimensions = max_samples_per_class, tuple(method), tuple(dimensions)

    def requests(self, model: nn.Module, device: torch.device) -> Sequence[Request]:
        return [embedding_request(model, self.splits)]

    @property
    def rule(self) -> str:
        return "modality gap = distance between the mean image and the mean text; class similarity = mean cosine of two"

    def run(self, shared: SharedPass) -> EvaluatorResult:
        images = shared.rows("embedding", self.splits).double().numpy()
        reports = [text for split in self.splits for text in self.data.texts(split)]
        with_text = [k for k, text in enumerate(reports) if text]
        texts = shared.texts([reports[k] for k in with_text]).double().numpy() if with_text else images[:0]
        directions = directions_of(shared.texts, list(self.sentences.values())).double().numpy()
        similarity = directions @ directions.T
        along = _along(images[with_text], texts)
        sampled, names = self._sample(shared.labels(self.splits).numpy())
        row_of_text = {image: k for k, image in enumerate(with_text)}
        pairs = [(row_of_text[image], name) for image, name in zip(sampled, names, strict=True) if image in row_of_text]
        space = Space(
            classes=tuple(self.sentences),
            similarity=similarity,
            points=np.concatenate([images[sampled], texts[[row for row, _ in pairs]]]),
            point_labels=[*names, *(name for _, name in pairs)],
            modalities=["image"] * len(sampled) + ["text"] * len(pairs),
            along=along,
            methods=self.methods,
            dimensions=self.dimensions,
            seed=self.seed,
            dump=self._dumped(shared, images),
        )
        nan = float("nan")
        metrics = {
            "modality_gap": float(along["image"].mean() - along["text"].mean()) if along else nan,
            "alignment": float(((images[with_text] - texts) ** 2).sum(axis=1).mean()) if with_text else nan,
            "uniformity_image": self._uniformity(images),
            "uniformity_text": self._uniformity(texts),
            "class_similarity": off_diagonal_mean(similarity),
            "classes": float(len(self.sentences)),
        }
        return EvaluatorResult(metrics, artifacts={"space": space})

    def _sample(self, labels: np.ndarray) -> tuple[list[int], list[str]]:
        """Positions of images with exactly one positive label, at most so many of each, and that label.

        Args:
            labels: float [N, C].
        """
        positive = labels[:, [self.data.labels.index(name) for name in self.labels]] == 1
        has_one = positive.sum(axis=1) == 1
        chosen: list[int] = []
        names: list[str] = []
        generator = np.random.default_rng(self.seed)
        for k, name in enumerate(self.labels):
            rows = np.sort(
                generator.permutation(np.flatnonzero(has_one & positive[:, k]))[: self.max_per_class]
            ).tolist()
            chosen += rows
            names += [name] * len(rows)
        return chosen, names

    def _uniformity(self, points: np.ndarray) -> float:
        """log of the mean over pairs of exp(-2 ||x - y||^2) (Wang and Isola 2020, section 4.1.2), of points [N, D]."""
        from scipy.spatial.distance import pdist

        if len(points) < 2:
            return float("nan")
        if len(points) > UNIFORMITY_OF:
            points = points[np.random.default_rng(self.seed).permutation(len(points))[:UNIFORMITY_OF]]
        return float(np.log(np.exp(-2 * pdist(points, "sqeuclidean")).mean()))

    def _dumped(self, shared: SharedPass, embeddings: np.ndarray) -> Dump | None:
        if self.dump is None:
            return None
        images = [name for split in self.splits for name in self.data.column(split, "image")]
        splits = [split for split in self.splits for _ in range(self.data.size(split))]
        return Dump(
            format=self.dump,
            images=images,
            splits=splits,
            names=self.data.labels,
            labels=shared.labels(self.splits).numpy(),
            embeddings=embeddings.astype(np.float32),
        )


def _along(images: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Places [N] of images and of texts, float [N, D] each, along the unit vector from the mean text to the mean image.

    Empty where there is none, or a number is not finite.
    """
    if not len(images) or not (np.isfinite(images).all() and np.isfinite(texts).all()):
        return {}
    line = images.mean(axis=0) - texts.mean(axis=0)
    line /= max(float(np.linalg.norm(line)), 1e-12)
    return {"image": images @ line, "text": texts @ line}
