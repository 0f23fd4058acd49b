"""Reading films with a checkpoint: `inference.py --checkpoint C --image FILE|FOLDER ...`, or `--serve` for a page.

argparse and not Hydra: file names break Hydra's grammar.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrcl.cli import INTERRUPTED, Parser
from cxrcl.config import OWN_PACKAGES
from cxrcl.errors import DataError, UserError
from cxrcl.inference import RESEARCH_ONLY
from cxrcl.inference.results import PICTURES, RESULTS, TABLE, Results, earlier, shown

if TYPE_CHECKING:
    from cxrcl.inference.questions import Asked

MOST_SHOWN = 20  # tables of films, and lines about files that cannot be read, where results.json has them all


def _path(given: str) -> Path:
    """A variable of the shell that was never set must not become the current folder."""
    if not given:
        raise argparse.ArgumentTypeError("expected a path, found an empty one")
    return Path(given)


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="inference.py", description=__doc__.splitlines()[0], epilog=RESEARCH_ONLY)
    parser.add_argument(
        "--checkpoint", required=True, type=_path, help="a .pt file of a training, or an exported folder"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", nargs="+", type=_path, help="image files, folders of them, zip!/members")
    what.add_argument("--serve", action="store_true", help="a page on this machine where films are dropped")
    parser.add_argument("--port", type=int, help="of the page of --serve (default: 7860)")
    parser.add_argument("--labels", help="these labels only, separated by commas")
    parser.add_argument(
        "--prompts",
        help='JSON {label: {"pos": [...], "neg": [...]}}, or a shipped one such as pair.json (sentences of any label); '
        "default: zero_shot.json",
    )
    parser.add_argument("--sentences", help="text file, one sentence a line: the best matches are told")
    parser.add_argument(
        "--phrase",
        nargs="+",
        action="extend",
        default=[],
        help="texts whose cosine is told, and which --heatmap looks for",
    )
    parser.add_argument("--heatmap", action="store_true", help="a picture of each film with heat-maps, in --out")
    parser.add_argument("--out", type=_path, help="folder for results.json, predictions.csv and heatmaps/")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--overwrite", action="store_true", help="remove earlier results and pictures in --out")
    parser.add_argument("--batch-size", type=int, help="films at a time (default: 32)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--allow-package", action="append", default=[], help="package of your own objective or encoder")
    return parser.parse_args()


def find_images(given: list[Path], out: Path | None = None) -> list[Path]:
    """Files as they are, members of zip files (`archive.zip!/film.png`), folders by their films.

    These are files of all levels with an image's suffix, and DICOM files of whatever name, sorted; but for the pictures
    in `out`. Links to folders are not followed.

    Raises:
        DataError: nothing there.
    """
    from cxrcl.data import archives
    from cxrcl.data.image_io import SUFFIXES, ImageError

    pictures = None if out is None else (out / PICTURES).resolve()
    found: list[Path] = []
    for path in given:
        inside = archives.split(str(path))
        if inside is not None:
            try:
                archives.find(*inside)
            except ImageError as error:
                raise DataError(f"--image {path}: {error}") from None
            found.append(path)
        elif path.is_dir():
            films = sorted(p for p in path.rglob("*") if p.is_file() and (p.suffix.lower() in SUFFIXES or _is_dicom(p)))
            films = [p for p in films if pictures is None or p.resolve().parent != pictures]
            if not films:
                raise DataError(f"--image {path}: the folder holds no image ({', '.join(SUFFIXES)})")
            found += films
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"--image {path}: not found")
    return found


def _is_dicom(path: Path) -> bool:
    """By its content: hospitals give such files no suffix. Not the list of films on their CDs."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM" and path.name != "DICOMDIR"
    except OSError:
        return False


def prepare_output(folder: Path | None, overwrite: bool) -> None:
    """Make the folder, before any work.

    Raises:
        UserError: it holds results already, or cannot be written to.
    """
    if folder is None:
        return
    if (found := earlier(folder)) and not overwrite:
        raise UserError(f"{found[0]} exists: add --overwrite, or name another folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--out {folder}: cannot write there ({error.strerror})") from None


def _asked(given: argparse.Namespace) -> Asked:
    from cxrcl.inference.questions import Asked

    return Asked(
        labels=None if given.labels is None else [name.strip() for name in given.labels.split(",")],
        prompts=given.prompts,
        sentences=given.sentences,
        phrases=given.phrase,
    )


def _serve(given: argparse.Namespace) -> None:
    for name in ("out", "overwrite", "json", "heatmap", "batch_size"):
        if not any(getattr(given, name) is value for value in (None, False)):
            raise UserError(f"--{name.replace('_', '-')}: not with --serve, whose page shows everything: leave it out")

    from cxrcl.inference import serving

    port = serving.PORT if given.port is None else given.port
    serving.serve(given.checkpoint, _asked(given), port, given.device, (*OWN_PACKAGES, *given.allow_package))


def main() -> None:
    given = _arguments()
    if given.serve:
        _serve(given)
        return
    if given.port is not None:
        raise UserError("--port: of --serve, which is not given")
    batch_size = 32 if given.batch_size is None else given.batch_size
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: expected 1 or more")
    if given.heatmap and given.out is None:
        raise UserError("--heatmap: needs a folder for the pictures: add --out DIR")
    images = find_images(given.image, given.out)
    prepare_output(given.out, given.overwrite)

    from tqdm import tqdm

    from cxrcl.inference import reading

    # Of a name in another encoding than the terminal's, something can be shown.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with reading.opened(given.checkpoint, given.device, (*OWN_PACKAGES, *given.allow_package)) as restored:
        read = reading.Reading(restored, _asked(given), given.out / PICTURES if given.heatmap else None)
        head = {"rule": read.rule, "note": RESEARCH_ONLY, "checkpoint": str(given.checkpoint)}
        results = Results(given.out, head, read.labels, len(images))
        bar = tqdm(read.of(images, batch_size), total=len(images), unit="film", leave=False, disable=None)
        try:
            for number, entry in enumerate(bar):
                results.add(entry)
                if not given.json and (given.out is None or number < MOST_SHOWN):
                    bar.write(f"{as_table(entry)}\n")
        except KeyboardInterrupt:
            bar.close()
        finally:
            results.write()
    if given.json:
        print(results.json())
    else:
        if given.out is not None and len(results.entries) > MOST_SHOWN:
            print(f"and {len(results.entries) - MOST_SHOWN} more films in {given.out / TABLE}\n")
        print(f"{read.rule}\n{RESEARCH_ONLY}")
        if given.out is not None:
            pictures = f"; pictures in {given.out / PICTURES}" if given.heatmap else ""
            print(f"written: {given.out / RESULTS}, {given.out / TABLE}{pictures}")
    if not results.complete:
        print(f"error: interrupted: {len(results.entries)} of {len(images)} films were read", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if failed := [entry for entry in results.entries if "error" in entry]:
        _tell(failed, len(images))
        sys.exit(1)


def _tell(failed: list[dict[str, Any]], asked: int) -> None:
    print(f"{len(failed)} of {asked} images could not be read:", file=sys.stderr)
    for entry in failed[:MOST_SHOWN]:
        print(f"  {shown(entry['image'])}: {entry['error']}", file=sys.stderr)
    if len(failed) > MOST_SHOWN:
        print(f"  and {len(failed) - MOST_SHOWN} more", file=sys.stderr)


def as_tables(entries: list[dict[str, Any]], rule: str) -> str:
    return "\n\n".join([*map(as_table, entries), f"{rule}\n{RESEARCH_ONLY}"])


def as_table(entry: dict[str, Any]) -> str:
    """The most probable label first; then phrases and the sentences that match best."""
    if "error" in entry:
        return f"{shown(entry['image'])}\n  not read: {entry['error']}"
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
    return "\n".join([shown(entry["image"]), *rows])
