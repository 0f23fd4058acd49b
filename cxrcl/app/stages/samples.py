"""Stage 3: what the objective learns from."""

from __future__ import annotations

from dataclasses import dataclass

from cxrcl.app import data
from cxrcl.app.overrides import SAMPLES, explained
from cxrcl.app.sources import training_order
from cxrcl.app.stages.inputs import Inputs
from cxrcl.app.stages.job import Job
from cxrcl.app.stages.learner import Learner
from cxrcl.data.dataset import TrainSet
from cxrcl.data.manifest import Manifest
from cxrcl.data.order import Mixture
from cxrcl.data.text.texts import Texts


@dataclass(frozen=True)
class Samples:
    """What the objective learns from.

    Attributes:
        manifest: training rows that the objective can use.
        texts: of these rows; None where the objective reads none.
        order: of a mixture with weights; None without.
        epoch_summary: what an epoch takes of each source, for a person.
    """

    manifest: Manifest
    texts: Texts | None
    dataset: TrainSet
    order: Mixture | None
    epoch_summary: str


def choose_samples(job: Job, inputs: Inputs, learner: Learner) -> Samples:
    """The training rows that the objective can learn from, as samples.

    Raises:
        UserError: there is none, or all have the same text.
    """
    cfg, objective = job.cfg, learner.objective
    manifest = data.usable_samples(inputs.manifest.split("train"), objective)
    texts = inputs.make_texts(manifest) if objective.num_texts else None
    if texts is not None:
        data.check_texts(manifest, texts)
    with explained(SAMPLES):
        dataset = TrainSet(
            manifest,
            learner.transform,
            texts,
            unit=cfg.data.unit,
            num_views=objective.num_views,
            num_texts=objective.num_texts,
            seed=cfg.seed,
            reader=inputs.reader,
        )
    order, epoch_summary = training_order(inputs.sources, manifest, dataset.items, cfg.seed)
    return Samples(manifest, texts, dataset, order, epoch_summary)
