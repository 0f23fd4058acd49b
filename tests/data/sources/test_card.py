"""Tables of the card."""

from __future__ import annotations

import pandas as pd

from cxrcl.data.sources import card

TABLE = pd.DataFrame(
    {
        "patient": ["1", "1", "2"],
        "study": ["a", "a", "a"],  # studies of two patients may have one name
        "view": ["PA", "Lateral", "PA"],
        "split": ["train", "train", "test"],
        "Edema": ["1", "-1", ""],
    }
)


def test_studies_are_told_apart_by_patient_and_absent_splits_left_out() -> None:
    counts = card.count(TABLE, ["Edema"])
    assert counts["splits"] == {
        "train": {"images": 2, "studies": 1, "patients": 1, "images with text": 0},
        "test": {"images": 1, "studies": 1, "patients": 1, "images with text": 0},
    }
    assert card.count(pd.concat([TABLE, TABLE.assign(patient="3")]), [])["splits"]["train"]["studies"] == 2


def test_tables_are_aligned_markdown() -> None:
    lines = card.tables(card.count(TABLE, ["Edema"])).splitlines()
    assert lines[:4] == [
        "| split | images | studies | patients | images with text |",
        "|-------|--------|---------|----------|------------------|",
        "| train |      2 |       1 |        1 |                0 |",
        "| test  |      1 |       1 |        1 |                0 |",
    ]
    assert "| Edema |       1 |       0 |       1 |      0 |      0 |      0 |" in lines
    assert "label" not in card.tables(card.count(TABLE, []))
