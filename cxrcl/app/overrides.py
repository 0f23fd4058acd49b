"""Which override mends a mistake: the rooms below name their own argument, and only the app knows its key."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cxrcl.errors import UserError
from cxrcl.training.trainer import NonFinite

# By the argument that an error names.
LOADING = {
    "root": "data.root=DIR",
    "labels": "data.labels=[...]",
    "check_patients": "data.check_patients=false",
    "allow_outside_root": "data.allow_outside_root=true",
    "views": "data.views=[...]",
    "filters": "data.filter={...}",
}
LISTS = {"split_lists": "data.split_lists=DIR", "fraction": "data.fraction=1"}
TEXTS = {
    "labels": "data.labels=[...]",
    "num_negatives": "prompts.num_negatives=0",
    "uncertain": "prompts.uncertain=false",
}
SAMPLES = {"unit": "data.unit=image", "texts": "data.text=prompts"}
BATCHES = {"batch_size": "trainer.batch_size=..."}
_WORDS = ("null", "true", "false", "nan", "inf")  # which are no text where they stand without quotes
FITTING = {
    "learning_rate": "optimizer.lr=..., or trainer.precision=fp32",
    "max_bad_fraction": "data.max_bad_fraction=...",
    "select": "trainer.select=...",
}


@contextmanager
def explained(overrides: Mapping[str, str]) -> Iterator[None]:
    """Put the override that mends a mistake at the end of its line; a decorator, too.

    Args:
        overrides: argument of the code inside -> what sets it on the command line.
    """
    try:
        yield
    except (UserError, NonFinite) as error:
        override = overrides.get(error.argument or "")
        if override is None:
            raise
        raise type(error)(f"{error} (on the command line: {override})") from None


def as_override(key: str, value: Any) -> str:
    """A setting as it is typed, in quotes where a shell needs them.

    >>> as_override("data.views", ["PA", "AP axial"])
    "'data.views=[PA,\"AP axial\"]'"
    """
    return shlex.quote(f"{key}={_typed(value)}")


def _typed(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_typed(key)}:{_typed(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_typed, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str) or (re.fullmatch(r"[A-Za-z_]\w*", value) and value.lower() not in _WORDS):
        return str(value)
    return '"' + value.replace('"', '\\"') + '"'
