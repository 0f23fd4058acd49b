"""Reading films with a checkpoint: `inference.py --checkpoint C --image FILE|FOLDER ...`.

argparse and not Hydra: file names break Hydra's grammar.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cxrcl.config import OWN_PACKAGES
from cxrcl.errors import DataError, UserError

RESEARCH_ONLY = "Research use only; not for diagnosis."
RESULTS, PICTURES = "results.json", "heatmaps"
MOST_FAULTS = 20  # lines about files that cannot be read; results.json has them all


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inference.py", description=__doc__.splitlines()[0], epilog=RESEARCH_ONLY)
    parser.add_argument("--checkpoint", required=True, type=Path, help="a .pt file written by train.py or finetune.py")
    parser.add_argument("--image", required=True, nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--labels", help="these labels only, separated by commas")
    parser.add_argument(
        "--prompts",
        help='JSON {label: {"pos": [...], "neg": [...]}}, or a shipped one such as pair.json (sentences of any label); '
        "default: zero_shot.json",
    )
    parser.add_argument("--sentences", help="text file, one sentence a line: the best matches are told")
    parser.add_argument("--phrase", nargs="+", action="extend", default=[], help="texts to compare and to look for")
    parser.add_argument("--heatmap", action="store_true", help="a picture of each film with heat-maps, in --out")
    parser.add_argument("--out", type=Path, help="folder for results.json and heatmaps/")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--overwrite", action="store_true", help="replace results.json and pictures in --out")
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


def prepare_output(folder: Path | None, overwrite: bool) -> None:
    """Make the folder, before any work.

    Raises:
        UserError: it holds results already, or cannot be written to.
    """
    if folder is None:
        return
    pictures = folder / PICTURES
    earlier = [path for path in (folder / RESULTS, *sorted(pictures.glob("*.png"))) if path.exists()]
    if earlier and not overwrite:
        raise UserError(f"{earlier[0]} exists: add --overwrite, or name another folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--out {folder}: cannot write there ({error.strerror})") from None


def main() -> None:
    given = _arguments()
    if given.batch_size < 1:
        raise UserError(f"--batch-size {given.batch_size}: expected 1 or more")
    if given.heatmap and given.out is None:
        raise UserError("--heatmap: needs a folder for the pictures: add --out DIR")
    images = find_images(given.image)
    prepare_output(given.out, given.overwrite)

    from tqdm import tqdm

    from cxrcl import reading
    from cxrcl.questions import Asked

    asked = Asked(
        labels=None if given.labels is None else [name.strip() for name in given.labels.split(",")],
        prompts=given.prompts,
        sentences=given.sentences,
        phrases=given.phrase,
    )
    with reading.opened(given.checkpoint, given.device, (*OWN_PACKAGES, *given.allow_package)) as restored:
        read = reading.Reading(restored, asked, given.out / PICTURES if given.heatmap else None)
        found = read.of(images, given.batch_size)
        entries = list(tqdm(found, total=len(images), unit="film", leave=False, disable=None))
    content = {"rule": read.rule, "note": RESEARCH_ONLY, "checkpoint": str(given.checkpoint), "images": entries}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    if given.out is not None:
        (given.out / RESULTS).write_text(text + "\n", encoding="utf-8")
    print(text if given.json else as_tables(entries, read.rule))
    if given.out is not None and not given.json:
        print(f"written: {given.out / RESULTS}{f' and pictures in {given.out / PICTURES}' if given.heatmap else ''}")
    failed = [entry for entry in entries if "error" in entry]
    if failed:
        print(f"{len(failed)} of {len(images)} images could not be read:", file=sys.stderr)
        for entry in failed[:MOST_FAULTS]:
            print(f"  {entry['image']}: {entry['error']}", file=sys.stderr)
        if len(failed) > MOST_FAULTS:
            print(f"  and {len(failed) - MOST_FAULTS} more", file=sys.stderr)
        sys.exit(1)


def as_tables(entries: list[dict[str, Any]], rule: str) -> str:
    """One table an image, the most probable label first; then phrases and the sentences that match best."""
    parts = []
    for entry in entries:
        if "error" in entry:
            parts.append(f"{entry['image']}\n  not read: {entry['error']}")
            continue
        ranked = sorted(entry["probabilities"].items(), key=lambda item: -item[1])
        width = max(len(label) for label, _ in ranked)
        rows = [f"  {label.ljust(width)}  {value:.3f}  {'#' * round(20 * value)}" for label, value in ranked]
        matches = [*entry.get("phrases", {}).items(), *((s["text"], s["cosine"]) for s in entry.get("sentences", ()))]
        if matches:
            rows += [
                "  cosine of phrases, and of the sentences that match best:"
                if "phrases" in entry
                else "  cosine of the sentences that match best:"
            ]
            rows += [f"  {cosine:6.3f}  {text}" for text, cosine in matches]
        parts.append("\n".join([str(entry["image"]), *rows]))
    return "\n\n".join([*parts, f"{rule}\n{RESEARCH_ONLY}"])
