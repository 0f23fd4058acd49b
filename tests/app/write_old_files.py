"""Write the files of test_old_files.py with another version: `python tests/app/write_old_files.py CHECKOUT WORK OUT`.

Its public commands train in the new folder WORK, whose name stands in the checkpoints. What tests/fixtures/main_ab3ea6e
holds was written by that commit: WORK was /data/cxrcl_fixture. configs/ there was written by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).resolve().parents[1]

SMALL = """data.root=tiny device=cpu data.num_workers=0 trainer.precision=fp32 trainer.batch_size=4 trainer.log_every=1
    trainer.warmup_steps=2 text_encoder.width=8 text_encoder.depth=1 text_encoder.heads=2 text_encoder.max_length=32
    text_encoder.vocabulary_size=120 text_encoder.dropout=0.1 objective.image_head.out_dim=8
    objective.text_head.out_dim=8 prompts.file=zero_shot.json prompts.uncertain=false"""
FINISHED = f"""{SMALL} trainer.max_steps=4 trainer.evaluate_every_steps=2 trainer.ema_decay=0.5
    image_encoder=vit_convstem_small image_encoder.size=32 image_encoder.width=8 image_encoder.depth=1
    image_encoder.heads=2"""
# Without dropout: the seed of a step is another one since that version.
HALF = f"""{SMALL} trainer.max_steps=16 trainer.evaluate_every_steps=8 image_encoder=small_resnet image_encoder.size=32
    image_encoder.options.channels=[4,4,4,4] image_encoder.options.stem_width=4 text_encoder.dropout=0"""
STOP_AFTER = 8
# What the numbers of a training depend on beside cxrcl.
PACKAGES = ("numpy", "opencv-python-headless", "pandas", "pillow", "timm", "torch", "transformers")


def sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def fingerprints(weights: dict[str, torch.Tensor]) -> dict[str, list[Any]]:
    """Name -> hash of the bytes, and norm, of a tensor."""
    return {name: [sha256(value), value.double().norm().item()] for name, value in weights.items()}


def arithmetic() -> dict[str, str]:
    """What two machines must share for bit-equal trainings: versions, and a training step of libraries alone."""
    from timm import create_model
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    images = create_model("resnet10t", channels=[4, 4, 4, 4], stem_width=4, num_classes=8)
    texts = BertModel(BertConfig(vocab_size=120, attn_implementation="eager", **sizes), add_pooling_layer=False)
    parameters = [*images.parameters(), *texts.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, fused=True)
    for _ in range(2):
        pooled = texts(input_ids=torch.randint(120, (4, 30))).last_hidden_state.mean(dim=1)
        (images(torch.randn(4, 3, 32, 32)) @ pooled.T).logsumexp(dim=1).sum().backward()
        optimizer.step()
    step = sha256(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    return {**{name: version(name) for name in PACKAGES}, "step": step}


def stop_at_half(command: list[str], metrics: Path) -> None:
    """Run a training that is asked to end once it has logged its step STOP_AFTER."""
    training = subprocess.Popen(command)
    while not (metrics.exists() and f'"step": {STOP_AFTER},' in metrics.read_text(encoding="utf-8")):
        assert training.poll() is None, "ended before it was stopped"
        time.sleep(0.005)
    training.send_signal(signal.SIGTERM)
    assert training.wait() == 130, "expected the status of an interrupted run"


def state_of(run: str) -> dict[str, Any]:
    return torch.load(Path(run, "checkpoints", "last.pt"), weights_only=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0] + ".")
    for name in ("checkout", "work", "out"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    checkout, work, out = (path.absolute() for path in vars(parser.parse_args()).values())
    os.environ |= {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)  # in this process, which has imported it; the number of threads changes the rounding
    sys.path[:0] = [str(checkout), str(TESTS)]
    from tiny import write_tiny_set

    import cxrcl

    def command(script: str, *arguments: str) -> list[str]:
        return [sys.executable, str(checkout / script), *arguments]

    write_tiny_set(work / "tiny")
    os.chdir(work)
    last = "finished/checkpoints/last.pt"
    half, scored = shlex.split(HALF), ["evals=[zero_shot,retrieval]", "random_weights=false"]
    subprocess.run(command("train.py", *shlex.split(FINISHED), "run_dir=finished"), check=True)
    subprocess.run(command("evaluate.py", f"checkpoint={last}", *scored, "out=scores"), check=True)
    subprocess.run(command("scripts/export.py", last, "--out", str(out / "export")), check=True)
    stop_at_half(command("train.py", *half, "run_dir=half_run"), Path("half_run", "metrics.jsonl"))
    subprocess.run(command("train.py", *half, "run_dir=unbroken"), check=True)
    images = [f"tiny/images/{k}_pa.png" for k in range(16, 20)]
    scores = json.loads(Path("scores", "results.json").read_text(encoding="utf-8"))
    expected = {
        "arithmetic": arithmetic(),
        "manifest": state_of("finished")["config"]["fingerprint"],
        "scores": {name: scores[name] for name in ("zero_shot", "retrieval")},
        "embeddings": dict(zip(images, cxrcl.load(last, device="cpu").embed_images(images).tolist(), strict=True)),
        "half_run": {"step": state_of("half_run")["progress"]["step"]},
        "unbroken_run": fingerprints(state_of("unbroken")["model"]),
    }
    assert STOP_AFTER <= expected["half_run"]["step"] < state_of("unbroken")["progress"]["step"]

    (out / "half_run" / "checkpoints").mkdir(parents=True)
    shutil.copy(last, out)
    for name in ("checkpoints/last.pt", "metrics.jsonl"):
        shutil.copy(Path("half_run", name), out / "half_run" / name)
    (out / "half_run" / "overrides.txt").write_text("\n".join(half) + "\n", encoding="utf-8")
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    folders = [str(folder).encode() for folder in (checkout, out, TESTS, Path.home(), tempfile.gettempdir())]
    written = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in written if any(folder in path.read_bytes() for folder in folders)]


if __name__ == "__main__":
    main()
