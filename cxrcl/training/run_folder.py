"""The folder of a run: its choice, its checkpoints, and whether a run goes on there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrcl.checkpoint import exported, file
from cxrcl.checkpoint.content import Checkpoint, Origin, TrainingState
from cxrcl.config.nodes import differences
from cxrcl.errors import ConfigError

# Settings that do not change what is trained: a run may go on with other values.
FREE_SETTINGS = ("data.num_workers", "device", "run_dir", "timeout_minutes", "trainer.keep_best", "trainer.log_every")
LAST, BEST = "last.pt", "best.pt"


def choose_folder(run_dir: str | None, name: str) -> Path:
    """`run_dir`, or a new folder outputs/<name>/<time>."""
    if run_dir is not None:
        folder = Path(run_dir).expanduser()
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"run_dir={run_dir}: a file stands there: name a folder")
    else:
        folder = Path("outputs") / name / time.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        if run_dir is None:
            folder = _make_new(folder)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        probe = folder / "checkpoints" / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"run_dir={folder}: cannot write there ({error.strerror})") from None
    return folder


def _make_new(folder: Path) -> Path:
    """Make `folder`, or the first of folder_1, folder_2, ... that nobody else has made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    candidate, k = folder, 0
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            k += 1
            candidate = folder.with_name(f"{folder.name}_{k}")


def earlier_checkpoint(run_dir: str | None, settings: Mapping[str, Any], fingerprint: str) -> Checkpoint | None:
    """The last checkpoint of the run that was begun in `run_dir`, or None.

    Args:
        settings: the composed config of the run that would go on there.
        fingerprint: of its manifest.

    Raises:
        ConfigError: another run (other settings, other data) stands there, or an exported model.
        CheckpointError: its checkpoint cannot be read.
    """
    if run_dir is None:
        return None
    folder = Path(run_dir).expanduser()
    last = folder / "checkpoints" / LAST
    if exported.looks_exported(folder) or exported.looks_exported(last):
        raise ConfigError(
            f"run_dir={folder}: an exported model, which has no optimizer state to go on from: train on from its "
            f"weights with init_from={folder} and another run_dir"
        )
    if not last.exists():
        return None
    checkpoint = file.load(last)
    different = differences(checkpoint.recipe.settings or {}, settings)
    if changed := [key for key in different if not key.startswith(FREE_SETTINGS)]:
        raise ConfigError(
            f"run_dir={folder} holds a run with other settings ({', '.join(changed[:8])}): "
            "use the same ones to go on with it, or another run_dir"
        )
    if checkpoint.recipe.manifest_fingerprint != fingerprint:
        raise ConfigError(f"run_dir={folder} holds a run on other data (the manifest changed): use another run_dir")
    return checkpoint


class RunFolder:
    """Keeps last.pt, best.pt and, with `keep_best` above 1, best_step_<n>.pt of each of the best.

    Args:
        folder: of the run.
        keep_best: how many of the best checkpoints stay.
        origin: goes into every checkpoint.
        best: (score, step) of the best so far, as an earlier sitting left them.
    """

    def __init__(self, folder: Path, keep_best: int, origin: Origin, best: Sequence[tuple[float, int]] = ()) -> None:
        self.folder = folder / "checkpoints"
        self.keep_best, self.origin, self.best = keep_best, origin, list(best)

    def save(self, state: TrainingState, score: float | None) -> None:
        """Write last.pt, and give it a second name where `score` (higher is better) is among the best."""
        step, before = state.progress.step, self.best
        if score is not None and score == score and self.keep_best:
            # The earlier one wins a tie.
            self.best = sorted([*before, (score, step)], key=lambda entry: (-entry[0], entry[1]))[: self.keep_best]
        last = self.folder / LAST
        file.save(Checkpoint(self.origin, state, tuple(self.best)), last)
        if score is not None and (score, step) in self.best:
            if self.keep_best > 1:
                file.link_or_copy(last, self._named(step))
            if self.best[0] == (score, step):
                file.link_or_copy(last, self.folder / BEST)
        for _, dropped in set(before) - set(self.best):
            self._named(dropped).unlink(missing_ok=True)

    def _named(self, step: int) -> Path:
        return self.folder / f"best_step_{step:08d}.pt"

    def chosen(self) -> Path:
        """The best checkpoint where something chose one, else the last."""
        best = self.folder / BEST
        return best if best.exists() else self.folder / LAST
