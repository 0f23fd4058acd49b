"""What goes into every checkpoint of a training: all that rebuilds its model and its data without any other file."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import cxrcl
from cxrcl.app.model import prompt_directions
from cxrcl.app.restore import evaluated_part
from cxrcl.app.sources import with_sentences
from cxrcl.app.stages.inputs import Inputs
from cxrcl.app.stages.job import Job
from cxrcl.app.stages.learner import Learner
from cxrcl.app.stages.samples import Samples
from cxrcl.checkpoint.content import Checkpoint, Exposure, Origin, Recipe
from cxrcl.data import exposure
from cxrcl.data.text.prompts import PromptSampler, fill
from cxrcl.models.base import ImageEncoder, TextEncoder


def describe_origin(
    job: Job, inputs: Inputs, learner: Learner, samples: Samples, init: Checkpoint | None, resumed: Checkpoint | None
) -> Origin:
    """The part of a checkpoint that stays the same through a training.

    Args:
        init: the checkpoint that its weights begin with.
        resumed: the checkpoint that it goes on from.
    """
    objective, labels = learner.objective, inputs.manifest.labels
    directions = (
        prompt_directions(objective, labels, job.runtime.device)
        if resumed is None
        else resumed.origin.initial_directions
    )
    return Origin(
        recipe=_recipe(job, inputs, learner),
        versions={"cxrcl": cxrcl.__version__, "torch": str(torch.__version__), "python": platform.python_version()},
        exposure=_exposure(samples, None if init is None else init.origin.exposure),
        initial_directions=directions,
    )


def _recipe(job: Job, inputs: Inputs, learner: Learner) -> Recipe:
    cfg, sentences = job.cfg, inputs.prompts.prompts
    encoders = {
        name: part.node()
        for name, part in learner.objective.named_children()
        if isinstance(part, ImageEncoder | TextEncoder)
    }
    data = {**cfg.data.model_dump(), "read_px": inputs.reader.read_px}
    return Recipe(
        model={"objective": dict(cfg.objective), **encoders},
        labels=inputs.manifest.labels,
        evaluated_part=evaluated_part(learner.objective),
        transform=dict(cfg.transform),
        prompts=dict(cfg.prompts),
        prompt_sentences={**sentences, **fill(sentences, inputs.manifest.labels)},
        precision=cfg.trainer.precision,
        data=_from_anywhere(data, inputs.prompts_of_sources),
        settings=dict(job.values),
        manifest_fingerprint=inputs.fingerprint,
    )


def _exposure(samples: Samples, earlier: Exposure | None) -> Exposure:
    """What the model will have been trained on."""
    record = exposure.of(
        samples.manifest,
        None if earlier is None else {"sources": earlier.sources, "training_images": earlier.training_images},
    )
    return Exposure(record["sources"], torch.from_numpy(record["training_images"]))


def _from_anywhere(data: dict[str, Any], prompts: PromptSampler | Mapping[str, PromptSampler]) -> dict[str, Any]:
    """Data settings with absolute folders and the sentences of the sources: they hold from any working directory."""

    def absolute(node: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if node is None:
            return None
        folders = {key: node[key] for key in ("root", "store", "split_lists") if isinstance(node.get(key), str)}
        return {**node, **{key: str(Path(folder).expanduser().absolute()) for key, folder in folders.items()}}

    sources = {name: absolute(node) for name, node in data["sources"].items()}
    return {**(absolute(data) or data), "sources": with_sentences(sources, prompts)}
