"""A training, from a composed config to checkpoints: pre-training, probing and fine-tuning alike.

`train` reads from top to bottom; each stage is a function with a typed result, most of them in `cxrcl.app.stages`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cxrcl import distributed
from cxrcl.app.check import check_nodes
from cxrcl.app.data import token_table
from cxrcl.app.job import FROM_PYTHON, Job, Typed
from cxrcl.app.overrides import BATCHES, FITTING, explained
from cxrcl.app.plan import plan_steps
from cxrcl.app.stages.cached_features import check_features, with_cached_features
from cxrcl.app.stages.evaluation import prepare_evaluation
from cxrcl.app.stages.learning import Learner, Samples, build_learner, choose_samples, read_inputs
from cxrcl.app.stages.outputs import announce, describe_origin, open_outputs
from cxrcl.checkpoint.file import load
from cxrcl.config import sections
from cxrcl.config.moved import with_current_names
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.data.loader import BatchReader, Collate
from cxrcl.data.order import GlobalBatches
from cxrcl.training.run_folder import earlier_checkpoint
from cxrcl.training.run_log import RunLog
from cxrcl.training.trainer import Trainer
from cxrcl.types import Batch, Classifies, EmbedsText


@dataclass(frozen=True)
class Trained:
    """What a training leaves behind.

    Attributes:
        folder: of the run.
        checkpoint: the best one where a metric selected it, else the last.
        finished: False where it was asked to stop before its end.
        steps: done, over all sittings.
        seconds: of training, over all sittings.
        images_per_second: samples, over all processes.
        evals: what an evaluation should be asked for where its defaults do not suit the objective.
    """

    folder: Path
    checkpoint: Path
    finished: bool
    steps: int
    seconds: float
    images_per_second: float
    evals: str | None


def train(
    values: Mapping[str, Any],
    requested_evals: Collection[str] = (),
    packages: Sequence[str] = OWN_PACKAGES,
    typed: Typed = FROM_PYTHON,
) -> Trained:
    """Train an objective as a config says, or go on with the run that was begun in `run_dir`.

    Args:
        values: the composed config as plain containers.
        requested_evals: evaluators that the user named ("*": all of them). One of these that cannot run is an error;
            others are left out with a remark.
        packages: packages whose classes a config may name.
        typed: the command, for the record in the run's folder.

    Raises:
        UserError: one line, before any work starts.
    """
    values = with_current_names(values)
    cfg = sections.parse(values, sections.Train)
    check_nodes(cfg, packages)
    with distributed.start(cfg.device, cfg.timeout_minutes) as runtime, ExitStack() as at_end:
        job = Job(cfg, values, packages, requested_evals, runtime, typed)
        log = at_end.enter_context(RunLog(runtime.rank))
        if cfg.trainer.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it only
            torch.use_deterministic_algorithms(True)
        init = load(Path(cfg.init_from).expanduser()) if cfg.init_from else None

        inputs = read_inputs(job)
        resumed = earlier_checkpoint(cfg.run_dir, values, inputs.fingerprint)
        learner = build_learner(job, inputs, init, resumed)
        if cfg.data.cache_features:
            check_features(learner)
        samples = choose_samples(job, inputs, learner, resumed is not None)
        steps = plan_steps(job, learner.objective, len(samples.dataset))
        batch_reader = BatchReader(cfg.data.num_workers, pin_memory=runtime.device.type == "cuda")
        at_end.callback(batch_reader.close)
        evaluation = prepare_evaluation(job, inputs, learner, steps, batch_reader)
        origin = describe_origin(job, inputs, learner, samples, resumed)
        outputs = open_outputs(job, inputs, samples, evaluation, origin, resumed)
        log.open(outputs.folder)
        at_end.callback(outputs.tracker.close)
        announce(job, inputs, learner, samples, steps, evaluation, outputs, resumed)

        is_complete = resumed is not None and resumed.state.progress.is_complete(evaluation.plan.total_steps)
        if cfg.data.cache_features and not is_complete:
            samples, evaluation = with_cached_features(job, inputs, learner, samples, evaluation, steps, batch_reader)
            batch_reader = BatchReader(0)  # rows of memory need no workers
        trainer = Trainer(
            objective=learner.objective,
            optimizer=steps.optimizer,
            schedule=steps.schedule,
            plan=evaluation.plan,
            precision=steps.precision,
            runtime=runtime,
            tracker=outputs.tracker,
            store=outputs.store,
            prepare=learner.prepare,
            evaluators=evaluation.evaluators,
            why_unreadable=samples.dataset.why_unreadable,
            exposure=samples.recorder.record,
        )
        if resumed is not None:
            trainer.restore(resumed.state)
        with explained(FITTING):
            finished = trainer.complete or trainer.fit(_batches(job, learner, samples, batch_reader, trainer))

        images = trainer.done * trainer.plan.batch_size * trainer.plan.accumulate
        return Trained(
            folder=outputs.folder,
            checkpoint=outputs.store.chosen(),
            finished=finished,
            steps=trainer.done,
            seconds=trainer.seconds,
            images_per_second=images / max(trainer.seconds, 1e-9),
            # Features alone are scored by a probe.
            evals=None if isinstance(learner.objective.evaluated(), Classifies | EmbedsText) else "linear_probe",
        )


def _batches(
    job: Job[sections.Train], learner: Learner, samples: Samples, batch_reader: BatchReader, trainer: Trainer
) -> Iterator[Batch]:
    """Host batches from the trainer's next step to its last."""
    plan, runtime = trainer.plan, job.runtime
    with explained(BATCHES):
        order = GlobalBatches(
            len(samples.dataset),
            plan.batch_size,
            job.cfg.seed,
            # Accumulation takes several global batches a step.
            trainer.done * plan.accumulate,
            plan.total_steps * plan.accumulate,
            (runtime.rank, runtime.world),
            samples.order,
        )
    table, texts = None, samples.dataset.texts
    if texts is not None and learner.tokenizer is not None and job.cfg.data.cache_tokens:
        table = token_table(texts, learner.tokenizer, runtime)
    return samples.recorder.watched(batch_reader.batches(samples.dataset, order, Collate(learner.tokenizer, table)))
