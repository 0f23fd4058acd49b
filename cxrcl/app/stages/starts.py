"""config.yaml and starts.yaml of a run's folder: what was run, each time that it was started."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cxrcl.app import provenance
from cxrcl.app.job import Job
from cxrcl.config.nodes import differences
from cxrcl.config.sections import Train
from cxrcl.errors import first_line
from cxrcl.files import replaced
from cxrcl.training.run_log import utc_now

logger = logging.getLogger(__name__)

CONFIG, STARTS = "config.yaml", "starts.yaml"


def write_start(folder: Path, job: Job[Train], step: int) -> None:
    """Add this start to the folder, which has those before it.

    - `config.yaml`: the composed settings of this start.
    - `starts.yaml`: one entry a start: time, command, what changed of the settings since the start before (old and new
      value, so that all earlier settings can be told), code and environment.
    - `uncommitted_<hash>.patch`: changes of the code that are in no commit.

    Args:
        step: after which it goes on.
    """
    try:
        _write_start(folder, job, step)
    except Exception as error:  # whatever it is, a training is worth more than its record
        logger.warning(f"{folder / STARTS}: not written ({first_line(error)})")


def _write_start(folder: Path, job: Job[Train], step: int) -> None:
    settings, starts = plain_yaml(job.values), folder / STARTS
    before = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")) if (folder / CONFIG).is_file() else None
    changes = {} if before is None else _changes(before, yaml.safe_load(settings))
    code = provenance.code(job.packages)
    patches = {name: f"uncommitted_{each.patch_sha256[:12]}.patch" for name, each in code.items() if each.patch_sha256}
    entry = {
        "time": utc_now(),
        "command": job.typed.command or None,
        "overrides": list(job.typed.overrides),
        "folder": str(Path.cwd()),
        "host": platform.node(),
        "from_step": step,
        **({"changed_settings": changes} if changes else {}),
        "code": {
            name: {**each.facts, **({"patch": patches[name]} if each.patch else {})} for name, each in code.items()
        },
        "environment": {"processes": job.runtime.world, **provenance.environment(job.runtime.device)},
    }
    for name, each in code.items():
        if each.patch:
            _write(folder / patches[name], each.patch)
    earlier = starts.read_bytes() if starts.is_file() else b""
    _write(starts, earlier + plain_yaml([entry]).encode())
    _write(folder / CONFIG, settings.encode())


def plain_yaml(values: Any) -> str:
    """Plain values as YAML, in their order."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted key -> its value before and now."""
    return {key: {"before": _at(before, key), "now": _at(now, key)} for key in differences(before, now)}


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _write(path: Path, content: bytes) -> None:
    with replaced(path) as file:
        file.write(content)
