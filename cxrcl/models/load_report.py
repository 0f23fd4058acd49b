"""How the weights of a file fit a model, in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LoadReport:
    """How the tensors of a file and those of a model agree.

    Attributes:
        matched: number of tensors with the same name and shape.
        missing: names that only the model has.
        unexpected: names that only the file has.
        mismatched: names that both have, with both shapes.
        ignored: number of tensors that only the file has, and that may be left out.
    """

    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    ignored: int = 0

    @property
    def fits(self) -> bool:
        """Every tensor of the model is in the file, and nothing unknown is left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = [f"{self.matched} tensors matched"]
        for name in ("missing", "unexpected", "mismatched"):
            keys = getattr(self, name)
            if keys:
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})")
        if self.ignored:
            parts.append(f"{self.ignored} of known heads ignored")
        return ", ".join(parts)


def compare(
    model: Mapping[str, Tensor], weights: Mapping[str, Tensor], may_ignore: Callable[[str], bool] = lambda key: False
) -> tuple[dict[str, Tensor], LoadReport]:
    """The weights that have a name and shape of the model's, and the report.

    Args:
        model: the model's state dict, tensors of any shape.
        weights: those of the file.
        may_ignore: whether a tensor of this name may be left over.
    """
    good = {key: value for key, value in weights.items() if key in model and model[key].shape == value.shape}
    excess = sorted(set(weights) - set(model))
    report = LoadReport(
        matched=len(good),
        missing=tuple(sorted(set(model) - set(weights))),
        unexpected=tuple(key for key in excess if not may_ignore(key)),
        mismatched=tuple(
            f"{key} {list(weights[key].shape)} for {list(model[key].shape)}"
            for key in sorted(set(model) & set(weights) - set(good))
        ),
        ignored=sum(map(may_ignore, excess)),
    )
    return good, report
