"""The phantom set: same seed same bytes, reports that agree with their labels, findings drawn where the boxes say."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrcl.data.phantom import FINDINGS_COLUMNS, LABELS, MANIFEST_COLUMNS, PhantomSettings, contact_sheet, generate
from cxrcl.data.phantom.anatomy import Body, Pose
from cxrcl.data.phantom.render import render
from cxrcl.data.phantom.report import text_of, write_report
from cxrcl.data.phantom.study import PATHOLOGIES, Finding, Study, patient_studies, sample_finding

SMALL = PhantomSettings(num_studies=60, size_px=48, seed=3)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("phantom") / "set", SMALL)


@pytest.fixture(scope="module")
def reports() -> list[tuple[Study, dict[str, int], list]]:
    """(study, labels, sentences) of about 900 studies."""
    out = []
    for patient in range(600):
        for study in patient_studies(0, patient):
            report = write_report(study, np.random.default_rng([patient, study.number]))
            out.append((study, report.labels, [*report.findings, *report.impression]))
    return out


def test_workers_do_not_change_a_byte(small: Path, tmp_path: Path) -> None:
    assert contents(generate(tmp_path / "parallel", SMALL, num_workers=2)) == contents(small)


def test_a_longer_set_begins_with_the_shorter_one(small: Path, tmp_path: Path) -> None:
    longer = contents(generate(tmp_path / "longer", replace(SMALL, num_studies=75)))
    shorter = contents(small)
    for name in ("manifest.csv", "findings.csv"):
        assert longer.pop(name).startswith(shorter.pop(name))
    shorter.pop("settings.json")
    assert all(longer[name] == data for name, data in shorter.items())


def test_another_seed_gives_other_images(small: Path, tmp_path: Path) -> None:
    other = read(generate(tmp_path / "other", replace(SMALL, num_studies=5, seed=4)) / "manifest.csv")
    assert other[0]["findings"] != read(small / "manifest.csv")[0]["findings"]


def test_manifest(small: Path) -> None:
    rows = read(small / "manifest.csv")
    assert tuple(rows[0]) == MANIFEST_COLUMNS and MANIFEST_COLUMNS[-14:] == tuple(LABELS)
    assert len({r["study"] for r in rows}) == SMALL.num_studies
    assert len({r["image"] for r in rows}) == len(rows) == len(list(small.glob("images/*/*.png")))
    splits, shared = defaultdict(set), defaultdict(set)
    for row in rows:
        image = cv2.imread(str(small / row["image"]), cv2.IMREAD_UNCHANGED)
        assert image.shape == (48, 48) and image.dtype == np.uint8 and image.std() > 10
        assert row["view"] in {"PA", "AP", "Lateral"} and row["split"] in {"train", "valid", "test"}
        assert row["sex"] in {"F", "M"} and 18 <= int(row["age"]) <= 94
        assert re.fullmatch(r"p\d{5}", row["patient"]) and re.fullmatch(rf"{row['patient']}_s\d", row["study"])
        assert all(row[label] in {"1", "0", "-1", ""} for label in LABELS)
        splits[row["patient"]].add(row["split"])
        shared[row["study"]].add(tuple(row[c] for c in ("findings", "impression", *LABELS)))
    assert all(len(s) == 1 for s in splits.values()) and all(len(s) == 1 for s in shared.values())


def test_split_fractions(tmp_path: Path) -> None:
    settings = PhantomSettings(num_studies=40, size_px=32, valid_fraction=0.0, test_fraction=1.0)
    assert {r["split"] for r in read(generate(tmp_path / "set", settings) / "manifest.csv")} == {"test"}


def test_findings_file(small: Path) -> None:
    rows = read(small / "findings.csv")
    assert tuple(rows[0]) == FINDINGS_COLUMNS
    labels = {r["image"]: r for r in read(small / "manifest.csv")}
    for row in rows:
        x0, y0, x1, y1 = (float(row[k]) for k in ("x0", "y0", "x1", "y1"))
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        assert labels[row["image"]][row["label"]] in {"1", "-1"}


@pytest.mark.parametrize("view", ["PA", "AP", "Lateral"])
@pytest.mark.parametrize("kind", [*PATHOLOGIES, "Support Devices"])
def test_a_finding_changes_the_image_inside_its_box(kind: str, view: str) -> None:
    for seed in range(3):
        rng = np.random.default_rng([seed, len(kind)])
        body, pose = Body.sample(rng), Pose.sample(rng, view, 0.4)
        finding = Finding(kind, "left", form="pacemaker", seed=seed) if "Devices" in kind else sample_finding(kind, rng)
        study = Study("p00000", "p00000_s1", 1, body, (replace(finding, severity=0.8),), (view,), 0.4)
        image, drawn = render(study, pose, 96)
        plain, nothing = render(replace(study, findings=()), pose, 96)
        assert not nothing and len(drawn) == 1
        change = np.abs(image.astype(float) - plain)
        x0, y0, x1, y1 = (np.array(drawn[0].box) * 96).astype(int)
        inside = change[max(y0 - 3, 0) : y1 + 4, max(x0 - 3, 0) : x1 + 4]
        assert inside.max() > 12
        # volume loss also shifts the diaphragm, and a wide mediastinum the borders of the heart
        assert inside.sum() > (0.6 if finding.form == "volume loss" else 0.8) * change.sum()


# An independent reading of the reports: the words of a label, and whether their sentence denies, hedges or affirms.
_WORDS = {
    "Enlarged Cardiomediastinum": r"mediastin",
    "Cardiomegaly": r"cardiomegaly|\bheart\b|cardiac(?! pacing)|cardiothoracic ratio|cardiomediastinal",
    "Lung Opacity": r"opacit|opacification|lungs are clear|clear lungs|lung fields are clear|lungs are well aerated",
    "Lung Lesion": r"nodule|mass\b",
    "Edema": r"edema",
    "Consolidation": r"consolidat|lungs are clear|clear lungs|lung fields are clear|lungs are well aerated",
    "Pneumonia": r"pneumonia",
    "Atelectasis": r"atelecta",
    "Pneumothorax": r"pneumothorax",
    "Pleural Effusion": r"effusion|pleural fluid",
    "Pleural Other": r"thickening|plaque|scarring|capping|pleural calcification",
    "Fracture": r"fracture",
    "Support Devices": r"tube|catheter|\bline\b|lines|pacemaker|pacing|port\b|leads|wires|drain|device|intubated",
}
_SPECIFIC = ("Pneumothorax", "Pleural Effusion", "Edema", "Fracture", "Pneumonia", "Atelectasis", "Lung Lesion")
_HEDGE = re.compile(
    r"possib|questionable|equivocal|may (represent|reflect|be)|could be|may suspect|cannot|difficult to exclude"
    r"|suspicious for|raise the question|suspected|questioned",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"\bno\b|without|negative for|nothing|normal|unremarkable|not (enlarged|widened)|clear\b|free of|intact",
    re.IGNORECASE,
)


def _value(text: str) -> int:
    if re.search(r"suspicious (lung |pulmonary )?(nodule|opacity)", text, re.IGNORECASE):
        return 0
    return -1 if _HEDGE.search(text) else 0 if _DENIAL.search(text) else 1


def test_sentences_say_what_they_state(reports: list) -> None:
    exempt = re.compile(r"intact|lucency without lung markings", re.IGNORECASE)
    checked = 0
    for _, _, sentences in reports:
        for sentence in sentences:
            text = sentence.text
            for label, value in sentence.states.items():
                if label == "No Finding":
                    continue
                assert re.search(_WORDS[label], text, re.IGNORECASE) or label == "Consolidation", (label, text)
                if not (label in {"Support Devices", "Pneumothorax"} and exempt.search(text)):
                    assert _value(text) == value, (label, value, text)
                checked += 1
            for label in _SPECIFIC:
                if re.search(_WORDS[label], text, re.IGNORECASE):
                    assert label in sentence.states, (label, text)
    assert checked > 3000


def test_labels_agree_with_what_is_drawn(reports: list) -> None:
    for study, labels, _ in reports:
        drawn = {f.kind: f.certain for f in study.findings}
        for label in LABELS[1:]:
            if label in drawn:
                assert labels[label] == (1 if drawn[label] else -1)
            elif labels.get(label) == 1:
                assert "Pneumonia" in drawn and label in {"Lung Opacity", "Consolidation"}
        disease = {k: certain for k, certain in drawn.items() if k != "Support Devices"}
        assert labels.get("No Finding") == (1 if not disease else 0 if any(disease.values()) else None)


def test_reports_vary(reports: list) -> None:
    texts = [text_of(tuple(sentences)) for _, _, sentences in reports]
    assert len(set(texts)) > 0.98 * len(texts)
    assert not any("[" in t or "{" in t or "*" in t or "  " in t for t in texts)
    for study, _, sentences in reports:
        report = write_report(study, np.random.default_rng(len(sentences)))
        assert 3 <= len(report.findings) <= 8 and 1 <= len(report.impression) <= 4


def test_every_label_has_all_values(reports: list) -> None:
    for label in LABELS[1:]:
        values = [labels.get(label) for _, labels, _ in reports]
        shares = {v: values.count(v) / len(values) for v in (1, 0, -1, None)}
        assert 0.05 < shares[1] < 0.35 and shares[0] > 0.1 and shares[None] > 0.1
        assert shares[-1] > 0 or label == "Support Devices"
    normal = sum(labels.get("No Finding") == 1 for _, labels, _ in reports) / len(reports)
    assert 0.25 < normal < 0.4


def test_findings_occur_alone(reports: list) -> None:
    alone = defaultdict(int)
    for study, _, _ in reports:
        kinds = {f.kind for f in study.findings} - {"Support Devices"}
        if len(kinds) == 1:
            alone[kinds.pop()] += 1
    assert all(alone[kind] >= 4 for kind in PATHOLOGIES)


def test_an_existing_set_is_kept_and_other_settings_are_refused(small: Path) -> None:
    before = (small / "manifest.csv").stat().st_mtime_ns
    assert generate(small, SMALL) == small and (small / "manifest.csv").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"num_studies: 60 there, 61 asked.*remove that folder"):
        generate(small, replace(SMALL, num_studies=61))


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not a phantom set"):
        generate(tmp_path, SMALL)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 5:
            raise KeyboardInterrupt

    (tmp_path / ".set.part-999999999").mkdir()  # of a process that was killed
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", SMALL, progress=stop)
    assert not list(tmp_path.iterdir())


def test_progress_counts_studies(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    generate(tmp_path / "set", replace(SMALL, num_studies=7), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (7, 7) and calls == sorted(calls)


def test_contact_sheet(small: Path, tmp_path: Path) -> None:
    sheet = cv2.imread(str(contact_sheet(small, tmp_path / "sheet.png", per_label=3)), cv2.IMREAD_UNCHANGED)
    assert sheet.ndim == 2 and sheet.shape[0] > 16 * 90 and sheet.std() > 20


@pytest.mark.slow
def test_a_linear_model_on_pixels_is_not_enough(tmp_path: Path) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.metrics import roc_auc_score

    rows = read(generate(tmp_path / "set", PhantomSettings()) / "manifest.csv")
    images = [cv2.imread(str(tmp_path / "set" / r["image"]), cv2.IMREAD_UNCHANGED) for r in rows]
    x = np.stack([cv2.resize(f, (32, 32), interpolation=cv2.INTER_AREA).ravel() for f in images]).astype(np.float32)
    split = np.array([r["split"] for r in rows])
    x = (x - x[split == "train"].mean(0)) / (x[split == "train"].std(0) + 1e-3)
    scores = []
    for label in LABELS[1:]:
        y = np.array([r[label] for r in rows])
        train, valid, test = ((split == s) & np.isin(y, ["0", "1"]) for s in ("train", "valid", "test"))
        models = [Ridge(alpha=a).fit(x[train], y[train] == "1") for a in (1, 10, 100, 1e3, 1e4)]
        best = max(models, key=lambda m: roc_auc_score(y[valid] == "1", m.predict(x[valid])))
        scores.append(roc_auc_score(y[test] == "1", best.predict(x[test])))
    assert np.mean(scores) <= 0.80
