"""Reading films with a checkpoint: `inference.py --checkpoint C --image FILE|FOLDER ...`.

argparse and not Hydra: file names break Hydra's grammar.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cxrcl.config import OWN_PACKAGES
from cxrcl.errors import DataError, UserError

RESEARCH_ONLY = "Research use only; not for diagnosis."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inference.py", description=__doc__.splitlines()[0], epilog=RESEARCH_ONLY)
    parser.add_argument("--checkpoint", required=True, type=Path, help="a .pt file written by train.py or finetune.py")
    parser.add_argument("--image", required=True, nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--prompts", help='JSON {label: {"pos": [...], "neg": [...]}}; default: the shipped ones')
    parser.add_argument("--out", type=Path, help="folder for results.json")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--overwrite", action="store_true", help="replace results.json in --out")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--allow-package", action="append", default=[], help="package of your own objective or encoder")
    return parser.parse_args()


def find_images(given: list[Path]) -> list[Path]:
    """Files as they are, folders by their image files (all levels, sorted)."""
    from cxrcl.data.image_io import SUFFIXES

    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise DataError(f"--image {path}: the folder holds no image ({', '.join(SUFFIXES)})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"--image {path}: not found")
    return found


def main() -> None:
    given = _arguments()
    if given.batch_size < 1:
        raise UserError(f"--batch-size {given.batch_size}: expected 1 or more")
    images = find_images(given.image)
    target = given.out / "results.json" if given.out else None
    if target is not None and target.exists() and not given.overwrite:
        raise UserError(f"{target} exists: add --overwrite, or name another folder with --out")
    if target is not None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {given.out}: cannot write there ({error.strerror})") from None

    from cxrcl import reading

    read = reading.predict(
        given.checkpoint,
        images,
        prompts=given.prompts,
        device=given.device,
        batch_size=given.batch_size,
        packages=(*OWN_PACKAGES, *given.allow_package),
    )
    content = {"rule": read.rule, "note": RESEARCH_ONLY, "checkpoint": str(given.checkpoint), "images": read.images}
    if target is not None:
        target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        print(as_tables(read.images, read.rule))
    failed = [entry for entry in read.images if "error" in entry]
    if target is not None and not given.json:
        print(f"written: {target}")
    if failed:
        print(f"{len(failed)} of {len(images)} images could not be read", file=sys.stderr)
        sys.exit(1)


def as_tables(entries: list[dict[str, Any]], rule: str) -> str:
    """One table an image, the most probable label first."""
    parts = []
    for entry in entries:
        if "error" in entry:
            parts.append(f"{entry['image']}\n  not read: {entry['error']}")
            continue
        ranked = sorted(entry["probabilities"].items(), key=lambda item: -item[1])
        width = max(len(label) for label, _ in ranked)
        rows = [f"  {label.ljust(width)}  {value:.3f}  {'#' * round(20 * value)}" for label, value in ranked]
        parts.append("\n".join([str(entry["image"]), *rows]))
    return "\n\n".join([*parts, f"{rule}\n{RESEARCH_ONLY}"])
