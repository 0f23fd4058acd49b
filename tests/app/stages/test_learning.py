"""What the weights of a training were trained on before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from checkpoints import as_checkpoint
from helpers import PACKAGES, settings, tiny_towers

from cxrcl.app.job import FROM_PYTHON, Job
from cxrcl.app.stages.learning import Learner, build_learner, read_inputs
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.config import sections
from cxrcl.distributed import Runtime

Begun = Callable[..., Learner]


@pytest.fixture
def begun(tiny_set: Path, tmp_path: Path) -> Begun:
    """`begun(init, key=value)`: the learner of a training with these settings."""

    def learner(init: Checkpoint | None = None, **changes: Any) -> Learner:
        values = {**tiny_towers(settings(tiny_set, tmp_path)), **changes}
        cfg = sections.parse(values, sections.Train)
        job = Job(cfg, values, PACKAGES, (), Runtime(0, 1, torch.device("cpu")), FROM_PYTHON)
        return build_learner(job, read_inputs(job), init, None)

    return learner


def as_start(weights: Learner, **content: Any) -> Checkpoint:
    return as_checkpoint({"model": weights.objective.state_dict(), **content})


def test_images_that_earlier_weights_were_trained_on_stay_on_record(begun: Begun) -> None:
    new = begun()
    assert not new.exposure.sources and not new.exposure.trainings and not new.exposure.unrecorded
    earlier = {"sources": {"mimic": 2}, "training_images": torch.tensor([-5, 7])}
    found = begun(as_start(new, exposure=earlier)).exposure
    assert found.sources == {"mimic": 2} and found.training_images.tolist() == [-5, 7] and not found.unrecorded


def test_weights_from_before_there_was_a_record_are_named(begun: Begun) -> None:
    assert begun(as_start(begun())).exposure.unrecorded == ("the checkpoint of init_from",)


def test_weights_of_another_place_are_named_unless_a_checkpoint_takes_theirs(begun: Begun, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "weights.pth")
    encoder = {"_target_": "cxrcl.models.image.TimmEncoder", "name": "test_resnet", "size": 32}
    pretrained = {"image_encoder": {**encoder, "weights": str(tmp_path / "weights.pth")}}
    first = begun(**pretrained)
    assert first.exposure.unrecorded == ("image_encoder test_resnet",)
    known = as_start(first, exposure={"sources": {}}, config={"model": {"image_encoder": encoder}})
    assert begun(known, **pretrained).exposure.unrecorded == ()
