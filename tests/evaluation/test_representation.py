"""Geometry of the common space."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FixedData, metrics_of
from torch.nn import functional as F

from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.evaluation.metrics import off_diagonal_mean
from cxrcl.evaluation.projections import project
from cxrcl.evaluation.representation import Representation, Space

LABELS = ("Atelectasis", "Edema", "Fracture")
FILES = {
    "a.json": {name: {"pos": [f"{form} {name.lower()}" for form in ("mild", "marked")]} for name in LABELS},
    "b.json": {name: {"pos": [f"there is {name.lower()}"]} for name in LABELS},
}


@pytest.fixture(scope="module")
def films() -> FixedData:
    generator = torch.Generator().manual_seed(2)

    def part(count: int) -> tuple[Any, ...]:
        labels = (torch.rand(count, 3, generator=generator) < 0.4).float()
        texts = [f"report number {k}" if k % 4 else "" for k in range(count)]
        return torch.randn(count, 3, 4, 4, generator=generator), labels, texts, [f"film {k}" for k in range(count)]

    return FixedData(LABELS, {"valid": part(40), "test": part(30)})


def made(films: FixedData, **settings: Any) -> Representation:
    given = {"file": "a.json", "method": ["pca"], "dimensions": [2], **settings}
    return Representation(films, lambda file, labels: FILES[file], **given)


def space(evaluator: Representation, known: Any, alone: Any) -> Space:
    result = Evaluators({"it": evaluator}, evaluator.data, 64)(known, alone)["it"]
    return result.artifacts["space"]


def test_metrics_are_those_of_explicit_loops(known: Any, films: FixedData, alone: Any) -> None:
    figures = metrics_of(made(films), known, alone)
    images, _, texts, _ = films.splits["valid"]
    image = F.normalize(images.flatten(1), dim=1).double()
    with_text = [k for k in range(40) if texts[k]]
    text = torch.stack([known.text(texts[k]) for k in with_text]).double()
    apart = [image[k] - one for k, one in zip(with_text, text, strict=True)]
    assert figures["modality_gap"] == pytest.approx(float((sum(apart) / len(apart)).norm()), rel=1e-5)
    assert figures["alignment"] == pytest.approx(sum(float(d @ d) for d in apart) / len(apart), rel=1e-5)
    for name, points in (("image", image), ("text", text)):
        terms = [
            float((-2 * (points[i] - points[j]).square().sum()).exp()) for i in range(len(points)) for j in range(i)
        ]
        assert figures[f"uniformity_{name}"] == pytest.approx(np.log(np.mean(terms)), rel=1e-5)


def test_class_similarity_is_the_mean_cosine_of_two_classes(known: Any, films: FixedData, alone: Any) -> None:
    figures = metrics_of(made(films), known, alone)
    means = [F.normalize(sum(known.text(t) for t in FILES["a.json"][name]["pos"]), dim=0) for name in LABELS]
    cosines = [float(a @ b) for i, a in enumerate(means) for j, b in enumerate(means) if i != j]
    assert figures["class_similarity"] == pytest.approx(np.mean(cosines), rel=1e-5)
    matrix = np.random.default_rng(0).normal(size=(4, 4))
    np.fill_diagonal(matrix, 1)
    assert off_diagonal_mean(matrix) == pytest.approx((matrix.sum() - 4) / 12)


def test_the_gap_in_the_picture_is_the_metric(known: Any, films: FixedData, alone: Any) -> None:
    along = space(made(films), known, alone).along
    gap = along["image"].mean() - along["text"].mean()
    assert gap == pytest.approx(metrics_of(made(films), known, alone)["modality_gap"])
    assert len(along["image"]) == len(along["text"]) == 30


def test_images_with_exactly_one_label_are_drawn_with_their_texts(known: Any, films: FixedData, alone: Any) -> None:
    found = space(made(films), known, alone)
    labels, texts = films.splits["valid"][1].numpy(), films.splits["valid"][2]
    single = [k for k in range(40) if labels[k].sum() == 1]
    assert found.modalities.count("image") == len(single)
    assert found.modalities.count("text") == sum(bool(texts[k]) for k in single)
    rows = {tuple(row) for row in F.normalize(films.splits["valid"][0].flatten(1), dim=1).double().numpy().round(5)}
    images = found.points[: len(single)]
    assert all(tuple(point) in rows for point in images.round(5))
    wanted = [sum(labels[k][c] for k in single) for c in range(3)]
    assert [found.point_labels[: len(single)].count(name) for name in LABELS] == wanted
    paired = dict(zip(map(tuple, images.round(5)), found.point_labels, strict=False))
    for k in (k for k in single if texts[k]):
        film = F.normalize(films.splits["valid"][0][k].flatten(), dim=0).double().numpy().round(5)
        place = [np.allclose(point, known.text(texts[k]).numpy(), atol=1e-5) for point in found.points].index(True)
        assert found.point_labels[place] == paired[tuple(film)] and found.modalities[place] == "text"


def test_no_image_of_a_class_exceeds_the_most(known: Any, films: FixedData, alone: Any) -> None:
    found = space(made(films, max_samples_per_class=3), known, alone)
    drawn = [name for name, kind in zip(found.point_labels, found.modalities) if kind == "image"]
    assert [drawn.count(name) for name in LABELS] == [3, 3, 3]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("labels_keep", ["Edema", "Fracture"]),
        ("max_samples_per_class", 2),
        ("method", ["tsne"]),
        ("dimensions", [3]),
        ("file", "b.json"),
        ("splits", ["test"]),
    ],
)
def test_every_setting_changes_the_pictures(known: Any, films: FixedData, alone: Any, setting: str, value: Any) -> None:
    before, after = (space(made(films, **part), known, alone) for part in ({}, {setting: value}))

    def shown(one: Space) -> list[Any]:
        return [one.classes, one.similarity.tolist(), [(p.title, p.places.tolist()) for p in one.projections()]]

    assert shown(before) != shown(after)
    assert shown(after) == shown(space(made(films, **{setting: value}), known, alone))


def test_the_seed_chooses_images_and_places(known: Any, films: FixedData, alone: Any) -> None:
    first, again, other = (
        space(made(films, seed=seed, max_samples_per_class=3), known, alone).points.tolist() for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_projections_repeat_by_seed(method: Any, dimensions: int) -> None:
    points = np.random.default_rng(0).normal(size=(30, 60))
    one, again = (project(points, method, dimensions, 3) for _ in range(2))
    assert one.places.shape == (30, dimensions) and len(one.axes) == dimensions
    assert np.array_equal(one.places, again.places)
    assert one.title.startswith("PCA" if method == "pca" else "t-SNE") and one.title.endswith(f"{dimensions}D")


def test_pca_keeps_the_widest_directions() -> None:
    points = np.random.default_rng(0).normal(size=(200, 5)) * [1, 9, 1, 4, 1]
    found = project(points, "pca", 2, 0)
    assert abs(np.corrcoef(found.places[:, 0], points[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(found.places[:, 1], points[:, 3])[0, 1]) > 0.99


def test_few_images_and_no_text_leave_out_what_needs_them(known: Any, films: FixedData, alone: Any) -> None:
    few = FixedData(LABELS, {"valid": (*(part[:3] for part in films.splits["valid"][:2]), [""] * 3, ["a", "b", "c"])})
    evaluator = made(few)
    figures, found = metrics_of(evaluator, known, alone), space(evaluator, known, alone)
    assert (
        np.isnan(figures["modality_gap"]) and np.isnan(figures["uniformity_text"]) and figures["uniformity_image"] < 0
    )
    assert found.projections() == [] and found.along == {}


def test_a_dump_holds_every_image(known: Any, films: FixedData, alone: Any) -> None:
    assert space(made(films), known, alone).dump is None
    dump = space(made(films, dump="npy", splits=["test", "valid"]), known, alone).dump
    assert dump is not None and dump.embeddings.shape == (70, 48) and dump.embeddings.dtype == np.float32
    assert dump.images == films.column("test", "image") + films.column("valid", "image")
    assert dump.splits == ["test"] * 30 + ["valid"] * 40 and np.array_equal(dump.labels[:30], films.splits["test"][1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels_keep": ["Mass"]}, "labels_keep: no label Mass"),
        ({"labels_keep": ["Edema"]}, "a.json has prompts for Edema of the labels: 2 are needed"),
        ({"method": ["isomap"]}, "method: no isomap; there are pca, tsne, umap"),
        ({"method": ["umap"]}, r"umap-learn: pip install 'cxrcl\[umap\]'"),
        ({"dump": "parquet"}, r"pip install 'cxrcl\[parquet\]', or set dump=npy"),
    ],
)
def test_wrong_settings_are_refused(
    films: FixedData, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    absent = ("umap", "pyarrow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else find(name, *rest))
    with pytest.raises(ValueError, match=message):
        made(films, **settings)
