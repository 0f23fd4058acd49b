"""Checkpoint files: what is kept, what is refused, and what a failure leaves behind."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import as_checkpoint, plain_checkpoint, write_plain
from helpers import TinyImages, equal_everywhere
from torch import nn

from cxrcl.app import restore as restoring
from cxrcl.app.restore import load_matching_weights
from cxrcl.checkpoint import file
from cxrcl.checkpoint.content import SCHEMA, Checkpoint, Progress, to_plain
from cxrcl.errors import CheckpointError
from cxrcl.objectives.classify import Classify


def perturbed(seed: int = 0) -> nn.Module:
    """Fresh weights could be equal by chance of initialisation: these cannot."""
    torch.manual_seed(seed)
    module = TinyImages(norm=True)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in (*module.parameters(), module.norm.running_mean, module.norm.running_var):
            value.add_(torch.rand(value.shape, generator=generator) + 0.1)
    return module


SETTINGS = {"name": "ünï", "list": [1, 2.5, None, True], "nested": {"a": {"b": "c"}}}


def made(step: int = 7) -> Checkpoint:
    config = {"settings": SETTINGS, "labels": ["Edema"]}
    weights = perturbed().state_dict()
    return as_checkpoint({"model": weights, "config": config, "best": [[0.5, 10]], "progress": {"step": step}})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.pt"
    file.save(made(), path)
    return path


def test_everything_comes_back_equal(written: Path) -> None:
    loaded = file.load(written)
    assert equal_everywhere(to_plain(loaded), to_plain(made()))
    assert loaded.recipe.settings == SETTINGS and loaded.best == ((0.5, 10),) and loaded.step == 7
    torch.manual_seed(1)
    fresh = TinyImages(norm=True)
    assert not equal_everywhere(dict(fresh.state_dict()), dict(perturbed().state_dict()))
    load_matching_weights(fresh, loaded.weights)
    assert equal_everywhere(dict(fresh.state_dict()), dict(perturbed().state_dict()))


def test_a_moving_average_comes_back_with_its_updates_and_is_what_is_used(tmp_path: Path) -> None:
    weights = {"model": {"a": torch.zeros(2)}, "ema": {"a": torch.ones(2)}, "ema_updates": 5}
    file.save(as_checkpoint(weights), tmp_path / "last.pt")
    loaded = file.load(tmp_path / "last.pt")
    assert loaded.state.average_updates == 5
    assert equal_everywhere(dict(loaded.weights), weights["ema"])
    assert equal_everywhere(loaded.state.weights, weights["model"])


def test_the_fingerprint_tells_names_shapes_types_and_values_apart_and_not_their_order() -> None:
    def fingerprint(**weights: torch.Tensor) -> str:
        return as_checkpoint({"model": weights}).fingerprint()

    values, ones = torch.arange(6.0), torch.ones(2)
    one = fingerprint(a=values.view(2, 3), b=ones)
    assert one == fingerprint(b=ones, a=values.view(2, 3)) and len(one) == 16
    others = {
        "name": fingerprint(a=values.view(2, 3), c=ones),
        "shape": fingerprint(a=values.view(3, 2), b=ones),
        "type": fingerprint(a=values.view(2, 3), b=ones.view(torch.int32)),
        "value": fingerprint(a=values.view(2, 3), b=2 * ones),
    }
    assert len({one, *others.values()}) == 5


@pytest.mark.parametrize(
    ("progress", "complete"),
    [
        (Progress(step=9, total=10), False),
        (Progress(step=10, total=10), True),
        (Progress(step=10, total=20), True),  # the plan has become shorter
        (Progress(step=3, total=10, stopped_early=True), True),
    ],
)
def test_a_training_is_complete_at_the_end_of_its_plan_or_where_patience_has_ended_it(
    progress: Progress, complete: bool
) -> None:
    assert progress.is_complete(total_steps=10) == complete


def test_no_temporary_file_is_left(written: Path) -> None:
    assert [path.name for path in written.parent.iterdir()] == ["last.pt"]


def test_a_write_that_fails_half_way_leaves_the_old_file(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written.read_bytes()

    def half(content: Any, opened: Any) -> None:
        opened.write(before[: len(before) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space left"):
        file.save(made(8), written)
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.iterdir()] == ["last.pt"]


# ------------------------------------------------------------------------------------------------- refusals


class _Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "was run", tmp_path / "bad.pt"
    torch.save({"schema": 1, "model": _Malicious(mark)}, path)
    with pytest.raises(CheckpointError, match="objects other than tensors and plain values, refused"):
        file.load(path)
    assert not mark.exists()
    path.write_bytes(pickle.dumps(_Malicious(mark)))
    with pytest.raises(CheckpointError, match="not a cxrcl checkpoint"):
        file.load(path)
    assert not mark.exists()


@pytest.mark.parametrize("setting", [{"weights": "w.pth"}, {"name": "hf-hub:a/b"}, {"encoder": {"pretrained": True}}])
def test_an_encoder_that_would_open_another_file_is_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    node = {"_target_": "cxrcl.models.image.TimmEncoder", "name": "resnet18", "pretrained": False, "weights": None}
    for name, more in (("plain.pt", {}), ("bad.pt", setting)):
        file.save(as_checkpoint({"config": {"model": {"image_encoder": {**node, **more}}}}), tmp_path / name)
    assert file.load(tmp_path / "plain.pt").recipe.model["image_encoder"] == node
    with pytest.raises(CheckpointError, match=r"bad\.pt: image_encoder: \w+=.*: weights of another place"):
        file.load(tmp_path / "bad.pt")


def test_flipped_bytes_are_noticed(written: Path) -> None:
    """torch itself loads them without a word."""
    content = bytearray(written.read_bytes())
    with zipfile.ZipFile(written) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    middle = largest.header_offset + 128 + largest.file_size // 2
    for k in range(middle, middle + 8):
        content[k] ^= 0xFF
    written.write_bytes(content)
    torch.load(written, weights_only=True)
    with pytest.raises(CheckpointError, match=r"damaged \(wrong checksum in .*data/"):
        file.load(written)


def test_eight_flipped_bytes_anywhere_never_change_what_is_loaded(written: Path) -> None:
    whole, before = written.read_bytes(), plain_checkpoint(written)
    refused = 0
    for start in np.linspace(0, len(whole) - 8, 300, dtype=int):
        content = bytearray(whole)
        for k in range(start, start + 8):
            content[k] ^= 0xFF
        written.write_bytes(content)
        try:
            assert equal_everywhere(plain_checkpoint(written), before)  # padding and the like
        except CheckpointError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(written: Path, keep: float) -> None:
    whole = written.read_bytes()
    written.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(CheckpointError, match="truncated, or not a cxrcl checkpoint"):
        file.load(written)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\n  <html></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs pointer.*git lfs pull"),
        (b"hello", "not a cxrcl checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        file.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_folders_foreign_and_newer_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not found"):
        file.load(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="found a folder"):
        file.load(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="not written by cxrcl"):
        file.load(tmp_path / "foreign.pt")
    torch.save({"schema": SCHEMA + 1}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match=f"schema {SCHEMA + 1}, this cxrcl reads up to {SCHEMA}: update"):
        file.load(tmp_path / "newer.pt")


# --------------------------------------------------------------------------------------------------- weights


def test_laying_in_reports_what_matched_and_what_did_not() -> None:
    module = TinyImages(width=8, norm=True)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    given = {
        "conv.weight": torch.full_like(before["conv.weight"], 3.0),
        "conv.bias": torch.zeros(5),
        "norm.weight": torch.full((8,), 2.0),
        "head.weight": torch.zeros(2, 2),
    }
    report = load_matching_weights(module, given)
    assert report.matched == 2
    assert report.missing == ("norm.bias", "norm.num_batches_tracked", "norm.running_mean", "norm.running_var")
    assert report.unexpected == ("head.weight",)
    assert report.mismatched == ("conv.bias [5] for [8]",)
    assert str(report) == (
        "2 tensors matched, 4 missing (norm.bias, norm.num_batches_tracked, norm.running_mean, ...), "
        "1 unexpected (head.weight), 1 mismatched (conv.bias [5] for [8])"
    )
    assert torch.equal(module.conv.weight, given["conv.weight"]) and torch.equal(module.conv.bias, before["conv.bias"])


@pytest.mark.parametrize("labels", [("b", "a"), ("a", "c")])
def test_a_classifier_of_other_labels_gives_its_tower_only(labels: tuple[str, str]) -> None:
    torch.manual_seed(0)
    given = Classify(TinyImages(), ("a", "b")).state_dict()
    start = as_checkpoint({"model": given, "config": {"labels": ["a", "b"]}})
    same, other = Classify(TinyImages(), ("a", "b")), Classify(TinyImages(), labels)
    own = other.classifier.weight.detach().clone()
    for model in (same, other):
        restoring.init_from(model, start, "x.pt")
        assert torch.equal(model.image_encoder.conv.weight, given["image_encoder.conv.weight"])
    assert torch.equal(same.classifier.weight, given["classifier.weight"])
    assert torch.equal(other.classifier.weight, own) and not torch.equal(own, given["classifier.weight"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_stripped(prefix: str) -> None:
    module = TinyImages()
    weights = {prefix + name: value + 1 for name, value in module.state_dict().items()}
    expected = {name: value + 1 for name, value in module.state_dict().items()}
    report = load_matching_weights(module, weights)
    assert (report.matched, report.missing, report.unexpected) == (2, (), ())
    assert str(report) == "2 tensors matched"
    assert equal_everywhere(dict(module.state_dict()), expected)


def test_a_second_name_survives_the_replacement_of_the_first(written: Path) -> None:
    best = written.parent / "best.pt"
    file.link_or_copy(written, best)
    before = best.read_bytes()
    file.save(made(8), written)
    assert best.read_bytes() == before
    assert file.load(written).step == 8
    file.link_or_copy(written, best)
    assert file.load(best).step == 8
    assert sorted(path.name for path in written.parent.iterdir()) == ["best.pt", "last.pt"]


def test_where_links_do_not_work_the_file_is_copied(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuses)
    file.link_or_copy(written, written.parent / "best.pt")
    assert (written.parent / "best.pt").read_bytes() == written.read_bytes()


@pytest.mark.parametrize("lacking", ["config", "model", "progress", "best", "optimizer"])
def test_a_file_that_lacks_a_part_is_refused_naming_it(written: Path, lacking: str) -> None:
    plain = {key: value for key, value in plain_checkpoint(written).items() if key != lacking}
    write_plain(plain, written)
    with pytest.raises(CheckpointError, match=f"last.pt: lacks '{lacking}': not a whole checkpoint"):
        file.load(written)


@pytest.mark.parametrize("progress", [None, 3, {"step": 1, "steps": 2}])
def test_a_file_with_other_values_than_a_training_writes_is_refused(written: Path, progress: Any) -> None:
    write_plain({**plain_checkpoint(written), "progress": progress}, written)
    with pytest.raises(CheckpointError, match="holds other values than a training writes"):
        file.load(written)


def test_a_file_of_schema_1_is_read_in_todays_words(written: Path) -> None:
    plain = plain_checkpoint(written)
    plain["config"]["settings"] = {"schedule": {"_target_": "cxrcl.optim.Cosine"}}
    plain["config"]["transform"] = {"_target_": "cxrcl.data.transforms.RadiographTransform", "fit": "pad"}
    write_plain({**plain, "schema": 1, "exposure": {"sources": {"a": 2}, "films": torch.tensor([3, 4])}}, written)
    loaded = file.load(written)
    assert loaded.recipe.settings == {"schedule": {"_target_": "cxrcl.training.optim.Cosine"}}
    assert loaded.recipe.transform["_target_"] == "cxrcl.data.images.transforms.RadiographTransform"
    assert loaded.exposure is not None and loaded.exposure.training_images.tolist() == [3, 4]


def test_a_file_without_weights_is_refused(written: Path) -> None:
    write_plain({**plain_checkpoint(written), "model": None}, written)
    with pytest.raises(CheckpointError, match="model: expected tensors by name, found NoneType"):
        file.load(written)
