"""What a training records of the images that it reads, and what an evaluation finds of it: whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import said
from helpers import ALONE, PACKAGES, StopsRun, settings, tiny_towers, write_manifest
from PIL import Image
from recording import read_in_training

import cxrcl
from cxrcl.app.evaluate import evaluate
from cxrcl.app.train import train
from cxrcl.checkpoint.file import load
from cxrcl.commands.hydra import compose
from cxrcl.data import exposure, manifest
from cxrcl.data.exposure import HASHES, Exposure
from cxrcl.data.images.image_io import read_hashed
from cxrcl.data.packing.pack import pack
from cxrcl.evaluation.report.facts import TrainedOn
from cxrcl.export.exporting import Options, export

SHORT = (  # 8 studies in batches of 4: 4 epochs
    *("trainer.max_steps=8", "trainer.batch_size=4", "trainer.warmup_steps=0", "trainer.evaluate_every_steps=null"),
    *("evals=[]", "data.num_workers=0"),
)
SCORING = ("device=cpu", "data.num_workers=0", "evals=[zero_shot]", "random_weights=false", "resamples=0", "groups=[]")


def a_set(root: Path, source: str | None = "iu", studies: int = 12, seed: int = 0) -> Path:
    write_manifest(root, studies, size=40, seed=seed)
    rewritten(root, lambda table: table.assign(source=source) if source else table)
    return root


def rewritten(root: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table = pd.read_csv(root / "manifest.csv", dtype=str, keep_default_na=False)
    change(table).to_csv(root / "manifest.csv", index=False)


def trained(root: Path, run: Path, *overrides: str, **data: Any) -> Path:
    """The checkpoint of a training on the studies of the split train."""
    values = tiny_towers(settings(root, run, *SHORT, *overrides))
    values["data"] |= data
    return train(values, packages=PACKAGES).folder / "checkpoints" / "last.pt"


def compared(checkpoint: Path, *overrides: str) -> TrainedOn:
    values = compose("evaluate", [f"checkpoint='{checkpoint}'", *SCORING, *overrides])
    page = evaluate(values, PACKAGES).page
    assert page is not None and page.checkpoints[0].facts is not None
    found = page.checkpoints[0].facts.trained_on
    assert found is not None
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(data, tmp_path_factory.mktemp("model"))


def found_in(checkpoint: Path | Exposure, root: Path) -> np.ndarray:
    """bool [rows]: images of the training split that are in the record, by name and pixels alike."""
    record = checkpoint if isinstance(checkpoint, Exposure) else load(checkpoint).exposure
    assert record is not None
    rows = manifest.load(root).split("train")
    hashes = np.array([read_hashed(path)[1] for path in rows.paths])
    found = exposure.overlap(replace(record, trainings=record.trainings[-1:]), rows, hashes)
    by_name = exposure.recorded(record.trainings[-1], rows)
    np.testing.assert_array_equal(found.by_pixels, by_name)
    return by_name


def sizes(record: Exposure | None) -> list[list[int | None]]:
    assert record is not None
    hashes = [[getattr(training, kind) for kind in HASHES] for training in record.trainings]
    return [[None if each is None else len(each) for each in training] for training in hashes]


# ------------------------------------------------------------------------------------ the three contaminations


def scored_set(root: Path, data: Path) -> Path:
    """Two images of each kind, of training images all but the last: renamed and of other patients; of another source;
    new images of training patients; images of other patients; those and of another source."""
    rows = pd.read_csv(data / "manifest.csv", dtype=str, keep_default_na=False)
    rows = rows[rows["split"] == "train"].drop_duplicates("patient").iloc[:2].assign(split="test")
    kinds = {
        "renamed": rows.assign(patient=["new1", "new2"], study=["n1", "n2"]),
        "source": rows.assign(source="mine"),
        "patient": rows,
        "others": rows.assign(patient=["new3", "new4"]),
        "foreign": rows.assign(patient=["new5", "new6"], source="theirs"),
        "same": rows,
    }
    (root / "images").mkdir(parents=True)
    tables = []
    for seed, (kind, table) in enumerate(kinds.items()):
        names = [f"images/{kind}_{k}.png" if kind != "same" else name for k, name in enumerate(table["image"])]
        for name, original in zip(names, table["image"], strict=True):
            if kind in ("renamed", "source"):
                Image.open(data / original).convert("RGB").save(root / name)  # another file, the same pixels
            else:
                noise = np.random.default_rng([seed, len(name)]).integers(0, 256, (40, 40), dtype=np.uint8)
                Image.fromarray(np.roll(noise, names.index(name))).save(root / name)
        tables.append(table.assign(image=names))
    pd.concat(tables).to_csv(root / "manifest.csv", index=False)
    return root


def test_each_contamination_is_found_and_named(model: Path, data: Path, tmp_path: Path, blank_pictures: None) -> None:
    root = scored_set(tmp_path / "scored", data)
    shown = said(
        "evaluate",
        *(f"checkpoint={model}", f"data.root={root}", f"out={tmp_path / 'out'}", "data.check_patients=false", *SCORING),
        *("--allow-package", "helpers"),
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    counts = {"seen_by_pixels": 4, "seen_by_name": 2, "patient_seen": 2, "same_source": 2, "unknown": 2}
    assert {name: results["trained_on"][name] for name in counts} == counts
    assert results["trained_on"]["contaminated"] == 8 and results["trained_on"]["scored"] == 12
    line = (
        "CONTAMINATED: of 12 scored images 6 seen in training (4 by pixels, 2 by name only), 2 of a training patient, "
        "2 of the same source, 2 unknown"
    )
    told = f"trained on: iu ({int(found_in(model, data).sum())} images). {line}"
    assert told in shown  # beside the figures
    for name in ("report.md", "report.html"):
        assert line in (tmp_path / "out" / name).read_text(encoding="utf-8")
    named = pd.read_csv(tmp_path / "out" / "seen_in_training.csv")
    kinds = named["image"].str.extract(r"images/([a-z]+)_")[0].fillna("same")
    expected = {"renamed": "image (pixels)", "source": "image (pixels)", "patient": "patient", "same": "image (name)"}
    assert (named["found"] == kinds.map(expected)).all() and len(named) == 8
    export(model, tmp_path / "given", Options(results=[tmp_path / "out" / "results.json"]), PACKAGES)
    assert "**Not a test: iu" in (tmp_path / "given" / "README.md").read_text(encoding="utf-8")


def test_images_of_other_patients_are_said_to_be_of_the_same_source(model: Path, data: Path) -> None:
    found = compared(model, f"data.root={data}", "splits=[test]")
    assert found.same_source == found.scored > 0 and not found.contaminated and not found.not_known
    assert f"Of {found.scored} scored images 0 seen in training, 0 of a training patient" in str(found)


# -------------------------------------------------------------------------------------------- files and stores


def test_trained_packed_and_scored_from_files_and_the_reverse(data: Path, tmp_path: Path) -> None:
    store = pack(data, tmp_path / "store", 24).store.folder
    packed = trained(data, tmp_path / "packed", store=str(store))
    files = trained(data, tmp_path / "files", read_px=24)
    assert sizes(load(packed).exposure) == sizes(load(files).exposure)
    assert (found_in(packed, data) == found_in(files, data)).all() and found_in(files, data).any()
    rewritten_copy = a_set(tmp_path / "renamed")
    rewritten(rewritten_copy, lambda table: table.assign(source="mine", patient="x" + table["patient"]))
    restored = pack(rewritten_copy, tmp_path / "other", 24).store.folder
    from_files = compared(packed, f"data.root={rewritten_copy}", "splits=[train]")
    from_store = compared(files, f"data.store={restored}", "splits=[train]")
    assert from_files == from_store and from_files.seen_by_pixels == found_in(files, data).sum() > 8


def test_of_a_store_of_before_it_is_said_that_pixels_are_unknown(data: Path, tmp_path: Path) -> None:
    store = pack(data, tmp_path / "store", 24).store.folder
    index = dict(np.load(store / "index.npz"))
    np.savez(store / "index.npz", **{name: values for name, values in index.items() if name != "pixels"})
    checkpoint = trained(data, tmp_path / "run", store=str(store))
    record = load(checkpoint).exposure
    assert record is not None and len(record.trainings[0].pixels) == 0
    known = record.trainings[0].without_pixels
    found = compared(checkpoint, f"data.root={data}", "splits=[train]")
    assert found.seen_by_name == known == record.sources["iu"] > 0 == found.seen_by_pixels
    assert f"pixels of {known} training images" in found.not_known


# ---------------------------------------------------------------------------------- what counts as having been read


def test_a_run_that_ends_early_was_trained_on_what_it_had_read(data: Path, tmp_path: Path) -> None:
    one = load(trained(data, tmp_path / "one", "trainer.max_steps=1", "data.unit=image")).exposure
    assert sizes(one)[0][:2] == [4, 4] and one is not None and one.sources == {"iu": 4}
    assert found_in(one, data).sum() == 4 < len(manifest.load(data).split("train"))


def test_a_resumed_run_has_the_record_of_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    def run(folder: str, stop_at: int | None, steps: int = 6) -> Path:
        extra = (f"trainer.max_steps={steps}", "trainer.evaluate_every_steps=1", "data.unit=study")
        values = tiny_towers(settings(data, tmp_path / folder, *SHORT, *extra))
        values["evals"] = {"stops": {"_target_": "helpers.StopsRun"}}
        StopsRun.at = stop_at
        return train(values, packages=PACKAGES).folder / "checkpoints" / "last.pt"

    unbroken, half = load(run("unbroken", None)).exposure, load(run("broken", 1)).exposure
    assert half is not None and unbroken is not None
    assert 0 < half.sources["iu"] < unbroken.sources["iu"]
    whole = load(run("broken", None)).exposure
    assert whole is not None and whole.trainings[0].salt == half.trainings[0].salt and len(whole.trainings) == 1
    assert sizes(whole) == sizes(unbroken) and whole.sources == unbroken.sources
    assert (found_in(whole, data) == found_in(unbroken, data)).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_is_hashed_once(tmp_path: Path, workers: int) -> None:
    data = a_set(tmp_path / "set")
    record = read_in_training(ALONE, data, workers)
    calls = (data / "hashed.txt").read_text().splitlines()
    if workers == 0:  # else two may read an image at the same time
        assert len(calls) == len(set(calls))
    assert len(calls) < 20 and len(record.trainings[0].pixels) == len(set(calls)) == found_in(record, data).sum()


def test_features_that_were_cached_are_of_images_that_were_read(data: Path, model: Path, tmp_path: Path) -> None:
    probe = ("objective.freeze_encoder=true", "transform=plain", "data.cache_features=true", "data.unit=image")
    values = settings(data, tmp_path / "probe", *SHORT, *probe, "trainer.max_steps=2", name="finetune")
    values["init_from"] = str(model)
    record = load(train(values, packages=PACKAGES).folder / "checkpoints" / "last.pt").exposure
    assert record is not None and sizes(record)[1][:2] == [8, 8] and len(record.trainings) == 2
    assert found_in(record, data).sum() == 8  # drawn in two steps: other features were made and not trained on


# ------------------------------------------------------------------------------------------ from model to model


SLOW = pytest.mark.slow


@pytest.mark.parametrize("kept", ["full", pytest.param("pixels", marks=SLOW), pytest.param("none", marks=SLOW)])
def test_a_record_survives_export_init_from_training_and_export(model: Path, tmp_path: Path, kept: str) -> None:
    first = load(model).exposure
    assert first is not None
    export(model, tmp_path / "one", Options(exposure=kept), PACKAGES)
    second = a_set(tmp_path / "nih", "nih", seed=5)
    middle = trained(second, tmp_path / "run", f"init_from={tmp_path / 'one'}")
    export(middle, tmp_path / "two", Options(), PACKAGES)
    record = load(tmp_path / "two").exposure
    assert record is not None and set(record.sources) == {"iu", "nih"}
    salts = [training.salt for training in record.trainings]
    assert salts[0] == first.trainings[0].salt and len(set(salts)) == 2
    assert sizes(record) == sizes(load(middle).exposure)
    assert [kind for kind in HASHES if getattr(record.trainings[0], kind) is not None] == list(
        {"full": HASHES, "pixels": ("pixels",), "none": ()}[kept]
    )
    for kind in HASHES:
        if (hashes := getattr(record.trainings[0], kind)) is not None:
            np.testing.assert_array_equal(hashes, getattr(first.trainings[0], kind))
    opened = cxrcl.load(tmp_path / "two", device="cpu", allow_packages=["helpers"]).exposure
    assert opened is not None and sizes(opened) == sizes(record)
    card = (tmp_path / "two" / "README.md").read_text(encoding="utf-8")
    assert ("patients left out" in card) == (kept != "full")
    assert ("images by pixels left out" in card) == (kept == "none")


def test_what_was_left_out_of_an_export_is_said_in_its_scores(model: Path, data: Path, tmp_path: Path) -> None:
    def scored(kept: str) -> TrainedOn:
        lines = export(model, tmp_path / kept, Options(exposure=kept), PACKAGES)
        assert any("--exposure pixels" in line for line in lines) == (kept == "full")
        return compared(tmp_path / kept, f"data.root={data}", "splits=[train]")

    full, pixels, none = scored("full"), scored("pixels"), scored("none")
    assert full.seen_by_pixels == pixels.seen_by_pixels > 0 and pixels.patient_seen == 0
    assert none.contaminated == 0 and none.same_source == none.scored
    assert any("names, pixels, patients of training images, which were taken out" in words for words in none.not_known)


def test_weights_of_unknown_training_are_said(data: Path, model: Path, tmp_path: Path) -> None:
    state = torch.load(model, weights_only=True)
    del state["exposure"]
    torch.save(state, tmp_path / "old.pt")
    record = load(trained(data, tmp_path / "run", f"init_from={tmp_path / 'old.pt'}", "trainer.max_steps=1")).exposure
    assert record is not None and record.unrecorded == ("the checkpoint of init_from",)
    assert load(model).exposure.unrecorded == ()  # type: ignore[union-attr]


@pytest.fixture
def old(model: Path, data: Path, tmp_path: Path) -> Mapping[str, Any]:
    """The checkpoint as the version before wrote it."""
    rows = manifest.load(data).split("train").rows
    names = ("iu|" + rows["image"]).to_numpy(dtype=object)
    hashes = torch.from_numpy(pd.util.hash_array(names).view(np.int64))
    state = torch.load(model, weights_only=True)
    return {**state, "schema": 2, "exposure": {"sources": {"iu": len(rows)}, "training_images": hashes}}


def test_a_checkpoint_of_before_is_compared_by_names_and_says_what_it_lacks(
    old: Mapping[str, Any], data: Path, tmp_path: Path
) -> None:
    torch.save(old, tmp_path / "old.pt")
    found = compared(tmp_path / "old.pt", f"data.root={data}", "splits=[train]")
    assert found.seen_by_name == found.scored == found.contaminated
    assert any(words.startswith("pixels of") for words in found.not_known)
    record = load(trained(data, tmp_path / "run", f"init_from={tmp_path / 'old.pt'}", "trainer.max_steps=1")).exposure
    assert record is not None and len(record.training_images) == found.scored and len(record.trainings) == 1
    assert record.sources == {"iu": found.scored}  # they were counted before
