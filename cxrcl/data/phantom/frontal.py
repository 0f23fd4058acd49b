"""The normal frontal chest (PA or AP) as an attenuation map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .anatomy import CARINA_Y, LEFT, RIGHT, Body, Changes, Pose, bands
from .canvas import Array, Canvas, spline

_WALL_Y = np.array([-0.43, -0.40, -0.34, -0.24, -0.08, 0.10, 0.25, 0.45])
_WALL_X = np.array([0.130, 0.195, 0.260, 0.322, 0.370, 0.395, 0.402, 0.398])
_HEIGHT = {"apical": 0.02, "upper": 0.2, "mid": 0.52, "lower": 0.83}  # of the lung, from its top


class Frontal:
    """Shapes and base attenuation of one frontal image.

    `lungs[side]` are masks (n, n) in 0..1, `vessels` the attenuation of the lung markings (part of `attenuation`).
    """

    def __init__(self, canvas: Canvas, body: Body, pose: Pose, changes: Changes):
        self.canvas, self.body, self.pose = canvas, body, pose
        portable = pose.view == "AP"
        breath = 0.055 * pose.breath
        self.offset = 0.03 * pose.turn  # how far the turned chest carries the mediastinum sideways
        self.domes = {
            RIGHT: body.height * 0.235 + breath - changes.lift_right,
            LEFT: body.height * 0.262 + breath - changes.lift_left,
        }
        self.heart_shape = self._heart(body.heart * changes.heart * (1.10 if portable else 1.0))
        self.mediastinum_shape = self._mediastinum(changes.mediastinum * (1.12 if portable else 1.0))
        outlines = {side: self._lung(side) for side in (RIGHT, LEFT)}
        self.lungs = {side: canvas.areas([outlines[side]], blur=0.006) for side in (RIGHT, LEFT)}
        self.field = np.maximum(self.lungs[RIGHT], self.lungs[LEFT])
        self.ribs = {side: [self._rib(side, i) for i in range(9)] for side in (RIGHT, LEFT)}
        self.vessels = self._vessels()
        self.attenuation = self._base()

    # geometry -------------------------------------------------------------------------------------------------
    def wall(self, y: ArrayLike) -> Any:
        """Half-width of the inner chest at height y."""
        return self.body.width * np.interp(np.asarray(y) / self.body.height, _WALL_Y, _WALL_X)

    def midline(self, y: ArrayLike) -> Any:
        """x of the spine at height y."""
        return self.body.scoliosis * np.sin(np.pi * (np.asarray(y) + 0.5)) + 0.25 * self.offset

    def spot(self, side: int, zone: str, rng: np.random.Generator, depth: float | None = None) -> tuple[float, float]:
        """A place in a lung zone; depth 0 = hilum .. 1 = chest wall."""
        top, bottom = -0.36 * self.body.height, self.domes[side] - 0.03
        y = top + (bottom - top) * _HEIGHT[zone] + 0.04 * rng.uniform(-1, 1)
        inner = 0.12 if side == RIGHT or zone != "lower" else 0.20
        depth = rng.uniform(0.15, 0.8) if depth is None else depth
        return side * (inner + depth * (self.wall(y) - inner)), y

    def _lung(self, side: int) -> Array:
        w, h, dome = self.body.width, self.body.height, self.domes[side]
        angle = dome + 0.105 - 0.03 * (self.pose.view == "AP")
        ys = np.array([-0.415, -0.37, -0.27, -0.12, 0.05, 0.17]) * h
        wall = np.stack([self.wall(ys), ys], axis=1)
        foot = self.wall(angle)
        floor = [(foot, angle - 0.03), (foot, angle), (foot - 0.012, angle - 0.004), (foot - 0.05, dome + 0.04)]
        floor += [(0.27 * w, dome + 0.002), (0.19 * w, dome - 0.008), (0.10 * w, dome + 0.016), (0.045, dome + 0.04)]
        medial = [(0.035, 0.1), (0.035, -0.15), (0.04, -0.33 * h), (0.075 * w, -0.405 * h)]
        return spline(np.concatenate([wall, floor, medial]), closed=True) * (side, 1)

    def _heart(self, size: float) -> Array:
        floor = self.domes[LEFT] + 0.035
        # a large heart grows to the left and downwards first
        right, left = 0.088 * size * self.body.width, 0.205 * size**1.15 * self.body.width
        top = -0.05 - 0.05 * (size - 1)
        points = [(-0.05, top - 0.04), (-0.85 * right, 0.35 * floor - 0.05), (-right, 0.62 * floor)]
        points += [(-0.8 * right, floor), (0.0, floor + 0.03), (0.7 * left, floor + 0.025), (left, floor - 0.035)]
        points += [
            (0.93 * left, 0.62 * floor),
            (0.66 * left, 0.2 * floor),
            (0.055 + 0.2 * (left - 0.2), top + 0.02),
            (0.05, top - 0.05),
        ]
        return spline(np.array(points), closed=True) + np.array([self.offset, 0])

    def _mediastinum(self, size: float) -> Array:
        knob = 0.045 * self.body.aorta
        ys = np.array([-0.52, -0.40, -0.33, -0.24, -0.12, 0.0])
        half = np.array([0.085, 0.060, 0.055, 0.055, 0.056, 0.06])
        half = half * (1 + (size - 1) * np.array([0, 0.5, 1, 1, 0.9, 0.3]))
        bulge = np.array([0, 0, 0.0, 0.7, 0.95, 0.3]) * knob
        right = np.stack([-half, ys], axis=1)
        left = np.stack([half + bulge, ys], axis=1)[::-1]
        return spline(np.concatenate([right, left]), closed=True) + np.array([self.offset, 0])

    def _rib(self, side: int, index: int) -> Array:
        """Centre line [13, 2] of a posterior rib, spine to chest wall."""
        y0 = (-0.385 + 0.070 * index * self.body.rib_pitch) * self.body.height
        drop = (0.035 + 0.011 * index) * self.body.rib_slope
        t = np.linspace(0, 1, 13)
        reach = self.wall(y0 + drop)
        y = y0 + drop * t**1.7 - 0.022 * np.sin(np.pi * t)
        y[-2:] += (0.004, 0.016)  # turns down at the wall
        return np.stack([side * (0.04 + t * (reach - 0.04)) + self.midline(y0) * (1 - t), y], axis=1)

    def clavicle(self, side: int) -> Array:
        """Centre line [n, 2], sternal end first."""
        rise = 0.03 if self.pose.view == "AP" else 0.0
        points = np.array([(0.045, -0.275), (0.13, -0.315), (0.25, -0.345), (0.37, -0.385), (0.46, -0.385)])
        points = points * (side * self.body.width, self.body.height)
        return spline(points + np.array([1.3 * self.offset, 0.015 * side * self.pose.turn - rise]))

    # drawing --------------------------------------------------------------------------------------------------
    def _vessels(self) -> Array:
        rng = np.random.default_rng(self.body.vessels_seed)
        thin, middle, thick = [], [], []
        for side in (RIGHT, LEFT):
            hilum = np.array([side * 0.085 + self.offset, -0.04 if side == RIGHT else -0.06])
            n = 9
            heading = np.linspace(-1.45, 1.35, n) + rng.uniform(-0.12, 0.12, n)
            length = rng.uniform(0.20, 0.30, n)
            trunks = _walk(np.repeat(hilum[None], n, 0), heading, length, side, rng)
            forks = trunks[:, [2, 3, 4, 2, 3, 4]].reshape(-1, 2)
            spread = np.tile([0.5, -0.45, 0.4, -0.6, 0.55, -0.35], n) + rng.uniform(-0.15, 0.15, 6 * n)
            twigs = _walk(forks, np.repeat(heading, 6) + spread, np.repeat(length, 6) * 0.5, side, rng)
            thin += [(p, 0.006, 0.4) for p in twigs]
            thick += [(p[:5], 0.014, 0.75) for p in trunks]
            middle += [(p[3:], 0.008, 0.55) for p in trunks]
        hila = sum(self.canvas.blob(s * 0.09 + self.offset, -0.045, 0.028, 0.06, -0.3 * s) for s in (RIGHT, LEFT))
        return (0.20 * self.canvas.strokes(thin + middle + thick, blur=0.003) + 0.13 * hila) * self.field

    def _base(self) -> Array:
        canvas, body, pose = self.canvas, self.body, self.pose
        thick = 1 + 0.22 * body.habitus
        skin = 0.035 + 0.035 * (body.habitus + 1)
        ys = np.array([-0.24, -0.05, 0.15, 0.35, 0.80])
        flank = np.stack([self.wall(np.minimum(ys, 0.3)) + skin + np.array([0.035, 0.01, 0, 0, 0.01]), ys], axis=1)
        top = [(0.085, -0.85), (0.095, -0.50), (0.17, -0.455), (0.33, -0.425), (0.50, -0.39), (0.60, -0.28)]
        arms = [(0.60, 0.02), (0.52, -0.12)] if pose.view == "AP" else [(0.58, -0.12), (0.50, -0.17)]
        half = spline(np.concatenate([top, arms, flank]))
        soft = canvas.areas([np.concatenate([half, half[::-1] * (-1, 1)])], blur=0.012)
        mu = 0.86 * thick * soft
        mu += 0.12 * thick * np.clip((canvas.y - 0.05) * 2.5, 0, 1) * soft  # thicker towards the abdomen
        mu -= (0.76 + 0.14 * body.habitus) * self.field
        heart = canvas.areas([self.heart_shape], blur=0.006)
        heart *= np.clip(1.6 - (canvas.y - self.domes[LEFT]) / 0.03, 0, 1)  # its foot is lost in the abdomen
        middle = canvas.areas([self.mediastinum_shape], blur=0.006)
        mu += (np.maximum(0.46 * heart, 0.42 * middle)) * np.clip(0.35 + self.field, 0, 1)
        mu += self.vessels + self._bones() + self._airways()
        if body.breast:
            size = 0.10 + 0.05 * body.breast
            for s in (RIGHT, LEFT):
                y = 0.10 + 0.05 * body.breast
                mu += 0.15 * body.breast * canvas.blob(s * 0.23 * body.width, y, 1.3 * size, size, 0.2 * s, power=2.5)
        return mu.astype(np.float32)

    def _bones(self) -> Array:
        canvas, portable = self.canvas, self.pose.view == "AP"
        layer = 0.125 * canvas.strokes(bands(self.ribs[RIGHT] + self.ribs[LEFT], 0.024), blur=0.003)
        front = []
        for s in (RIGHT, LEFT):
            for y in np.arange(-0.25, 0.2, 0.095):
                x = self.wall(y)
                front.append(spline(np.array([(x, y), (0.8 * x, y + 0.06), (0.5 * x, y + 0.095)]) * (s, 1)))
        layer += 0.045 * canvas.strokes([(p, 0.026, 1.0) for p in front], blur=0.005)
        layer += 0.22 * canvas.strokes(bands([self.clavicle(RIGHT), self.clavicle(LEFT)], 0.027), blur=0.003)
        blade = np.array([(0.36, -0.36), (0.45, -0.33), (0.44, -0.15), (0.40, -0.02), (0.36, -0.10), (0.345, -0.25)])
        blade = blade * (self.body.width, self.body.height) + (-0.035 if portable else 0.03, 0)
        layer += 0.12 * canvas.areas([spline(blade * (s, 1), closed=True) for s in (RIGHT, LEFT)], blur=0.004)
        ys = np.linspace(-0.52, 0.5, 18)
        column = np.stack([self.midline(ys), ys], axis=1)
        discs = [(np.array([(x - 0.036, y), (x + 0.036, y)]), 0.010, 0.45) for x, y in column]
        layer += 0.17 * canvas.strokes([(spline(column), 0.075, 1.0), *discs], blur=0.004)
        return layer

    def _airways(self) -> Array:
        """Attenuation [size_px, size_px] of trachea, main bronchi and gastric bubble: air, hence negative."""
        canvas, dx = self.canvas, self.offset
        trachea = np.array([(dx, -0.52), (dx, -0.3), (dx + 0.004, CARINA_Y)])
        bronchi = [np.array([(dx, CARINA_Y), (dx + s * 0.055, CARINA_Y + 0.06)]) for s in (RIGHT, LEFT)]
        air = canvas.strokes([(trachea, 0.032, 1.0)] + [(b, 0.02, 0.8) for b in bronchi], blur=0.005)
        rng = np.random.default_rng(self.pose.seed)
        x, y = rng.uniform(0.13, 0.2), self.domes[LEFT] + rng.uniform(0.06, 0.08)
        bubble = canvas.blob(x, y, rng.uniform(0.035, 0.06), 0.03, 0.2, power=2) * (1 - self.field)
        return -0.20 * air - rng.uniform(0.0, 0.35) * bubble


def _walk(start: Array, heading: Array, length: Array, side: int, rng: np.random.Generator) -> Array:
    """Gently bending paths (n, 7, 2) from start [n, 2]."""
    bend = rng.normal(0, 0.12, (len(start), 6)).cumsum(axis=1)
    angles = heading[:, None] + bend
    steps = (length / 6)[:, None, None] * np.stack([side * np.cos(angles), np.sin(angles)], axis=2)
    return np.concatenate([start[:, None], start[:, None] + steps.cumsum(axis=1)], axis=1)
