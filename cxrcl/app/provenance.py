"""What was run: which code, with which libraries, on which machine. Nothing here can make a run fail."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import cxrcl
from cxrcl.app.job import C, Job
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.errors import first_line

GIT_S = 10.0  # for each question to git: on a network disk it may hang
PATCH_BYTES = 1_000_000  # of a longer patch the hash and the names of files alone are kept
FILES_NAMED = 50
# Of the environment only what decides how numbers come about: other variables may hold secrets.
_VARIABLES = re.compile(
    r"(OMP|MKL|OPENBLAS|KMP|NCCL|GLOO|CUDA|CUBLAS|CUDNN|PYTORCH|TORCH|TF32)_\w+|CUBLASLT_\w+|PYTHONHASHSEED|CXRCL_DATA|"
    r"(LOCAL_)?WORLD_SIZE|SLURM_(JOB_ID|NNODES|NTASKS)|TOKENIZERS_PARALLELISM|HF_HUB_OFFLINE|TRANSFORMERS_OFFLINE"
)
_SECRET = re.compile(r"TOKEN(?!IZERS)|SECRET|PASSW|KEY|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True)
class Code:
    """A package as it was imported.

    Attributes:
        version: None where the package tells none.
        commit: of the git checkout that it lies in; None without one.
        changed: files with changes that are not committed, and Python and YAML files that git does not know.
        patch: the changes to files that git knows; None where there are none, or they are too long to be kept.
        patch_sha256: of the changes, kept or not.
        note: why something is not known.
    """

    version: str | None
    commit: str | None = None
    changed: tuple[str, ...] = ()
    patch: bytes | None = None
    patch_sha256: str | None = None
    note: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What is known, as plain values; of many changed files the first ones."""
        more = len(self.changed) - FILES_NAMED
        named = [*self.changed[:FILES_NAMED], *([f"and {more} more"] if more > 0 else [])]
        known = {"version": self.version, "commit": self.commit, "changed": named, "patch_sha256": self.patch_sha256}
        return {key: value for key, value in (*known.items(), ("note", self.note)) if value}

    def __str__(self) -> str:
        at = f", commit {self.commit[:12]}" if self.commit else ""
        return f"{self.version or 'no version'}{at}{' with changes that are not committed' if self.changed else ''}"


@functools.cache  # as it was imported: what a file says later is not what runs
def code_of(package: str) -> Code:
    """The version of a package, and the state of the git checkout that it lies in.

    A package within a repository that does not know it (installed into a project's own environment) has no commit.
    """
    version = cxrcl.__version__ if package == "cxrcl" else _version(package)
    try:
        spec = importlib.util.find_spec(package)
        folder = Path(spec.origin).parent if spec is not None and spec.origin else None
        if folder is None or not any((parent / ".git").exists() for parent in folder.parents):
            return Code(version)
        if not _git(folder, "ls-files", "--", "*.py"):
            return Code(version)
        commit = _git(folder, "rev-parse", "HEAD").decode().strip()
        top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
        changed = _git(top, "diff", "--name-only", "-z", "HEAD")
        changed += _git(top, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py", "*.yaml")
        patch = _git(top, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    except (OSError, ValueError, ImportError, subprocess.SubprocessError) as error:
        # git is missing, hangs, or does not trust the folder
        said = getattr(error, "stderr", None)
        return Code(version, note=f"git: {first_line(ValueError(said.decode(errors='replace'))) if said else error}")
    return Code(
        version,
        commit,
        changed=tuple(name for name in changed.decode(errors="replace").split("\0") if name),
        patch=patch if 0 < len(patch) <= PATCH_BYTES else None,
        patch_sha256=hashlib.sha256(patch).hexdigest() if patch else None,
    )


def _git(folder: Path, *words: str) -> bytes:
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *words]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, timeout=GIT_S, check=True, env=environment
    ).stdout


def code(packages: Sequence[str] = OWN_PACKAGES) -> dict[str, Code]:
    """Each package whose classes a config may name."""
    return {name: code_of(name.partition(".")[0]) for name in packages}


def environment(device: torch.device) -> dict[str, Any]:
    """Libraries, machine and settings that figures may depend on, as plain values."""
    gpus = {}
    if device.type == "cuda":
        gpus = {
            "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device.type,
        **gpus,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "cores": cores,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "variables": variables(os.environ),
        "packages": _versions(),
    }


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """Of environment variables those that decide how numbers come about, and none that may be a secret."""
    return {k: v for k, v in sorted(given.items()) if _VARIABLES.fullmatch(k) and not _SECRET.search(k)}


@functools.cache
def _versions() -> dict[str, str]:
    """Versions of the libraries that cxrcl declares, those of extras as far as they are there."""
    try:
        declared = importlib.metadata.requires("cxrcl") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder: what it imported so far
        declared = sorted(name for name in sys.modules if "." not in name)
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in declared} - {"cxrcl"}
    found = {name: _version(name) for name in sorted(names)}
    return {name: version for name, version in found.items() if version}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def record(job: Job[C], started: str) -> dict[str, Any]:
    """What was run, as plain values for results.json: `made by` is the code in words."""
    packages = code(job.packages)
    return {
        "command": job.typed.command,
        "overrides": list(job.typed.overrides),
        "settings": dict(job.values),
        "started": started,
        "code": {name: each.facts for name, each in packages.items()},
        "environment": {"processes": job.runtime.world, **environment(job.runtime.device)},
        "made by": "; ".join(f"{name} {each}" for name, each in packages.items()),
    }
