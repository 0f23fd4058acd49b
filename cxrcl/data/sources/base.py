"""A source: something that has, or can make, a folder with a manifest."""

from __future__ import annotations

from pathlib import Path


class Source:
    """Base of all sources; by itself, a folder that already holds manifest.csv.

    Args:
        root: the folder.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser()

    def prepare(self) -> Path:
        """Make the data when it is missing (called in one process only) and return its folder."""
        return self.root
