"""A checkpoint as a folder that can be given away: `scripts/export.py`. `cxrcl.checkpoint.exported` reads it again.

Left out: the state of the training (optimizer, schedule, and weights beside their moving average), its settings, and
names of folders and files. The folder is written under another name, read again and rebuilt, and then moved into place.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import torch

from cxrcl.app.restore import restore, restore_model
from cxrcl.checkpoint import exported
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.checkpoint.file import load
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.data.exposure import HASHES, reduced
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.errors import CheckpointError, ConfigError
from cxrcl.export import model_card
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.saving import Preprocessing, Saved, save_json, save_tensors, save_tokenizer, save_towers
from cxrcl.models.tokenizer import PackedTokenizer
from cxrcl.objectives.base import Objective
from cxrcl.types import ScalesSimilarity

if TYPE_CHECKING:
    from cxrcl.export.onnx_export import Written

Packages = Sequence[str]
ONNX = "onnx"
# Everything that an export may hold: a folder with anything else in it is not overwritten.
FILES = (
    *(exported.CONFIG, exported.WEIGHTS, exported.RECORD, exported.PREPROCESS, model_card.NAME),
    *("tokenizer", "image_encoder", "text_encoder", "open_clip", ONNX),
)
# A path from the root of a machine, a home, a drive or the working directory. Others, such as hub ids, name nobody.
_OF_A_MACHINE = re.compile(r"(local-dir:|file:)?([/~\\]|\.{1,2}[\\/]|[A-Za-z]:[\\/])")


@dataclass(frozen=True)
class Options:
    """What a person chooses of an export.

    Attributes:
        licence: SPDX identifier; None: not stated.
        results: files of evaluate.py for the card; None: those beside the checkpoint that are of it.
        onnx: write the ONNX files, too.
        exposure: which hashes of what the model was trained on go into it: all, those of pixels alone, or none.
        overwrite: replace an earlier export.
    """

    licence: str | None = None
    results: Sequence[Path] | None = None
    onnx: bool = False
    overwrite: bool = False
    exposure: str = "full"


# `Options.exposure` -> kinds of hashes. Names go with the patients: in many data sets they hold their numbers.
KEPT_HASHES: Mapping[str, tuple[str, ...]] = {"full": HASHES, "pixels": ("pixels",), "none": ()}


def export(source: Path, out: Path, options: Options, packages: Packages = OWN_PACKAGES) -> list[str]:
    """Write the folder `out`; returns what a person should know of it, a line each.

    Raises:
        UserError: no such checkpoint, nothing may be written there, or results of another model.
    """
    out = out.expanduser().resolve()
    check_output(out, options.overwrite)
    checkpoint, objective, transform = restore(source.expanduser(), packages)
    if checkpoint.exported:
        raise ConfigError(f"{source}: is an exported model already: name the checkpoint that it was made of")
    if name := exported.name_of_nonfinite(objective.state_dict()):
        raise ConfigError(f"{source}: has diverged ({name} holds nan or infinity): export an earlier checkpoint")
    if checkpoint.exposure is not None:
        kept = reduced(checkpoint.exposure, KEPT_HASHES[options.exposure])
        checkpoint = replace(checkpoint, state=replace(checkpoint.state, exposure=kept))
    figures, lines = model_card.figures_of(source.expanduser(), checkpoint, options.results)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        saved, without = _save_parts(objective, transform, temporary)
        written = _save_onnx(objective, transform, temporary / ONNX) if options.onnx else []
        _save_model(checkpoint, objective, transform, temporary)
        card = model_card.text(checkpoint, objective, transform, options.licence, figures, saved, written)
        (temporary / model_card.NAME).write_text(card, encoding="utf-8")
        _check(temporary, objective, packages)
        _move(temporary, out)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot write there ({error.strerror})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    lines += [f"{each.folder}/: {each.code}" for each in saved]
    lines += [f"{ONNX}/{each.file}: differs from the model by {each.difference:.1e} at most" for each in written]
    return [*lines, *without, *_warnings(checkpoint)]


def _warnings(checkpoint: Checkpoint) -> list[str]:
    """What a person should look at before the folder is given away."""
    lines = []
    exposure = checkpoint.exposure
    if exposure is not None and any(each.patient_ids is not None for each in exposure.trainings):
        lines.append(
            f"{exported.RECORD}: hashes of the training's patients: whoever has the file can test guesses of their "
            "numbers; --exposure pixels leaves them out"
        )
    encoder = (checkpoint.recipe.settings or {}).get("text_encoder") or {}
    learnt = str(encoder.get("_target_", "")).endswith(".TinyText")
    if learnt and "text_encoder" in checkpoint.recipe.model:  # the settings name one all the same
        lines.append(
            "tokenizer/: its vocabulary was learnt from the training texts: see that it holds no name before you "
            "share it"
        )
    return lines


def check_output(out: Path, overwrite: bool) -> None:
    """Raises ConfigError where the folder cannot be made, or something stands there that has to stay."""
    if out == Path.cwd():  # it would be replaced, and the shell left in a folder that is no more
        raise ConfigError(f"--out {out}: is the working directory: name a folder in it")
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"--out {out}: a file stands there: name a folder")
    inside = sorted(path.name for path in out.iterdir())
    if not inside:
        return
    if not exported.is_exported(out):
        raise ConfigError(f"--out {out}: is not empty and no exported model: it is left alone, name another folder")
    if not overwrite:
        raise ConfigError(f"--out {out}: an exported model stands there: add --overwrite, or name another folder")
    if foreign := [name for name in inside if name not in FILES]:
        raise ConfigError(
            f"--out {out}: holds {', '.join(foreign[:5])}, which no export writes: move it away, or name another folder"
        )


# --------------------------------------------------------------------------------------------------- the files


def _save_model(checkpoint: Checkpoint, objective: Objective, transform: RadiographTransform, folder: Path) -> None:
    """Everything that `cxrcl.checkpoint.exported` reads; config.json last, with the checksums of the others."""
    recipe, origin = checkpoint.recipe, checkpoint.origin
    save_tensors(objective.state_dict(), folder / exported.WEIGHTS)
    save_json(preprocessing(transform, recipe.transform), folder / exported.PREPROCESS)
    names = [exported.WEIGHTS, exported.PREPROCESS]
    model = {name: dict(node) for name, node in recipe.model.items()}
    if model.get("text_encoder", {}).get("definition") is not None:
        definition = model["text_encoder"].pop("definition")
        (folder / exported.TOKENIZER).write_text(definition, encoding="utf-8")
        names.append(exported.TOKENIZER)
    record: dict[str, torch.Tensor] = {}
    exposure, initial = checkpoint.exposure, origin.initial_directions
    if exposure is not None:
        record |= exported.hashes_of(exposure)
    if initial is not None:
        record[exported.DIRECTIONS] = initial.directions
    if record:
        save_tensors(record, folder / exported.RECORD)
        names.append(exported.RECORD)
    content = {
        "format": exported.FORMAT,
        "schema": exported.SCHEMA,
        "versions": dict(origin.versions),
        "step": checkpoint.step,
        "weights": exported.TRAINED if checkpoint.state.average is None else exported.AVERAGE,
        "model": without_folders(model),
        "evaluated": recipe.evaluated_part,
        "labels": list(recipe.labels),
        "prompts": _prompts(recipe.prompts),
        "prompt_sentences": recipe.prompt_sentences,
        "precision": recipe.precision,
        "data": _data(recipe.data),
        "exposure": None if exposure is None else exported.exposure_section(exposure),
        "initial": None if initial is None else {"labels": list(initial.labels)},
        "training_views": recipe.training_views,
    }
    sums = {name: exported.sha256(folder / name) for name in names}
    sums[exported.CONFIG] = exported.own_sha256(content)
    save_json({**content, "sha256": sums}, folder / exported.CONFIG)


def _data(stored: Mapping[str, Any]) -> dict[str, Any]:
    """How data were read, without where they lie. Filters may name patients; other data begin without them anyway."""
    of_these = ("root", "store", "filter", "split_lists", "sources")
    kept = {key: value for key, value in stored.items() if key not in of_these}
    sources = {
        name: {"prompts": node["prompts"]} for name, node in stored["sources"].items() if node and node.get("prompts")
    }
    return {**without_folders(kept), "sources": sources}


def _prompts(node: Mapping[str, Any]) -> dict[str, Any]:
    """Without the folders of their file, wherever they begin: the sentences stand beside it."""
    file = {"file": PureWindowsPath(str(node["file"])).name} if "file" in node else {}
    return {**without_folders(node), **file}


def without_folders(value: Any) -> Any:
    """The same containers; of paths on this machine only the last name is left."""
    if isinstance(value, Mapping):
        return {key: without_folders(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(part) for part in value]
    if isinstance(value, str) and _OF_A_MACHINE.match(value):
        return PureWindowsPath(value).name  # which takes both kinds of slashes
    return value


def preprocessing(transform: RadiographTransform, node: Mapping[str, Any]) -> dict[str, Any]:
    """preprocess.json: in words for other programs; `transform` is what cxrcl reads."""
    spec = transform.spec
    return {
        "size": spec.size,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "fit": transform.fit,
        "eval_crop": transform.eval_crop,
        "interpolation": "bilinear; shrinks of more than 2 go by area first",
        "values": "one grey channel, bright where the image is bright, scaled to [0, 1], repeated three times, then "
        "normalised by mean and std",
        "transform": without_folders(dict(node)),
    }


def _save_parts(objective: Objective, transform: RadiographTransform, folder: Path) -> tuple[list[Saved], list[str]]:
    """Towers and tokenizer, for other libraries."""
    parts = dict(objective.named_children())
    image, text = parts.get("image_encoder"), parts.get("text_encoder")
    model = objective.evaluated()
    scale = model.similarity_scale() if isinstance(model, ScalesSimilarity) else None
    if isinstance(text, TextEncoder) and isinstance(text.tokenizer, PackedTokenizer):
        save_tokenizer(text.tokenizer, folder / "tokenizer")
    assert isinstance(image, ImageEncoder | None) and isinstance(text, TextEncoder | None)
    return save_towers(image, text, Preprocessing(transform.spec, transform.fit, transform.eval_crop), scale, folder)


def _save_onnx(objective: Objective, transform: RadiographTransform, folder: Path) -> list[Written]:
    from cxrcl.export import onnx_export  # the packages of the extra

    tokenizer = getattr(objective, "tokenizer", None)
    folder.mkdir()
    return onnx_export.write(objective.evaluated(), transform.spec.size, getattr(tokenizer, "max_length", None), folder)


def _check(folder: Path, objective: Objective, packages: Packages) -> None:
    """What was written, read again, is the same model."""
    rebuilt = restore_model(load(folder), packages).state_dict()
    if not all(torch.equal(value, rebuilt[name]) for name, value in objective.state_dict().items()):
        raise CheckpointError(f"{folder}: other weights were read than written: the disk may be damaged")


def _move(made: Path, out: Path) -> None:
    """In place of an earlier export, which stays where that fails."""
    if not out.exists():
        made.rename(out)
        return
    earlier = out.with_name(f".{out.name}.{os.getpid()}.old")
    out.rename(earlier)
    try:
        made.rename(out)
    except BaseException:  # Ctrl-C, too
        earlier.rename(out)
        raise
    shutil.rmtree(earlier)
