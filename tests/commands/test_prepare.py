"""scripts/prepare.py: sets found, options made of signatures, and whole runs."""

from __future__ import annotations

import inspect
import json
import shlex
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from cxrcl.app.train import train
from cxrcl.commands import prepare
from cxrcl.commands.entry import guarded
from cxrcl.commands.hydra import compose
from cxrcl.data import manifest
from cxrcl.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_with_a_reader_is_a_set_and_no_other() -> None:
    found = prepare.datasets()
    assert {"cxr_real", "table", "folders", "labels_csv"} <= set(found)
    assert not {"base", "phantom", "writing", "card", "cells", "image_files"} & set(found)
    assert all(found.values())


@pytest.mark.parametrize("dataset", prepare.datasets())
def test_every_option_of_every_set_is_documented(dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    read = prepare.reader(dataset)
    keywords = {p.name: p.default for p in list(inspect.signature(read).parameters.values())[1:]}
    groups = {name: default for name, default in keywords.items() if is_dataclass(default)}
    assert set(prepare.option_help(read)) - {"source"} == keywords.keys() - groups.keys()
    assert all(set(prepare.option_help(type(group))) == vars(group).keys() for group in groups.values())
    with pytest.raises(SystemExit):
        prepare.make_parser([dataset]).parse_args([dataset, "--help"])
    shown = capsys.readouterr().out
    fields = {name: default for group in groups.values() for name, default in vars(group).items()}
    for name in keywords.keys() - groups.keys() | fields.keys():
        assert (f"--{name.replace('_', '-')} " in shown) == (name in keywords or fields[name] is not None)
    assert "Args:" not in shown


@pytest.mark.parametrize(
    ("dataset", "valid", "test"),
    [
        *(("chexpert", 0.0, None), ("covidx", 0.1, None), ("nih", 0.1, None), ("vindr", 0.2, None)),
        *(("openi", 0.1, 0.2), ("padchest", 0.1, 0.1), ("rsna", 0.15, 0.15), ("siim", 0.15, 0.15)),
        *(("folders", 0.1, 0.1), ("labels_csv", 0.1, 0.1), ("table", 0.1, 0.1)),
    ],
)
def test_the_fractions_of_each_set(dataset: str, valid: float, test: float | None) -> None:
    line = [dataset, "--source", "s", "--out", "o"]
    given = vars(prepare.make_parser(line).parse_args(line))
    assert (given["valid_fraction"], given.get("test_fraction"), given["seed"]) == (valid, test, 0)


def test_the_list_of_sets_imports_none_of_them() -> None:
    code = (
        "import sys; from cxrcl.commands import prepare; prepare.make_parser(['--help']).format_help();"
        "print([n for n in ('pandas', 'numpy', 'torch', 'PIL') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert found.stdout.strip() == "[]", found.stderr


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes.

    Attributes:
        width: in pixels.
        height: in pixels, too.
        depth: in pixels, if at all.
    """

    width: int = 1
    height: int = 2
    depth: int | None = 3


def a_reader(
    source: Path,
    *,
    name: str,
    share: float = 0.5,
    number: int = 3,
    frontal: bool = True,
    rule: Literal["any", "all"] = "any",
    limit: int | None = None,
    sizes: Sizes = Sizes(height=20, depth=None),
) -> Any:
    """A set.

    It has options.

    Args:
        name: 100% needed,
            on two lines.
        share, number: two at once.
        frontal: a switch.
        rule: a choice.
        limit: none by default.
    """
    return source, name, limit, sizes


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr(prepare, "datasets", lambda: {"a_set": "A set."})
    monkeypatch.setattr(prepare, "reader", lambda name: a_reader)

    def run(*arguments: str) -> dict[str, Any]:
        line = ["a_set", "--source", "s", "--out", "o", *arguments]
        return vars(prepare.make_parser(line).parse_args(line))

    return run


def test_options_are_made_of_the_signature(parse: Callable[..., dict[str, Any]]) -> None:
    given = parse("--name", "x")
    common = {"source": Path("s"), "out": Path("o"), "force": False, "check_images": None, "drop_missing": False}
    defaults = {"name": "x", "share": 0.5, "number": 3, "frontal": True, "rule": "any", "limit": None}
    defaults |= {"width": 1, "height": 20}
    assert given == {"dataset": "a_set", **common, **defaults}
    line = "--name=x --share=0.1 --number 4 --no-frontal --rule all --limit 2 --width 7 --check-images 5 --force"
    given = parse(*shlex.split(line))
    assert [given[k] for k in defaults] == ["x", 0.1, 4, False, "all", 2, 7, 20] and given["check_images"] == 5
    assert given["force"]


def test_fields_of_a_keyword_are_options_unless_they_are_none(parse: Callable[..., dict[str, Any]]) -> None:
    options = {name: value for name, value in parse("--name", "x", "--width=7").items() if name in ("name", "width")}
    answer = prepare.call(a_reader, Path("s"), **options)
    assert answer == (Path("s"), "x", None, Sizes(width=7, height=20, depth=None))
    with pytest.raises(ConfigError, match="unrecognized arguments: --depth=1"):
        parse("--name", "x", "--depth=1")


def test_help_is_made_of_the_docstring(
    parse: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "A set. It has options." in shown and "--name STR 100% needed, on two lines." in shown
    assert "--share FLOAT two at once. (default: 0.5)" in shown and "--number INT two at once. (default: 3)" in shown
    assert "--rule {any,all} a choice. (default: any)" in shown
    assert "--height INT in pixels, too. (default: 20)" in shown and "depth" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: --name"),
        (["--name", "x", "--number", "many"], "argument --number: expected a number, 0 or more, found 'many'"),
        (["--name", "x", "--rule", "none"], "argument --rule: invalid choice"),
        (["--name", "x", "--check-images", "-3"], "argument --check-images"),
        (["--name", "x", "--numb", "3"], "unrecognized arguments: --numb"),
    ],
)
def test_mistakes_in_options_are_one_line(
    parse: Callable[..., dict[str, Any]], arguments: list[str], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(*arguments)
    assert said in str(caught.value) and "--help" in str(caught.value)


def test_an_option_of_another_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: Path, *, names: tuple[str, ...] = ()) -> None: ...

    monkeypatch.setattr(prepare, "reader", lambda name: read)
    with pytest.raises(TypeError, match="option names is tuple"):
        prepare.make_parser(["table"])


# ------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """32 small images in two classes."""
    for k in range(32):
        path = tmp_path / "download" / ("NORMAL" if k % 2 else "PNEUMONIA") / f"person{k}_virus_{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20), k * 7, np.uint8)).save(path)
    return tmp_path / "download"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., types.SimpleNamespace]:
    """The command in this process: `guarded` maps mistakes as for a user."""

    def call(*arguments: object) -> types.SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, arguments)])
        try:
            guarded(prepare.run)
            status: Any = 0
        except SystemExit as error:
            status = error.code
        shown = capsys.readouterr()
        return types.SimpleNamespace(status=status, out=shown.out, err=shown.err)

    return call


def test_a_run_writes_a_set_and_says_what_is_in_it(classes: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    done = run("folders", "--source", classes, "--out", tmp_path / "out", "--valid-fraction", "0.25")
    assert done.status == 0 and done.err == ""
    assert "| train |     21 |" in done.out and "| valid |      8 |" in done.out
    assert "note: Labels: NORMAL is No Finding, PNEUMONIA is Pneumonia." in done.out
    assert done.out.endswith(f"next: python train.py data.root={tmp_path / 'out'} data.text=prompts\n")
    assert len(manifest.load(tmp_path / "out")) == 32
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["dataset"] == "folders" and card["source"] == "download" and card["options"]["valid_fraction"] == 0.25
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("card.json", "card.md", "images", "manifest.csv"),
    ]


def test_a_manifest_is_written_over_only_by_force(classes: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    line = ("folders", "--source", classes, "--out", tmp_path / "out")
    before = run(*line) and (tmp_path / "out" / "manifest.csv").read_bytes()
    refused = run(*line, "--seed", 1)
    assert refused.status == 2 and refused.err == (
        f"error: {tmp_path / 'out' / 'manifest.csv'} exists: write over it with --force, or choose another --out\n"
    )
    assert (tmp_path / "out" / "manifest.csv").read_bytes() == before
    assert run(*line, "--seed", 1, "--force").status == 0
    assert (tmp_path / "out" / "manifest.csv").read_bytes() != before


def test_mistakes_are_one_line(classes: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    out = tmp_path / "out"
    absent = run("folders", "--source", tmp_path / "absent", "--out", out)
    assert absent.status == 2 and absent.err == f"error: --source {tmp_path / 'absent'}: no such folder\n"
    same = run("folders", "--source", classes, "--out", classes)
    assert same.status == 2 and "it is the source itself" in same.err
    for path in (classes / "NORMAL").iterdir():
        path.unlink()
    one = run("folders", "--source", classes, "--out", out)
    assert one.status == 2 and "expected one folder for each class" in one.err
    unknown = run("folder", "--source", classes, "--out", out)
    assert unknown.status == 2 and "invalid choice: 'folder'" in unknown.err
    assert all(done.err.count("\n") == 1 for done in (absent, same, one, unknown)) and not out.exists()


def test_missing_images_by_option(tmp_path: Path, run: Callable[..., Any], classes: Path) -> None:
    (classes / "labels.csv").write_text("image,text\n" + "".join(f"NORMAL/{k}.png,A text.\n" for k in range(9)))
    (classes / "NORMAL" / "0.png").touch()
    line = ("table", "--source", classes, "--out", tmp_path / "out")
    refused = run(*line)
    assert refused.status == 2 and "8 of 9 images that were looked for are missing, first: NORMAL/1.png" in refused.err
    assert run(*line, "--check-images", 0).status == 0
    done = run(*line, "--drop-missing", "--force")
    assert "dropped 8: image file missing" in done.out and len(manifest.load(tmp_path / "out")) == 1


def test_an_interruption_is_one_line(
    classes: Path, tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(source: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cxrcl.data.sources.folders.find_images", stop)
    done = run("folders", "--source", classes, "--out", tmp_path / "out")
    assert done.status == 130 and done.err == "error: interrupted\n" and not (tmp_path / "out").exists()


def test_the_command_as_a_user_types_it(classes: Path, tmp_path: Path) -> None:
    line = [sys.executable, "scripts/prepare.py", "folders", "--source", str(classes), "--out", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == "" and "next: python train.py data.root=" in done.stdout


@pytest.mark.parametrize(
    ("header", "row", "options", "words"),
    [
        ("image,text", "{0}.png,Text {0}.", [], ["data.text=report"]),
        ("image,text,p", "{0}.png,Text {0}.,s{1}", ["--study", "p"], ["data.unit=image", "data.text=report"]),
        ("image,Edema", "{0}.png,1", ["--text", "", "--labels", "Edema"], ["data.text=prompts"]),
        (
            *("image,Ward 3", "{0}.png,1", ["--text", "", "--labels", "Ward 3"]),
            ["data.text=prompts", "prompts.file=evidence.json"],
        ),
        ("image", "{0}.png", ["--text", "", "--labels", ""], ["objective=simclr"]),
    ],
    ids=["reports", "mixed studies", "labels", "other labels", "images alone"],
)
def test_the_next_command_suits_the_data(
    tmp_path: Path, run: Callable[..., Any], header: str, row: str, options: list[str], words: list[str]
) -> None:
    (tmp_path / "set").mkdir()
    rows = [row.format(k, k // 2) for k in range(20)]
    (tmp_path / "set" / "t.csv").write_text("\n".join([header, *rows]))
    done = run("table", "--source", tmp_path / "set", "--out", tmp_path / "out", "--check-images", 0, *options)
    command = done.out.splitlines()[-1].removeprefix("next: python train.py ").split(" ")
    assert sorted(command) == sorted([f"data.root={tmp_path / 'out'}", *words])


def test_a_set_for_evaluation_only(classes: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    (classes / "test").mkdir()
    for name in ("NORMAL", "PNEUMONIA"):
        (classes / name).rename(classes / "test" / name)
    done = run("folders", "--source", classes, "--out", tmp_path / "out")
    assert done.out.splitlines()[-1] == (
        f"next: python evaluate.py checkpoint=CHECKPOINT data.root={tmp_path / 'out'} 'splits=[test]'"
    )


def test_a_training_runs_on_what_was_written(
    classes: Path, tmp_path: Path, run: Callable[..., Any], tiny_run: list[str]
) -> None:
    done = run("folders", "--source", classes, "--out", tmp_path / "out")
    words = done.out.splitlines()[-1].removeprefix("next: python train.py ").split(" ")
    small = ["text_encoder.width=16", "text_encoder.depth=1", "text_encoder.heads=2", f"run_dir='{tmp_path / 'run'}'"]
    assert train(compose("train", [*words, *tiny_run, *small])).finished


def test_data_errors_are_shown_without_a_traceback(classes: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    for split, k in (("train", 1), ("test", 2)):
        for label in ("NORMAL", "PNEUMONIA"):
            (classes / split / label).mkdir(parents=True)
            (classes / split / label / f"person{'13'[label == 'NORMAL']}_virus_{k}.png").touch()
    done = run("folders", "--source", classes, "--out", tmp_path / "out")
    assert done.status == 2 and "2 patients are in more than one split, first: 'person1_virus'" in done.err
    assert done.err.count("\n") == 1
