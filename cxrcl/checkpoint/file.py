"""Reading and writing checkpoints: one file that holds everything, or the folder of an exported model.

Written to a temporary file and moved into place, so a reader sees the old file or the new one. Loaded with
`weights_only=True` after the checksums of the archive have been verified (torch itself loads flipped bytes).
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from cxrcl.checkpoint import exported
from cxrcl.checkpoint.content import SCHEMA, Checkpoint, from_plain, to_plain
from cxrcl.errors import CheckpointError
from cxrcl.files import download_fault, replaced

# Settings of timm and open_clip, at any depth of a tower's node.
_FILES, _NAMES = ("pretrained", "weights", "checkpoint_path"), ("name", "timm_model_name")


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically: a reader sees the old file or the new one.

    Raises:
        OSError: the disk is full or the folder not writable; an earlier file at `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        torch.save(to_plain(checkpoint), file)


def _verify(path: Path) -> None:
    """Every byte against the archive's checksums."""
    if not path.exists():
        raise CheckpointError(f"{path}: checkpoint not found")
    with path.open("rb") as file:
        head = file.read(64)
    if head and (fault := download_fault(head)):
        raise CheckpointError(f"{path}: not a checkpoint but {fault}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises errors of many kinds where a header is damaged
        raise CheckpointError(f"{path}: truncated, or not a cxrcl checkpoint ({error})") from None
    if damaged is not None:
        raise CheckpointError(f"{path}: damaged (wrong checksum in {damaged}): use an earlier checkpoint")


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, or the folder of an exported model (see `cxrcl.checkpoint.exported`), to the CPU.

    Raises:
        CheckpointError: missing, truncated, damaged, incomplete, of a newer schema, or holding more than tensors and
            plain values.
    """
    checkpoint = exported.read(path) if path.is_dir() else _read(path)
    for name, node in checkpoint.recipe.model.items():
        if name.endswith("_encoder") and (setting := next(_loading_settings(node), None)):
            raise CheckpointError(
                f"{path}: {name}: {setting}: weights of another place, which cxrcl never writes there"
            )
    return checkpoint


def _loading_settings(node: Mapping[str, Any]) -> Iterator[str]:
    """Settings of an encoder with which its library would open another file or ask a hub, and perhaps unpickle."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _loading_settings(value)
        elif (key in _FILES and value) or (key in _NAMES and re.search(r"[/\\:]", str(value))):
            yield f"{key}={value}"


def _read(path: Path) -> Checkpoint:
    _verify(path)
    try:
        plain = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's message advises weights_only=False: re-worded
        reason = type(error).__name__
        raise CheckpointError(
            f"{path}: holds objects other than tensors and plain values, refused ({reason})"
        ) from None
    if not isinstance(plain, dict) or "schema" not in plain:
        raise CheckpointError(f"{path}: not written by cxrcl")
    if plain["schema"] > SCHEMA:
        raise CheckpointError(f"{path}: written with schema {plain['schema']}, this cxrcl reads up to {SCHEMA}: update")
    try:
        return from_plain(plain)
    except KeyError as error:
        raise CheckpointError(f"{path}: lacks {error.args[0]!r}: not a whole checkpoint; use an earlier one") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: holds other values than a training writes ({error})") from None


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, atomically."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
