"""What is recorded of the code and the machine, and that nothing about it can make a run fail."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import cxrcl
from cxrcl.app import provenance

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
code_of = provenance.code_of.__wrapped__  # without what was found out before


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@y")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a package `labs_own`, in a repository whose last commit has it."""
    file = tmp_path / "repo" / "src" / "labs_own" / "__init__.py"
    file.parent.mkdir(parents=True)
    file.write_text("a = 1\n")
    repository = tmp_path / "repo"
    git(repository, "init", "-q")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "all")
    monkeypatch.syspath_prepend(str(file.parents[1]))
    return file


@needs_git
def test_the_commit_and_what_is_in_none(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = package.parents[2]
    clean = code_of("labs_own")
    assert clean.commit == git(repository, "rev-parse", "HEAD")
    assert (clean.changed, clean.patch, clean.patch_sha256, clean.note) == ((), None, None, None)
    package.write_text("a = 2\n")
    (package.parent / "new.py").write_text("")
    (repository / "notes.txt").write_text("no code")
    changed = code_of("labs_own")
    assert changed.changed == ("src/labs_own/__init__.py", "src/labs_own/new.py") and "not committed" in str(changed)
    assert changed.patch is not None and changed.patch_sha256 == hashlib.sha256(changed.patch).hexdigest()
    git(repository, "checkout", "-q", ".")
    subprocess.run(["git", "apply"], cwd=repository, input=changed.patch, check=True)
    assert package.read_text() == "a = 2\n"
    monkeypatch.setattr(provenance, "PATCH_BYTES", 10)
    long = code_of("labs_own")
    assert long.patch is None and long.patch_sha256 == changed.patch_sha256 and long.changed == changed.changed


@needs_git
def test_a_package_in_a_repository_that_does_not_know_it_has_no_commit(package: Path) -> None:
    git(package.parents[2], "rm", "-q", "--cached", "-r", ".")
    assert code_of("labs_own").facts == {}


def hangs(git: Path) -> None:
    git.write_text("#!/bin/sh\nexec sleep 60\n")
    git.chmod(0o755)


def refuses(git: Path) -> None:
    git.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership' >&2\nexit 128\n")
    git.chmod(0o755)


@pytest.mark.parametrize(("make", "said"), [(hangs, "timed out"), (refuses, "dubious"), (lambda git: None, "git")])
def test_a_git_that_hangs_refuses_or_is_missing_is_a_note(
    make: Callable[[Path], None], said: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    make(tmp_path / "bin" / "git")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin" if make is hangs else str(tmp_path / "bin"))
    if make is refuses:
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setattr(provenance, "GIT_S", 0.2)
    found = code_of("labs_own")
    assert found.commit is None and found.note is not None and said in found.note


def test_code_that_is_not_there_is_no_error() -> None:
    assert code_of("no_such_package_anywhere").facts == {}
    assert code_of("cxrcl").version == cxrcl.__version__


def test_the_environment_is_told_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"OMP_NUM_THREADS": "1", "NCCL_DEBUG": "INFO", "CUDA_VISIBLE_DEVICES": "0", "TOKENIZERS_PARALLELISM": "x"}
    secret = {"HF_TOKEN": "a", "TORCH_API_KEY": "b", "NCCL_SECRET": "c", "AWS_ACCESS_KEY_ID": "d", "PATH": "e"}
    assert provenance.variables({**given, **secret}) == given
    found = provenance.environment(torch.device("cpu"))
    assert found["packages"]["torch"].startswith(torch.__version__.partition("+")[0]) and "numpy" in found["packages"]
    assert found["threads"] == torch.get_num_threads() and "gpus" not in found
