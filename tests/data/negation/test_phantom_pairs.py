"""Pairs of a phantom set: exactly one finding turned, and no other word that gives it away."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrcl.data.negation.make import make_pairs
from cxrcl.data.phantom import PhantomSettings, generate
from cxrcl.data.phantom.report import write_report
from cxrcl.data.phantom.study import patient_studies
from cxrcl.data.phantom.turned import Turned, donors, turned_reports
from cxrcl.errors import DataError

DENIES = re.compile(
    r"\b(?:no|not|normal|negative|without(?! lung markings)|free|clear|unremarkable|nothing)\b", re.IGNORECASE
)

WHICH = ("original", "turned")


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = generate(tmp_path_factory.mktemp("phantom") / "set", PhantomSettings(num_studies=100, size_px=32, seed=5))
    make_pairs(root)
    return root


@pytest.fixture(scope="module")
def pairs(small: Path) -> pd.DataFrame:
    return table(small / "negation.csv").merge(table(small / "manifest.csv"), on="image")


@pytest.fixture(scope="module")
def turned() -> list[tuple[dict[str, int], Turned]]:
    """Labels of about 450 studies, and each of their turned reports."""
    studies = [study for patient in range(300) for study in patient_studies(0, patient)]
    given, found = donors(studies), []
    for study in studies:
        patient = int(study.patient[1:])
        report = write_report(study, np.random.default_rng([patient, study.number, 0]))
        rng = np.random.default_rng([patient, study.number, 99])
        found += [(report.labels, one) for one in turned_reports(study, report, given, rng)]
    return found


def test_directions_are_what_labels_and_drawn_findings_say(small: Path, pairs: pd.DataFrame) -> None:
    drawn = set(table(small / "findings.csv")[["image", "label"]].itertuples(index=False, name=None))
    assert {"to_absent", "to_present"} == set(pairs["direction"]) and {"report", "sentence"} == set(pairs["unit"])
    for row in pairs.to_dict("records"):
        shows = row["direction"] == "to_absent"
        assert row[row["finding"]] == ("1" if shows else "0")
        assert ((row["image"], row["finding"]) in drawn) == shows


def test_the_own_text_is_the_report_of_the_study(pairs: pd.DataFrame) -> None:
    for row in pairs[pairs["unit"] == "report"].to_dict("records"):
        own, other = ("affirmed", "negated") if row["direction"] == "to_absent" else ("negated", "affirmed")
        assert row[own] == f"{row['findings']} {row['impression']}" != row[other]


def test_sentences_affirm_and_deny(pairs: pd.DataFrame) -> None:
    sentences = pairs[pairs["unit"] == "sentence"]
    assert sentences["negated"].str.contains(DENIES).all()
    assert not sentences["affirmed"].str.contains(DENIES).any()


def test_only_the_finding_and_what_follows_from_it_is_turned(turned: list[tuple[dict[str, int], Turned]]) -> None:
    assert len(turned) > 1000
    for labels, one in turned:
        after = one.report.labels  # raises where sentences contradict each other
        assert (labels[one.label], after[one.label]) == ((1, 0) if one.present else (0, 1))
        follows = {one.label, "No Finding", "Pneumonia", "Lung Opacity", "Consolidation"}
        assert {name: value for name, value in labels.items() if name not in follows} == {
            name: value for name, value in after.items() if name not in follows
        }
        assert all(one.label not in sentence.states for sentence in one.omitted.findings)


def test_both_directions_state_findings_in_the_same_words(turned: list[tuple[dict[str, int], Turned]]) -> None:
    """The mean length of affirmations and denials does not tell the original from the turned one."""

    rows = [
        {"label": t.label, "present": t.present, **{which: len(getattr(t, which)[0].text.split()) for which in WHICH}}
        for _, t in turned
    ]
    words = pd.DataFrame(rows).groupby(["present", "label"]).mean().groupby("present").mean()
    assert abs(words.at[True, "original"] - words.at[False, "turned"]) < 0.8  # of about 9, affirmations
    assert abs(words.at[False, "original"] - words.at[True, "turned"]) < 0.3  # of about 5, denials


def test_the_same_set_gives_the_same_bytes(small: Path) -> None:
    before = (small / "negation.csv").read_bytes()
    made = make_pairs(small)
    assert (small / "negation.csv").read_bytes() == before
    assert made.studies == 100 and 90 < made.with_pairs <= 100 and made.notes[0].startswith("exact")


def test_a_manifest_of_other_reports_is_refused(small: Path, tmp_path: Path) -> None:
    for name in ("settings.json", "findings.csv", "manifest.csv"):
        (tmp_path / name).write_bytes((small / name).read_bytes())
    manifest = table(tmp_path / "manifest.csv")
    manifest.loc[0, "findings"] = "Something else."
    manifest.to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(DataError, match=r"is not the one that settings\.json makes"):
        make_pairs(tmp_path)
