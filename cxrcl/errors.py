"""Mistakes that a person can mend: the command line prints them as one line and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

RESEARCH_ONLY = "Research use only; not for diagnosis."  # stands beside every score that is shown


class UserError(ValueError):
    """What was found, what was expected, and the remedy, in one line.

    Args:
        argument: the name of the argument, of the function or class that raises this, which mends the mistake. Whoever
            knows where that argument comes from can say so (`cxrcl.app.overrides`).
    """

    def __init__(self, message: str = "", *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class ConfigError(UserError):
    """A setting."""


class DataError(UserError):
    """A manifest, a text or an image."""


class CheckpointError(UserError):
    """A file that cannot be used as a checkpoint, and why."""


def nearest(name: str, known: Iterable[str], listed: bool = True) -> str:
    """' (did you mean `x`?)', else what is known where `listed`, else nothing."""
    names = sorted(str(k) for k in known)
    if match := difflib.get_close_matches(name, names, n=1):
        return f" (did you mean `{match[0]}`?)"
    return f" (known: {', '.join(names)})" if names and listed else ""


def first_line(error: BaseException) -> str:
    """Of another library's message, which may go on for pages, or say nothing at all."""
    return (str(error).strip() or repr(error)).splitlines()[0]
