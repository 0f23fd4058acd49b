"""Which checkpoints are meant, and what they are called beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cxrcl.checkpoint import exported
from cxrcl.errors import ConfigError


def find_checkpoints(named: str | Sequence[str]) -> list[Path]:
    """Checkpoints: each a file, an exported model, a run's folder, a folder of runs, or a pattern of such names.

    Of a run's folder the best checkpoint is taken, or the last one where nothing was selected.

    Raises:
        ConfigError: a name that leads to no checkpoint.
    """
    found: list[Path] = []
    for name in [named] if isinstance(named, str) else named:
        path = Path(name).expanduser()
        if path.is_dir():
            runs = sorted({folder.parent for folder in path.rglob("checkpoints") if folder.is_dir()})
            files = [file for run in runs for file in [_of_run(run)] if file is not None]
            if not files and exported.looks_exported(path):
                files = [path]
            if not files:
                raise ConfigError(f"checkpoint={name}: no checkpoints/best.pt or last.pt below this folder")
        elif any(mark in name for mark in "*?[") and not path.exists():
            fitting = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
            files = sorted(file for file in fitting if file.is_file() or exported.looks_exported(file))
            if not files:
                raise ConfigError(f"checkpoint={name}: no file fits this pattern")
        else:
            files = [path]
        found += [file for file in files if file not in found]
    return found


def _of_run(folder: Path) -> Path | None:
    files = [folder / "checkpoints" / name for name in ("best.pt", "last.pt")]
    return next((file for file in files if file.is_file()), None)


def beside(named: str | Sequence[str], splits: Sequence[str], command: str = "evaluate") -> Path:
    """Where a report goes by default: into the run's folder, beside an exported model; of several into `outputs`."""
    files, name = find_checkpoints(named), "_".join((command, *splits))
    if len(files) > 1:
        return Path("outputs") / name
    if files[0].is_dir():  # an exported model is given away: a report, which names images, has no place in it
        return files[0].with_name(f"{files[0].name}_{name}")
    return files[0].parent.parent / name


def names_of(files: Sequence[Path]) -> list[str]:
    """What tells each file from the others: the parts of its path that they do not all share."""
    parts = [(file if file.is_dir() else file.with_suffix("")).parts for file in files]
    if len(files) == 1:
        return ["/".join(part for part in parts[0][-1 if files[0].is_dir() else -3 :] if part != "checkpoints")]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    endings = {p[-1] for p in parts}
    left_out = {"checkpoints", *(endings if len(endings) == 1 else ())}
    names = ["/".join(name for name in part[shared:] if name not in left_out) or part[-1] for part in parts]
    return names if len(set(names)) == len(names) else ["/".join(part) for part in parts]
