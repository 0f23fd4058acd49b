"""Stage 2: what is trained, and how batches become ready for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from cxrcl.app import data, features, model, restore
from cxrcl.app.stages.inputs import Inputs
from cxrcl.app.stages.job import Job
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.config import sections
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.objectives.base import Objective
from cxrcl.types import Batch, Tokenizer


@dataclass(frozen=True)
class Learner:
    """What is trained, and how batches become ready for it.

    Attributes:
        objective: on its device.
        tokenizer: None where the objective reads no text.
        transform: images -> the encoder's input.
        prepare: host batch -> device-ready batch.
    """

    objective: Objective
    tokenizer: Tokenizer | None
    transform: RadiographTransform
    prepare: Callable[[Batch], Batch]


def build_learner(job: Job, inputs: Inputs, init: Checkpoint | None, resumed: Checkpoint | None) -> Learner:
    """The objective with its encoders: new, with the weights of `init`, or as `resumed` has it."""
    cfg, runtime = job.cfg, job.runtime
    training = inputs.manifest.split("train")
    vocabulary = None if init is None else init.recipe.vocabulary
    corpus = data.TrainingTexts(training, inputs.make_texts, inputs.prompts_of_sources, runtime, vocabulary)
    # Just before the first random weight: nothing that reading the data drew may change them.
    torch.manual_seed(cfg.seed)
    objective = model.build_model(
        _model_nodes(cfg, init, resumed),
        inputs.manifest.labels,
        corpus,
        job.packages,
        training_labels=torch.from_numpy(training.values),
        frozen=dict(cfg.freeze),
    )
    model.say_what_was_loaded(objective)
    if resumed is not None:
        assert resumed.state.weights is not None  # an exported model does not go on
        objective.load_state_dict(resumed.state.weights)  # features are cached before the trainer restores them
    elif init is not None:
        restore.init_from(objective, init, str(cfg.init_from))
    tokenizer = getattr(objective, "tokenizer", None) if objective.num_texts else None
    objective.to(runtime.device)
    if cfg.trainer.sync_batchnorm:
        objective = runtime.sync_batchnorm(objective)  # type: ignore[assignment]
    transform = model.build_transform(cfg.transform, objective, job.packages)
    if cfg.data.cache_features:
        features.check(objective, transform)
    return Learner(objective, tokenizer, transform, model.prepare(transform, runtime))


def _model_nodes(cfg: sections.Train, init: Checkpoint | None, resumed: Checkpoint | None) -> Mapping[str, Any]:
    """Nodes of the objective and of its encoders."""
    if resumed is not None:  # encoders as they were: a vocabulary is not learnt again
        return resumed.recipe.model
    image_encoder: Mapping[str, Any] | None = cfg.image_encoder
    if image_encoder is None and init is not None:
        image_encoder = init.recipe.model.get("image_encoder")
    return {"objective": cfg.objective, "image_encoder": image_encoder, "text_encoder": cfg.text_encoder}
