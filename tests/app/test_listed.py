"""`data.split_lists` in commands: what is trained on, what is scored, and what does not go with it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from helpers import said_once, settings, write_manifest

from cxrcl.app import evaluate as evaluate_module
from cxrcl.app import sources as mixture
from cxrcl.app import train as train_module
from cxrcl.commands.hydra import compose
from cxrcl.config import sections
from cxrcl.data import manifest
from cxrcl.errors import ConfigError, DataError

PROBE = (
    *("objective.freeze_encoder=true", "transform=plain", "data.cache_features=true", "data.unit=image"),
    *("image_encoder=small_resnet", "image_encoder.name=test_resnet", "image_encoder.size=32", "optimizer.lr=1e-2"),
    *("trainer.batch_size=4", "trainer.max_epochs=null", "trainer.max_steps=2", "trainer.warmup_epochs=null"),
    *("trainer.evaluate_every_epochs=null", "trainer.evaluate_every_steps=2", "data.num_workers=0"),
)
# Films of the manifest's test stand in train, others the other way round; six are in no list.
LISTS = {
    "train": [f"{k:03d}_PA" for k in [*range(30, 40), *range(1, 16)]],
    "train_10": [f"{k:03d}_PA" for k in (35, 36, 2, 1, 4)],
    "val": [f"images/{k:03d}_PA.png" for k in range(16, 23)],
    "test": [f"{k:03d}_PA.png" for k in range(23, 30)],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data"))


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    for stem, names in LISTS.items():
        (folder / f"{stem}.txt").write_text("\n".join(names))
    return folder


def train(data: Path, run: Path, *more: str) -> Any:
    return train_module.train(settings(data, run, *PROBE, *more, name="finetune"))


def evaluate(checkpoint: Path, *more: str) -> Any:
    given = (f"checkpoint='{checkpoint}'", "device=cpu", "random_weights=false", "resamples=0", "data.num_workers=0")
    return evaluate_module.evaluate(compose("evaluate", [*given, *more]), requested_evals=())


def scored(checkpoint: Path, *more: str) -> set[str]:
    """Names of the images that an evaluation scored."""
    images = evaluate(checkpoint, *more).page.checkpoints[0].images
    assert images is not None
    return set(images.names)


def index_of(run: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in csv.DictReader((run / "training_images.csv").open()):
        found.setdefault(row["split"], set()).add(row["image"])
    return found


@pytest.mark.parametrize(("fraction", "name"), [(1.0, "train"), (0.1, "train_10")])
def test_the_listed_films_are_trained_on_and_scored(
    data: Path,
    lists: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    fraction: float,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = train(data, tmp_path / "run", "data.split_lists=lists", f"data.fraction={fraction}")
    count = len(LISTS[name])
    assert said_once(log, f"train {count} ({name}.txt)", "valid 7 (val.txt)", "test 7 (test.txt)")
    assert said_once(log, f"{count} images", "batch 4")
    found = index_of(tmp_path / "run")
    assert found["train"] == {f"images/{film}.png" for film in LISTS[name]} and found["valid"] == set(LISTS["val"])
    monkeypatch.chdir("/")  # the checkpoint knows where the lists are
    assert scored(done.checkpoint) == {f"images/{film}" for film in LISTS["test"]}


def test_a_run_does_not_go_on_with_other_lists(data: Path, lists: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", f"data.split_lists={lists}")
    (lists / "train.txt").write_text("\n".join(LISTS["train"][1:]))
    with pytest.raises(ConfigError, match="holds a run on other data"):
        train(data, tmp_path / "run", f"data.split_lists={lists}")


def test_a_checkpoint_is_scored_on_the_films_of_a_list(data: Path, lists: Path, tmp_path: Path) -> None:
    test = {f"images/{film}" for film in LISTS["test"]}
    own = train(data, tmp_path / "own").checkpoint
    assert scored(own).isdisjoint(test) and scored(own, f"data.split_lists='{lists}'") == test
    listed = train(data, tmp_path / "listed", f"data.split_lists={lists}").checkpoint
    assert scored(listed) == test
    assert scored(listed, f"data.root='{data}'") == scored(own)  # other data have splits of their own


def test_a_patient_in_two_lists_is_told(data: Path, lists: Path, tmp_path: Path) -> None:
    (lists / "val.txt").write_text("\n".join(["015_LATERAL", *LISTS["val"]]))
    with pytest.raises(DataError, match=r"data.split_lists=.*: 1 patients stand in more than one split"):
        train(data, tmp_path / "run", f"data.split_lists={lists}")
    done = train(data, tmp_path / "run", f"data.split_lists={lists}", "data.check_patients=false")
    assert done.finished
    with pytest.raises(DataError, match="1 patients stand in more than one split"):
        evaluate(done.checkpoint, "data.check_patients=true")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("data.fraction_seed=1", r"data.fraction_seed=1: data.split_lists=.* holds a single draw; set it to 0"),
        ("data.fraction=0.5", r"no train_50.txt for fraction=0.5 .*on the command line: data.fraction=1"),
    ],
)
def test_what_does_not_go_with_lists_is_refused(data: Path, lists: Path, tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(data, tmp_path / "run", f"data.split_lists={lists}", more)


def test_lists_are_those_of_one_source(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.split_lists=here: lists the images of one source, but data has a, b"):
        mixture.as_listed(manifest.load(data), sections.Data(), "here", ["a", "b"], {})


def test_a_fraction_of_the_source_itself_names_its_list(data: Path, lists: Path) -> None:
    whole = manifest.merge({"a": manifest.load(data)})
    listed, _ = mixture.as_listed(whole, sections.Data(), str(lists), ["a"], {"a": 0.1})
    assert len(listed.split("train")) == len(LISTS["train_10"])
