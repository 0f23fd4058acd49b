"""A square grey canvas on which anatomy is drawn in thorax coordinates.

Thorax coordinates: origin in the middle of the chest, x to the right of the image (the patient's left on a frontal
image), y downwards, and 1.0 = the side of an untransformed image. An affine matrix takes them to pixels, so every shape
follows the position of the patient and a box measured on a drawn layer needs no further mapping.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

import cv2
import numpy as np

Array = np.ndarray
Box = tuple[float, float, float, float]
Stroke = tuple[Array, float, float]  # points [n, 2], width in thorax units, value in 0..1

_SHIFT = 4  # sub-pixel bits of the OpenCV rasteriser
_STEPS = np.arange(5)[:, None] / 5.0
_CATMULL_ROM = (
    0.5
    * np.concatenate([_STEPS**0, _STEPS, _STEPS**2, _STEPS**3], axis=1)
    @ np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]], dtype=float)
)


def spline(points: Array, closed: bool = False) -> Array:
    """Smooth curve [5 n, 2] through the points [n, 2]."""
    p = np.asarray(points, dtype=float)
    if closed:
        p = np.concatenate([p[-1:], p, p[:2]])
    else:
        p = np.concatenate([p[:1], p, p[-1:]])
    quads = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], axis=1)
    curve = (_CATMULL_ROM @ quads).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def rise(distance: Array, width: float) -> Array:
    """Smooth step 0..1 across distance = 0."""
    return 0.5 + 0.5 * np.tanh(distance / np.float32(width))


class Canvas:
    """Rasterises shapes to float32 layers [size_px, size_px] with values in 0..1.

    Args:
        size_px: side of the canvas.
        matrix: float [2, 3], the affine map from thorax coordinates to pixels.
    """

    def __init__(self, size_px: int, matrix: Array):
        self.size_px = size_px
        self.matrix = np.asarray(matrix, dtype=float)
        self.unit = float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))  # pixels per thorax unit
        inverse = np.linalg.inv(self.matrix[:, :2])
        axis = np.arange(size_px, dtype=np.float32) + 0.5
        offset = inverse @ self.matrix[:, 2]
        x, y = axis[None, :], axis[:, None]
        self.x = (inverse[0, 0] * x + inverse[0, 1] * y - offset[0]).astype(np.float32)
        self.y = (inverse[1, 0] * x + inverse[1, 1] * y - offset[1]).astype(np.float32)

    def _pixels(self, points: Array) -> Array:
        """Points [n, 2] in thorax coordinates -> int32 [n, 2] in the units of OpenCV's rasteriser."""
        xy = np.asarray(points, dtype=float) @ self.matrix[:, :2].T + self.matrix[:, 2] - 0.5
        return np.rint(xy * (1 << _SHIFT)).astype(np.int32)

    def soften(self, mask: Array, blur: float) -> Array:
        """uint8 mask [size_px, size_px] -> float32 of 0..1, blurred with a Gaussian of `blur` thorax units."""
        sigma = blur * self.unit
        if sigma > 3.5:  # wide blurs at a quarter of the resolution: same look, a tenth of the time
            side = max(self.size_px // 4, 1)
            small = cv2.GaussianBlur(cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA), (0, 0), sigma / 4)
            mask = cv2.resize(small, (self.size_px, self.size_px), interpolation=cv2.INTER_LINEAR)
        elif sigma > 0.4:
            mask = cv2.GaussianBlur(mask, (0, 0), sigma)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def areas(self, shapes: list[Array], blur: float = 0.0) -> Array:
        """Union of filled outlines, each [n, 2]: float32 [size_px, size_px]."""
        mask = np.zeros((self.size_px, self.size_px), np.uint8)
        for shape in shapes:
            cv2.fillPoly(mask, [self._pixels(shape)], 255, cv2.LINE_AA, _SHIFT)
        return self.soften(mask, blur)

    def strokes(self, strokes: list[Stroke], blur: float = 0.0) -> Array:
        """Lines, each with a width and a value: float32 [size_px, size_px]; later strokes cover earlier ones."""
        mask = np.zeros((self.size_px, self.size_px), np.uint8)
        pixels = self._pixels(np.concatenate([points for points, _, _ in strokes]))
        start = 0
        for (width, value), group in groupby(strokes, key=itemgetter(1, 2)):  # one call per pen: calls are the cost
            thickness = max(round(width * self.unit), 1)
            lines = []
            for points, _, _ in group:
                lines.append(pixels[start : start + len(points)])
                start += len(points)
            cv2.polylines(mask, lines, False, int(255 * value), thickness, cv2.LINE_AA, _SHIFT)
        return self.soften(mask, blur)

    def blob(self, x: float, y: float, rx: float, ry: float, angle: float = 0.0, power: float = 1.0) -> Array:
        """Soft ellipse exp(-d^2p / 2) with half-axes rx, ry, float32 [size_px, size_px].

        A larger power gives a flatter top and a sharper rim.
        """
        layer = np.zeros((self.size_px, self.size_px), np.float32)
        centre = self.matrix[:, :2] @ (x, y) + self.matrix[:, 2]
        reach = max(rx, ry) * 14.0 ** (0.5 / power) * self.unit  # beyond it the value is under 1e-3
        (x0, y0), (x1, y1) = np.clip([centre - reach, centre + reach + 1], 0, self.size_px).astype(int)
        window = (slice(y0, y1), slice(x0, x1))
        dx, dy = self.x[window] - np.float32(x), self.y[window] - np.float32(y)
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        d2 = ((c * dx + s * dy) / np.float32(rx)) ** 2 + ((c * dy - s * dx) / np.float32(ry)) ** 2
        layer[window] = np.exp(np.float32(-0.5) * (d2 if power == 1.0 else d2 ** np.float32(power)))
        return layer

    def texture(self, rng: np.random.Generator, cells: int) -> Array:
        """Smooth random field of standard deviation about 1, `cells` bumps across; float32 [size_px, size_px]."""
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        return cv2.resize(coarse, (self.size_px, self.size_px), interpolation=cv2.INTER_CUBIC)

    def box(self, layer: Array, share: float = 0.2) -> Box | None:
        """Bounds (x0, y0, x1, y1) in 0..1 of where a layer [size_px, size_px] exceeds `share` of its peak.

        Both by magnitude; None for an empty layer.
        """
        strength = np.abs(layer)
        peak = float(strength.max())
        if peak < 5e-4:
            return None
        hit = strength > share * peak
        cols, rows = np.flatnonzero(hit.any(axis=0)), np.flatnonzero(hit.any(axis=1))
        n = self.size_px
        return float(cols[0] / n), float(rows[0] / n), float((cols[-1] + 1) / n), float((rows[-1] + 1) / n)
