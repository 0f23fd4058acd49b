"""The normal left lateral chest as an attenuation map; the patient faces the left edge of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .anatomy import CARINA_Y, LEFT, RIGHT, Body, Changes, Pose, bands
from .canvas import Array, Canvas, spline

_FRONT_Y = np.array([-0.42, -0.34, -0.24, -0.10, 0.05, 0.20, 0.40])
_FRONT_X = np.array([-0.02, -0.12, -0.19, -0.245, -0.285, -0.30, -0.30])
_BACK_Y = np.array([-0.42, -0.34, -0.20, -0.02, 0.15, 0.30, 0.45])
_BACK_X = np.array([0.10, 0.19, 0.265, 0.310, 0.315, 0.295, 0.27])


class Lateral:
    """Shapes and base attenuation of one lateral image; the interface of `Frontal` with both lungs superimposed."""

    def __init__(self, canvas: Canvas, body: Body, pose: Pose, changes: Changes):
        self.canvas, self.body, self.pose = canvas, body, pose
        breath = 0.05 * pose.breath
        self.domes = {
            RIGHT: 0.165 * body.height + breath - changes.lift_right,
            LEFT: 0.195 * body.height + breath - changes.lift_left,
        }
        self.heart_size = body.heart * changes.heart
        self.heart_shape = self._heart(self.heart_size)
        self.mediastinum_shape = self._mediastinum(changes.mediastinum)
        masks = {side: canvas.areas([self._lung(side)], blur=0.006) for side in (RIGHT, LEFT)}
        self.field = np.maximum(masks[RIGHT], masks[LEFT])
        self.lungs = dict.fromkeys((RIGHT, LEFT), self.field)
        self._masks = masks
        self.ribs = {side: [self._rib(side, i) for i in range(8)] for side in (RIGHT, LEFT)}
        self.vessels = self._vessels()
        self.attenuation = self._base(changes)

    # geometry -------------------------------------------------------------------------------------------------
    def front(self, y: ArrayLike) -> Any:
        """x of the inner anterior wall at height y."""
        return self.body.width * np.interp(np.asarray(y) / self.body.height, _FRONT_Y, _FRONT_X)

    def back(self, y: ArrayLike) -> Any:
        """x of the inner posterior wall at height y."""
        return self.body.width * np.interp(np.asarray(y) / self.body.height, _BACK_Y, _BACK_X)

    def floor(self, side: int) -> Array:
        """Outline [n, 2] of a hemidiaphragm, front to back, ending in the posterior angle."""
        w, dome = self.body.width, self.domes[side]
        foot = 0.40 * self.body.height + 0.3 * (dome - 0.18)
        x0, x1 = self.front(dome + 0.06), self.back(foot)
        mid = [(-0.20 * w, dome + 0.015), (-0.07 * w, dome - 0.005), (0.06 * w, dome + 0.03), (0.17 * w, dome + 0.10)]
        return np.array([(x0, dome + 0.06), *mid, (x1 - 0.03, foot - 0.035), (x1, foot)])

    def spot(self, side: int, zone: str, rng: np.random.Generator, depth: float | None = None) -> tuple[float, float]:
        """A place in a lung zone; depth 0 = hilum .. 1 = periphery."""
        centre = {"apical": (0.04, -0.34), "upper": (-0.01, -0.24), "mid": (-0.10, 0.02), "lower": (0.16, 0.17)}[zone]
        x, y = np.array(centre) * (self.body.width, self.body.height)
        reach = 0.05 if depth is None else 0.08 * depth
        return x + rng.uniform(-1, 1) * reach, y + rng.uniform(-1, 1) * 0.04

    def _lung(self, side: int) -> Array:
        h = self.body.height
        ys = np.array([-0.34, -0.22, -0.08, 0.08]) * h
        front = np.stack([self.front(ys), ys], axis=1)
        ys = np.array([0.28, 0.12, -0.05, -0.22, -0.34]) * h
        back = np.stack([self.back(ys), ys], axis=1)
        apex = [(0.08 * self.body.width, -0.415 * h), (0.0, -0.41 * h)]
        return spline(np.concatenate([front, self.floor(side), back, apex]), closed=True)

    def _heart(self, size: float) -> Array:
        w, floor = self.body.width, self.domes[LEFT] + 0.02
        back = (-0.20 + 0.235 * size) * w
        points = [(-0.10 * w, -0.10), (-0.19 * w, 0.01), (-0.25 * w, 0.10), (-0.255 * w, floor), (-0.1, floor + 0.03)]
        points += [(0.75 * back, floor), (back, 0.55 * floor), (back - 0.01, 0.1 * floor), (0.0, -0.09)]
        return spline(np.array(points) + np.array([0, -0.04 * (size - 1)]), closed=True)

    def _mediastinum(self, size: float) -> Array:
        """Great vessels in front of the trachea; enlargement fills the retrosternal space."""
        grow = 0.16 * (size - 1)
        points = [(-0.05 - 0.4 * grow, -0.44), (-0.06 - grow, -0.30), (-0.09 - grow, -0.16), (-0.12, -0.04)]
        return spline(np.array([*points, (0.03, -0.04), (0.015, -0.2), (0.0, -0.44)]), closed=True)

    def spine(self, y: ArrayLike) -> Any:
        """x of the vertebral bodies at height y."""
        return self.body.width * (0.255 - 0.75 * (np.asarray(y) - 0.03) ** 2)

    def _rib(self, side: int, index: int) -> Array:
        y0 = (-0.40 + 0.078 * index * self.body.rib_pitch) * self.body.height + 0.012 * side
        t = np.linspace(0, 1, 13)
        y = y0 + (0.16 * t + 0.05 * t**2) * self.body.rib_slope
        x = self.back(y0) + t * (self.front(y[-1]) - self.back(y0)) * 0.85
        return np.stack([x, y], axis=1)

    # drawing --------------------------------------------------------------------------------------------------
    def _vessels(self) -> Array:
        rng = np.random.default_rng(self.body.vessels_seed + 1)
        thin, thick = [], []
        for angle in np.linspace(-2.9, 2.6, 22) + rng.uniform(-0.12, 0.12, 22):
            t = np.linspace(0, rng.uniform(0.14, 0.26), 5)
            bent = angle + rng.normal(0, 1.0) * t
            path = np.stack([0.03 + t * np.cos(bent), -0.07 + t * np.sin(bent)], axis=1)
            thin.append((path, 0.007, 0.4))
            thick.append((path[:3], 0.013, 0.7))
        hilum = self.canvas.blob(0.03, -0.07, 0.035, 0.045)
        return (0.17 * self.canvas.strokes(thin + thick, blur=0.003) + 0.16 * hilum) * self.field

    def _base(self, changes: Changes) -> Array:
        canvas, body = self.canvas, self.body
        thick = 1 + 0.22 * body.habitus
        skin = 0.045 + 0.03 * (body.habitus + 1)
        ys = np.array([-0.25, -0.1, 0.1, 0.3, 0.85])
        chest = np.stack([self.front(ys) - skin - 0.05 * body.breast * np.array([0, 0.5, 1, 0.6, 0]), ys], axis=1)
        dorsum = np.stack([self.back(ys) + skin + 0.04, ys], axis=1)[::-1]
        # the raised arms leave at the top, in front of the neck
        top = [(0.33, -0.36), (0.20, -0.50), (0.12, -0.85), (-0.30, -0.85), (-0.24, -0.5), (-0.16, -0.38)]
        soft = canvas.areas([spline(np.concatenate([chest, dorsum, top]), closed=True)], blur=0.012)
        mu = 0.88 * thick * soft
        mu += 0.12 * thick * np.clip((canvas.y - 0.05) * 2.5, 0, 1) * soft
        mu -= 0.42 * (self._masks[RIGHT] + self._masks[LEFT]) + 0.10 * body.habitus * self.field
        mu += 0.12 * np.clip(-0.15 - canvas.y, 0, 0.3) / 0.3 * soft  # shoulders over the apices
        heart = canvas.areas([self.heart_shape], blur=0.010)
        vessels = canvas.areas([self.mediastinum_shape], blur=0.010)
        mu += np.maximum(0.40 * heart, (0.16 + 0.3 * min(changes.mediastinum - 1, 0.8)) * vessels)
        mu += self.vessels + self._bones() + self._airways()
        return mu.astype(np.float32)

    def _bones(self) -> Array:
        canvas = self.canvas
        ys = np.linspace(-0.46, 0.52, 15)
        xs = self.spine(ys)
        column = spline(np.stack([xs, ys], axis=1))
        discs = [(np.array([(x - 0.04, y + 0.006), (x + 0.04, y - 0.006)]), 0.014, 0.35) for x, y in zip(xs, ys)]
        layer = 0.22 * canvas.strokes([(column, 0.085, 1.0), (column, 0.065, 0.8), *discs], blur=0.005)
        layer *= np.clip(1.3 - 2.5 * (canvas.y - 0.15), 0.25, 1)  # the spine fades into the abdomen
        ys = np.linspace(-0.29, 0.12, 8)
        sternum = np.stack([self.front(ys) - 0.022, ys], axis=1)
        layer += 0.22 * canvas.strokes([(spline(sternum), 0.03, 1.0)], blur=0.004)
        layer += 0.085 * canvas.strokes(bands(self.ribs[RIGHT] + self.ribs[LEFT], 0.022), blur=0.003)
        blade = [np.array([(0.20 + d, -0.36), (0.30 + d, -0.26), (0.31 + d, -0.10)]) for d in (0.0, 0.03)]
        return layer + 0.14 * canvas.strokes([(spline(b), 0.014, 1.0) for b in blade], blur=0.004)

    def _airways(self) -> Array:
        canvas = self.canvas
        rng = np.random.default_rng(self.pose.seed)
        trachea = np.array([(0.01, -0.52), (0.025, -0.3), (0.045, CARINA_Y + 0.03)])
        air = canvas.strokes([(trachea, 0.035, 1.0)], blur=0.005)
        aorta = np.array([(-0.03, -0.10), (0.0, -0.19), (0.06, -0.225), (0.125, -0.18), (0.165, -0.05), (0.175, 0.2)])
        arch = canvas.strokes([(spline(aorta), 0.05 * self.body.aorta, 1.0)], blur=0.012)
        bubble = canvas.blob(-0.12, self.domes[LEFT] + 0.07, rng.uniform(0.04, 0.07), 0.03, 0.1, power=2)
        bubble *= 1 - self.field
        return 0.13 * arch * self.field - 0.18 * air - rng.uniform(0.0, 0.35) * bubble
