"""Support devices: tubes, lines, leads and wires, thin and bright as metal and marked plastic are."""

from __future__ import annotations

import numpy as np

from .canvas import Array, Stroke, spline
from .lateral import Lateral
from .lesions import Chest
from .study import Finding


def device(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Layer of the device named by `f.form`."""
    draw = _LATERAL if isinstance(chest, Lateral) else _FRONTAL
    side = f.sides[0]
    shift = np.array([getattr(chest, "offset", 0.0), 0.0])
    strokes = draw[f.form](side, rng)
    return 0.95 * chest.canvas.strokes([(p + shift, w, v) for p, w, v in strokes], blur=0.001)


def _curve(*points: tuple[float, float], width: float = 0.011, value: float = 0.95) -> Stroke:
    return spline(np.array(points)), width, value


def _disc(x: float, y: float, radius: float, value: float = 1.0) -> Stroke:
    return np.array([(x - 1e-3, y), (x + 1e-3, y)]), 2 * radius, value


def _tube(side: int, rng: np.random.Generator) -> list[Stroke]:
    tip = rng.uniform(-0.24, -0.17)
    path = [(0.004, -0.56), (0.0, -0.38), (0.004, tip)]
    return [_curve(*path, width=0.020, value=0.75), _curve(*path, width=0.008, value=0.35)]


def _line(side: int, rng: np.random.Generator) -> list[Stroke]:
    tip = rng.uniform(-0.06, 0.04)
    if rng.random() < 0.5:  # jugular
        return [_curve((side * 0.09, -0.56), (side * 0.075, -0.42), (-0.045, -0.27), (-0.055, -0.15), (-0.05, tip))]
    return [_curve((side * 0.33, -0.42), (side * 0.22, -0.335), (side * 0.08, -0.30), (-0.05, -0.24), (-0.055, tip))]


def _port(side: int, rng: np.random.Generator) -> list[Stroke]:
    x, y = side * rng.uniform(0.23, 0.29), rng.uniform(-0.20, -0.15)
    line = _curve((x, y), (side * 0.2, -0.35), (side * 0.08, -0.33), (-0.05, -0.22), (-0.055, 0.0))
    return [line, _disc(x, y, 0.034), _disc(x, y, 0.016, 0.6)]


def _pacemaker(side: int, rng: np.random.Generator) -> list[Stroke]:
    x, y = side * rng.uniform(0.24, 0.30), rng.uniform(-0.27, -0.21)
    entry = [(x, y), (side * 0.2, -0.33), (side * 0.06, -0.30), (-0.045, -0.2), (-0.06, 0.02)]
    leads = [_curve(*entry, (-0.03, 0.14), (0.10, 0.20)), _curve(*entry[:-1], (-0.075, 0.04), (-0.05, 0.09))]
    box = np.array([(x - 0.022, y), (x + 0.022, y + 0.01)])
    return [*leads[: rng.integers(1, 3)], (box, 0.07, 1.0)]


def _chest_tube(side: int, rng: np.random.Generator) -> list[Stroke]:
    top = rng.uniform(-0.30, -0.15)
    path = [(0.50, 0.16), (0.38, 0.10), (0.28, -0.02), (0.20, top + 0.06), (0.17, top)]
    path = [(side * x, y) for x, y in path]
    return [_curve(*path, width=0.018, value=0.8), _curve(*path, width=0.007, value=0.4)]


def _gastric(side: int, rng: np.random.Generator) -> list[Stroke]:
    x = rng.uniform(0.12, 0.20)
    path = [(0.012, -0.56), (0.008, -0.2), (0.02, 0.1), (0.04, 0.25), (0.5 * x + 0.03, 0.33), (x, 0.36)]
    return [_curve(*path, width=0.010)]


def _leads(side: int, rng: np.random.Generator) -> list[Stroke]:
    strokes = []
    for x, y in ((-0.27, -0.25), (0.26, -0.24), (0.30, 0.12), (-0.24, 0.16))[: rng.integers(3, 5)]:
        x, y = x + rng.normal(0, 0.02), y + rng.normal(0, 0.02)
        strokes.append(_curve((x, y), (0.8 * x, y + 0.15), (0.35 * x + 0.1, 0.35), (0.1, 0.6), width=0.006, value=0.5))
        strokes.append(_disc(x, y, 0.015))
    return strokes


def _wires(side: int, rng: np.random.Generator) -> list[Stroke]:
    angles = np.linspace(0, 2 * np.pi, 9)
    ring = np.stack([0.018 * np.cos(angles), 0.010 * np.sin(angles)], axis=1)
    return [(ring + np.array([rng.normal(0, 0.003), y]), 0.007, 1.0) for y in np.linspace(-0.24, 0.14, 6)]


_FRONTAL = {
    "endotracheal tube": _tube,
    "central line": _line,
    "port": _port,
    "pacemaker": _pacemaker,
    "chest tube": _chest_tube,
    "nasogastric tube": _gastric,
    "ECG leads": _leads,
    "sternal wires": _wires,
}


def _lateral_wires(side: int, rng: np.random.Generator) -> list[Stroke]:
    ys = np.linspace(-0.22, 0.10, 6)
    xs = -0.225 - 0.18 * (ys + 0.1)
    return [_curve((x - 0.018, y + 0.01), (x, y - 0.008), (x + 0.018, y + 0.01)) for x, y in zip(xs, ys)]


_LATERAL = {
    "endotracheal tube": lambda side, rng: [_curve((0.0, -0.56), (0.02, -0.35), (0.035, -0.2), width=0.016)],
    "central line": lambda side, rng: [_curve((-0.03, -0.56), (-0.03, -0.3), (-0.02, -0.02))],
    "port": lambda side, rng: [
        _curve((-0.25, -0.16), (-0.15, -0.34), (-0.04, -0.3), (-0.02, 0.0)),
        _disc(-0.25, -0.16, 0.028),
    ],
    "pacemaker": lambda side, rng: [
        _curve((-0.22, -0.24), (-0.10, -0.36), (-0.02, -0.25), (-0.02, 0.02), (-0.18, 0.16)),
        (np.array([(-0.23, -0.26), (-0.215, -0.20)]), 0.045, 1.0),
    ],
    "chest tube": lambda side, rng: [_curve((0.0, 0.5), (0.05, 0.15), (0.08, -0.1), (0.06, -0.3), width=0.016)],
    "nasogastric tube": lambda side, rng: [_curve((0.04, -0.56), (0.08, -0.2), (0.09, 0.1), (-0.06, 0.3))],
    "ECG leads": lambda side, rng: [
        s
        for x, y in ((-0.27, -0.12), (-0.31, 0.12), (0.05, 0.1))
        for s in (_curve((x, y), (x + 0.02, 0.3), (x, 0.6), width=0.006, value=0.5), _disc(x, y, 0.014))
    ],
    "sternal wires": _lateral_wires,
}
