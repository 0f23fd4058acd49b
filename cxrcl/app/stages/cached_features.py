"""Samples and evaluators that read features in place of images, where the encoder is frozen."""

from __future__ import annotations

from dataclasses import replace

from cxrcl.app import features
from cxrcl.app.stages.evaluation import Evaluation
from cxrcl.app.stages.inputs import Inputs
from cxrcl.app.stages.job import Job
from cxrcl.app.stages.learner import Learner
from cxrcl.app.stages.samples import Samples
from cxrcl.app.stages.steps import Steps
from cxrcl.data.loader import BatchReader
from cxrcl.evaluation.evaluator import Evaluators


def with_cached_features(
    job: Job,
    inputs: Inputs,
    learner: Learner,
    samples: Samples,
    evaluation: Evaluation,
    steps: Steps,
    batch_reader: BatchReader,
) -> tuple[Samples, Evaluation]:
    """Samples and evaluators that read features, for which every image goes through the frozen encoder once."""
    paths = features.paths_in_use(samples.manifest, evaluation.manifest, evaluation.evaluated_splits)
    cached = features.encode_once(
        learner.objective,
        paths,
        learner.transform,
        inputs.reader,
        batch_reader,
        learner.prepare,
        job.runtime,
        steps.precision,
        steps.trainer.batch_size,
    )
    splits = evaluation.splits.with_features(cached)
    evaluators = Evaluators(evaluation.evaluators.evaluators, splits, steps.trainer.batch_size)
    return replace(samples, dataset=samples.dataset.with_features(cached)), replace(evaluation, evaluators=evaluators)
