"""The first lines of a training: device, size, plan, folder, and what a person may not have expected."""

from __future__ import annotations

import torch

from cxrcl.app.stages.inputs import Inputs
from cxrcl.app.stages.job import Job
from cxrcl.app.stages.learner import Learner
from cxrcl.app.stages.outputs import Outputs
from cxrcl.app.stages.samples import Samples
from cxrcl.app.stages.steps import Steps
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.training.trainer import Plan


def announce(
    job: Job,
    inputs: Inputs,
    learner: Learner,
    samples: Samples,
    steps: Steps,
    plan: Plan,
    outputs: Outputs,
    resumed: Checkpoint | None,
) -> None:
    """Say what is about to be trained, or that nothing is left to do."""
    say, cfg = outputs.tracker.say, job.cfg
    say(
        f"{cfg.name}: {job.runtime.world} x {_device(job)}, {_number_type(steps)}, {_parameters(learner)}; "
        f"{_samples(job, samples)}, "
        f"batch {plan.batch_size}{f' x {plan.accumulate}' if plan.accumulate > 1 else ''}, "
        f"{plan.steps_per_epoch} steps an epoch, {plan.total_steps} steps"
    )
    done = 0 if resumed is None else resumed.step
    if resumed is not None and resumed.state.progress.is_complete(plan.total_steps):
        say(f"already complete: {outputs.folder}")
    else:
        say(f"{f'goes on at step {done} in' if done else 'writes to'} {outputs.folder}")
    read_px, needed_px = inputs.reader.read_px, learner.transform.needed_side_px()
    if read_px is not None and read_px < needed_px:
        say(
            f"images are read at {read_px} px and the smallest crops need {needed_px}: these are enlarged "
            "(data.read_px)"
        )
    if len(inputs.sources) > 1:
        say(f"an epoch takes {samples.epoch_summary} (samples x times)")


def _device(job: Job) -> str:
    device = job.runtime.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _number_type(steps: Steps) -> str:
    return str(steps.precision.dtype or torch.float32).removeprefix("torch.")


def _parameters(learner: Learner) -> str:
    count = sum(p.numel() for p in learner.objective.parameters())
    trained = sum(p.numel() for p in learner.objective.parameters() if p.requires_grad)
    total = f"{count / 1e6:.1f} M parameters"
    return total if trained == count else f"{trained / 1e6:.1f} of {total} trained"


def _samples(job: Job, samples: Samples) -> str:
    unit = "studies" if job.cfg.data.unit == "study" else "images"
    dropped = samples.dataset.dropped
    return f"{len(samples.dataset)} {unit}{f' ({dropped} without a text dropped)' if dropped else ''}"
