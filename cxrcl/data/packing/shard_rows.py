"""A sample of a WebDataset shard as a row of the manifest, from its members and defaults."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrcl.data.images.image_io import SUFFIXES
from cxrcl.data.manifest import OPTIONAL, REQUIRED
from cxrcl.data.sources.cells import BLANK, SPLIT_WORDS
from cxrcl.errors import ConfigError

_IMAGES = {suffix.removeprefix(".") for suffix in SUFFIXES}
_LINE_END = re.compile(r"\r\n?")


@dataclass(frozen=True)
class Rules:
    """How the members of a sample become a row of the manifest.

    Args:
        split: of samples whose .json does not name one.
        classes: names of the numbers 0, 1, ... in .cls members, of which one is 1 and the others 0; (): these members
            are left out.
        labels: keys of .json members that are labels; None: all that are not columns of a manifest.
    """

    split: str = "train"
    classes: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for option, names in (("classes", self.classes), ("labels", self.labels or ())):
            wrong = [n for k, n in enumerate(names) if not n.strip() or n in names[:k] or n in (*REQUIRED, *OPTIONAL)]
            if wrong:
                raise ConfigError(
                    f"--{option}: {wrong[0]!r} is blank, stands twice, or is a column with a meaning of its own"
                )

    @property
    def suffixes(self) -> set[str]:
        """The suffixes of members that are read."""
        return {*_IMAGES, "json", "txt", *(["cls"] if self.classes else [])}


class SampleError(ValueError):
    """What is wrong with a sample."""


def read_sample(
    key: str, members: Mapping[str, bytes], rules: Rules, left_out: Counter[str]
) -> tuple[bytes, dict[str, str]]:
    """The file of the image, and the row.

    Args:
        key: of the sample, which names the image, the patient and the study where the .json does not.
        members: suffix -> content.
        left_out: members and keys that are not read are counted in it.

    Raises:
        SampleError: no image or two, or a member that is not as it should be.
    """
    image = _image(members)
    row = {"image": f"{key.lstrip('/')}.{image}", "patient": key, "study": key, "view": "unknown", "split": rules.split}
    if "json" in members:
        row |= _columns(members["json"], rules, left_out)
    if "txt" in members and not row.get("text"):
        try:
            row["text"] = members["txt"].decode().strip()
        except UnicodeDecodeError as error:
            raise SampleError(f".txt: not UTF-8 at byte {error.start}") from None
    if rules.classes and "cls" in members:
        number = _class(members["cls"], rules.classes)
        row |= {name: str(int(k == number)) for k, name in enumerate(rules.classes)}
    left_out.update(f"members .{suffix}" for suffix in members if suffix not in rules.suffixes)
    try:
        "".join([*row, *row.values()]).encode()
    except UnicodeEncodeError:
        raise SampleError("characters that cannot be written as UTF-8") from None
    # A carriage return by itself would end the row of a CSV.
    return members[image], {_LINE_END.sub("\n", name): _LINE_END.sub("\n", value) for name, value in row.items()}


def _image(members: Mapping[str, bytes]) -> str:
    suffixes = [suffix for suffix in members if suffix in _IMAGES]
    names = ", ".join(f".{suffix}" for suffix in (suffixes or members))
    if not suffixes:
        raise SampleError(
            f"no image among its members ({names}): expected one of {', '.join(SUFFIXES)}; a key ends at its first dot"
        )
    if len(suffixes) > 1:
        raise SampleError(f"{len(suffixes)} images ({names}), expected one")
    return suffixes[0]


def _columns(content: bytes, rules: Rules, left_out: Counter[str]) -> dict[str, str]:
    row = {}
    for name, value in _object(content).items():
        if name in (*REQUIRED[1:], *OPTIONAL):
            text = _text(name, value)
            if name not in REQUIRED or text.lower() not in BLANK:
                row[name] = text
        elif name != "image" and (rules.labels is None or name in rules.labels):
            row[name] = _label(name, value)
        else:
            left_out[f"keys {name!r} of .json"] += 1
    if "split" in row:
        if row["split"].lower() not in SPLIT_WORDS:
            raise SampleError(f"split {row['split']!r:.40}, expected train, valid or test")
        row["split"] = SPLIT_WORDS[row["split"].lower()]
    return row


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SampleError(f".json: cannot be read ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise SampleError(f".json: a {type(value).__name__}, expected an object of columns and labels")
    return value


def _text(name: str, value: object) -> str:
    if value is None or value != value:  # a nan
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SampleError(f"{name!r} is a {type(value).__name__}, expected a text or a number")
    return str(value).strip()


def _label(name: str, value: object) -> str:
    if value is None or value != value or value == "":
        return ""
    try:
        number = float(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        number = None
    if number not in (-1, 0, 1):
        shown = repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
        raise SampleError(
            f"label {name!r} is {shown:.40}, expected 1, 0, -1 or blank; if the key is not a label, name those that "
            "are with --labels"
        )
    return str(int(number))


def _class(content: bytes, classes: Sequence[str]) -> int:
    text = content.decode(errors="replace").strip()
    if not text.isdecimal() or int(text) >= len(classes):
        raise SampleError(f".cls is {text!r:.40}, expected 0 to {len(classes) - 1}, as --classes has names")
    return int(text)
