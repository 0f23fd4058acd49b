"""Evaluations while training, and the figure that chooses checkpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from helpers import FixedData
from lines import ALONE, PLAN, Line, Scores, forever, trainer

from cxrcl.app import evaluators
from cxrcl.config import sections
from cxrcl.errors import ConfigError
from cxrcl.evaluation.loss import Loss
from cxrcl.objectives.base import Objective
from cxrcl.training.optim import Plateau
from cxrcl.training.trainer import Precision, Trainer, evaluate


def test_evaluations_and_saves_happen_at_the_asked_steps() -> None:
    scores = Scores(1, 2, 3)
    loop = trainer(
        evaluators={"e": scores}, total_steps=7, evaluate_every=3, save_every=2, select="e/value", higher_is_better=True
    )
    assert loop.fit(forever())
    assert loop.store.saved == [(2, None), (3, 1), (4, None), (6, 2), (7, 3)]
    assert loop.tracker.values[6]["e/value"] == 2


def test_without_a_selecting_figure_evaluations_save_nothing() -> None:
    loop = trainer(evaluators={"e": Scores(1, 2, 3)}, evaluate_every=2)
    loop.fit(forever())
    assert loop.store.saved == [(5, None)]


def test_a_figure_that_should_be_small_is_saved_with_its_sign_turned() -> None:
    loop = trainer(evaluators={"e": Scores(3.0, 1.0)}, evaluate_every=3, select="e/value", higher_is_better=False)
    loop.fit(forever())
    assert loop.store.saved == [(3, -3.0), (5, -1.0)]


def test_selecting_by_a_figure_that_does_not_exist_is_an_error() -> None:
    loop = trainer(evaluators={"e": Scores(3.0)}, evaluate_every=1, select="e/other")
    with pytest.raises(ConfigError, match=r"select=e/other: no evaluator gives this metric \(they give e/value"):
        loop.fit(forever())


def test_evaluation_runs_in_eval_mode_without_gradients_and_restores_the_mode() -> None:
    scores, model = Scores(1, 2), Line()
    for mode in (True, False):
        model.train(mode)
        evaluate(model, lambda *given: {"e": scores.run(*given)}, ALONE, Precision("fp32", torch.device("cpu")))
        assert model.training == mode
    assert scores.modes == [(False, False)] * 2


@pytest.mark.parametrize(("higher_is_better", "rates"), [(True, [1, 1, 0.5, 0.25]), (False, [1, 1, 1, 1])])
def test_plateau_knows_whether_the_selecting_figure_should_rise(higher_is_better: bool, rates: list[float]) -> None:
    falling = {"e": Scores(4.0, 3.0, 2.0, 1.0)}
    plan = {"total_steps": 4, "evaluate_every": 1, "select": "e/value", "higher_is_better": higher_is_better}
    loop = trainer(schedule=Plateau(4, patience=0), evaluators=falling, lr=1.0, **plan)
    loop.fit(forever())
    assert [loop.tracker.values[step]["train/learning_rate"] for step in range(1, 5)] == rates


def test_plateau_waits_on_the_selecting_figure_and_its_state_is_saved() -> None:
    def loop() -> Trainer:
        schedule = Plateau(9, decay=0.5, patience=0)
        scores = Scores(1, 5, 4, 3, 6, 6)
        return trainer(schedule=schedule, evaluators={"e": scores}, total_steps=6, evaluate_every=1, select="e/value")

    first = loop()
    first.fit(forever())
    rates = [first.tracker.values[step]["train/learning_rate"] for step in range(1, 7)]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.0025, 0.0025])
    second = loop()
    second.restore(first.store.state)
    assert second.schedule.state_dict() == {"current": 0.125, "best": 6, "waited": 0}
    assert second.schedule.factor(6) == 0.125


class _Figure(Scores):
    higher_is_better = False


def test_the_selecting_figure_is_the_first_evaluators_unless_named() -> None:
    def chosen(**values: Any) -> tuple[str | None, bool]:
        plan = evaluators.with_selector(
            replace(PLAN, evaluate_every=1), sections.Trainer(**values), {"a": Scores(), "b": _Figure()}, Line()
        )
        return plan.select, plan.higher_is_better

    assert chosen() == ("a/value", True)
    assert chosen(select="b/value") == ("b/value", False)
    assert chosen(select="b/other", select_mode="min") == ("b/other", False)
    with pytest.raises(ConfigError, match=r"trainer.select_mode=max\|min"):
        chosen(select="b/other")
    assert chosen(select="b/other", select_mode="max") == ("b/other", True)
    assert chosen(select_mode="min") == ("a/value", False)
    with pytest.raises(ConfigError, match=r"trainer.select=aa/x: no evaluator aa \(did you mean `a`"):
        chosen(select="aa/x")


def test_selecting_without_evaluations_is_an_error() -> None:
    for select, mode in (("a/value", None), ("a/other", "min")):
        values = sections.Trainer(select=select, select_mode=mode)
        with pytest.raises(ConfigError, match=f"trainer.select={select}: nothing is evaluated; set trainer.evaluate_e"):
            evaluators.with_selector(PLAN, values, {"a": Scores()}, Line())
    assert evaluators.with_selector(PLAN, sections.Trainer(), {"a": Scores()}, Line()).select is None


class _RisingLoss(Line):
    loss_selects: ClassVar[bool] = False


@pytest.mark.parametrize(
    ("objective", "select", "chosen"),
    [
        (Line, None, ("loss/total", False)),
        (_RisingLoss, None, ("a/value", True)),
        (_RisingLoss, "loss/total", ("loss/total", False)),
    ],
)
def test_a_loss_that_tells_nothing_of_the_model_selects_only_when_it_is_named(
    objective: type[Objective], select: str | None, chosen: tuple[str, bool]
) -> None:
    data: Any = FixedData((), {"valid": (torch.zeros(2, 3, 16, 16), torch.zeros(2, 0), ["", ""], ["", ""])})
    loss, plan = Loss(data, batch_size=2), replace(PLAN, evaluate_every=1)
    found = evaluators.with_selector(plan, sections.Trainer(select=select), {"loss": loss, "a": Scores()}, objective())
    assert (found.select, found.higher_is_better) == chosen
    if select is None:
        alone = evaluators.with_selector(plan, sections.Trainer(), {"loss": loss}, objective()).select
        assert alone == ("loss/total" if objective.loss_selects else None)
