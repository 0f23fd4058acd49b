"""Films whose features are known, because they went through a frozen encoder before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxrcl.data.dataset import EvalSet, Sample
from cxrcl.data.films import Films
from cxrcl.data.loader import Collate, Feed, features_of
from cxrcl.data.pixels import ImageError
from cxrcl.data.splits import Splits
from cxrcl.data.transforms import RadiographTransform
from cxrcl.types import Batch

Known = Mapping[str, np.ndarray]  # path of a film -> its pooled features, float32 [dim]


class EveryFilm:
    """Films as evaluation sees them; one that cannot be read is black, and `bad` is set."""

    def __init__(self, paths: Sequence[str], transform: RadiographTransform, films: Films) -> None:
        self.paths, self.transform, self.films = paths, transform, films

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        _, place = key
        side, bad = self.transform.spec.size, 0
        try:
            film = self.films.read(self.paths[place], self.transform.needed_side_px(augmented=False))
            image = self.transform.geometry(film, None)
        except ImageError:
            image, bad = np.zeros((side, side), dtype=np.uint8), 1
        return Sample(image[None, None], None, [], np.zeros(0, dtype=np.float32), place, bad)


def batches_of_films(
    paths: Sequence[str], places: range, batch_size: int, transform: RadiographTransform, films: Films, feed: Feed
) -> Iterable[Batch]:
    """The films at these places of `paths`, in order: `index` holds the place, `bad` is 1 where there is no film."""
    keys = [[(0, k) for k in places[start : start + batch_size]] for start in range(0, len(places), batch_size)]
    return feed.batches(EveryFilm(paths, transform, films), keys, Collate(None))


class KnownSplits:
    """The splits of a manifest with features in place of films, where those of a whole split are known.

    Implements `cxrcl.types.EvalData`. Several views or texts are read as ever: features are those of the film as it is.
    """

    def __init__(self, splits: Splits, known: Known) -> None:
        self.splits, self.known, self.labels = splits, known, splits.labels
        self._features: dict[str, tuple[Tensor, np.ndarray] | None] = {}

    def size(self, split: str) -> int:
        return self.splits.size(split)

    def truth(self, split: str) -> Tensor:
        return self.splits.truth(split)

    def column(self, split: str, name: str) -> list[str]:
        return self.splits.column(split, name)

    def texts(self, split: str) -> list[str]:
        return self.splits.texts(split)

    def _features_of(self, split: str) -> tuple[Tensor, np.ndarray] | None:
        """float32 [N, dim] and the rows of the CSV [N]; None where a film of the split is not known."""
        if split not in self._features:
            films = EvalSet(self.splits.part(split), self.splits.transform, None)
            complete = len(films) and all(path in self.known for path in films.paths)
            found: Any = np.stack([self.known[path] for path in films.paths]) if complete else None
            self._features[split] = None if found is None else (torch.from_numpy(found), films.lines)
        return self._features[split]

    def batches(
        self, split: str, positions: Sequence[int], batch_size: int, texts: int = 0, views: int = 1
    ) -> Iterable[Batch]:
        known = self._features_of(split) if views == 1 and texts == 0 else None
        if known is None:
            yield from self.splits.batches(split, positions, batch_size, texts, views)
            return
        features, lines = known
        for start in range(0, len(positions), batch_size):
            rows = list(positions[start : start + batch_size])
            labels, index = self.truth(split)[rows], torch.from_numpy(lines[rows])
            seen = features_of(features[rows][:, None])
            yield self.splits.prepare(Batch(None, None, None, labels, index, image_features=seen))
