"""What all commands share: exit codes, mistakes answered in one line, the folder of the configs.

Nothing here imports torch: a misspelt key is answered at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from cxrcl.errors import ConfigError, DataError, UserError

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130


def config_folder() -> Path:
    """configs/ beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes become one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that takes a number from `least` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a number, {least} or more, found {text!r}")
        return int(text)

    return number


def guarded(command: Callable[[], None]) -> None:
    """Run a command; a mistake of the user is one line and exit status 2."""
    # Tokenisers run in forked workers, where their own threads do not survive.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with _logged():
            command()
    except DataError as error:  # an image may be damaged in the share of one process only
        _fail(str(error), MISTAKE, everywhere=True)
    except UserError as error:
        _fail(str(error), MISTAKE)
    except OSError as error:  # a full disk, a folder that went away
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", FAILED, everywhere=True)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if type(error).__module__ == "cxrcl.training.trainer":  # not imported here: it would import torch
            _fail(str(error), FAILED)
        raise


class _Printing(logging.StreamHandler):
    """Prints lines, and fails as a print does: logging would write a traceback for each line and go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # called while the error is handled


@contextmanager
def _logged() -> Iterator[None]:
    """What the package logs is printed, a line each. Used as a library it is silent, unless its user asks for it."""
    logger, handler = logging.getLogger("cxrcl"), _Printing(sys.stdout)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a package that configures the root logger would print each line again
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _fail(message: str, status: int, everywhere: bool = False) -> None:
    rank = os.environ.get("RANK", "0")
    if rank == "0" or everywhere:
        print(
            "error: " + (f"process {rank}: " if rank != "0" else "") + " ".join(message.split()),
            file=sys.stderr,
            flush=True,
        )
    sys.exit(status)


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def spelled(command: str) -> str:
    """How a command is typed here: `python train.py` in a checkout, which has entry files, else `cxrcl train`."""
    checkout = config_folder().parent
    for file in (f"{command}.py", f"scripts/{command}.py"):
        if (checkout / "pyproject.toml").is_file() and (checkout / file).is_file():
            return f"python {file}"
    return f"cxrcl {command}"
