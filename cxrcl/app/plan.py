"""Durations, optimizer and schedule of a run, from their own sections of the config."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from cxrcl.app.job import Job
from cxrcl.config import sections
from cxrcl.config.nodes import OPTIMIZER_PACKAGES, Node, Packages, bind, build
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError
from cxrcl.objectives.base import Objective
from cxrcl.training.optim import Schedule, parameter_groups
from cxrcl.training.trainer import Plan, Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Steps:
    """The run in steps, and what depends on their number.

    Attributes:
        trainer: its section of the config, the batch size lowered where that was asked for.
        plan: not yet with the metric that selects the best checkpoint.
    """

    trainer: sections.Trainer
    plan: Plan
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    precision: Precision


def plan_steps(job: Job[sections.Train], objective: Objective, samples: int) -> Steps:
    """Durations in steps, and what they depend on.

    Raises:
        ConfigError: durations or sizes that contradict each other, the objective or the data.
    """
    cfg, device = job.cfg, job.runtime.device
    trainer = lowered_batch_size(cfg.trainer, samples, job.runtime)
    plan = make_plan(trainer, cfg.seed, objective, samples, job.runtime.world, cfg.data.max_bad_fraction)
    schedule = build_schedule(cfg.schedule, trainer, plan, job.packages)
    optimizer = build_optimizer(cfg.optimizer, objective, job.packages, trainer.layer_decay, trainer.encoder_lr_factor)
    return Steps(trainer, plan, optimizer, schedule, Precision(precision_name(trainer.precision, device), device))


def build_optimizer(
    node: Node,
    objective: Objective,
    packages: Packages,
    layer_decay: float = 1.0,
    encoder_lr_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """The optimizer of the parameters that are trained.

    Raises:
        ConfigError: none is, or there is no learning rate that factors could multiply.
    """
    weight_decay, lr = float(node.get("weight_decay") or 0.0), node.get("lr")
    try:
        rate = None if lr is None else float(lr)
        groups = parameter_groups(objective, weight_decay, layer_decay, rate, encoder_lr_factor)
    except ValueError as error:
        raise ConfigError(f"trainer.{error}: set optimizer.lr") from None
    if not groups:
        raise ConfigError("freeze: no parameter is left to train; leave some layers of a tower out of freeze")
    allowed = (*packages, *OPTIMIZER_PACKAGES)
    return build(node, torch.optim.Optimizer, "optimizer", {"params": groups}, allowed)


def build_schedule(node: Node, t: sections.Trainer, plan: Plan, packages: Packages) -> Schedule:
    warmup = sections.steps(t.warmup_steps, t.warmup_epochs, plan.steps_per_epoch, "trainer.warmup", default=0)
    durations = {"total_steps": plan.total_steps, "warmup_steps": warmup}
    make = bind(node, Schedule, "schedule", durations, packages)
    try:
        return make()
    except ValueError as error:
        raise ConfigError(f"schedule: {error} (trainer.warmup_steps, trainer.warmup_epochs)") from None


def lowered_batch_size(t: sections.Trainer, samples: int, runtime: Runtime) -> sections.Trainer:
    """With `trainer.lower_batch_size`, a batch of all samples in place of one that is larger than that."""
    fitting = samples // t.accumulate // runtime.world * runtime.world
    if not t.lower_batch_size or t.batch_size <= fitting or not fitting:
        return t
    logger.info(f"trainer.batch_size={t.batch_size} is lowered to {fitting}: there are {samples} training samples")
    return t.model_copy(update={"batch_size": fitting})


def make_plan(
    t: sections.Trainer,
    seed: int,
    objective: Objective,
    samples: int,
    processes: int = 1,
    max_bad_fraction: float = 0.0,
) -> Plan:
    """The run in steps.

    Raises:
        ConfigError: durations or sizes that contradict each other, the objective or the data.
    """
    try:
        objective.check(samples, t.batch_size)
    except ValueError as error:
        raise ConfigError(f"objective: {error} (trainer.batch_size={t.batch_size})") from None
    if t.accumulate > 1 and not objective.per_sample:
        raise ConfigError(
            f"trainer.accumulate={t.accumulate}: averaging gradients of small batches is not the gradient of a "
            "contrastive loss over the large one; raise trainer.batch_size and set trainer.micro_batch_size"
        )
    if t.batch_size % processes:
        raise ConfigError(f"trainer.batch_size={t.batch_size} is not divisible by {processes} processes")
    local = t.batch_size // processes
    at_a_time = local // -(-local // (t.micro_batch_size or local)) * objective.embedded_views
    if at_a_time < 2 and any(isinstance(part, _BatchNorm) and part.training for part in objective.modules()):
        raise ConfigError(
            f"trainer.batch_size={t.batch_size} over {processes} processes with micro_batch_size={t.micro_batch_size}: "
            "a single image goes through BatchNorm at a time; use more, or a tower without BatchNorm"
        )
    if samples < t.batch_size * t.accumulate:
        raise ConfigError(
            f"trainer.batch_size={t.batch_size} x accumulate={t.accumulate} is larger than the {samples} training "
            "samples: lower it"
        )
    per_epoch = samples // t.batch_size // t.accumulate
    total = sections.steps(t.max_steps, t.max_epochs, per_epoch, "trainer.max")
    if not total:
        raise ConfigError("trainer: set max_epochs or max_steps (above 0)")
    every = sections.steps(t.evaluate_every_steps, t.evaluate_every_epochs, per_epoch, "trainer.evaluate_every")
    return Plan(
        total_steps=total,
        steps_per_epoch=per_epoch,
        batch_size=t.batch_size,
        evaluate_every=max(1, every) if every is not None else None,
        save_every=t.save_every_steps,
        log_every=t.log_every,
        accumulate=t.accumulate,
        clip_norm=t.clip_norm,
        select=None,
        higher_is_better=True,
        seed=seed,
        micro_batch_size=t.micro_batch_size,
        max_bad_fraction=max_bad_fraction,
        ema_decay=t.ema_decay,
    )


def precision_name(name: str, device: torch.device) -> str:
    """`auto` is bf16 where the hardware multiplies in it, else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # AVX-512 alone emulates bf16 and is slower than fp32: the instructions themselves are asked for.
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if has_bf16 or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)() else "fp32"
