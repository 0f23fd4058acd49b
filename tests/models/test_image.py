"""Image towers against timm and torchvision themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import pytest
import timm
import torch
from builders import gradients, perturb, pictures, unused
from helpers import SMALL

from cxrcl.commands.hydra import compose
from cxrcl.config.nodes import build
from cxrcl.models.base import ImageEncoder
from cxrcl.models.image import TimmEncoder, TorchvisionEncoder

SWIN = {"img_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 8, 12, 16]}
GROUPS = {"norm_layer": "groupnorm", "stem_type": "deep"}

# name, size, options, (dim, N, local_dim), local mean is pooled
TIMM: list[tuple[str, int, dict[str, Any] | None, tuple[int, int, int], bool]] = [
    ("resnet18", 64, None, (512, 4, 512), True),
    ("resnet10t", 64, None, (512, 4, 512), True),
    ("resnet10t", 64, GROUPS, (512, 4, 512), True),
    ("test_vit.r160_in1k", 160, None, (64, 100, 64), False),
    ("swin_tiny_patch4_window7_224", 64, SWIN, (32, 64, 32), True),
    ("vit_tiny_patch16_224", 64, {"depth": 2}, (192, 16, 192), False),
    ("densenet121", 64, {"block_config": [1, 1], "growth_rate": 8}, (20, 64, 20), True),
    ("convnext_tiny", 64, CONVNEXT, (16, 4, 16), False),
    ("mobilenetv3_small_050", 64, None, (1024, 4, 288), False),
]
IDS = ["resnet18", "resnet10t", "groupnorm", "test_vit", "swin", "vit", "densenet", "convnext", "mobilenet"]


@pytest.mark.parametrize(("name", "size", "options", "shape", "is_mean"), TIMM, ids=IDS)
def test_timm_features_are_timms_own(
    name: str, size: int, options: dict[str, Any] | None, shape: tuple[int, int, int], is_mean: bool
) -> None:
    encoder = TimmEncoder(name, size=size, options=options).eval()
    with torch.no_grad():
        pooled, local = encoder(pictures(size))
        expected = encoder.model(pictures(size))
    assert (encoder.dim, encoder.local_dim) == (shape[0], shape[2])
    assert pooled.shape == (2, shape[0]) and local.shape == (2, *shape[1:])
    assert (pooled - expected).abs().max() < 1e-5
    if is_mean:
        assert (local.mean(dim=1) - pooled).abs().max() < 1e-5


@pytest.mark.parametrize(("name", "size", "options", "shape", "is_mean"), TIMM, ids=IDS)
def test_every_parameter_takes_part(
    name: str, size: int, options: dict[str, Any] | None, shape: tuple[int, int, int], is_mean: bool
) -> None:
    assert unused(TimmEncoder(name, size=size, options=options)) == []


# name, size, options, layer, (N, local_dim)
LAYERS: list[tuple[str, int, dict[str, Any] | None, int, tuple[int, int]]] = [
    ("resnet18", 64, None, -2, (16, 256)),
    ("resnet18", 64, None, -3, (64, 128)),
    ("swin_tiny_patch4_window7_224", 64, SWIN, -2, (256, 16)),
    ("test_vit", 64, None, -2, (16, 64)),
    ("convnext_tiny", 64, CONVNEXT, -2, (16, 12)),
]


@pytest.mark.parametrize(("name", "size", "options", "layer", "shape"), LAYERS)
def test_local_features_of_another_layer_leave_the_pooled_ones_as_they_are(
    name: str, size: int, options: dict[str, Any] | None, layer: int, shape: tuple[int, int]
) -> None:
    encoder = TimmEncoder(name, size=size, options=options, local_layer=layer).eval()
    with torch.no_grad():
        pooled, local = encoder(pictures(size))
        grid = encoder.model.forward_intermediates(pictures(size), output_fmt="NCHW", intermediates_only=True)[layer]
        assert (pooled - encoder.model(pictures(size))).abs().max() < 1e-5
    assert torch.equal(local, grid.flatten(2).transpose(1, 2))
    assert local.shape == (2, *shape) and encoder.local_dim == shape[1]
    assert builders.passes_of(next(m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)), encoder) == 1


def test_the_layer_before_the_last_of_a_resnet_is_layer3() -> None:
    encoder = TimmEncoder("test_resnet", size=64, local_layer=-2).eval()
    seen: list[torch.Tensor] = []
    encoder.model.layer3.register_forward_hook(lambda *found: seen.append(found[2]))
    local = encoder(pictures(64)).local
    assert len(seen) == 1 and torch.equal(local, seen[0].flatten(2).transpose(1, 2))


@pytest.mark.parametrize("layer", [0, 1, -6])
def test_a_layer_that_is_not_there_is_an_error(layer: int) -> None:
    with pytest.raises(ValueError, match=f"local_layer={layer}: expected -1 to -5, counted from the end"):
        TimmEncoder("test_resnet", size=32, local_layer=layer)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_checkpointing_gives_the_same_gradients_and_runs_blocks_twice(name: str) -> None:
    plain, saving = (TimmEncoder(name, size=32, checkpointing=c) for c in (False, True))
    saving.load_state_dict(plain.state_dict())
    for (key, one), other in zip(gradients(plain).items(), gradients(saving).values(), strict=True):
        assert one is not None and other is not None and torch.allclose(one, other, rtol=1e-4, atol=1e-4), key
    block = {"test_vit": "blocks.0.mlp", "test_resnet": "layer1.0.conv1"}[name]
    assert [builders.passes_of(e.model.get_submodule(block), e) for e in (plain, saving)] == [1, 2]


def test_a_model_without_checkpointing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, enable: bool = True) -> None:
        raise AssertionError("gradient checkpointing not supported")

    monkeypatch.setattr(timm.models.resnet.ResNet, "set_grad_checkpointing", refuse)
    with pytest.raises(ValueError, match="checkpointing=true: timm's test_resnet does not support it"):
        TimmEncoder("test_resnet", checkpointing=True)


@pytest.mark.parametrize(("name", "native", "size"), [("test_vit", 160, 96), ("swin_tiny_patch4_window7_224", 64, 32)])
def test_weights_of_the_native_size_are_interpolated(tmp_path: Path, name: str, native: int, size: int) -> None:
    extra = {} if name == "test_vit" else {k: v for k, v in SWIN.items() if k != "img_size"}
    given = perturb(timm.create_model(name, img_size=native, num_classes=3, **extra))
    torch.save(given.state_dict(), tmp_path / "weights.pth")
    encoder = TimmEncoder(name, size=size, weights=str(tmp_path / "weights.pth"), options=extra or None).eval()
    given.reset_classifier(0)
    given.set_input_size(size, **({} if name == "test_vit" else {"window_size": 4}))
    with torch.no_grad():
        assert (encoder(pictures(size)).pooled - given.eval()(pictures(size))).abs().max() < 1e-4
    assert encoder.spec.size == size


@pytest.mark.parametrize(
    ("name", "size", "patch", "nearest"),
    [("test_vit", 100, 16, 96), ("test_vit", 5, 16, 16), ("swin_tiny_patch4_window7_224", 67, 4, 68)],
)
def test_a_size_that_patches_do_not_tile_is_one_line(name: str, size: int, patch: int, nearest: int) -> None:
    message = f"^size={size} is not a multiple of the patch of {patch} pixels: set size={nearest}$"
    with pytest.raises(ValueError, match=message):
        TimmEncoder(name, size=size)


@pytest.mark.parametrize(("name", "size"), [("pvt_v2_b0", 64), ("efficientvit_m0", 224)])
def test_patches_that_overlap_or_are_told_by_one_number(name: str, size: int) -> None:
    assert TimmEncoder(name, size=size).eval()(pictures(size)).local.ndim == 3


def test_construction_leaves_weights_that_are_tied_as_they_are() -> None:
    encoder = TimmEncoder("coat_lite_tiny", size=64)
    assert {tensor.device.type for tensor in encoder.state_dict().values()} == {"cpu"}
    model = encoder.model
    assert model.crpe2.conv_list[0].weight is model.serial_blocks2[0].factoratt_crpe.crpe.conv_list[0].weight


def test_a_class_token_that_the_model_does_not_tell_is_no_patch() -> None:
    encoder = TimmEncoder("volo_d1_224", size=224).eval()
    with torch.no_grad():
        tokens, local = encoder.model.forward_features(pictures(224)[:1]), encoder(pictures(224)[:1]).local
    assert torch.equal(local, tokens[:, 1:])


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("crossvit_tiny_240", {"size": 240}, "size=240: the model gives a list of features instead of one map"),
        ("densenet121", {"size": 16}, "timm's densenet121 at size=16: .*too small"),
        ("resnet10t", {"size": -5}, "timm's resnet10t at size=-5: "),
        ("resnet10t", {"size": 32, "options": {"global_pool": ""}}, r"found pooled features \[1, 512, 1, 1\]"),
        ("resnet10t", {"size": 32, "options": {"in_chans": 1}}, "timm's resnet10t at size=32: "),
        ("resnet10t", {"options": {"features_only": True}}, "no model with pooled features of resnet10t"),
    ],
)
def test_models_that_do_not_give_a_map_and_a_vector_are_one_line(name: str, settings: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        TimmEncoder(name, **settings)
    assert "\n" not in str(caught.value)


def test_other_files_in_place_of_weights_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("hello")
    torch.save({"conv1.weight": Path()}, tmp_path / "weights.pth")
    for file in ("weights.txt", "weights.pth"):
        with pytest.raises(ValueError, match=rf"weights=.*{file}: .* cannot be read as plain tensors \(\w+\)$"):
            TimmEncoder("test_resnet", weights=str(tmp_path / file))


def test_a_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text(builders.LFS)
    with pytest.raises(ValueError, match=r"weights=.*: weights\.pth is a git-lfs pointer: run `git lfs pull`"):
        TimmEncoder("test_resnet", weights=str(tmp_path / "weights.pth"))


def test_memory_layout_does_not_change_the_numbers() -> None:
    encoder = TimmEncoder("test_resnet", size=32, channels_last=True).eval()
    plain = TimmEncoder("test_resnet", size=32, channels_last=False).eval()
    plain.load_state_dict(encoder.state_dict())
    for one, other in zip(encoder(pictures(32)), plain(pictures(32)), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_local_features_are_in_rows_of_the_map() -> None:
    encoder = TimmEncoder("test_resnet", size=64).eval()
    grid = encoder.model.forward_features(pictures(64))
    local = encoder(pictures(64)).local
    assert torch.equal(local[:, 1], grid[:, :, 0, 1]) and torch.equal(local[:, grid.shape[3]], grid[:, :, 1, 0])


def test_nodes_rebuild_the_towers_in_a_fresh_process_without_a_network(tmp_path: Path) -> None:
    mean = (0.25, 0.5, 0.75)
    towers = [
        TimmEncoder("test_resnet", size=32, mean=mean, local_layer=-2),
        TimmEncoder("resnet10t", size=32, options={**GROUPS, "channels": [64, 64, 64, 64]}, mean=mean),
        TimmEncoder("swin_tiny_patch4_window7_224", size=64, options=SWIN, mean=mean),
        TimmEncoder("test_vit", size=64, mean=mean, checkpointing=True),
        TorchvisionEncoder("resnet18", size=32, mean=mean),
    ]
    builders.assert_rebuilt_elsewhere(tmp_path, towers)


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
        ("resnet10t", r"weights=.*: \d+ tensors of another shape: size mismatch for conv1"),
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
        pooled, local = encoder(pictures(64))
        expected = whole(pictures(64))
    assert (encoder.dim, encoder.local_dim, local.shape) == (512, 512, (2, 4, 512))
    assert (pooled - expected).abs().max() < 1e-5
    assert (local.mean(dim=1) - pooled).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "local_node", "pooled_node"), [("swin_t", "norm", "flatten"), ("vit_b_16", "encoder", "getitem_5")]
)
def test_torchvisions_transformers(name: str, local_node: str, pooled_node: str) -> None:
    """Maps with channels last; tokens behind a class token, at another size than 224."""
    encoder = TorchvisionEncoder(name, size=64, local_node=local_node, pooled_node=pooled_node).eval()
    with torch.no_grad():
        pooled, local = encoder(pictures(64))
        found = encoder.model(pictures(64))["local"]
    expected = found.flatten(1, 2) if found.ndim == 4 else found[:, 1:]
    assert (encoder.dim, encoder.local_dim, pooled.shape) == (768, 768, (2, 768))
    assert local.shape[1] == (4 if name == "swin_t" else 16) and torch.equal(local, expected)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"local_node": "flatten"}, "local_node=flatten, pooled_node=flatten: expected two nodes"),
        ({"pooled_node": "layer3"}, r"pooled_node=layer3 holds \[1, 256, 2, 2\]"),
        ({"weights": "none"}, "torchvision cannot make resnet18 with size=32, weights=none: "),
    ],
)
def test_nodes_of_torchvision_that_cannot_be_used(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TorchvisionEncoder("resnet18", size=32, **settings)


def test_a_node_that_torchvision_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="torchvision cannot make resnet18"):
        TorchvisionEncoder("resnet18", size=32, local_node="layer9")


@pytest.mark.parametrize(
    "option", ["groupnorm", "resnet18", "small_resnet", "torchvision_resnet18", "densenet121", "swin_tiny"]
)
def test_shipped_towers_are_built(option: str) -> None:
    small = [override for override in SMALL if not override.startswith("image_encoder")]
    node = compose("train", [*small, f"image_encoder={option}", "image_encoder.size=64"])["image_encoder"]
    encoder = build(node, ImageEncoder, "image_encoder").eval()
    assert encoder(pictures(64)).pooled.shape == (2, encoder.dim)
