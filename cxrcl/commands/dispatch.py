"""`cxrcl NAME ...`, or `python -m cxrcl NAME ...`: commands are the files of this folder that have a `main`."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

from cxrcl.commands.entry import FAILED, MISTAKE
from cxrcl.errors import nearest


def commands() -> dict[str, str]:
    """Name -> first line of help of every command, from the source text: nothing is imported for a list."""
    summaries = {}
    for path in sorted(Path(__file__).parent.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if path == Path(__file__) or file.suffix != ".py" or not file.is_file():
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            summaries[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0].partition(":")[0]
    return summaries


def main() -> None:
    listed, name = commands(), "".join(sys.argv[1:2])
    if name in listed:
        sys.argv = [f"cxrcl {name}", *sys.argv[2:]]
        importlib.import_module(f"cxrcl.commands.{name}").main()
        return
    width = max(map(len, listed))
    usage = "\n".join(
        ["usage: cxrcl COMMAND ...", "", *(f"  {key.ljust(width)}  {text}" for key, text in listed.items())]
    )
    if name in ("", "-h", "--help"):
        print(f"{usage}\n\ncxrcl COMMAND --help shows the options of one.")
        sys.exit(0 if name else FAILED)
    print(f"error: {name}: no such command{nearest(name, listed)}", file=sys.stderr)
    sys.exit(MISTAKE)
