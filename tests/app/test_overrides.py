"""The end of a message: the override that sets the argument which a room below has named."""

from __future__ import annotations

import pickle

import pytest

from cxrcl.app.overrides import explained
from cxrcl.errors import ConfigError, DataError, UserError


def refuse(error: type[UserError] = DataError, argument: str | None = "unit") -> None:
    raise error("two texts: make every image a sample with unit=image", argument=argument)


def test_the_override_stands_at_the_end() -> None:
    with (
        pytest.raises(DataError, match=r"with unit=image \(on the command line: data\.unit=image\)$"),
        explained({"unit": "data.unit=image"}),
    ):
        refuse()


@pytest.mark.parametrize("argument", [None, "labels"])
def test_a_message_without_a_known_argument_stays_as_it_is(argument: str | None) -> None:
    with pytest.raises(ConfigError, match=r"with unit=image$"), explained({"unit": "data.unit=image"}):
        refuse(ConfigError, argument)


def test_an_override_is_said_once() -> None:
    with (
        pytest.raises(DataError, match=r"^[^(]*\(on the command line: data\.unit=image\)$"),
        explained({"unit": "other"}),
        explained({"unit": "data.unit=image"}),
    ):
        refuse()


def test_functions_are_explained_as_well() -> None:
    with pytest.raises(DataError, match=r"\(on the command line: data\.unit=image\)$"):
        explained({"unit": "data.unit=image"})(refuse)()


def test_the_argument_comes_with_an_error_of_another_process() -> None:
    error = pickle.loads(pickle.dumps(DataError("text", argument="unit")))
    assert str(error) == "text" and error.argument == "unit"
