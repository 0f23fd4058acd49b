"""What a checkpoint says of where its model comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import as_checkpoint
from helpers import PACKAGES, settings, tiny_towers

from cxrcl.app.job import Job
from cxrcl.app.stages.learning import build_learner, choose_samples, read_inputs
from cxrcl.app.stages.outputs import describe_origin
from cxrcl.checkpoint.content import Checkpoint, Exposure
from cxrcl.config import sections
from cxrcl.distributed import Runtime


@pytest.fixture
def stages(tiny_set: Path, tmp_path: Path) -> tuple[Any, ...]:
    """Job, inputs, learner and samples of a fine-tuning."""
    values = tiny_towers(settings(tiny_set, tmp_path, name="finetune"))
    cfg = sections.parse(values, sections.Train)
    job = Job(cfg, values, PACKAGES, (), Runtime(0, 1, torch.device("cpu")))
    inputs = read_inputs(job)
    learner = build_learner(job, inputs, None, None)
    return job, inputs, learner, choose_samples(job, inputs, learner)


def exposure_after(stages: tuple[Any, ...], init: Checkpoint | None) -> Exposure:
    exposure = describe_origin(*stages, init, None).exposure
    assert exposure is not None
    return exposure


def test_images_that_earlier_weights_were_trained_on_stay_on_record(stages: tuple[Any, ...]) -> None:
    own = exposure_after(stages, None)
    assert list(own.sources.values()) == [18] and len(own.training_images) == 18
    earlier = {"sources": {"mimic": 2}, "training_images": torch.tensor([-5, 7])}
    both = exposure_after(stages, as_checkpoint({"exposure": earlier}))
    assert both.sources == {"mimic": 2, **own.sources}
    assert set(both.training_images.tolist()) == {-5, 7, *own.training_images.tolist()}


def test_weights_from_before_there_was_a_record_are_started_from(stages: tuple[Any, ...]) -> None:
    assert exposure_after(stages, as_checkpoint({})).sources == exposure_after(stages, None).sources
