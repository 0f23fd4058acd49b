"""What commands left in their folders, as cells of tables: means over seeds, with intervals over patients and seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrcl import files
from cxrcl.evaluation.metrics.labels import NO_FINDING
from cxrcl.evaluation.report.table import Cell, Table, number
from cxrcl.evaluation.scorer import labels_against_normal
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import percentile
from cxrcl.evaluation.scores.runs import auroc_over_runs

SEEDS = (0, 1, 2)
OF_SEEDS = "Mean over seeds [95 % interval over patients and seeds]."
RESAMPLES = 2000


def results(folder: Path) -> Any:
    """The content of results.json."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Aurocs:
    """AUROC of C labels, mean over seeds.

    Attributes:
        labels: names of the C labels.
        plain: float [C].
        drawn: float [R, C], in each resample of patients and seeds.
        by_seed: float [S], the mean over the labels of `mean_over` for each seed.
        counts: (positives, negatives) of each label.
        mean_over: labels of the mean.
    """

    labels: tuple[str, ...]
    plain: np.ndarray
    drawn: np.ndarray
    by_seed: np.ndarray
    counts: tuple[tuple[int, int], ...]
    mean_over: tuple[str, ...]

    def cell(self, label: str | None = None) -> Cell:
        """Of one label, or of the mean."""
        return _cell(self._of(self.plain[None], label)[0], self._of(self.drawn, label))

    def minus(self, other: Aurocs, label: str | None = None) -> Cell:
        """The paired difference of two recipes that were scored on the same images."""
        drawn = self._of(self.drawn, label) - other._of(other.drawn, label)
        return _cell((self._of(self.plain[None], label) - other._of(other.plain[None], label))[0], drawn, sign="+")

    def seeds(self) -> list[str]:
        return [number(value) for value in self.by_seed]

    def _of(self, values: np.ndarray, label: str | None) -> np.ndarray:
        names = self.mean_over if label is None else (label,)
        return values[:, [self.labels.index(name) for name in names]].mean(axis=1)


def _cell(value: float, drawn: np.ndarray, sign: str = "") -> Cell:
    low, high, _ = percentile(drawn)
    return Cell(f"{value:{sign}.3f}", f"[{low:{sign}.3f}, {high:{sign}.3f}]")


def aurocs(
    folders: Sequence[Path],
    evaluator: str,
    manifest: Path,
    labels: Sequence[str] | None = None,
    mean_over: Sequence[str] | None = None,
    against_normal: Sequence[str] = (),
) -> Aurocs:
    """AUROCs of the predictions.csv of each seed.

    Args:
        folders: what evaluate.py wrote, a folder a seed; all of the same images.
        evaluator: whose scores.
        manifest: folder of the manifest.csv that has the labels and the patients.
        labels: None: all that are scored but `No Finding`.
        mean_over: None: all of `labels`.
        against_normal: see `labels_against_normal`.
    """
    tables = [files.read(folder / "predictions.csv").set_index("image") for folder in folders]
    images = tables[0].index
    rows = files.read(manifest / "manifest.csv").set_index("image").loc[images]
    start, end = f"{evaluator}/", "/score"
    scored = [
        name[len(start) : -len(end)] for name in map(str, tables[0]) if name.startswith(start) and name.endswith(end)
    ]
    names = [name for name in scored if name != NO_FINDING] if labels is None else list(labels)
    every = [*names, NO_FINDING]
    truth = rows[every].replace("", "nan").to_numpy(dtype=float)
    truth = labels_against_normal(truth, every, against_normal)[:, :-1]
    runs = [table.loc[images, [f"{start}{name}{end}" for name in names]].to_numpy(dtype=float) for table in tables]
    patients = Patients(rows["patient"].to_numpy(), RESAMPLES)
    plain, drawn = auroc_over_runs(runs, truth, patients)
    chosen = tuple(mean_over or names)
    places = [names.index(name) for name in chosen]
    once = Patients(rows["patient"].to_numpy(), 1)
    by_seed = np.array([auroc_over_runs([scores], truth, once)[0][places].mean() for scores in runs])
    counts = tuple((int((column == 1).sum()), int((column == 0).sum())) for column in truth.T)
    return Aurocs(tuple(names), plain, drawn, by_seed, counts, chosen)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean [lowest, highest] over seeds."""
    return f"{number(float(np.mean(values)), digits)} [{number(min(values), digits)}, {number(max(values), digits)}]"


def study(folder: Path) -> Table:
    """The table of a study (experiment=compare_init)."""
    summary = pd.DataFrame(results(folder)["summary"])
    fractions = list(dict.fromkeys(summary["fraction"]))
    rows = []
    for start, of_start in summary.groupby("start", sort=False):
        cells = [of_start[of_start["fraction"] == fraction].iloc[0] for fraction in fractions]
        rows.append([str(start), *(f"{number(c['mean'])} ± {number(c['sd'])} ({c['count']})" for c in cells)])
    head = ["start", *(f"{100 * fraction:g} %" for fraction in fractions)]
    return Table("Test mean AUROC, mean ± sd over seeds and draws of patients (number of runs).", head, rows)
