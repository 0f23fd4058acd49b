"""What every stage of a training, or of an evaluation, needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cxrcl.config import sections
from cxrcl.distributed import Runtime


@dataclass(frozen=True)
class Typed:
    """What a person typed: the whole line, and the overrides of the config among it."""

    command: str = ""
    overrides: tuple[str, ...] = ()


FROM_PYTHON = Typed()
C = TypeVar("C", sections.Train, sections.Evaluate)


@dataclass(frozen=True)
class Job(Generic[C]):
    """What every stage needs.

    Attributes:
        cfg: the config, checked.
        values: the same as plain containers, as they go into checkpoints and reports.
        packages: whose classes configs and checkpoints may name.
        requested_evals: evaluators that the user named; "*" for all.
        typed: the command that was typed; nothing where Python called.
    """

    cfg: C
    values: Mapping[str, Any]
    packages: Sequence[str]
    requested_evals: Collection[str]
    runtime: Runtime
    typed: Typed
