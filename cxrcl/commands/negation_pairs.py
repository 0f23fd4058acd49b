"""Make pairs of texts that differ in one negation, for `evals=negation`: `cxrcl negation_pairs MANIFEST_DIR`.

They are written beside the manifest (negation.csv): exact ones of a phantom set; of all others those sentences are
turned that documented rules can read, and hashes show whether the Indiana reports gave the same pairs as elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from cxrcl.commands.entry import Parser, guarded, quoted, spelled


def main() -> None:
    guarded(run)


def run() -> None:
    parser = Parser(prog="negation_pairs.py", description=(__doc__ or "").partition(":")[0] + ".", allow_abbrev=False)
    parser.add_argument("root", type=Path, metavar="MANIFEST_DIR", help="a folder with manifest.csv and reports in it")
    root = parser.parse_args().root.expanduser()
    from cxrcl.data.negation.make import make_pairs
    from cxrcl.types import NEGATION_PAIRS

    made = make_pairs(root)
    counts = made.rows.groupby(["unit", "finding", "direction"]).size().unstack(fill_value=0)
    print(counts.to_string(), end="\n\n")
    print(f"{made.with_pairs} of {made.studies} reports give pairs, {len(made.rows)} with their images")
    for note in made.notes:
        print(f"note: {note}")
    print(f"written: {root / NEGATION_PAIRS}")
    print(f"next: {spelled('evaluate')} checkpoint=CHECKPOINT data.root={quoted(root)} 'evals=[negation]'")
