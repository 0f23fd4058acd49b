"""Which images a model was trained on. Its checkpoint keeps this record: a training image is no test of the model.

What a training read is kept as hashes under a random salt of its own, so that no two models can be compared by them,
nor one with a table made once for all. Whoever has the file has the salt, and can test guesses: see docs/exposure.md.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from cxrcl.data.images.pixel_hash import NONE, NOT_READ
from cxrcl.data.manifest import ROOT, Manifest

UNNAMED = "(no source named)"
HASHES = ("images", "pixels", "patients", "patient_ids")  # fields of `Training`
_NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Training:
    """What one training read. Each field of hashes is int64 [n], sorted; None where it was taken out at an export.

    Attributes:
        salt: of these hashes, 32 hex digits.
        images: source, patient, and name within the study.
        pixels: the pixels (see `pixel_hash`).
        patients: source and patient.
        patient_ids: the patient alone, as the source numbers it.
        without_pixels: how many of the images have no hash of pixels.
    """

    salt: str
    images: np.ndarray | None = field(default_factory=_NOTHING.copy)
    pixels: np.ndarray | None = field(default_factory=_NOTHING.copy)
    patients: np.ndarray | None = field(default_factory=_NOTHING.copy)
    patient_ids: np.ndarray | None = field(default_factory=_NOTHING.copy)
    without_pixels: int = 0


@dataclass(frozen=True)
class Exposure:
    """What a model was trained on, the trainings that it began from included.

    Attributes:
        sources: name of a source -> number of its images that were read, each counted once.
        trainings: one after another.
        training_images: int64 [N], hashes without a salt of image names: of checkpoints of an earlier version, which
            know nothing else.
        unrecorded: weights that a training began with and of whose own training nothing is known.
    """

    sources: Mapping[str, int] = field(default_factory=dict)
    trainings: tuple[Training, ...] = ()
    training_images: np.ndarray = field(default_factory=_NOTHING.copy)
    unrecorded: tuple[str, ...] = ()


def new_salt() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)


# ------------------------------------------------------------------------------------------------------ recording


def begun(earlier: Exposure, salt: str) -> Exposure:
    """The record at the start of a training from weights with the record `earlier`."""
    return replace(earlier, trainings=(*earlier.trainings, Training(salt)))


def extended(record: Exposure, rows: Manifest, pixels: np.ndarray) -> Exposure:
    """The record after its last training has read these images, which it does not hold yet.

    Args:
        pixels: their hashes, int64 [rows].
    """
    *before, own = record.trainings
    by_pixels, by_name = _seen(replace(record, trainings=tuple(before)), rows, pixels)
    new = _sources(rows)[~(by_pixels | by_name)].value_counts()
    hashes = _hashes(own.salt, rows, pixels)
    grown: dict[str, Any] = {
        name: np.union1d(getattr(own, name), found[found != NOT_READ]) for name, found in hashes.items()
    }
    known = (pixels != NOT_READ) & (pixels != NONE)
    own = replace(own, **grown, without_pixels=own.without_pixels + int((~known).sum()))
    sources = {str(name): record.sources.get(str(name), 0) + int(count) for name, count in new.items()}
    return replace(record, sources={**record.sources, **sources}, trainings=(*before, own))


def recorded(training: Training, rows: Manifest) -> np.ndarray:
    """bool [rows]: images that a training has read, by their names."""
    assert training.images is not None
    return np.isin(_salted(training.salt, "image", _names(rows)), training.images)


def reduced(record: Exposure, kept: Sequence[str]) -> Exposure:
    """The record with hashes of these kinds alone (of `HASHES`); numbers of images and names of sources stay."""
    gone: dict[str, Any] = dict.fromkeys(set(HASHES) - set(kept))
    trainings = list(record.trainings)
    if len(record.training_images) and "images" in gone:  # their salt is none, and nothing is under it
        trainings.insert(0, Training("", without_pixels=len(record.training_images)))
    trainings = [replace(training, **gone) for training in trainings]
    names = record.training_images if "images" not in gone else _NOTHING
    return replace(record, trainings=tuple(trainings), training_images=names)


# ------------------------------------------------------------------------------------------------------ comparing


@dataclass(frozen=True)
class Overlap:
    """What scored images have in common with the training images of a model; each image is one of the five.

    Attributes:
        by_pixels: bool [N], read in training, as the pixels say.
        by_name: bool [N], read in training, as source, patient and name say and the pixels do not.
        patient: bool [N], of a patient of whom other images were read.
        source: bool [N], of a source of which images of other patients were read.
        perhaps_patient: bool [N], of none of these, and the patient has the number of one of whom images were read:
            both of sources without a name, which may be one or two.
        same_patient_id: bool [N], the patient has the number of one of another source: somebody else, or a source that
            was renamed.
        not_known: what could not be compared, in words.
    """

    by_pixels: np.ndarray
    by_name: np.ndarray
    patient: np.ndarray
    source: np.ndarray
    perhaps_patient: np.ndarray
    same_patient_id: np.ndarray
    not_known: tuple[str, ...]


def overlap(record: Exposure, scored: Manifest, pixels: np.ndarray) -> Overlap:
    """Compare scored images with what a model was trained on.

    Args:
        pixels: hashes of the scored images, int64 [N].
    """
    by_pixels, by_name = _seen(record, scored, pixels)
    found = [_hashes(training.salt, scored, pixels) for training in record.trainings]
    sources, seen = _sources(scored), by_pixels | by_name
    is_named = (sources != UNNAMED).to_numpy()
    patient = _any(record, found, "patients", len(scored)) & ~seen
    same_id = _any(record, found, "patient_ids", len(scored)) & ~seen & ~patient
    return Overlap(
        by_pixels=by_pixels,
        by_name=by_name & ~by_pixels,
        patient=patient & is_named,
        source=sources.isin([*record.sources]).to_numpy() & is_named & ~seen & ~patient,
        perhaps_patient=patient & ~is_named,
        same_patient_id=same_id,
        not_known=_not_known(record, scored, pixels),
    )


def _not_known(record: Exposure, scored: Manifest, pixels: np.ndarray) -> tuple[str, ...]:
    without = sum(training.without_pixels for training in record.trainings) + len(record.training_images)
    scored_without = int(((pixels == NOT_READ) | (pixels == NONE)).sum())
    unnamed = int((_sources(scored) == UNNAMED).sum())
    gone = [name for name in HASHES if any(getattr(training, name) is None for training in record.trainings)]
    words = {"images": "names", "pixels": "pixels", "patients": "patients"}
    lost = ", ".join(words[name] for name in gone if name in words)
    facts = {
        "all of the record, which holds no training": not (record.trainings or len(record.training_images)),
        f"pixels of {without} training images": without,
        f"patients of {len(record.training_images)} training images": len(record.training_images),
        f"{lost} of training images, which were taken out at an export": lost,
        f"pixels of {scored_without} scored images": scored_without,
        f"the source of {unnamed} scored images": unnamed,
        f"the source of {record.sources.get(UNNAMED, 0)} training images": record.sources.get(UNNAMED, 0),
        **{f"what {start} was trained on, which the training began with": True for start in record.unrecorded},
    }
    return tuple(words for words, holds in facts.items() if holds)


def _seen(record: Exposure, rows: Manifest, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool [rows] twice: images that were read in any training, by their pixels, and by their names."""
    found = [_hashes(training.salt, rows, pixels, ("images", "pixels")) for training in record.trainings]
    old = np.isin(_names_without_salt(rows), record.training_images)
    return _any(record, found, "pixels", len(rows)), _any(record, found, "images", len(rows)) | old


def _any(record: Exposure, found: Sequence[Mapping[str, np.ndarray]], kind: str, count: int) -> np.ndarray:
    """bool [count]: hashes that are those of any training; where one has none, NOT_READ stands."""
    pairs = ((hashes[kind], getattr(training, kind)) for hashes, training in zip(found, record.trainings, strict=True))
    hits = (np.isin(hashes, known) & (hashes != NOT_READ) for hashes, known in pairs if known is not None)
    return reduce(np.logical_or, hits, np.zeros(count, dtype=bool))


# --------------------------------------------------------------------------------------------------------- hashes


def _hashes(salt: str, rows: Manifest, pixels: np.ndarray, kinds: Sequence[str] = HASHES) -> dict[str, np.ndarray]:
    """The hashes of each row by kind, int64 [rows] each, NOT_READ where a row has none."""
    without = (pixels == NOT_READ) | (pixels == NONE)
    make: dict[str, Callable[[], np.ndarray]] = {
        "images": lambda: _salted(salt, "image", _names(rows)),
        "pixels": lambda: np.where(without, NOT_READ, _salted(salt, "pixels", map(str, pixels.tolist()))),
        "patients": lambda: _salted(salt, "patient", _sources(rows) + "|" + _patients(rows)),
        "patient_ids": lambda: _salted(salt, "patient id", _patients(rows)),
    }
    return {kind: make[kind]() for kind in kinds}


def _salted(salt: str, kind: str, values: Iterable[str]) -> np.ndarray:
    """int64 [n]: BLAKE2b of 64 bits with the salt as its key; the same text of another kind has another hash."""
    start = hashlib.blake2b(digest_size=8, key=bytes.fromhex(salt), person=kind.encode())

    def one(value: str) -> bytes:
        digest = start.copy()
        digest.update(value.encode("utf-8", "surrogatepass"))
        return digest.digest()

    return np.frombuffer(b"".join(map(one, values)), dtype="<i8").astype(np.int64)


def _sources(rows: Manifest) -> pd.Series:
    """The source of each row [N]: the column `source`, where that is blank the name of the source in the settings."""
    part = _column(rows, "part")
    names = _column(rows, "source")
    names = names.where(names != "", part.where(part != ROOT, ""))
    return names.where(names != "", UNNAMED)


def _patients(rows: Manifest) -> pd.Series:
    """The patient of each row [N] as its source numbers it."""
    name = "patient_in_source" if "patient_in_source" in rows.rows else "patient"
    return _column(rows, name).str.strip()


def _column(rows: Manifest, name: str) -> pd.Series:
    return rows.rows[name] if name in rows.rows else pd.Series("", index=rows.rows.index)


def _names(rows: Manifest) -> pd.Series:
    """Which image of its source each is [N]: within a patient, since in some sources each study numbers its images."""
    return _column(rows, "source") + "|" + _patients(rows) + "|" + _short_names(rows)


def _short_names(rows: Manifest) -> pd.Series:
    # The same image has another folder after each preparation; its file name within a study stays.
    return rows.rows["image"].str.replace("\\", "/", regex=False).str.split("/").str[-2:].str.join("/")


def _names_without_salt(rows: Manifest) -> np.ndarray:
    """int64 [N]: as an earlier version made them."""
    names = _column(rows, "source") + "|" + _short_names(rows)
    return pd.util.hash_array(names.to_numpy(dtype=object)).view(np.int64)
