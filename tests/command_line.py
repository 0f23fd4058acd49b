"""The commands of the package as they are typed, in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable

import pytest
from hydra.core.global_hydra import GlobalHydra

Command = Callable[..., tuple[int, str, str]]


def run(name: str, *words: object) -> int:
    """The exit status of `cxrcl NAME WORDS`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        patch.setenv("HYDRA_FULL_ERROR", "1")  # set by the entry points: put back afterwards
        GlobalHydra.instance().clear()
        try:
            importlib.import_module(f"cxrcl.commands.{name}").main()
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            GlobalHydra.instance().clear()
    return 0


def said(name: str, *words: object, status: int = 0) -> str:
    """What `cxrcl NAME WORDS` prints, which has to end with `status`; fixtures of a module use it too."""
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        ended = run(name, *words)
    assert ended == status, printed.getvalue() + errors.getvalue()
    return printed.getvalue() + errors.getvalue()
