"""Exact pairs of a phantom set: its reports are written again from its settings, and turned by their grammar."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from cxrcl.data.negation.pairs import REPORT, SENTENCE, Pair, StudyPairs, pair
from cxrcl.data.phantom.report import Report, text_of, write_report
from cxrcl.data.phantom.study import patient_studies
from cxrcl.data.phantom.turned import Turned, donors, turned_reports
from cxrcl.errors import DataError

SETTINGS, FINDINGS = "settings.json", "findings.csv"


def phantom_pairs(root: Path, manifest: pd.DataFrame) -> list[StudyPairs]:
    """All pairs of a phantom set.

    Args:
        root: its folder.
        manifest: its rows.

    Raises:
        DataError: the manifest holds other reports than the settings make.
    """
    seed = int(json.loads((root / SETTINGS).read_text(encoding="utf-8"))["seed"])
    written = {row.study: row for row in manifest.drop_duplicates("study").itertuples()}
    patients = sorted({int(name[1:]) for name in manifest["patient"]})
    studies = [study for patient in patients for study in patient_studies(seed, patient) if study.study in written]
    given, found = donors(studies), []
    for study in studies:
        ids, row = [seed, int(study.patient[1:]), study.number], written[study.study]
        report = write_report(study, np.random.default_rng([*ids, 0]))
        if (text_of(report.findings), text_of(report.impression)) != (row.findings, row.impression):
            raise DataError(
                f"{root}: the report of study {study.study} is not the one that {SETTINGS} makes: remove the folder "
                "and draw the set anew with this version"
            )
        # 99: a stream of its own, beside those of the report (0) and of the images (from 1 on)
        turned = turned_reports(study, report, given, np.random.default_rng([*ids, 99]))
        found.append(StudyPairs(study.study, [made for one in turned for made in _pairs(report, one)]))
    return found


def _pairs(report: Report, one: Turned) -> tuple[Pair, Pair]:
    return (
        pair(REPORT, one.label, one.present, _text(report), _text(one.report), _text(one.omitted)),
        pair(SENTENCE, one.label, one.present, text_of(one.original), text_of(one.turned)),
    )


def _text(report: Report) -> str:
    return text_of(report.findings + report.impression)
