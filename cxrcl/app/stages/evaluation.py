"""What is measured while training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cxrcl.app import data
from cxrcl.app.evaluators import build_evaluators, with_selector
from cxrcl.app.job import Job
from cxrcl.app.plan import Steps
from cxrcl.app.stages.learning import Inputs, Learner
from cxrcl.config.sections import Train
from cxrcl.data.dataset import probe_images
from cxrcl.data.loader import BatchReader
from cxrcl.data.splits import Splits
from cxrcl.errors import DataError
from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.training.trainer import Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What is measured while training.

    Attributes:
        splits: of all rows but those left out as unreadable.
        evaluated_splits: none where nothing is evaluated.
        plan: with the metric that selects the best checkpoint.
    """

    splits: Splits
    evaluated_splits: tuple[str, ...]
    evaluators: Evaluators
    plan: Plan


def prepare_evaluation(
    job: Job[Train], inputs: Inputs, learner: Learner, steps: Steps, batch_reader: BatchReader
) -> Evaluation:
    """Evaluators that suit the model and the data, and a look at images of all splits in use.

    Raises:
        UserError: an evaluator that the user named cannot run, or too many images cannot be read.
    """
    cfg, manifest = job.cfg, inputs.manifest
    if cfg.data.skip_bad_images and cfg.evals:
        manifest, _ = data.without_unreadable(manifest, cfg.splits, batch_reader, job.runtime, inputs.reader)
    splits = Splits(
        manifest,
        learner.transform,
        inputs.make_texts,
        learner.tokenizer,
        learner.prepare,
        batch_reader,
        inputs.reader,
    )
    nodes = _evaluator_nodes(job, splits)
    evaluators = build_evaluators(
        nodes, splits, learner.objective, steps.trainer.batch_size, job.packages, job.requested_evals, job.runtime
    )
    selecting = with_selector(steps.plan, cfg.trainer, evaluators.evaluators, learner.objective)
    evaluated = tuple(cfg.splits) if nodes else ()
    in_use = manifest.rows["split"].isin(["train", *evaluated])
    probe_images(manifest.take(in_use.to_numpy()), max_bad_fraction=cfg.data.max_bad_fraction, reader=inputs.reader)
    return Evaluation(splits, evaluated, evaluators, selecting)


def _evaluator_nodes(job: Job[Train], splits: Splits) -> Mapping[str, Any]:
    """The evaluators' nodes, or none with a remark when the data lack a split that they score."""
    nodes = job.cfg.evals
    empty = [split for split in job.cfg.splits if not splits.size(split)]
    if not empty or not nodes:
        return nodes
    message = f"no row has the split {', '.join(empty)}"
    if job.requested_evals:
        raise DataError(f"splits: {message}; set splits=[...] to ones that the data has")
    logger.info(f"{message}: nothing is evaluated and the last checkpoint is the result")
    return {}
