"""Every objective with every kind of image encoder, through the shipped configs and the trainer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from checkpoints import as_checkpoint, plain_checkpoint
from helpers import TinyImages, write_manifest
from safetensors.torch import save_file

from cxrcl.app import restore as restoring
from cxrcl.app.train import train
from cxrcl.commands.entry import config_folder
from cxrcl.commands.hydra import compose
from cxrcl.errors import ConfigError

OBJECTIVES = sorted(file.stem for file in (config_folder() / "objective").glob("*.yaml"))
VIT = ("size=32", "width=24", "depth=1", "heads=2")
SWIN = "{embed_dim: 16, depths: [1, 1, 1, 1], num_heads: [2, 2, 2, 2], window_size: 4}"
ENCODERS = {
    "resnet18": ("image_encoder=resnet18", "image_encoder.size=32"),
    "vit_convstem": ("image_encoder=vit_convstem_small", *(f"image_encoder.{setting}" for setting in VIT)),
    "top_k": (
        "image_encoder=vit_convstem_topk",
        *(f"image_encoder.encoder.{setting}" for setting in VIT),
        "image_encoder.num_patches=4",
    ),
    "swin": ("image_encoder=swin_tiny", "image_encoder.size=64", f"image_encoder.options={SWIN}"),
    "open_clip": ("image_encoder=open_clip",),
}


class NoRegions(TinyImages):
    """Pooled features only."""

    def __init__(self) -> None:
        super().__init__()
        self.local_dim = 0


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of open_clip's own, as it is published."""
    folder = tmp_path_factory.mktemp("open clip")
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1}
    text = {"context_length": 20, "width": 32, "heads": 2, "layers": 1}
    config: dict[str, Any] = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    content = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


RUN = (
    *("text_encoder.width=16", "text_encoder.depth=1", "text_encoder.heads=2", "text_encoder.max_length=48"),
    *("device=cpu", "data.num_workers=0", "evals=[]", "trainer.precision=fp32"),
    *("trainer.batch_size=8", "trainer.max_steps=3", "trainer.warmup_steps=0"),
)


def values_of(films: Path, folder: Path, objective: str, *encoder: str) -> dict[str, Any]:
    queue = ["objective.queue_size=16"] if objective.startswith("moco") else []
    values = compose("train", [*RUN, f"objective={objective}", *queue, *encoder])
    values["data"]["root"], values["run_dir"] = str(films), str(folder)
    return values


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_objective_trains_with_every_encoder(
    films: Path, clip_folder: Path, tmp_path: Path, encoder: str, objective: str
) -> None:
    values = values_of(films, tmp_path / "run", objective, *ENCODERS[encoder])
    if encoder == "open_clip":
        values["image_encoder"]["name"] = str(clip_folder)
    done = train(values)
    assert done.finished and done.steps == 3
    reports = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(report["train/loss"]) for report in reports if "train/loss" in report)
    # The checkpoint rebuilds the towers without the folder.
    restored = restoring.restore_model(as_checkpoint(plain_checkpoint(done.checkpoint)))
    assert sum(p.numel() for p in restored.parameters())


def test_words_without_regions_are_one_clear_line(films: Path, tmp_path: Path) -> None:
    values = values_of(films, tmp_path / "run", "gloria", *ENCODERS["resnet18"])
    values["image_encoder"] = {"_target_": f"{__name__}.NoRegions"}
    with pytest.raises(ConfigError, match=r"NoRegions gives no local features .* which GLoRIA matches with words"):
        train(values, packages=("cxrcl", __name__))


def test_everything_that_both_folders_lack_is_named_before_anything_is_built(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, text = tmp_path / "image", tmp_path / "text"
    for folder in (image, text):
        folder.mkdir()
    (text / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    chosen = ("image_encoder=huggingface", "text_encoder=huggingface")
    values = compose("train", [*(s for s in RUN if not s.startswith("text_encoder")), *chosen])
    values["image_encoder"]["name"], values["text_encoder"]["name"] = str(image), str(text)
    values["data"]["root"], values["run_dir"] = str(tmp_path / "no data yet"), str(tmp_path / "run")
    with pytest.raises(ConfigError) as caught:
        train(values)
    said = str(caught.value)
    for what in ("image_encoder: name=", "text_encoder: name=", "config.json", "git-lfs pointer", "tokenizer"):
        assert what in said
    assert "\n" not in said
