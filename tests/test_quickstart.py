"""docs/quickstart.ipynb: what is committed is whole and clean, its commands are valid, and it runs from nothing."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pytest
import run_notebook
from helpers import ROOT

from cxrcl.commands.hydra import compose
from cxrcl.config import sections
from cxrcl.errors import ConfigError

FILE = ROOT / "docs" / "quickstart.ipynb"
SETTINGS = {"STUDIES": "240", "STEPS": "101"}  # the warm-up of experiment=demo has 100 steps
PICTURES = ("sheet", "curves", "read", "heatmap", "probe-figure")
COMMANDS = {"train": sections.Train, "evaluate": sections.Evaluate}


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(FILE, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source(notebook: Any, cell_id: str) -> str:
    return next(cell.source for cell in notebook.cells if cell.id == cell_id)


def shown(notebook: Any) -> Iterator[tuple[str, str]]:
    """Every text that a reader sees below a cell: (id of the cell, text)."""
    for cell in code(notebook):
        for output in cell.outputs:
            texts = [output.text] if output.output_type == "stream" else output.get("data", {}).items()
            for text in texts:
                if isinstance(text, str):
                    yield cell.id, text
                elif text[0].startswith("text/"):
                    yield cell.id, text[1]


def check_outputs(notebook: Any) -> None:
    """Complete, in order, no warnings, no bars, nothing of the machine's folders."""
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    pictures = [cell.id for cell in code(notebook) if any("image/png" in o.get("data", {}) for o in cell.outputs)]
    assert pictures == list(PICTURES)
    for cell_id, text in shown(notebook):
        assert not re.search(r"(?<![\w.<])/\w|[A-Z]:\\|\r|\x1b", text), cell_id
        assert text.count("\n") < 200, cell_id


def commands(notebook: Any) -> list[tuple[str, list[str]]]:
    """(train or evaluate, its overrides), with the variables that earlier cells set."""
    given = dict(re.findall(r"(?m)^(\w+) = \"?([^\s\"]+)", source(notebook, "parameters")))
    variables = {**given, "PYTHON": "python", "PHANTOM": "data/phantom/drawn"}
    found = []
    for cell in code(notebook):
        for line in cell.source.replace("\\\n", " ").splitlines():
            if cell.source.startswith("%%bash\n") and not line.startswith("%%"):
                # Before a shell splits words, as the quotes round every variable are part of what is checked.
                words = shlex.split(string.Template(line.partition("|")[0]).substitute(variables))
                assert words[0] == "python", line
                found.append((words[1].removesuffix(".py"), words[2:]))
    return found


def anchors(file: Path) -> set[str]:
    """Of the headings of a Markdown file, as web hosts make them."""
    headings = re.findall(r"(?m)^#+ (.+)$", file.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_committed_notebook_is_whole_small_and_clean(notebook: Any) -> None:
    nbformat.validate(notebook)
    check_outputs(notebook)
    assert FILE.stat().st_size < 1_500_000
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)  # no time stamps


def test_every_link_leads_to_a_file_and_a_heading(notebook: Any) -> None:
    links = [link for cell in notebook.cells for link in re.findall(r"\]\(([^)]+)\)", cell.source)]
    assert len(links) > 10
    for link in links:
        name, _, anchor = link.partition("#")
        file = FILE.parent / name
        assert file.is_file(), link
        assert not anchor or anchor in anchors(file), link


def test_every_command_composes(notebook: Any, clean_hydra: None) -> None:
    found = commands(notebook)
    assert [name for name, _ in found] == ["train", "evaluate", "evaluate"]
    for name, overrides in found:
        sections.parse(compose(name, overrides), COMMANDS[name])


def test_variables_in_commands_are_quoted(notebook: Any) -> None:
    """Without quotes a folder with a space would fall into two words."""
    for cell in code(notebook):
        if cell.source.startswith("%%bash\n"):
            assert "$" in cell.source
            assert "$" not in re.sub(r'"[^"]*"', "", cell.source), cell.id


def test_parameters_are_set_by_name(notebook: Any) -> None:
    run_notebook.set_parameters(notebook, {"STEPS": "7"})
    changed: dict[str, Any] = {}
    exec(source(notebook, "parameters"), changed)
    assert changed["STEPS"] == 7
    with pytest.raises(ConfigError, match="no parameter EPOCHS"):
        run_notebook.set_parameters(notebook, {"EPOCHS": "7"})


def set_up(notebook: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[list[str]]:
    """Execute the cell that finds the checkout, in `folder`; returns the processes that it started."""
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: started.append(command))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(folder)
    exec(source(notebook, "setup"), {"STEPS": 7, "RUN": "run"})
    return started


def test_a_copy_uploaded_to_colab_is_installed_round_its_torch(
    notebook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout = tmp_path / "zipped" / "cxrcl"
    (checkout / "configs").mkdir(parents=True)
    (checkout / "configs" / "train.yaml").touch()
    (tmp_path / "content").mkdir()
    shutil.make_archive(str(tmp_path / "content" / "cxrcl"), "zip", checkout.parent)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    [command] = set_up(notebook, monkeypatch, tmp_path / "content")
    assert Path.cwd() == tmp_path / "content" / "cxrcl"
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert {".", f"torch=={version('torch')}", f"torchvision=={version('torchvision')}"} <= set(command)


def test_elsewhere_nothing_is_installed(notebook: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert set_up(notebook, monkeypatch, ROOT / "docs") == []
    assert Path.cwd() == ROOT
    with pytest.raises(FileNotFoundError, match="no checkout of cxrcl"):
        set_up(notebook, monkeypatch, tmp_path)


def test_the_kernel_is_this_python_and_ends_with_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text('{"argv": ["false"], "display_name": "another Python", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    asking = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("import os, sys; print(os.getpid(), sys.prefix)")]
    )
    run_notebook.execute(asking, tmp_path)
    process, _, prefix = asking.cells[0].outputs[0].text.strip().partition(" ")
    assert prefix == sys.prefix
    with pytest.raises(ProcessLookupError):
        os.kill(int(process), 0)


@pytest.mark.slow
def test_it_runs_from_an_empty_folder_with_a_space_in_its_name(notebook: Any, tmp_path: Path) -> None:
    copy = run_notebook.copy_checkout(tmp_path)
    assert " " in copy.name and not (copy / "data").exists()
    run_notebook.set_parameters(notebook, SETTINGS)
    run_notebook.execute(notebook, copy / "docs")
    check_outputs(notebook)
    assert (copy / "outputs" / "quickstart" / "probe_10_percent" / "report.html").is_file()
    assert "step 101/101" in dict(shown(notebook))["train"]
