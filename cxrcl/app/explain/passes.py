"""Embeddings of images and sentences for any reading: each way to make them is one pass, made when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from cxrcl.app.explain.image_choices import ImageWay, Models
from cxrcl.app.explain.stored import Images, Store
from cxrcl.app.model import build_transform, prepare
from cxrcl.app.plan import precision_name
from cxrcl.app.restore import restore_model
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.checkpoint.file import load
from cxrcl.config.nodes import Packages
from cxrcl.data.images.other_ways import other_way
from cxrcl.data.splits import Splits
from cxrcl.distributed import Runtime
from cxrcl.errors import CheckpointError, ConfigError, first_line
from cxrcl.evaluation.choices.bench import Members
from cxrcl.evaluation.choices.choice import Choice, Reading, Stage, Unavailable, key, state
from cxrcl.evaluation.choices.scoring import Embedded
from cxrcl.evaluation.choices.texts import Texts
from cxrcl.evaluation.embed import project_texts
from cxrcl.evaluation.shared_pass import Request, SharedPass
from cxrcl.objectives.base import Objective
from cxrcl.training.trainer import Precision
from cxrcl.types import EmbedsImages, Features, ProjectsText, ScalesSimilarity, Tokens

SPLITS = ("train", "valid", "test")  # the order of `cxrcl.app.explain.rows`
# What can be embedded of one pass, where local features are as wide as pooled ones.
POOLED: dict[str, Callable[[Features], Features]] = {
    "pooled": lambda features: features,
    "mean of the regions": lambda features: features._replace(pooled=features.local.mean(dim=1)),
    "largest of the regions": lambda features: features._replace(pooled=features.local.amax(dim=1)),
}


class Passes:
    """What the models make of images and sentences, for `cxrcl.evaluation.choices.bench.Bench`.

    Args:
        files: the checkpoints, the current one first.
        choices: all that there are.
        images: the images.
        splits: the same images in the order of `images`, split by split; None: stored embeddings only.
        store: passes that were made before, and will be.
        texts: what the text encoder reads now.
    """

    def __init__(
        self,
        files: Sequence[Path],
        choices: Sequence[Choice],
        images: Images,
        splits: Splits | None,
        store: Store,
        texts: Texts,
        runtime: Runtime,
        packages: Packages,
        batch_size: int,
    ) -> None:
        self.files, self.choices, self.images, self.texts = files, choices, images, texts
        self.splits, self.store = splits, store
        self.runtime, self.packages, self.batch_size = runtime, packages, batch_size
        self._vectors: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}
        self._scales: dict[tuple[int, bool], float | None] = {}
        self._model: tuple[Any, Checkpoint, Objective] | None = None

    def __call__(self, reading: Reading) -> Members:
        """Embeddings of the images and of the sentences.

        Raises:
            Unavailable: they cannot be made.
        """
        models = state(self.choices, Stage.WEIGHTS, reading, Models())
        texts = state(self.choices, Stage.TEXTS, reading, self.texts)
        embedded = []
        for number in models.numbers:
            images = self._images(number, models.averaged, reading)
            positive, negative = (
                {label: self._sentences(number, models.averaged, texts, label, side) for label in texts.sentences}
                for side in ("pos", "neg")
            )
            scale = self._scales.get((number, models.averaged))
            embedded.append(Embedded(images, positive, negative, scale))
        return Members(embedded, models.of_figures)

    # ------------------------------------------------------------------------------------------------- images
    def _images(self, number: int, averaged: bool, reading: Reading) -> np.ndarray:
        of_weights = () if (number, averaged) == (0, True) else (str(self.files[number]), f"averaged={averaged}")
        at = (*of_weights, *key(reading, Stage.IMAGES))
        stored = self.store.get(at)
        if stored is not None:
            return stored
        if self.splits is None:
            raise Unavailable("embeddings are stored and images are not read: leave out embeddings=")
        checkpoint, model = self._model_of(number, averaged, {}, {})
        transform = build_transform(checkpoint.recipe.transform, model, self.packages)
        way = state(self.choices, Stage.IMAGES, reading, ImageWay(other_way(transform)))
        checkpoint, model = self._model_of(number, averaged, way.settings, {})
        splits = self.splits.with_transform(way.transform, prepare(way.transform, self.runtime))
        order = [split for split in SPLITS if splits.size(split)]
        part: Any = model.evaluated()

        def embed(features: Features) -> Tensor:
            return cast(EmbedsImages, part).embed_images(POOLED[way.pooled](features))

        precision = Precision(precision_name(checkpoint.recipe.precision, self.runtime.device), self.runtime.device)
        try:
            with torch.no_grad(), precision.autocast():
                shared = SharedPass(
                    part, self.runtime, splits, self.batch_size, [Request("embedding", tuple(order), embed)]
                )
                rows = shared.rows("embedding", order).numpy()
        except (RuntimeError, ValueError, IndexError) as error:  # another input than the encoder was built for
            raise Unavailable(f"the image encoder refuses it ({first_line(error)})") from None
        return self.store.put(at, rows, self.images)

    # ------------------------------------------------------------------------------------------------- sentences
    def _sentences(self, number: int, averaged: bool, texts: Texts, label: str, side: str) -> np.ndarray:
        """Projections float32 [n, D] of the sentences of a side of a label; [0, 0] where there are none."""
        written = texts.written(label, side)
        settings = tuple(sorted(texts.settings.items()))
        known = self._vectors.setdefault((number, averaged, texts.tokens, settings), {})
        if any(text not in known for text in written):
            new = [
                text
                for one, kinds in texts.sentences.items()
                for kind in kinds
                for text in texts.written(one, kind)
                if text not in known
            ]
            known.update(zip(dict.fromkeys(new), self._projected(number, averaged, texts, list(dict.fromkeys(new)))))
        return np.stack([known[text] for text in written]) if written else np.zeros((0, 0), np.float32)

    def _projected(self, number: int, averaged: bool, texts: Texts, sentences: Sequence[str]) -> np.ndarray:
        checkpoint, model = self._model_of(number, averaged, {}, texts.settings)
        part: Any = model.evaluated()
        if not isinstance(part, ProjectsText):
            raise Unavailable(f"{type(part).__name__} reads no texts")
        self._scales[number, averaged] = part.similarity_scale() if isinstance(part, ScalesSimilarity) else None

        def tokenizer(batch: Sequence[str]) -> Tokens:
            tokens = part.tokenizer(batch)
            for change in texts.tokens:
                tokens = change(tokens)
            return tokens

        reader = cast(ProjectsText, SimpleNamespace(tokenizer=tokenizer, project_text=part.project_text))
        precision = Precision(precision_name(checkpoint.recipe.precision, self.runtime.device), self.runtime.device)
        try:
            with torch.no_grad(), precision.autocast():
                projected: Tensor = project_texts(reader, sentences, self.runtime.device)
        except (RuntimeError, ValueError, IndexError) as error:
            raise Unavailable(f"the text encoder refuses it ({first_line(error)})") from None
        return projected.numpy()

    # ------------------------------------------------------------------------------------------------- models
    def _model_of(self, number: int, averaged: bool, image: Any, text: Any) -> tuple[Checkpoint, Objective]:
        """A checkpoint and its model; the last one that was asked for stays in memory.

        Args:
            image, text: settings laid over those of the image and the text encoder.
        """
        at = (number, averaged, sorted(image.items()), sorted(text.items()))
        if self._model is None or self._model[0] != at:
            checkpoint = load(self.files[number])
            if not averaged:
                checkpoint = replace(checkpoint, state=replace(checkpoint.state, average=None))
            nodes = dict(checkpoint.recipe.model)
            for tower, settings in (("image_encoder", image), ("text_encoder", text)):
                if settings:
                    nodes[tower] = {**nodes[tower], **settings}
            recipe = replace(checkpoint.recipe, model=nodes)
            checkpoint = replace(checkpoint, origin=replace(checkpoint.origin, recipe=recipe))
            try:
                model = restore_model(checkpoint, self.packages, self.runtime.device)
            except (CheckpointError, ConfigError) as error:
                raise Unavailable(f"the weights do not fit it ({first_line(error)})") from None
            self._model = at, checkpoint, model
        return self._model[1], self._model[2]
