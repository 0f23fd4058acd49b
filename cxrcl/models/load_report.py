"""What comes of comparing the weights of a file with a model's, said in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LoadReport:
    """Numbers and names of tensors. `ignored` counts those of the file that the model may leave out."""

    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    ignored: int = 0

    @property
    def fits(self) -> bool:
        """Every tensor of the model was found, and nothing unknown was left over."""
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
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], may_ignore: Callable[[str], bool] = lambda key: False
) -> tuple[dict[str, Tensor], LoadReport]:
    """The weights whose name and shape agree with a model's own, and the report.

    Args:
        may_ignore: names of tensors that may be left over.
    """
    good = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
    excess = sorted(set(weights) - set(own))
    report = LoadReport(
        matched=len(good),
        missing=tuple(sorted(set(own) - set(weights))),
        unexpected=tuple(key for key in excess if not may_ignore(key)),
        mismatched=tuple(
            f"{key} {list(weights[key].shape)} for {list(own[key].shape)}"
            for key in sorted(set(own) & set(weights) - set(good))
        ),
        ignored=sum(map(may_ignore, excess)),
    )
    return good, report
