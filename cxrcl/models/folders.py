"""What is missing or wrong in a folder of weights, in one line before anything is built.

Of large files only the first bytes and the length are looked at, so the answer comes at once whatever their size.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from cxrcl.errors import first_line
from cxrcl.files import download_fault

Kind = Literal["hf text", "hf image", "open_clip text", "open_clip image"]

# In the order in which they are taken.
HF_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
OPEN_CLIP_CONFIG = "open_clip_config.json"
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors format, bytes


def lacking(name: Any, kind: Kind, settings: Mapping[str, Any]) -> list[str]:
    """`describe` for the settings of an encoder, where its name is a folder; a hub is not asked.

    Args:
        name: the setting `name`.
        kind: of the encoder and its library.
        settings: all settings of the encoder.
    """
    path = Path(str(name).removeprefix("local-dir:")).expanduser()
    if not path.is_dir():
        return [f"name={name}: no such folder"] if _is_path(str(name)) else []
    wrong = describe(path, kind, bool(settings.get("mean") and settings.get("std")))
    return [f"name={name}: {'; '.join(wrong)}"] if wrong else []


def locate(name: str, kind: Kind, normalised: bool = False) -> Path:
    """The checked folder behind a path, `local-dir:PATH`, a hub id or `hf-hub:ID` (the last two may need a network).

    Raises:
        ValueError: no such folder or hub entry, or everything that `describe` finds, in one line.
    """
    path = Path(name.removeprefix("local-dir:")).expanduser()
    if path.is_dir():
        folder = path
    elif _is_path(name):
        raise ValueError(f"name={name}: no such folder")
    else:
        folder = _from_hub(name, kind)
    if wrong := describe(folder, kind, normalised):
        raise ValueError(f"name={name}: {'; '.join(wrong)}")
    return folder


def _is_path(name: str) -> bool:
    """Nothing that a hub could have."""
    return name.startswith(("local-dir:", ".", "~")) or Path(name).is_absolute()


def describe(folder: Path, kind: Kind, normalised: bool = False) -> list[str]:
    """Everything that is missing or wrong in a folder, one phrase each; empty when it can be loaded.

    Args:
        normalised: the user's settings give mean and std, so that the folder need not.
    """
    wrong: list[str] = []
    if kind.startswith("hf"):
        config = read_json(folder, "config.json", wrong)
        if config is not None and not isinstance(config.get("model_type"), str):
            wrong.append("config.json names no model_type")
        wrong += _weights(folder, HF_WEIGHTS)
        if kind == "hf text":
            return wrong + _tokenizer(folder)
        return wrong if normalised else wrong + _preprocessor(folder)
    content = read_json(folder, OPEN_CLIP_CONFIG, wrong) or {}
    model = content.get("model_cfg")
    model = model if isinstance(model, dict) else {}
    if content:
        kinds = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
        absent = [f"model_cfg.{key}" for key, base in kinds.items() if not isinstance(model.get(key), base)]
        absent += [] if kind == "open_clip text" or normalised else _absent_normalisation(content)
        if absent:
            remedy = " (set mean and std)" if absent[-1].startswith("preprocess_cfg") else ""
            wrong.append(f"{OPEN_CLIP_CONFIG} lacks {', '.join(absent)}{remedy}")
    wrong += _weights(folder, OPEN_CLIP_WEIGHTS)
    text = model.get("text_cfg")
    if kind == "open_clip text" and isinstance(text, dict) and text.get("hf_tokenizer_name"):
        wrong += _tokenizer(folder)
    return wrong


def weights_file(folder: Path, names: Collection[str]) -> Path:
    """The file of weights that is taken out of a folder that `describe` has found to have one."""
    return next(folder / name for name in names if (folder / name).is_file())


def fault(file: Path) -> str | None:
    """What is wrong with a file, by its first bytes and its length; None when nothing is."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(512)
    if left := download_fault(head):
        return f"{file.name} is {left}"
    if file.suffix == ".safetensors":
        return _safetensors_fault(file, size)
    if file.suffix in (".bin", ".pt", ".pth"):
        if head.startswith(b"PK"):  # a zip's index is at its end
            return None if zipfile.is_zipfile(file) else f"{file.name} is truncated: download it again"
        if not head.startswith(b"\x80"):  # PyTorch's format before 1.6: a bare pickle
            return f"{file.name} is no file of PyTorch weights"
    return None


def read_json(folder: Path, name: str, wrong: list[str]) -> dict[str, Any] | None:
    """A JSON file that must hold a mapping; what is wrong with it is appended to `wrong`."""
    file = folder / name
    if not file.is_file():
        wrong.append(f"no {name}")
    elif damage := fault(file):
        wrong.append(damage)
    else:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
            wrong.append(f"{name} is no valid JSON ({error})")
            return None
        if isinstance(content, dict):
            return content
        wrong.append(f"{name} holds no mapping")
    return None


def _safetensors_fault(file: Path, size: int) -> str | None:
    """The header says how long the file must be: 8 bytes, the header's length, the header, the tensors."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            return f"{file.name} is truncated or no safetensors file (header of {length} bytes in a file of {size})"
        try:
            header = json.loads(opened.read(length))
            entries = [entry for key, entry in header.items() if key != "__metadata__"]
            expected = 8 + length + max((entry["data_offsets"][1] for entry in entries), default=0)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return f"{file.name} is damaged (its header cannot be read): download it again"
    return None if size == expected else f"{file.name} is truncated ({size} of {expected} bytes): download it again"


def _weights(folder: Path, names: tuple[str, ...]) -> list[str]:
    present = [name for name in names if (folder / name).is_file()]
    if not present:
        return [f"no weights ({' or '.join(name for name in names if 'index' not in name)})"]
    if not present[0].endswith(".index.json"):
        damage = fault(folder / present[0])
        return [damage] if damage else []
    wrong: list[str] = []
    index = read_json(folder, present[0], wrong)
    places = (index or {}).get("weight_map")
    parts = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    if outside := [part for part in parts if Path(part).name != part]:
        return [*wrong, f"{present[0]} names a file outside of the folder, {outside[0]}"]
    if index is not None and not parts:
        wrong.append(f"{present[0]} names no files")
    absent = [part for part in parts if not (folder / part).is_file()]
    if absent:
        wrong.append(f"{len(absent)} of {len(parts)} files of weights are missing, such as {absent[0]}")
    return wrong + [damage for part in parts if part not in absent and (damage := fault(folder / part))]


def _tokenizer(folder: Path) -> list[str]:
    wrong: list[str] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):  # none of them is needed
        if (folder / name).is_file():
            read_json(folder, name, wrong)
    if (folder / "tokenizer.json").is_file():
        content = read_json(folder, "tokenizer.json", wrong)
        return wrong if content is None or "model" in content else [*wrong, "tokenizer.json defines no model"]
    if (folder / "vocab.txt").is_file():
        names = ["vocab.txt"]
    elif (folder / "vocab.json").is_file():
        names = ["vocab.json", "merges.txt"]
    else:
        return [*wrong, "no tokenizer (tokenizer.json or vocab.txt)"]
    if not (folder / names[-1]).is_file():
        return [*wrong, "no merges.txt beside vocab.json"]
    return wrong + [damage for name in names if (damage := fault(folder / name))]


def _preprocessor(folder: Path) -> list[str]:
    """A missing preprocessor_config.json is no fault: ImageNet's normalisation is taken (documented)."""
    wrong = list[str]()
    content = preprocessor(folder, wrong)
    if content is None:
        return wrong
    name = next(name for name in PREPROCESSORS if (folder / name).is_file())
    if content.get("do_normalize", True):
        absent = [key for key in ("image_mean", "image_std") if not _is_colour(content.get(key))]
        if absent:
            wrong.append(f"{name} lacks {' and '.join(absent)} of three values (set mean and std)")
        elif min(content["image_std"]) <= 0:
            wrong.append(f"{name} divides by image_std={content['image_std']} (set mean and std)")
    factor = content.get("rescale_factor")
    factor = 1 / 255 if factor is None else factor
    scales = isinstance(factor, int | float) and abs(factor * 255 - 1) <= 1e-3
    if not content.get("do_rescale", True) or not scales:
        wrong.append(f"{name} does not scale values to [0, 1] before it normalises (set mean and std that do)")
    return wrong


def preprocessor(folder: Path, wrong: list[str]) -> dict[str, Any] | None:
    """What a folder says about the preprocessing of images, None where it says nothing.

    Processors of text and images keep it inside of processor_config.json.
    """
    for name in PREPROCESSORS:
        if (folder / name).is_file():
            content = read_json(folder, name, wrong)
            inner = (content or {}).get("image_processor") if name == "processor_config.json" else content
            if isinstance(inner, dict) or content is None:
                return inner
    return None


def _absent_normalisation(content: dict[str, Any]) -> list[str]:
    preprocessing = content.get("preprocess_cfg")
    values = preprocessing if isinstance(preprocessing, dict) else {}
    return [f"preprocess_cfg.{key}" for key in ("mean", "std") if not _is_colour(values.get(key))]


def _is_colour(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 3 and all(isinstance(value, int | float) for value in values)


def _from_hub(name: str, kind: Kind) -> Path:
    """The folder of the local cache that holds a hub entry, filled over the network unless it is offline."""
    names = HF_WEIGHTS if kind.startswith("hf") else OPEN_CLIP_WEIGHTS
    shards = ["model-*.safetensors"] if kind.startswith("hf") else []
    legacy = ["pytorch_model-*.bin"] if kind.startswith("hf") else []
    folder = fetch(name, [*names[:2], *shards])
    if any((folder / file).is_file() for file in names[:2]):
        return folder
    return fetch(name, [*names[2:], *legacy])  # older entries have the .bin files only


def fetch(name: str, patterns: Collection[str] = ()) -> Path:
    """A folder of the local cache with the config and tokenizer files of a hub entry, and those that match.

    Raises:
        ValueError: neither cached nor reachable, in one line.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name.removeprefix("hf-hub:"), allow_patterns=["*.json", "*.txt", *patterns]))
    except Exception as error:  # the clients for the network raise errors of many kinds
        raise ValueError(
            f"name={name}: no such folder, nor in the hub: {first_line(error)} "
            "(with no network, give a local folder instead)"
        ) from error
