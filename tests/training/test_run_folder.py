"""Run folders, and which checkpoints stay in them."""

from __future__ import annotations

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from checkpoints import as_checkpoint

from cxrcl.checkpoint.content import Progress, TrainingState
from cxrcl.checkpoint.file import load, save
from cxrcl.errors import ConfigError
from cxrcl.training import run_folder as run
from cxrcl.training.run_folder import RunFolder, choose_folder, earlier_checkpoint

# ---------------------------------------------------------------------------------------------------- folders


def test_a_folder_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = choose_folder(str(tmp_path / "räume 1"), "x")
    assert folder == tmp_path / "räume 1"
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]
    (folder / "checkpoints" / "last.pt").write_text("kept")
    assert choose_folder(str(folder), "x") == folder
    assert (folder / "checkpoints" / "last.pt").read_text() == "kept"


def test_new_folders_never_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.time, "strftime", lambda _: "2024-01-01_00-00-00")  # all in the same second
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: choose_folder(None, "job"), range(24)))
    assert len(set(folders)) == 24
    assert all(folder.parent == Path("outputs/job") and (folder / "checkpoints").is_dir() for folder in folders)


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="a file stands there"):
        choose_folder(str(tmp_path / "file"), "x")


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run_dir=.*cannot write there \(Not a directory\)"):
        choose_folder(str(tmp_path / "file" / "below"), "x")

    def refuses(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuses)
    with pytest.raises(ConfigError, match=r"cannot write there \(Permission denied\)"):
        choose_folder(str(tmp_path / "shut"), "x")


# ------------------------------------------------------------------------------------------------ earlier runs

SETTINGS: dict[str, Any] = {
    "seed": 0,
    "device": "auto",
    "run_dir": "a",
    "timeout_minutes": 10,
    "data": {"num_workers": 2, "views": None},
    "trainer": {"keep_best": 1, "log_every": 20, "batch_size": 64},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
}


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    state = {"config": {"settings": SETTINGS, "fingerprint": "abc"}, "progress": {"step": 3}}
    save(as_checkpoint(state), tmp_path / "checkpoints" / "last.pt")
    return tmp_path


def changed(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(SETTINGS)
    *sections, key = path.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[key] = value
    return values


def test_a_new_folder_has_no_earlier_checkpoint(tmp_path: Path) -> None:
    assert earlier_checkpoint(str(tmp_path), SETTINGS, "abc") is None


def test_the_same_settings_find_the_earlier_checkpoint(begun: Path) -> None:
    found = earlier_checkpoint(begun, copy.deepcopy(SETTINGS), "abc")
    assert found is not None and found.step == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.num_workers", 0),
        ("device", "cpu"),
        ("run_dir", "b"),
        ("timeout_minutes", 1),
        ("trainer.keep_best", 3),
        ("trainer.log_every", 1),
    ],
)
def test_settings_that_do_not_change_the_training_are_free(begun: Path, key: str, value: Any) -> None:
    assert earlier_checkpoint(begun, changed(key, value), "abc") is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 1), ("data.views", ["PA"]), ("trainer.batch_size", 32), ("optimizer.lr", 0.2), ("optimizer.momentum", 1)],
)
def test_changed_settings_are_refused_by_name(begun: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"other settings \({key}\)"):
        earlier_checkpoint(begun, changed(key, value), "abc")


def test_changed_data_are_refused(begun: Path) -> None:
    with pytest.raises(ConfigError, match="on other data"):
        earlier_checkpoint(begun, SETTINGS, "abd")


# ------------------------------------------------------------------------------------------------- checkpoints


def store_of(folder: Path, keep_best: int, scores: list[float | None], best: Any = ()) -> RunFolder:
    store = RunFolder(folder, keep_best, as_checkpoint({}).origin, best)
    start = 10 * (1 + max((step for _, step in best), default=0) // 10)
    for k, score in enumerate(scores):
        store.save(TrainingState({}, Progress(start + 10 * k)), score)
    return store


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def step_of(folder: Path, name: str) -> int:
    return load(folder / "checkpoints" / name).step


def test_keeping_none_leaves_the_last_only(tmp_path: Path) -> None:
    store = store_of(tmp_path, 0, [0.5, 0.9, 0.1])
    assert files(tmp_path) == ["last.pt"] and step_of(tmp_path, "last.pt") == 30
    assert store.chosen().name == "last.pt"


def test_keeping_one_leaves_the_last_and_the_best(tmp_path: Path) -> None:
    store = store_of(tmp_path, 1, [0.5, 0.9, 0.1, None])
    assert files(tmp_path) == ["best.pt", "last.pt"]
    assert (step_of(tmp_path, "best.pt"), step_of(tmp_path, "last.pt")) == (20, 40)
    assert store.chosen().name == "best.pt"


def test_keeping_three_leaves_the_three_best_under_their_steps(tmp_path: Path) -> None:
    store_of(tmp_path, 3, [0.5, 0.9, 0.1, 0.7, 0.6])
    named = ["best_step_00000020.pt", "best_step_00000040.pt", "best_step_00000050.pt"]
    assert files(tmp_path) == ["best.pt", *named, "last.pt"]
    assert [step_of(tmp_path, name) for name in ("best.pt", *named)] == [20, 20, 40, 50]


def test_the_earlier_one_wins_a_tie(tmp_path: Path) -> None:
    store_of(tmp_path, 1, [0.5, 0.5, 0.5])
    assert step_of(tmp_path, "best.pt") == 10


def test_smaller_is_better_through_the_sign_of_the_score(tmp_path: Path) -> None:
    store_of(tmp_path, 2, [-3.0, -1.0, -2.0])
    assert step_of(tmp_path, "best.pt") == 20
    assert files(tmp_path) == ["best.pt", "best_step_00000020.pt", "best_step_00000030.pt", "last.pt"]


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2, [math.nan, 0.1, math.nan])
    assert step_of(tmp_path, "best.pt") == 20
    assert files(tmp_path) == ["best.pt", "best_step_00000020.pt", "last.pt"]
    assert store.best == [(0.1, 20)]


def test_without_any_number_the_last_is_chosen(tmp_path: Path) -> None:
    assert store_of(tmp_path, 1, [math.nan]).chosen().name == "last.pt"


def test_the_list_of_the_best_survives_a_restart(tmp_path: Path) -> None:
    store_of(tmp_path, 2, [0.5, 0.9])
    kept = load(tmp_path / "checkpoints" / "last.pt").best
    assert kept == ((0.9, 20), (0.5, 10))
    store_of(tmp_path, 2, [0.7, 0.6], best=kept)
    assert step_of(tmp_path, "best.pt") == 20
    assert files(tmp_path) == ["best.pt", "best_step_00000020.pt", "best_step_00000030.pt", "last.pt"]
    assert load(tmp_path / "checkpoints" / "last.pt").best == ((0.9, 20), (0.7, 30))
