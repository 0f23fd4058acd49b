"""Findings of the pleura and the bones, as layers added to the attenuation of a normal chest (see `lesions`)."""

from __future__ import annotations

import numpy as np

from .anatomy import bands
from .canvas import Array, rise, spline
from .frontal import Frontal
from .lateral import Lateral
from .lesions import Chest
from .study import Finding


def _rim(chest: Chest, side: int, offset: Array, ys: Array) -> Array:
    """Curve [n, 2] inside the chest wall at distance `offset`; on a lateral image the front (right) or back wall."""
    if isinstance(chest, Frontal):
        return np.stack([side * (chest.wall(ys) - offset), ys], axis=1)
    return np.stack([chest.front(ys) + offset if side < 0 else chest.back(ys) - offset, ys], axis=1)


def pneumothorax(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Lucent rim without markings outside a thin pleural line; the lung collapses inwards as it grows."""
    canvas, side = chest.canvas, f.sides[0]
    h = chest.body.height
    end = -0.05 + 0.30 * f.severity
    ys = np.linspace(-0.37 * h, end, 9)
    t = np.linspace(0, 1, 9)
    depth = (0.045 + 0.085 * f.severity) * (1 - t**2.5) + 0.004
    line = _rim(chest, side, depth, ys)
    if isinstance(chest, Lateral):
        top = np.array([(0.05, -0.385 * h + depth[0])])
    else:
        top = np.array([(side * 0.08, -0.385 * h + depth[0])])
    inner = spline(np.concatenate([top, line[1:]]))
    outer = _rim(chest, side, np.full(9, -0.03), ys)
    crown = np.array([(outer[0, 0], -0.48), (top[0, 0] - (0.0 if isinstance(chest, Lateral) else 0.03 * side), -0.48)])
    outside = canvas.areas([np.concatenate([inner, outer[::-1], crown])], blur=0.003) * chest.lungs[side]
    edge = canvas.strokes([(inner, 0.009, 1.0)], blur=0.001) * chest.lungs[side]
    lost = np.minimum(chest.vessels + 0.13 + 0.12 * f.severity, np.maximum(chest.attenuation, 0))
    return (0.14 + 0.36 * f.severity) * edge - outside * (1 - edge) * lost


def effusion(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Fluid with a meniscus that climbs the wall; a veil over the lung on a supine image."""
    canvas = chest.canvas
    layer = np.zeros_like(chest.attenuation)
    for side in f.sides if isinstance(chest, Frontal) else f.sides[:1]:
        height = 0.035 + 0.25 * f.severity**1.3
        if isinstance(chest, Lateral):
            foot = chest.floor(side)[-1, 1]
            back = chest.back(canvas.y)
            climb = np.clip(1 - (back - canvas.x) / 0.16, 0, 1)
            surface = foot - 0.05 - height * (0.55 + 0.6 * climb**2)
            reach = 1.0 if f.severity > 0.6 else np.clip((canvas.x + 0.05) / 0.1, 0, 1)
        else:
            out = np.clip((side * canvas.x) / chest.wall(0.2), 0, 1.1)
            surface = chest.domes[side] + 0.05 - height * (0.55 + 0.75 * out**4) - 0.03 * (out > 0.8) * f.severity
            reach = 1.0
        fluid = (0.15 + 0.47 * min(f.severity + 0.25, 1)) * (rise(canvas.y - surface, 0.014) * reach)
        if chest.pose.view == "AP":
            fluid += 0.16 * f.severity * np.clip(0.5 + 1.8 * canvas.y, 0, 1) * (fluid < 0.3)
        layer += fluid * chest.lungs[side]
    # fluid hides the border of the heart instead of adding to it
    return layer * (1 - 0.75 * canvas.areas([chest.heart_shape], blur=0.006))


def pleural_other(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Lumpy thickening along the wall, an apical cap, or calcified plaques."""
    canvas, h = chest.canvas, chest.body.height
    layer = np.zeros_like(chest.attenuation)
    for side in f.sides:
        if f.form == "plaques":
            strokes = []
            for _ in range(5):
                x, y = chest.spot(side, str(rng.choice(["mid", "lower"])), rng)
                bend = np.cumsum(rng.normal(0, 0.022, (5, 2)), axis=0)
                width, value = 0.015 + 0.008 * f.severity, float(rng.uniform(0.8, 1))
                strokes.append((spline(np.array([x, y]) + bend), width, value))
            if isinstance(chest, Frontal):  # and one along the dome
                t = np.linspace(0.3, 0.8, 5)
                rim = chest.domes[side] - 0.012 + 0.12 * (t - 0.5) ** 2
                strokes.append((spline(np.stack([side * t * chest.wall(0.2), rim], axis=1)), 0.014, 1.0))
            layer += canvas.strokes(strokes, blur=0.002) * chest.lungs[side]
            continue
        ys = np.linspace(-0.42 * h, -0.30 * h, 8) if f.form == "apical cap" else np.linspace(-0.22, 0.20, 8) * h
        swell = np.sin(np.linspace(0.2, np.pi - 0.1, 8)) * rng.uniform(0.75, 1.2, 8)
        depth = (0.030 + 0.048 * f.severity) * swell
        if f.form == "apical cap":
            lower = -0.358 + 0.07 * f.severity + 0.015 * canvas.texture(rng, 14)
            band = rise(lower * h - canvas.y, 0.008).astype(np.float32)
        else:
            shape = np.concatenate([_rim(chest, side, depth, ys), _rim(chest, side, np.full(8, -0.03), ys)[::-1]])
            band = canvas.areas([shape], blur=0.003)
        layer += band * chest.lungs[side]
    return (0.28 + 0.42 * f.severity) * layer


def fracture(chest: Chest, f: Finding, rng: np.random.Generator) -> Array:
    """Broken bones: a gap and a step between the fragments, or knobs of callus on healing ribs."""
    side, canvas = f.sides[0], chest.canvas
    if f.form == "clavicle" and isinstance(chest, Frontal):
        lines, gain, width, where = [chest.clavicle(side)], 0.22, 0.027, 0.5
    else:
        first = {"upper": 1, "mid": 3, "lower": 5}[f.zone]
        lines = [chest.ribs[side][min(first + i, 7)] for i in range(max(f.count, 2))]
        gain, width, where = 0.125 if isinstance(chest, Frontal) else 0.085, 0.024, rng.uniform(0.6, 0.75)
    strength = 0.35 + 0.75 * f.severity
    removed, pieces = [], []
    knobs = np.zeros_like(chest.attenuation)
    for line in lines:
        cut = int(np.clip(where + rng.uniform(-0.04, 0.04), 0.3, 0.8) * len(line))
        along = line[cut + 1] - line[cut - 1]
        normal = np.array([-along[1], along[0]]) / np.hypot(*along)
        normal *= np.sign(normal[1])  # the outer fragment drops
        if f.form == "healing rib":
            x, y = line[cut]
            knobs += canvas.blob(x, y, 0.022 + 0.008 * strength, 0.020 + 0.006 * strength, power=2)
            continue
        inner = line[max(cut - 4, 0) : cut + 1]
        outer = line[cut : cut + 6] + strength * (0.038 * normal - 0.008 * along / np.hypot(*along))
        removed.append(line[max(cut - 4, 0) : cut + 6])
        pieces += [inner, outer]
        for x, y in (inner[-1], outer[0]):  # broken ends look dense
            knobs += 0.8 * canvas.blob(x, y, 0.012, 0.014, power=2)
    layer = (0.25 + 0.40 * f.severity) * np.minimum(knobs, 1.0)
    if pieces:
        sharp = canvas.strokes(bands(pieces, width, 0.8), blur=0.002)
        layer += (gain + 0.40 * strength) * sharp - gain * canvas.strokes(bands(removed, width, 0.8), blur=0.002)
    return layer
