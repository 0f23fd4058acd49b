"""docs/extending.md: what it tells people to paste works as it is pasted."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = ("train.py", "evaluate.py", "pyproject.toml")
FOLDERS = ("cxrcl", "configs", "scripts", "tests")


class Block(NamedTuple):
    language: str
    content: str
    file: str | None  # the first `path` of the paragraph before the block


def blocks() -> list[Block]:
    """The fenced blocks of the page, in order."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    found, end = [], 0
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        paragraph = text[end : match.start()].strip().rpartition("\n\n")[2]
        named = re.search(r"`(\w+/[\w/]+\.(?:py|yaml))`", paragraph)
        end = match.end()
        found.append(Block(match[1], match[2], named[1] if named else None))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the checkout with the files of the page in it."""
    place = tmp_path / "my copy"
    place.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, place)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks():
        if block.language in ("python", "yaml"):
            assert block.file is not None, block.content[:60]
            path = place / block.file
            assert not path.exists(), "an extension edits no file"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.content, encoding="utf-8")
    return place


def run(line: str, folder: Path) -> None:
    words = shlex.split(line)
    assert words[0] == "python", line
    environment = {**os.environ, "PYTHONPATH": str(folder), "CXRCL_DATA": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_every_kind_of_extension_has_code_and_a_command() -> None:
    kinds = [block.language for block in blocks()]
    assert kinds.count("python") >= 4 and kinds.count("yaml") >= 3 and kinds.count("bash") >= 3


@pytest.mark.slow
def test_the_files_and_commands_of_the_page_work_in_order(folder: Path) -> None:
    for block in blocks():
        for line in block.content.splitlines() if block.language == "bash" else ():
            run(line, folder)
    assert (folder / "outputs" / "pairwise" / "checkpoints" / "last.pt").is_file()
    assert (folder / "outputs" / "stripes" / "checkpoints" / "last.pt").is_file()
