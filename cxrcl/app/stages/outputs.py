"""Where a training writes, what each of its checkpoints says of its origin, and the first lines that a person reads."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cxrcl
from cxrcl.app.job import Job
from cxrcl.app.model import prompt_directions
from cxrcl.app.plan import Steps
from cxrcl.app.restore import evaluated_part
from cxrcl.app.sources import fractions_of, with_sentences
from cxrcl.app.stages.evaluation import Evaluation
from cxrcl.app.stages.learning import Inputs, Learner, Samples
from cxrcl.app.stages.starts import write_start
from cxrcl.checkpoint.content import Checkpoint, Origin, Recipe
from cxrcl.config.sections import Train
from cxrcl.data import views
from cxrcl.data.fractions import write_index
from cxrcl.data.text.prompts import fill
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.training.run_folder import RunFolder, choose_folder
from cxrcl.training.tracking import FileTracker, Tracker


@dataclass(frozen=True)
class Outputs:
    """Where a run writes."""

    folder: Path
    store: RunFolder
    tracker: Tracker


def open_outputs(
    job: Job[Train],
    inputs: Inputs,
    samples: Samples,
    evaluation: Evaluation,
    origin: Origin,
    resumed: Checkpoint | None,
) -> Outputs:
    """Choose the folder, and open what is written there.

    Args:
        origin: goes into every checkpoint.
    """
    cfg, runtime = job.cfg, job.runtime
    folder = runtime.main_decides(lambda: choose_folder(cfg.run_dir, cfg.name))
    if runtime.is_main:
        write_start(folder, job, 0 if resumed is None else resumed.step)
    is_subset = cfg.data.split_lists or fractions_of(inputs.sources, cfg.data.fraction)
    if runtime.is_main and is_subset:
        path = folder / "training_images.csv"
        write_index(path, samples.manifest, evaluation.splits.manifest, evaluation.evaluated_splits)
    store = RunFolder(folder, cfg.trainer.keep_best, origin, resumed.best if resumed else ())
    tracker = FileTracker(folder, cfg.trainer.log_every) if runtime.is_main else Tracker()
    return Outputs(folder, store, tracker)


# ----------------------------------------------------------------------------- the origin: goes into every checkpoint


def describe_origin(
    job: Job[Train],
    inputs: Inputs,
    learner: Learner,
    samples: Samples,
    resumed: Checkpoint | None,
) -> Origin:
    """The part of a checkpoint that stays the same through a training, and rebuilds its model and data by itself.

    Args:
        resumed: the checkpoint that it goes on from.
    """
    if resumed is None:
        directions = prompt_directions(learner.objective, inputs.manifest.labels, job.runtime.device)
    else:
        directions = resumed.origin.initial_directions
    return Origin(
        recipe=_recipe(job, inputs, learner, samples),
        versions={"cxrcl": cxrcl.__version__, "torch": str(torch.__version__), "python": platform.python_version()},
        initial_directions=directions,
    )


def _recipe(job: Job[Train], inputs: Inputs, learner: Learner, samples: Samples) -> Recipe:
    cfg, sentences = job.cfg, inputs.prompts.prompts
    encoders = {
        name: part.node()
        for name, part in learner.objective.named_children()
        if isinstance(part, ImageEncoder | TextEncoder)
    }
    return Recipe(
        model={"objective": dict(cfg.objective), **encoders},
        labels=inputs.manifest.labels,
        evaluated_part=evaluated_part(learner.objective),
        transform=dict(cfg.transform),
        prompts=dict(cfg.prompts),
        prompt_sentences={**sentences, **fill(sentences, inputs.manifest.labels)},
        precision=cfg.trainer.precision,
        data=_data_from_anywhere(job, inputs),
        settings=dict(job.values),
        manifest_fingerprint=inputs.fingerprint,
        # Rows of samples: a study without a text is none.
        training_views=views.counted(samples.manifest.rows["view"].iloc[np.concatenate(samples.dataset.items)]),
    )


def _data_from_anywhere(job: Job[Train], inputs: Inputs) -> dict[str, Any]:
    """Data settings with absolute folders and the sentences of the sources: they hold from any working directory."""

    def absolute(node: Mapping[str, Any]) -> dict[str, Any]:
        folders = {key: node[key] for key in ("root", "store", "split_lists") if isinstance(node.get(key), str)}
        return {**node, **{key: str(Path(folder).expanduser().absolute()) for key, folder in folders.items()}}

    data = {**job.cfg.data.model_dump(), "read_px": inputs.reader.read_px}
    sources = {name: node if node is None else absolute(node) for name, node in data["sources"].items()}
    return {**absolute(data), "sources": with_sentences(sources, inputs.prompts_of_sources)}


# ------------------------------------------------------------------------------------------------- the first lines


def announce(
    job: Job[Train],
    inputs: Inputs,
    learner: Learner,
    samples: Samples,
    steps: Steps,
    evaluation: Evaluation,
    outputs: Outputs,
    resumed: Checkpoint | None,
) -> None:
    """Say what is about to be trained and where, or that nothing is left to do; and what may not have been expected."""
    say, cfg, plan, runtime = outputs.tracker.say, job.cfg, evaluation.plan, job.runtime
    device = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "CPU"
    number_type = str(steps.precision.dtype or torch.float32).removeprefix("torch.")
    unit = "studies" if cfg.data.unit == "study" else "images"
    dropped = samples.dataset.dropped
    say(
        f"{cfg.name}: {runtime.world} x {device}, {number_type}, {_parameters(learner)}; "
        f"{len(samples.dataset)} {unit}{f' ({dropped} without a text dropped)' if dropped else ''}, "
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
    for setting in _without_effect(job, inputs):
        say(f"{setting} has no effect here")
    if len(inputs.sources) > 1:
        say(f"an epoch takes {samples.epoch_summary} (samples x times)")


def _without_effect(job: Job[Train], inputs: Inputs) -> Iterator[str]:
    """Settings that another one, the data or the machine makes void, with the reason."""
    cfg, runtime = job.cfg, job.runtime
    if cfg.trainer.sync_batchnorm and (runtime.world == 1 or runtime.device.type != "cuda"):
        yield f"trainer.sync_batchnorm=true ({runtime.world} x {runtime.device.type}; it takes several GPUs)"
    if cfg.data.fraction_seed and not fractions_of(inputs.sources, cfg.data.fraction):
        yield f"data.fraction_seed={cfg.data.fraction_seed} (all training patients are used)"
    if cfg.trainer.select_mode is not None and cfg.trainer.select is None and not cfg.evals:
        yield f"trainer.select_mode={cfg.trainer.select_mode} (nothing is evaluated)"


def _parameters(learner: Learner) -> str:
    count = sum(p.numel() for p in learner.objective.parameters())
    trained = sum(p.numel() for p in learner.objective.parameters() if p.requires_grad)
    total = f"{count / 1e6:.1f} M parameters"
    return total if trained == count else f"{trained / 1e6:.1f} of {total} trained"
