"""Everything that is wrong with a folder, at once, in one line, before a model is made."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import builders
import huggingface_hub
import pytest
import torch
from helpers import ROOT
from safetensors.torch import save_file
from torch import nn

from cxrcl.models import folders
from cxrcl.models.weights import LoadReport, is_known_head, load_weights, read

OPEN_CLIP = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"hf_model_name": "x", "hf_tokenizer_name": "x"}}
COLOURS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    """A Hugging Face folder in which nothing is wrong."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    save_file({"a": torch.zeros(40)}, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """An open_clip folder in which nothing is wrong."""
    content = {"model_cfg": OPEN_CLIP, "preprocess_cfg": COLOURS}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    torch.save({"a": torch.zeros(40)}, tmp_path / "open_clip_pytorch_model.bin")
    return tmp_path


def test_good_folders_are_good(hf: Path, clip: Path) -> None:
    for kind in ("hf text", "hf image", "open_clip image", "open_clip text"):
        assert folders.describe(hf, kind) == []
    assert folders.locate(str(hf), "hf text") == folders.locate(f"local-dir:{hf}", "hf text") == hf


def test_an_empty_folder_lacks_everything(tmp_path: Path) -> None:
    weights = "no weights (model.safetensors or pytorch_model.bin)"
    tokenizer = "no tokenizer (tokenizer.json or vocab.txt)"
    assert folders.describe(tmp_path, "hf text") == ["no config.json", weights, tokenizer]
    assert folders.describe(tmp_path, "hf image") == ["no config.json", weights]
    assert folders.describe(tmp_path, "open_clip text")[0] == "no open_clip_config.json"
    with pytest.raises(ValueError) as caught:
        folders.locate(str(tmp_path), "hf text")
    assert str(caught.value) == f"name={tmp_path}: no config.json; {weights}; {tokenizer}"


def test_open_clip_configs_that_lack_keys(clip: Path) -> None:
    file = clip / "open_clip_config.json"
    (clip / "tokenizer.json").unlink()
    file.write_text(json.dumps({"model_cfg": {**OPEN_CLIP, "vision_cfg": {}}, "preprocess_cfg": {"mean": [0.5]}}))
    lacks = "open_clip_config.json lacks preprocess_cfg.mean, preprocess_cfg.std (set mean and std)"
    assert folders.describe(clip, "open_clip image") == [lacks]
    assert folders.describe(clip, "open_clip image", normalised=True) == []
    assert folders.describe(clip, "open_clip text") == ["no tokenizer (tokenizer.json or vocab.txt)"]
    file.write_text('{"preprocess_cfg": null, "model_cfg": {"embed_dim": 8, "text_cfg": {}}}')
    assert folders.describe(clip, "open_clip text") == ["open_clip_config.json lacks model_cfg.vision_cfg"]
    for content in ({"embed_dim": 8}, {"model_cfg": [], "x": 1}, {"model_cfg": {"embed_dim": "8", "text_cfg": 3}}):
        file.write_text(json.dumps(content))
        assert "model_cfg.embed_dim, model_cfg.vision_cfg, model_cfg.text_cfg" in str(
            folders.describe(clip, "open_clip text")
        )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", builders.LFS, "model.safetensors is a git-lfs pointer: run `git lfs pull` in the folder"),
        ("model.safetensors", "\n<!DOCTYPE html><html>", "model.safetensors is a web page: download it again"),
        ("model.safetensors", "", "model.safetensors is empty: download it again"),
        ("model.safetensors", "abc", "model.safetensors is truncated or no safetensors file"),
        ("tokenizer.json", builders.LFS, "tokenizer.json is a git-lfs pointer"),
        ("tokenizer.json", "{}", "tokenizer.json defines no model"),
        ("tokenizer_config.json", builders.LFS, "tokenizer_config.json is a git-lfs pointer"),
        ("config.json", "<html>", "config.json is a web page"),
        ("config.json", "{", "config.json is no valid JSON (Expecting"),
        ("config.json", "[]", "config.json holds no mapping"),
        ("config.json", '{"hidden_size": 3}', "config.json names no model_type"),
    ],
)
def test_files_that_are_not_what_their_name_says(hf: Path, name: str, content: str, said: str) -> None:
    (hf / name).write_text(content)
    (found,) = folders.describe(hf, "hf text")
    assert found.startswith(said) and "\n" not in found


def test_several_faults_are_told_together(hf: Path) -> None:
    (hf / "config.json").unlink()
    (hf / "model.safetensors").write_text(builders.LFS)
    (hf / "tokenizer.json").unlink()
    (hf / "vocab.json").write_text("{}")
    found = folders.describe(hf, "hf text")
    assert [phrase.split()[0] for phrase in found] == ["no", "model.safetensors", "no"]
    assert found[2] == "no merges.txt beside vocab.json"


@pytest.mark.parametrize("kept", [4, 60, 120])
def test_truncated_safetensors(hf: Path, kept: int) -> None:
    file = hf / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    (found,) = folders.describe(hf, "hf text")
    assert "model.safetensors is truncated" in found


def test_a_damaged_header(hf: Path) -> None:
    content = bytearray((hf / "model.safetensors").read_bytes())
    content[8:12] = b"\0\0\0\0"
    (hf / "model.safetensors").write_bytes(bytes(content))
    assert folders.describe(hf, "hf text") == [
        "model.safetensors is damaged (its header cannot be read): download it again"
    ]


def test_pytorch_files(clip: Path) -> None:
    file = clip / "open_clip_pytorch_model.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert folders.describe(clip, "open_clip image") == [f"{file.name} is truncated: download it again"]
    file.write_text("hello")
    assert folders.describe(clip, "open_clip image") == [f"{file.name} is no file of PyTorch weights"]
    torch.save({"a": torch.zeros(2)}, file, _use_new_zipfile_serialization=False)
    assert folders.describe(clip, "open_clip image") == []


def test_weights_in_parts(hf: Path) -> None:
    (hf / "model.safetensors").rename(hf / "model-1.safetensors")
    index = hf / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert folders.describe(hf, "hf text") == ["1 of 2 files of weights are missing, such as model-2.safetensors"]
    (hf / "model-2.safetensors").write_text(builders.LFS)
    assert "model-2.safetensors is a git-lfs pointer" in folders.describe(hf, "hf text")[0]
    index.write_text("{}")
    assert folders.describe(hf, "hf text") == ["model.safetensors.index.json names no files"]
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    said = "model.safetensors.index.json names a file outside of the folder, ../model.safetensors"
    assert folders.describe(hf, "hf text") == [said]


def test_preprocessors_of_another_scale(hf: Path) -> None:
    file = hf / "preprocessor_config.json"
    file.write_text('{"image_mean": [0.5], "image_std": [1, 1, 1]}')
    said = "preprocessor_config.json lacks image_mean of three values (set mean and std)"
    assert folders.describe(hf, "hf image") == [said]
    assert folders.describe(hf, "hf image", normalised=True) == folders.describe(hf, "hf text") == []
    file.write_text('{"do_normalize": false, "rescale_factor": 1.0}')
    assert "does not scale values to [0, 1]" in folders.describe(hf, "hf image")[0]
    file.write_text('{"do_normalize": false, "rescale_factor": null}')
    assert folders.describe(hf, "hf image") == []
    file.write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 0]}')
    assert "divides by image_std=[1, 1, 0]" in folders.describe(hf, "hf image")[0]


def test_a_path_without_a_folder_is_told_with_the_rest(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "./none", "local-dir:none"):
        assert folders.lacking(name, "hf text", {}) == [f"name={name}: no such folder"]
    assert folders.lacking("some-user/model", "hf text", {}) == []  # a hub may have it


def test_a_broken_vocabulary_is_told(hf: Path) -> None:
    (hf / "tokenizer.json").unlink()
    (hf / "vocab.json").write_text("{}")
    (hf / "merges.txt").write_text(builders.LFS)
    assert "merges.txt is a git-lfs pointer" in folders.describe(hf, "hf text")[0]


def test_large_files_are_not_read_and_nothing_heavy_is_imported(hf: Path) -> None:
    file = hf / "model.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    with file.open("wb") as opened:
        opened.write(len(header).to_bytes(8, "little") + header)
        opened.truncate(8 + len(header) + 4 * 10**9)  # a hole: takes no room on the disk
    started = time.monotonic()
    assert folders.describe(hf, "hf text") == []
    assert time.monotonic() - started < 1
    code = (
        "import sys; from pathlib import Path; from cxrcl.models import folders; "
        f"folders.describe(Path({str(hf)!r}), 'hf text'); "
        "print([m for m in ('torch', 'transformers', 'open_clip', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_hub_entry_is_fetched_as_a_folder(hf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(hf)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert folders.locate("someone/bert", "hf text") == hf
    ((name, patterns),) = asked
    assert name == "someone/bert" and {"*.json", "*.txt", "model.safetensors"} <= set(patterns)
    assert not any(pattern.endswith(".bin") for pattern in patterns)
    (hf / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"name=hf-hub:someone/bert: no weights"):
        folders.locate("hf-hub:someone/bert", "hf text")
    assert asked[-1][0] == "someone/bert" and "pytorch_model.bin" in asked[-1][1]


# -------------------------------------------------------------------------------------------------- weights


def test_load_weights_is_strict_but_for_known_heads() -> None:
    given = nn.Linear(2, 3).state_dict() | {"bert.pooler.dense.bias": torch.zeros(2), "a.position_ids": torch.zeros(2)}
    module = nn.Linear(2, 3)
    report = load_weights(module, given, "x")
    assert torch.equal(module.weight, given["weight"])
    assert str(report) == "2 tensors matched, 2 of known heads ignored"
    before = module.weight.clone()
    for change, said in (
        ({"other": torch.zeros(1)}, r"x: the weights do not fit the model: 2 tensors matched, 1 unexpected \(other\)"),
        ({"weight": torch.zeros(2, 2)}, r"1 tensors matched, 1 mismatched \(weight \[2, 2\] for \[3, 2\]\)"),
    ):
        with pytest.raises(ValueError, match=said):
            load_weights(module, {"bias": torch.ones(3), "weight": torch.ones(3, 2), **change}, "x")
    with pytest.raises(ValueError, match=r"1 missing \(weight\)"):
        load_weights(module, {"bias": torch.ones(3)}, "x")
    assert torch.equal(module.weight, before) and not torch.equal(module.bias, torch.ones(3))


def test_a_report_gives_three_examples() -> None:
    report = LoadReport(1, missing=("a", "b", "c", "d"))
    assert str(report) == "1 tensors matched, 4 missing (a, b, c, ...)"


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("cls.predictions.bias", True),
        ("cls_projection_head.dense_to_hidden.weight", True),
        ("roberta.pooler.dense.weight", True),
        ("lm_head.decoder.weight", True),
        ("embeddings.position_ids", True),
        ("encoder.layer.0.output.dense.weight", False),
        ("encoder.layer.12.head.weight", False),
        ("class_token", False),
        ("vision_model.x", False),
    ],
)
def test_known_heads(key: str, known: bool) -> None:
    assert is_known_head(key) == known
    assert is_known_head("vision_model.x", ["vision_model."])


def test_files_with_other_objects_are_refused_without_bad_advice(tmp_path: Path) -> None:
    torch.save({"a": Path()}, tmp_path / "weights.bin")
    with pytest.raises(ValueError, match=r"^weights\.bin: cannot be read as plain tensors \(\w+\)$"):
        read(tmp_path / "weights.bin")
