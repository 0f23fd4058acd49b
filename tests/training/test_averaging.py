"""The moving average of weights: its formula, what is evaluated and stored, that a stopped run goes on exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from checkpoints import as_checkpoint, plain_checkpoint
from helpers import (
    PACKAGES,
    StopsRun,
    TinyImages,
    TinyTexts,
    batch_of,
    equal_everywhere,
    in_processes,
    settings,
    write_manifest,
)
from lines import PLAN, Overflows, Scores, forever, trainer
from test_freezing import Three
from torch import Tensor, nn

from cxrcl.app import restore as restoring
from cxrcl.app import train as train_module
from cxrcl.app.train import Trained
from cxrcl.config import sections
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError
from cxrcl.models.heads import Linear
from cxrcl.models.image import TorchvisionEncoder
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.moco import Moco
from cxrcl.training.averaging import Average
from cxrcl.training.freezing import freeze
from cxrcl.training.optim import Constant
from cxrcl.training.run_folder import RunFolder
from cxrcl.training.tracking import Tracker
from cxrcl.training.trainer import Precision, Trainer
from cxrcl.types import Batch

HEAD = partial(Linear, out_dim=6)


def classifier() -> Classify:
    torch.manual_seed(0)
    return Classify(TinyImages(norm=True), ("a", "b"))


def labelled(step: int, count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(step)
    labels = (torch.rand(count, 2, generator=generator) < 0.5).float()
    return batch_of(torch.randn(count, 3, 16, 16, generator=generator), labels=labels)


class Follows(Classify):
    """Remembers its weights before the first and after each update."""

    def __init__(self) -> None:
        super().__init__(TinyImages(norm=True), ("a", "b"))
        self.kept: list[dict[str, Tensor]] = []

    def keep(self) -> None:
        self.kept.append({name: value.double().clone() for name, value in self.state_dict().items()})

    def after_step(self, output: Any, step: int, total: int) -> None:
        self.keep()


@pytest.mark.parametrize("decay", [0.25, 0.999])
def test_the_average_is_that_of_a_loop(decay: float) -> None:
    torch.manual_seed(0)
    model = Follows().double()
    model.keep()
    loop = trainer(model, lr=0.5, total_steps=8, ema_decay=decay)
    assert loop.average is not None
    loop.fit(replace(batch, images=batch.images.double()) for batch in forever(labelled) if batch.images is not None)
    expected = model.kept[0]
    for update, weights in enumerate(model.kept[1:]):
        share = min(decay, (1 + update) / (10 + update))
        for name, value in weights.items():
            if value.numel() == 1 and "num_batches" in name:
                expected[name] = value  # a count
            else:
                expected[name] = share * expected[name] + (1 - share) * value
    found = loop.average.state_dict()
    assert found.keys() == expected.keys() and any("running_var" in name for name in found)
    for name, value in found.items():
        assert (value - expected[name]).abs().max() < 1e-12, name
    assert loop.average.updates == 8
    key = "image_encoder.conv.weight"
    assert not torch.equal(found[key], model.state_dict()[key])


def test_training_itself_is_the_same_with_an_average() -> None:
    weights = []
    for decay in (None, 0.9):
        loop = trainer(classifier(), lr=0.5, ema_decay=decay)
        loop.fit(forever(labelled))
        weights.append({name: value.clone() for name, value in loop.objective.state_dict().items()})
        assert (loop.store.state.average is not None) == (decay is not None)
    assert equal_everywhere(*weights)


def test_a_skipped_update_is_no_update_of_the_average() -> None:
    loop = trainer(Overflows(at=2), precision="fp16", ema_decay=0.9)
    loop.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loop.fit(forever())
    assert loop.average is not None
    assert (loop.done, loop.average.updates, loop.store.state.average_updates) == (5, 4, 4)
    assert all(torch.isfinite(value).all() for value in loop.average.state_dict().values())


class Weighs(Scores):
    """Gives a weight of the model that it is shown."""

    needs: ClassVar[tuple[type, ...]] = ()

    def run(self, model: nn.Module, runtime: Any) -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        return {"value": model.state_dict()["classifier.bias"][0].item()}


def test_evaluations_see_the_average_and_the_checkpoint_holds_both() -> None:
    loop = trainer(classifier(), lr=0.5, evaluators={"e": Weighs()}, evaluate_every=1, select="e/value", ema_decay=0.9)
    loop.fit(forever(labelled))
    assert loop.average is not None
    state = loop.store.state
    assert loop.store.saved[-1] == (5, state.average["classifier.bias"][0].item())
    assert state.average["classifier.bias"][0] != state.weights["classifier.bias"][0]
    assert equal_everywhere(dict(state.weights), dict(loop.objective.state_dict()))
    assert loop.objective.training and not loop.average.model.training


def test_what_is_not_trained_is_shared() -> None:
    torch.manual_seed(0)
    encoder = Three()
    freeze(encoder, [0])
    model = Moco(encoder, HEAD, queue_size=12)
    average = Average(model, 0.9)
    copy = average.model
    assert copy.queue is model.queue and copy.place is model.place
    assert copy.image_encoder.stem.weight is model.image_encoder.stem.weight
    assert copy.key_tower[1].layer.weight is model.key_tower[1].layer.weight
    own = {name: value for name, value in copy.named_parameters() if value is not dict(model.named_parameters())[name]}
    assert set(own) == {name for name, value in model.named_parameters() if value.requires_grad}
    assert not any(value.requires_grad for value in own.values())
    assert copy.image_encoder.one[1].running_mean is not model.image_encoder.one[1].running_mean
    model.queue.zero_()
    assert not copy.queue.any()


def test_towers_of_other_libraries_can_be_averaged() -> None:
    torch.manual_seed(0)
    image = TorchvisionEncoder("resnet18", 32)
    model = Clip(image, TinyTexts(), HEAD, HEAD)
    average = Average(model, 0.5)
    images = torch.randn(2, 3, 32, 32)
    before = average.model.embed_images(average.model.encode_images(images))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert torch.equal(average.model.embed_images(average.model.encode_images(images)), before)
    average.update()
    assert not torch.equal(average.model.embed_images(average.model.encode_images(images)), before)


@pytest.mark.parametrize("decay", [0, 1, 1.5, -0.1])
def test_a_decay_outside_of_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="ema_decay"):
        sections.Trainer(ema_decay=decay)


# ------------------------------------------------------------------------------------------------------------ runs

HARD = (
    "trainer.ema_decay=0.9",
    "trainer.layer_decay=0.8",
    "freeze.image_encoder=[0]",
    "trainer.max_steps=8",
    "trainer.evaluate_every_steps=4",
    "text_encoder.dropout=0.1",
)


def train(data: Path, folder: Path, *overrides: str, stop_at: int | None = None) -> Trained:
    values = settings(data, folder, *HARD, *overrides)
    values["evals"] = {"stops": {"_target_": "helpers.StopsRun"}}
    StopsRun.at = stop_at
    return train_module.train(values, packages=PACKAGES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("unbroken")).folder / "checkpoints" / "last.pt"


def test_a_stopped_run_goes_on_to_exactly_the_same_average(data: Path, tmp_path: Path, unbroken: Path) -> None:
    assert not train(data, tmp_path, stop_at=1).finished
    half = plain_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert half["progress"]["step"] == half["ema_updates"] == 4
    assert train(data, tmp_path).finished
    last, whole = plain_checkpoint(tmp_path / "checkpoints" / "last.pt"), plain_checkpoint(unbroken)
    assert last["ema_updates"] == whole["ema_updates"] == 8
    for name in ("model", "ema", "optimizer"):
        assert equal_everywhere(last[name], whole[name]), name
    assert not equal_everywhere(whole["ema"], whole["model"]) and not equal_everywhere(whole["ema"], half["ema"])


def test_the_average_is_what_is_restored_and_started_from(data: Path, unbroken: Path) -> None:
    state = plain_checkpoint(unbroken)
    restored = restoring.restore_model(as_checkpoint(state))
    assert equal_everywhere(dict(restored.state_dict()), state["ema"])
    with torch.no_grad():
        for parameter in restored.parameters():
            parameter.zero_()
    restoring.init_from(restored, as_checkpoint(state), "x")
    assert equal_everywhere(dict(restored.state_dict()), state["ema"])


def test_the_average_cannot_be_switched_on_in_the_middle(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, stop_at=1)
    with pytest.raises(ConfigError, match=r"other settings \(trainer.ema_decay\)"):
        train(data, tmp_path, "trainer.ema_decay=null")


# -------------------------------------------------------------------------------------------------- two processes


def in_two(runtime: Runtime, folder: Path) -> dict[str, Any]:
    """A tower with a frozen layer, an average, chunks: what each process holds, and what is saved."""
    torch.manual_seed(0)
    encoder = Three()
    freeze(encoder, [0])
    model = Clip(encoder, TinyTexts(), HEAD, HEAD)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    loop = Trainer(
        model,
        optimizer,
        Constant(3),
        replace(PLAN, total_steps=3, ema_decay=0.9, micro_batch_size=2),
        Precision("fp32", runtime.device),
        runtime,
        Tracker(),
        RunFolder(folder / "run", 1, as_checkpoint({}).origin),
        lambda batch: batch,
        {},
    )

    def batches(step: int) -> Batch:
        generator = torch.Generator().manual_seed(10 * step + runtime.rank)
        ids = [[1, *torch.randint(3, 60, (4,), generator=generator).tolist(), 2] for _ in range(3)]
        return batch_of(torch.randn(3, 3, 16, 16, generator=generator), ids)

    loop.fit(batches(step) for step in range(3))
    assert loop.average is not None
    return {"ema": dict(loop.average.state_dict()), "model": dict(model.state_dict())}


def test_processes_hold_the_same_average_and_save_the_mean_of_their_statistics(tmp_path: Path) -> None:
    one, other = in_processes(2, in_two, tmp_path)
    saved = plain_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    for name, value in one["ema"].items():
        if "one.1.running" in name or "two.1.running" in name:
            assert not torch.equal(value, other["ema"][name])
            assert torch.allclose(saved["ema"][name], (value + other["ema"][name]) / 2)
        else:
            assert torch.equal(value, other["ema"][name]) and torch.equal(value, saved["ema"][name]), name
    assert equal_everywhere(
        {name: one["ema"][name] for name in one["ema"] if ".stem." in name or ".norm." in name},
        {name: one["model"][name] for name in one["model"] if ".stem." in name or ".norm." in name},
    )
    assert not torch.equal(one["ema"]["image_encoder.one.0.weight"], one["model"]["image_encoder.one.0.weight"])
