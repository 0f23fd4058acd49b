"""The text of a film: its report, or sentences for its labels."""

from __future__ import annotations

import numpy as np

from cxrcl.data.manifest import Manifest
from cxrcl.data.prompts import PromptSampler
from cxrcl.data.reports import ReportSampler


class Texts:
    """The text of each row: its report, or sentences for its labels.

    Args:
        mode: `report`, `prompts`, or `auto` (the report where there is one, else prompts where there are labels).
    """

    def __init__(self, manifest: Manifest, mode: str, reports: ReportSampler, prompts: PromptSampler) -> None:
        self.reports = reports
        self.prompts = prompts
        self.labels = manifest.labels
        self.values = manifest.stated
        if mode != "prompts":
            columns = [c for c in ("text", *reports.sections) if c in manifest.rows]
            records = zip(*(manifest.rows[c] for c in columns)) if columns else ([()] * len(manifest))
            self._report = [reports.read(dict(zip(columns, record))) for record in records]
        else:
            self._report = [[]] * len(manifest)
        self._speaks = mode != "report" and bool(manifest.labels)
        if self._speaks and not all(self._report):
            prompts.check(manifest.labels)

    def _named(self, row: int) -> dict[str, float]:
        return dict(zip(self.labels, self.values[row].tolist(), strict=True))

    def exists(self, row: int) -> bool:
        return bool(self._report[row]) or (self._speaks and self.prompts.can_speak(self._named(row)))

    def make(self, row: int, rng: np.random.Generator | None) -> str:
        """A random text, or the fixed one of evaluation when `rng` is None; '' where the row has none."""
        if self._report[row]:
            return self.reports.sample(self._report[row], rng)
        return self.prompts.sample(self._named(row), rng) if self._speaks else ""
