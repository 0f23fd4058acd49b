"""Turn a download into a folder with manifest.csv: `cxrcl prepare chexpert --source DIR --out DIR`.

Each module of cxrcl.data.sources that defines `read(source, *, option=default, ...) -> Prepared` is a sub-command: the
first line of its docstring is the help, the section `Args:` that of its options. A keyword whose default is a dataclass
gives an option for each of its fields, but those that are None in this default. `back-translate` works on such a
folder: it adds reports in other words.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pkgutil
import re
import shlex
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import cxrcl.data.sources
from cxrcl.commands.entry import Parser, at_least, guarded, spelled

COMMON = ("source", "out", "force", "check_images", "drop_missing")
BACK_TRANSLATE = "back-translate"


def datasets() -> dict[str, str]:
    """Name and first line of help of each set, by its source text: no module is imported for a list."""
    summaries = {}
    for module in pkgutil.iter_modules(cxrcl.data.sources.__path__):
        text = (Path(next(iter(cxrcl.data.sources.__path__))) / f"{module.name}.py").read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name == "read":
                summaries[module.name] = (ast.get_docstring(node) or "").partition("\n")[0]
    return summaries


def reader(dataset: str) -> Callable[..., Any]:
    return importlib.import_module(f"cxrcl.data.sources.{dataset}").read


def rewriter() -> Callable[..., Any]:
    return importlib.import_module("cxrcl.data.back_translation").rewrite


def make_parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The parser of a command line; only the set that it names is imported."""
    parser = Parser(prog="prepare.py", description=(__doc__ or "").partition(":")[0] + ".", allow_abbrev=False)
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for name, text in {**datasets(), BACK_TRANSLATE: "add a second text to a prepared folder"}.items():
        read = (rewriter() if name == BACK_TRANSLATE else reader(name)) if name in arguments[:1] else None
        description = (inspect.getdoc(read) or "").partition("\nArgs:")[0] if read else None
        command = commands.add_parser(
            name,
            help=text.replace("%", "%%"),
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        flags = ("--manifest", "--source") if name == BACK_TRANSLATE else ("--source",)
        source = "a prepared folder" if name == BACK_TRANSLATE else "the folder as it was downloaded"
        command.add_argument(*flags, required=True, type=Path, dest="source", metavar="DIR", help=source)
        command.add_argument("--out", required=True, type=Path, help="the folder to make")
        command.add_argument(
            "--force", "--overwrite", action="store_true", help="write over a manifest.csv that is there"
        )
        command.add_argument(
            "--check-images",
            type=at_least(0),
            metavar="N",
            help="images to look for, drawn at random (default: all of fewer than 50,000, else 2,000)",
        )
        command.add_argument("--drop-missing", action="store_true", help="leave out rows whose image is not there")
        if read is not None:
            _add_options(command.add_argument_group("options of this set"), read)
    return parser


def _add_options(group: argparse._ActionsContainer, read: Callable[..., Any], defaults: object = None) -> None:
    """An option for each keyword of `read`, by its annotation: str, int, float, bool or Literal, | None or not."""
    texts, kinds = option_help(read), typing.get_type_hints(read)
    for name, default in _keywords(read).items():
        if is_dataclass(default):
            _add_options(group, type(default), default)
            continue
        default = getattr(defaults, name, default)
        if default is None and defaults is not None:
            continue
        settings: dict[str, Any] = {"required": default is inspect.Parameter.empty, "help": texts.get(name, "")}
        if default not in (inspect.Parameter.empty, None, ""):
            settings |= {"default": default, "help": f"{settings['help']} (default: %(default)s)"}
        else:
            settings["default"] = None if settings["required"] else default
        kind = kinds[name]
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is typing.Literal:
            settings |= {"choices": typing.get_args(kind), "type": type(typing.get_args(kind)[0])}
        elif kind is int:
            settings |= {"type": at_least(0), "metavar": "INT"}
        elif kind in (str, float):
            settings |= {"type": kind, "metavar": kind.__name__.upper()}
        else:
            raise TypeError(f"{read.__module__}.read: option {name} is {kind}: use str, int, float, bool or Literal")
        group.add_argument("--" + name.replace("_", "-"), **settings)


def call(read: Callable[..., Any], *folders: Path, **options: Any) -> Any:
    """What a reader answers to these options, some of which are fields of its keywords."""
    for name, default in _keywords(read).items():
        if is_dataclass(default) and not isinstance(default, type):
            fields = {field: options.pop(field) for field in _keywords(type(default)) if field in options}
            options[name] = replace(default, **fields)
    return read(*folders, **options)


def _keywords(read: Callable[..., Any]) -> dict[str, Any]:
    """Name and default of each keyword argument."""
    parameters = inspect.signature(read).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def option_help(read: Callable[..., Any]) -> dict[str, str]:
    """option -> its text in `Args:` or `Attributes:` of the docstring; several may share a line: `a, b: text`."""
    section = re.search(r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)*)", inspect.getdoc(read) or "", re.MULTILINE)
    texts: dict[str, str] = {}
    for entry in re.split(r"^[ ]{4}(?=\S)", section[1], flags=re.MULTILINE)[1:] if section else []:
        names, _, text = entry.partition(":")
        texts |= dict.fromkeys(names.split(", "), " ".join(text.split()).replace("%", "%%"))
    return texts


def main() -> None:
    guarded(run)


def run() -> None:
    arguments = vars(make_parser(sys.argv[1:]).parse_args())
    dataset, source, out = arguments.pop("dataset"), arguments["source"].expanduser(), arguments["out"].expanduser()
    from cxrcl.data.sources import card, writing

    writing.check_folders(source, out, arguments["force"])
    options = {name: value for name, value in arguments.items() if name not in COMMON}
    if dataset == BACK_TRANSLATE:
        prepared = call(rewriter(), source, out, **options)
    else:
        prepared = call(reader(dataset), source, **options)
    written = writing.write(
        prepared,
        out,
        dataset=dataset,
        source=source,
        options=options,
        version=f"cxrcl {cxrcl.__version__}",
        num_checked=arguments["check_images"],
        drop_missing=arguments["drop_missing"],
    )
    print(card.tables(written.card), end="\n\n")
    for reason, number in written.card["dropped"].items():
        print(f"dropped {number}: {reason}")
    for note in written.card["notes"]:
        print(f"note: {note}")
    print(f"written: {out / 'manifest.csv'}, {out / 'card.md'}\nnext: {next_command(written, out)}")


def next_command(written: Any, out: Path) -> str:
    """A command that runs on this set as it is."""
    from cxrcl.data.labels import CHEXPERT
    from cxrcl.data.sources.writing import has_mixed_studies

    splits: Mapping[str, Any] = written.card["splits"]
    labels = list(written.card["labels"])
    words = [f"data.root={shlex.quote(str(out))}"]
    if has_mixed_studies(written.table):
        words.append("data.unit=image")
    if "train" not in splits:
        return f"{spelled('evaluate')} checkpoint=CHECKPOINT {' '.join(words)} 'splits=[{','.join(splits)}]'"
    if splits["train"]["images with text"]:
        words.append("data.text=report")
    elif labels:
        words.append("data.text=prompts")
        if not set(labels) <= set(CHEXPERT):  # of which the default file speaks; this one speaks of any label
            words.append("prompts.file=evidence.json")
    else:
        words.insert(0, "objective=simclr")
    return f"{spelled('train')} {' '.join(words)}"
