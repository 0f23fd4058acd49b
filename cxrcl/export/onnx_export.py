"""What a model does to images and texts as ONNX files, for programs without PyTorch. See docs/onnx.md.

Each file is run by ONNX Runtime and compared with the model before it is put where it belongs.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import string
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from cxrcl.errors import ConfigError, first_line
from cxrcl.objectives.siglip import SigLip
from cxrcl.types import Classifies, EmbedsImages, EmbedsText, EncodesImages, ScalesSimilarity

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4
_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


class Written(NamedTuple):
    """A file that was written.

    `difference` is the largest one between ONNX Runtime and the model on random input, in fp32: absolute for values up
    to 1 (all embeddings), relative to the largest value of the batch where features or logits are larger.
    """

    file: str  # its name in the folder
    inputs: dict[str, str]  # by name, such as images: float32 [batch, 3, 224, 224]
    outputs: dict[str, str]
    difference: float


def write(model: nn.Module, size: int, max_length: int | None, folder: Path) -> list[Written]:
    """Write `image.onnx`, and `text.onnx` for a model that reads texts.

    `image.onnx`: normalised `images` float32 [batch, 3, S, S] -> `embedding` [batch, D] in unit rows, `logits`
    [batch, C] of a classifier, or `features` [batch, dim] of a model that has neither. `text.onnx`: `ids`, `mask` int64
    [batch, length] -> `embedding`. What probabilities need beside these stands in the files' metadata: see `_metadata`.
    A file has its weights inside, up to 1.5 GB; those of a larger model lie beside it in `image.onnx.data`.

    Args:
        model: in evaluation mode, fp32, on the CPU.
        size: S in pixels.
        max_length: the most word pieces of a text; None: no limit.
        folder: where they are put, all or none.

    Raises:
        ConfigError: a package is missing, a part has no ONNX form, or a file does not compute what the model does.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ConfigError(f"--onnx needs {', '.join(missing)}: pip install 'cxrcl[onnx]'")
    parts = [_image_part(model, size)]
    if isinstance(model, EmbedsText):
        parts.append(_text_part(model, max_length))
    with tempfile.TemporaryDirectory(dir=folder) as temporary, torch.no_grad():
        written = [_write(part, Path(temporary)) for part in parts]
        for file in Path(temporary).iterdir():
            file.replace(folder / file.name)
    return written


# ------------------------------------------------------------------------------------------------------ the parts


@dataclass(frozen=True)
class _Part:
    """One file: a module, and the inputs it is exported with and compared on."""

    file: str
    tower: str  # for a person
    module: nn.Module
    axes: Mapping[str, Mapping[int, Any]]  # the axes that may have any length, by name of the input
    output: str
    example: tuple[Tensor, ...]
    checks: Sequence[tuple[Tensor, ...]]
    metadata: Mapping[str, str]


class _Image(nn.Module):
    def __init__(self, model: Any, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.encode_images(images)
        if self.output == "embedding":
            return self.model.embed_images(features)
        return self.model.classify(features) if self.output == "logits" else features.pooled


class _Text(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model.embed_text(ids, mask)


def _image_part(model: nn.Module, size: int) -> _Part:
    outputs = {"embedding": EmbedsImages, "logits": Classifies, "features": EncodesImages}
    output = next((name for name, needs in outputs.items() if isinstance(model, needs)), None)
    if output is None:
        raise ConfigError(f"--onnx: {type(model).__name__} has no method encode_images, so there is nothing to write")
    generator = torch.Generator().manual_seed(0)
    two, one, three = (torch.randn(count, 3, size, size, generator=generator) for count in (2, 1, 3))
    axes, module = {"images": {0: Dim("batch")}}, _Image(model, output)
    tower, checks = _named(model, "image_encoder"), [(one,), (three,)]
    return _Part("image.onnx", tower, module, axes, output, (two,), checks, _metadata(model))


def _text_part(model: Any, max_length: int | None) -> _Part:
    draw = random.Random(0)

    def tokens(*words: int) -> tuple[Tensor, Tensor]:
        """ids and mask of random texts of so many words."""
        spelt = [["".join(draw.choices(string.ascii_lowercase, k=draw.randint(1, 6))) for _ in range(n)] for n in words]
        found = model.tokenizer([" ".join(text) for text in spelt])
        return torch.tensor(found.ids)[:, :max_length], torch.tensor(found.mask)[:, :max_length]

    each = {0: Dim("batch"), 1: Dim("length", max=max_length)}
    axes, module = {"ids": each, "mask": each}, _Text(model)
    # The last check is as long as a text can be, and padded for all but one of its rows.
    checks = [tokens(1), tokens(1, 4, max_length or 64)]
    tower, example = _named(model, "text_encoder"), tokens(2, 3)
    return _Part("text.onnx", tower, module, axes, "embedding", example, checks, _metadata(model))


def _named(model: nn.Module, tower: str) -> str:
    found = getattr(model, tower, None)
    return type(model).__name__ if found is None else f"{tower} {type(found).__name__}"


def _metadata(model: nn.Module) -> dict[str, str]:
    """`similarity_scale`, the factor of cosines, and SigLIP's `similarity_bias`; `labels` of a classifier's columns."""
    if isinstance(model, Classifies):  # a file is passed on without its folder
        return {"labels": json.dumps(getattr(model, "labels", []), ensure_ascii=False)}
    found = {"similarity_scale": repr(model.similarity_scale())} if isinstance(model, ScalesSimilarity) else {}
    return found | ({"similarity_bias": repr(float(model.bias.detach()))} if isinstance(model, SigLip) else {})


# ------------------------------------------------------------------------------------------------- file by file


def _write(part: _Part, folder: Path) -> Written:
    path = folder / part.file
    try:
        with _quiet():
            _export(part, path)
        return _checked(part, path)
    except (ConfigError, OSError):  # OSError: the disk is full
        raise
    except Exception as error:  # exporters raise errors of many kinds
        raise ConfigError(f"--onnx: {part.file}: {part.tower} has no ONNX form: {_reason(error)}") from error


def _export(part: _Part, path: Path) -> None:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = torch.onnx.export(
        part.module.eval(),
        part.example,
        dynamo=True,
        verbose=False,
        input_names=[*part.axes],
        dynamic_shapes={name: dict(axes) for name, axes in part.axes.items()},
        custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
    )
    assert program is not None  # as it is from PyTorch's older exporters only
    graph = program.model.graph
    for node in graph:
        for value in node.outputs:
            if value.name == part.output:  # the one of an nn.Embedding is called so
                value.name += "_inside"
    graph.outputs[0].name = part.output
    # Every node tells the lines of source that it comes from, with the folders of this machine.
    ClearMetadataAndDocStringPass()(program.model)
    program.model.metadata_props.update(part.metadata)
    program.save(path, external_data=False)


def _checked(part: _Part, path: Path) -> Written:
    """What the file gives and takes, once it is known to compute what the model does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: warnings are about the graph's form
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs, outputs = ({each.name: each for each in found} for found in (session.get_inputs(), session.get_outputs()))
    for name, axes in part.axes.items():
        for axis, length in axes.items():
            if isinstance(fixed := inputs[name].shape[axis], int):
                raise ConfigError(
                    f"--onnx: {part.file}: {part.tower} fixes the {length.__name__} of {name} at {fixed}: its forward "
                    "must read lengths with tensor.shape, not len(tensor), and decide nothing by them"
                )
    difference = max(_difference(session, part, check) for check in part.checks)
    if not difference <= TOLERANCE:  # nor with nan
        raise ConfigError(
            f"--onnx: {part.file}: {part.tower}: ONNX Runtime and the model differ by {difference:.1e}, expected "
            f"{TOLERANCE:.0e} or less: update onnxscript and onnxruntime, or export without --onnx"
        )
    return Written(part.file, _described(inputs), _described(outputs), difference)


def _difference(session: Any, part: _Part, inputs: tuple[Tensor, ...]) -> float:
    """See `Written`; nan where either has nan."""
    expected = part.module(*inputs).numpy()
    feed = {name: value.numpy() for name, value in zip(part.axes, inputs, strict=True)}
    (found,) = session.run(None, feed)
    return float(np.abs(found - expected).max() / np.maximum(1, np.abs(expected).max()))


def _described(nodes: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{_DTYPES.get(node.type, node.type)} [{', '.join(map(str, node.shape))}]" for name, node in nodes.items()
    }


def _reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _stable_sort(values, stable=True, dim=-1, descending=False):  # without types, which PyTorch would want in its own
    """`Tensor.sort(stable=True)`, which PyTorch cannot translate, as ONNX's TopK: of equals the first stays first."""
    from onnxscript import opset18

    op: Any = opset18
    length = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters and optimizers of graphs print, log and warn of their own affairs."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
