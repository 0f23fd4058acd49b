"""One class of several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import FixedData, metrics_of
from sklearn.metrics import f1_score, recall_score
from torch.nn import functional as F

from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.evaluation.zero_shot_classes import ZeroShotClasses

CLASSES = ("Atelectasis", "Edema", "Effusion")
PROMPTS = {name: {"pos": [f"{form} {name.lower()}" for form in ("mild", "marked")]} for name in CLASSES}


def classes(data: Any, **arguments: Any) -> ZeroShotClasses:
    return ZeroShotClasses(data, lambda name, labels: PROMPTS, file="five.json", **arguments)


@pytest.fixture
def films(known: Any) -> FixedData:
    """An image of a class is the class's prompts and noise; a third has two classes or none."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.stack([sum(known.text(sentence) for sentence in PROMPTS[name]["pos"]) for name in CLASSES])

    def part(count: int) -> tuple[Any, ...]:
        which = torch.randint(3, (count,), generator=generator)
        labels = F.one_hot(which, 3).float()
        labels[::6] = 1
        labels[3::6] = torch.nan
        images = prompts[which] + 1.2 * prompts.std() * torch.randn(count, 48, generator=generator)
        return images.view(count, 3, 4, 4), labels, [""] * count, [str(k) for k in range(count)]

    return FixedData(CLASSES, {"train": part(40), "valid": part(90)})


def similarities(known: Any, data: FixedData, split: str, over: str = "mean") -> np.ndarray:
    images = F.normalize(data.splits[split][0].flatten(1), dim=1)
    columns = []
    for name in CLASSES:
        each = torch.stack([images @ known.text(sentence) for sentence in PROMPTS[name]["pos"]])
        columns.append(each.mean(dim=0) if over == "mean" else each.amax(dim=0))
    return torch.stack(columns, dim=1).double().numpy()


def expected(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    single = (labels == 1).sum(axis=1) == 1
    is_, said = labels[single].argmax(axis=1), scores[single].argmax(axis=1)
    return {
        "images": single.sum(),
        "accuracy": (is_ == said).mean(),
        "macro_f1": f1_score(is_, said, average="macro"),
        "macro_recall": recall_score(is_, said, average="macro"),
        "recall/Edema": (said[is_ == 1] == 1).mean(),
    }


@pytest.mark.parametrize("over", ["mean", "max"])
def test_the_most_similar_class_is_chosen_among_images_of_one_class(
    known: Any, films: FixedData, alone: Any, over: Any
) -> None:
    figures = metrics_of(classes(films, over=over), known, alone)
    wanted = expected(similarities(known, films, "valid", over), films.splits["valid"][1].numpy())
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted)
    assert 0.4 < figures["accuracy"] < 1 and figures["chance"] == 1 / 3


@pytest.mark.parametrize(("how", "on"), [("split", "train"), ("scored", "valid")])
def test_similarities_may_be_standardised_by_class(known: Any, films: FixedData, alone: Any, how: Any, on: str) -> None:
    figures = metrics_of(classes(films, standardise=how), known, alone)
    reference = similarities(known, films, on)
    if how == "scored":  # images with one class, which alone are classified
        reference = reference[(films.splits["valid"][1] == 1).sum(dim=1).numpy() == 1]
    scores = (similarities(known, films, "valid") - reference.mean(axis=0)) / reference.std(axis=0)
    wanted = expected(scores, films.splits["valid"][1].numpy())
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted)


def test_only_the_published_form_depends_on_the_other_images(known: Any, films: FixedData, alone: Any) -> None:
    fewer = FixedData(CLASSES, {**films.splits, "valid": tuple(part[:30] for part in films.splits["valid"])})

    def first(data: FixedData, how: Any) -> np.ndarray:
        result = Evaluators({"it": classes(data, standardise=how)}, data, 64)(known, alone)["it"]
        return result.scores.scores[:30]

    assert np.allclose(first(films, "split"), first(fewer, "split"), atol=1e-6)
    assert not np.allclose(first(films, "scored"), first(fewer, "scored"), atol=1e-2)
    assert "depends on which images" in classes(films, standardise="scored").rule


def test_accuracy_and_recalls_have_intervals_of_patients(known: Any, films: FixedData, alone: Any) -> None:
    plain, found = metrics_of(classes(films), known, alone), metrics_of(classes(films, resamples=100), known, alone)
    names = ["accuracy", "macro_f1", "macro_recall", *(f"recall/{name}" for name in CLASSES)]
    for name in names:
        metric, slash, label = name.partition("/")
        low, high = (found[f"{metric}_{end}{slash}{label}"] for end in ("low", "high"))
        assert low <= plain[name] <= high + 1e-12 and low < high
    assert len(found) == len(plain) + 2 * len(names)
    films.splits["valid"] = (*films.splits["valid"][:3], [f"p{k % 12}" for k in range(90)])
    fewer = metrics_of(classes(films, resamples=100), known, alone)
    assert fewer["accuracy"] == plain["accuracy"] and fewer["accuracy_low"] != found["accuracy_low"]


def test_the_confusion_matrix_is_an_artifact(known: Any, films: FixedData, alone: Any) -> None:
    result = Evaluators({"it": classes(films)}, films, 64)(known, alone)["it"]
    counts = result.artifacts["confusion"].counts
    assert counts.sum() == result.metrics["images"] and np.trace(counts) / counts.sum() == result.metrics["accuracy"]
    assert counts[0].sum() == result.metrics["images/Atelectasis"]


def test_means_are_over_the_classes_that_have_images(known: Any, films: FixedData, alone: Any) -> None:
    labels = films.splits["valid"][1]
    labels[(labels == torch.tensor([0, 0, 1])).all(dim=1)] = torch.tensor([1.0, 0, 0])  # no effusion, and yet chosen
    figures = metrics_of(classes(films), known, alone)
    single = (labels == 1).sum(dim=1).numpy() == 1
    actual = labels.numpy()[single].argmax(axis=1)
    chosen = similarities(known, films, "valid")[single].argmax(axis=1)
    assert set(actual) == {0, 1} and set(chosen) == {0, 1, 2}
    for name, metric in (("macro_f1", f1_score), ("macro_recall", recall_score)):
        assert figures[name] == pytest.approx(metric(actual, chosen, labels=[0, 1], average="macro"))
    assert "recall/Effusion" not in figures and "images/Effusion" not in figures


def test_without_an_image_of_one_class_there_is_no_metric(known: Any, films: FixedData, alone: Any) -> None:
    films.splits["valid"][1].fill_(1)
    figures = metrics_of(classes(films), known, alone)
    assert figures["images"] == 0 and np.isnan(figures["accuracy"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ["Edema"]}, "five.json has prompts for Edema of the labels: 2 are needed"),
        ({"labels": ["Mass", "Edema"]}, "labels: no label Mass"),
        ({"standardise": "split", "standardise_on": "valid"}, "standardise_on=valid"),
    ],
)
def test_wrong_settings_are_refused(films: FixedData, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classes(films, **settings)
