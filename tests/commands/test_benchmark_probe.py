"""The benchmark of cached features runs, and tells a mistake in a line."""

from __future__ import annotations

import argparse
import re

import pytest

from cxrcl.commands.benchmark import probe
from cxrcl.errors import ConfigError


def given(**values: int) -> argparse.Namespace:
    return argparse.Namespace(**{"studies": 40, "epochs": 3, "encoder": "small_resnet", **values})


def test_both_probes_run_and_agree(capsys: pytest.CaptureFixture[str]) -> None:
    probe.run(given())
    said = capsys.readouterr().out.splitlines()[-1]
    found = re.search(r"40 studies, 3 epochs: .* ratio (\d+\.\d); .* (\d\.\de[-+]\d+) at most", said)
    assert found is not None and float(found[1]) > 0 and float(found[2]) < 1e-4


@pytest.mark.parametrize("wrong", [{"studies": 39}, {"epochs": 0}])
def test_sizes_that_give_no_figure_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected 1 and 40, or more"):
        probe.run(given(**wrong))
