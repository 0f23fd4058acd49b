"""Writes a phantom set to disk: images, manifest.csv, findings.csv and settings.json."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from .anatomy import Pose
from .render import render
from .report import Report, text_of, write_report
from .study import LABELS, Study, patient_studies

MANIFEST_COLUMNS = ("image", "patient", "study", "view", "split", "sex", "age", "findings", "impression", *LABELS)
FINDINGS_COLUMNS = ("image", "label", "side", "zone", "severity", "x0", "y0", "x1", "y1")
Progress = Callable[[int, int], None]
_REVISION = 1  # of the drawing and the wording: raise it when the same settings give other files


@dataclass(frozen=True)
class PhantomSettings:
    """Size and seed of a phantom set; the fractions are of patients."""

    num_studies: int = 3000
    size_px: int = 96
    seed: int = 0
    valid_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        if self.num_studies < 1 or self.size_px < 32 or self.seed < 0:
            raise ValueError(f"need num_studies >= 1, size_px >= 32 and seed >= 0, got {self}")
        if min(self.valid_fraction, self.test_fraction) < 0 or self.valid_fraction + self.test_fraction > 1:
            raise ValueError(f"valid_fraction and test_fraction must be >= 0 and sum to at most 1, got {self}")


def generate(
    root: Path,
    settings: PhantomSettings,
    num_workers: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write the set to `root` and return it; an existing set of the same settings is kept as it is.

    The files appear under `root` all at once or not at all. They do not depend on `num_workers`, and the first n
    studies do not depend on `num_studies`. With workers the caller needs the usual `if __name__ == "__main__"` guard.
    `progress(done, total)` counts studies.
    """
    root = Path(root)
    if _is_complete(root, settings):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(root)
    part = root.parent / f".{root.name}.part-{os.getpid()}"
    part.mkdir()
    try:
        _write(part, settings, num_workers, progress)
        part.replace(root)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) and _is_complete(root, settings):
            return root  # another process was faster
        raise
    return root


def _record(settings: PhantomSettings) -> dict[str, int | float]:
    return {"revision": _REVISION, **asdict(settings)}


def _is_complete(root: Path, settings: PhantomSettings) -> bool:
    """Whether root holds this very set; ValueError if it holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    path, wanted = root / "settings.json", _record(settings)
    if not path.is_file():
        raise ValueError(f"{root} is not a phantom set (it has no settings.json): choose another folder or remove it")
    present = json.loads(path.read_text())
    differ = [f"{k}: {present.get(k)} there, {v} asked" for k, v in wanted.items() if present.get(k) != v]
    if differ:
        raise ValueError(
            f"{root} holds a phantom set of other settings ({'; '.join(differ)}): "
            "remove that folder, choose another one, or ask for the settings it has"
        )
    return True


def _remove_stale(root: Path) -> None:
    """Delete what interrupted runs left behind, but not the folder of a run still alive."""
    for part in root.parent.glob(f".{root.name}.part-*"):
        try:
            os.kill(int(part.name.rpartition("-")[2]), 0)
            alive = int(part.name.rpartition("-")[2]) != os.getpid()
        except (ProcessLookupError, ValueError):
            alive = False
        except PermissionError:
            alive = True
        if not alive:
            shutil.rmtree(part, ignore_errors=True)


def _write(part: Path, settings: PhantomSettings, num_workers: int, progress: Progress | None) -> None:
    total, done = settings.num_studies, 0
    with (
        (part / "manifest.csv").open("w", newline="", encoding="utf-8") as manifest_file,
        (part / "findings.csv").open("w", newline="", encoding="utf-8") as findings_file,
    ):
        manifest = csv.writer(manifest_file, lineterminator="\n")
        findings = csv.writer(findings_file, lineterminator="\n")
        manifest.writerow(MANIFEST_COLUMNS)
        findings.writerow(FINDINGS_COLUMNS)
        for num_studies, images, boxes in _results(part, settings, num_workers):
            manifest.writerows(images)
            findings.writerows(boxes)
            done += num_studies
            if progress:
                progress(done, total)
    (part / "settings.json").write_text(json.dumps(_record(settings), indent=2) + "\n")


Rows = list[list[str]]
Job = tuple[Path, PhantomSettings, int, int]  # folder, settings, patient, studies to keep


def _jobs(part: Path, settings: PhantomSettings) -> Iterator[Job]:
    patient, left = 0, settings.num_studies
    while left > 0:
        keep = min(sum(1 for _ in patient_studies(settings.seed, patient)), left)
        yield part, settings, patient, keep
        patient, left = patient + 1, left - keep


def _results(part: Path, settings: PhantomSettings, num_workers: int) -> Iterable[tuple[int, Rows, Rows]]:
    jobs = _jobs(part, settings)
    if num_workers == 0:
        with _one_thread():
            yield from map(_patient, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        try:
            yield from pool.map(_patient, jobs, chunksize=16)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV on one thread: at this size more of them only wait for each other."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _patient(job: Job) -> tuple[int, Rows, Rows]:
    """Draw and report the studies of one patient; returns their number, manifest rows and findings rows."""
    part, settings, patient, keep = job
    draw = np.random.default_rng([settings.seed, patient, 0]).random()
    in_test, in_valid = draw < settings.test_fraction, draw < settings.test_fraction + settings.valid_fraction
    split = "test" if in_test else "valid" if in_valid else "train"
    images: Rows = []
    boxes: Rows = []
    for study, _ in zip(patient_studies(settings.seed, patient), range(keep)):
        report = write_report(study, np.random.default_rng([settings.seed, patient, study.number, 0]))
        folder = part / "images" / study.patient
        folder.mkdir(parents=True, exist_ok=True)
        for index, view in enumerate(study.views):
            twin = f"{index + 1}" if view in study.views[:index] else ""
            name = f"images/{study.patient}/s{study.number:02d}_{view.lower()}{twin}.png"
            rng = np.random.default_rng([settings.seed, patient, study.number, index + 1])
            pose = Pose.sample(rng, view, study.breath)
            image, drawn = render(study, pose, settings.size_px)
            (part / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
            images.append([name, study.patient, study.study, view, split, *_shared_columns(study, report)])
            for f in drawn:
                place = [f"{v:.4f}" for v in f.box or ()]
                boxes.append([name, f.kind, f.side, f.zone, f"{f.severity:.3f}", *place])
    return keep, images, boxes


def _shared_columns(study: Study, report: Report) -> list[str]:
    labels = report.labels
    values = [str(labels[label]) if label in labels else "" for label in LABELS]
    return [study.body.sex, str(study.body.age), text_of(report.findings), text_of(report.impression), *values]
