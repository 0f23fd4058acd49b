"""Compare two recordings of record.py: `python tests/identity/compare.py OLD.json NEW.json [--case NAME]`.

Prints every difference and ends with status 1 where there is one. What OLD calls by another name is translated first by
names.json:

    {"keys": {"last.pt/exposure.films": "last.pt/exposure.images", "results.json/*.films": "results.json/*.images"},
     "values": {"cxrcl.optim.*": "cxrcl.training.optim.*"}}

`keys` are places in a recording, `values` are strings that stand there. One * stands for any text, which is kept. Of
several names that fit, a whole one is taken, else the longest. Besides, `added` lists places that only NEW has, and
`changed` places with [leaf of OLD, leaf of NEW]. An entry of names.json that nothing needs is an error.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Recording = Mapping[str, Mapping[str, str]]  # case -> place -> leaf


class Names:
    """Old name -> new name, and which of them were used."""

    def __init__(self, new_of_old: Mapping[str, str]) -> None:
        for old, new in new_of_old.items():
            if old == new or old.count("*") != new.count("*") or old.count("*") > 1:
                raise ValueError(f"{old!r}: {new!r}: expected two different names, with one * each or with none")
        self.new_of_old = new_of_old
        self.patterns = sorted((old for old in new_of_old if "*" in old), key=len, reverse=True)
        self.used: set[str] = set()

    def __call__(self, name: str) -> str:
        if name in self.new_of_old:
            self.used.add(name)
            return self.new_of_old[name]
        for old in self.patterns:
            head, _, tail = old.partition("*")
            if len(name) >= len(head + tail) and name.startswith(head) and name.endswith(tail):
                self.used.add(old)
                return self.new_of_old[old].replace("*", name[len(head) : len(name) - len(tail)])
        return name


def translated(leaves: Mapping[str, str], keys: Names, values: Names) -> dict[str, str]:
    """The leaves of a case under their new names.

    Raises:
        ValueError: two places have the same new name.
    """
    result: dict[str, str] = {}
    for old, leaf in leaves.items():
        key = keys(old)
        if key in result:
            raise ValueError(f"{key}: the new name of two places")
        result[key] = repr(values(ast.literal_eval(leaf))) if leaf[:1] in "'\"" else leaf
    return result


def kind(key: str, leaf: str) -> str:
    if key.startswith("metrics.jsonl/"):
        return "metrics"
    return {"tensor": "tensors", "column": "columns"}.get(leaf.partition(" ")[0], "values")


def compare(old: Recording, new: Recording, names: Mapping[str, Any]) -> tuple[list[str], Counter[str]]:
    """Every difference as a line, and how many leaves of each kind were compared."""
    keys, values = Names(names["keys"]), Names(names["values"])
    added = Names({place: f"{place} " for place in names.get("added", ())})
    changed, shown = names.get("changed", {}), set()
    differences = [f"{case}: only in {'OLD' if case in old else 'NEW'}" for case in sorted({*old} ^ {*new})]
    compared: Counter[str] = Counter()
    for case in (case for case in old if case in new):
        before, after = translated(old[case], keys, values), new[case]
        for key in {**before, **after}:
            if key not in before and added(key) != key:
                continue
            if key in changed and [before.get(key), after.get(key)] == changed[key]:
                shown.add(key)
                continue
            if key not in after or key not in before:
                where, leaf = ("OLD", before[key]) if key in before else ("NEW", after[key])
                differences.append(f"{case}: {key}: only in {where}: {leaf}")
                continue
            compared[kind(key, after[key])] += 1
            if before[key] != after[key]:
                differences.append(f"{case}: {key}: {before[key]} -> {after[key]}")
    differences += [f"names.json: changed: {place!r} is not" for place in changed if place not in shown]
    for what, table in (("keys", keys), ("values", values), ("added", added)):
        unused = [name for name in table.new_of_old if name not in table.used]
        differences += [f"names.json: {what}: {name!r} translates nothing" for name in unused]
    return differences, compared


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0] + ".")
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    parser.add_argument("--names", type=Path, default=Path(__file__).with_name("names.json"), metavar="FILE")
    parser.add_argument("--case", help="compare this one only; names that translate nothing in it are no error")
    arguments = parser.parse_args()
    old, new, names = (json.loads(path.read_text("utf-8")) for path in (arguments.old, arguments.new, arguments.names))
    if arguments.case is not None:
        old, new = ({arguments.case: part[arguments.case]} for part in (old, new))
    differences, compared = compare(old, new, names)
    if arguments.case is not None:
        differences = [line for line in differences if not line.startswith("names.json: ")]
    print("\n".join(differences), end="\n" if differences else "")
    counts = ", ".join(f"{count} {what}" for what, count in sorted(compared.items())) or "nothing"
    print(f"compared {counts} of {len(old)} cases: {len(differences) or 'no'} differences")
    if differences or not compared:
        sys.exit(1)


if __name__ == "__main__":
    main()
