"""How a command ends: the exit status, and who says what in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cxrcl.commands.entry import guarded
from cxrcl.errors import ConfigError, DataError

Ended = Callable[[BaseException], tuple[int, str]]


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.fixture
def ended(capsys: pytest.CaptureFixture[str]) -> Ended:
    """Exit status and standard error of a command that raises."""

    def run(error: BaseException) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            guarded(raising(error))
        return int(end.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize(("rank", "said"), [("0", "error: two lines\n"), ("1", "")])
def test_of_a_mistake_only_the_first_process_speaks(
    ended: Ended, monkeypatch: pytest.MonkeyPatch, rank: str, said: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert ended(ConfigError("two\nlines")) == (2, said)


@pytest.mark.parametrize(
    ("rank", "said"), [("0", "error: a film is damaged\n"), ("3", "error: process 3: a film is damaged\n")]
)
def test_a_fault_of_the_data_is_told_by_the_process_that_found_it(
    ended: Ended, monkeypatch: pytest.MonkeyPatch, rank: str, said: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert ended(DataError("a film is damaged")) == (2, said)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/a b/c"), "No space left on device: /a b/c"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("the disk\nwent away"), "the disk went away"),
    ],
)
def test_a_failure_of_the_system_is_one_line(
    ended: Ended, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert ended(error) == (1, f"error: {said}\n")


def test_an_interruption_and_a_defect_are_told_apart(ended: Ended) -> None:
    assert ended(KeyboardInterrupt()) == (130, "error: interrupted\n")
    with pytest.raises(ZeroDivisionError):
        guarded(raising(ZeroDivisionError()))
