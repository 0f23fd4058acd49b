"""What a model has seen: what a record holds, and what is found in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxrcl.data import exposure
from cxrcl.data.exposure import Exposure, Overlap
from cxrcl.data.images.pixel_hash import NONE, NOT_READ
from cxrcl.data.manifest import ROOT, Manifest, merge

SALT = "0123456789abcdef" * 2
Row = tuple[str, str]  # patient and name within the study


def images(*rows: Row, source: str | None = "iu", **columns: Any) -> Manifest:
    table = pd.DataFrame([{"image": f"images/{patient}/{name}.png", "patient": patient} for patient, name in rows])
    given = {**({} if source is None else {"source": source}), **columns}
    return Manifest(table.assign(study="s", view="PA", **given), (), np.zeros((len(rows), 0)))


def numbers(*pixels: int) -> np.ndarray:
    return np.array(pixels, dtype=np.int64)


def trained(rows: Manifest, pixels: np.ndarray, start: Exposure = Exposure(), salt: str = SALT) -> Exposure:  # noqa: B008
    return exposure.extended(exposure.begun(start, salt), rows, pixels)


def classes(found: Overlap) -> list[str]:
    """Of each image what it is."""
    kinds = ("by_pixels", "by_name", "patient", "source")
    return ["/".join(kind for kind in kinds if getattr(found, kind)[k]) or "unknown" for k in range(len(found.source))]


ROWS = (("1", "a"), ("1", "b"), ("2", "a"))
RECORD = trained(images(*ROWS), numbers(11, 12, 13))


def test_each_image_is_one_of_five() -> None:
    scored = images(("9", "new"), ("1", "a"), ("1", "c"), ("3", "a"))
    found = exposure.overlap(RECORD, scored, numbers(12, 99, 98, 97))
    assert classes(found) == ["by_pixels", "by_name", "patient", "source"]
    assert found.not_known == () and not found.same_patient_id.any()
    other = exposure.overlap(RECORD, images(("7", "x"), source="nih"), numbers(5))
    assert classes(other) == ["unknown"] and other.not_known == ()


def test_other_images_of_a_training_patient_are_found() -> None:
    assert classes(exposure.overlap(RECORD, images(("1", "c"), ("2", "z")), numbers(1, 2))) == ["patient"] * 2


def test_renamed_images_are_found_by_their_pixels() -> None:
    renamed = images(("x", "q"), ("y", "r"), source="other")
    assert classes(exposure.overlap(RECORD, renamed, numbers(13, 11))) == ["by_pixels"] * 2


def test_under_another_source_pixels_are_found_and_patient_numbers_are_said_apart() -> None:
    found = exposure.overlap(RECORD, images(("1", "a"), ("1", "new"), ("8", "new"), source="mine"), numbers(11, 5, 6))
    assert classes(found) == ["by_pixels", "unknown", "unknown"]  # the patient 1 of `mine` may be somebody else
    assert found.same_patient_id.tolist() == [False, True, False]


def test_the_same_number_in_two_sources_is_not_the_same_patient() -> None:
    both = merge({"iu": images(("1", "a"), source=None), "nih": images(("1", "b"), source=None)})
    record = trained(both, numbers(1, 2))
    alone = images(("1", "c"), source=None, part="iu")
    assert classes(exposure.overlap(record, alone, numbers(3))) == ["patient"]  # whatever `merge` put before it
    found = exposure.overlap(record, images(("1", "c"), source=None, part="rsna"), numbers(3))
    assert classes(found) == ["unknown"] and found.same_patient_id.all()


@pytest.mark.parametrize("columns", [{"source": None}, {"source": None, "part": ROOT}, {"source": ""}])
def test_of_images_without_a_source_no_patient_and_no_source_is_asserted(columns: dict[str, Any]) -> None:
    unnamed = images(("1", "c"), ("3", "c"), **columns)
    found = exposure.overlap(trained(unnamed, numbers(1, 2)), images(("1", "d"), **columns), numbers(3))
    assert classes(found) == ["unknown"] and found.perhaps_patient.all() and not found.same_patient_id.any()
    assert found.not_known == ("the source of 1 scored images", "the source of 2 training images")
    again = exposure.overlap(trained(unnamed, numbers(1, 2)), unnamed, numbers(7, NOT_READ))
    assert classes(again) == ["by_name", "by_name"] and not again.perhaps_patient.any()
    named = exposure.overlap(trained(unnamed, numbers(1, 2)), images(("1", "d")), numbers(3))
    assert classes(named) == ["unknown"] and named.same_patient_id.all() and not named.perhaps_patient.any()


def test_images_of_the_training_are_found_again_wherever_they_lie() -> None:
    moved = images(*ROWS)
    moved.rows["image"] = moved.rows["image"].str.replace("images/", "elsewhere\\deep/")
    assert classes(exposure.overlap(RECORD, moved, numbers(0, 0, 0))) == ["by_name"] * 3


def test_images_of_studies_that_are_named_alike_are_told_apart_by_their_patients() -> None:
    def chexpert(*patients: str) -> Manifest:
        rows = images(*((patient, "x") for patient in patients), source="chexpert")
        rows.rows["image"] = [f"train/{patient}/study1/view1_frontal.jpg" for patient in patients]
        return rows

    found = exposure.overlap(trained(chexpert("p1", "p2"), numbers(1, 2)), chexpert("p2", "p3"), numbers(0, 0))
    assert classes(found) == ["by_name", "source"]


def test_what_cannot_be_compared_is_said() -> None:
    record = trained(images(("1", "a"), ("2", "b")), numbers(11, NONE))
    record = replace(record, unrecorded=("image_encoder resnet50",), training_images=numbers(5, 6, 7))
    found = exposure.overlap(record, images(("3", "a"), ("4", "b")), numbers(NOT_READ, NONE))
    assert classes(found) == ["source", "source"]  # images without a hash are not all alike
    assert found.not_known == (
        "pixels of 4 training images",
        "patients of 3 training images",
        "pixels of 2 scored images",
        "what image_encoder resnet50 was trained on, which the training began with",
    )
    nothing = exposure.overlap(Exposure(), images(("3", "a")), numbers(1))
    assert nothing.not_known == ("all of the record, which holds no training",)


def test_a_record_of_an_earlier_version_is_compared_as_it_was() -> None:
    def without_salt(rows: Manifest) -> np.ndarray:
        names = rows.rows["source"] + "|" + rows.rows["image"].str.removeprefix("images/")
        return pd.util.hash_array(names.to_numpy(dtype=object)).view(np.int64)

    rows = images(*ROWS)
    old = Exposure({"iu": 3}, training_images=without_salt(rows))
    assert classes(exposure.overlap(old, rows, numbers(1, 2, 3))) == ["by_name"] * 3
    assert classes(exposure.overlap(old, images(("1", "c")), numbers(1))) == ["source"]
    grown = trained(images(("1", "a"), ("4", "a")), numbers(1, 2), start=old)
    assert grown.sources == {"iu": 4} and len(grown.training_images) == 3


def test_several_salts_live_together() -> None:
    first = trained(images(("1", "a"), ("2", "a")), numbers(1, 2), salt="ab" * 16)
    second = trained(images(("5", "a"), source="nih"), numbers(5), start=first, salt="cd" * 16)
    assert second.trainings[0] is first.trainings[0] and second.trainings[1].salt == "cd" * 16
    scored = images(("9", "x"), ("2", "b"), ("9", "y"))
    assert classes(exposure.overlap(second, scored, numbers(1, 0, 5))) == ["by_pixels", "patient", "by_pixels"]
    assert classes(exposure.overlap(second, images(("5", "b"), source="nih"), numbers(0))) == ["patient"]


def test_no_two_salts_give_a_hash_in_common() -> None:
    parts = [trained(images(*ROWS), numbers(1, 2, 3), salt=salt).trainings[0] for salt in ("ab" * 16, "cd" * 16)]
    for kind in exposure.HASHES:
        one, other = (getattr(part, kind) for part in parts)
        assert len(one) == len(other) == (3 if kind in ("images", "pixels") else 2)
        assert not np.isin(one, other).any() and (np.sort(one) == one).all()
    assert exposure.new_salt() != exposure.new_salt() and len(bytes.fromhex(exposure.new_salt())) == 16


def test_an_image_of_two_trainings_counts_once_and_another_of_the_same_source_is_added() -> None:
    again = trained(images(("1", "a"), ("2", "a"), ("6", "a")), numbers(11, 13, 16), start=RECORD, salt="ab" * 16)
    assert again.sources == {"iu": 4}
    renamed = trained(images(("x", "q"), source="mine"), numbers(11), start=RECORD, salt="ab" * 16)
    assert renamed.sources == {"iu": 3}  # found by its pixels
    other = trained(images(("1", "a"), source="nih"), numbers(7), start=RECORD, salt="ab" * 16)
    assert other.sources == {"iu": 3, "nih": 1}


def test_it_does_not_matter_in_how_many_parts_images_were_recorded() -> None:
    rows, pixels = images(*ROWS), numbers(11, NONE, 13)
    whole, parts = trained(rows, pixels), exposure.begun(Exposure(), SALT)
    for k in (2, 0, 1):
        assert not exposure.recorded(parts.trainings[-1], rows)[k]
        parts = exposure.extended(parts, rows.take(np.array([k])), pixels[[k]])
    assert exposure.recorded(parts.trainings[-1], rows).all()
    assert parts.sources == whole.sources
    assert parts.trainings[0].without_pixels == whole.trainings[0].without_pixels == 1
    for kind in exposure.HASHES:
        np.testing.assert_array_equal(getattr(parts.trainings[0], kind), getattr(whole.trainings[0], kind))


@pytest.mark.parametrize("kept", [("pixels",), ()])
def test_hashes_can_be_taken_out_and_what_cannot_be_checked_then_is_said(kept: tuple[str, ...]) -> None:
    record = exposure.reduced(replace(RECORD, training_images=numbers(1, 2)), kept)
    assert record.sources == RECORD.sources and len(record.training_images) == 0
    for training in record.trainings:
        assert {kind for kind in exposure.HASHES if getattr(training, kind) is not None} == set(kept)
    found = exposure.overlap(record, images(("9", "x"), ("1", "a"), ("1", "c")), numbers(11, 5, 6))
    assert classes(found) == ["by_pixels" if kept else "source", "source", "source"]
    lost = "names, patients" if kept else "names, pixels, patients"
    assert found.not_known == (
        "pixels of 2 training images",
        f"{lost} of training images, which were taken out at an export",
    )
    assert exposure.overlap(exposure.reduced(RECORD, exposure.HASHES), images(("1", "c")), numbers(1)).patient.all()
