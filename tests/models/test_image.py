"""Image towers against timm and torchvision themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers import ROOT, SMALL

from cxrcl.cli import compose
from cxrcl.config import build
from cxrcl.models.image import TimmEncoder, TorchvisionEncoder
from cxrcl.types import ImageEncoder

SWIN = {"img_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
GROUPS = {"norm_layer": "groupnorm", "stem_type": "deep"}

# name, size, options, (dim, N, local_dim), local mean is pooled
TIMM: list[tuple[str, int, dict[str, Any] | None, tuple[int, int, int], bool]] = [
    ("resnet18", 64, None, (512, 4, 512), True),
    ("resnet10t", 64, None, (512, 4, 512), True),
    ("resnet10t", 64, GROUPS, (512, 4, 512), True),
    ("test_vit.r160_in1k", 160, None, (64, 100, 64), False),
    ("swin_tiny_patch4_window7_224", 64, SWIN, (32, 64, 32), True),
    ("mobilenetv3_small_050", 64, None, (1024, 4, 288), False),
]
IDS = ["resnet18", "resnet10t", "groupnorm", "vit", "swin", "mobilenet"]


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "size", "options", "shape", "is_mean"), TIMM, ids=IDS)
def test_timm_features_are_timms_own(
    name: str, size: int, options: dict[str, Any] | None, shape: tuple[int, int, int], is_mean: bool
) -> None:
    encoder = TimmEncoder(name, size=size, options=options).eval()
    with torch.no_grad():
        pooled, local = encoder(images(size))
        expected = encoder.model(images(size))
    assert (encoder.dim, encoder.local_dim) == (shape[0], shape[2])
    assert pooled.shape == (2, shape[0]) and local.shape == (2, *shape[1:])
    assert (pooled - expected).abs().max() < 1e-5
    if is_mean:
        assert (local.mean(dim=1) - pooled).abs().max() < 1e-5


def test_memory_layout_does_not_change_the_numbers() -> None:
    encoder = TimmEncoder("test_resnet", size=32, channels_last=True).eval()
    plain = TimmEncoder("test_resnet", size=32, channels_last=False).eval()
    plain.load_state_dict(encoder.state_dict())
    for one, other in zip(encoder(images(32)), plain(images(32)), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_local_features_are_in_rows_of_the_map() -> None:
    encoder = TimmEncoder("test_resnet", size=64).eval()
    grid = encoder.model.forward_features(images(64))
    local = encoder(images(64)).local
    assert torch.equal(local[:, 1], grid[:, :, 0, 1]) and torch.equal(local[:, grid.shape[3]], grid[:, :, 1, 0])


FRESH = """
import sys, torch
from cxrcl.config import build
from cxrcl.types import ImageEncoder
torch.set_num_threads(1)
for path in sys.argv[1:]:
    node, weights, size, pooled, local = torch.load(path)
    encoder = build(node, ImageEncoder, "image_encoder").eval()
    encoder.load_state_dict(weights)
    found = encoder(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)))
    assert encoder.spec.size == size and encoder.spec.mean == (0.25, 0.5, 0.75), encoder.spec
    assert torch.equal(found.pooled, pooled) and torch.equal(found.local, local), path
    print("equal")
"""


def test_nodes_rebuild_the_towers_in_a_fresh_process_without_a_network(tmp_path: Path) -> None:
    kept = []
    weights_file = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), weights_file)
    mean = (0.25, 0.5, 0.75)
    towers = [
        TimmEncoder("test_resnet", size=32, weights=str(weights_file), mean=mean),
        TimmEncoder("resnet10t", size=32, options={**GROUPS, "channels": [64, 64, 64, 64]}, mean=mean),
        TimmEncoder("swin_tiny_patch4_window7_224", size=64, options=SWIN, mean=mean),
        TorchvisionEncoder("resnet18", size=32, mean=mean),
    ]
    for k, encoder in enumerate(towers):
        size = encoder.spec.size
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.mul_(1.01)
            features = encoder.eval()(images(size))
        path = tmp_path / f"{k}.pt"
        torch.save((encoder.node(), encoder.state_dict(), size, features.pooled, features.local), path)
        kept.append(str(path))
    weights_file.unlink()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *kept], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["equal"] * len(towers)


def test_an_unknown_name_lists_near_ones() -> None:
    with pytest.raises(ValueError, match=r"name=resnet1000: timm has no such model"):
        TimmEncoder("resnet1000")
    with pytest.raises(ValueError, match=r"near: densenet\w+, "):
        TimmEncoder("densenet_121")
    with pytest.raises(ValueError, match=r"name=resnet5: torchvision has no such model \(it has "):
        TorchvisionEncoder("resnet5")


def test_options_that_timm_does_not_know_are_named() -> None:
    with pytest.raises(ValueError, match=r"timm cannot make test_resnet with .*'no_such': 1"):
        TimmEncoder("test_resnet", options={"no_such": 1})


def test_a_missing_weights_file_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"weights=nowhere\.pth: file not found"):
        TimmEncoder("test_resnet", weights="nowhere.pth")


def test_weights_of_a_local_file_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = timm.create_model("test_resnet", num_classes=5)
    torch.save(given.state_dict(), tmp_path / "weights.pth")
    torch.manual_seed(1)
    fresh, loaded = (TimmEncoder("test_resnet", weights=w) for w in (None, str(tmp_path / "weights.pth")))
    wanted = {name: value for name, value in given.state_dict().items() if not name.startswith("fc.")}
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.model.state_dict().items())
    assert not torch.equal(fresh.model.conv1[0].weight, loaded.model.conv1[0].weight)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("test_vit", r"weights=.*: the file lacks \d+ tensors, such as conv1"),
        ("resnet10t", r"timm cannot make test_resnet .*|the file (lacks|has beside the model's own) \d+ tensors"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, other: str, message: str) -> None:
    torch.save(timm.create_model(other).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=message):
        TimmEncoder("test_resnet", weights=str(tmp_path / "weights.pth"))


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    weights = timm.create_model("test_vit").state_dict()
    torch.save({k: v for k, v in weights.items() if k != "blocks.1.attn.qkv.weight"}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"the file lacks 1 tensors, such as blocks\.1\.attn\.qkv\.weight"):
        TimmEncoder("test_vit", weights=str(tmp_path / "weights.pth"))


def test_torchvision_features_are_those_before_its_classifier() -> None:
    from torchvision.models import resnet18

    encoder = TorchvisionEncoder("resnet18", size=64).eval()
    whole = resnet18().eval()
    weights = {name.removeprefix("model."): value for name, value in encoder.state_dict().items()}
    assert set(whole.load_state_dict(weights, strict=False).missing_keys) == {"fc.weight", "fc.bias"}
    whole.fc = torch.nn.Identity()
    with torch.no_grad():
        pooled, local = encoder(images(64))
        expected = whole(images(64))
    assert (encoder.dim, encoder.local_dim, local.shape) == (512, 512, (2, 4, 512))
    assert (pooled - expected).abs().max() < 1e-5
    assert (local.mean(dim=1) - pooled).abs().max() < 1e-5


def test_a_node_that_torchvision_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="torchvision cannot make resnet18"):
        TorchvisionEncoder("resnet18", size=32, local_node="layer9")


@pytest.mark.parametrize("option", ["groupnorm", "resnet18", "small_resnet", "torchvision_resnet18"])
def test_shipped_towers_are_built(option: str) -> None:
    small = [override for override in SMALL if not override.startswith("image_encoder")]
    node = compose("train", [*small, f"image_encoder={option}", "image_encoder.size=64"])["image_encoder"]
    encoder = build(node, ImageEncoder, "image_encoder").eval()
    assert encoder(images(64)).pooled.shape == (2, encoder.dim)
