"""The entry points: Hydra and argparse in front of `cxrcl.app`, every mistake of the user in one line.

torch is imported only after the config has been composed, so a misspelt key is answered at once.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cxrcl.errors import ConfigError, DataError, UserError

if TYPE_CHECKING:
    from cxrcl.evaluation.page.parts import Page

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130
# What the other commands call the same thing.
ELSEWHERE = {"checkpoint": "init_from", "init_from": "checkpoint", "out": "run_dir", "run_dir": "out"}
HYDRA_OPTIONS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info"),
    *("--config-path", "--config-name", "--config-dir", "--shell-completion", "--experimental-rerun"),
    *("-h", "-c", "-p", "-r", "-m", "-i", "-cp", "-cn", "-cd", "-sc"),
)


def config_folder() -> Path:
    """configs/ beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def train() -> None:
    guarded(lambda: _hydra("train", _train))


def finetune() -> None:
    guarded(lambda: _hydra("finetune", _finetune))


def evaluate() -> None:
    guarded(lambda: _hydra("evaluate", _evaluate))


def inference() -> None:
    from cxrcl.inference import command

    guarded(command.main)


class Parser(argparse.ArgumentParser):
    """Of the scripts: a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def guarded(command: Callable[[], None]) -> None:
    """Run a command; a mistake of the user is one line and exit status 2."""
    # Tokenisers run in forked workers, where their own threads do not survive.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        command()
    except DataError as error:  # a film may be damaged in the share of one process only
        _fail(str(error), MISTAKE, everywhere=True)
    except UserError as error:
        _fail(str(error), MISTAKE)
    except OSError as error:  # a full disk, a folder that went away
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", FAILED, everywhere=True)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if type(error).__module__ == "cxrcl.trainer":  # not imported here: it would import torch
            _fail(str(error), FAILED)
        raise


def _fail(message: str, status: int, everywhere: bool = False) -> None:
    rank = os.environ.get("RANK", "0")
    if rank == "0" or everywhere:
        print(
            "error: " + (f"process {rank}: " if rank != "0" else "") + " ".join(message.split()),
            file=sys.stderr,
            flush=True,
        )
    sys.exit(status)


# ------------------------------------------------------------------------------------------------- Hydra


def _take_packages(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
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


def _hydra(name: str, command: Callable[[dict[str, Any], list[str], tuple[str, ...]], None]) -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise instead of printing a stack trace and exiting with 1
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    rest, packages = _take_packages(sys.argv[1:])
    sys.argv[1:] = _options_first(rest)
    failures: list[BaseException] = []

    def run_one(cfg: DictConfig) -> None:
        try:
            values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ConfigError(_omegaconf_line(error)) from None
        overrides = list(HydraConfig.get().overrides.task)
        _check_data_choices(name, overrides, values)
        _one_duration(values, overrides)
        command(values, overrides, packages)

    def task(cfg: DictConfig) -> None:
        # Kept and raised below: Hydra would print a hint about stack traces, and end a sweep at its first failure.
        try:
            run_one(cfg)
        except Exception as error:
            failures.append(error)

    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)(task)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_hydra_line(name, error, sys.argv[1:])) from None
    if failures:
        raise failures[0]


def _finetune(values: dict[str, Any], overrides: list[str], packages: tuple[str, ...]) -> None:
    from cxrcl import study

    study.check_unseen(values)
    _train(values, overrides, packages)


def _train(values: dict[str, Any], overrides: list[str], packages: tuple[str, ...]) -> None:
    if values.get("study") is not None:
        _study(values, packages)
        return
    from cxrcl import app, config

    done = app.train(values, evals_asked=_evals_asked(overrides), packages=(*config.OWN_PACKAGES, *packages))
    if os.environ.get("RANK", "0") == "0":
        print(f"checkpoint: {done.checkpoint}\nTensorBoard: tensorboard --logdir {_quoted(done.folder)}")
        evals = f" 'evals=[{done.evals}]'" if done.evals else ""
        print(f"next: python evaluate.py checkpoint={_quoted(done.checkpoint)}{evals}")
    if not done.finished:
        sys.exit(INTERRUPTED)


def _study(values: dict[str, Any], packages: tuple[str, ...]) -> None:
    """Many trainings, one after the other, in this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("study: its trainings run one after the other in a single process: start it without torchrun")
    from cxrcl import app, config, study

    given = config.parse(values, config.Train)
    assert given.study is not None
    allowed = (*config.OWN_PACKAGES, *packages)
    folder = Path(given.run_dir or f"outputs/{given.name}").expanduser()
    finished = study.run(
        *(values, given.study, folder),
        train=lambda settings: app.train(settings, evals_asked=("*",), packages=allowed),
        evaluate=lambda settings: app.evaluate(settings, packages=allowed).results,
        say=lambda line: print(line, flush=True),
    )
    if not finished:
        sys.exit(INTERRUPTED)
    print((folder / "study.md").read_text(encoding="utf-8"))
    print(f"table and picture: {_quoted(folder / 'study.md')}, {_quoted(folder / 'study.png')}")


def _evals_asked(overrides: list[str]) -> list[str]:
    """Evaluators that the command line names: "*" for evals=[...], else those with a setting of their own."""
    named = [re.match(r"[+~]*evals(?:\.(\w+)|=)", override) for override in overrides]
    return [match[1] or "*" for match in named if match]


def _evaluate(values: dict[str, Any], overrides: list[str], packages: tuple[str, ...]) -> None:
    from cxrcl import app, checkpoint_files, config
    from cxrcl.evaluation import report

    asked, allowed = _evals_asked(overrides), (*config.OWN_PACKAGES, *packages)
    command = f"python evaluate.py {shlex.join(sys.argv[1:])}"
    out = Path(values.get("out") or checkpoint_files.beside(values["checkpoint"], values["splits"])).expanduser()
    check_folder(out)
    scored = app.evaluate(values, packages=allowed, asked=asked, command=command)
    if scored.page is not None:
        written = write_report(out, scored.page)  # before the tables: `| head` ends the process at these
        several = {one.name: one.figures for one in scored.page.proper}
        shown = report.tables_of_several(several) if len(several) > 1 else report.tables(scored.results)
        print(f"\n{shown}\n\nreport: {written}")


def check_folder(out: Path) -> None:
    """Raises ConfigError where a report could not be written: before the work, and not after it."""
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(f"out={out}: cannot write there ({nearest} is no folder that you may write to)")


def write_report(folder: Path, page: Page) -> Path:
    """The files of a report in `folder`; returns the page to look at."""
    from cxrcl.evaluation import output

    try:
        return output.write(folder, page)[0]
    except OSError as error:
        raise ConfigError(f"out={folder}: cannot write there ({error.strerror})") from None


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


# ------------------------------------------------------------------------------------------ Hydra's errors


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
        raise ConfigError(_hydra_line(name, error, overrides)) from None


def _dotted(values: Any, prefix: str = "") -> Iterable[str]:
    for key, value in values.items() if isinstance(values, dict) else ():
        yield prefix + str(key)
        yield from _dotted(value, f"{prefix}{key}.")


def _near(key: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    if not close:  # the right key in the wrong section
        close = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]][:1]
    return f" (did you mean `{close[0]}`?)" if close else ""


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


def _hydra_line(name: str, error: Exception, overrides: list[str]) -> str:
    text = str(error)
    if match := re.match(r"Could not override '([^']+)'", text):
        key = match[1]
        groups = [folder.name for folder in config_folder().iterdir() if folder.is_dir()]
        known, other = _known_keys(name, overrides), ELSEWHERE.get(key)
        hint = f" (did you mean `{other}`?)" if other in known else _near(key, [*known, *groups])
        if "study.inits" in known and re.fullmatch(r"study\.inits\.\w+", key):
            hint += f"; a start of your own is added with +{key}=FILE"
        return f"{key}: no such setting{hint or f'; python {name}.py --cfg job shows all settings'}"
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
        found = match[1] or match[2]
        found = next((whole for whole in overrides if found in whole and "=" not in whole), found)  # a path, say
        return f"{found!r} is not an override: write key=value, and quote the whole for lists: 'key=[a,b]'"
    return text.splitlines()[0]


def _omegaconf_line(error: Exception) -> str:
    key = str(getattr(error, "full_key", "") or "")
    first = str(error).splitlines()[0]
    if "Missing mandatory value" in first:
        return f"{key}: has to be set: {key}=..."
    return f"{key}: {first}" if key else first


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
