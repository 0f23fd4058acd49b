"""What a model has seen."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrcl.data import exposure
from cxrcl.data.manifest import Manifest


def films(*names: str, source: str | None = "iu") -> Manifest:
    table = pd.DataFrame({"image": [f"images/{name}/frontal.png" for name in names]})
    if source is not None:
        table["source"] = source
    return Manifest(table, (), np.zeros((len(names), 0)))


def test_films_of_the_training_are_found_again_wherever_they_lie() -> None:
    seen = exposure.of(films("a", "b", "c"))
    assert seen["sources"] == {"iu": 3} and seen["films"].dtype == np.int64
    moved = films("b", "c", "d")
    moved.rows["image"] = moved.rows["image"].str.replace("images/", "elsewhere\\deep/")
    assert exposure.overlap(seen, moved) == {"films_seen": 2, "same_sources": ["iu"]}


def test_films_of_another_source_may_have_the_same_name() -> None:
    seen = exposure.of(films("a", "b"))
    assert exposure.overlap(seen, films("a", "b", source="nih")) == {"films_seen": 0, "same_sources": []}
    assert exposure.overlap(exposure.of(films("a", source=None)), films("a", source=None)) == {
        "films_seen": 1,
        "same_sources": ["(no source named)"],
    }


def test_what_earlier_weights_had_seen_counts() -> None:
    both = exposure.of(films("x", source="nih"), exposure.of(films("a", "b")))
    assert both["sources"] == {"iu": 2, "nih": 1} and len(both["films"]) == 3
    assert exposure.overlap(both, films("b", "c"))["films_seen"] == 1
