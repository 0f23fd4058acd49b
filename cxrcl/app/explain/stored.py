"""Embeddings of images that were stored: by an earlier `explain`, or by `evals.representation.dump`.

A folder of `explain` holds `images.csv` (a row an image, labels as the source has them), `<k>.npy` for each pass,
float32 [N, D], and `passes.json`, which says what each of them is. A later run goes on with it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrcl.errors import ConfigError
from cxrcl.files import replaced

IMAGES, PASSES = "images.csv", "passes.json"
ABOUT = ("image", "patient", "study", "view", "split", "sex", "age", "source", "part", "scored")
Key = tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """The images that readings are measured on.

    Attributes:
        table: a row an image, str columns of the manifest.
        scored: bool [N], those that the current views and filter leave in.
        names: of the labels.
        values: float [N, C] of 1, 0, -1, nan as the source has them.
    """

    table: pd.DataFrame
    scored: np.ndarray
    names: tuple[str, ...]
    values: np.ndarray

    def fingerprint(self) -> str:
        """16 hex digits that change with the images and their order."""
        digest = hashlib.sha256("\n".join(self.table["image"]).encode())
        digest.update("\n".join(self.table["split"]).encode())
        return digest.hexdigest()[:16]


class Store:
    """The passes of one checkpoint over one list of images, in a folder.

    Args:
        folder: made at the first `put`; None: nothing is kept on disk.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._arrays: dict[Key, np.ndarray] = {}
        self._files: dict[Key, str] = {}
        if folder is not None and (folder / PASSES).is_file():
            content = json.loads((folder / PASSES).read_text(encoding="utf-8"))
            self._files = {tuple(entry["pass"]): entry["file"] for entry in content}

    def get(self, key: Key) -> np.ndarray | None:
        """The rows of a pass, float32 [N, D]; None where it was not made."""
        if key not in self._arrays and self.folder is not None and key in self._files:
            # Mapped and not read: dozens of passes would fill the memory. ("c": torch wants arrays it could write to.)
            self._arrays[key] = np.load(self.folder / self._files[key], mmap_mode="c")
        return self._arrays.get(key)

    def put(self, key: Key, rows: np.ndarray, images: Images) -> np.ndarray:
        """Keep the rows of a pass, and return them."""
        self._arrays[key] = rows
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / IMAGES).is_file():
                with replaced(self.folder / IMAGES) as file:
                    write_images(images).to_csv(file, index=False)
            self._files[key] = f"{len(self._files)}.npy"
            with replaced(self.folder / self._files[key]) as file:
                np.save(file, rows)
            content = [{"pass": list(one), "file": name} for one, name in self._files.items()]
            with replaced(self.folder / PASSES) as file:
                file.write(json.dumps(content, indent=1).encode())
            self._arrays[key] = np.load(self.folder / self._files[key], mmap_mode="c")
        return self._arrays[key]


def write_images(images: Images) -> pd.DataFrame:
    """The content of images.csv."""
    table = images.table[[name for name in ABOUT if name in images.table]].assign(scored=images.scored.astype(int))
    return pd.concat([table, pd.DataFrame(images.values, columns=list(images.names))], axis=1)


def read(named: str) -> tuple[Images, Store]:
    """What `embeddings=` names: a folder of `explain`, or the .npy file of a dump with its .csv beside it.

    Raises:
        ConfigError: neither.
    """
    path = Path(named).expanduser()
    if path.is_dir() and (path / PASSES).is_file():
        return _images(path / IMAGES), Store(path)
    if path.suffix == ".npy" and path.is_file() and path.with_suffix(".csv").is_file():
        images, store = _images(path.with_suffix(".csv")), Store(None)
        rows = np.load(path, mmap_mode="c")
        if len(rows) != len(images.table):
            raise ConfigError(f"embeddings={named}: {len(rows)} rows, but its .csv has {len(images.table)}")
        store.put((), rows, images)
        return images, store
    raise ConfigError(
        f"embeddings={named}: expected a folder that explain wrote (explain_<splits>/embeddings/...), or the .npy file "
        "of evals.representation.dump=npy with its .csv beside it"
    )


def _images(file: Path) -> Images:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    names = tuple(name for name in table.columns if name not in ABOUT)
    values = table[list(names)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float32)
    scored = table["scored"].to_numpy() == "1" if "scored" in table else np.ones(len(table), dtype=bool)
    return Images(table[[name for name in table.columns if name in ABOUT]], scored, names, values)
