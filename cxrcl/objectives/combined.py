"""Several objectives at once over the same encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cxrcl.objectives.base import Objective
from cxrcl.objectives.towers import encode_texts, encode_views
from cxrcl.types import Batch, Features, NotNegative, StepOutput, Tokenizer


class Sum(Objective):
    """The weighted sum of objectives; an encoder takes each view, or text, once for all of them.

    Embeddings, targets and logs of a part are named `part/name`.

    Args:
        parts: make the objectives, by name, all with the same encoders.
        primary: the part that evaluators and inference use.
        weights: of parts by name; 1 where none is set.

    Raises:
        ValueError: fewer than two parts, or a name that is no part's.
    """

    def __init__(
        self,
        parts: Mapping[str, Callable[..., Objective]],
        primary: str,
        weights: Mapping[str, NotNegative] | None = None,
    ) -> None:
        super().__init__()
        if len(parts) < 2:
            raise ValueError(f"parts: expected two objectives or more, found {', '.join(parts) or 'none'}")
        for what, names in (("primary", [primary]), ("weights", list(weights or {}))):
            if unknown := [name for name in names if name not in parts]:
                raise ValueError(f"{what}={', '.join(unknown)}: no such part (parts: {', '.join(parts)})")
        made = {name: make() for name, make in parts.items()}
        # Registered before the parts: train() reaches the encoder first, and then a part that freezes it.
        self.image_encoder = _take_from(made.values(), "image_encoder")
        self.text_encoder = _take_from(made.values(), "text_encoder")
        self.parts = nn.ModuleDict(made)
        self.primary = primary
        # Of a classifier among them: weights for another list of labels must not be loaded.
        self.labels = next((part.labels for part in made.values() if hasattr(part, "labels")), None)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in parts}
        # Shadow the class's declarations: they depend on the parts.
        self.num_views = max(part.num_views for part in self._objectives.values())  # type: ignore[misc]
        self.num_texts = max(part.num_texts for part in self._objectives.values())  # type: ignore[misc]
        self.per_sample = all(part.per_sample for part in self._objectives.values())  # type: ignore[misc]
        self.loss_selects = self._objectives[primary].loss_selects  # type: ignore[misc]

    @property
    def _objectives(self) -> dict[str, Objective]:
        return dict(self.parts.items())  # type: ignore[arg-type]

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text_encoder.tokenizer  # type: ignore[union-attr,return-value]  # AttributeError: reads no text

    @property
    def embedded_views(self) -> int:
        return max(part.embedded_views for part in self._objectives.values())

    def learns_from(self, labels: Tensor) -> Tensor:
        return torch.stack([part.learns_from(labels) for part in self._objectives.values()]).any(dim=0)

    def evaluated(self) -> nn.Module:
        return self._objectives[self.primary].evaluated()

    def check(self, samples: int, global_batch: int) -> None:
        for name, part in self._objectives.items():
            try:
                part.check(samples, global_batch)
            except ValueError as error:
                raise ValueError(f"parts.{name}: {error}") from None

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """The targets of the parts, [B, ...] by `part/name`."""
        return _joined({name: part.targets(batch) for name, part in self._objectives.items()})

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """What the parts embed, float [B, ...] by `part/name`."""
        batch = batch.rows(slice(None))  # a batch of its own: the features below are for the parts only
        if self.image_encoder is not None and batch.images is not None and batch.image_features is None:
            views = self.embedded_views
            batch.image_features = _by_sample(encode_views(self.image_encoder, batch, views), views)
        if self.text_encoder is not None and batch.text is not None and batch.text_features is None:
            texts = self.num_texts
            batch.text_features = _by_sample(encode_texts(self.text_encoder, batch, texts), texts)
        return _joined({name: part.embed(batch) for name, part in self._objectives.items()})

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """Of what `embed` and `targets` return, [b, ...] by `part/name`."""
        outputs = {
            name: part.loss(_of(name, embeddings), _of(name, targets)) for name, part in self._objectives.items()
        }
        weighted = [self.weights[name] * output.loss for name, output in outputs.items()]
        loss = sum(weighted[1:], start=weighted[0])
        logs = _joined({name: output.logs for name, output in outputs.items()})
        return StepOutput(loss, {"loss": loss.detach(), **logs}, _joined({n: o.state for n, o in outputs.items()}))

    def after_step(self, output: StepOutput, step: int, total: int) -> None:
        for name, part in self._objectives.items():
            part.after_step(StepOutput(output.loss, _of(name, output.logs), _of(name, output.state)), step, total)

    def chance(self, global_batch: int) -> float | None:
        """The weighted sum of the parts' chances; None where one has none."""
        chances = {name: part.chance(global_batch) for name, part in self._objectives.items()}
        weighted = [self.weights[name] * value for name, value in chances.items() if value is not None]
        return sum(weighted) if len(weighted) == len(chances) else None


def _take_from(parts: Iterable[nn.Module], name: str) -> nn.Module | None:
    """The encoder of this name, no longer a submodule of the parts.

    They keep a plain reference, so that a checkpoint holds the encoder once, under the sum's own name.
    """
    encoder = None
    for part in parts:
        if name in part._modules:
            assert encoder in (None, part._modules[name]), f"parts were made with different encoders: {name}"
            encoder = part.__dict__[name] = part._modules.pop(name)
    return encoder


def _by_sample(features: Features, count: int) -> Features:
    """Features [B * count, ...] -> [B, count, ...]."""
    return Features(*(part.unflatten(0, (-1, count)) for part in features))


def _joined(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}/{key}": value for name, values in parts.items() for key, value in values.items()}


def _of(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
