"""High-dimensional points as pictures in two or three dimensions."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Method = Literal["pca", "tsne", "umap"]
FEWEST = 5  # points, of which a projection shows anything


@dataclass(frozen=True)
class Projection:
    """Points in two or three dimensions.

    Attributes:
        places: float [N, 2 or 3].
        axes: names of the dimensions.
    """

    method: Method
    places: np.ndarray
    axes: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{ {'pca': 'PCA', 'tsne': 't-SNE', 'umap': 'UMAP'}[self.method] }, {self.places.shape[1]}D"


def check_method(name: str) -> None:
    """Check that a projection method can be used.

    Raises:
        ValueError: no such method, or the package that it needs is not installed.
    """
    if name not in _METHODS:
        raise ValueError(f"method: no {name}; there are {', '.join(_METHODS)}")
    if name == "umap" and importlib.util.find_spec("umap") is None:
        raise ValueError("method: umap needs the package umap-learn: pip install 'cxrcl[umap]', or leave umap out")


def project(points: np.ndarray, method: Method, dimensions: int, seed: int) -> Projection:
    """Points in few dimensions: the same places for the same points and seed.

    Args:
        points: float [N, D].
        dimensions: 2 or 3.

    Raises:
        ValueError: fewer than 5 points.
    """
    if len(points) < FEWEST:
        raise ValueError(f"{len(points)} points: {FEWEST} are needed for a projection")
    return Projection(method, *_METHODS[method](points.astype(np.float64), dimensions, seed))


def _pca(points: np.ndarray, dimensions: int, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Principal components, axes named with the share of the variance that each explains."""
    from sklearn.decomposition import PCA

    fitted = PCA(dimensions, svd_solver="full", random_state=seed)
    places = fitted.fit_transform(points)
    shares = fitted.explained_variance_ratio_
    return places, tuple(f"PC {k + 1} ({share:.0%})" for k, share in enumerate(shares))


def _tsne(points: np.ndarray, dimensions: int, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """t-SNE (van der Maaten and Hinton 2008) of the first 50 principal components, as its authors advise."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if min(points.shape) > 50:
        points = PCA(50, svd_solver="full", random_state=seed).fit_transform(points)
    # The perplexity must be smaller than the number of points.
    perplexity = min(30.0, (len(points) - 1) / 3)
    places = TSNE(dimensions, perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return places, tuple(f"t-SNE {k + 1}" for k in range(dimensions))


def _umap(points: np.ndarray, dimensions: int, seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """UMAP (McInnes et al. 2018); a single job, without which equal seeds do not give equal places."""
    from umap import UMAP

    neighbours = min(15, len(points) - 1)
    reducer = UMAP(n_components=dimensions, n_neighbors=neighbours, min_dist=0.3, random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(points)), tuple(f"UMAP {k + 1}" for k in range(dimensions))


_METHODS: dict[str, Callable[[np.ndarray, int, int], tuple[np.ndarray, tuple[str, ...]]]] = {
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
}
