"""The text of an image: its report, or sentences for its labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from cxrcl.data.manifest import Manifest
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.reports import Report, ReportSampler

_NO_REPORT = Report((), ())


class Texts:
    """The text of each row: its report, or sentences for its labels.

    Args:
        manifest: the rows.
        mode: `report`, `prompts`, or `auto` (the report where there is one, else prompts where there are labels).
        reports: makes texts of reports.
        prompts: of all rows, or by the key of their source (column `part` of the manifest): a source's prompts then
            speak only of those labels that some row of it states.

    Raises:
        ConfigError: the prompts have no sentence for a label.
    """

    def __init__(
        self,
        manifest: Manifest,
        mode: str,
        reports: ReportSampler,
        prompts: PromptSampler | Mapping[str, PromptSampler],
    ) -> None:
        self.reports = reports
        self.labels = manifest.labels
        self.values = manifest.stated
        self._report = [_NO_REPORT] * len(manifest) if mode == "prompts" else _read(manifest, reports)
        self._has_prompts = mode != "report" and bool(manifest.labels)
        everywhere = isinstance(prompts, PromptSampler)
        parts = np.full(len(manifest), "") if everywhere else manifest.rows["part"].to_numpy(dtype=str)
        self._parts: list[str] = parts.tolist()
        self._prompts: dict[str, tuple[PromptSampler, list[int]]] = {}  # of a source, and the labels it may speak of
        if not self._has_prompts:
            return
        lacking = np.array([not report.sections for report in self._report], dtype=bool)
        for part in dict.fromkeys(parts[lacking].tolist()):
            sampler = prompts if isinstance(prompts, PromptSampler) else prompts[part]
            stated = ~np.isnan(self.values[parts == part]).all(axis=0)
            columns = [k for k in range(len(self.labels)) if everywhere or stated[k]]
            sampler.check([self.labels[k] for k in columns])
            self._prompts[part] = sampler, columns

    def _prompted(self, row: int) -> tuple[PromptSampler, dict[str, float]]:
        """The prompts for a row without a report, and its labels by name."""
        sampler, columns = self._prompts[self._parts[row]]
        values = self.values[row].tolist()
        return sampler, {self.labels[k]: values[k] for k in columns}

    def __len__(self) -> int:
        return len(self._report)

    def has_report(self, row: int) -> bool:
        """Whether the row has a report with a sentence."""
        return bool(self._report[row].sections)

    def exists(self, row: int) -> bool:
        """Whether the row has a text."""
        if self.has_report(row) or not self._has_prompts:
            return self.has_report(row)
        sampler, values = self._prompted(row)
        return sampler.can_speak(values)

    def draw(self, row: int, rng: np.random.Generator | None, which: int = 0) -> tuple[str, ...]:
        """Sentences of a random text, or of evaluation's fixed one without `rng`; () where the row has no text.

        Args:
            which: number of the text in its sample (see `ReportSampler.draw`).
        """
        if self._report[row].sections:
            return self.reports.draw(self._report[row], rng, which)
        if not self._has_prompts:
            return ()
        sampler, values = self._prompted(row)
        return sampler.draw(values, rng)

    def make(self, row: int, rng: np.random.Generator | None) -> str:
        """The sentences of `draw` as one text."""
        return " ".join(self.draw(row, rng))

    def sentences(self) -> set[str]:
        """All sentences that draws can give."""
        reports = {id(report): report for report in self._report}.values()
        every = {sentence for report in reports for sentence in (*report.sentences, *report.rewritten)}
        for sampler, columns in self._prompts.values():
            for forms in (forms for k in columns for forms in sampler.prompts[self.labels[k]].values()):
                every.update(forms)
        return every

    def corpus(self) -> Iterator[str]:
        """The fixed text of each row, and the rewriting of its report: what a vocabulary is learnt from."""
        for row, report in enumerate(self._report):
            yield self.make(row, None)
            if report.rewritten:
                yield " ".join(report.rewritten)


def _read(manifest: Manifest, reports: ReportSampler) -> list[Report]:
    """The report of each row. Equal ones, such as those of the images of a study, are one object."""
    columns = [c for c in ("text", *reports.sections, "text_augment") if c in manifest.rows]
    records = zip(*(manifest.rows[c] for c in columns)) if columns else ((),) * len(manifest)
    report_of: dict[tuple[str, ...], Report] = {}
    words: dict[str, str] = {}  # equal sentences are one string: many reports share them
    rows = []
    for record in records:
        if record not in report_of:
            report = reports.read(dict(zip(columns, record)))
            sections = tuple(tuple(words.setdefault(s, s) for s in section) for section in report.sections)
            report_of[record] = Report(sections, tuple(words.setdefault(s, s) for s in report.rewritten))
        rows.append(report_of[record])
    return rows
