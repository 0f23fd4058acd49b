"""Look for mistakes that no test sees: `python tests/mutants/run.py [--only 3 7]`.

mutants.toml lists small mistakes that a developer could make: in `file` the text `before` becomes `after`, and then the
test files `tests` should fail; `means` says what a user would get. The package and its tests are copied into a scratch
folder, and nothing is edited but the copy. There the tests run once as they are, and have to pass; then once for each
mistake, until the first failure. Printed is a Markdown table with the test that failed, or SURVIVED. Ends with status 1
where a mistake survived: it needs a test, or, where it makes no difference to anybody, another mistake in its place.

    python tests/mutants/run.py               # all: ten minutes on two cores
    python tests/mutants/run.py --only 3 7    # the third and the seventh

`before` has to stand exactly once in its file, which test_mutants.py checks: a change of the code takes its mistakes
along.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutants.toml")
COPIED = ("cxrcl", "configs", "scripts", "tests", "pyproject.toml")  # and the entry files, *.py
PYTEST = ("-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider", "-m", "not slow")
# A .pyc file of the same second and size would stand for the text that was there before.
PLAIN = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
LONGEST_S = 900  # a mistake that makes its tests wait for ever is noticed, too


@dataclass(frozen=True)
class Mutant:
    """One mistake, an entry of mutants.toml."""

    file: str  # of the package, from the checkout's folder
    before: str
    after: str
    tests: tuple[str, ...]  # test files
    means: str  # what a user would get


def read_mutants() -> list[Mutant]:
    """The mistakes of mutants.toml in their order; the first has the number 1."""
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def mutated(mutant: Mutant, checkout: Path) -> str:
    """The file of the mistake with the mistake.

    Raises:
        ValueError: `before` does not stand exactly once in the file.
    """
    text = (checkout / mutant.file).read_text(encoding="utf-8")
    if (count := text.count(mutant.before)) != 1:
        raise ValueError(
            f"{mutant.file}: stands there {count} times, expected once: {mutant.before.strip()!r}: "
            "bring `before` and `after` of this entry of mutants.toml up to date"
        )
    return text.replace(mutant.before, mutant.after)


def copy_checkout(checkout: Path, scratch: Path) -> None:
    """Copy what tests need into the folder `scratch`."""
    leave_out = shutil.ignore_patterns("__pycache__", ".*_cache")
    for source in [*(checkout / name for name in COPIED), *checkout.glob("*.py")]:
        if source.is_dir():
            shutil.copytree(source, scratch / source.name, ignore=leave_out)
        elif source.exists():
            shutil.copy(source, scratch / source.name)


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """The status of pytest (0: all passed, 1: a failure, 2: a file that cannot be imported) and what it printed."""
    env = os.environ | PLAIN | {"PYTHONPATH": str(folder)}
    command = [sys.executable, *PYTEST, *tests]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return 1, f"FAILED {tests[0]}::no end after {LONGEST_S} s"
    return done.returncode, done.stdout + done.stderr


def killed_by(status: int, printed: str) -> str | None:
    """The test that failed, without its folders; None where all passed.

    Raises:
        RuntimeError: pytest did not come to run the tests.
    """
    if status == 0:
        return None
    failure = re.search(r"^(?:FAILED|ERROR) (?:\S*/)?(\S+\.py(?:::.+?)?)(?: - .*)?$", printed, re.MULTILINE)
    if status not in (1, 2) or failure is None:
        raise RuntimeError(f"pytest ended with status {status}:\n{printed}")
    return failure[1]


def row(number: int, mutant: Mutant, killer: str | None) -> str:
    """A line of the table."""

    def code(text: str) -> str:
        return f"`{' '.join(text.split())}`".replace("|", "\\|") if text.strip() else "nothing"

    change = f"{code(mutant.before)} → {code(mutant.after)}"
    file = mutant.file.removeprefix("cxrcl/")
    return f"| {number} | {file} | {change} | {'SURVIVED: ' + mutant.means if killer is None else code(killer)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0] + ".")
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="these only; the first is 1")
    arguments = parser.parse_args()
    mutants = dict(enumerate(read_mutants(), start=1))
    if unknown := set(arguments.only or ()) - set(mutants):
        sys.exit(f"--only {min(unknown)}: no such mistake, expected 1 to {len(mutants)}")
    chosen = {number: mutants[number] for number in arguments.only or mutants}
    try:
        texts = {number: mutated(mutant, ROOT) for number, mutant in chosen.items()}
    except ValueError as error:
        sys.exit(str(error))
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        scratch = Path(folder).resolve()
        copy_checkout(ROOT, scratch)
        status, printed = run_tests(scratch, sorted({test for mutant in chosen.values() for test in mutant.tests}))
        if status:
            sys.exit(f"{printed}\nthe tests do not pass as they are: mend them first")
        print("| | file | change | killed by |\n|---|---|---|---|", flush=True)
        for number, mutant in chosen.items():
            target = scratch / mutant.file
            whole = target.read_text(encoding="utf-8")
            target.write_text(texts[number], encoding="utf-8")
            killer = killed_by(*run_tests(scratch, mutant.tests))
            target.write_text(whole, encoding="utf-8")
            print(row(number, mutant, killer), flush=True)
            survivors += killer is None
    if survivors:
        sys.exit(f"{survivors} of {len(chosen)} survived")


if __name__ == "__main__":
    main()
