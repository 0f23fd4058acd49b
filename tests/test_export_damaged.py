"""Exported folders that cannot be used: one line each, and nothing of theirs runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from export_cases import other_tensors, resigned

import cxrcl
from cxrcl import checkpoint, checkpoint_files, exported, restoring
from cxrcl.errors import CheckpointError, ConfigError
from cxrcl.exporting import Options, export

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
        checkpoint.load(folder)
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
    assert checkpoint.load(folder)["config"] == checkpoint.load(whole)["config"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": exported.SCHEMA + 1}, "exported with schema 2, this cxrcl reads up to 1: update"),
        ({"schema": "1"}, "names no schema or no checksums"),
        ({"format": "another"}, "not that of an exported model"),
        ({"sha256": None}, "names no schema or no checksums"),
        ({"step": -1}, "step: input should be greater than or equal to 0"),
        ({"labels": None}, "labels: input should be a valid list"),
        ({"weights": "the best ones"}, "weights: input should be 'moving average' or 'as trained'"),
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


def test_weights_that_are_no_tensors(folder: Path) -> None:
    header = b'{"x":{"dtype":"NO","shape":[1],"data_offsets":[0,4]}}'
    (folder / exported.WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    resigned(folder, lambda content: None)
    refused(folder, r"model\.safetensors: cannot be read \(")


def test_pickles_beside_it_are_not_opened(whole: Path, folder: Path) -> None:
    for name in ("pytorch_model.bin", "model.pt", "last.pt"):
        (folder / name).write_bytes(b"\x80\x04")
    models = [restoring.restore_model(checkpoint.load(path)).state_dict() for path in (whole, folder)]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_folders_that_are_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="or an exported model, found a folder"):
        checkpoint.load(tmp_path)
    refused(folder / "text_encoder", r"config\.json: not that of an exported model")
    with pytest.raises(ConfigError, match=r"no checkpoints/best\.pt or last\.pt below this folder"):
        checkpoint_files.find_checkpoints(str(folder / "tokenizer"))
    # A damaged one is named, not passed over.
    (folder / exported.CONFIG).unlink()
    assert checkpoint_files.find_checkpoints(str(folder)) == [folder]
