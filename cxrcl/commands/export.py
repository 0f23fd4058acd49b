"""A checkpoint as a folder to give away: `cxrcl export CHECKPOINT --out DIR`.

Nothing in it is pickled, and it names no folder of this machine. It is read wherever a checkpoint is.
"""

from __future__ import annotations

import re
from pathlib import Path

from cxrcl.commands.entry import Parser, guarded, quoted, spelled
from cxrcl.config.nodes import OWN_PACKAGES
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
    add(
        "--exposure",
        choices=("full", "pixels", "none"),
        default="full",
        help="hashes of what it was trained on: of images, pixels and patients (full), of pixels alone, or none",
    )
    add("--onnx", action="store_true", help="image and text side as ONNX files, too (pip install 'cxrcl[onnx]')")
    add("--allow-package", action="append", default=[], help="package of your own objective or encoder")
    return parser


def main() -> None:
    guarded(run)


def run() -> None:
    arguments = make_parser().parse_args()
    if arguments.licence is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", arguments.licence):
        raise ConfigError(f"--licence {arguments.licence!r}: expected an SPDX identifier, such as MIT or CC-BY-NC-4.0")
    from cxrcl.export import exporting

    given = arguments
    options = exporting.Options(given.licence, given.results, given.onnx, given.overwrite, given.exposure)
    for line in exporting.export(given.checkpoint, given.out, options, (*OWN_PACKAGES, *given.allow_package)):
        print(line)
    folder = quoted(arguments.out)
    print(f"written: {folder} (README.md is its card)")
    print(f"next: {spelled('inference')} --checkpoint {folder} --image IMAGE")
