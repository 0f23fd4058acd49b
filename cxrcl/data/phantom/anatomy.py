"""The patient and how an image of the patient is taken: body, pose and the image's response."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import Array, Canvas

RIGHT, LEFT = -1, 1  # the patient's sides as signs of x on a frontal image
CARINA_Y = -0.13  # where the trachea divides


@dataclass(frozen=True)
class Body:
    """What stays the same in all images of one patient. Ratios are relative to the average adult."""

    sex: str
    age: int
    habitus: float  # -1 thin .. 1 obese
    width: float
    height: float
    heart: float
    aorta: float  # size of the aortic knob; > 1.25 reads as tortuous
    scoliosis: float  # sideways bow of the spine, thorax units
    rib_slope: float
    rib_pitch: float
    breast: float  # 0 none .. 1 large
    vessels_seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Body:
        age = int(np.clip(rng.normal(58, 18), 18, 94))
        sex = "F" if rng.random() < 0.47 else "M"
        bow = rng.uniform(0.03, 0.06) * rng.choice((-1, 1)) if rng.random() < 0.14 else rng.uniform(-0.01, 0.01)
        return cls(
            sex=sex,
            age=age,
            habitus=float(np.clip(rng.normal(0, 0.5), -1, 1)),
            width=float(rng.uniform(0.90, 1.10) * (0.96 if sex == "F" else 1.02)),
            height=float(rng.uniform(0.92, 1.08)),
            heart=float(rng.uniform(0.86, 1.10)),
            aorta=float(rng.uniform(0.75, 1.1) + (0.45 if rng.random() < (age - 40) / 120 else 0.0)),
            scoliosis=float(bow),
            rib_slope=float(rng.uniform(0.75, 1.3)),
            rib_pitch=float(rng.uniform(0.92, 1.08)),
            breast=float(rng.uniform(0.25, 1.0)) if sex == "F" else 0.0,
            vessels_seed=int(rng.integers(2**31)),
        )


@dataclass(frozen=True)
class Pose:
    """What differs from image to image: view, position, breath and exposure."""

    view: str  # PA, AP or Lateral
    angle: float  # degrees
    scale: float
    shift: tuple[float, float]
    turn: float  # rotation about the long axis, -1 .. 1
    breath: float  # -1 shallow .. 1 deep
    density: float
    contrast: float
    brightness: float
    gamma: float
    noise: float
    blur_px: float  # at 96 px
    shading: float
    seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator, view: str, breath: float) -> Pose:
        portable = view == "AP"
        spread = 1.25 if portable else 1.0
        return cls(
            view=view,
            angle=float(np.clip(rng.normal(0, 3.6 * spread), -8, 8)),
            scale=float(rng.uniform(0.90, 1.14)),
            shift=(float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.055, 0.055))),
            turn=float(np.clip(rng.normal(0, 0.4 * spread), -1, 1)),
            breath=float(np.clip(breath + rng.normal(0, 0.15) - 0.35 * portable, -1, 1)),
            density=float(rng.uniform(0.8, 1.7)),
            contrast=float(rng.uniform(0.85, 1.2)),
            brightness=float(rng.uniform(-0.10, 0.08)),
            gamma=float(rng.uniform(0.8, 1.3)),
            noise=float(rng.uniform(0.008, 0.026)),
            blur_px=float(rng.uniform(0.2, 0.55)),
            shading=float(rng.uniform(0.0, 0.10)),
            seed=int(rng.integers(2**31)),
        )

    def canvas(self, size_px: int) -> Canvas:
        """Canvas whose matrix places the thorax as this pose does."""
        radians, zoom = np.deg2rad(self.angle), self.scale * size_px
        c, s = zoom * np.cos(radians), zoom * np.sin(radians)
        centre = size_px * (0.5 + np.array(self.shift))
        return Canvas(size_px, np.array([[c, -s, centre[0]], [s, c, centre[1]]]))


@dataclass(frozen=True)
class Changes:
    """How findings deform the normal anatomy before anything is drawn."""

    heart: float = 1.0
    mediastinum: float = 1.0
    lift_right: float = 0.0  # rise of a hemidiaphragm, thorax units
    lift_left: float = 0.0


def bands(lines: list[Array], width: float, hollow: float = 0.7) -> list[tuple[Array, float, float]]:
    """Strokes of tubular bones with these centre lines, [n, 2] each: bright cortex, darker marrow."""
    return [(p, width, 1.0) for p in lines] + [(p, 0.45 * width, hollow) for p in lines]


def expose(attenuation: Array, pose: Pose, size_px: int) -> Array:
    """uint8 image [size_px, size_px] of an attenuation map float32 [n, n], n >= size_px."""
    rng = np.random.default_rng([pose.seed, 1])
    mu = cv2.resize(attenuation, [size_px, size_px], interpolation=cv2.INTER_AREA)
    image = 1.0 - np.exp(-pose.density * np.maximum(mu, 0.0))
    top = 1.0 - np.exp(-pose.density * 1.4)
    axis = np.linspace(-1, 1, size_px, dtype=np.float32)
    heading = rng.uniform(0, 2 * np.pi)
    ramp = np.float32(np.cos(heading)) * axis[None, :] + np.float32(np.sin(heading)) * axis[:, None]
    image = np.power(np.clip(image / top, 0, 1), pose.gamma)
    image = 0.47 + pose.contrast * (image - 0.47) + pose.brightness + pose.shading * ramp
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), pose.blur_px * size_px / 96)
    white = rng.standard_normal((2, size_px, size_px), dtype=np.float32)
    grain = cv2.GaussianBlur(white[1], (0, 0), 0.9)
    image += np.float32(pose.noise) * (0.7 * white[0] + 1.3 * grain)
    return _frame(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), pose, rng)


def _frame(image: Array, pose: Pose, rng: np.random.Generator) -> Array:
    """Draw a collimation border and a side marker on an image uint8 [size_px, size_px], in place."""
    n = image.shape[0]
    if rng.random() < 0.3:
        left, right, top, bottom = (int(n * v) for v in rng.uniform(0.0, 0.06, 4))
        image[:, :left] = image[:, n - right :] = 0
        image[:top] = image[n - bottom :] = 0
    if rng.random() < 0.45:
        letter = "L" if pose.view == "Lateral" or rng.random() < 0.6 else "R"
        x = 0.04 if letter == "R" else 0.89
        spot = (int(n * (x + rng.uniform(-0.01, 0.02))), int(n * rng.uniform(0.10, 0.2)))
        cv2.putText(image, letter, spot, cv2.FONT_HERSHEY_SIMPLEX, n / 330, 245, max(n // 96, 1), cv2.LINE_AA)
    return image
