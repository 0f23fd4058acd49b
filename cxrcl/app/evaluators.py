"""Evaluators of a run: those that suit its model and data, and the one whose figure chooses the best checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cxrcl.config import sections
from cxrcl.config.nodes import Packages, bind, locate
from cxrcl.data.splits import Splits
from cxrcl.data.text import prompts as prompt_files
from cxrcl.data.text.prompts import Prompts
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, nearest
from cxrcl.evaluation.evaluator import Evaluator, Evaluators
from cxrcl.evaluation.loss import Loss
from cxrcl.objectives.base import Objective
from cxrcl.training.trainer import Plan

logger = logging.getLogger(__name__)

GIVEN_TO_EVALUATORS = ("data", "prompts", "batch_size", "multiverse")


def build_evaluators(
    nodes: Mapping[str, Any],
    splits: Splits,
    model: Objective,
    batch_size: int,
    packages: Packages,
    requested: Collection[str],
    runtime: Runtime,
    held_out: Sequence[str] = (),
    multiverse: Mapping[str, Mapping[str, float]] | None = None,
) -> Evaluators:
    """Evaluators that suit the model and the data. One that does not is an error if `requested` names it ("*": all).

    Args:
        held_out: splits that are not scored, for thresholds and temperatures.
        multiverse: None: no evaluator computes its spread over other readings; else evaluator -> readings that needed
            passes of their own -> mean AUROC.
    """
    made: dict[str, Evaluator] = {}
    read: dict[str, dict[str, Prompts]] = {}
    for name, node in nodes.items():
        if node is None:
            continue
        where = f"evals.{name}"
        cls: Any = locate(node, Evaluator, where, packages)
        lacking = [need.__name__ for need in cls.needs if not isinstance(model.evaluated(), need)]
        prompts = _Remembered()
        readings = None if multiverse is None else multiverse.get(name, {})
        provided = dict(zip(GIVEN_TO_EVALUATORS, (splits, prompts, batch_size, readings), strict=True))
        make = bind(node, Evaluator, where, provided, packages)
        try:
            if lacking:
                raise ValueError(f"{type(model.evaluated()).__name__} does not meet {', '.join(lacking)}")
            evaluator = make()
            evaluator.requests(model.evaluated(), runtime.device)  # refuses what this model cannot answer
            made[name], read[name] = evaluator, prompts.files
        except ValueError as error:
            if name in requested or "*" in requested:
                raise ConfigError(f"{where}: {error}") from None
            logger.info(f"{where} is left out: {error}")
    return Evaluators(made, splits, batch_size, held_out, read)


class _Remembered:
    """Reads prompts files for an evaluator, and keeps what was read: a figure depends on every sentence."""

    def __init__(self) -> None:
        self.files: dict[str, Prompts] = {}

    def __call__(self, name: str, labels: Sequence[str]) -> Prompts:
        found = prompt_files.for_labels(name, labels)
        self.files.setdefault(name, {}).update({label: found[label] for label in labels if label in found})
        return found


def with_selector(plan: Plan, cfg: sections.Trainer, evaluators: Mapping[str, Evaluator], objective: Objective) -> Plan:
    """What chooses the best checkpoint: trainer.select, else the first evaluator's own metric.

    The loss of an objective whose loss does not rank models chooses only when it is named. `trainer.patience` waits for
    the same metric.
    """
    if cfg.select is None:
        ranking = {k: e for k, e in evaluators.items() if objective.loss_selects or not isinstance(e, Loss)}
        if not ranking or plan.evaluate_every is None:
            if cfg.patience is not None:
                raise ConfigError(
                    f"trainer.patience={cfg.patience}: no metric is measured that could stop getting better; set "
                    "trainer.evaluate_every_epochs=1 with evals=[...] that rank models and splits that the data has"
                )
            return plan
        name, evaluator = next(iter(ranking.items()))
        metric = f"{name}/{evaluator.selects}"
    else:
        metric, name = cfg.select, cfg.select.split("/")[0]
        if name not in evaluators:
            raise ConfigError(f"trainer.select={metric}: no evaluator {name}{nearest(name, evaluators)}")
        evaluator = evaluators[name]
        if metric != f"{name}/{evaluator.selects}" and cfg.select_mode is None:
            raise ConfigError(f"trainer.select={metric}: say with trainer.select_mode=max|min which way is better")
        if plan.evaluate_every is None:
            raise ConfigError(f"trainer.select={metric}: nothing is evaluated; set trainer.evaluate_every_epochs=1")
    higher = evaluator.higher_is_better if cfg.select_mode is None else cfg.select_mode == "max"
    return replace(plan, select=metric, higher_is_better=higher, patience=cfg.patience)
