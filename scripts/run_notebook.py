"""Execute the quickstart anew: `python scripts/run_notebook.py docs/quickstart.ipynb` (extra `test`).

It runs in a copy of this checkout without data and outputs, so that everything happens as for the first time, and is
written back with what it printed. For a quick try, with one step after the
warm-up: `--set STUDIES=240 STEPS=101 --out try.ipynb`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrcl.commands.entry import Parser, guarded
from cxrcl.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
FOLDERS, FILES = ("configs", "cxrcl", "docs"), ("*.py", "pyproject.toml", "README.md")
CELL_SECONDS = 3600


def copy_checkout(to: Path) -> Path:
    """What the notebook needs, in a folder whose name has spaces, as users' folders do."""
    copy = to / "my copy of cxrcl"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for pattern in FILES:
        for file in ROOT.glob(pattern):
            shutil.copy(file, copy)
    return copy


def set_parameters(notebook: Any, settings: Mapping[str, str]) -> None:
    """Replace values in the cell tagged `parameters`, whose lines are `NAME = value`.

    Raises:
        ConfigError: a name that no line of it gives.
    """
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in settings.items():
        line = re.search(rf"(?m)^{re.escape(name)} = (\S+)", cell.source)
        if line is None:
            raise ConfigError(f"--set {name}={value}: the notebook has no parameter {name}")
        cell.source = cell.source[: line.start(1)] + value + cell.source[line.end(1) :]


def execute(notebook: Any, folder: Path) -> None:
    """Run all cells in place, in `folder`, with the Python that runs this.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as own:
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # python3 is this Python, whatever is installed
            transport="ipc",  # files in a folder of our own; no port is opened
            connection_file=str(Path(own) / "kernel.json"),
        )
        client = NotebookClient(
            *(notebook, manager),
            timeout=CELL_SECONDS,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,  # time stamps are noise in a file under version control
            coalesce_streams=True,
        )
        # Start-up files and profiles of the user are not part of the notebook.
        client.execute(cleanup_kc=True, env={**os.environ, "IPYTHONDIR": own})  # which ends the kernel


def main() -> None:
    import nbformat

    parser = Parser(description=(__doc__ or "").partition(":")[0] + ".")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters of the notebook")
    parser.add_argument("--out", type=Path, help="write here, and not over the notebook")
    given = parser.parse_args()
    notebook = nbformat.read(given.notebook, as_version=4)
    set_parameters(notebook, dict(part.partition("=")[::2] for part in given.set))
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, copy_checkout(Path(folder)) / "docs")
    nbformat.write(notebook, given.out or given.notebook)


if __name__ == "__main__":
    guarded(main)
