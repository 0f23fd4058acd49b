"""Errors of Hydra and OmegaConf in one line, with the nearest setting that exists."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cxrcl.commands.entry import config_folder, spelled
from cxrcl.errors import nearest

# What the other commands call the same thing.
ELSEWHERE = {"checkpoint": "init_from", "init_from": "checkpoint", "out": "run_dir", "run_dir": "out"}


def _dotted(values: Any, prefix: str = "") -> Iterable[str]:
    for key, value in values.items() if isinstance(values, dict) else ():
        yield prefix + str(key)
        yield from _dotted(value, f"{prefix}{key}.")


def _near(key: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    in_other_sections = (name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2])
    if hint := nearest(key, names, listed=False):
        return hint
    return f" (did you mean `{name}`?)" if (name := next(in_other_sections, None)) else ""


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
    text = str(error)
    if match := re.match(r"Could not override '([^']+)'", text):
        key = match[1]
        groups = [folder.name for folder in config_folder().iterdir() if folder.is_dir()]
        known, other = _known_keys(name, overrides), ELSEWHERE.get(key)
        hint = f" (did you mean `{other}`?)" if other in known else _near(key, [*known, *groups])
        if "study.inits" in known and re.fullmatch(r"study\.inits\.\w+", key):
            hint += f"; a start of your own is added with +{key}=FILE"
        return f"{key}: no such setting{hint or f'; {spelled(name)} --cfg job shows all settings'}"
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        group, option = match[1], match[2]
        options = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        return f"{group}={option}: no such option{_near(option, options)}; options: {', '.join(options)}"
    if text.startswith("Config group override must be"):
        return "a group takes the name of one of its files, such as objective=clip, and ~group leaves it out"
    grammar = (
        r"(?:Error parsing override|Ambiguous value for argument|no viable alternative at input"
        r"|mismatched input|extraneous input|token recognition error at:) '([^']*)'|LexerNoViableAltException: (\S+)"
    )
    if match := re.search(grammar, text):
        part = match[1] or match[2]
        part = next((whole for whole in overrides if part in whole and "=" not in whole), part)  # a path, say
        return f"{part!r} is not an override: write key=value, and quote the whole for lists: 'key=[a,b]'"
    return text.splitlines()[0]


def omegaconf_line(error: Exception) -> str:
    key = str(getattr(error, "full_key", "") or "")
    first = str(error).splitlines()[0]
    if "Missing mandatory value" in first:
        return f"{key}: has to be set: {key}=..."
    return f"{key}: {first}" if key else first
