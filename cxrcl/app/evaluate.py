"""Scoring checkpoints, each on the same images, and all of them in one report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cxrcl import distributed
from cxrcl.app.compare import ScoredModel, make_page
from cxrcl.app.evaluate_model import Job, score_checkpoint
from cxrcl.checkpoint.find import find_checkpoints, names_of
from cxrcl.config import sections
from cxrcl.config.moved import with_current_names
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.errors import ConfigError
from cxrcl.evaluation.report.content import Page


@dataclass(frozen=True)
class Scored:
    """The outcome of an evaluation.

    Attributes:
        results: evaluator -> metric -> value, of the first checkpoint.
        facts: what these depend on, for a person.
        page: the report; None in processes other than the main one.
    """

    results: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, str]
    page: Page | None


def evaluate(
    values: Mapping[str, Any],
    packages: Sequence[str] = OWN_PACKAGES,
    requested_evals: Collection[str] = ("*",),
    command: str = "",
) -> Scored:
    """Score checkpoints on the data they were trained on, or on other data.

    Raises:
        UserError: one line, before any work starts.
    """
    values = with_current_names(values)
    cfg = sections.parse(values, sections.Evaluate)
    files = find_checkpoints(cfg.checkpoint)
    _check(cfg, files)
    with distributed.start(cfg.device, cfg.timeout_minutes) as runtime:
        job = Job(cfg, packages, requested_evals, runtime)
        models: list[ScoredModel] = []
        for file, name in zip(files, names_of(files), strict=True):
            models += score_checkpoint(job, file, name, with_untrained=cfg.random_weights and not models)
        settings = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
        # The other processes have the same metrics, and nothing to write.
        page = make_page(models, cfg, command, settings) if runtime.is_main else None
        first = models[0]
        of_model = {} if first.part.facts is None else first.part.facts.shown()
        return Scored(first.part.metrics, {**of_model, **first.facts.shown()}, page)


def _check(cfg: sections.Evaluate, files: Sequence[Path]) -> None:
    """Raises ConfigError for settings that contradict each other."""
    if not cfg.splits or len(set(cfg.splits)) < len(cfg.splits):
        raise ConfigError(f"splits={cfg.splits}: name one split or more, and each once")
    if cfg.ensemble and len(files) < 2:
        raise ConfigError("ensemble=true: needs two checkpoints or more: 'checkpoint=[a.pt,b.pt]'")
