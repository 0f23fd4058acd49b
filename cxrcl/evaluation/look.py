"""What evaluators share: one model's look at the data, each film and each sentence encoded once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from cxrcl.evaluation.embed import embed_texts, share
from cxrcl.types import Batch, EmbedsImages, EmbedsText, EncodesImages, EvalData, Features, Gathers


class Ask(NamedTuple):
    """Something that an evaluator wants of every film of some splits. Equal names mean equal computations."""

    name: str
    splits: tuple[str, ...]
    compute: Callable[[Features], Tensor]  # features of B films -> rows [B, ...]


def embeddings(model: nn.Module, splits: Sequence[str]) -> Ask:
    """Unit vectors of films, [B, D]."""
    return Ask("embedding", tuple(splits), cast(EmbedsImages, model).embed_images)


def pooled(splits: Sequence[str]) -> Ask:
    """The image encoder's pooled features, [B, dim]."""
    return Ask("pooled", tuple(splits), lambda features: features.pooled)


class Look:
    """Made anew for every evaluation: nothing in it outlives the weights it came from.

    Args:
        model: what evaluators see of an objective, in evaluation mode.
        asks: of all evaluators; a film that several of them want goes through the encoder once.
        batch_size: films encoded at a time.
        held_out: splits whose scores are left for a report besides, never scored themselves.
    """

    def __init__(
        self,
        model: nn.Module,
        runtime: Gathers,
        data: EvalData,
        batch_size: int,
        asks: Iterable[Ask] = (),
        held_out: tuple[str, ...] = (),
    ) -> None:
        self.held_out = held_out
        self.model, self.runtime, self.data, self.batch_size = model, runtime, data, batch_size
        self.left: dict[str, Any] = {}
        self._asks = list(asks)
        self._rows: dict[tuple[str, str], Tensor] = {}
        self._texts: dict[str, Tensor] = {}
        self._made: dict[Evaluator, Any] = {}

    def rows(self, name: str, splits: Sequence[str]) -> Tensor:
        """float32 [N, ...] on the CPU: what the ask of this name computes of all films of the splits, in their order.

        The same in every process, whatever their number.
        """
        return torch.cat([self._of(split, name) for split in splits])

    def labels(self, splits: Sequence[str]) -> Tensor:
        """float32 [N, C] of the films of the splits, in their order."""
        return torch.cat([self.data.truth(split) for split in splits])

    def texts(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors [N, D] of texts, on the CPU."""
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._texts]
        if new:
            found = embed_texts(cast(EmbedsText, self.model), new, self.runtime.device)
            self._texts |= dict(zip(new, found, strict=True))
        return torch.stack([self._texts[sentence] for sentence in sentences])

    def once(self, who: Evaluator, compute: Callable[[], Any]) -> Any:
        """What an evaluator makes of the weights, such as a fitted model, made the first time that it is asked for."""
        if who not in self._made:
            self._made[who] = compute()
        return self._made[who]

    def leave(self, name: str, value: Any) -> None:
        """Keep something for a report."""
        self.left[name] = value

    def _of(self, split: str, name: str) -> Tensor:
        if (name, split) not in self._rows:
            self._encode(split)
        return self._rows[name, split]

    def _encode(self, split: str) -> None:
        encoder, runtime = cast(EncodesImages, self.model), self.runtime
        wanted = {ask.name: ask.compute for ask in self._asks if split in ask.splits}

        def compute(batch: Batch) -> dict[str, Tensor]:
            if batch.image_features is not None:
                features = Features(*(part[:, 0] for part in batch.image_features))
            else:
                assert batch.images is not None
                features = encoder.encode_images(batch.images[:, 0])
            return {name: call(features).float() for name, call in wanted.items()}

        parts: list[Mapping[str, Tensor]] = []
        positions = share(runtime, self.data.size(split), self.batch_size)
        for batch in self.data.batches(split, positions, self.batch_size):
            parts.append(compute(batch))
        if not parts and self.data.size(split):
            # A process without a share still takes part in the gather: it needs the shape of a row.
            first = next(iter(self.data.batches(split, range(1), 1)))
            parts.append({name: rows[:0] for name, rows in compute(first).items()})
        for name in wanted:
            rows = torch.cat([part[name] for part in parts])
            self._rows[name, split] = runtime.gather_rows(rows).cpu()


class Evaluator:
    """Base of all evaluators: figures of a model on data that were given at construction."""

    needs: ClassVar[tuple[type, ...]] = ()  # protocols that the model must meet
    selects: ClassVar[str]  # the figure that chooses the best checkpoint where the user names none
    higher_is_better: ClassVar[bool] = True

    @property
    def rule(self) -> str:
        """How its figures come about, in words."""
        return (inspect.getdoc(type(self)) or "").split("\n")[0]

    def asks(self, model: nn.Module, device: torch.device) -> Sequence[Ask]:
        """What `run` will want of films."""
        return ()

    def run(self, look: Look) -> dict[str, float]:
        """Named figures, the same in every process."""
        raise TypeError(f"{type(self).__name__} does not define run()")


class Evaluation:
    """Several evaluators on the same data; what they share is computed once.

    Args:
        evaluators: by name.
        data: the splits.
        batch_size: films encoded at a time.

    Attributes:
        held_out: splits that evaluators look at besides, for thresholds and temperatures. Empty in training.
        left: what evaluators left for a report the last time, by evaluator.
    """

    def __init__(self, evaluators: Mapping[str, Evaluator], data: EvalData, batch_size: int) -> None:
        self.evaluators, self.data, self.batch_size = evaluators, data, batch_size
        self.held_out: tuple[str, ...] = ()
        self.left: dict[str, dict[str, Any]] = {}

    def __call__(self, model: nn.Module, runtime: Gathers) -> dict[str, dict[str, float]]:
        """Figures by evaluator, of a model in evaluation mode."""
        asks = [ask for each in self.evaluators.values() for ask in each.asks(model, runtime.device)]
        asks = [ask._replace(splits=tuple(dict.fromkeys((*ask.splits, *self.held_out)))) for ask in asks]
        look = Look(model, runtime, self.data, self.batch_size, asks, self.held_out)
        figures, self.left = {}, {}
        for name, evaluator in self.evaluators.items():
            look.left = self.left[name] = {}
            figures[name] = evaluator.run(look)
        return figures
