"""What a study holds: which findings a patient has, where, how severe, and how they change between studies.

A finding is *certain* (the report affirms it, label 1) or *hedged* (drawn faintly, label -1). Pathologies are drawn
from a primary finding, its usual companions and now and then an unrelated one, so every label also occurs alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..labels import CHEXPERT as LABELS
from .anatomy import Body
from .canvas import Box

PATHOLOGIES = LABELS[1:13]


@dataclass(frozen=True)
class Finding:
    """One drawn finding.

    `side` is left, right, bilateral or empty; `zone` upper, mid, lower, apical or empty; `severity` 0..1; `form` the
    variety drawn (a device, a kind of fracture ...); `box` its place (x0, y0, x1, y1) in 0..1 of one drawn image.
    """

    kind: str
    side: str = ""
    zone: str = ""
    severity: float = 1.0
    form: str = ""
    certain: bool = True
    trend: str = ""  # against the previous study: new, larger, smaller, same or empty
    count: int = 1
    seed: int = 0
    box: Box | None = None

    @property
    def sides(self) -> tuple[int, ...]:
        """Signs of x on a frontal image: -1 the patient's right, +1 the left."""
        return {"right": (-1,), "left": (1,), "bilateral": (-1, 1)}.get(self.side, (1,))


@dataclass(frozen=True)
class Study:
    """One examination: its findings and the views taken. `breath` -1..1 is the depth of inspiration."""

    patient: str
    study: str
    number: int
    body: Body
    findings: tuple[Finding, ...]
    views: tuple[str, ...]
    breath: float

    def of(self, kind: str) -> tuple[Finding, ...]:
        """Findings of one label."""
        return tuple(f for f in self.findings if f.kind == kind)


# weight of a pathology as the primary one, and the companions that come with it
_PRIMARY = {
    "Enlarged Cardiomediastinum": 1.25,
    "Cardiomegaly": 0.8,
    "Lung Opacity": 0.9,
    "Lung Lesion": 1.4,
    "Edema": 1.3,
    "Consolidation": 1.0,
    "Pneumonia": 1.1,
    "Atelectasis": 1.0,
    "Pneumothorax": 1.4,
    "Pleural Effusion": 1.1,
    "Pleural Other": 1.3,
    "Fracture": 1.3,
}
_COMPANIONS = {
    "Cardiomegaly": {"Pleural Effusion": 0.2, "Edema": 0.2},
    "Edema": {"Cardiomegaly": 0.4, "Pleural Effusion": 0.3},
    "Pleural Effusion": {"Atelectasis": 0.25, "Cardiomegaly": 0.12},
    "Consolidation": {"Pleural Effusion": 0.2},
    "Pneumonia": {"Pleural Effusion": 0.15},
    "Pneumothorax": {"Fracture": 0.15, "Atelectasis": 0.1},
    "Fracture": {"Pneumothorax": 0.12, "Pleural Effusion": 0.1},
    "Atelectasis": {"Pleural Effusion": 0.15},
    "Lung Lesion": {"Enlarged Cardiomediastinum": 0.12},
}
_LASTING = {"Enlarged Cardiomediastinum", "Cardiomegaly", "Pleural Other", "Fracture"}
_OPPOSITE = {"left": "right", "right": "left"}
_AIRSPACE = {"Lung Opacity", "Consolidation", "Pneumonia"}


def patient_studies(seed: int, patient: int) -> Iterator[Study]:
    """The 1-3 studies of a patient, in order of time."""
    rng = np.random.default_rng([seed, patient])
    body = Body.sample(rng)
    total = int(rng.choice([1, 2, 3], p=[0.6, 0.28, 0.12]))
    findings: tuple[Finding, ...] = ()
    for number in range(1, total + 1):
        rng = np.random.default_rng([seed, patient, number])
        findings = _evolve(findings, rng) if number > 1 else _first(rng)
        sick = sum(f.kind in {"Edema", "Pneumothorax", "Pleural Effusion"} for f in findings)
        portable = rng.random() < 0.08 + 0.14 * min(sick, 2)
        findings += _devices(findings, portable, rng)
        low = rng.random() < 0.15 + 0.15 * portable
        breath = rng.uniform(-1.0, -0.6) if low else rng.uniform(-0.2, 1.0)
        name = f"p{patient:05d}"
        yield Study(name, f"{name}_s{number}", number, body, findings, _views(portable, rng), float(breath))


def _views(portable: bool, rng: np.random.Generator) -> tuple[str, ...]:
    if portable:
        return ("AP", "AP") if rng.random() < 0.06 else ("AP",)
    options = [("PA",), ("PA", "Lateral"), ("Lateral",), ("PA", "PA"), ("AP", "Lateral")]
    return options[rng.choice(5, p=[0.49, 0.42, 0.03, 0.03, 0.03])]


def _first(rng: np.random.Generator) -> tuple[Finding, ...]:
    if rng.random() < 0.34:
        return ()
    names = list(_PRIMARY)
    weights = np.array(list(_PRIMARY.values()))
    kinds = [names[rng.choice(len(names), p=weights / weights.sum())]]
    kinds += [k for k, p in _COMPANIONS.get(kinds[0], {}).items() if rng.random() < p]
    for _ in range(rng.choice(3, p=[0.25, 0.45, 0.3])):
        kinds.append(names[rng.choice(len(names), p=weights / weights.sum())])
    return settle([sample_finding(k, rng) for k in dict.fromkeys(kinds)])


def _evolve(before: tuple[Finding, ...], rng: np.random.Generator) -> tuple[Finding, ...]:
    kept = []
    for old in before:
        if old.kind == "Support Devices" or rng.random() > (0.92 if old.kind in _LASTING else 0.65):
            continue
        change = 0.0 if old.kind in {"Fracture", "Pleural Other"} else rng.choice([-0.3, 0.0, 0.3], p=[0.3, 0.4, 0.3])
        severity = float(np.clip(old.severity + change, 0.3, 1.0)) if old.certain else old.severity
        step = severity - old.severity
        trend = "larger" if step > 0.15 else "smaller" if step < -0.15 else "same"
        kept.append(replace(old, severity=severity, trend=trend))
    kinds_before = {f.kind for f in before}
    if rng.random() < 0.6:
        extra = [f for f in _first(rng) if f.kind not in kinds_before]
        kept += [replace(f, trend="new") for f in extra]
    return settle(kept)


def settle(findings: list[Finding]) -> tuple[Finding, ...]:
    """Drop what cannot be told apart: a second airspace disease, or air and fluid in the same pleural space."""
    kept: list[Finding] = []
    for f in findings:
        if f.kind in _AIRSPACE and any(k.kind in _AIRSPACE for k in kept):
            continue
        rivals = [k for k in kept if {"Pneumothorax"} < {k.kind, f.kind} and (k.kind + f.kind).count("Pleural")]
        if rivals and "bilateral" in {f.side, rivals[0].side}:
            continue
        kept.append(replace(f, side=_OPPOSITE[rivals[0].side]) if rivals else f)
    return tuple(kept)


def sample_finding(kind: str, rng: np.random.Generator) -> Finding:
    """A pathology with random side, zone, severity and form; about one in eight is faint and hedged."""
    certain = rng.random() > 0.13
    severity = float(rng.uniform(0.4, 1.0) if certain else rng.uniform(0.08, 0.25))
    side, zone, form, count = _side(rng, 0.0), "", "", 1
    if kind == "Enlarged Cardiomediastinum" or kind == "Cardiomegaly":
        side = ""
    elif kind == "Edema":
        side = "bilateral"
    elif kind == "Lung Opacity":
        side, zone = _side(rng, 0.25), str(rng.choice(["upper", "mid", "lower"]))
    elif kind == "Lung Lesion":
        zone, count = str(rng.choice(["upper", "mid", "lower"])), int(rng.choice([1, 2, 4], p=[0.6, 0.2, 0.2]))
        side = "bilateral" if count == 4 else side
    elif kind == "Consolidation":
        zone = str(rng.choice(["upper", "mid", "lower"], p=[0.35, 0.2, 0.45]))
    elif kind == "Pneumonia":
        side, zone = _side(rng, 0.25), str(rng.choice(["upper", "mid", "lower"], p=[0.25, 0.25, 0.5]))
        form = str(rng.choice(["patchy", "lobar"], p=[0.6, 0.4]))
        side = side if form == "patchy" else _side(rng, 0.0)
    elif kind == "Atelectasis":
        side, zone, form = _side(rng, 0.35), "lower", str(rng.choice(["linear", "volume loss"], p=[0.75, 0.25]))
        side = side if form == "linear" else _side(rng, 0.0)
    elif kind == "Pneumothorax":
        zone = "apical"
    elif kind == "Pleural Effusion":
        side, zone = _side(rng, 0.3), "lower"
    elif kind == "Pleural Other":
        form = str(rng.choice(["thickening", "apical cap", "plaques"], p=[0.5, 0.2, 0.3]))
        side = _side(rng, 0.4) if form != "thickening" else side
        zone = "apical" if form == "apical cap" else "lower" if form == "plaques" else "mid"
    elif kind == "Fracture":
        form = str(rng.choice(["rib", "healing rib", "clavicle"], p=[0.5, 0.25, 0.25]))
        zone = "upper" if form == "clavicle" else str(rng.choice(["upper", "mid", "lower"]))
        count = int(rng.choice([2, 3, 4])) if form != "clavicle" else 1
    seed = int(rng.integers(2**31))
    return Finding(kind, side, zone, severity, form, certain, count=count, seed=seed)


def _side(rng: np.random.Generator, both: float) -> str:
    return "bilateral" if rng.random() < both else str(rng.choice(["right", "left"]))


def _devices(findings: tuple[Finding, ...], portable: bool, rng: np.random.Generator) -> tuple[Finding, ...]:
    air = [f for f in findings if f.kind == "Pneumothorax"]
    fluid = [f for f in findings if f.kind == "Pleural Effusion" and f.certain]
    forms: list[tuple[str, str]] = []
    if portable:
        forms += [("endotracheal tube", "")] * (rng.random() < 0.3)
        forms += [("central line", _side(rng, 0))] * (rng.random() < 0.35)
        forms += [("nasogastric tube", "")] * (rng.random() < 0.25)
        forms += [("ECG leads", "")] * (rng.random() < 0.25)
    else:
        forms += [("port", _side(rng, 0))] * (rng.random() < 0.05)
    forms += [("pacemaker", "left" if rng.random() < 0.85 else "right")] * (rng.random() < 0.045)
    forms += [("sternal wires", "")] * (rng.random() < 0.05)
    if (air or fluid) and rng.random() < 0.25:
        side = (air or fluid)[0].side
        forms.append(("chest tube", _side(rng, 0) if side == "bilateral" else side))
    return tuple(Finding("Support Devices", s, form=form, seed=int(rng.integers(2**31))) for form, s in forms)
