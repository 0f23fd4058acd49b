"""Time this package against plain forms of the same work: `cxrcl benchmark losses` (docs/benchmarks.md)."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from cxrcl.commands.entry import Parser, guarded


def subcommands() -> dict[str, ModuleType]:
    """Modules of this package that can run: adding one adds a file there and edits nothing."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def main() -> None:
    guarded(run)


def run() -> None:
    parser = Parser(prog="benchmark.py", description=(__doc__ or "").split(":")[0])
    chosen = parser.add_subparsers(metavar="WHAT", required=True)
    for name, module in subcommands().items():
        summary = (module.__doc__ or "").splitlines()[0]
        command = chosen.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    given = parser.parse_args()
    given.run(given)
