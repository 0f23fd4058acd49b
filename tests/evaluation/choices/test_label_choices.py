"""Which images are scored and what their labels mean, against plain pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cxrcl.evaluation.choices import labels
from cxrcl.evaluation.choices.choice import Choice, Stage, Unavailable, changes, state
from cxrcl.evaluation.choices.figures import auroc, check, class_accuracy
from cxrcl.evaluation.choices.labels import Rows, Truth
from cxrcl.evaluation.metrics import auroc as by_definition

NAN = np.nan
TABLE = pd.DataFrame(
    {
        "image": list("abcdef"),
        "patient": ["p", "p", "q", "q", "r", "r"],
        "study": ["1", "1", "2", "3", "4", "5"],
        "view": ["PA", "Lateral", "AP", "AP", "frontal", "LL"],
        "split": ["test", "test", "test", "valid", "train", "test"],
    }
)
VALUES = np.array([[1, NAN], [0, -1], [1, NAN], [0, 1], [NAN, -1], [0, 0]])


def rows_with(*names: str) -> list[str]:
    scored = TABLE["image"].isin(list("abcdf")).to_numpy()
    choices = labels.row_choices(TABLE, ["test"], scored)
    kept = taken(choices, Stage.ROWS, Rows(TABLE, np.ones(6, dtype=bool)), *names)
    return TABLE["image"][kept.keep].tolist()


def taken(choices: list[Choice], stage: Stage, start: object, *names: str):  # type: ignore[no-untyped-def]
    reading = tuple(change for change in changes(choices) if change.label in names)
    assert len(reading) == len(names)
    return state(choices, stage, reading, start)


@pytest.mark.parametrize(
    ("names", "images"),
    [
        ((), "abcf"),
        (("split: valid",), "d"),
        (("split: train + valid + test",), "abcdf"),
        (("split: train + valid + test", "images: all"), "abcdef"),
        (("images: frontal only",), "ac"),
        (("images of a patient: first of each patient",), "acf"),
        (("images of a patient: first of each study",), "acf"),
        (("split: train + valid + test", "images of a patient: first of each study"), "acdf"),
    ],
)
def test_rows(names: tuple[str, ...], images: str) -> None:
    assert rows_with(*names) == list(images)


def test_no_image_left_cannot_be_tried() -> None:
    with pytest.raises(Unavailable, match="no image"):
        rows_with("split: train")  # its only image is left out by data.views


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ((), [[1, NAN], [0, NAN], [1, NAN], [0, 1], [NAN, NAN], [0, 0]]),
        (("uncertain labels: uncertain: ones",), [[1, NAN], [0, 1], [1, NAN], [0, 1], [NAN, 1], [0, 0]]),
        (("blank labels: blank is negative",), [[1, 0], [0, NAN], [1, 0], [0, 1], [0, NAN], [0, 0]]),
        (
            ("negatives: images without finding are negatives of blank labels",),
            [[1, 0], [0, NAN], [1, 0], [0, 1], [NAN, NAN], [0, 0]],
        ),
    ],
)
def test_labels(names: tuple[str, ...], values: list[list[float]]) -> None:
    truth = Truth(("No Finding", "Edema"), VALUES, ("Edema",))
    made = taken(labels.label_choices(truth), Stage.LABELS, truth, *names)
    np.testing.assert_array_equal(made.values, values)


def test_labels_of_the_mean() -> None:
    names = ("No Finding", "Edema", "Fracture", "Atelectasis")
    truth = Truth(names, np.zeros((1, 4)), names[1:])
    choice = labels.mean_choice(truth, ["Fracture", "Unknown"])
    found = {variant.name: variant.step(truth).mean_over for variant in choice.others}
    assert found == {
        "all labels": names,
        "the five of the CheXpert competition": ("Atelectasis", "Edema"),
        "those that the target names": ("Fracture",),
    }


def test_the_fast_auroc_is_the_slow_one() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        scores, positive = random.integers(0, 6, 30).astype(float), random.random(30) < 0.3
        np.testing.assert_allclose(auroc(scores, positive), by_definition(scores, positive.astype(float)), rtol=1e-12)


def test_accuracy_of_classes_takes_images_with_one_of_them() -> None:
    truth = Truth(("A", "B"), np.array([[1, 0], [1, 1], [0, 1], [0, 0]]), ("A", "B"))
    assert class_accuracy(np.array([[0.9, 0.1], [0, 1], [0.8, 0.2], [0, 1]]), truth) == 0.5


@pytest.mark.parametrize("name", ["mean_beauty", "auroc/Unknown"])
def test_figures_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no such figure|no label Unknown"):
        check([name], ["Edema"])
