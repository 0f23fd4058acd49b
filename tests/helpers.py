"""Small data, models and settings that several tests share."""

from __future__ import annotations

import copy
import functools
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl import distributed
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.distributed import Runtime
from cxrcl.evaluation.evaluator import Evaluator, EvaluatorResult, Evaluators
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Linear
from cxrcl.objectives.base import Objective
from cxrcl.types import Batch, Features, ImageSpec, Text, Tokens

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (*OWN_PACKAGES, "helpers")
ALONE = Runtime(0, 1, torch.device("cpu"))


# ------------------------------------------------------------------------------------------------- towers


class TinyImages(ImageEncoder):
    """One convolution; `norm` adds BatchNorm, `dropout` acts on the pooled features."""

    def __init__(self, size: int = 16, width: int = 8, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.arguments = {"size": size, "width": width, "norm": norm, "dropout": dropout}
        self.spec = ImageSpec(size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.dim = self.local_dim = width
        self.conv = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Features:
        local = torch.relu(self.norm(self.conv(images))).flatten(2).transpose(1, 2)
        return Features(self.drop(local.mean(dim=1)), local)

    def node(self) -> dict[str, Any]:
        return {"_target_": "helpers.TinyImages", **self.arguments}


class CharTokenizer:
    """One piece for each character, framed by 1 and 2 and padded by 0; spaces belong to no word."""

    def __call__(self, texts: Sequence[str]) -> Tokens:
        rows = [[1, *(3 + ord(c) % 60 for c in text), 2] for text in texts]
        longest = max(map(len, rows), default=0)
        tokens = Tokens([], [], [])
        for text, row in zip(texts, rows, strict=True):
            missing = longest - len(row)
            words = [-1 if c == " " else text[:k].count(" ") for k, c in enumerate(text)]
            tokens.ids.append(row + [0] * missing)
            tokens.mask.append([1] * len(row) + [0] * missing)
            tokens.words.append([-1, *words, *[-1] * (missing + 1)])
        return tokens


class TinyTexts(TextEncoder):
    """Mean of embeddings of pieces and places."""

    def __init__(self, width: int = 8, pieces: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.arguments = {"width": width, "pieces": pieces, "dropout": dropout}
        self.tokenizer = CharTokenizer()
        self.dim = self.local_dim = width
        self.pieces = nn.Embedding(pieces, width)
        self.places = nn.Embedding(512, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        local = self.drop(torch.tanh(self.pieces(ids) + self.places.weight[: ids.shape[1]]))
        weights = mask[..., None].to(local.dtype)
        return Features((local * weights).sum(1) / weights.sum(1), local)

    def node(self) -> dict[str, Any]:
        return {"_target_": "helpers.TinyTexts", **self.arguments}


# ----------------------------------------------------------------------------------------------- batches


def text_of(ids: Sequence[Any], length: int | None = None) -> Text:
    """Lists of pieces [B], or [B] lists of T of them -> Text [B, T, L].

    The first and last piece are no part of a word, two neighbours between them are one.
    """
    texts = [row if isinstance(row[0], Sequence) else [row] for row in ids]
    longest = length or max(len(row) for several in texts for row in several)

    def padded(fill: int, values: Callable[[Sequence[int]], Sequence[int]]) -> Tensor:
        return torch.tensor([[[*values(row), *[fill] * (longest - len(row))] for row in several] for several in texts])

    def words(row: Sequence[int]) -> list[int]:
        return [-1, *(k // 2 for k in range(len(row) - 2)), -1]

    return Text(padded(0, list), padded(0, lambda row: [1] * len(row)), padded(-1, words))


def batch_of(images: Tensor | None, ids: Sequence[Any] | None = None, labels: Tensor | None = None) -> Batch:
    """Device-ready batch; images [B, 3, S, S] or [B, V, 3, S, S], pieces [B] or [B] lists of T."""
    count = len(images) if images is not None else len(ids or ())
    return Batch(
        images=images[:, None] if images is not None and images.ndim == 4 else images,
        augment=None,
        text=None if ids is None else text_of(ids),
        labels=torch.full((count, 1), torch.nan) if labels is None else labels,
        index=torch.arange(count),
    )


# -------------------------------------------------------------------------------------- contrastive objectives


def two_towers(objective: type[Objective], dtype: torch.dtype = torch.float32, **arguments: Any) -> Any:
    """The objective with the towers of this module and linear heads, the same weights at each call."""
    torch.manual_seed(0)
    image = {"image_encoder": TinyImages(), "image_head": partial(Linear, out_dim=6)}
    text = {"text_encoder": TinyTexts(width=12), "text_head": partial(Linear, out_dim=6)}
    return objective(**{**image, **(text if objective.num_texts else {}), **arguments}).to(dtype)


def unit_rows(seed: int, *shape: int) -> Tensor:
    """Random unit vectors, float64, with gradient."""
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(rows, dim=-1).requires_grad_()


def info_nce_by_loop(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    left_out: Callable[[int, int], bool] = lambda i, j: False,
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The formula, one term at a time: cross-entropy of i over the j that are kept, where i itself always is."""

    def direction(queries: Tensor, keys: Tensor, left_out: Callable[[int, int], bool]) -> Tensor:
        total = torch.zeros((), dtype=a.dtype)
        for i in range(len(queries)):
            kept = [j for j in range(len(keys)) if j == i or not left_out(i, j)]
            terms = {j: torch.exp(scale * (queries[i] * keys[j]).sum()) for j in kept}
            for j in kept:
                target = smoothing / len(kept) + (1 - smoothing if j == i else 0)
                total = total - target * torch.log(terms[j] / sum(terms.values()))
        return total / len(queries)

    return direction(a, b, left_out), direction(b, a, lambda i, j: left_out(j, i))


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Inputs with gradient by name, and the file: `out_*`, `grad_*` and `meta`."""
    with np.load(ROOT / "tests" / "golden" / f"{name}.npz") as file:
        values = dict(file)
    inputs = {key[3:]: torch.tensor(value) for key, value in values.items() if key.startswith("in_")}
    return {key: value.requires_grad_(value.is_floating_point()) for key, value in inputs.items()}, values


def assert_golden(inputs: dict[str, Tensor], values: dict[str, np.ndarray], loss: Tensor, within: float) -> None:
    """`loss` and its gradients with respect to all inputs are those of the file."""
    assert abs(loss.item() - values["out_loss"]) < within
    loss.backward()
    for name, value in inputs.items():
        assert value.grad is not None
        assert np.abs(value.grad.numpy() - values[f"grad_{name}"]).max() < within, name


def assert_same(one: Sequence[Tensor], other: Sequence[Tensor], leaves: Sequence[Tensor], within: float) -> None:
    """Equal values, and equal gradients of a sum whose weights would show an exchange of two values."""
    grads = []
    for values in (one, other):
        total = sum((k + 1) * value for k, value in enumerate(values))
        grads.append(torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True, materialize_grads=True))
    for a, b in zip([*one, *grads[0]], [*other, *grads[1]], strict=True):
        assert torch.isfinite(a).all() and (a - b).abs().max() < within


# ------------------------------------------------------------------------------------------ evaluation data


def metrics_of(evaluator: Any, model: Any, runtime: Any, batch_size: int = 64) -> dict[str, float]:
    """The metrics of one evaluator for a model."""
    return dict(Evaluators({"it": evaluator}, evaluator.data, batch_size)(model, runtime)["it"].metrics)


class FixedData:
    """Evaluation data in memory (implements `cxrcl.types.EvalData`).

    Args:
        splits: name -> (images [N, 3, S, S], labels [N, C], texts, patients).
    """

    def __init__(
        self,
        labels: Sequence[str],
        splits: dict[str, tuple[Tensor, Tensor, list[str], list[str]]],
        tokenizer: Any = None,
    ) -> None:
        self.labels = tuple(labels)
        self.splits = splits
        self.tokenizer = tokenizer or CharTokenizer()

    def size(self, split: str) -> int:
        return len(self.splits[split][0]) if split in self.splits else 0

    def batches(
        self, split: str, positions: Sequence[int], batch_size: int, texts: int = 0, views: int = 1
    ) -> Iterable[Batch]:
        """Further views of a film are darker and darker, further texts are the text again with a dot."""
        images, labels, strings, _ = self.splits[split]
        for start in range(0, len(positions), batch_size):
            rows = list(positions[start : start + batch_size])
            text = None
            if texts:
                tokens = self.tokenizer([strings[k] + "." * n for k in rows for n in range(texts)])
                text = Text(*(torch.tensor(part).unflatten(0, (-1, texts)) for part in tokens))
            films = torch.stack([images[rows] / (k + 1) for k in range(views)], dim=1)
            yield Batch(films, None, text, labels[rows], torch.tensor(rows))

    def truth(self, split: str) -> Tensor:
        return self.splits[split][1]

    def column(self, split: str, name: str) -> list[str]:
        return self.splits[split][3]

    def texts(self, split: str) -> list[str]:
        return self.splits[split][2]


class StopsRun(Evaluator):
    """Asks its own process to end, at the evaluation whose number is in `at`."""

    selects = "count"
    at: int | None = None

    def __init__(self) -> None:
        self.count = 0

    def run(self, shared: SharedPass) -> EvaluatorResult:
        self.count += 1
        if self.count == StopsRun.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return EvaluatorResult({"count": float(self.count)})


# --------------------------------------------------------------------------------------------- processes

# Workers are forked from a process that has imported what takes long: torch alone is two seconds for each of them.
SLOW_IMPORTS = ["pandas", "torch", "torch._dynamo", "timm", "cxrcl.data.dataset", "cxrcl.evaluation.zero_shot"]


def _as_torchrun(rank: int, world: int, port: int, work: Callable[[Runtime, Path], Any], folder: Path) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
    with distributed.start("cpu", timeout_minutes=1) as runtime:
        torch.set_num_threads(1)
        torch.save(work(runtime, folder), folder / f"{rank}.pt")


def in_processes(world: int, work: Callable[[Runtime, Path], Any], folder: Path) -> list[Any]:
    """What `work(runtime, folder)`, a function of a module, returns in each of `world` processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.set_forkserver_preload(SLOW_IMPORTS)
    mp.start_processes(_as_torchrun, args=(world, port, work, folder), nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


# ------------------------------------------------------------------------------------------------- files


def write_manifest(root: Path, studies: int = 40, size: int = 24, seed: int = 0, test_from: float = 0.85) -> Path:
    """A folder of random films whose brightness follows `Cardiomegaly`, with reports; every third study has two."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    rows = []
    for study in range(studies):
        share = study / studies
        split = "train" if share < 0.7 else "valid" if share < test_from else "test"
        heart, edema = bool(study % 2), bool(study // 2 % 2)
        findings = f"The heart is {'enlarged' if heart else 'normal in size'}. "
        findings += f"Lungs show {'edema' if edema else 'no edema'} today. There are {study % 5 + 2} old clips here."
        for view in ("PA", "LATERAL")[: 2 if study % 3 == 0 else 1]:
            film = rng.integers(0, 120, size=(size, size)) + 100 * heart
            name = f"images/{study:03d}_{view}.png"
            Image.fromarray(film.astype(np.uint8)).save(root / name)
            rows.append(
                {
                    "image": name,
                    "patient": f"p{study:03d}",
                    "study": f"s{study:03d}",
                    "view": view,
                    "split": split,
                    "findings": findings,
                    "No Finding": int(not heart and not edema),
                    "Cardiomegaly": int(heart),
                    "Edema": "" if study % 7 == 3 else int(edema),
                }
            )
    pd.DataFrame(rows).to_csv(root / "manifest.csv", index=False)
    return root


# ---------------------------------------------------------------------------------------------- settings

SMALL = (
    "image_encoder.name=test_resnet",
    "image_encoder.size=32",
    "text_encoder.width=16",
    "text_encoder.depth=1",
    "text_encoder.heads=2",
    "text_encoder.max_length=48",
    "objective.image_head.out_dim=8",
    "objective.text_head.out_dim=8",
    "data.num_workers=0",
    "device=cpu",
    "trainer.precision=fp32",
    "trainer.batch_size=8",
    "trainer.max_epochs=null",
    "trainer.max_steps=4",
    "trainer.warmup_epochs=null",
    "trainer.evaluate_every_epochs=null",
    "trainer.log_every=1",
    "optimizer.lr=3e-3",
)


@functools.lru_cache(maxsize=64)
def _composed(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    from cxrcl.commands.hydra import compose

    return compose(name, list(overrides))


def settings(data: Path, run_dir: Path, *overrides: str, name: str = "train") -> dict[str, Any]:
    """The shipped config with small models, on the manifest in `data`."""
    sections = ("data", "device", "trainer", "optimizer")  # a probe takes its towers from a checkpoint
    small = SMALL if name == "train" else tuple(s for s in SMALL if s.split("=")[0].split(".")[0] in sections)
    values = copy.deepcopy(_composed(name, (*small, *overrides)))
    values["data"]["root"] = str(data)
    values["run_dir"] = str(run_dir)
    return values


def tiny_towers(values: dict[str, Any], **image: Any) -> dict[str, Any]:
    """The same settings with the towers of this module."""
    values["image_encoder"] = {"_target_": "helpers.TinyImages", **image}
    if values.get("text_encoder") is not None:
        values["text_encoder"] = {"_target_": "helpers.TinyTexts"}
    return values


def equal_everywhere(a: Any, b: Any) -> bool:
    """Bit-for-bit equality of nested containers of tensors."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal_everywhere(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal_everywhere(x, y) for x, y in zip(a, b))
    return bool(a == b)


def near(one: np.ndarray, other: np.ndarray, within: float = 1e-6) -> bool:
    """Arrays of one shape and type whose entries differ by less than `within`."""
    return one.shape == other.shape and one.dtype == other.dtype and bool(np.abs(one - other).max() < within)


def said_once(log: pytest.LogCaptureFixture, *facts: object) -> str:
    """The only line of the log in which all of these stand, however it is worded."""
    (line,) = [line for line in log.messages if all(str(fact) in line for fact in facts)]
    return line
