"""Commands that are run once at a commit, and what is remembered of them."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxrcl.errors import ConfigError
from cxrcl.evaluation.report.table import Table
from cxrcl.files import replaced

DOWNLOAD = "DOWNLOAD"  # stands in commands for a folder of this machine


@dataclass(frozen=True)
class Command:
    """A command as it is typed in the root of a checkout.

    Attributes:
        words: `python`, its file, its arguments.
    """

    words: tuple[str, ...]

    @property
    def line(self) -> str:
        return shlex.join(self.words)


def command(text: str, *more: object) -> Command:
    """`python` with the words of `text` and further ones, which may hold blanks."""
    return Command(("python", *text.split(), *map(str, more)))


@dataclass(frozen=True)
class Part:
    """One result.

    Attributes:
        name, title: on the command line, and on the page.
        text: what is measured, in a sentence or two.
        commands: in order; a part names all that it needs, and those that another part has run are not run again.
        read: the tables, from the files that the commands left.
        lacks: what is missing to measure it here; empty where nothing is.
    """

    name: str
    title: str
    text: str
    commands: Sequence[Command]
    read: Callable[[], Sequence[Table]]
    lacks: str = ""


@dataclass(frozen=True)
class Checkout:
    """Which source is measured.

    Attributes:
        folder: its root.
        commit: the whole hash.
        changes: a hash of what is not committed; empty where there is nothing.
    """

    folder: Path
    commit: str
    changes: str

    @property
    def is_dirty(self) -> bool:
        return bool(self.changes)

    @property
    def state(self) -> str:
        """The name of a folder for what was measured of this source."""
        return self.commit[:12] + (f"-{self.changes}" if self.changes else "")

    @classmethod
    def find(cls, folder: Path, page: Path) -> Checkout:
        """The checkout at `folder`; `page`, which is written by this command, is no change.

        Raises:
            ConfigError: no checkout of git.
        """

        def git(*words: str) -> str:
            found = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
            if found.returncode:
                raise ConfigError(
                    f"{folder}: no git checkout, and results are those of a commit: git clone the repository and "
                    "run the command there"
                )
            return found.stdout

        but = (
            (".", f":(exclude,top){os.path.relpath(page.resolve(), folder.resolve())}")
            if _inside(page, folder)
            else (".",)
        )
        status = git("status", "--porcelain", "--", *but)
        untracked = [
            folder / line for line in git("ls-files", "--others", "--exclude-standard", "--", *but).splitlines()
        ]
        content = git("diff", "HEAD", "--", *but).encode() + b"".join(
            file.read_bytes() for file in untracked if file.is_file()
        )
        changes = hashlib.sha256(status.encode() + content).hexdigest()[:8] if status else ""
        return cls(folder, git("rev-parse", "HEAD").strip(), changes)


def _inside(page: Path, folder: Path) -> bool:
    return page.resolve().is_relative_to(folder.resolve())


@dataclass
class Ledger:
    """Runs commands where this process works; remembers in `done.json` which have ended well, and how long they took.

    Attributes:
        folder: of one commit; logs of the commands lie in logs/.
        threads: of each command.
        places: word of a command -> what stands for it on this machine.
        failures: part -> why it failed this time.
    """

    folder: Path
    threads: int
    places: Mapping[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def seconds(self, line: str) -> float | None:
        """How long the command took; None where it has not ended well with as many threads."""
        found = self._done().get(f"OMP_NUM_THREADS={self.threads} {line}")
        return None if found is None else float(found)

    def run(self, part: Part) -> bool:
        """Run what is left of a part; whether all of it has ended well."""
        for k, each in enumerate(part.commands):
            if self.seconds(each.line) is None and not self._run(part.name, k, each):
                return False
        return True

    def _run(self, name: str, number: int, each: Command) -> bool:
        log = self.folder / "logs" / f"{name}-{number}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{name}: {each.line}", flush=True)
        words = [{"python": sys.executable, **self.places}.get(word, word) for word in each.words]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        started = time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            status = subprocess.run(words, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
        if status:
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[-1]
            self.failures[name] = f"`{each.line}` ended with status {status}: {last}"
            print(f"{name}: FAILED, status {status}: {last} ({log})", file=sys.stderr, flush=True)
            return False
        done = {**self._done(), f"OMP_NUM_THREADS={self.threads} {each.line}": round(time.monotonic() - started, 1)}
        with replaced(self.folder / "done.json") as target:
            target.write((json.dumps(done, indent=1) + "\n").encode())
        return True

    def _done(self) -> dict[str, float]:
        file = self.folder / "done.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
