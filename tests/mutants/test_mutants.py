"""The list of mistakes fits the code, and the tool tells those that a test sees from those that none does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import run
from run import ROOT, Mutant, killed_by, mutated, read_mutants

MUTANTS = read_mutants()
PLAIN = Mutant("cxrcl/a.py", "a < b", "a <= b", ("tests/test_a.py",), "equal numbers count")


@pytest.mark.parametrize("number", range(1, len(MUTANTS) + 1))
def test_each_mistake_can_be_made_today(number: int) -> None:
    mutant = MUTANTS[number - 1]
    compile(mutated(mutant, ROOT), mutant.file, "exec")  # `before` stands once, and the mistake is no typing error
    assert mutant.before != mutant.after and mutant.means
    assert mutant.file.startswith("cxrcl/") and mutant.tests
    assert [test for test in mutant.tests if not (ROOT / test).is_file()] == []


@pytest.mark.parametrize(("text", "count"), [("a > b\n", 0), ("a < b\na < b\n", 2)])
def test_a_mistake_that_does_not_fit_its_file_is_named(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "cxrcl").mkdir()
    (tmp_path / PLAIN.file).write_text(text)
    message = f"cxrcl/a.py: stands there {count} times, expected once: 'a < b': bring `before` and `after`"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        mutated(PLAIN, tmp_path)


@pytest.mark.parametrize(
    ("status", "printed", "killer"),
    [
        (0, "3 passed", None),
        (1, "F\nFAILED tests/data/test_a.py::test_b[1 of 2] - assert 1 == 2\n1 failed", "test_a.py::test_b[1 of 2]"),
        (1, "ERROR tests/test_a.py::test_b - ValueError: a - b\n", "test_a.py::test_b"),
        (2, "ERROR tests/test_a.py - ImportError: no\n", "test_a.py"),
    ],
)
def test_the_first_failure_is_what_kills(status: int, printed: str, killer: str | None) -> None:
    assert killed_by(status, printed) == killer


@pytest.mark.parametrize(("status", "printed"), [(4, "ERROR: file or directory not found: x"), (1, "nothing said")])
def test_tests_that_did_not_run_kill_nothing(status: int, printed: str) -> None:
    with pytest.raises(RuntimeError, match=f"pytest ended with status {status}"):
        killed_by(status, printed)


def test_a_row_shows_the_change_and_who_saw_it_or_what_it_means() -> None:
    assert run.row(3, PLAIN, "test_a.py::test_b") == "| 3 | a.py | `a < b` → `a <= b` | `test_a.py::test_b` |"
    dropped = Mutant("cxrcl/a.py", "    a |= b\n", "", PLAIN.tests, "b is lost")
    assert run.row(1, dropped, None) == "| 1 | a.py | `a \\|= b` → nothing | SURVIVED: b is lost |"


def test_the_copy_is_changed_and_not_the_checkout(tmp_path: Path) -> None:
    """A checkout of one function with one test, which sees one of two mistakes."""
    checkout, scratch = tmp_path / "checkout", tmp_path / "scratch"
    for name, text in {
        "cxrcl/__init__.py": "",
        "cxrcl/a.py": "def less(a, b):\n    return a < b\n",
        "tests/test_a.py": "from cxrcl.a import less\n\ndef test_less():\n    assert less(1, 2)\n",
        "pyproject.toml": "[tool.pytest.ini_options]\n",
        "train.py": "",
    }.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    run.copy_checkout(checkout, scratch)
    found = []
    for after in ("a > b", "a <= b"):
        text = mutated(Mutant("cxrcl/a.py", "a < b", after, PLAIN.tests, ""), checkout)
        (scratch / "cxrcl" / "a.py").write_text(text)
        found.append(killed_by(*run.run_tests(scratch, PLAIN.tests)))
    assert found == ["test_a.py::test_less", None]
    assert "a < b" in (checkout / "cxrcl" / "a.py").read_text() and (scratch / "train.py").is_file()


def test_a_number_that_is_not_in_the_list_is_refused() -> None:
    command = [sys.executable, str(ROOT / "tests" / "mutants" / "run.py"), "--only", "1", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == f"--only 1000: no such mistake, expected 1 to {len(MUTANTS)}\n"
