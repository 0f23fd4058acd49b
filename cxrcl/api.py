"""A trained model in Python, for images and texts: `cxrcl.load(checkpoint)`.

Everything comes from the checkpoint. Neither processes nor global settings of torch are touched: threads, gradient mode
and random numbers stay the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.data.images.geometry import to_image
from cxrcl.data.images.image_io import ImageError
from cxrcl.data.text.prompts import Prompts
from cxrcl.errors import ConfigError, DataError, nearest
from cxrcl.evaluation.embed import embed_texts
from cxrcl.inference import heatmaps, predict
from cxrcl.inference.predict import ImageInput, LoadedModel
from cxrcl.inference.probabilities import ClassifierProbabilities, LabelProbabilities, ZeroShotProbabilities
from cxrcl.inference.questions import has_words, sentences_of
from cxrcl.objectives.gloria import Gloria
from cxrcl.types import Classifies, EmbedsImages, EmbedsText, EncodesImages, ScalesSimilarity

Labels = Sequence[str] | Mapping[str, Mapping[str, Sequence[str]]]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
T = TypeVar("T")
SIDES = ("pos", "neg")

_WITH_TEXTS = "load a checkpoint of an objective that reads texts, such as objective=clip"
# Method -> what a model must be for it, and the remedy where it is not.
_NEEDS: dict[str, tuple[tuple[type, ...], str]] = {
    "embed_images": ((EmbedsImages,), _WITH_TEXTS),
    "embed_texts": ((EmbedsText,), _WITH_TEXTS),
    "zero_shot": ((EmbedsImages, EmbedsText, ScalesSimilarity), _WITH_TEXTS),
    "encode_images": ((EncodesImages,), "give its class a method encode_images"),
    "classify": ((Classifies,), "train a classifier on it with finetune.py init_from=CHECKPOINT"),
}


def load(
    checkpoint: str | Path,
    device: str | torch.device = "auto",
    batch_size: int = 32,
    precision: Precision | None = None,
    allow_packages: Sequence[str] = (),
) -> Model:
    """A trained model, ready for images and texts. No other file is read and no network is used.

    Args:
        checkpoint: a .pt file written by train.py or finetune.py, or an exported folder (scripts/export.py).
        device: auto (CUDA where present), cpu, cuda or cuda:N.
        batch_size: images, or texts, that go through the model at a time.
        precision: None computes as in training; `fp32` is exact; `auto`, `bf16` and `fp16` as in `trainer.precision`.
        allow_packages: packages of your own objective or encoder, which the checkpoint may name.

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint.
        ConfigError: an argument that cannot be used.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: expected 1 or more")
    if precision not in (None, *get_args(Precision)):
        raise ConfigError(f"precision={precision}: expected {', '.join(get_args(Precision))}, or None as in training")
    packages = (*OWN_PACKAGES, *allow_packages)
    # Towers are made with random weights before those of the checkpoint are laid in.
    with torch.random.fork_rng(devices=[]):
        loaded = predict.load_model(Path(checkpoint), _device(str(device)), precision, packages)
    return Model(loaded, batch_size)


class Model:
    """A model in evaluation mode; see `load`. All results are float32 arrays in the order of what was given.

    `images` are paths, 2-D arrays (uint8 as they are; any other numbers scaled by their own minimum and maximum, as
    deep files are), or PIL images, mixed at will. One that cannot be read is a DataError that names it; with
    `skip_bad=True` its row is nan. Results depend neither on the batch size nor on which images come together (but for
    rounding: below 1e-6 in fp32, more in 16 bits).

    Attributes:
        objective: name of the objective's class.
        step: training steps.
        labels: columns of `classify`, or of `zero_shot` when it is given no labels; empty where there is neither.
        rule: how the probabilities come about; None where there are none.
        exposure: what it was trained on (`cxrcl.data.exposure`); None where its checkpoint does not record it.
    """

    def __init__(self, loaded: LoadedModel, batch_size: int) -> None:
        self._loaded, self._model = loaded, loaded.model
        self.batch_size = batch_size
        self.step, self.exposure = loaded.step, loaded.exposure
        whole, read = type(loaded.objective).__name__, type(loaded.model).__name__
        self.objective = read if read == whole else f"{read} (of a {whole})"
        self._can = [
            name for name, (needs, _) in _NEEDS.items() if all(isinstance(self._model, need) for need in needs)
        ]
        self._zero_shot: tuple[Prompts, ZeroShotProbabilities] | None = None
        self.labels: tuple[str, ...] = ()
        self.rule: str | None = None
        if "classify" in self._can:
            self.labels = tuple(loaded.recipe.labels)
            self.rule = ClassifierProbabilities(cast(Classifies, self._model), self.labels).rule
        elif "zero_shot" in self._can:
            self.labels, self.rule = tuple(sentences_of(loaded.recipe)[1]), ZeroShotProbabilities.rule

    def __repr__(self) -> str:
        nodes = self._loaded.recipe.model
        towers = [
            f"{name} {str(node['_target_']).rpartition('.')[2]}{' ' + str(node['name']) if 'name' in node else ''}"
            for name, node in nodes.items()
            if name.endswith("_encoder")
        ]
        labels = ", ".join(self.labels) or "none"
        numbers = str(self._loaded.precision.dtype or torch.float32).removeprefix("torch.")
        return (
            f"<cxrcl {self.objective}, step {self.step}; {', '.join(towers)}; labels: {labels}; "
            f"{self._loaded.device}, {numbers}>"
        )

    def embed_images(self, images: Iterable[ImageInput], skip_bad: bool = False) -> np.ndarray:
        """Unit vectors [N, D] in the space that images share with texts."""
        model: Any = self._able("embed_images")
        return self._rows(images, lambda batch: _arrays(model.embed_images(model.encode_images(batch))), skip_bad)

    def encode_images(self, images: Iterable[ImageInput], skip_bad: bool = False) -> np.ndarray:
        """Features [N, dim] of the image encoder, before any projection."""
        model: Any = self._able("encode_images")
        return self._rows(images, lambda batch: _arrays(model.encode_images(batch).pooled), skip_bad)

    def embed_texts(self, texts: Iterable[str]) -> np.ndarray:
        """Unit vectors [N, D]. Texts longer than the tokenizer's maximum (`text_encoder.max_length`) are cut."""
        model: Any = self._able("embed_texts")
        given = _listed(texts, "texts")
        for k, text in enumerate(given):
            if not isinstance(text, str):
                raise DataError(f"texts[{k}]: expected a string, found {text!r}")
        with self._loaded.inference_mode():  # of no text, the width is that of any
            rows = embed_texts(model, given or [""], self._loaded.device, self.batch_size)
        return rows[: len(given)].numpy()

    def zero_shot(
        self, images: Iterable[ImageInput], labels: Labels | None = None, skip_bad: bool = False
    ) -> np.ndarray:
        """Probabilities [N, C] from pairs of prompts (see `rule`).

        Args:
            labels: names among those of the shipped prompts and of the training's; or the sentences themselves,
                {name: {"pos": [...], "neg": [...]}}; None takes `self.labels`. A name without sentences is an error,
                not a prompt of its own: a misspelt label would be read as nonsense in silence.

        Raises:
            ConfigError: a name without sentences, or a label without both sides.
        """
        model: Any = self._able("zero_shot")
        prompts = self._prompts(self.labels if labels is None else labels)
        kept = self._zero_shot
        # Prompts are embedded once for a caller that gives image after image.
        if kept is None or list(kept[0].items()) != list(prompts.items()):
            with self._loaded.inference_mode():
                kept = prompts, ZeroShotProbabilities(model, prompts, list(prompts), self._loaded.device)
            self._zero_shot = kept
        return self._probabilities(kept[1], images, skip_bad)

    def classify(self, images: Iterable[ImageInput], skip_bad: bool = False) -> np.ndarray:
        """Probabilities [N, C] of a classifier, columns as in `self.labels`."""
        model: Any = self._able("classify")
        return self._probabilities(ClassifierProbabilities(model, self.labels), images, skip_bad)

    def heatmap(
        self, images: Iterable[ImageInput], label: str | None = None, phrase: str | None = None
    ) -> list[np.ndarray]:
        """Where a label's score, or a phrase, comes from: float32 [H, W] for each image, of the image's own size.

        Of a label: the margin between its positive and negative prompts, or the classifier's log-odds. Of a phrase: its
        cosine, or for GLoRIA the mean attention of its words. Which kind of map is sound for the model is told by
        `cxrcl.inference.heatmaps`. nan where the model sees nothing of the image.

        Raises:
            ConfigError: not exactly one of `label` and `phrase`, a label that the model does not have, or a model that
                has no grid of features.
        """
        compute = self._map_of(label, phrase)
        inputs, maps = _listed(images, "images"), []
        with self._loaded.inference_mode():
            for k, row in enumerate(self._loaded.map_images(inputs, self.batch_size, compute)):
                if isinstance(row, ImageError):
                    raise _unreadable(inputs, k, row)
                height, width = self._loaded.full_size(inputs[k]).shape
                maps.append(to_image(row, self._loaded.transform.evaluation_crop(width, height), width, height))
        return maps

    def _map_of(self, label: str | None, phrase: str | None) -> Callable[[Tensor], Iterable[np.ndarray]]:
        """The function from images float32 [B, 3, S, S] to a grid of values for each."""
        if (label is None) == (phrase is None):
            raise ConfigError("heatmap: expected a label or a phrase, such as label='Edema'")
        if phrase is not None:
            model: Any = self._able("zero_shot")
            if not has_words(phrase):
                raise ConfigError(f"heatmap: phrase={phrase!r}: expected words, such as 'left pleural effusion'")
            if isinstance(model, Gloria):
                return lambda batch: heatmaps.attention(model, batch, phrase)[0][:, 0].numpy()
            directions = torch.from_numpy(self.embed_texts([phrase]))
            return self._explained(lambda device: heatmaps.cosines(model, directions.to(device), "cosine"))
        assert label is not None
        if "classify" in self._can:
            if label not in self.labels:
                raise ConfigError(f"heatmap: no label {label!r}{nearest(str(label), self.labels)}")
            return self._explained(lambda _: heatmaps.logits(self._model, [self.labels.index(label)]))
        prompts, model = self._prompts([label]), self._able("zero_shot")
        with self._loaded.inference_mode():
            margin = ZeroShotProbabilities(model, prompts, [label], self._loaded.device).directions
        return self._explained(lambda device: heatmaps.cosines(model, margin.to(device)))

    def _explained(
        self, scores: Callable[[torch.device], heatmaps.ExplainedScores]
    ) -> Callable[[Tensor], Iterable[np.ndarray]]:
        return lambda batch: heatmaps.explain(self._model, scores(batch.device), batch)[0][:, 0].numpy()

    def _able(self, method: str) -> Any:
        if method not in self._can:
            raise ConfigError(
                f"{method}: not what {self.objective} can do (it has {', '.join(self._can) or 'no such method'}); "
                f"{_NEEDS[method][1]}"
            )
        return self._model

    def _prompts(self, labels: Labels) -> Prompts:
        """Both sides of each label."""
        if isinstance(labels, Mapping):
            prompts = {name: {side: _sentences(name, kinds, side) for side in SIDES} for name, kinds in labels.items()}
        else:
            names = _listed(labels, "labels")
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ConfigError(f"labels: {', '.join(twice)} is named twice")
            known = {k: v for k, v in sentences_of(self._loaded.recipe)[0].items() if v.get("neg")}
            for name in names:
                if name not in known:
                    raise ConfigError(
                        f"labels: no sentences for {name!r}{nearest(str(name), known)}; give your own: "
                        f'{{{name!r}: {{"pos": [...], "neg": [...]}}}}'
                    )
            prompts = {name: {side: known[name][side] for side in SIDES} for name in names}
        if not prompts:
            raise ConfigError("labels: expected one or more")
        return prompts

    def _probabilities(
        self, probabilities: LabelProbabilities, images: Iterable[ImageInput], skip_bad: bool
    ) -> np.ndarray:
        def compute(batch: Tensor) -> list[np.ndarray]:
            return [np.array([*row.values()], dtype=np.float32) for row in probabilities.from_images(batch)]

        return self._rows(images, compute, skip_bad)

    def _rows(
        self, images: Iterable[ImageInput], compute: Callable[[Tensor], Iterable[np.ndarray]], skip_bad: bool
    ) -> np.ndarray:
        inputs, rows = _listed(images, "images"), []
        with self._loaded.inference_mode():
            for k, row in enumerate(self._loaded.map_images(inputs, self.batch_size, compute)):
                if isinstance(row, ImageError) and not skip_bad:
                    raise _unreadable(inputs, k, row)
                rows.append(row)
            read = [row for row in rows if not isinstance(row, ImageError)]
            # Of no image, the width is that of any.
            lacking = np.full_like(read[0] if read else next(iter(compute(self._loaded.black_image()))), np.nan)
        return np.stack([lacking if isinstance(row, ImageError) else row for row in rows] or [lacking])[: len(rows)]


def _unreadable(inputs: Sequence[ImageInput], k: int, why: ImageError) -> DataError:
    name = inputs[k] if isinstance(inputs[k], str | Path) else f"images[{k}]"
    return DataError(f"{name}: {why}")


def _arrays(rows: Tensor) -> np.ndarray:
    return rows.float().cpu().numpy()


def _listed(values: Iterable[T], what: str) -> list[T]:
    """A list; a single thing is refused, since a string would be taken letter by letter and an image line by line."""
    if isinstance(values, str | Path | Image.Image) or (isinstance(values, np.ndarray) and values.ndim == 2):
        raise DataError(f"{what}: expected a list, found one {type(values).__name__}: write [{what[:-1]}]")
    return list(values)


def _sentences(name: str, kinds: Mapping[str, Sequence[str]], kind: str) -> list[str]:
    found = kinds.get(kind) if isinstance(kinds, Mapping) else None
    if not isinstance(found, list | tuple) or not found or not all(isinstance(s, str) and s.strip() for s in found):
        raise ConfigError(
            f'labels: {name!r} needs sentences on both sides, {{"pos": [...], "neg": [...]}}; found {kinds!r}'
        )
    return list(found)


def _device(name: str) -> torch.device:
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdecimal()):
        raise ConfigError(f"device={name}: expected auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if kind != "cpu" else 0
    if kind == "auto":
        return torch.device("cuda" if count else "cpu")
    if kind == "cuda" and int(number or 0) >= count:
        raise ConfigError(f"device={name}: PyTorch finds {count or 'no'} CUDA devices; use device=auto or device=cpu")
    return torch.device(name)
