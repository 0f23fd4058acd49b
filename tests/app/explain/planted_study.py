"""The study of planted causes: each has to be named first, alone and in pairs, by code that did not plant it.

    PYTHONPATH=. python tests/app/explain/planted_study.py FOLDER

keeps data, two small checkpoints and all passes in FOLDER and writes the tables of docs/explain.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from planted_data import train_checkpoints, write_data
from planted_targets import IMAGENET, Lab, Way

from cxrcl.app.explain.explain import Explainer, opened
from cxrcl.app.explain.targets import read_target
from cxrcl.commands.hydra import compose
from cxrcl.evaluation.choices.search import Findings

MOVES = 0.001  # the distance that counts as reached for figures of three digits
DOCS = Path(__file__).parents[3] / "docs" / "explain.md"

# Name of the cause as explain prints it -> how the target is made.
CAUSES: dict[str, Way] = {
    "normalisation: ImageNet's": Way(constants=IMAGENET),
    "normalisation: none (images in 0 .. 1)": Way(constants=((0.0,) * 3, (1.0,) * 3)),
    "normalisation: each image's own": Way(constants=None),
    "fit: squash": Way(fit="squash"),
    "fit: crop": Way(fit="crop"),
    "fit: pad, resized to 73 and cut to the middle 64": Way(share=0.875),
    "interpolation: nearest": Way(nearest=True),
    "window: inverted": Way(window="inverted"),
    "window: percentiles 1 to 99": Way(window="percentiles"),
    "window: histogram equalised": Way(window="equalised"),
    "weights: as trained": Way(weights="model"),
    "special tokens: without [SEP]": Way(frame=(True, False)),
    "special tokens: none": Way(frame=(False, False)),
    "template around a sentence: a photo of {}": Way(template="a photo of {}"),
    "prompts: chexpert.json": Way(prompts="chexpert.json"),
    "averaging of prompts: largest similarity": Way(average="largest"),
    "averaging of prompts: mean similarity": Way(average="similarity"),
    "averaging of prompts: mean embedding": Way(average="embedding"),
    "score: positive only, sigmoid": Way(score="positive"),
    "score: softmax over labels": Way(score="softmax"),
    "scale: bare cosines": Way(scaled=False, figures="decisions"),
    "threshold: largest F1 on the scored images": Way(threshold="best", figures="decisions"),
    "split: valid": Way(splits=("valid",)),
    "split: valid + test": Way(splits=("valid", "test")),
    "images: frontal only": Way(frontal=True),
    "images of a patient: first of each patient": Way(first_of_patient=True),
    "uncertain labels: uncertain: ones": Way(uncertain=1.0),
    "uncertain labels: uncertain: zeros": Way(uncertain=0.0),
    "blank labels: blank is negative": Way(blank=0.0),
    "labels in the mean: all labels": Way(normal_in_mean=True),
}
OF_ONE = {
    "resnet": {
        "image pooling: largest of the regions": Way(image_pooling="largest"),
        "text pooling: cls": Way(text_pooling="cls"),
    },
    "vit": {"image pooling: cls": Way(image_pooling="cls"), "text pooling: mean": Way(text_pooling="mean")},
}
PAIRS: dict[str, Way] = {
    "normalisation: ImageNet's + uncertain labels: uncertain: ones": Way(constants=IMAGENET, uncertain=1.0),
    "fit: squash + special tokens: without [SEP]": Way(fit="squash", frame=(True, False)),
    "score: positive only, sigmoid + split: valid": Way(score="positive", splits=("valid",)),
    "averaging of prompts: largest similarity + blank labels: blank is negative": Way(average="largest", blank=0.0),
    "template around a sentence: a photo of {} + weights: as trained": Way(weights="model", template="a photo of {}"),
}


@dataclass(frozen=True)
class Outcome:
    """What was printed of a target that was planted.

    Attributes:
        place: of the true cause, from 1; lists with the very same figures share a place. 0: not printed.
        reached: number of lists that reach the target.
        start, true: distances of the current settings and of the true cause; nan: not measured.
    """

    place: int
    reached: int
    start: float
    true: float


@contextmanager
def case(folder: Path, name: str) -> Iterator[tuple[Explainer, Lab]]:
    """A checkpoint with what explains it, and the laboratory that plants causes."""
    data = write_data(folder / "data")
    checkpoint = train_checkpoints(folder / "runs", data)[name]
    settings = [f"checkpoint='{checkpoint}'", "target=0", "device=cpu", "data.num_workers=0", "images=1300"]
    with opened(compose("explain", [*settings, "seconds=40"]), out=folder / f"passes_{name}") as explainer:
        yield explainer, Lab(checkpoint, data)


def outcome(explainer: Explainer, figures: dict[str, float], cause: str = "") -> Outcome:
    """What is printed first: the shortest lists that reach the figures, else what comes nearest."""
    target, _ = read_target(figures, "mean_auroc", "zero_shot", explainer.names, None)
    found: Findings = explainer.search(target)
    shown = found.reached or found.tried
    true = next((one for one in shown if one.label == cause), None)
    place = 0 if true is None else 1 + sum(one.distance < true.distance - 1e-9 for one in shown)
    measured = next((one.distance for one in found.tried if one.label == cause), float("nan"))
    of_current = bool(found.reached) and not found.reached[0].reading
    return Outcome(place, 0 if of_current else len(found.reached), found.start.distance, measured)


def study(name: str, explainer: Explainer, lab: Lab) -> tuple[dict[str, Outcome], dict[str, Outcome], Outcome]:
    """Outcomes by cause, of the figures of all labels and of their mean alone, and that of no cause at all."""
    by_label, by_mean = {}, {}
    for cause, way in {**CAUSES, **OF_ONE[name], **PAIRS}.items():
        figures = lab.figures(way)
        by_label[cause] = outcome(explainer, figures, cause)
        means = {one: value for one, value in figures.items() if one.startswith("mean_")}
        by_mean[cause] = outcome(explainer, means, cause)
        print(cause, by_label[cause], by_mean[cause], flush=True)
    return by_label, by_mean, outcome(explainer, lab.figures(Way()))


def counted(outcomes: dict[str, Outcome]) -> tuple[int, int, int, int]:
    """True causes that come first and all, of single ones and of pairs, of those that move a figure.

    A cause that moves the figures by less than what counts as reached leaves nothing to explain; so does that part of a
    pair.
    """
    moves = {cause for cause, one in outcomes.items() if one.start > MOVES}
    moves -= {pair for pair in PAIRS if not all(part in moves for part in pair.split(" + ") if part in outcomes)}
    alone, pairs = ([c for c in outcomes if c in moves and (c in PAIRS) == yes] for yes in (False, True))
    first = [sum(outcomes[cause].place == 1 for cause in some) for some in (alone, pairs)]
    return first[0], len(alone), first[1], len(pairs)


def table(name: str, by_label: dict[str, Outcome], by_mean: dict[str, Outcome], control: Outcome) -> str:
    """The outcomes as Markdown."""
    lines = ["| planted | now | true | place | lists | place by the mean | lists |", "|---|---|---|---|---|---|---|"]
    for cause, one in by_label.items():
        mean, true = by_mean[cause], "-" if one.true != one.true else f"{one.true:.4f}"
        places = (one.place or "-", one.reached, mean.place or "-", mean.reached)
        lines.append(f"| {cause} | {one.start:.4f} | {true} | {' | '.join(map(str, places))} |")
    lines.append(f"| none (control) | {control.start:.4f} | | | {control.reached} | | |")
    summaries = []
    for words, outcomes in (("by the figures of all labels", by_label), ("by the mean alone", by_mean)):
        numbers = counted({cause: replace(one, start=by_label[cause].start) for cause, one in outcomes.items()})
        summaries.append("{}: {} of {} alone, {} of {} pairs".format(words, *numbers))
    still = sum(one.start <= MOVES for one in by_label.values())
    return "\n".join(
        [
            f"**{name}**: of the causes that move a figure, the true one came first",
            *(f"{summary};" for summary in summaries),
            f"{still} causes move none by more than {MOVES}. The control names none.",
            "",
            *lines,
        ]
    )


def write(name: str, text: str) -> None:
    """Put a table between its marks in docs/explain.md."""
    first, last = f"<!-- planted {name} -->", "<!-- end -->"
    page = DOCS.read_text(encoding="utf-8")
    pattern = re.compile(rf"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
    DOCS.write_text(pattern.sub(lambda _: f"{first}\n\n{text}\n\n{last}", page, count=1), encoding="utf-8")


if __name__ == "__main__":
    for one in sys.argv[2:] or OF_ONE:
        with case(Path(sys.argv[1]), one) as (opened_case, laboratory):
            write(one, table(one, *study(one, opened_case, laboratory)))
