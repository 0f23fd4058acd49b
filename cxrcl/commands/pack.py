"""Pack the images of a manifest, decoded and shrunk once: `cxrcl pack MANIFEST_DIR --out STORE`.

Training reads them with `data.root=MANIFEST_DIR data.store=STORE`, or from the store alone with `data.store=STORE`.
An interrupted packing goes on when the same command is given again. `--wds PATTERN ...` packs WebDataset shards, and
makes the manifest of what they hold.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cxrcl.commands.entry import Parser, at_least, guarded, quoted, spelled
from cxrcl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cxrcl.data.packing.pack import Packed


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="pack.py", description=(__doc__ or "").partition(":")[0] + ".", allow_abbrev=False)
    add = parser.add_argument
    add("root", type=Path, nargs="?", metavar="MANIFEST_DIR", help="a folder with manifest.csv")
    add("--out", required=True, type=Path, metavar="STORE", help="the folder to make")
    add(
        "--read-px",
        type=at_least(16),
        default=256,
        metavar="PX",
        help="shrink images to this shorter side; no image is enlarged (default: %(default)s)",
    )
    add(
        "--workers",
        type=at_least(0),
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that decode, threads with --wds (default: one for each core)",
    )
    add("--verify", action="store_true", help="read the store again and compare all checksums")
    add("--overwrite", action="store_true", help="replace a store that is there")
    add("--allow-outside-root", action="store_true", help="accept paths that lead out of the folder of the manifest")
    add = parser.add_argument_group("WebDataset shards, in place of MANIFEST_DIR").add_argument
    add(
        "--wds",
        nargs="+",
        metavar="PATTERN",
        help="tar files ({000..099} and * name several), URLs, or 'pipe:COMMAND': a shell command that prints a shard",
    )
    add("--split", choices=("train", "valid", "test"), help="of samples whose .json names none (default: train)")
    add("--classes", type=_names, metavar="NAME,NAME", help="labels of 0, 1, ... in .cls members")
    add(
        "--labels", type=_names, metavar="NAME,NAME", help="keys of .json members that are labels (default: all others)"
    )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.root is None) == (arguments.wds is None):
        raise ConfigError("expected either MANIFEST_DIR or --wds PATTERN; see pack.py --help")
    unread = ("allow_outside_root",) if arguments.wds else ("split", "classes", "labels")
    for name in unread:
        if getattr(arguments, name):
            raise ConfigError(
                f"--{name.replace('_', '-')}: has no meaning {'with' if arguments.wds else 'without'} --wds"
            )


def _pack(arguments: argparse.Namespace, out: Path) -> Packed:
    if arguments.wds is None:
        from cxrcl.data.packing import pack as packing

        root = arguments.root.expanduser()
        return packing.pack(
            root, out, arguments.read_px, arguments.workers, arguments.overwrite, arguments.allow_outside_root
        )
    import pandas as pd

    from cxrcl.data.packing import shards
    from cxrcl.data.sources import card

    rules = shards.Rules(arguments.split or "train", arguments.classes or (), arguments.labels)
    packed, left_out = shards.pack(arguments.wds, out, arguments.read_px, arguments.workers, arguments.overwrite, rules)
    table = pd.read_csv(out / "manifest.csv", dtype=str, keep_default_na=False)
    print(card.tables(card.count(table, packed.manifest.labels)), end="\n\n")
    for what, number in left_out.most_common():
        print(f"left out {number}: {what}")
    return packed


def main() -> None:
    guarded(run)


def run() -> None:
    arguments = make_parser().parse_args()
    _check(arguments)
    out = arguments.out.expanduser()
    from cxrcl.app.overrides import explained
    from cxrcl.data import bad_images

    try:
        with explained({"allow_outside_root": "--allow-outside-root"}):
            packed = _pack(arguments, out)
    except KeyboardInterrupt:
        print("the same command goes on from here", file=sys.stderr, flush=True)
        raise
    store, unreadable = packed.store, packed.unreadable()
    if unreadable:
        print(f"{len(unreadable)} images cannot be read: {bad_images.named(packed.manifest, unreadable)}")
    if arguments.verify:
        damaged = store.damaged()
        if damaged:
            row = packed.manifest.rows["line"].iloc[damaged[0]]
            raise DataError(
                f"{out}: {len(damaged)} of {len(store)} images differ from their checksums, first row {row}: "
                "copy the store again, or pack again with --overwrite"
            )
        print(f"{len(store)} checksums agree")
    done = f"{packed.new} images packed" if packed.new else "already packed"
    print(f"{done}: {out}, {len(store)} images of {store.read_px} px, {store.head['bytes'] / 1e6:,.1f} MB")
    root = f"data.root={quoted(arguments.root.expanduser())} " if arguments.root else ""
    print(f"next: {spelled('train')} {root}data.store={quoted(out)}")
