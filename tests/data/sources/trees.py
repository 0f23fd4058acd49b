"""A small download of every set that prepare.py knows: the tree of its reader's tests, with films that can be read.

Trees that are too small to train on get further patients. `BUILDERS[name](folder)` writes one and returns the options
of `prepare.py name`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import test_chexpert
import test_chexpert5x200
import test_class_folders
import test_covidx
import test_cxr_clip_csv
import test_cxr_real
import test_labels_csv
import test_mimic_cxr
import test_nih
import test_openi
import test_padchest
import test_rsna
import test_siim
import test_table
import test_vindr
from downloads import write, write_films
from film_files import dicom, encoded

KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".dcm": "DICOM", ".dicom": "DICOM"}


def film(name: str, bits: int = 8) -> bytes:
    """A film in the format of its suffix: 40 x 32 random pixels, others for each name."""
    kind = KINDS[Path(name).suffix.lower()]
    pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 1 << bits, (40, 32))
    dtype = np.uint8 if bits == 8 else np.uint16
    if kind == "DICOM":
        pytest.importorskip("pydicom")
        return dicom(pixels.astype(dtype), BitsStored=bits)
    return encoded(pixels.astype(dtype), kind)


def fill(folder: Path, bits: int = 8) -> None:
    """Make films of the empty files below a folder, and of those in its zip files."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in members.items():
                    archive.writestr(name, film(name, bits) if name.endswith(tuple(KINDS)) and not content else content)
        elif path.suffix.lower() in KINDS and path.stat().st_size == 0:
            path.write_bytes(film(str(path.relative_to(folder)), bits))


def table(folder: Path) -> list[str]:
    test_table.build(folder)
    write_films(folder, [f"{k}.png" for k in range(20)])
    fill(folder)
    columns = ("--image=film", "--text=report", "--patient=person", "--study=exam", "--view=pos", "--split=fold")
    return [*columns, "--labels=Edema,COVID"]


def folders(folder: Path) -> list[str]:
    test_class_folders.touch(folder, *test_class_folders.KERMANY)
    fill(folder)
    return []


def labels_csv(folder: Path) -> list[str]:
    test_labels_csv.put(folder, test_labels_csv.TABLE, *test_labels_csv.FILMS)
    fill(folder)
    return ["--patient=person", "--study=exam", "--view=pos", "--split=fold"]  # films of e1 have labels of their own


def chexpert(folder: Path) -> list[str]:
    """Train and valid with one film a study and more, and the test set that came later."""
    more = [
        test_chexpert.film(f"train/patient{k:05d}/study1/view1_frontal.jpg", Edema=("1.0", "0.0")[k % 2])
        for k in range(10, 16)
    ]
    test_chexpert.build(folder, test_chexpert.TRAIN + more)
    truth = test_chexpert.groundtruth("patient64741/study1", "patient64742/study1", patient64741="Edema")
    test_chexpert.write_csv(folder / test_chexpert.NAME / "groundtruth.csv", truth)
    test_chexpert.add_test_films(folder, *(f"patient6474{k}/study1/view1_frontal.jpg" for k in (1, 2)))
    fill(folder)
    return []


def chexpert5x200(folder: Path) -> list[str]:
    test_chexpert5x200.build(folder)
    write_films(folder, [row["Path"].removeprefix("CheXpert-v1.0/") for row in test_chexpert5x200.POOL])
    fill(folder)
    return ["--per-class=3"]


def mimic_cxr(folder: Path) -> list[str]:
    test_mimic_cxr.build(folder)
    test_mimic_cxr.zipped(folder / "mimic-cxr-reports.zip")
    fill(folder)
    return []


def nih(folder: Path) -> list[str]:
    test_nih.build(folder)
    more = [(f"000000{k}_000.png", ("No Finding", "Edema|Mass")[k % 2], str(k), "60", "F", "PA") for k in range(10, 18)]
    write(folder / "Data_Entry_2017.csv", test_nih.entries(test_nih.FILMS + more))
    for k, name in enumerate(["train_val_list.txt", "test_list.txt"]):
        write(folder / name, (folder / name).read_text() + "\n".join(row[0] for row in more[4 * k :][:4]) + "\n")
    write_films(folder / "images_003" / "images", [row[0] for row in more])
    fill(folder)
    return ["--valid-fraction=0.34"]


def vindr(folder: Path) -> list[str]:
    test_vindr.build(folder)
    fill(folder, bits=12)
    return []


def rsna(folder: Path) -> list[str]:
    test_rsna.build(folder)
    fill(folder)
    return []


def siim(folder: Path) -> list[str]:
    test_siim.build(folder)
    fill(folder)
    return []


def openi(folder: Path) -> list[str]:
    test_openi.build(folder)
    for k in range(10, 20):
        names, tags = [f"CXR{k}_IM-1", f"CXR{k}_IM-2"], [("normal", "Cardiomegaly")[k % 2]]
        report = test_openi.xml(k, names, tags, FINDINGS=f"This is report number {k}.")
        write(folder / "NLMCXR_reports" / "ecgen-radiology" / f"{k}.xml", report)
        write_films(folder / "NLMCXR_png", [f"{name}.png" for name in names])
    fill(folder)
    return ["--test-fraction=0.4"]


def padchest(folder: Path) -> list[str]:
    test_padchest.build(folder)
    test_padchest.save(folder, [{**row, "Report": f"inform {k} ."} for k, row in enumerate(test_padchest.ROWS)])
    fill(folder, bits=16)
    return ["--valid-fraction=0.2", "--test-fraction=0.2"]


def covidx(folder: Path) -> list[str]:
    test_covidx.make(folder, train=test_covidx.TRAIN, test=test_covidx.TEST)
    fill(folder)
    return []


def cxr_clip_csv(folder: Path) -> list[str]:
    test_cxr_clip_csv.reports(folder)
    films = (test_cxr_clip_csv.A, test_cxr_clip_csv.B, test_cxr_clip_csv.C, "files/p10/p10000009/s5/9.jpg")
    write_films(folder, films)
    fill(folder)
    return []


def cxr_real(folder: Path) -> list[str]:
    rows = test_cxr_real.films()
    more = [
        {**rows[0], "path": f"images/iu/{k}.png", "patient_id": f"1{k}", "study_id": f"1{k}_a", "split": split}
        for k, split in enumerate(["train", "train", "valid", "test"])
    ]
    test_cxr_real.build(folder, rows + more)
    write_films(folder, [row["path"] for row in rows + more])
    fill(folder)
    return []


BUILDERS: dict[str, Callable[[Path], list[str]]] = {
    builder.__name__: builder
    for builder in (
        *(table, folders, labels_csv, chexpert, chexpert5x200, mimic_cxr, nih, vindr, rsna, siim, openi, padchest),
        *(covidx, cxr_clip_csv, cxr_real),
    )
}
