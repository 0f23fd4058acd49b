"""Exported folders that cannot be used: one line each, and nothing of theirs runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import as_checkpoint, plain_checkpoint
from export_cases import other_tensors, resigned
from safetensors.torch import load_file, save_file

import cxrcl
from cxrcl.app import restore as restoring
from cxrcl.checkpoint import exported
from cxrcl.checkpoint import find as checkpoint_files
from cxrcl.errors import CheckpointError, ConfigError
from cxrcl.export.exporting import Options, export

READ = (exported.WEIGHTS, exported.RECORD, exported.PREPROCESS, exported.TOKENIZER)


@pytest.fixture(scope="module")
def whole(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "clip"
    export(trained, out, Options())
    return out


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "clip"))


def refused(folder: Path, said: str) -> None:
    """Wherever it is read."""
    with pytest.raises(CheckpointError, match=said) as caught:
        plain_checkpoint(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=said):
        cxrcl.load(folder, device="cpu")


@pytest.mark.parametrize("name", [*READ, exported.CONFIG])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"no {name}")


@pytest.mark.parametrize("name", READ)
def test_a_flipped_bit(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, rf"{name}: damaged, or changed since the export \(wrong checksum\)")


@pytest.mark.parametrize("name", [exported.WEIGHTS, exported.RECORD])
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file(folder: Path, name: str, keep: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(keep * len(content))])
    refused(folder, f"{name} is (truncated|empty)")


@pytest.mark.parametrize("name", [exported.WEIGHTS, exported.CONFIG, exported.PREPROCESS])
def test_what_git_lfs_or_a_browser_left_there(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")
    refused(folder, f"{name} is a git-lfs pointer: run `git lfs pull`")
    (folder / name).write_text("<!DOCTYPE html><html>404</html>")
    refused(folder, f"{name} is a web page: download it again")


def test_an_edited_config(folder: Path) -> None:
    """Labels in another order would name every probability wrongly, without a word."""
    content = json.loads((folder / exported.CONFIG).read_text())
    content["labels"].reverse()
    (folder / exported.CONFIG).write_text(json.dumps(content))
    refused(folder, r"config\.json: changed since the export")


def test_a_config_in_another_layout_is_the_same(whole: Path, folder: Path) -> None:
    content = json.loads((folder / exported.CONFIG).read_text())
    (folder / exported.CONFIG).write_text(json.dumps(dict(reversed(content.items()))))
    assert plain_checkpoint(folder)["config"] == plain_checkpoint(whole)["config"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": exported.SCHEMA + 1}, "exported with schema 4, this cxrcl reads up to 3: update"),
        ({"schema": "1"}, "names no schema or no checksums"),
        ({"format": "another"}, "not that of an exported model"),
        ({"sha256": None}, "names no schema or no checksums"),
        ({"step": -1}, "step: input should be greater than or equal to 0"),
        ({"labels": None}, "labels: input should be a valid list"),
        ({"weights": "the best ones"}, "weights: input should be 'moving average' or 'as trained'"),
        ({"precision": "fp4"}, "precision: input should be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ({"data": {}}, "data.sources: field required"),
        ({"data": {"sources": {}, "read_px": -1}}, "data.read_px: input should be greater than or equal to 16"),
        ({"extra": 1}, "extra: extra inputs are not permitted"),
        ({"exposure": {"sources": {}, "films": []}}, "exposure.films: extra inputs"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_that_cannot_be_used(folder: Path, change: dict[str, Any], said: str) -> None:
    def edit(content: dict[str, Any]) -> None:
        content |= change

    if change.get("sha256", ()) is None:
        (folder / exported.CONFIG).write_text(
            json.dumps(json.loads((folder / exported.CONFIG).read_text()) | {"sha256": None})
        )
    else:
        resigned(folder, edit)
    refused(folder, said)


def test_a_config_that_lacks_a_part(folder: Path) -> None:
    resigned(folder, lambda content: content.pop("prompt_sentences"))
    refused(folder, "prompt_sentences: field required")


def test_more_or_fewer_tensors_than_the_architecture_has(folder: Path) -> None:
    for change, said in (
        (lambda tensors: tensors.pop("log_scale"), r"1 missing \(log_scale\)"),
        (lambda tensors: tensors.update(log_scale=torch.ones(()), other=torch.ones(2)), r"1 unexpected \(other\)"),
        (lambda tensors: (tensors.pop("other"), tensors.update(log_scale=torch.ones(3))), r"log_scale \[3\] for \[\]"),
    ):
        other_tensors(folder, change)
        with pytest.raises(CheckpointError, match=f"do not fit the stored architecture: .*{said}"):
            cxrcl.load(folder, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    """Every probability would be nan."""
    other_tensors(folder, lambda tensors: tensors["log_scale"].fill_(value))
    refused(folder, r"model\.safetensors: log_scale holds nan or infinity")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model.pop("objective"), r"its model cannot be made \(KeyError: 'objective'\)"),
        (lambda model: model["image_encoder"].update(size=10**6), r"less than or equal to 10000"),
        (lambda model: model["image_encoder"].update(std=[0.2, 0, 0.2]), r"std above 0"),
        (lambda model: model["objective"]["image_head"].update(out_dim=10**30), r"cannot be made \(TypeError: empty"),
        (lambda model: model["text_encoder"].update(pad_id=10**9), r"pad_id=1000000000: the model has \d+ tokens"),
        (lambda model: model["text_encoder"]["config"].update(num_attention_heads=0), r"\(ZeroDivisionError: "),
    ],
)
def test_an_architecture_that_cannot_be(folder: Path, change: Any, said: str) -> None:
    resigned(folder, lambda content: change(content["model"]))
    with pytest.raises((CheckpointError, ConfigError), match=said) as caught:
        cxrcl.load(folder, device="cpu")
    assert str(caught.value).startswith(f"{folder}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        {"options": {"checkpoint_path": "clip/weights.pth"}},
        {"pretrained": True},
        {"weights": "/tmp/weights.pth"},
        {"name": "hf-hub:nowhere/model"},
        {"_target_": "cxrcl.models.huggingface.HuggingFaceVision", "name": "nowhere/model"},
        {"config": {"vision_cfg": {"timm_model_name": "local-dir:/tmp"}}},
    ],
)
def test_a_tower_that_would_open_another_file_or_ask_a_hub(folder: Path, setting: dict[str, Any]) -> None:
    resigned(folder, lambda content: content["model"]["image_encoder"].update(setting))
    refused(folder, "image_encoder: .*: weights of another place")


@pytest.mark.parametrize("name", [exported.TRAINING_IMAGES, exported.DIRECTIONS])
def test_a_record_that_is_none(folder: Path, name: str) -> None:
    record = load_file(folder / exported.RECORD)
    save_file({**record, name: torch.rand(1, 1)}, folder / exported.RECORD)
    resigned(folder, lambda content: None)
    refused(folder, r"training\.safetensors: not the record of a training")


@pytest.mark.parametrize("name", [exported.CONFIG, exported.PREPROCESS])
@pytest.mark.parametrize("content", [f'{{"a": {"[" * 100_000}', f'{{"a": 1{"0" * 5000}}}'], ids=["deep", "long"])
def test_json_that_no_reader_takes(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    if name != exported.CONFIG:
        resigned(folder, lambda content: None)
    refused(folder, rf"{name} is no valid JSON")


def test_a_tokenizer_that_is_none(folder: Path) -> None:
    for content, said in ((b"\xff\xfe", r"tokenizer\.json: cannot be read"), (b"{}", r"Model missing")):
        (folder / exported.TOKENIZER).write_bytes(content)
        resigned(folder, lambda content: None)
        with pytest.raises(CheckpointError, match=said):
            cxrcl.load(folder, device="cpu")


@pytest.mark.parametrize("node", ["objective", "image_encoder", "text_encoder", "transform"])
def test_a_class_from_elsewhere_is_not_even_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: str
) -> None:
    evil = f"evil_{node}"
    (tmp_path / f"{evil}.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')\nclass Model: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    if node == "transform":
        content = json.loads((folder / exported.PREPROCESS).read_text())
        content["transform"]["_target_"] = f"{evil}.Model"
        (folder / exported.PREPROCESS).write_text(json.dumps(content))
        resigned(folder, lambda content: None)
    else:
        resigned(folder, lambda content: content["model"][node].update(_target_=f"{evil}.Model"))
    with pytest.raises(ConfigError, match=rf"{node}._target_={evil}.Model: only cxrcl may be named here"):
        cxrcl.load(folder, device="cpu")
    # Nothing in a file allows it; a person can.
    resigned(folder, lambda content: content["data"].update(allow_packages=[evil]))
    with pytest.raises(ConfigError, match="only cxrcl may be named here"):
        cxrcl.load(folder, device="cpu")
    assert not (tmp_path / "was run").exists()
    with pytest.raises(ConfigError, match=r"not an? "):
        cxrcl.load(folder, device="cpu", allow_packages=[evil])
    assert (tmp_path / "was run").exists()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b'{"x":{"dtype":"NO","shape":[1],"data_offsets":[0,4]}}', r"cannot be read \("),
        (b'{"x":' + b"[" * 100_000, r"is damaged \(its header cannot be read"),
    ],
    ids=["no type", "deep"],
)
def test_weights_that_are_no_tensors(folder: Path, header: bytes, said: str) -> None:
    (folder / exported.WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    resigned(folder, lambda content: None)
    refused(folder, rf"model\.safetensors:? {said}")


def test_pickles_beside_it_are_not_opened(whole: Path, folder: Path) -> None:
    for name in ("pytorch_model.bin", "model.pt", "last.pt"):
        (folder / name).write_bytes(b"\x80\x04")
    models = [restoring.restore_model(as_checkpoint(plain_checkpoint(path))).state_dict() for path in (whole, folder)]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_folders_that_are_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="or an exported model, found a folder"):
        plain_checkpoint(tmp_path)
    refused(folder / "text_encoder", r"config\.json: not that of an exported model")
    with pytest.raises(ConfigError, match=r"no checkpoints/best\.pt or last\.pt below this folder"):
        checkpoint_files.find_checkpoints(str(folder / "tokenizer"))
    # A damaged one is named, not passed over.
    (folder / exported.CONFIG).unlink()
    assert checkpoint_files.find_checkpoints(str(folder)) == [folder]
