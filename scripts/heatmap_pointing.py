"""Does a heat-map point at what is drawn? The pointing game (Zhang et al. 2016) on phantom images with one finding.

    python scripts/heatmap_pointing.py outputs/demo/checkpoints/best.pt

A hit is a map whose peak lies in the finding's box. Beside it stand the mean share of the image that the box takes (a
peak anywhere), and the hits of the same image's maps of all other labels (a model that always looks at the lungs).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrcl.commands.entry import Parser, guarded
from cxrcl.data.phantom.anatomy import Body, Pose
from cxrcl.data.phantom.render import render
from cxrcl.data.phantom.study import PATHOLOGIES, Study, sample_finding
from cxrcl.errors import ConfigError
from cxrcl.inference import heatmaps, predict
from cxrcl.inference.explaining import label_scores, peak
from cxrcl.inference.questions import Questions, answerer_for
from cxrcl.objectives.gloria import Gloria

Box = tuple[float, float, float, float]
KINDS = ("labels", "grad_cam", "attention")


def draw_images(number: int, size: int, seed: int) -> list[tuple[np.ndarray, str, str, Box]]:
    """(uint8 [size, size], label, phrase, box) of frontal images with one affirmed finding, labels in turn."""
    images = []
    for k in range(number):
        kind = PATHOLOGIES[k % len(PATHOLOGIES)]
        rng = np.random.default_rng([seed, k])
        body, pose = Body.sample(rng), Pose.sample(rng, "PA", 0.4)
        finding = sample_finding(kind, rng)
        while not finding.certain:
            finding = sample_finding(kind, rng)
        image, drawn = render(Study("p", "s", 1, body, (finding,), ("PA",), 0.4), pose, size)
        box = drawn[0].box
        assert box is not None
        words = [word for word in (finding.side, finding.zone) if word]
        images.append((image, kind, " ".join([*words, kind.lower()]), box))
    return images


def grids(loaded: predict.LoadedModel, images: list[Any], kind: str) -> dict[str, np.ndarray]:
    """Maps [N, h, w] of all images for each label, or with attention for each phrase."""
    model: Any = loaded.model
    squares = torch.cat(list(_squares(loaded, [image for image, *_ in images])))
    if kind == "attention":
        if not isinstance(model, Gloria):
            raise ConfigError(f"--map attention: {type(model).__name__} has no attention of words; use --map labels")
        phrases = sorted({phrase for _, _, phrase, _ in images})
        return {phrase: heatmaps.attention(model, squares, phrase)[0][:, 0].numpy() for phrase in phrases}
    answerer = answerer_for(model, loaded.recipe, Questions(labels=list(PATHOLOGIES)), loaded.device)
    scores = label_scores(model, answerer, squares)
    if kind == "grad_cam":
        maps, layer = heatmaps.grad_cam(model, scores, squares)
        name = f"Grad-CAM at {layer}"
    else:
        maps, name = heatmaps.explain(model, scores, squares)
    print(f"map: {name}; {maps.shape[2]} x {maps.shape[3]} cells")
    return dict(zip(PATHOLOGIES, maps.numpy().swapaxes(0, 1), strict=True))


def _squares(loaded: predict.LoadedModel, images: list[np.ndarray]) -> Any:
    for square in loaded.map_images(images, 32, lambda batch: batch[:, None]):
        if isinstance(square, Exception):
            raise square
        yield square


def main() -> None:
    parser = Parser(prog="heatmap_pointing.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="a .pt file of a training, or an exported folder"
    )
    parser.add_argument("--images", "--films", type=int, default=600, help="how many to draw (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=12345, help="of the images, which no training saw (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=96, help="of the images, in pixels (default: %(default)s)")
    parser.add_argument("--map", choices=KINDS, default="labels", help="labels: what inference.py draws for labels")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    loaded = predict.load_model(given.checkpoint, torch.device("cpu"), precision="fp32")
    images = draw_images(given.images, given.size, given.seed)
    with loaded.inference_mode():
        maps = grids(loaded, images, given.map)
    crop = loaded.transform.evaluation_crop(given.size, given.size)

    def hit(cells: np.ndarray, box: Box) -> bool:
        x, y = peak(cells, crop, given.size, given.size)
        return box[0] <= x <= box[2] and box[1] <= y <= box[3]

    rows: dict[str, list[tuple[float, float, float]]] = {label: [] for label in PATHOLOGIES}
    for k, (_, label, phrase, box) in enumerate(images):
        own = phrase if given.map == "attention" else label
        others = [hit(maps[name][k], box) for name in maps if name != own and not name.endswith(label.lower())]
        area = (box[2] - box[0]) * (box[3] - box[1])
        rows[label].append((hit(maps[own][k], box), area, float(np.mean(others))))
    figures = {label: [float(v) for v in np.mean(found, axis=0)] for label, found in rows.items() if found}
    every = np.mean([row for found in rows.values() for row in found], axis=0)
    print(f"{'label':28s}  hits  area of box  hits of other labels' maps")
    for label, (hits, area, other) in [*figures.items(), ("all", every)]:
        print(f"{label:28s}  {hits:.3f}  {area:.3f}        {other:.3f}")
    half = 1.96 * math.sqrt(every[0] * (1 - every[0]) / len(images))
    print(f"{len(images)} images; 95 % interval of all hits {every[0] - half:.3f} to {every[0] + half:.3f}")
    if given.json is not None:
        content = {"images": len(images), "map": given.map, "all": [float(v) for v in every], "labels": figures}
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    guarded(main)
