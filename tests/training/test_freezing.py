"""Layers that are not trained: which they are, that nothing in them moves, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import plain_checkpoint
from helpers import PACKAGES, TinyTexts, batch_of, equal_everywhere, said_once, settings, two_towers, write_manifest
from lines import trainer
from torch import Tensor, nn

from cxrcl.app.model import build_model
from cxrcl.app.plan import build_optimizer
from cxrcl.app.train import train
from cxrcl.commands.hydra import compose
from cxrcl.config import sections
from cxrcl.errors import ConfigError
from cxrcl.models.base import ImageEncoder
from cxrcl.models.heads import Linear
from cxrcl.models.image import TimmEncoder
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.simclr import SimClr
from cxrcl.objectives.towers import ImageObjective
from cxrcl.training.freezing import Which, freeze
from cxrcl.types import Batch, Features, ImageSpec


class Three(ImageEncoder):
    """Three layers of a convolution, BatchNorm and dropout; the first dropout stands beside its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(16, (0.5,) * 3, (0.25,) * 3)
        self.dim = self.local_dim = 4
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.1)
        self.one, self.two = (
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1)) for _ in range(2)
        )

    def layer_names(self) -> list[list[str]]:
        return [["stem", "norm"], ["one"], ["two"]]

    def forward(self, images: Tensor) -> Features:
        cells = self.two(self.one(self.drop(self.norm(self.stem(images))))).flatten(2).transpose(1, 2)
        return Features(cells.mean(dim=1), cells)

    def node(self) -> dict[str, Any]:
        return {"_target_": "test_freezing.Three"}


def frozen_layers(which: Which) -> list[int]:
    torch.manual_seed(0)
    encoder = Three()
    freeze(encoder, which)
    parts = (nn.ModuleList([encoder.stem, encoder.norm]), encoder.one, encoder.two)
    return [k for k, part in enumerate(parts) if {p.requires_grad for p in part.parameters()} == {False}]


@pytest.mark.parametrize(
    ("which", "layers"),
    [
        ("all", [0, 1, 2]),
        ([], []),
        ([0], [0]),
        ([-1], [2]),
        ([0, -2, 1], [0, 1]),
        ({"all_but_last": 1}, [0, 1]),
        ({"all_but_last": 2}, [0]),
        ({"all_but_last": 0}, [0, 1, 2]),
    ],
)
def test_which_layers_are_frozen(which: Which, layers: list[int]) -> None:
    assert frozen_layers(which) == layers


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ([3], "no layer 3: the encoder has 3 layers, 0 to 2 (or -1 to -3 from the end)"),
        ([0, -4, 7], "no layer -4, 7: the encoder has 3 layers"),
        ({"all_but_last": 3}, "{all_but_last: 3}: the encoder has 3 layers, expected 0 to 2"),
        ({"all_but_last": -1}, "{all_but_last: -1}: the encoder has 3 layers"),
    ],
)
def test_layers_that_do_not_exist_are_refused(which: Which, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        frozen_layers(which)


def modes(encoder: Three) -> list[bool]:
    parts = (encoder, encoder.stem, encoder.norm, encoder.drop, encoder.one[1], encoder.two[3])
    return [part.training for part in parts]


def test_frozen_layers_stay_in_evaluation_mode_with_the_dropout_behind_them() -> None:
    encoder = Three()
    freeze(encoder, [0])
    assert modes(encoder) == [True, False, False, False, True, True]  # at once
    holder = nn.ModuleList([encoder])
    for _ in range(2):
        assert modes(holder.train()[0]) == [True, False, False, False, True, True]  # type: ignore[arg-type]
        assert modes(holder.eval()[0]) == [False] * 6  # type: ignore[arg-type]
    freeze(encoder, [1])
    assert modes(encoder.train()) == [True, True, True, True, False, True]
    freeze(encoder, "all")
    assert modes(encoder.train()) == [False] * 6


class Placed(ImageEncoder):
    """A table of places of the encoder itself, and the dropout behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(16, 3))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(3, 4)

    def layer_names(self) -> list[list[str]]:
        return [["places"], ["head"]]


@pytest.mark.parametrize(("which", "drops"), [([0], False), ([1], True), ([], True), ("all", False)])
def test_dropout_behind_a_frozen_table_stays_in_evaluation_mode(which: Which, drops: bool) -> None:
    encoder = Placed()
    freeze(encoder, which)
    assert encoder.train().drop.training == drops


def test_a_frozen_tower_keeps_no_graph() -> None:
    encoder = Three()
    freeze(encoder, {"all_but_last": 1})
    assert encoder(torch.randn(2, 3, 16, 16)).pooled.grad_fn is not None
    freeze(encoder, "all")
    assert encoder(torch.randn(2, 3, 16, 16)).pooled.grad_fn is None


# ------------------------------------------------------------------------------------------------------- training


def films(step: int, views: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    ids = [[1, *torch.randint(3, 60, (4,), generator=generator).tolist(), 2] for _ in range(6)]
    return batch_of(torch.randn(6, views, 3, 16, 16, generator=generator), ids)


def clip(image: ImageEncoder) -> Clip:
    return Clip(image, TinyTexts(), partial(Linear, out_dim=6), partial(Linear, out_dim=6))


def moco(image: ImageEncoder) -> Moco:
    return Moco(image, partial(Linear, out_dim=6), queue_size=15)


@pytest.mark.parametrize("micro_batch_size", [None, 4])
@pytest.mark.parametrize("make", [clip, moco])
def test_nothing_in_a_frozen_layer_moves_and_all_else_does(
    make: Callable[[ImageEncoder], Any], micro_batch_size: int | None
) -> None:
    torch.manual_seed(0)
    encoder = Three()
    freeze(encoder, [0, 2])
    loop = trainer(make(encoder), lr=0.5, total_steps=4, micro_batch_size=micro_batch_size)
    before = {name: value.clone() for name, value in loop.objective.state_dict().items()}
    loop.fit(films(step, loop.objective.num_views) for step in range(4))
    towers = ("image_encoder.", "key_tower.0.")
    for name, value in loop.objective.state_dict().items():
        part = next((name.removeprefix(tower).split(".")[0] for tower in towers if name.startswith(tower)), "")
        frozen = part in ("stem", "norm", "two")
        # The bias of a convolution has no effect before BatchNorm, its gradient is rounding.
        if name not in ("image_encoder.one.0.bias", "key_tower.0.one.0.bias", "text_encoder.places.weight"):
            assert torch.equal(value, before[name]) == frozen, name


def test_micro_batches_of_a_frozen_tower_have_the_gradient_of_the_batch() -> None:
    def run(size: int | None, frozen: Which | None = "all") -> dict[str, Tensor]:
        model = two_towers(Clip)
        if frozen is not None:
            freeze(model.image_encoder, frozen)
        loop = trainer(model, lr=0.5, total_steps=3, micro_batch_size=size)
        loop.fit(films(step, 1) for step in range(3))
        return {name: value.clone() for name, value in model.state_dict().items()}

    whole, pieces, free = run(None), run(2), run(None, None)
    for name, value in whole.items():
        assert torch.allclose(value, pieces[name], atol=1e-6), name
    assert not torch.equal(whole["text_head.layer.weight"], free["text_head.layer.weight"])


# ------------------------------------------------------------------------------------------------------- settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data") / "set")


def run(data: Path, folder: Path, *overrides: str) -> dict[str, Tensor]:
    done = train({**settings(data, folder, *overrides), "evals": {}}, packages=PACKAGES)
    return plain_checkpoint(done.checkpoint)["model"]


def test_the_config_freezes_layers_of_both_towers(data: Path, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    still = run(data, tmp_path / "still", "optimizer.lr=0")
    found = re.search(r"([\d.]+) M parameters", said_once(log, "train: ", "parameters"))
    assert found is not None
    frozen = ("freeze.image_encoder=[0,1]", "freeze.text_encoder={all_but_last:1}")
    model = run(data, tmp_path / "frozen", *frozen)
    assert said_once(log, f" of {found[1]} M parameters trained")
    image = ("conv1.", "bn1.", "layer1.")  # timm's test_resnet: stem, four stages
    text = ("embeddings.",)  # and one block
    for name, value in model.items():
        tower, _, rest = name.partition(".model.")
        rests = {"image_encoder": image, "text_encoder": text}.get(tower, ())
        if rests and rest.startswith(rests):
            if "running" not in name and "num_batches" not in name:
                assert torch.equal(value, still[name]), name
            else:  # as it was made
                assert value.unique().tolist() in ([0], [1]), name
    moved = [name for name, value in model.items() if not torch.equal(value, still[name])]
    assert any(name.startswith("image_encoder.model.layer2") for name in moved)
    assert any(name.startswith("text_encoder.model.encoder.layer.0") for name in moved)


@pytest.mark.parametrize("value", ["all", [0, -1], {"all_but_last": 2}, None, []])
def test_forms_of_the_setting(value: Any) -> None:
    assert sections.Freeze(image_encoder=value).image_encoder == value
    written = str(value).replace("'", "").replace("None", "null").replace(" ", "")
    assert compose("train", [f"freeze.image_encoder={written}"])["freeze"]["image_encoder"] == value


@pytest.mark.parametrize("value", ["none", "first", 2, True, [0.5], ["0"], {"last": 2}, {"all_but_last": "two"}])
def test_other_forms_are_refused_in_one_line(value: Any) -> None:
    values = compose("train", [])
    values["freeze"]["text_encoder"] = value
    with pytest.raises(ConfigError) as caught:
        sections.parse(values, sections.Train)
    said = "expected null, all, numbers of layers such as [0,1] (-1 is the last one), or {all_but_last: 2}"
    assert str(caught.value) == f"freeze.text_encoder={value!r}: {said}"


def nodes(objective: dict[str, Any]) -> dict[str, Any]:
    return {"objective": objective, "image_encoder": {"_target_": "test_freezing.Three"}, "text_encoder": None}


SIMCLR = {"_target_": "cxrcl.objectives.simclr.SimClr", "image_head": {"_target_": "cxrcl.models.heads.Linear"}}


def build(objective: dict[str, Any], **frozen: Any) -> Any:
    packages = (*PACKAGES, "test_freezing")
    return build_model(nodes(objective), (), None, packages, frozen=frozen)


def test_a_setting_that_does_not_fit_is_answered_with_its_name() -> None:
    assert isinstance(build(SIMCLR, image_encoder=[0]), SimClr)
    with pytest.raises(ConfigError, match=r"^freeze\.image_encoder=\[5\]: no layer 5: the encoder has 3 layers"):
        build(SIMCLR, image_encoder=[5])
    with pytest.raises(ConfigError, match=r"^freeze\.text_encoder=all: the objective has no text_encoder"):
        build(SIMCLR, text_encoder="all")


class TowerOnly(ImageObjective):
    def __init__(self, image_encoder: ImageEncoder) -> None:
        super().__init__(image_encoder)


def test_freezing_all_there_is_is_an_error() -> None:
    node, sgd = {"_target_": "test_freezing.TowerOnly"}, {"_target_": "torch.optim.SGD", "lr": 0.1}
    assert build_optimizer(sgd, build(node, image_encoder={"all_but_last": 1}), ())
    with pytest.raises(ConfigError, match=r"^freeze: no parameter is left to train"):
        build_optimizer(sgd, build(node, image_encoder="all"), ())


def test_a_checkpoint_of_a_frozen_tower_is_restored_and_trained_on() -> None:
    model = build(SIMCLR, image_encoder="all")
    again = build(SIMCLR)
    again.load_state_dict(model.state_dict())
    assert equal_everywhere(dict(model.state_dict()), dict(again.state_dict()))
    assert all(p.requires_grad for p in again.parameters()) and again.train().image_encoder.norm.training


def test_batch_norms_with_an_activation_of_their_own_are_frozen() -> None:
    encoder = TimmEncoder("efficientnet_b0", 32)
    freeze(encoder, {"all_but_last": 1})
    encoder.train()
    norms = {name: part for name, part in encoder.named_modules() if isinstance(part, nn.BatchNorm2d)}
    training = [name for name, part in norms.items() if part.training]
    assert training and all(name.startswith(("model.blocks.6", "model.bn2")) for name in training)
    assert len(training) < len(norms)
