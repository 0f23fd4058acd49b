"""What becomes of uncertain labels."""

from __future__ import annotations

import numpy as np
import pytest

from cxrcl.data.labels import CHEXPERT, apply_policy

NAN = np.nan
VALUES = np.float32([[1, 0, -1], [-1, NAN, -1]])
NAMES = ("A", "B", "C")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("ignore", [[1, 0, NAN], [NAN, NAN, NAN]]),
        ("zeros", [[1, 0, 0], [0, NAN, 0]]),
        ("ones", [[1, 0, 1], [1, NAN, 1]]),
        ("keep", [[1, 0, -1], [-1, NAN, -1]]),
        ({"A": "ones", "C": "zeros"}, [[1, 0, 0], [1, NAN, 0]]),
        ({"A": "keep"}, [[1, 0, NAN], [-1, NAN, NAN]]),
        ({}, [[1, 0, NAN], [NAN, NAN, NAN]]),
    ],
    ids=str,
)
def test_policies(policy: str | dict[str, str], expected: list[list[float]]) -> None:
    before = VALUES.copy()
    found = apply_policy(VALUES, NAMES, policy)
    np.testing.assert_array_equal(found, np.float32(expected))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(VALUES, before)


def test_a_label_that_the_data_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="D, E"):
        apply_policy(VALUES, NAMES, {"E": "ones", "A": "ones", "D": "zeros"})


def test_the_chexpert_names_are_fourteen() -> None:
    assert len(set(CHEXPERT)) == 14
