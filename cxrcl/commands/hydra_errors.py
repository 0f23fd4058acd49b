"""Errors of Hydra and OmegaConf in one line, with the nearest setting that exists."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cxrcl.commands.entry import config_folder, spelled
from cxrcl.errors import first_line, nearest

# What the other commands call the same thing.
ELSEWHERE = {"checkpoint": "init_from", "init_from": "checkpoint", "out": "run_dir", "run_dir": "out"}


def _dotted(values: Any, prefix: str = "") -> Iterable[str]:
    for key, value in values.items() if isinstance(values, dict) else ():
        yield prefix + str(key)
        yield from _dotted(value, f"{prefix}{key}.")


def _near(key: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    in_other_sections = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    elsewhere = f" (did you mean `{in_other_sections[0]}`?)" if in_other_sections else ""
    return nearest(key, names, listed=False) or elsewhere


def _known_keys(name: str, overrides: list[str]) -> list[str]:
    """Settings of the config with the files of the groups that the command line chooses."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    chosen = [o for o in overrides if "=" in o and (config_folder() / o.partition("=")[0].partition("@")[0]).is_dir()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return list(_dotted(OmegaConf.to_container(hydra_compose(name, chosen), resolve=False)))


def hydra_line(name: str, error: Exception, overrides: list[str]) -> str:
    """What Hydra refused, in one line. Where its error has no attribute to ask, its English is read: see the tests."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = str(error)
    if match := re.match(r"Could not override '([^']+)'", text):
        key = match[1]
        groups = [folder.name for folder in config_folder().iterdir() if folder.is_dir()]
        known, other = _known_keys(name, overrides), ELSEWHERE.get(key)
        hint = f" (did you mean `{other}`?)" if other in known else _near(key, [*known, *groups])
        if "study.inits" in known and re.fullmatch(r"study\.inits\.\w+", key):
            hint += f"; a start of your own is added with +{key}=FILE"
        return f"{key}: no such setting{hint or f'; {spelled(name)} --cfg job shows all settings'}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        return f"{group}={option}: no such option{_near(option, options)}; options: {', '.join(options)}"
    if text.startswith("Config group override must be"):
        return "a group takes the name of one of its files, such as objective=clip, and ~group leaves it out"
    ambiguous = re.match(r"Ambiguous value for argument '([^']*)'", text)
    if ambiguous or isinstance(error, OverrideParseException):
        part = ambiguous[1] if ambiguous else error.override  # type: ignore[attr-defined]
        return f"{part!r} is not an override: write key=value, and quote the whole for lists: 'key=[a,b]'"
    return text.splitlines()[0]


def omegaconf_line(error: Exception) -> str:
    from omegaconf.errors import MissingMandatoryValue

    key = str(getattr(error, "full_key", "") or "")
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: has to be set: {key}=..."
    first = first_line(error)
    return f"{key}: {first}" if key else first
