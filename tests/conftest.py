"""Small data that all tests share. Nothing here needs a network, and every process keeps to one thread."""

from __future__ import annotations

import logging
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import command_line
import pytest
from command_line import Command
from tiny import TINY_RUN, TINY_TEXT, tiny_rows, write_rows, write_tiny_set


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the package says while the test runs, a message each: `log.messages`."""
    caplog.set_level(logging.INFO, logger="cxrcl")
    return caplog


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with manifest.csv and films; not to be written to."""
    return write_tiny_set(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def own_set(tmp_path: Path) -> Path:
    """The same folder, for a test that changes it."""
    return write_tiny_set(tmp_path / "own set")


@pytest.fixture
def rows() -> list[dict[str, str]]:
    return tiny_rows()


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """`put(rows)` writes a manifest and returns its folder."""

    def write(rows: Sequence[Mapping[str, Any]], folder: str = "put") -> Path:
        return write_rows(tmp_path / folder, rows).parent

    return write


@pytest.fixture(scope="session")
def tiny_run() -> list[str]:
    """Overrides that make a training of two steps, a second or two long; `data.root` is left to the test."""
    return list(TINY_RUN)


@pytest.fixture(scope="session")
def trained(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a CLIP trained for two steps."""
    from cxrcl.app.train import train
    from cxrcl.commands.hydra import compose

    folder = tmp_path_factory.mktemp("run")
    overrides = [*TINY_RUN, *TINY_TEXT, "evals=[]", f"data.root='{tiny_set}'", f"run_dir='{folder}'"]
    return train(compose("train", overrides)).checkpoint


@pytest.fixture
def clean_hydra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hydra keeps one global config; the entry points set HYDRA_FULL_ERROR."""
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """`command("pack", *words)`: a command run in this process: (exit status, standard output, standard error)."""

    def run(name: str, *words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        return command_line.run(name, *words), *capfd.readouterr()

    return run


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not drawn, which is two thirds of the time of a report that is not looked at."""
    from matplotlib.figure import Figure

    def savefig(figure: Figure, file: Any, **options: Any) -> None:
        (Path(file).write_bytes if isinstance(file, str | Path) else file.write)(b"")

    monkeypatch.setattr(Figure, "savefig", savefig)
