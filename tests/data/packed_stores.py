"""Stores of packed images, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path

from cxrcl.data import manifest
from cxrcl.data.images import store
from cxrcl.data.manifest import Manifest

PX = 24
FILES = ("images.u8", "index.npz", "manifest.csv", "store.json")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def from_store(root: Path, folder: Path) -> Manifest:
    """The manifest of `root`, whose images are those of the store in `folder`."""
    return store.attach(manifest.load(root), root, folder)


def as_version_1(folder: Path) -> Path:
    """The folder as version 1 has it: `films` in place of `images`, in the head and in the name of the file."""
    (folder / "images.u8").rename(folder / "films.u8")
    if (folder / "store.json").exists():
        head = json.loads((folder / "store.json").read_text())
        head |= {"version": 1, "films": head.pop("images")}
        (folder / "store.json").write_text(json.dumps(head))
    return folder
