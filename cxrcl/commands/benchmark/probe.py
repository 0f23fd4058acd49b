"""A linear probe whose images are encoded once, against one that encodes them in every epoch."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from cxrcl.app.train import train
from cxrcl.commands.hydra import compose
from cxrcl.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--studies", type=int, default=200, help="phantom studies of 96 px, of which 70 %% train")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--encoder", default="small_resnet", help="a file of configs/image_encoder")


def run(given: argparse.Namespace) -> None:
    """Whole trainings, evaluations and the pass through the encoder included; AssertionError where logs differ."""
    if given.epochs < 1 or given.studies < 40:
        raise ConfigError(f"--epochs {given.epochs} --studies {given.studies}: expected 1 and 40, or more")
    with tempfile.TemporaryDirectory(prefix="cxrcl-benchmark-") as folder:
        _probe(Path(folder), given, "first", epochs=1, cached=False)  # draws the images, imports what is needed
        seconds = {name: _probe(Path(folder), given, name, given.epochs, name == "once") for name in ("again", "once")}
        again, once = (_losses(Path(folder) / name) for name in ("again", "once"))
    difference = max(abs(a - b) for a, b in zip(again, once, strict=True))
    assert difference < 1e-4, difference
    print(
        f"{given.encoder}, {given.studies} studies, {given.epochs} epochs: {seconds['again']:.1f} s of processor time "
        f"encoding in every epoch, {seconds['once']:.1f} s encoding once, ratio "
        f"{seconds['again'] / seconds['once']:.1f}; losses differ by {difference:.1e} at most"
    )


def _probe(folder: Path, given: argparse.Namespace, name: str, epochs: int, cached: bool) -> float:
    overrides = [
        *("objective.freeze_encoder=true", "transform=plain", f"image_encoder={given.encoder}", "device=cpu"),
        *("data=phantom", f"data.sources.phantom.root={folder}/phantom", "data.num_workers=0", "data.unit=image"),
        *(f"data.sources.phantom.num_studies={given.studies}", f"data.cache_features={str(cached).lower()}"),
        *(f"trainer.max_epochs={epochs}", "trainer.warmup_epochs=0", "trainer.lower_batch_size=true"),
        *("trainer.precision=fp32", "trainer.evaluate_every_epochs=10", f"run_dir={folder}/{name}"),
    ]
    values = compose("finetune", overrides)
    started = time.process_time()
    train(values)
    return time.process_time() - started


def _losses(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]
