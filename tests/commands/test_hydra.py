"""From the words of a command line to the settings of a run."""

from __future__ import annotations

import pytest

from cxrcl.commands.hydra import compose, requested_evals, split_packages
from cxrcl.errors import ConfigError


@pytest.mark.parametrize(
    ("overrides", "asked"),
    [
        ([], []),
        (["seed=1", "splits=[test]", "data.filter={evals: [a]}"], []),
        (["evals=[a]"], ["*"]),
        (["evals.zero_shot.resamples=5"], ["zero_shot"]),
        (["+evals.zero_shot.labels=[a]", "seed=1", "~evals.loss"], ["zero_shot", "loss"]),
    ],
)
def test_evaluators_that_the_command_line_names(overrides: list[str], asked: list[str]) -> None:
    assert requested_evals(overrides) == asked


def test_packages_are_taken_off_the_command_line() -> None:
    assert split_packages(["a=1", "--allow-package", "mine", "--allow-package=my.other", "b=2"]) == (
        ["a=1", "b=2"],
        ("mine", "my.other"),
    )
    for wrong in (["--allow-package"], ["--allow-package="], ["--allow-package", "../x"]):
        with pytest.raises(ConfigError):
            split_packages(wrong)


@pytest.mark.parametrize(
    ("overrides", "steps", "epochs"),
    [
        (["trainer.max_steps=7"], 7, None),
        (["trainer.max_epochs=3"], None, 3),
        (["experiment=demo", "trainer.max_epochs=3"], None, 3),
        (["trainer.max_steps=7", "trainer.max_epochs=3"], 7, 3),  # refused later
        (["trainer.max_steps=null"], None, 20),
        ([], None, 20),
    ],
)
def test_a_duration_on_the_command_line_takes_the_place_of_the_other_unit(
    overrides: list[str], steps: int | None, epochs: float | None
) -> None:
    trainer = compose("train", overrides)["trainer"]
    assert (trainer["max_steps"], trainer["max_epochs"]) == (steps, epochs)


@pytest.mark.parametrize("folder", ["Röntgen", "films (1)", "a b'c", "~/films", "日本", "a=b", "plain"])
def test_folders_of_any_name_need_no_second_quotes(clean_hydra: None, folder: str) -> None:
    for name in ("train", "evaluate"):
        checkpoint = ["checkpoint=none"] if name == "evaluate" else []
        assert compose(name, [*checkpoint, f"data.root={folder}"])["data"]["root"] == folder


@pytest.mark.parametrize("override", ["data.filter={source: [iu]}", "data.filter.source=[iu]"])
def test_rows_are_filtered_by_any_column(clean_hydra: None, override: str) -> None:
    assert compose("train", [override])["data"]["filter"] == {"source": ["iu"]}
