"""Sections on retrieval and on the common space."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cxrcl.evaluation.report.content import ClassSimilarity, Metrics, Page
from cxrcl.evaluation.report.page import plot_space
from cxrcl.evaluation.report.page.html import Html, join, shown, table, tag, void
from cxrcl.evaluation.report.page.pictures import data_uri

if TYPE_CHECKING:
    from cxrcl.evaluation.examples import Example

WAYS = {"image_to_text": "image → text", "text_to_image": "text → image"}


def retrieval(page: Page) -> Html:
    """Recall and precision with their chance, and some images with the texts retrieved for them."""
    parts: list[object] = []
    by_name = {
        page.of(checkpoint.name, evaluator): metrics
        for checkpoint in page.checkpoints
        for evaluator, metrics in checkpoint.metrics.items()
        if _at(metrics, "r")
    }
    if by_name:
        recalls = sorted({k for metrics in by_name.values() for k in _at(metrics, "r")})
        precisions = sorted({k for metrics in by_name.values() for k in _at(metrics, "p")})
        rows = [
            [f"{name}, {title}", *_cells(metrics, way, recalls, precisions)]
            for name, metrics in by_name.items()
            for way, title in WAYS.items()
        ]
        head = ["", *(f"R@{k}" for k in recalls), "median rank", "mean rank", "of"]
        if precisions:
            head += [*(f"P@{k}" for k in precisions), "chance of P"]
        parts.append(table("Retrieval; in brackets the expectation of a random order", head, rows))
    for checkpoint in page.proper:
        for evaluator, examples in checkpoint.examples.items():
            if examples:
                parts.append(
                    tag("h3", f"Images and the texts retrieved for them ({page.of(checkpoint.name, evaluator)})")
                )
                parts.append(tag("div", *map(_example, examples), class_="examples"))
    return join(parts)


def _at(metrics: Metrics, letter: str) -> list[int]:
    """The k of recall (r) or precision (p) at k."""
    matches = (re.fullmatch(rf"(?:{'|'.join(WAYS)})/{letter}(\d+)", key) for key in metrics)
    return sorted({int(match[1]) for match in matches if match})


def _cells(metrics: Metrics, way: str, recalls: list[int], precisions: list[int]) -> list[object]:
    cells: list[object] = []
    for k in recalls:
        chance = tag("span", f"({shown(metrics.get(f'{way}/chance_r{k}'))})", class_="ci")
        cells.append(tag("td", shown(metrics.get(f"{way}/r{k}")), " ", chance))
    cells += [shown(metrics.get(f"{way}/{name}"), 1) for name in ("median_rank", "mean_rank")]
    cells.append(shown(metrics.get(f"{way}/gallery"), 0))
    if precisions:
        cells += [shown(metrics.get(f"{way}/p{k}")) for k in precisions]
        cells.append(shown(metrics.get(f"{way}/chance_p")))
    return cells


def _example(one: Example) -> Html:
    right = one.rank == 1
    picture = void("img", src=data_uri("image/png", one.png), alt=f"Image {one.image}")
    rank = tag("span", f"rank {one.rank}", class_="right" if right else "wrong")
    texts = [
        tag("li", f"{cosine:.3f} ", tag("span", "its own text", class_="right") if text == one.text else text)
        for text, cosine in one.retrieved
    ]
    own_text = tag("div", tag("p", "Own text: ", rank, f", cosine {one.similarity:.3f}"), tag("p", one.text))
    return tag("article", picture, tag("h4", one.image), own_text, tag("ol", *texts), class_="example")


def similarity(page: Page) -> Html:
    """How alike the prompts of classes are, now and before training."""
    parts: list[object] = []
    for checkpoint in page.proper:
        for evaluator, space in checkpoint.spaces.items():
            maps = [("trained", ClassSimilarity(space.classes, space.similarity))]
            if evaluator in checkpoint.at_start:
                maps.append(("initial", checkpoint.at_start[evaluator]))
            heading = [tag("h3", page.of(checkpoint.name, evaluator))] if len(page.proper) > 1 else []
            parts += [*heading, plot_space.similarities(maps)]
    about = "Cosines between the mean directions of the positive prompts of two classes; 1: not told apart."
    return join([tag("p", about, class_="about"), *parts]) if parts else Html("")


def geometry(page: Page) -> Html:
    """Modality gap, alignment and uniformity, and projections of images and texts."""
    by_name = {
        page.of(one.name, evaluator): one.metrics.get(evaluator, {})
        for one in page.checkpoints
        for evaluator in one.spaces
    }
    if not by_name:
        return Html("")
    names = [name for name in next(iter(by_name.values())) if name != "classes"]
    rows = [[title, *(shown(part.get(name)) for name in names)] for title, part in by_name.items()]
    parts: list[object] = [table("The common space", ["", *(name.replace("_", " ") for name in names)], rows)]
    for checkpoint in page.proper:
        for evaluator, space in checkpoint.spaces.items():
            if len(page.proper) > 1:
                parts.append(tag("h3", page.of(checkpoint.name, evaluator)))
            if space.along:
                parts.append(plot_space.gap(space))
            if projections := space.projections():
                images = space.modalities.count("image")
                parts.append(tag("p", _sampled(images, len(space.modalities) - images), class_="about"))
                parts += [
                    plot_space.projections(space, [part for part in projections if part.method == method])
                    for method in dict.fromkeys(part.method for part in projections)
                ]
    return join(parts)


def _sampled(images: int, texts: int) -> str:
    return f"Projected together: {images} images with exactly one of the labels, and the {texts} texts of these."
