"""The pairs of any prepared data set: exact ones of a phantom set, by rule of the reports of all others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrcl import files
from cxrcl.data.manifest import FILE_NAME
from cxrcl.data.negation.pairs import write
from cxrcl.data.negation.phantom_pairs import FINDINGS, SETTINGS, phantom_pairs
from cxrcl.data.negation.recipe import indiana
from cxrcl.data.negation.report_pairs import SECTIONS, donors_of, read_reports, study_pairs
from cxrcl.errors import DataError


@dataclass(frozen=True)
class Made:
    """What was written.

    Attributes:
        rows: of the file, a row an image and pair.
        studies: number of those with a report.
        with_pairs: number of those with a pair.
        notes: how the pairs came about.
    """

    rows: pd.DataFrame
    studies: int
    with_pairs: int
    notes: list[str]


def make_pairs(root: Path) -> Made:
    """Write negation.csv beside a manifest.

    Raises:
        DataError: the folder has no manifest, or its reports give no pair.
    """
    manifest = files.read(root / FILE_NAME, hint="a folder with manifest.csv is expected")
    texts = [name for name in SECTIONS if name in manifest]
    lacking = [name for name in ("image", "study") if name not in manifest] or (["findings"] if not texts else [])
    if lacking:
        raise DataError(f"{root / FILE_NAME}: no column {', '.join(lacking)}: pairs are made of reports")
    images = manifest[["image", "study"]]
    if (root / SETTINGS).is_file() and (root / FINDINGS).is_file():
        studies = phantom_pairs(root, manifest)
        drawn = files.read(root / FINDINGS)[["image", "label"]].rename(columns={"label": "finding"})
        images = images.merge(drawn, on="image", how="left")
        notes = ["exact: by the grammar that wrote the reports"]
    else:
        reports, recipe = read_reports(manifest), indiana()
        own = donors_of(reports.values())
        listed = recipe.donors_among(own)
        studies = study_pairs(reports, listed or own)
        notes = ["by rule, see docs/negation.md; a share of them is wrong: read some before you publish"]
        notes += [recipe.compared(reports, listed)] if listed else ["sentences are drawn from these reports alone"]
    with_report = (manifest.drop_duplicates("study")[texts] != "").any(axis=1).sum()
    with_pairs = sum(1 for each in studies if each.pairs)
    if not with_pairs:
        raise DataError(f"{root / FILE_NAME}: none of {with_report} reports has a sentence that the rules can turn")
    return Made(write(root, studies, images), int(with_report), with_pairs, notes)
