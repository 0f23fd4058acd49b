"""A checkpoint as a folder to give away: `python scripts/export.py CHECKPOINT --out DIR`.

Nothing in it is pickled, and it names no folder of this machine. It is read wherever a checkpoint is.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cxrcl.cli import Parser, guarded
from cxrcl.config import OWN_PACKAGES
from cxrcl.errors import ConfigError


def make_parser() -> Parser:
    parser = Parser(prog="export.py", description=(__doc__ or "").partition(":")[0] + ".", allow_abbrev=False)
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="a .pt file written by train.py or finetune.py")
    add("--out", required=True, type=Path, metavar="DIR", help="the folder to make")
    add("--overwrite", action="store_true", help="replace an earlier export there")
    add("--licence", metavar="SPDX", help="of the weights, such as MIT or CC-BY-NC-4.0 (default: not stated)")
    add(
        "--results",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="results.json of evaluate.py for the card (default: those in the run's folder)",
    )
    add("--onnx", action="store_true", help="image and text side as ONNX files, too (pip install 'cxrcl[onnx]')")
    add("--allow-package", action="append", default=[], help="package of your own objective or encoder")
    return parser


def main() -> None:
    given = make_parser().parse_args()
    if given.licence is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", given.licence):
        raise ConfigError(f"--licence {given.licence!r}: expected an SPDX identifier, such as MIT or CC-BY-NC-4.0")
    from cxrcl.sharing import exporting

    options = exporting.Options(given.licence, given.results, given.onnx, given.overwrite)
    for line in exporting.export(given.checkpoint, given.out, options, (*OWN_PACKAGES, *given.allow_package)):
        print(line)
    folder = shlex.quote(str(given.out))
    print(f"written: {folder} (README.md is its card)")
    print(f"next: python inference.py --checkpoint {folder} --image FILM")


if __name__ == "__main__":
    guarded(main)
