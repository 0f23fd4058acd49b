"""The same pairs for everybody: hashes in place of texts that may not be shipped.

The recipe of the Indiana University reports (Demner-Fushman et al. 2016) was made of 2,698 studies. It lists hashes of
the sentences that are put in place of others, and of each report with a pair and of its pairs. Whoever has these
reports, or more of them, makes the same pairs, and sees whether they are.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import pandas as pd

from cxrcl.data.negation.pairs import Pair, digest_of_pairs
from cxrcl.data.negation.report_pairs import Donors, Sentence, report_digest, report_pairs

REPORTS, SENTENCES = "indiana_reports.csv", "indiana_sentences.csv"
ENOUGH = 0.5  # of the sentences of the recipe must be there for data to be taken for these reports


@dataclass(frozen=True)
class Recipe:
    """Hashes of reports and sentences.

    Attributes:
        reports: hash of a report -> hash of its pairs, of those that have any.
        donors: the sentences put in place of others, without their texts.
    """

    reports: Mapping[str, str]
    donors: Donors

    def donors_among(self, own: Donors) -> Donors | None:
        """The sentences of the recipe with the texts of a data set; None where it lacks most of them."""
        listed = [key for of in self.donors.counts.values() for key in of]
        there = sum(key in own.texts for key in listed)
        return Donors(self.donors.counts, own.texts) if there >= ENOUGH * len(listed) else None

    def compared(self, reports: Mapping[str, Sequence[Sentence]], donors: Donors) -> str:
        """What the pairs of a data set have in common with the recipe, in words."""
        made = {report_digest(report): report_pairs(report, donors) for report in reports.values()}
        hashes = {key: digest_of_pairs(pairs) for key, pairs in made.items()}
        there = [key for key in self.reports if key in hashes]
        other = sum(hashes[key] != self.reports[key] for key in there)
        missing, more = len(self.reports) - len(there), sum(bool(made[key]) for key in set(made) - set(self.reports))
        return (
            f"Indiana recipe: {len(there) - other} of {len(self.reports)} reports give the pairs that it lists"
            + (f"; MISMATCH: {other} give other pairs: results cannot be compared" if other else "")
            + (f"; {missing} are not among these data: results are of a part" if missing else "")
            + (f"; {more} further reports give pairs" if more else "")
        )


def tables_of(reports: Mapping[str, Sequence[Sentence]], donors: Donors) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A recipe as tables: `report`, `pairs`; and `finding`, `present`, `sentence`, `times`."""
    made: dict[str, Sequence[Pair]] = {
        report_digest(report): report_pairs(report, donors) for report in reports.values()
    }
    rows = [(key, digest_of_pairs(pairs)) for key, pairs in sorted(made.items()) if pairs]
    said = [(*says, key, count) for says, of in sorted(donors.counts.items()) for key, count in sorted(of.items())]
    return (
        pd.DataFrame(rows, columns=["report", "pairs"]),
        pd.DataFrame(said, columns=["finding", "present", "sentence", "times"]),
    )


def from_tables(reports: pd.DataFrame, sentences: pd.DataFrame) -> Recipe:
    """A recipe from its tables."""
    counts: dict[tuple[str, bool], dict[str, int]] = {}
    for row in sentences.itertuples():
        counts.setdefault((str(row.finding), bool(row.present)), {})[str(row.sentence)] = int(str(row.times))
    return Recipe(dict(zip(reports["report"], reports["pairs"])), Donors(counts, {}))


def indiana() -> Recipe:
    """The recipe of the Indiana reports."""
    folder = resources.files("cxrcl.data.negation")
    reports, sentences = (
        pd.read_csv(io.StringIO((folder / name).read_text(encoding="utf-8")), dtype={"sentence": str, "report": str})
        for name in (REPORTS, SENTENCES)
    )
    return from_tables(reports, sentences)
