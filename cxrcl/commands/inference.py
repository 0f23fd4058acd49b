"""Predictions for images: `inference.py --checkpoint C --image FILE|FOLDER ...`, or `--serve` for a page.

argparse and not Hydra: file names break Hydra's grammar.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrcl.commands.entry import FAILED, INTERRUPTED, Parser, guarded
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.errors import RESEARCH_ONLY, DataError, UserError
from cxrcl.inference.results import PICTURES, RESULTS, TABLE, Results, earlier_files, shown

if TYPE_CHECKING:
    from cxrcl.inference.questions import Questions

MOST_SHOWN = 20  # tables of images, and lines about files that cannot be read, where results.json has them all


def _path(options: str) -> Path:
    """A variable of the shell that was never set must not become the current folder."""
    if not options:
        raise argparse.ArgumentTypeError("expected a path, found an empty one")
    return Path(options)


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="inference.py", description=__doc__.splitlines()[0], epilog=RESEARCH_ONLY)
    add = parser.add_argument
    add("--checkpoint", required=True, type=_path, help="a .pt file of a training, or an exported folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", nargs="+", type=_path, help="image files, folders of them, zip!/members")
    what.add_argument("--serve", action="store_true", help="a page on this machine where images are dropped")
    add("--port", type=int, help="of the page of --serve (default: 7860)")
    add("--labels", help="these labels only, separated by commas")
    add(
        "--prompts",
        help='JSON {label: {"pos": [...], "neg": [...]}}, or a shipped one such as pair.json (sentences of any label); '
        "default: zero_shot.json",
    )
    add("--sentences", help="text file, one sentence a line: the best matches are reported")
    add(
        "--phrase",
        nargs="+",
        action="extend",
        default=[],
        help="texts whose cosine is reported, and which --heatmap looks for",
    )
    add("--heatmap", action="store_true", help="a picture of each image with heat-maps, in --out")
    add("--out", type=_path, help="folder for results.json, predictions.csv and heatmaps/")
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--overwrite", action="store_true", help="remove earlier results and pictures in --out")
    add("--batch-size", type=int, help="images at a time (default: 32)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--allow-package", action="append", default=[], help="package of your own objective or encoder")
    return parser.parse_args()


def find_images(paths: list[Path], out: Path | None = None) -> list[Path]:
    """The image files behind paths: files, members of zip files (`archive.zip!/a.png`), and what folders hold.

    In folders, these are files of all levels with an image's suffix, and DICOM files of whatever name, sorted; but for
    the pictures in `out`. Links to folders are not followed.

    Raises:
        DataError: nothing there.
    """
    from cxrcl.data.images import archives
    from cxrcl.data.images.image_io import SUFFIXES, ImageError

    pictures = None if out is None else (out / PICTURES).resolve()
    files: list[Path] = []
    for path in paths:
        member = archives.split(str(path))
        if member is not None:
            try:
                archives.find(*member)
            except ImageError as error:
                raise DataError(f"--image {path}: {error}") from None
            files.append(path)
        elif path.is_dir():
            inside_folder = sorted(
                p for p in path.rglob("*") if p.is_file() and (p.suffix.lower() in SUFFIXES or _is_dicom(p))
            )
            inside_folder = [p for p in inside_folder if pictures is None or p.resolve().parent != pictures]
            if not inside_folder:
                raise DataError(f"--image {path}: the folder holds no image ({', '.join(SUFFIXES)})")
            files += inside_folder
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"--image {path}: not found")
    return files


def _is_dicom(path: Path) -> bool:
    """Whether the content is DICOM: hospitals give such files no suffix. Not the list of images on their CDs."""
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
    if (existing := earlier_files(folder)) and not overwrite:
        raise UserError(f"{existing[0]} exists: add --overwrite, or name another folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--out {folder}: cannot write there ({error.strerror})") from None


def _questions(options: argparse.Namespace) -> Questions:
    from cxrcl.inference.questions import Questions

    return Questions(
        labels=None if options.labels is None else [name.strip() for name in options.labels.split(",")],
        prompts=options.prompts,
        sentences=options.sentences,
        phrases=options.phrase,
    )


def _serve(options: argparse.Namespace) -> None:
    for name in ("out", "overwrite", "json", "heatmap", "batch_size"):
        if not any(getattr(options, name) is value for value in (None, False)):
            raise UserError(f"--{name.replace('_', '-')}: not with --serve, whose page shows everything: leave it out")

    from cxrcl.inference import serving

    port = serving.PORT if options.port is None else options.port
    packages = (*OWN_PACKAGES, *options.allow_package)
    serving.serve(options.checkpoint, _questions(options), port, options.device, packages)


def main() -> None:
    guarded(run)


def run() -> None:
    options = _arguments()
    if options.serve:
        _serve(options)
        return
    if options.port is not None:
        raise UserError("--port: of --serve, which is not given")
    batch_size = 32 if options.batch_size is None else options.batch_size
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: expected 1 or more")
    if options.heatmap and options.out is None:
        raise UserError("--heatmap: needs a folder for the pictures: add --out DIR")
    images = find_images(options.image, options.out)
    prepare_output(options.out, options.overwrite)

    from tqdm import tqdm

    from cxrcl.inference import predict

    # Of a name in another encoding than the terminal's, something can be shown.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with predict.opened_model(options.checkpoint, options.device, (*OWN_PACKAGES, *options.allow_package)) as loaded:
        predictor = predict.Predictor(loaded, _questions(options), options.out / PICTURES if options.heatmap else None)
        head = {"rule": predictor.rule, "note": RESEARCH_ONLY, "checkpoint": str(options.checkpoint)}
        results = Results(options.out, head, predictor.labels, len(images))
        bar = tqdm(predictor.predict(images, batch_size), total=len(images), unit="image", leave=False, disable=None)
        try:
            for number, entry in enumerate(bar):
                results.add(entry)
                if not options.json and (options.out is None or number < MOST_SHOWN):
                    bar.write(f"{as_table(entry)}\n")
        except KeyboardInterrupt:
            bar.close()
        finally:
            results.write()
    if options.json:
        print(results.json())
    else:
        if options.out is not None and len(results.entries) > MOST_SHOWN:
            print(f"and {len(results.entries) - MOST_SHOWN} more images in {options.out / TABLE}\n")
        print(f"{predictor.rule}\n{RESEARCH_ONLY}")
        if options.out is not None:
            pictures = f"; pictures in {options.out / PICTURES}" if options.heatmap else ""
            print(f"written: {options.out / RESULTS}, {options.out / TABLE}{pictures}")
    if not results.complete:
        print(f"error: interrupted: {len(results.entries)} of {len(images)} images were read", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if failed := [entry for entry in results.entries if "error" in entry]:
        lines = [f"  {shown(entry['image'])}: {entry['error']}" for entry in failed[:MOST_SHOWN]]
        lines += [f"  and {len(failed) - MOST_SHOWN} more"] if len(failed) > MOST_SHOWN else []
        print(f"{len(failed)} of {len(images)} images could not be read:", *lines, sep="\n", file=sys.stderr)
        sys.exit(FAILED)


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
