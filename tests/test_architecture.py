"""Who may know whom: strict floors, no circle in any folder, and what only one room may do."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cxrcl"

# From the ground up. A room imports from floors below it; rooms of one floor are strangers to each other.
FLOORS = (
    ("errors",),
    ("types", "files", "config", "distributed"),
    ("models", "data", "evaluation"),
    ("objectives", "checkpoint"),
    ("training",),
    ("app",),
    ("inference", "export"),
    ("api",),
    ("commands",),
    ("__main__",),
)


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def parsed(path: Path) -> ast.Module:
    """The module's tree, relative imports made absolute, imports that only a type checker sees left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    folders = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            node.module = ".".join([*folders[: len(folders) + 1 - node.level], *([node.module] if node.module else [])])
        if hasattr(node, "body") and isinstance(node.body, list):
            node.body = [part for part in node.body if not is_for_types_only(part)] or [
                ast.Pass(lineno=1, col_offset=0)
            ]
    return tree


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): parsed(path)
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module named by an import, wherever it stands; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def users_of(*packages: str) -> set[str]:
    return {module for module, tree in MODULES.items() if any(under(name, *packages) for name in imported(tree))}


def rooms_of(package: str) -> dict[str, set[str]]:
    """Room -> the other rooms of the same folder that its modules import."""
    graph: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        if not module.startswith(package + "."):
            continue
        room = module.removeprefix(package + ".").split(".")[0]
        names = {n.removeprefix(package + ".").split(".")[0] for n in imported(tree) if n.startswith(package + ".")}
        graph.setdefault(room, set()).update(names)
    return {room: {name for name in names if name in graph and name != room} for room, names in graph.items()}


def folders() -> list[str]:
    return sorted({"cxrcl", *(module.rpartition(".")[0] for module in MODULES if "." in module)})


def test_a_room_imports_from_floors_below_it_only() -> None:
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    graph = rooms_of("cxrcl")
    assert set(graph) == set(floor_of)
    wrong = [
        f"{room} imports {name}" for room, names in graph.items() for name in names if floor_of[name] >= floor_of[room]
    ]
    assert not wrong


@pytest.mark.parametrize("folder", folders())
def test_no_folder_has_a_circle(folder: str) -> None:
    tuple(graphlib.TopologicalSorter(rooms_of(folder)).static_order())  # CycleError names the circle


@pytest.mark.parametrize(("folder", "most"), [("cxrcl", 18), ("cxrcl.data", 22), ("cxrcl.evaluation", 23)])
def test_folders_stay_small_enough_to_be_known_by_name(folder: str, most: int) -> None:
    assert len(rooms_of(folder)) <= most


def test_the_face_of_the_package_imports_nothing_at_once() -> None:
    at_once = [node for node in MODULES["cxrcl"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {ast.unparse(node) for node in at_once} <= {"from typing import TYPE_CHECKING"}


def test_only_the_application_sees_the_sections_of_a_config() -> None:
    assert {module.split(".")[1] for module in users_of("cxrcl.config.sections")} == {"app"}


def test_hydra_stays_in_the_command_line() -> None:
    assert users_of("hydra", "omegaconf") == {"cxrcl.commands.hydra", "cxrcl.commands.hydra_errors"}


# The phantom's reports rank findings by severity: an order, not a process.
EXCEPT = "cxrcl.data.phantom"
FORBIDDEN = {"rank", "local_rank", "cuda", "environ", "getenv", "hydra", "omegaconf", "SummaryWriter"}


@pytest.mark.parametrize("package", ["cxrcl.models", "cxrcl.objectives", "cxrcl.data"])
def test_models_objectives_and_data_know_no_process_device_or_framework(package: str) -> None:
    for module, tree in MODULES.items():
        if not under(module, package) or under(module, EXCEPT):
            continue
        for node in ast.walk(tree):
            words = {getattr(node, name, None) for name in ("id", "attr", "arg", "name", "module")}
            found = {word for word in words if isinstance(word, str) and FORBIDDEN & set(word.split("."))}
            assert not found, f"{module}:{node.lineno} uses {found}"  # type: ignore[attr-defined]


def test_no_public_constructor_swallows_keywords() -> None:
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for part in node.body:
                    if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                        assert part.args.kwarg is None, f"{module}.{node.name}"


def calls(tree: ast.Module, dotted: str) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == dotted]


def test_checkpoints_are_loaded_in_one_place_and_as_plain_values() -> None:
    found = [(module, call) for module, tree in MODULES.items() for call in calls(tree, "torch.load")]
    assert [module for module, _ in found] == ["cxrcl.checkpoint.file"]
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in found[0][1].keywords}
    assert keywords["weights_only"] == "True"


def test_reading_from_python_leaves_the_process_to_the_caller() -> None:
    changing = {"start", "set_num_threads", "set_grad_enabled", "manual_seed", "set_device", "environ"}
    found = {node.attr for node in ast.walk(MODULES["cxrcl.api"]) if isinstance(node, ast.Attribute)}
    assert not found & changing and not [n for n in imported(MODULES["cxrcl.api"]) if under(n, "torch.distributed")]


@pytest.mark.parametrize("name", ["eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "os.system"])
def test_nothing_runs_code_from_data(name: str) -> None:
    assert [module for module, tree in MODULES.items() if calls(tree, name)] == []


def test_remote_code_is_never_trusted() -> None:
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", module


def test_there_are_no_global_statements() -> None:
    for module, tree in MODULES.items():
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)], module


ENTRIES = ["train.py", "finetune.py", "evaluate.py", "inference.py"]
SCRIPT_NAMES = ("prepare", "pack", "export", "score", "explain", "benchmark", "negation_pairs")
SCRIPTS = [f"scripts/{name}.py" for name in SCRIPT_NAMES]


@pytest.mark.parametrize("name", [*ENTRIES, *SCRIPTS])
def test_entry_files_are_the_commands_of_their_name(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= 10
    assert list(imported(ast.parse(text))) == [f"cxrcl.commands.{Path(name).stem}.main"]


@pytest.mark.parametrize(
    "module", ["cxrcl", "cxrcl.commands.dispatch", "cxrcl.commands.train", "cxrcl.commands.demo", "cxrcl.inference"]
)
def test_commands_start_without_heavy_imports(module: str) -> None:
    code = f"import sys, {module}; print([n for n in ('torch', 'timm', 'transformers', 'cv2') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert found.stdout.strip() == "[]", found.stderr


def test_names_of_test_files_are_unique() -> None:
    """pytest imports them all into one namespace."""
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}
