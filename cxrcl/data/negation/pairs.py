"""Pairs of an affirmed and a negated text, of which one is true of the image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import pandas as pd

from cxrcl.files import replaced
from cxrcl.types import NEGATION_PAIRS

REPORT, SENTENCE = "report", "sentence"  # what a text is
TO_ABSENT, TO_PRESENT = "to_absent", "to_present"  # what the turned text states


@dataclass(frozen=True)
class Pair:
    """A text of a study and the same text with the polarity of one finding turned.

    Attributes:
        unit: `report`: whole reports; `sentence`: their sentences about the finding, alone.
        finding: a label.
        direction: `to_absent`: the image shows the finding, and the affirmed text is its own; `to_present`: the image
            lacks it, and the negated text is its own.
        affirmed, negated: the texts.
        omitted: of reports, the own one without its sentences about the finding; '' where no other is left.
    """

    unit: str
    finding: str
    direction: str
    affirmed: str
    negated: str
    omitted: str = ""


def pair(unit: str, finding: str, present: bool, own: str, turned: str, omitted: str = "") -> Pair:
    """A pair from the own text and the turned one.

    Args:
        present: whether the image shows the finding.
    """
    if present:
        return Pair(unit, finding, TO_ABSENT, own, turned, omitted)
    return Pair(unit, finding, TO_PRESENT, turned, own, omitted)


def digest(*texts: str) -> str:
    """16 hex digits of the sha256 of texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def digest_of_pairs(pairs: Iterable[Pair]) -> str:
    """16 hex digits that change with any text of the pairs."""
    return digest(*(text for one in pairs for text in astuple(one)))


@dataclass(frozen=True)
class StudyPairs:
    """The pairs of one study."""

    study: str
    pairs: list[Pair]


def write(root: Path, studies: Iterable[StudyPairs], images: pd.DataFrame) -> pd.DataFrame:
    """Write the pairs of a data set beside its manifest, a row an image and pair; returns the rows.

    Args:
        images: columns `image` and `study`; where there is `finding`, the image shows only these findings.
    """
    names = [field.name for field in fields(Pair)]
    pairs = pd.DataFrame(
        [{"study": each.study, **asdict(one)} for each in studies for one in each.pairs], columns=["study", *names]
    )
    rows = images[["image", "study"]].merge(pairs, on="study")[["image", *names]]
    if "finding" in images:
        shown = pd.MultiIndex.from_frame(images[["image", "finding"]])
        is_shown = pd.MultiIndex.from_frame(rows[["image", "finding"]]).isin(shown)
        rows = rows[is_shown | (rows["direction"] == TO_PRESENT)]
    rows = rows.drop_duplicates().sort_values(["image", "unit", "finding"], ignore_index=True)
    with replaced(root / NEGATION_PAIRS) as file:
        rows.to_csv(file, index=False, lineterminator="\n")
    return rows
