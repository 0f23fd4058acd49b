"""Findings of the heart and the lungs, as layers added to the attenuation of a normal chest.

Every function takes the chest (`Frontal` or `Lateral`), the finding and its own random generator and returns a float32
layer [n, n]. Amplitudes are in attenuation units: lung about 0.1, soft tissue about 0.9.
"""

from __future__ import annotations

import numpy as np

from .anatomy import LEFT, RIGHT, Changes
from .canvas import Array, rise, spline
from .frontal import Frontal
from .lateral import Lateral
from .study import Finding

Chest = Frontal | Lateral


def changes_of(findings: tuple[Finding, ...]) -> Changes:
    """Deformations of the anatomy: a large heart, a wide mediastinum, a raised hemidiaphragm."""
    heart = mediastinum = 1.0
    lift = {RIGHT: 0.0, LEFT: 0.0}
    for f in findings:
        if f.kind == "Cardiomegaly":
            heart = 1.10 + 0.50 * f.severity
        elif f.kind == "Enlarged Cardiomediastinum":
            mediastinum = 1.15 + 0.90 * f.severity
        elif f.kind == "Atelectasis" and f.form == "volume loss":
            lift[f.sides[0]] = 0.05 + 0.11 * f.severity
    return Changes(heart, mediastinum, lift[RIGHT], lift[LEFT])


def heart(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Where the enlarged heart lies; the enlargement itself is in `Changes`."""
    return chest.canvas.areas([chest.heart_shape])


def mediastinum(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Where the widened superior mediastinum lies; the widening itself is in `Changes`."""
    y = chest.canvas.y
    return chest.canvas.areas([chest.mediastinum_shape]) * ((y > -0.38) & (y < -0.04))


def raised_diaphragm(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Where volume loss has lifted the diaphragm into the lung; empty for plate atelectasis."""
    side, lift = f.sides[0], changes_of((f,))
    if f.form != "volume loss":
        return np.zeros_like(chest.attenuation)
    top = chest.domes[side]
    bottom = top + max(lift.lift_left, lift.lift_right) + 0.08
    x = (chest.front(top), chest.back(bottom)) if isinstance(chest, Lateral) else (0.05 * side, side * chest.wall(top))
    return chest.canvas.areas([np.array([(x[0], top), (x[1], top), (x[1], bottom), (x[0], bottom)])])


def _cloud(chest: Chest, x: float, y: float, radius: float, count: int, rng: np.random.Generator) -> Array:
    """Ill-defined cluster of soft blobs with a peak of about 1."""
    layer = chest.canvas.blob(x, y, radius, 0.85 * radius)
    for _ in range(count - 1):
        dx, dy = rng.normal(0, 0.75 * radius, 2)
        rx, ry = radius * rng.uniform(0.4, 0.9, 2)
        part = chest.canvas.blob(x + dx, y + dy, rx, ry, rng.uniform(0, 3))
        layer = np.maximum(layer, rng.uniform(0.6, 1.0) * part)
    return layer


def _spots(chest: Chest, f: Finding, rng: np.random.Generator, depth: float) -> list[tuple[int, float, float]]:
    return [(side, *chest.spot(side, f.zone, rng, depth)) for side in f.sides]


def opacity(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Hazy patch without sharp borders."""
    layer = np.zeros_like(chest.attenuation)
    for side, x, y in _spots(chest, f, rng, rng.uniform(0.35, 0.65)):
        layer += _cloud(chest, x, y, 0.062 + 0.04 * f.severity, 4, rng) * chest.lungs[side]
    grain = np.clip(1 + 0.15 * chest.canvas.texture(rng, 28), 0.5, 1.5)
    return (0.08 + 0.42 * f.severity) * layer * grain


def nodules(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Round well-defined nodules or a mass."""
    layer = np.zeros_like(chest.attenuation)
    radius = nodule_radius(f)
    for i in range(f.count):
        side = f.sides[i % len(f.sides)]
        zone = f.zone if i == 0 else str(rng.choice(["upper", "mid", "lower"]))
        x, y = chest.spot(side, zone, rng)
        r = radius * (1.0 if i == 0 else rng.uniform(0.7, 1.0))
        disc = chest.canvas.blob(x, y, 1.15 * r, 1.15 * r * rng.uniform(0.88, 1.0), rng.uniform(0, 3), power=3.5)
        layer = np.maximum(layer, disc)
    return (0.30 + 0.36 * f.severity) * layer


def nodule_radius(f: Finding) -> float:
    """Radius in thorax units; the image's side is about 40 cm."""
    return 0.031 + 0.03 * f.severity + (0.018 if f.severity > 0.8 else 0.0)


def edema(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Perihilar haze, cranialised vessels and Kerley lines on both sides."""
    canvas, strength = chest.canvas, f.severity
    haze = np.zeros_like(chest.attenuation)
    lines = []
    for side in (RIGHT, LEFT):
        if isinstance(chest, Lateral):
            haze = np.maximum(haze, canvas.blob(0.04, -0.02, 0.13, 0.15, power=1.5))
        else:
            haze += canvas.blob(side * 0.17, 0.0, 0.085, 0.16, 0.25 * side, power=1.5)
        for _ in range(9):  # septal lines: short, horizontal, at the periphery of the base
            y = chest.domes[side] + rng.uniform(-0.17, 0.0)
            x = chest.back(y) - 0.03 if isinstance(chest, Lateral) else side * chest.wall(y)
            step = -0.055 if isinstance(chest, Lateral) else -0.055 * side
            lines.append((np.array([(x, y), (x + step, y + rng.uniform(-0.008, 0.008))]), 0.005, 0.8))
        for angle in rng.uniform(-1.4, -0.5, 5):  # vessels of the upper lobe
            x0 = 0.03 if isinstance(chest, Lateral) else side * 0.09
            t = np.linspace(0, 0.22, 4)
            path = np.stack([x0 + side * t * np.cos(angle), -0.06 + t * np.sin(angle) + t**2], axis=1)
            lines.append((path, 0.011, 1.0))
    clumps = np.clip(1 + 0.45 * canvas.texture(rng, 18), 0.2, 2.0)
    reticular = canvas.strokes(lines, blur=0.002)
    return ((0.04 + 0.24 * strength) * haze * clumps + (0.05 + 0.15 * strength) * reticular) * chest.field


def consolidation(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Dense part of a lobe with a straight fissural border and air bronchograms."""
    canvas, side = chest.canvas, f.sides[0]
    extent = 0.55 + 0.45 * f.severity
    tilt, jitter = rng.uniform(-0.12, 0.12), rng.uniform(-0.02, 0.02)
    level = canvas.y + tilt * canvas.x + jitter
    if isinstance(chest, Lateral):
        x, y = chest.spot(side, f.zone, rng, 0.0)
        shape = canvas.blob(x, y, 0.13 * extent, 0.095 * extent, {"lower": 0.9, "mid": 0.5}.get(f.zone, 0.0), power=4)
    elif f.zone == "upper":
        shape = rise(-0.075 - level, 0.012) * rise(level + 0.10 + 0.24 * extent, 0.05)
    elif f.zone == "mid":
        shape = rise(level + 0.06, 0.012) * rise(0.06 + 0.08 * extent - level, 0.03)
        shape *= rise(0.16 + 0.16 * extent - side * canvas.x, 0.04)
    else:
        shape = rise(level - 0.20 + 0.19 * extent, 0.03)
    hilum = np.array([0.03 if isinstance(chest, Lateral) else side * 0.07, -0.05])
    tubes = []
    x, y = chest.spot(side, f.zone, rng, 0.5)
    for _ in range(4):
        tip = np.array([x, y]) + rng.normal(0, 0.06, 2)
        tubes.append((spline(np.array([hilum, 0.5 * (hilum + tip) + rng.normal(0, 0.012, 2), tip])), 0.011, 1.0))
    air = canvas.strokes(tubes, blur=0.003)
    patchy = np.clip(1 + 0.10 * canvas.texture(rng, 14), 0.6, 1.3)
    return (0.10 + 0.50 * f.severity) * shape * chest.lungs[side] * patchy * (1 - 0.5 * air)


def pneumonia(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Lobar consolidation, or several confluent dense patches."""
    if f.form == "lobar":
        return consolidation(chest, f, rng)
    layer = np.zeros_like(chest.attenuation)
    for side, x, y in _spots(chest, f, rng, 0.5):
        for _ in range(6):
            dx, dy = rng.normal(0, 0.055, 2)
            rx, ry = rng.uniform(0.022, 0.04, 2)
            patch = chest.canvas.blob(x + dx, y + dy, rx, ry, rng.uniform(0, 3), power=1.6)
            layer = np.maximum(layer, rng.uniform(0.75, 1.0) * patch * chest.lungs[side])
    mottle = np.clip(1 + 0.25 * chest.canvas.texture(rng, 40), 0.3, 1.6)
    return (0.10 + 0.50 * f.severity) * layer * mottle


def atelectasis(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Plate-like bands above the diaphragm; with volume loss a wedge above a raised dome."""
    strokes = []
    layer = np.zeros_like(chest.attenuation)
    for side in f.sides:
        x0, y0 = chest.spot(side, "lower", rng, 0.5)
        if f.form == "volume loss":
            base = chest.domes[side]
            layer += 0.35 * chest.canvas.blob(x0, base, 0.13, 0.035, 0.15 * side, power=2) * chest.lungs[side]
        for i in range(1 if f.form == "volume loss" else int(rng.integers(1, 4))):
            y = y0 + 0.03 - 0.05 * i + rng.uniform(-0.01, 0.01)
            length, slope = rng.uniform(0.05, 0.09) + 0.04 * f.severity, rng.uniform(-0.45, 0.45)
            t = np.array([-1.0, 0.0, 1.0])
            x = x0 + rng.uniform(-0.04, 0.04)
            path = np.stack([x + length * t, y + slope * length * t + 0.012 * t**2], axis=1)
            strokes.append((spline(path), 0.013 + 0.010 * f.severity, 1.0))
    plates = chest.canvas.strokes(strokes, blur=0.003) * chest.field
    return (0.16 + 0.38 * f.severity) * np.maximum(plates, layer)
