"""What inference.py leaves in its folder, written while images are read: an interrupted command keeps its results.

- `results.json`: the rule, an entry for each image, and whether that is all of them.
- `predictions.csv`: for spreadsheets: an image a row, its probabilities a column each, and why it was not read.
- `heatmaps/`: pictures (`cxrcl.inference.gallery`).

Names of files may tell who was X-rayed: both files can be read by their owner alone.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrcl.files import replaced

RESULTS, TABLE, PICTURES = "results.json", "predictions.csv", "heatmaps"
EVERY_S = 5.0
SHARE = 0.05  # of the time goes into writing, at most


class Results:
    """Entries of images, as `cxrcl.inference.predict.Predictor.predict` gives them.

    Args:
        folder: for the files; what an earlier command left there is removed. None: entries are kept in memory only.
        head: stands before the images in results.json.
        labels: columns of predictions.csv.
        count: number of images to come.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, folder: Path | None, head: Mapping[str, Any], labels: Sequence[str], count: int) -> None:
        self._folder, self._head, self._labels, self._count = folder, head, labels, count
        self.entries: list[dict[str, Any]] = []
        if folder is not None:
            for path in earlier_files(folder):
                path.unlink()
        self.write()

    @property
    def complete(self) -> bool:
        """Whether every image has its entry."""
        return len(self.entries) == self._count

    def add(self, entry: dict[str, Any]) -> None:
        """Keep an entry, and write the files where it is time to."""
        self.entries.append(entry)
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write both files, each of which is whole at any time."""
        started = time.monotonic()
        if self._folder is not None:
            # utf-8-sig, so that Excel knows.
            for name, text, encoding in ((RESULTS, f"{self.json()}\n", "utf-8"), (TABLE, self.table(), "utf-8-sig")):
                with replaced(self._folder / name, mode=0o600) as file:
                    # In JSON, what is written for a lone byte of a file's name is read as that byte again.
                    file.write(text.encode(encoding, "backslashreplace"))
        ended = time.monotonic()
        self._due = ended + max(EVERY_S, (ended - started) / SHARE)

    def json(self) -> str:
        """The content of results.json."""
        content = {**self._head, "complete": self.complete, "images": self.entries}
        return json.dumps(content, indent=1, ensure_ascii=False)

    def table(self) -> str:
        """The content of predictions.csv."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(map(_cell, ("image", *self._labels, "error")))
        for entry in self.entries:
            probabilities = entry.get("probabilities", {})
            row = (probabilities.get(name, "") for name in self._labels)
            writer.writerow((_cell(entry["image"]), *row, _cell(entry.get("error", ""))))
        return text.getvalue()


def earlier_files(folder: Path) -> list[Path]:
    """Results and pictures that an earlier command left in the folder."""
    files = (folder / RESULTS, folder / TABLE, *sorted((folder / PICTURES).glob("*.png")))
    return [path for path in files if path.exists()]


def shown(text: str) -> str:
    """Text for terminals and pictures: ends of lines and bytes of another encoding are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cell(text: str) -> str:
    """The text in a form that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
