"""Hydra: a command line becomes a composed config, as plain containers.

The only module, with `hydra_errors`, that knows Hydra and OmegaConf.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from typing import Any

from cxrcl.commands.entry import config_folder, spelled
from cxrcl.commands.hydra_errors import hydra_line, omegaconf_line
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.errors import ConfigError

HYDRA_OPTIONS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info"),
    *("--config-path", "--config-name", "--config-dir", "--shell-completion", "--experimental-rerun"),
    *("-h", "-c", "-p", "-r", "-m", "-i", "-cp", "-cn", "-cd", "-sc"),
)


def split_packages(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Split `--allow-package NAME` (repeatable) off the command line."""
    rest: list[str] = []
    packages: list[str] = []
    iterator = iter(arguments)
    for argument in iterator:
        if argument == "--allow-package":
            packages.append(next(iterator, ""))
        elif argument.startswith("--allow-package="):
            packages.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    if any(not re.fullmatch(r"[A-Za-z_][\w.]*", name) for name in packages):
        raise ConfigError("--allow-package needs the name of a Python package")
    return rest, tuple(packages)


def _options_first(arguments: list[str]) -> list[str]:
    """Hydra's own options before the overrides: its parser takes no overrides after an option in their middle."""
    for argument in arguments:
        if argument.startswith("-") and argument.partition("=")[0] not in HYDRA_OPTIONS:
            raise ConfigError(f"{argument}: no such option; settings are written key=value, without dashes")
    ordered = sorted(arguments, key=lambda argument: re.match(r"~|[+]*[\w.@/]+=", argument) is not None)
    return [_as_hydra_reads(argument) for argument in ordered]


def _as_hydra_reads(argument: str) -> str:
    """An override in Hydra's grammar, which takes `Röntgen`, `Data (1)` and `~/data` in quotes only.

    `data.filter` takes any column, which to Hydra is a key to be added.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    match = re.fullmatch(r"([\w.@/]+|[+]+[\w.@/]+)=([^=\[{'\"].*)", argument, re.DOTALL)
    if match is not None:
        try:
            OverridesParser.create().parse_override(argument)
        except HydraException:
            quoted = match[2].replace("'", r"\'")
            argument = f"{match[1]}='{quoted}'"
    return f"++{argument}" if re.match(r"data\.filter(\.[^=]*)?=", argument) else argument


def run_composed(name: str, command: Callable[[dict[str, Any], list[str], tuple[str, ...], str], None]) -> None:
    """Compose the config `name` from the command line, and call `command(values, overrides, packages, typed)`.

    Raises:
        ConfigError: what Hydra refuses, in one line.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise instead of printing a stack trace and exiting with 1
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    typed = f"{spelled(name)} {shlex.join(sys.argv[1:])}"
    rest, packages = split_packages(sys.argv[1:])
    sys.argv[1:] = _options_first(rest)
    failures: list[BaseException] = []

    def run_one(cfg: DictConfig) -> None:
        try:
            values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ConfigError(omegaconf_line(error)) from None
        overrides = list(HydraConfig.get().overrides.task)
        _check_data_choices(name, overrides, values)
        _one_duration(values, overrides)
        command(values, overrides, (*OWN_PACKAGES, *packages), typed)

    def task(cfg: DictConfig) -> None:
        # Kept and raised below: Hydra would print a hint about stack traces, and end a sweep at its first failure.
        try:
            run_one(cfg)
        except Exception as error:
            failures.append(error)

    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)(task)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(hydra_line(name, error, sys.argv[1:])) from None
    if failures:
        raise failures[0]


def requested_evals(overrides: list[str]) -> list[str]:
    """Evaluators that the command line names: "*" for evals=[...], else those with a setting of their own."""
    named = [re.match(r"[+~]*evals(?:\.(\w+)|=)", override) for override in overrides]
    return [match[1] or "*" for match in named if match]


def compose(name: str, overrides: list[str]) -> dict[str, Any]:
    """The config that a command line gives, as plain containers."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = hydra_compose(name, [_as_hydra_reads(override) for override in overrides])
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    _one_duration(values, overrides)
    return values


def _one_duration(values: dict[str, Any], overrides: list[str]) -> None:
    """A duration named on the command line, in steps or epochs, stands in place of the config's in the other unit."""
    named = {override.partition("=")[0].lstrip("+~") for override in overrides}
    trainer = values.get("trainer") or {}
    for what in ("max", "warmup", "evaluate_every"):
        for unit, other in (("steps", "epochs"), ("epochs", "steps")):
            given, shadowed = f"{what}_{unit}", f"{what}_{other}"
            if f"trainer.{given}" in named and trainer.get(given) is not None and f"trainer.{shadowed}" not in named:
                trainer[shadowed] = None


def compose_or_explain(name: str, overrides: list[str]) -> dict[str, Any]:
    """`compose`, with Hydra's errors as one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return compose(name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(hydra_line(name, error, overrides)) from None


def _check_data_choices(name: str, overrides: list[str], values: dict[str, Any]) -> None:
    """data=[a,b]: each file must fill a key of its own, else Hydra merges them into one without a word."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    loader = GlobalHydra.instance().config_loader()
    chosen = [
        entry.config_path.removeprefix("data/")
        for entry in loader.compute_defaults_list(name, overrides, RunMode.RUN).defaults
        if entry.config_path and entry.config_path.startswith("data/")
    ]
    named = [o.partition("=")[2].strip("[]").split(",") for o in overrides if o.startswith("data=")]
    twice = [option for options in named for option in options if options.count(option) > 1]
    if twice:
        raise ConfigError(f"data=[...]: {twice[0]} stands twice: name each source once")
    sources = (values.get("data") or {}).get("sources") or {}
    for option in chosen:
        if len(chosen) > 1 and option not in sources:
            raise ConfigError(
                f"configs/data/{option}.yaml does not fill data.sources.{option}: "
                "with several sources each file needs a key of its own, equal to its name"
            )
