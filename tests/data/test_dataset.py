"""Samples as pure functions of (seed, epoch, row, view), texts of rows, and the cut into global batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ALONE

from cxrcl.app.data import load_data
from cxrcl.app.sources import build_sources
from cxrcl.config import sections
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.data import dataset, manifest
from cxrcl.data.dataset import EvalSet, Sample, TrainSet, probe_images
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.manifest import Manifest
from cxrcl.data.order import GlobalBatches, epoch_order
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.reports import ReportSampler
from cxrcl.data.text.texts import Texts
from cxrcl.errors import ConfigError, DataError
from cxrcl.types import ImageSpec

SPEC = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
STILL: dict[str, Any] = {"scale": (1.0, 1.0), "aspect": 1.0, "rotate_deg": 0.0}
SECTIONS = ("findings", "impression")


def train_part(folder: Path) -> Manifest:
    return manifest.load(folder).split("train")


def make_texts(
    data: Manifest, mode: str = "auto", file: Any = "chexpert.json", sentences: int | None = None, **options: Any
) -> Texts:
    return Texts(data, mode, ReportSampler(SECTIONS, sentences), PromptSampler(file, **options))


def make(
    data: Manifest,
    transform: RadiographTransform | None = None,
    texts: Texts | None = None,
    unit: str = "study",
    views: int = 1,
    num_texts: int = 0,
    seed: int = 0,
) -> TrainSet:
    return TrainSet(data, transform or RadiographTransform(SPEC), texts, unit, views, num_texts, seed)


def as_bytes(sample: Sample) -> tuple[Any, ...]:
    assert sample.images is not None and sample.augment is not None
    arrays = (sample.images, sample.augment, sample.labels)
    return (*(array.tobytes() for array in arrays), tuple(sample.texts), sample.index)


def test_a_sample_does_not_depend_on_those_before_it(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    keys = [(epoch, item) for epoch in range(2) for item in range(12)]

    def read(order: list[tuple[int, int]]) -> dict[tuple[int, int], tuple[Any, ...]]:
        made = make(data, texts=make_texts(data, sentences=1, num_negatives=1), views=2, num_texts=2)
        return {key: as_bytes(made[key]) for key in order}

    assert read(keys) == read(keys[::-1])


def test_epochs_and_seeds_differ(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    first, second = make(data), make(data, seed=1)
    samples = {as_bytes(first[0, 0]), as_bytes(first[1, 0]), as_bytes(second[0, 0]), as_bytes(first[0, 0])}
    assert len(samples) == 3


def test_two_views_of_a_study_with_two_images_are_different_images(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    made = make(data, RadiographTransform(SPEC, **STILL), views=2)
    still = EvalSet(data, RadiographTransform(SPEC), None)
    of_the_study = {still[0, row].images.tobytes() for row in made.items[0]}  # type: ignore[union-attr]
    orders = set()
    for epoch in range(8):
        images = made[epoch, 0].images
        assert images is not None and {image.tobytes() for image in images} == of_the_study and len(of_the_study) == 2
        orders.add(images[0].tobytes())
    assert orders == of_the_study


def test_a_study_with_one_image_gives_it_twice_with_different_crops(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    assert len(make(data).items[1]) == 1
    still = make(data, RadiographTransform(SPEC, **STILL), views=2)[0, 1]
    assert still.images is not None and (still.images[0] == still.images[1]).all()
    moved = make(data, views=2)[0, 1]
    assert moved.images is not None and (moved.images[0] != moved.images[1]).any()
    assert moved.augment is not None and (moved.augment[0] != moved.augment[1]).any()


def test_unit_image_makes_each_image_a_sample(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    by_image, by_study = make(data, unit="image"), make(data, unit="study")
    assert (len(by_image), len(by_study)) == (18, 12)
    assert [by_image[0, item].index for item in range(18)] == list(range(2, 20))


def test_studies_of_different_patients_are_never_mixed(put: Callable[..., Path]) -> None:
    rows = [
        {"image": f"{k}.png", "patient": f"p{k // 2}", "study": "1", "view": "PA", "split": "train"} for k in range(4)
    ]
    assert [item.tolist() for item in make(manifest.load(put(rows))).items] == [[0, 1], [2, 3]]


def test_images_of_a_study_that_differ_need_unit_image(put: Callable[..., Path], rows: list[dict[str, str]]) -> None:
    rows[1]["Edema"] = "1"  # the lateral image of the first study
    data = manifest.load(put(rows)).split("train")
    with pytest.raises(DataError, match=r"a sample with unit=image$"):
        make(data, unit="study")
    assert len(make(data, unit="image")) == 18


def test_shapes_and_types(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    sample = make(data, texts=make_texts(data), views=3, num_texts=2)[0, 0]
    assert sample.images is not None and sample.images.shape == (3, 1, 32, 32) and sample.images.dtype == np.uint8
    assert sample.augment is not None and sample.augment.shape == (3, 4) and sample.augment.dtype == np.float32
    assert sample.labels.shape == (3,) and sample.labels.dtype == np.float32 and len(sample.texts) == 2


def test_texts_are_drawn_anew_for_each_epoch_and_place(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    made = make(data, texts=make_texts(data, sentences=1), num_texts=2)
    seen = [tuple(made[epoch, 0].texts) for epoch in range(20)]
    assert len(set(seen)) > 2 and any(first != second for first, second in seen)


# -------------------------------------------------------------------------------------------------- texts


def test_auto_takes_the_report_and_prompts_where_there_is_none(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    texts = make_texts(data)
    spoken = PromptSampler("chexpert.json").prompts
    study = data.rows["study"].tolist()
    assert texts.make(study.index("s0"), None) == "The heart is normal. Series number 0 shown. Normal chest film."
    assert texts.make(study.index("s4"), None) == spoken["No Finding"]["pos"][0]


def test_report_never_speaks_of_labels_and_prompts_never_reads_reports(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    study = data.rows["study"].tolist()
    reports, spoken = make_texts(data, "report"), make_texts(data, "prompts")
    assert not reports.exists(study.index("s4")) and reports.make(study.index("s4"), None) == ""
    assert "Series" not in spoken.make(study.index("s0"), None) and spoken.exists(study.index("s0"))


def test_samples_without_any_text_are_dropped_and_counted(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    reports = make(data, texts=make_texts(data, "report"), num_texts=1)
    assert (len(reports), reports.dropped) == (10, 2)
    everything = make(data, texts=make_texts(data, "auto"), num_texts=1)
    assert (len(everything), everything.dropped) == (12, 0)
    assert make(data, texts=make_texts(data, "report"), num_texts=0).dropped == 0


def test_labels_about_which_nothing_is_said_are_dropped(tiny_set: Path) -> None:
    data = train_part(tiny_set).with_labels(["Cardiomegaly"])
    positives = make(data, texts=make_texts(data, "prompts"), num_texts=1)
    assert (len(positives), positives.dropped) == (6, 6)
    negatives = make(data, texts=make_texts(data, "prompts", num_negatives=1), num_texts=1)
    assert (len(negatives), negatives.dropped) == (12, 0)


def test_texts_speak_of_what_the_source_states_whatever_the_policy(tiny_set: Path) -> None:
    cfg = sections.Data(root=str(tiny_set), label_policy="ignore")
    data = load_data(cfg, build_sources(cfg, OWN_PACKAGES), ALONE).split("train")
    studies = data.rows["study"].tolist()
    blank, uncertain = studies.index("s0"), studies.index("s1")
    assert np.isnan(data.values[[blank, uncertain], data.labels.index("Edema")]).all()
    forms = PromptSampler("chexpert.json").prompts["Edema"]

    def spoken(row: int, kind: str, **options: Any) -> list[bool]:
        texts = make_texts(data, "prompts", **options)
        drawn = [texts.make(row, np.random.default_rng(k)) for k in range(30)]
        return [any(form in text for form in forms[kind]) for text in drawn]

    assert all(spoken(uncertain, "unc", uncertain=True)) and not any(spoken(uncertain, "unc"))
    denying = {"num_negatives": 9, "negatives_from": "zero_and_blank"}
    assert all(spoken(blank, "neg", **denying)) and not any(spoken(uncertain, "neg", **denying))


def test_data_without_any_text_is_an_error(tiny_set: Path) -> None:
    data = train_part(tiny_set).with_labels([])
    with pytest.raises(DataError, match="none of 12 training samples has a text"):
        make(data, texts=make_texts(data, "prompts"), num_texts=1)


def test_labels_without_sentences_matter_only_where_prompts_are_used(put: Callable[..., Path]) -> None:
    row = {"image": "a.png", "patient": "1", "study": "1", "view": "PA", "split": "train", "Scoliosis": "1"}
    assert make_texts(manifest.load(put([{**row, "findings": "The spine is bent."}], "a"))).exists(0)
    with pytest.raises(ConfigError, match=r"prompts: chexpert\.json has no sentences for Scoliosis"):
        make_texts(manifest.load(put([row], "b")))


# --------------------------------------------------------------------------------------------- evaluation


def test_evaluation_gives_each_image_once_and_fixed(tiny_set: Path) -> None:
    data = train_part(tiny_set)
    made = EvalSet(data, RadiographTransform(SPEC), make_texts(data))
    assert len(made) == 18
    first, again = made[0, 3], made[7, 3]
    assert first.images is not None and again.images is not None and first.augment is None
    assert (first.images == again.images).all() and first.texts == again.texts and first.index == 5  # row of the CSV
    assert EvalSet(data, RadiographTransform(SPEC), None)[0, 3].texts == []


def test_an_image_that_cannot_be_read_is_named_by_its_row(own_set: Path) -> None:
    data = train_part(own_set)
    Path(data.rows["path"][2]).write_bytes(b"")
    with pytest.raises(DataError, match="image of row 4 of the manifest: empty file"):
        EvalSet(data, RadiographTransform(SPEC), None)[0, 2]


def test_an_image_is_named_by_its_row_of_the_csv_after_filtering(own_set: Path) -> None:
    data = manifest.select(manifest.load(own_set), ["PA"], {}).split("train")
    Path(data.rows["path"][2]).write_bytes(b"")
    lines = (own_set / "manifest.csv").read_text().splitlines()
    row = 1 + next(k for k, line in enumerate(lines) if line.startswith(data.rows["image"][2]))
    assert row == 5
    with pytest.raises(DataError, match=f"^image of row {row} of the manifest: "):
        EvalSet(data, RadiographTransform(SPEC), None)[0, 2]
    assert make(data)[0, 2].unreadable_row == row
    with pytest.raises(DataError, match=f"^image of row {row} of the manifest: "):
        probe_images(data)
    assert make(data)[0, 3].index == EvalSet(data, RadiographTransform(SPEC), None)[0, 3].index == 7


def test_probing_opens_images_at_both_ends(own_set: Path) -> None:
    data = train_part(own_set)
    probe_images(data)
    for row in (0, len(data) - 1):
        path = Path(data.rows["path"][row])
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(DataError, match=f"row {row + 2} of the manifest: file not found"):
            probe_images(data, count=2)
        path.write_bytes(content)


# ------------------------------------------------------------------------------------------------ batches


def keys(shares: int, start: int = 0, total: int = 9, count: int = 26, batch: int = 8) -> list[list[tuple[int, int]]]:
    """Global batches, put together from the shares of all processes."""
    parts = [list(GlobalBatches(count, batch, 5, start, total, (k, shares))) for k in range(shares)]
    assert all(len(part[0]) == batch // shares for part in parts)
    return [[key for piece in pieces for key in piece] for pieces in zip(*parts, strict=True)]


@pytest.mark.parametrize("shares", [2, 4, 8])
def test_global_batches_do_not_depend_on_the_number_of_processes(shares: int) -> None:
    assert keys(shares) == keys(1)


def test_an_epoch_is_covered_without_repetition() -> None:
    batches = keys(1)
    for epoch in range(3):
        part = [key for batch in batches[3 * epoch : 3 * epoch + 3] for key in batch]
        assert {e for e, _ in part} == {epoch}
        items = [item for _, item in part]
        assert len(set(items)) == 24 and items == epoch_order(26, 5, epoch)[:24].tolist()
    assert {i for _, i in batches[0]} != {i for _, i in batches[3]}


@pytest.mark.parametrize("start", [0, 1, 3, 5, 9])
def test_going_on_gives_the_tail(start: int) -> None:
    assert keys(1, start) == keys(1)[start:] if start < 9 else not list(GlobalBatches(26, 8, 5, 9, 9, (0, 1)))
    assert len(GlobalBatches(26, 8, 5, start, 9, (0, 1))) == 9 - start


def test_the_order_is_a_permutation_of_its_own_for_each_seed_and_epoch() -> None:
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9 and all(sorted(order) == list(range(50)) for order in orders)


def test_batches_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size=6 is not divisible by 4 processes"):
        GlobalBatches(26, 6, 0, 0, 1, (0, 4))
    with pytest.raises(ConfigError, match="batch_size=27 is larger than the 26 training samples"):
        GlobalBatches(26, 27, 0, 0, 1, (0, 1))


def test_streams_of_different_keys_differ() -> None:
    keys = [(seed, use, epoch, row) for seed in range(3) for use in range(3) for epoch in range(3) for row in range(3)]
    assert len({tuple(dataset.stream(*key).integers(0, 2**32, 4)) for key in keys}) == len(keys)
