"""Turn a download into a folder with manifest.csv: `python scripts/prepare.py cxr_real --source DIR --out DIR`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path

import cxrcl.data.sources
from cxrcl.cli import guarded
from cxrcl.errors import DataError


def datasets() -> list[str]:
    """Modules of cxrcl.data.sources that can prepare a data set: adding one adds a file there and edits nothing."""
    names = [module.name for module in pkgutil.iter_modules(cxrcl.data.sources.__path__)]
    return [name for name in names if hasattr(importlib.import_module(f"cxrcl.data.sources.{name}"), "prepare")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="prepare.py", description=(__doc__ or "").split(":")[0])
    parser.add_argument("dataset", choices=datasets())
    parser.add_argument("--source", required=True, type=Path, help="the folder as it was downloaded")
    parser.add_argument("--out", required=True, type=Path, help="the folder to make")
    given = parser.parse_args()
    if not given.source.is_dir():
        raise DataError(f"--source {given.source}: no such folder")
    path = importlib.import_module(f"cxrcl.data.sources.{given.dataset}").prepare(given.source, given.out)
    _summarise(path)
    print(f"written: {path}\nnext: python train.py data.text=report data.root={given.out}")


def _summarise(path: Path) -> None:
    from cxrcl.data import manifest

    data = manifest.load(path.parent)
    for name in manifest.SPLITS:
        part = data.split(name).rows
        print(f"{name}: {len(part)} images, {part['study'].nunique()} studies, {part['patient'].nunique()} patients")


if __name__ == "__main__":
    guarded(main)
