"""Who may know whom. The rules keep objectives, models, data and the trainer replaceable one by one."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cxrcl"


def parsed(path: Path) -> ast.Module:
    """The module's tree, relative imports made absolute."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    folders = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            node.module = ".".join([*folders[: len(folders) + 1 - node.level], *([node.module] if node.module else [])])
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


def own_imports(*packages: str) -> dict[str, set[str]]:
    """What modules under `packages` import of cxrcl, each reduced to the names after `cxrcl.`."""
    return {
        module: {name.removeprefix("cxrcl.") for name in imported(tree) if under(name, "cxrcl")}
        for module, tree in MODULES.items()
        if under(module, *packages)
    }


ALLOWED = {
    "cxrcl.errors": (),
    "cxrcl.types": (),
    "cxrcl.config": ("errors",),
    "cxrcl.distributed": ("errors",),
    "cxrcl.freezing": ("models.base",),
    "cxrcl.averaging": (),
    "cxrcl.optim": ("freezing", "models.base"),
    "cxrcl.tracking": (),
    "cxrcl.inference.results": (),
    "cxrcl.models.base": ("types",),
    "cxrcl.models.load_report": (),
    "cxrcl.csv_file": ("errors",),
    "cxrcl.checkpoint": ("errors", "sharing.exported", "models.load_report"),
    "cxrcl.sharing.exported": ("errors", "models.folders"),
    "cxrcl.objectives.base": ("types",),
    "cxrcl.objectives.losses": (
        *("distributed", "objectives.local_similarity", "objectives.losses", "objectives.same_text"),
    ),
    "cxrcl.objectives": ("distributed", "errors", "models", "objectives", "types"),
    "cxrcl.models": ("errors", "models", "types"),
    "cxrcl.data": ("csv_file", "data", "errors", "types"),
    "cxrcl.evaluation": ("csv_file", "errors", "evaluation", "types"),
    "cxrcl.micro_batch": ("distributed", "objectives.base", "types"),
    "cxrcl.trainer": (
        *("averaging", "distributed", "errors", "micro_batch", "objectives.base", "optim", "tracking", "types"),
    ),
    "cxrcl.run": ("checkpoint", "config", "errors", "sharing.exported"),
    "cxrcl.features": ("data", "distributed", "errors", "models.base", "objectives.base", "trainer", "types"),
    "cxrcl.study": ("checkpoint", "config", "errors", "sharing.exported", "study_report"),
    "cxrcl.study_report": ("config", "evaluation"),
    "cxrcl.inference.reading": (
        *("assemble", "checkpoint", "config", "data", "distributed", "errors", "restoring", "trainer", "types"),
        *("inference.gallery", "inference.questions", "objectives.base"),
    ),
    "cxrcl.inference.heatmaps": ("errors", "models", "objectives", "types"),
    "cxrcl.sharing.onnx_export": ("errors", "objectives", "types"),
    "cxrcl.inference.questions": ("config", "data", "errors", "evaluation", "types"),
    "cxrcl.inference.explaining": ("data", "inference.heatmaps", "models", "objectives", "inference.questions"),
    "cxrcl.api": (  # in a process of the caller's own
        *("config", "data", "errors", "evaluation", "objectives", "types"),
        *("inference.heatmaps", "inference.questions", "inference.reading"),
    ),
}


@pytest.mark.parametrize("package", ALLOWED)
def test_import_directions(package: str) -> None:
    found = own_imports(package)
    assert found
    for module, names in found.items():
        wrong = {name for name in names if not under(name, *ALLOWED[package])}
        assert not wrong, f"{module} imports {wrong}"


def test_only_the_commands_import_the_application() -> None:
    users = {module for module, names in own_imports("cxrcl").items() if any(under(name, "app") for name in names)}
    assert users <= {"cxrcl.cli", "cxrcl.inference.command", "cxrcl.demo"}


def test_hydra_stays_in_the_command_line() -> None:
    users = {m for m, tree in MODULES.items() if any(under(n, "hydra", "omegaconf") for n in imported(tree))}
    assert users == {"cxrcl.cli"}


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
    assert [module for module, _ in found] == ["cxrcl.checkpoint"]
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


@pytest.mark.parametrize("name", ["train.py", "finetune.py", "evaluate.py", "inference.py"])
def test_entry_files_are_short_and_call_the_command_line(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= 20
    assert {n.split(".")[1] for n in imported(ast.parse(text)) if under(n, "cxrcl")} == {"cli"}


@pytest.mark.parametrize("module", ["cxrcl", "cxrcl.cli", "cxrcl.demo", "cxrcl.inference"])
def test_commands_start_without_heavy_imports(module: str) -> None:
    code = f"import sys, {module}; print([n for n in ('torch', 'timm', 'transformers', 'cv2') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert found.stdout.strip() == "[]", found.stderr
