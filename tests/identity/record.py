"""Record the numbers of a checkout: `python tests/identity/record.py CHECKOUT OUT.json [--case NAME]`.

Small trainings and evaluations run through the entry files of CHECKOUT in a scratch folder, each in a process of its
own with one thread, forked from one that has imported the libraries. OUT.json then holds, case by case, every leaf of
last.pt, every figure of metrics.jsonl and results.json and every column of the tables: tensors, columns and files as
hashes of their bytes, other values as they print. Two recordings on one machine are equal where no number has changed;
compare.py says where one has.

Nothing of cxrcl is imported here, so any version can be recorded.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # libraries read these when they are imported; PYTHONHASHSEED is left to chance
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    os.environ.pop("CXRCL_DATA", None)

import torch

# What takes seconds to import, again in every command.
LIBRARIES = (
    *("cv2", "hydra", "matplotlib.pyplot", "pandas", "pydantic.main", "sklearn.linear_model", "timm", "tokenizers"),
    *("torch._dynamo", "torch.nn.parallel", "torch.utils.tensorboard", "torchvision", "transformers.models.auto"),
    "transformers.models.bert.modeling_bert",
)
TESTS = Path(__file__).resolve().parents[1]
HALF_RUN = TESTS / "fixtures" / "main_ab3ea6e" / "half_run"

# What depends on the time, the installation and random salts. The scratch folder's name is replaced by SCRATCH besides.
LEFT_OUT = re.compile(
    r"last\.pt/versions\..*|last\.pt/exposure\.trainings.*|last\.pt/progress\.seconds|"
    r"metrics\.jsonl/(time@|.*(seconds|per_second)).*|results\.json/(run\.(?!settings).*|facts\.made by)"
)
LONGEST = 500  # characters of a string that is recorded as it is; a longer one is hashed

EVERYWHERE = "device=cpu data.num_workers=0"
TRAINING = f"""{EVERYWHERE} data.sources.phantom.num_studies=120 data.sources.phantom.size_px=48
    trainer.precision=fp32 trainer.batch_size=8 trainer.max_steps=8 trainer.warmup_steps=2
    trainer.evaluate_every_steps=4 trainer.log_every=1 data.labels=[Atelectasis,Cardiomegaly,Consolidation,Edema]"""
SMALL_IMAGES = "image_encoder.size=32 image_encoder.options.channels=[16,16,32,32]"
GROUP_NORM = """image_encoder=groupnorm image_encoder.size=64 +image_encoder.options.channels=[32,32,64,64]
    +image_encoder.options.stem_width=32"""
TEXTS = """text_encoder.width=16 text_encoder.depth=1 text_encoder.heads=2 text_encoder.max_length=48
    text_encoder.vocabulary_size=300 text_encoder.dropout=0.1"""
EVALUATION = f"{EVERYWHERE} batch_size=16 resamples=20"
OF_CLIP = f"{EVALUATION} checkpoint=clip/checkpoints/last.pt"


@dataclass(frozen=True)
class Case:
    """A command, which writes to a folder of the case's name."""

    script: str  # train, finetune or evaluate
    overrides: str
    needs: str | None = None  # the case whose checkpoint it reads
    processes: int = 1  # several are told of each other as torchrun does it


CASES = {
    "clip": Case("train", f"{TRAINING} {SMALL_IMAGES} {TEXTS} data.reports.sentences=2"),
    "cxr_clip": Case(
        "train",
        f"""{TRAINING} {GROUP_NORM} {TEXTS} objective=cxr_clip transform=cxr_clip schedule=plateau
        trainer.micro_batch_size=3 trainer.ema_decay=0.9""",
    ),
    "moco": Case(
        "train",
        f"""{TRAINING} {SMALL_IMAGES} ~text_encoder objective=moco objective.queue_size=8 transform=moco
        optimizer=sgd schedule=constant evals=[linear_probe] evals.linear_probe.choose_on=null
        evals.linear_probe.penalties=[1.0]""",
    ),
    "gloria": Case(
        "train",
        f"""{TRAINING} {GROUP_NORM} {TEXTS} objective=gloria transform=gloria
        trainer.layer_decay=0.8 trainer.encoder_lr_factor=0.5""",
    ),
    "clip_simclr": Case(
        "train", f"{TRAINING} {SMALL_IMAGES} {TEXTS} objective=clip_simclr transform=simclr data.text=prompts"
    ),
    "clip_bf16": Case("train", f"{TRAINING} {SMALL_IMAGES} {TEXTS} trainer.precision=bf16 evals=[zero_shot,retrieval]"),
    "clip_2_processes": Case("train", f"{TRAINING} {GROUP_NORM} {TEXTS} timeout_minutes=1", processes=2),
    "classify": Case(
        "finetune",
        f"""{TRAINING} init_from=clip/checkpoints/last.pt objective.freeze_encoder=true transform=plain
        data.cache_features=true data.fraction=0.5 trainer.accumulate=2""",
        needs="clip",
    ),
    "evaluate": Case("evaluate", f"{OF_CLIP} evals=[zero_shot,retrieval] groups=[] random_weights=false", needs="clip"),
    "evaluate_beside_random_weights": Case(
        "evaluate",
        f"""{OF_CLIP} evals=[zero_shot,view_only,representation] groups=[sex] random_weights=true
        evals.representation.method=[pca] evals.representation.dump=npy""",
        needs="clip",
    ),
    "evaluate_classify": Case(
        "evaluate",
        f"""{EVALUATION} checkpoint=classify/checkpoints/last.pt evals=[classification] groups=[]
        random_weights=false calibrate=temperature threshold=youden""",
        needs="classify",
    ),
    "resume": Case("train", ""),  # its settings are those of the run that it goes on with
}


def with_needs(name: str) -> list[str]:
    """The case and those that it needs, first things first."""
    needs = CASES[name].needs
    return [*(with_needs(needs) if needs else []), name]


def as_typed(script: Path, overrides: Sequence[str], folder: Path, place: Mapping[str, Any]) -> None:
    """Run a script in `folder`, in this process, told by the variables `place` which one it is; it prints to a log."""
    os.environ |= {name: str(value) for name, value in place.items()}
    os.chdir(folder)
    with Path(f"{place.get('RANK', 0)}.log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = [str(script), *overrides]
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


def places(world: int) -> list[dict[str, Any]]:
    """`as_typed`'s place of each of `world` processes."""
    if world == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": probe.getsockname()[1]}
    sizes = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    return [{**group, **sizes, "RANK": rank, "LOCAL_RANK": rank} for rank in range(world)]


def run(name: str, scratch: Path, checkout: Path, half_run: Path) -> None:
    """Run a case, whose needs have been run, in `scratch`."""
    case, settings = CASES[name], CASES[name].overrides
    if name == "resume":
        sys.path.append(str(TESTS))
        from tiny import write_tiny_set

        write_tiny_set(scratch / "tiny")
        shutil.copytree(half_run, scratch / name)
        settings = (half_run / "overrides.txt").read_text(encoding="utf-8")
    overrides = [*shlex.split(settings), f"{'out' if case.script == 'evaluate' else 'run_dir'}={name}"]
    script = checkout / f"{case.script}.py"
    fork = multiprocessing.get_context("fork").Process
    processes = [fork(target=as_typed, args=(script, overrides, scratch, place)) for place in places(case.processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        printed = [log.read_text(encoding="utf-8", errors="replace") for log in sorted(scratch.glob("*.log"))]
        sys.exit("\n".join([*printed, f"{name}: failed: {shlex.join([str(script), *overrides])}"]))


def leaves_of_case(name: str, scratch: Path) -> dict[str, str]:
    """What a command wrote: `<file>/<dotted path>` -> the leaf there."""
    leaves = list(leaves_of_folder(scratch / name))
    if name == "clip":  # the first case of all draws the images
        (manifest,) = (scratch / "data").rglob("manifest.csv")
        images = sorted(manifest.parent.rglob("*.png"))
        pixels = sha256(b"".join(path.read_bytes() for path in images))
        leaves += [*columns_of(manifest), (f"images/bytes of {len(images)}", pixels)]
    assert len(dict(leaves)) == len(leaves), "a place stands twice"
    return {key: leaf.replace(str(scratch), "SCRATCH") for key, leaf in leaves if not LEFT_OUT.fullmatch(key)}


def leaves_of_folder(folder: Path) -> Iterator[tuple[str, str]]:
    for file in (path for path in sorted(folder.rglob("*")) if path.is_file()):
        if file.name == "last.pt":
            state = torch.load(file, map_location="cpu", weights_only=True)
            yield from ((f"last.pt/{path}", leaf) for path, leaf in leaves_of(state))
        elif file.name == "metrics.jsonl":
            for figures in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
                step = figures.pop("step")
                yield from ((f"metrics.jsonl/{name}@{step}", repr(value)) for name, value in figures.items())
        elif file.name == "results.json":
            content = json.loads(file.read_text(encoding="utf-8"))
            yield from ((f"results.json/{path}", leaf) for path, leaf in leaves_of(content))
        elif file.suffix == ".csv":
            yield from columns_of(file)
        elif file.suffix == ".npy":
            yield f"{file.name}/bytes", sha256(file.read_bytes())


def columns_of(table: Path) -> Iterator[tuple[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in rows[0]:
        cells = "\n".join(row[name] for row in rows)
        yield f"{table.name}/{name}", f"column of {len(rows)} {sha256(cells.encode())}"


def leaves_of(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path -> dtype, shape and hash of a tensor, or another value as it prints."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    if isinstance(value, torch.Tensor):
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield path, f"tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)} {sha256(content)}"
    elif items and len(value):
        for key, item in items:
            yield from leaves_of(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, str) and len(value) > LONGEST:
        yield path, f"text of {len(value)} {sha256(value.encode())}"
    else:
        yield path, repr(value)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0] + ".")
    parser.add_argument("checkout", type=Path, metavar="CHECKOUT", help="a folder with train.py and cxrcl/")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--case", choices=CASES, help="record this one only")
    resumed = "a half-finished run on the data set of tests/tiny.py, with its settings in overrides.txt"
    parser.add_argument("--resume-from", type=Path, default=HALF_RUN, metavar="DIR", help=resumed)
    arguments = parser.parse_args()
    for library in LIBRARIES:
        importlib.import_module(library)
    names = [arguments.case] if arguments.case else list(CASES)
    recording = {}
    with tempfile.TemporaryDirectory(prefix="identity") as folder:
        scratch = Path(folder).resolve()
        for name in dict.fromkeys(case for wanted in names for case in with_needs(wanted)):
            print(name, flush=True)
            run(name, scratch, arguments.checkout.resolve(), arguments.resume_from.resolve())
            if name in names:
                recording[name] = leaves_of_case(name, scratch)
    arguments.out.write_text(json.dumps(recording, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{sum(map(len, recording.values()))} leaves of {len(recording)} cases: {arguments.out}")


if __name__ == "__main__":
    main()
