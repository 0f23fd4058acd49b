"""The card of a prepared data set: its counts, dropped rows, notes and checksum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cxrcl.data.manifest import SPLITS

VALUES = {"1": "present", "0": "absent", "-1": "uncertain", "": "blank"}


def count(table: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Counts of a manifest's table: splits {split: {images, studies, patients, ...}}, views and labels by split."""
    splits = [split for split in SPLITS if (table["split"] == split).any()]
    parts = {split: table[table["split"] == split] for split in splits}
    texts = [name for name in ("findings", "impression", "text") if name in table]
    return {
        "splits": {
            split: {
                "images": len(part),
                "studies": len(part[["patient", "study"]].drop_duplicates()),
                "patients": int(part["patient"].nunique()),
                "images with text": int((part[texts] != "").any(axis=1).sum()) if texts else 0,
            }
            for split, part in parts.items()
        },
        "views": {
            view: {split: int((part["view"] == view).sum()) for split, part in parts.items()}
            for view in table["view"].value_counts().index
        },
        "labels": {
            label: {
                split: {name: int((part[label] == value).sum()) for value, name in VALUES.items()}
                for split, part in parts.items()
            }
            for label in labels
        },
    }


def tables(counts: Mapping[str, Any]) -> str:
    """The counts as Markdown tables."""
    splits = list(counts["splits"])
    blocks = [_table(("split", *counts["splits"][splits[0]]), [(s, *counts["splits"][s].values()) for s in splits])]
    blocks.append(_table(("view", *splits), [(view, *row.values()) for view, row in counts["views"].items()]))
    if counts["labels"]:
        header = ("label", *(f"{split} {what}" for split in splits for what in ("+", "-", "?")))
        rows = [
            (label, *(row[split][name] for split in splits for name in ("present", "absent", "uncertain")))
            for label, row in counts["labels"].items()
        ]
        blocks.append(_table(header, rows) + "\n\n+ present, - absent, ? uncertain; the others are blank.")
    return "\n\n".join(blocks)


def markdown(card: Mapping[str, Any]) -> str:
    facts = ("source", "date", "version", "images_checked", "manifest_sha256")
    lines = [f"# {card['dataset']}", "", *(f"- {name.replace('_', ' ')}: {card[name]}" for name in facts)]
    lines += [f"- option {name}: {value!r}" for name, value in card["options"].items()]
    lines += ["", tables(card), "", "Dropped:", ""]
    lines += [f"- {number}: {reason}" for reason, number in card["dropped"].items()] or ["- nothing"]
    return "\n".join([*lines, "", "Notes:", "", *(f"- {note}" for note in card["notes"])]) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    lines = [
        "| " + " | ".join(cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths))) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
