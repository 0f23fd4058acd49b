"""Names that changed are read as today's."""

from __future__ import annotations

import importlib

import pytest

from cxrcl.config.moved import MOVED_CLASSES, with_current_names


@pytest.mark.parametrize("old", MOVED_CLASSES)
def test_a_class_that_moved_is_where_the_table_says(old: str) -> None:
    module, _, name = MOVED_CLASSES[old].rpartition(".")
    assert getattr(importlib.import_module(module), name).__name__ == old.rpartition(".")[2]


def test_names_are_changed_at_any_depth_and_nothing_else_is() -> None:
    old = {
        "schedule": {"_target_": "cxrcl.optim.Cosine", "final": 0.1},
        "parts": [{"_target_": "mylab.Own"}, {"train_fit": "film"}],
        "text": "cxrcl.optim.Cosine",
        "fit": "film",
    }
    assert with_current_names(old) == {
        "schedule": {"_target_": "cxrcl.training.optim.Cosine", "final": 0.1},
        "parts": [{"_target_": "mylab.Own"}, {"train_fit": "image"}],
        "text": "cxrcl.optim.Cosine",
        "fit": "film",
    }
