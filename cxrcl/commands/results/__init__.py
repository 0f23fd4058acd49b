"""Measure every result of the README anew and write docs/results.md: `make results`, or `cxrcl results` in a checkout.

Hours. Each part is a list of ordinary commands, printed as they can be pasted. What has ended well at this commit is
not run again, so that the same command goes on after an interruption; a part that fails is named and the rest goes on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cxrcl.commands.entry import FAILED, Parser, at_least, config_folder, guarded
from cxrcl.commands.results import page, parts
from cxrcl.commands.results.running import DOWNLOAD, Checkout, Ledger
from cxrcl.errors import ConfigError

NAMES = tuple(part.name for part in parts.make(Path(), False))


def main() -> None:
    guarded(run)


def run() -> None:
    parser = Parser(prog="results.py", description=(__doc__ or "").partition(":")[0] + ".", allow_abbrev=False)
    add = parser.add_argument
    add(
        "--only",
        metavar="PARTS",
        help=f"of {','.join(NAMES)}; the page then has the other parts as far as they are",
    )
    add("--dry-run", action="store_true", help="list the commands, and which of them have ended well at this commit")
    add("--real", type=Path, metavar="DOWNLOAD", help="the real collection (labels.csv, reports.csv, images/)")
    add("--out", type=Path, default=Path("outputs/results"), help="a folder a commit below (default: %(default)s)")
    add("--page", type=Path, default=Path("docs/results.md"), help="(default: %(default)s)")
    add("--threads", type=at_least(1), default=1, help="of each command, as OMP_NUM_THREADS (default: %(default)s)")
    given = parser.parse_args()
    only = NAMES if given.only is None else tuple(name.strip() for name in given.only.split(","))
    if unknown := [name for name in only if name not in NAMES]:
        raise ConfigError(f"--only {','.join(unknown)}: no such part; parts: {', '.join(NAMES)}")
    real = None if given.real is None else given.real.resolve()
    if real is not None and not (real / "labels.csv").is_file():
        raise ConfigError(f"--real {real}: expected a folder with labels.csv, reports.csv and images/")
    root = config_folder().parent
    os.chdir(root)  # the commands are those of its root, and so are --out and --page
    checkout = Checkout.find(root, given.page)
    places = {} if real is None else {DOWNLOAD: str(real)}
    ledger = Ledger(given.out / checkout.state, given.threads, places)
    every = parts.make(ledger.folder, real is not None)
    if given.dry_run:
        for part in every:
            if part.name in only:
                print("\n".join([f"{part.name}: {part.title}", *(_state(ledger, c.line) for c in part.commands)]))
        return
    for part in every:
        if part.name in only and not part.lacks:
            ledger.run(part)
    written = page.write(given.page, every, ledger, checkout)
    print(f"written: {written}{' (the tree has changes that are not committed)' if checkout.is_dirty else ''}")
    if ledger.failures:
        print(f"failed: {', '.join(ledger.failures)}; the same command tries them again", file=sys.stderr)
        sys.exit(FAILED)


def _state(ledger: Ledger, line: str) -> str:
    return f"  [{'done' if ledger.seconds(line) is not None else '    '}] {line}"
