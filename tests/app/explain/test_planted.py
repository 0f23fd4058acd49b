"""Causes that are planted by code that `explain` does not share: the true one comes first. Slow: minutes each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from planted_study import OF_ONE, case, counted, study
from planted_targets import Lab, Way

from cxrcl.app.explain.explain import Explainer
from cxrcl.app.explain.targets import OTHER_CODE

pytestmark = pytest.mark.slow
Case = tuple[str, Explainer, Lab]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module", params=list(OF_ONE))
def of_checkpoint(request: pytest.FixtureRequest, folder: Path) -> Iterator[Case]:
    with case(folder, request.param) as (explainer, lab):
        yield request.param, explainer, lab


def test_planted_causes_come_first_and_a_control_names_none(of_checkpoint: Case) -> None:
    by_label, _, control = study(*of_checkpoint)
    alone, causes, together, pairs = counted(by_label)
    assert causes >= 20 and alone >= 0.9 * causes and 0 < pairs == together
    assert control.reached == 0 and control.start < 0.001


def test_other_code_differs_by_no_more_than_is_allowed_for_it(of_checkpoint: Case) -> None:
    _, explainer, lab = of_checkpoint
    figures = lab.figures(Way())
    ours = explainer.bench.figures(list(figures))
    assert abs(ours["mean_auroc"] - figures["mean_auroc"]) <= 0.0005 + OTHER_CODE
