"""Transfer: a probe on features that were encoded once, fractions of the data, rates of the encoder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import plain_checkpoint
from helpers import (
    ALONE,
    PACKAGES,
    StopsRun,
    TinyImages,
    in_processes,
    said_once,
    settings,
    tiny_towers,
    write_manifest,
)

from cxrcl.app.model import prepare
from cxrcl.app.plan import lowered_batch_size
from cxrcl.app.stages.cached_features import encode_once
from cxrcl.app.stages.learning import Learner
from cxrcl.app.train import train
from cxrcl.commands.hydra import compose
from cxrcl.config import sections
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.loader import BatchReader
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, DataError
from cxrcl.models.image import TimmEncoder
from cxrcl.objectives.classify import Classify
from cxrcl.training.optim import parameter_groups
from cxrcl.training.trainer import Precision
from cxrcl.types import Batch, ImageSpec

PROBE = (
    *("objective.freeze_encoder=true", "transform=plain", "data.num_workers=0", "optimizer.lr=1e-2"),
    *("image_encoder=small_resnet", "image_encoder.name=test_resnet", "image_encoder.size=32"),
    *("trainer.batch_size=8", "trainer.max_epochs=null", "trainer.max_steps=10", "trainer.warmup_epochs=null"),
    *("trainer.evaluate_every_epochs=null", "trainer.evaluate_every_steps=5", "trainer.log_every=1"),
)
CACHED = "data.cache_features=true"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data"))


def logged(run: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without their times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def probe(data: Path, run: Path, *more: str) -> Any:
    return train(settings(data, run, *PROBE, *more, name="finetune"))


# ------------------------------------------------------------------------------------------- encoded once


def same_logs(one: Path, other: Path) -> None:
    for a, b in zip(logged(one), logged(other), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("objective.freeze_encoder=false", "freeze.image_encoder=all", "data.unit=image"),
        ("objective.task=multi_class", "data.labels=[No Finding,Cardiomegaly]", "evals=[classification,loss]"),
        ("trainer.ema_decay=0.9", "trainer.micro_batch_size=3", "evals=[classification,pixel_ridge,linear_probe]"),
    ],
    ids=["probe", "frozen layers", "multi_class", "average"],
)
def test_a_probe_on_cached_features_is_the_probe_that_encodes_again(
    data: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    probe(data, tmp_path / "again", *more)
    probe(data, tmp_path / "once", CACHED, *more)
    same_logs(tmp_path / "again", tmp_path / "once")
    one, other = (plain_checkpoint(tmp_path / run / "checkpoints" / "last.pt")["model"] for run in ("again", "once"))
    assert all(torch.allclose(one[key], other[key], atol=1e-5) for key in one)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Films of each pass through the encoder."""
    counts: list[int] = []
    forward = TimmEncoder.forward

    def counted(self: TimmEncoder, images: torch.Tensor) -> Any:
        counts.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(TimmEncoder, "forward", counted)
    return counts


def test_each_film_goes_through_the_encoder_once(data: Path, tmp_path: Path, encoded: list[int]) -> None:
    probe(data, tmp_path / "run", CACHED)
    rows = list(csv.DictReader((data / "manifest.csv").open()))
    used = [row for row in rows if row["split"] in ("train", "valid")]
    assert encoded[0] == 1  # finds the widths of a new encoder
    assert sum(encoded[1:]) == len(used) < len(rows)


def test_a_run_goes_on_with_cached_features(data: Path, tmp_path: Path) -> None:
    probe(data, tmp_path / "whole", CACHED)
    given = settings(data, tmp_path / "parts", *PROBE, CACHED, name="finetune")
    given["evals"]["stops"] = {"_target_": "helpers.StopsRun"}
    StopsRun.at = 1
    try:
        assert not train(given, packages=PACKAGES).finished
    finally:
        StopsRun.at = None
    assert train(given, packages=PACKAGES).finished
    whole, parts = logged(tmp_path / "whole"), logged(tmp_path / "parts")
    assert [line.get("train/loss") for line in whole] == pytest.approx([line.get("train/loss") for line in parts])


def test_a_film_that_cannot_be_read_is_stood_in_for_as_ever(tmp_path: Path) -> None:
    data = write_manifest(tmp_path / "data")
    (data / "images" / "004_PA.png").write_text("no film")
    for run, more in (("again", ()), ("once", (CACHED,))):
        probe(data, tmp_path / run, "data.max_bad_fraction=0.2", *more)
    same_logs(tmp_path / "again", tmp_path / "once")
    assert max(line.get("train/bad_images", 0) for line in logged(tmp_path / "once")) > 0
    (data / "images" / "030_PA.png").write_text("no film")  # of valid
    with pytest.raises(DataError, match="image of row 42 of the manifest: not an image"):
        probe(data, tmp_path / "valid", "data.max_bad_fraction=0.2", CACHED)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("objective.freeze_encoder=false",), "features change while the encoder is trained; freeze the whole of it"),
        (("objective.freeze_encoder=false", "freeze.image_encoder={all_but_last: 1}"), "features change while"),
        (("transform=radiograph",), "the transform changes the images of the training"),
        (("transform.rotate_deg=5",), "set transform=plain"),
    ],
)
def test_features_that_do_not_stay_the_same_are_refused(
    data: Path, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.cache_features=true: .*({said})"):
        probe(data, tmp_path / "run", CACHED, *more)
    assert not (tmp_path / "run").exists()


def test_objectives_that_look_at_more_than_pooled_features_are_refused(data: Path, tmp_path: Path) -> None:
    given = tiny_towers(settings(data, tmp_path, CACHED, "objective=simclr", "evals=[]", name="finetune"))
    with pytest.raises(ConfigError, match=r"data\.cache_features=true: SimClr needs more of an image"):
        train(given, packages=PACKAGES)


SPEC = ImageSpec(24, (0.5,) * 3, (0.25,) * 3)
CHANGES: list[dict[str, Any]] = [
    *({"scale": (0.5, 1.0)}, {"flip_probability": 1.0}, {"rotate_deg": 20.0}, {"zoom": (1.2, 1.4)}),
    *({"translate": 0.2}, {"clahe_probability": 1.0}, {"gamma": 0.5}, {"brightness": 0.5}, {"contrast": 0.5}),
    {"blur_probability": 1.0},
]
STILL: dict[str, Any] = {"scale": None, "rotate_deg": 0.0, "gamma": 0.0, "brightness": 0.0, "contrast": 0.0}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        *CHANGES,
        *(
            {"train_fit": "crop", "aspect": 2.0},
            {"eval_crop": 0.8, "fit": "squash"},
            {"gamma": 0.5} | {"jitter_probability": 0.0},
        ),
    ],
    ids=str,
)
def test_a_transform_knows_whether_training_sees_other_films(settings: dict[str, Any]) -> None:
    """Pixels decide."""
    transform = RadiographTransform(SPEC, **{**STILL, **settings})
    film = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)

    def finished(rng: np.random.Generator | None) -> torch.Tensor:
        image = torch.from_numpy(transform.geometry(film, rng))[None, None, None]
        numbers = None if rng is None else torch.from_numpy(transform.draw(rng))[None, None]
        batch = Batch(image, numbers, None, torch.zeros(1, 1), torch.zeros(1))
        images = transform.finish(batch).images
        assert images is not None
        return images

    same = torch.equal(finished(None), finished(np.random.default_rng(1)))
    assert transform.augments != same == (settings not in CHANGES)
    if same:
        assert transform.needed_side_px() == transform.needed_side_px(augmented=False)


# ---------------------------------------------------------------------------------------------- processes


def _encode(runtime: Runtime, folder: Path) -> dict[str, np.ndarray]:
    """Features of five films, one of which cannot be read."""
    torch.manual_seed(0)
    objective = Classify(TinyImages(norm=True), ["a"], freeze_encoder=True)
    transform = RadiographTransform(objective.image_encoder.spec, **STILL)
    paths = sorted(map(str, (folder / "data" / "images").iterdir()))[:5]
    learner = Learner(objective, None, transform, prepare(transform, runtime))
    precision = Precision("fp32", runtime.device)
    return encode_once(learner, paths, ImageReader(), BatchReader(0), runtime, precision, batch_size=2)


def test_processes_share_the_films_and_all_know_them(tmp_path: Path) -> None:
    data = write_manifest(tmp_path / "data", studies=6)
    (data / "images" / "001_PA.png").write_text("no film")
    alone = _encode(ALONE, tmp_path)
    assert len(alone) == 4 and not any("001_PA" in path for path in alone)
    for found in in_processes(2, _encode, tmp_path):
        assert found.keys() == alone.keys()
        assert all(np.allclose(found[path], alone[path], atol=1e-6) for path in alone)


# ---------------------------------------------------------------------------------------------- fractions


def index_of(data: Path, run: Path, *more: str) -> list[tuple[str, str]]:
    """Rows of training_images.csv of a short run."""
    train(settings(data, run, *PROBE, "trainer.max_steps=1", "trainer.batch_size=2", *more, name="finetune"))
    with (run / "training_images.csv").open(newline="") as file:
        return [(row["image"], row["split"]) for row in csv.DictReader(file)]


def test_a_fraction_writes_the_films_it_used_the_same_for_every_model(data: Path, tmp_path: Path) -> None:
    small = index_of(data, tmp_path / "small", "data.fraction=0.2")
    same = index_of(data, tmp_path / "same", "data.fraction=0.2", "seed=3", "image_encoder.size=40")
    other = index_of(data, tmp_path / "other", "data.fraction=0.2", "data.fraction_seed=1")
    large = index_of(data, tmp_path / "large", "data.fraction=0.5")
    assert small == same != other and set(small) < set(large)
    held_out = [row for row in small if row[1] == "valid"]
    assert held_out == [row for row in other if row[1] == "valid"] and len(held_out) > 3
    assert {split for _, split in small} == {"train", "valid"}
    exposed = plain_checkpoint(tmp_path / "small" / "checkpoints" / "last.pt")["exposure"]
    assert exposed["trainings"][0]["salt"] and set(exposed["sources"].values()) == {2}  # of one step


def test_a_run_on_all_films_writes_no_index(data: Path, tmp_path: Path) -> None:
    probe(data, tmp_path / "run", "trainer.max_steps=1", "trainer.evaluate_every_steps=null")
    assert not (tmp_path / "run" / "training_images.csv").exists()


# ------------------------------------------------------------------------------------------ rates, batches


@pytest.mark.parametrize(("decay", "rates"), [(1.0, [0.1, 0.01]), (0.5, [0.1, 0.005, 0.0025])])
def test_the_encoder_has_a_rate_of_its_own(decay: float, rates: list[float]) -> None:
    encoder = TinyImages(norm=True)
    encoder.layer_names = lambda: [["conv"], ["norm", "drop"]]  # type: ignore[method-assign]
    model = Classify(encoder, ["a"])
    groups = parameter_groups(model, 0.0, decay, 0.1, encoder_lr_factor=0.1)
    found = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert sorted({round(rate, 6) for rate in found.values()}, reverse=True) == rates
    assert found[id(model.classifier.weight)] == found[id(model.classifier.bias)] == 0.1
    assert found[id(encoder.norm.weight)] == pytest.approx(rates[1])
    assert found[id(encoder.conv.weight)] == pytest.approx(rates[-1])


def test_a_factor_needs_a_rate() -> None:
    with pytest.raises(ValueError, match=r"^encoder_lr_factor=0.1: multiplies a learning rate"):
        parameter_groups(Classify(TinyImages(), ["a"]), 0.0, encoder_lr_factor=0.1)


def test_the_factor_of_the_config_reaches_the_optimizer(data: Path, tmp_path: Path) -> None:
    more = ("objective.freeze_encoder=false", "trainer.encoder_lr_factor=0.1", "trainer.max_steps=1")
    probe(data, tmp_path / "run", *more, "trainer.evaluate_every_steps=null")
    groups = plain_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["optimizer"]["param_groups"]
    assert {round(group["lr"], 8) for group in groups} == {1e-2, 1e-3}


def test_the_batch_is_lowered_to_a_small_fraction(data: Path, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    more = ("data.fraction=0.2", "trainer.batch_size=16", "trainer.max_steps=2", "trainer.evaluate_every_steps=null")
    with pytest.raises(ConfigError, match="larger than the 6 training samples"):
        probe(data, tmp_path / "run", *more)
    assert probe(data, tmp_path / "run", "trainer.lower_batch_size=true", *more).finished
    assert said_once(log, "trainer.batch_size=16", "lowered to 6")


@pytest.mark.parametrize(
    ("size", "accumulate", "samples", "world", "lowered"),
    [(16, 1, 16, 1, 16), (16, 1, 7, 2, 6), (16, 3, 20, 2, 6), (16, 1, 1, 2, 16)],
)
def test_a_lowered_batch_is_shared_by_processes_and_accumulated(
    size: int, accumulate: int, samples: int, world: int, lowered: int
) -> None:
    given = sections.Trainer(batch_size=size, accumulate=accumulate, lower_batch_size=True)
    runtime = Runtime(0, world, torch.device("cpu"))
    assert lowered_batch_size(given, samples, runtime).batch_size == lowered


LOSS, AUROC = "loss/total", "classification/mean_auroc"


@pytest.mark.parametrize(
    ("name", "chosen_by", "schedule"),
    [
        ("finetune_probe", AUROC, "Cosine"),
        ("finetune_gloria", LOSS, "Plateau"),
        ("finetune_cxr_clip", LOSS, "Cosine"),
        ("finetune_mgca", LOSS, "Constant"),
        ("finetune_benchx", AUROC, "Cosine"),
    ],
)
def test_protocols_by_name_run(
    data: Path, tmp_path: Path, log: pytest.LogCaptureFixture, name: str, chosen_by: str, schedule: str
) -> None:
    small = ("data.num_workers=0", "image_encoder=small_resnet", "image_encoder.name=test_resnet")
    more = ("image_encoder.size=32", "trainer.max_epochs=null", "trainer.max_steps=2", "trainer.warmup_steps=1")
    ends = ("optimizer.lr=1e-30", "trainer.patience=1", "trainer.evaluate_every_steps=1")
    given = [
        f"experiment={name}",
        *small,
        *more,
        *ends,
        "trainer.warmup_epochs=null",
        "trainer.evaluate_every_epochs=null",
    ]
    values = compose("finetune", given)
    values["data"]["root"], values["run_dir"], values["device"] = str(data), str(tmp_path / "run"), "cpu"
    assert train(values).finished
    assert said_once(log, "stopped early", "step 2", chosen_by)
    stored = plain_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    settings = stored["config"]["settings"]
    assert settings["name"] == name and settings["schedule"]["_target_"] == f"cxrcl.training.optim.{schedule}"
    assert settings["objective"]["freeze_encoder"] == (name != "finetune_benchx")
    assert ("norm.weight" in stored["model"]) == (name == "finetune_benchx")
    assert bool(stored["model"]["classifier.weight"].std() < 1e-4) == (name == "finetune_benchx")
    assert settings["data"]["cache_features"] == (name == "finetune_probe")
