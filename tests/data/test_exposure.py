"""What a model has seen."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrcl.data import exposure
from cxrcl.data.manifest import Manifest


def images(*names: str, source: str | None = "iu") -> Manifest:
    table = pd.DataFrame({"image": [f"images/{name}/frontal.png" for name in names]})
    if source is not None:
        table["source"] = source
    return Manifest(table, (), np.zeros((len(names), 0)))


def test_images_of_the_training_are_found_again_wherever_they_lie() -> None:
    seen = exposure.of(images("a", "b", "c"))
    assert seen["sources"] == {"iu": 3} and seen["training_images"].dtype == np.int64
    moved = images("b", "c", "d")
    moved.rows["image"] = moved.rows["image"].str.replace("images/", "elsewhere\\deep/")
    assert exposure.overlap(seen, moved) == {"trained_on": 2, "same_sources": ["iu"]}


def test_images_of_another_source_may_have_the_same_name() -> None:
    seen = exposure.of(images("a", "b"))
    assert exposure.overlap(seen, images("a", "b", source="nih")) == {"trained_on": 0, "same_sources": []}
    assert exposure.overlap(exposure.of(images("a", source=None)), images("a", source=None)) == {
        "trained_on": 1,
        "same_sources": ["(no source named)"],
    }


def test_what_earlier_weights_had_seen_counts() -> None:
    both = exposure.of(images("x", source="nih"), exposure.of(images("a", "b")))
    assert both["sources"] == {"iu": 2, "nih": 1} and len(both["training_images"]) == 3
    assert exposure.overlap(both, images("b", "c"))["trained_on"] == 1


def test_a_training_from_a_checkpoint_of_the_same_source_counts_its_images_once() -> None:
    once = exposure.of(images("a", "b", "c"))
    assert exposure.of(images("a", "b", "c"), once)["sources"] == {"iu": 3}
    assert exposure.of(images("a"), once)["sources"] == {"iu": 3}
