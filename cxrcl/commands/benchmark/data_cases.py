"""What is timed of the data path: for each case, inputs in a folder and two sides that do the same work on them.

Whatever is random, each side draws by its own rule and as often: crops, clip limits and factors cost the same.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cxrcl.commands.benchmark import data_inputs, data_waits, measure
from cxrcl.commands.benchmark import data_references as references
from cxrcl.commands.hydra import compose
from cxrcl.config.nodes import OWN_PACKAGES, build
from cxrcl.data.images import store
from cxrcl.data.images.reader import FULL_SIZE, ImageReader
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.manifest import load
from cxrcl.data.packing import pack as packing
from cxrcl.data.streams import IMAGE, stream
from cxrcl.data.text.tokens import TokenTable, tokenize
from cxrcl.models.tokenizer import PackedTokenizer, learn_wordpiece
from cxrcl.types import Batch, ImageSpec

Figures = dict[str, list[float]]  # of each round, by `reference` and `ours`
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of most published image encoders
SPEC = ImageSpec(224, MEAN, STD)
TOLERANCE = 3.0  # grey levels of 255, mean over pixels: interpolation and scaled decoding differ


@dataclass(frozen=True)
class Aim:
    """What a trial should reach; None where nothing is asked."""

    ratio: float | None = None  # how many times better than the reference, at least
    at_least: float | None = None  # in the trial's unit
    at_most: float | None = None  # likewise, where less is better


class Trial(NamedTuple):
    """A row of the table.

    Args:
        figures: number of rounds -> what was measured.
        compare: AssertionError where the two sides do other work.
    """

    unit: str
    figures: Callable[[int], Figures]
    compare: Callable[[], None]
    less_is_better: bool = False


def race(unit: str, count: int, reference: measure.Work, ours: measure.Work, compare: Callable[[], None]) -> Trial:
    """Things a second of processor time, over all threads: other work on the machine counts little.

    Args:
        count: things that one call of a side does.
    """

    def figures(rounds: int) -> Figures:
        spent = measure.race({"reference": reference, "ours": ours}, rounds, clock=time.process_time)
        return {name: [count / seconds for seconds in taken] for name, taken in spent.items()}

    return Trial(unit, figures, compare)


# ------------------------------------------------------------------------------------------------- images


def finished(transform: RadiographTransform, images: Sequence[np.ndarray], numbers: Any = None) -> Tensor:
    """The device half: uint8 [S, S] of each image -> float32 [B, 3, S, S]."""
    nothing = torch.empty(0)
    augment = None if numbers is None else torch.from_numpy(np.stack(numbers)[:, None])
    batch = Batch(torch.from_numpy(np.stack(images)[:, None, None]), augment, None, nothing, nothing)
    found = transform.finish(batch).images
    assert found is not None
    return found[:, 0]


def compare_images(ours: Tensor, reference: Tensor) -> None:
    """Normalised images [B, 3, S, S].

    Raises:
        AssertionError: they differ by more grey levels than `TOLERANCE`.
    """
    levels = float(((ours - reference).abs() * torch.tensor(STD).view(3, 1, 1)).mean()) * 255
    if not levels <= TOLERANCE:
        raise AssertionError(f"images differ from the reference by {levels:.1f} grey levels, more than {TOLERANCE}")


def decode(
    folder: Path, quick: bool, full: tuple[int, int, int], tiny: tuple[int, int, int], grain: float
) -> dict[str, Trial]:
    """JPEG files -> model input, as evaluation reads them.

    Args:
        full, tiny: number, width and height of the files.
    """
    count, width, height = tiny if quick else full
    decoded = data_inputs.phantoms(folder, 2 if quick else 8, 64 if quick else 512)
    paths = data_inputs.write_jpegs(folder / f"{width}x{height}", decoded, count, (width, height), grain, quality=95)

    def reference(spec: ImageSpec = SPEC) -> Tensor:
        return references.read_batch(paths, references.evaluation_pipeline(spec))

    def ours(spec: ImageSpec = SPEC) -> Tensor:
        transform = RadiographTransform(spec, fit="crop", scale=None)
        side = transform.needed_side_px(augmented=False)
        return finished(transform, [transform.geometry(FULL_SIZE.read(path, side), None) for path in paths])

    def compare() -> None:
        even = ImageSpec(256, MEAN, STD)  # torchvision rounds the middle of 273 lines to half a pixel, not that of 312
        compare_images(ours(even), reference(even))

    megabytes = sum(path.stat().st_size for path in paths) / count / 1e6
    title = f"{width}x{height}, {megabytes:.2g} MB"
    return {title: race("images/s", count, reference, ours, compare)}


def augment(folder: Path, quick: bool) -> dict[str, Trial]:
    """Decoded images of 256 px -> model input, by CXR-CLIP's training recipe with CLAHE and jitter."""
    count = 2 if quick else 32
    decoded = list(itertools.islice(itertools.cycle(data_inputs.phantoms(folder, 2 if quick else 32, 256)), count))
    images = [Image.fromarray(pixels).convert("RGB") for pixels in decoded]
    node = compose("train", ["transform=cxr_clip"])["transform"]
    transform: RadiographTransform = build(node, RadiographTransform, "transform", {"spec": SPEC}, OWN_PACKAGES)
    pipeline = references.training_pipeline(SPEC)
    epochs = itertools.count()

    def ours() -> Tensor:
        epoch, squares, numbers = next(epochs), [], []
        for k, pixels in enumerate(decoded):
            rng = stream(0, IMAGE, epoch, k, 0)
            squares.append(transform.geometry(pixels, rng))
            numbers.append(transform.draw(rng))
        return finished(transform, squares, numbers)

    def reference() -> Tensor:
        return torch.stack([pipeline(image) for image in images])

    def compare() -> None:
        """Of the whole image with fixed factors, without CLAHE: the reference equalises the lightness of colours."""
        bright, contrast = 1.08, 0.85
        fixed = ((bright, bright), (contrast, contrast), (1.2, 1.2), (0.1, 0.1))
        plain = references.training_pipeline(SPEC, (1.0, 1.0), (1.0, 1.0), clahe_probability=0.0, jitter=fixed)
        whole = RadiographTransform(SPEC, scale=None, rotate_deg=0.0, gamma=0.0)
        numbers = [np.array([1.0, bright, contrast, 0.0], dtype=np.float32)] * count
        squares = [whole.geometry(pixels, np.random.default_rng(0)) for pixels in decoded]
        compare_images(finished(whole, squares, numbers), torch.stack([plain(image) for image in images]))

    return {"256 px, CLAHE, jitter": race("images/s", count, reference, ours, compare)}


# ------------------------------------------------------------------------------------------------- texts


def compare_pieces(name: str, found: Sequence[Any], wanted: Sequence[Any]) -> None:
    """Arrays or tensors [N, L].

    Raises:
        AssertionError: they differ.
    """
    if not all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)):
        raise AssertionError(f"{name}: pieces differ from the reference's")


def tokens(folder: Path, quick: bool) -> dict[str, Trial]:
    """A batch of 128 reports -> word pieces: looked up by sentence, and tokenised.

    `fast` against Hugging Face's fast tokenizer with the largest vocabulary that the reports give; `tiny` against this
    package's own way without a table, which also tells the words.
    """
    reports = data_inputs.reports(256 if quick else 128 * 24)
    return {
        name: _looked_up(name, reports, vocabulary, max_length)
        for name, vocabulary, max_length in (("fast", 30522, 256), ("tiny", 2000, 96))
    }


def _looked_up(name: str, reports: Sequence[tuple[str, ...]], vocabulary: int, max_length: int) -> Trial:
    definition = learn_wordpiece([" ".join(report) for report in reports], vocabulary)
    tokenizer = PackedTokenizer(definition, max_length)
    table = TokenTable({sentence for report in reports for sentence in report}, tokenizer)
    fast = references.fast_tokenizer(definition, max_length)

    def by_fast(batch: Any) -> list[Tensor]:
        found = fast([" ".join(text) for text in batch])
        return [found["input_ids"], found["attention_mask"]]

    def live(batch: Any) -> list[Tensor]:
        return [torch.from_numpy(part) for part in tokenize(batch, tokenizer)]

    def cached(batch: Any) -> list[Tensor]:
        return [torch.from_numpy(part) for part in table(batch)]

    plain = by_fast if name == "fast" else live
    batches = [reports[k : k + 128] for k in range(0, len(reports), 128)]

    def all_of(way: Callable[[Any], list[Tensor]]) -> None:
        for batch in batches:
            way(batch)

    def compare() -> None:
        for batch in batches:
            wanted = plain(batch)
            compare_pieces(name, cached(batch)[: len(wanted)], wanted)

    return race("texts/s", len(reports), partial(all_of, plain), partial(all_of, cached), compare)


def first_reading(folder: Path, quick: bool) -> dict[str, Trial]:
    """Files -> grey images as training decodes them: with the hash of the first reading, and without."""
    decoded = data_inputs.phantoms(folder, 2 if quick else 8, 64 if quick else 512)
    large, small = ((2, 580, 707), (2, 39, 32)) if quick else ((6, 2320, 2828), (64, 390, 320))
    files = {
        f"{width}x{height} JPEG": data_inputs.write_jpegs(
            folder / f"{width}", decoded, count, (width, height), grain=grain, quality=95
        )
        for (count, width, height), grain in ((large, 3.3), (small, 1.0))
    }
    square = data_inputs.phantoms(folder, 2 if quick else 32, 96)
    files["96 px PNG"] = data_inputs.write_png_set(folder / "png", square, 4 if quick else 256, grain=2.0)

    def trial(paths: Sequence[Path]) -> Trial:
        def reference() -> list[np.ndarray]:
            return [FULL_SIZE.read(path, SPEC.size) for path in paths]

        def ours() -> list[np.ndarray]:
            return [FULL_SIZE.read_hashed(path, SPEC.size)[0] for path in paths]

        def compare() -> None:
            for one, other in zip(ours(), reference(), strict=True):
                compare_stored(one, other)

        return race("images/s", len(paths), reference, ours, compare)

    return {title: trial(paths) for title, paths in files.items()}


# ------------------------------------------------------------------------------------------------- store


def compare_stored(stored: Any, files: Any) -> None:
    """AssertionError where pixels differ."""
    if not np.array_equal(stored, files):
        raise AssertionError("images of the store differ from those of the files")


def packed_store(folder: Path, quick: bool) -> dict[str, Trial]:
    """Images of 256 px in batches of 64, uint8: out of a packed store, and out of the PNG files that it was made of."""
    count = 64 if quick else 1024
    decoded = data_inputs.phantoms(folder, 2 if quick else 32, 256)
    paths = data_inputs.write_png_set(folder / "png", decoded, count, grain=2.0)
    packing.pack(folder / "png", folder / "store", read_px=256)
    places = [store.place(folder / "store", number) for number in range(count)]
    how = ImageReader(256)

    def ours() -> list[np.ndarray]:
        return [np.stack([how.read(place) for place in places[k : k + 64]]) for k in range(0, count, 64)]

    def reference() -> list[np.ndarray]:
        return [references.decode(paths[k : k + 64]) for k in range(0, count, 64)]

    def compare() -> None:
        compare_stored(ours(), reference())

    return {"256 px": race("images/s", count, reference, ours, compare)}


# ---------------------------------------------------------------------------------------------- a step


def loader_share(folder: Path, quick: bool) -> dict[str, Trial]:
    """The share of the demo's step that goes to its data: images from PNG files, and from a packed store."""
    files, packed = data_waits.images_on_disk(folder, quick)
    steps, runs = (6 if quick else 40), itertools.count()

    def figures(rounds: int, num_workers: int) -> Figures:
        found: Figures = {"reference": [], "ours": []}
        for turn in range(rounds):
            for from_store in (False, True) if turn % 2 else (True, False):
                place, run_dir = packed if from_store else files, folder / f"run{next(runs)}"
                share = data_waits.demo_step(place, run_dir, steps, from_store, num_workers, quick)
                found["ours" if from_store else "reference"].append(share)
        return found

    def compare() -> None:
        """The images; that training sees the same samples is for the tests."""
        paths = sorted(files.glob("images/*/*.png"))
        rows = {path: k for k, path in enumerate(load(files, check_patients=False).rows["path"])}
        for path in paths[:16]:
            compare_stored(store.image(str(packed), rows[str(path)]), FULL_SIZE.read(path))

    return {
        f"{workers} workers": Trial(unit, partial(figures, num_workers=workers), compare, less_is_better=True)
        for workers, unit in ((2, "% of time, waited"), (0, "% of processor time"))
    }


@dataclass(frozen=True)
class Case:
    """A line or several of the table.

    Args:
        make: (a folder for its files, tiny sizes only) -> trials by what tells them apart.
        aims: by trial, or one for all.
        rounds: at full size.
    """

    make: Callable[[Path, bool], dict[str, Trial]]
    aims: Mapping[str, Aim] | Aim
    rounds: int = 9

    def aim(self, trial: str) -> Aim:
        return self.aims if isinstance(self.aims, Aim) else self.aims.get(trial, Aim())


CASES = {
    "decode_full": Case(partial(decode, full=(6, 2320, 2828), tiny=(1, 580, 707), grain=3.3), Aim(ratio=2.5)),
    "decode_small": Case(partial(decode, full=(32, 390, 320), tiny=(2, 390, 320), grain=1.0), Aim(ratio=2.2), 15),
    "augment": Case(augment, Aim(ratio=2.0)),
    "tokens": Case(tokens, Aim(ratio=20)),
    "store": Case(packed_store, Aim(at_least=30_000)),
    "first_reading": Case(first_reading, Aim()),
    "loader_share": Case(loader_share, {"2 workers": Aim(at_most=2.0)}, 3),
}
