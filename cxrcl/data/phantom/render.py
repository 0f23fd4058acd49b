"""One image of one study: normal anatomy deformed and overlaid by the findings, then exposed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import devices, lesions, pleura
from .anatomy import Pose, expose
from .canvas import Array
from .frontal import Frontal
from .lateral import Lateral
from .study import Finding, Study

_OVERSAMPLE = 1.5
_DRAW = {
    "Lung Opacity": lesions.opacity,
    "Lung Lesion": lesions.nodules,
    "Edema": lesions.edema,
    "Consolidation": lesions.consolidation,
    "Pneumonia": lesions.pneumonia,
    "Atelectasis": lesions.atelectasis,
    "Pneumothorax": pleura.pneumothorax,
    "Pleural Effusion": pleura.effusion,
    "Pleural Other": pleura.pleural_other,
    "Fracture": pleura.fracture,
    "Support Devices": devices.device,
}
_DEFORMED = {  # where a finding has changed the anatomy itself
    "Cardiomegaly": lesions.heart,
    "Enlarged Cardiomediastinum": lesions.mediastinum,
    "Atelectasis": lesions.raised_diaphragm,
}


def render(study: Study, pose: Pose, size_px: int) -> tuple[Array, list[Finding]]:
    """Image uint8 [size_px, size_px] and the findings with their boxes on it; nothing outside the image is listed."""
    canvas = pose.canvas(round(_OVERSAMPLE * size_px))
    view = Lateral if pose.view == "Lateral" else Frontal
    chest = view(canvas, study.body, pose, lesions.changes_of(study.findings))
    image, drawn = chest.attenuation.copy(), []
    for finding in study.findings:
        rng = np.random.default_rng(finding.seed)
        extent = np.zeros_like(image)
        if finding.kind in _DRAW:
            extent = _DRAW[finding.kind](chest, finding, rng)
            image += extent
        if finding.kind in _DEFORMED:
            peak = max(float(np.abs(extent).max()), 1e-3)
            extent = np.maximum(np.abs(extent), peak * _DEFORMED[finding.kind](chest, finding, rng))
        if (box := canvas.box(extent)) is not None:
            drawn.append(replace(finding, box=box))
    return expose(image, pose, size_px), drawn
