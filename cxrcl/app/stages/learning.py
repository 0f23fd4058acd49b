"""The data of a training, what is trained on them, and on which samples of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from cxrcl.app import data, model, restore
from cxrcl.app.exposure import Recorder, start_of_training
from cxrcl.app.job import Job
from cxrcl.app.other_data import line_on_views
from cxrcl.app.overrides import SAMPLES, explained
from cxrcl.app.sources import Sources, build_sources, prompts_of, training_order
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.config.nodes import build
from cxrcl.config.sections import Train
from cxrcl.data.dataset import TrainSet
from cxrcl.data.exposure import Exposure
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.manifest import Manifest
from cxrcl.data.order import Mixture
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.texts import Texts
from cxrcl.data.views import counted
from cxrcl.errors import DataError
from cxrcl.objectives.base import Objective
from cxrcl.types import Batch, Tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """The data of a run, and how images and texts of it are read.

    Attributes:
        prompts: the run's own, which go into checkpoints.
        prompts_of_sources: the same, or by source where there are several.
        manifest: rows of all splits, labels under the policy.
        fingerprint: of the manifest.
        make_texts: rows -> their texts.
    """

    sources: Sources
    prompts: PromptSampler
    prompts_of_sources: PromptSampler | Mapping[str, PromptSampler]
    reader: ImageReader
    manifest: Manifest
    fingerprint: str
    make_texts: Callable[[Manifest], Texts]


def read_inputs(job: Job[Train]) -> Inputs:
    """Prepare the sources and read their manifests.

    Raises:
        UserError: a source, a manifest or a setting that cannot be used; no row to train on.
    """
    cfg = job.cfg.data
    prompts = build(job.cfg.prompts, PromptSampler, "prompts", packages=job.packages)
    sources = build_sources(cfg, job.packages)
    prompts_of_sources = prompts_of(job.cfg.prompts, sources, job.packages)
    reader = data.image_reader(cfg, sources)
    manifest = data.load_data(cfg, sources, job.runtime)
    if not len(manifest.split("train")):
        raise DataError("no row has the split train: nothing to train on")
    make_texts = data.text_maker(cfg, prompts_of_sources)
    return Inputs(sources, prompts, prompts_of_sources, reader, manifest, manifest.fingerprint(), make_texts)


@dataclass(frozen=True)
class Learner:
    """What is trained, and how batches become ready for it.

    Attributes:
        objective: on its device.
        tokenizer: None where the objective reads no text.
        transform: images -> the encoder's input.
        prepare: host batch -> device-ready batch.
        exposure: what its weights were trained on so far.
    """

    objective: Objective
    tokenizer: Tokenizer | None
    transform: RadiographTransform
    prepare: Callable[[Batch], Batch]
    exposure: Exposure = field(default_factory=Exposure)


def build_learner(job: Job[Train], inputs: Inputs, init: Checkpoint | None, resumed: Checkpoint | None) -> Learner:
    """The objective with its encoders: new, with the weights of `init`, or as `resumed` has it."""
    cfg, runtime = job.cfg, job.runtime
    training = inputs.manifest.split("train")
    vocabulary = None if init is None else init.recipe.vocabulary
    corpus = data.TrainingTexts(training, inputs.make_texts, inputs.prompts_of_sources, runtime, vocabulary)
    # Just before the first random weight: nothing that reading the data drew may change them.
    torch.manual_seed(cfg.seed)
    nodes = _model_nodes(cfg, init, resumed)
    objective = model.build_model(
        nodes,
        inputs.manifest.labels,
        corpus,
        job.packages,
        training_labels=torch.from_numpy(training.values),
        frozen=dict(cfg.freeze),
    )
    model.say_what_was_loaded(objective)
    exposure = start_of_training(objective, nodes, init)
    if resumed is not None:
        exposure = resumed.exposure or exposure
        assert resumed.state.weights is not None  # an exported model does not go on
        objective.load_state_dict(resumed.state.weights)  # features are cached before the trainer restores them
    elif init is not None:
        restore.init_from(objective, init, str(cfg.init_from))
        for line in line_on_views(init.recipe, counted(training.rows["view"]), "training images are now"):
            logger.warning(f"init_from {cfg.init_from}: {line}")
    tokenizer = getattr(objective, "tokenizer", None) if objective.num_texts else None
    objective.to(runtime.device)
    if cfg.trainer.sync_batchnorm:
        objective = runtime.sync_batchnorm(objective)  # type: ignore[assignment]
    transform = model.build_transform(cfg.transform, objective, job.packages)
    return Learner(objective, tokenizer, transform, model.prepare(transform, runtime), exposure)


def _model_nodes(cfg: Train, init: Checkpoint | None, resumed: Checkpoint | None) -> Mapping[str, Any]:
    """Nodes of the objective and of its encoders."""
    if resumed is not None:  # encoders as they were: a vocabulary is not learnt again
        return resumed.recipe.model
    image_encoder: Mapping[str, Any] | None = cfg.image_encoder
    if image_encoder is None and init is not None:
        image_encoder = init.recipe.model.get("image_encoder")
    return {"objective": cfg.objective, "image_encoder": image_encoder, "text_encoder": cfg.text_encoder}


@dataclass(frozen=True)
class Samples:
    """What the objective learns from.

    Attributes:
        manifest: training rows that the objective can use.
        order: of a mixture with weights; None without.
        epoch_summary: what an epoch takes of each source, for a person.
        recorder: of what is read of them.
    """

    manifest: Manifest
    dataset: TrainSet
    order: Mixture | None
    epoch_summary: str
    recorder: Recorder


def choose_samples(job: Job[Train], inputs: Inputs, learner: Learner, is_resumed: bool = False) -> Samples:
    """The training rows that the objective can learn from, as samples.

    Raises:
        UserError: there is none, or all have the same text.
    """
    cfg, objective = job.cfg, learner.objective
    manifest = data.usable_samples(inputs.manifest.split("train"), objective)
    texts = inputs.make_texts(manifest) if objective.num_texts else None
    if texts is not None:
        data.check_texts(manifest, texts)
    recorder = Recorder(manifest, learner.exposure, is_resumed, job.runtime)
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
            pixel_hashes=recorder.pixel_hashes,
        )
    order, epoch_summary = training_order(inputs.sources, manifest, dataset.items, cfg.seed)
    return Samples(manifest, dataset, order, epoch_summary, recorder)
