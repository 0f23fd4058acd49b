"""Stage 4: the run in steps, and what depends on their number."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cxrcl.app import plan
from cxrcl.app.stages.job import Job
from cxrcl.app.stages.learner import Learner
from cxrcl.app.stages.samples import Samples
from cxrcl.config import sections
from cxrcl.training.optim import Schedule
from cxrcl.training.trainer import Plan, Precision


@dataclass(frozen=True)
class Steps:
    """The run in steps.

    Attributes:
        trainer: its section of the config, the batch size lowered where that was asked for.
        plan: not yet with the metric that selects the best checkpoint.
    """

    trainer: sections.Trainer
    plan: Plan
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    precision: Precision


def plan_steps(job: Job, learner: Learner, samples: Samples) -> Steps:
    """Durations in steps, and what they depend on.

    Raises:
        ConfigError: durations or sizes that contradict each other, the objective or the data.
    """
    cfg, objective, count = job.cfg, learner.objective, len(samples.dataset)
    trainer = plan.lowered_batch_size(cfg.trainer, count, job.runtime)
    made = plan.make_plan(trainer, cfg.seed, objective, count, job.runtime.world, cfg.data.max_bad_fraction)
    schedule = plan.build_schedule(cfg.schedule, trainer, made, job.packages)
    optimizer = plan.build_optimizer(
        cfg.optimizer,
        objective,
        job.packages,
        layer_decay=trainer.layer_decay,
        encoder_lr_factor=trainer.encoder_lr_factor,
    )
    device = job.runtime.device
    precision = Precision(plan.precision_name(cfg.trainer.precision, device), device)
    return Steps(trainer, made, optimizer, schedule, precision)
