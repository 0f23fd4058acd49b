"""The multiverse of a checkpoint: one figure over all readings that need no second pass over the images.

A single figure hides that others could have been published of the same weights and images (Steegen et al. 2016,
"Increasing transparency through a multiverse analysis"). Only choices are taken that published protocols make.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cxrcl.evaluation.choices import labels, scoring, texts
from cxrcl.evaluation.choices.bench import Bench, Members
from cxrcl.evaluation.choices.choice import Change, Choice, Reading, Stage, Unavailable, key, state
from cxrcl.evaluation.choices.choice import changes as every_change
from cxrcl.evaluation.choices.labels import Rows, Truth
from cxrcl.evaluation.choices.scoring import Embedded

# Of the scores: no published protocol takes the negative sentences alone, and softmax over labels is for one label an
# image. The learned scale and the threshold change no ranking.
SCORES = ("positive minus negative", "positive only, sigmoid")
AVERAGES = ("mean direction", "mean embedding", "mean similarity", "largest similarity")


def spread(
    images: np.ndarray,
    families: Mapping[str, texts.Sentences],
    embed: Callable[[Sequence[str]], np.ndarray],
    truth: Truth,
    rows: Rows,
    over: str,
    sides: str,
    image_readings: Mapping[str, float],
) -> dict[str, float]:
    """Mean AUROC of all readings: `multiverse/min`, `/median`, `/max` and `/readings`; `alone/<change>` of single ones.

    Args:
        images: unit vectors float32 [N, D].
        families: prompts file -> its sentences, the current one first.
        embed: n sentences -> their embeddings as they are, float32 [n, D].
        truth, rows: the labels and the table of these images.
        over, sides: the current ones, see `cxrcl.evaluation.choices.scoring.choices`.
        image_readings: changes that needed passes of their own -> the mean AUROC of each (from `cxrcl explain`).
    """
    current = next(iter(families))
    of_text = [texts.family_choice(families, current), *scoring.choices(over, sides, True)[:2]]
    of_text[1:] = [_only(choice, (*AVERAGES, *SCORES)) for choice in of_text[1:]]
    of_data = [*labels.image_choices(rows.table), *labels.blank_choices(truth)]
    means = {"": truth.mean_over}
    for variant in labels.mean_choice(truth).others:
        over_labels = tuple(name for name in variant.step(truth).mean_over if name in families[current])
        if over_labels and set(over_labels) not in map(set, means.values()):
            means[f"labels in the mean: {variant.name}"] = over_labels
    choices = [*of_text, *of_data]
    known: dict[tuple[str, ...], Members] = {}

    def members(reading: Reading) -> Members:
        at = key(reading, Stage.TEXTS)
        if at not in known:
            read = state(choices, Stage.TEXTS, reading, texts.Texts(families[current]))
            positive, negative = (
                {name: embed(kinds[side]) for name, kinds in read.sentences.items() if kinds.get(side)}
                for side in ("pos", "neg")
            )
            known[at] = Members([Embedded(images, positive, negative)])
        return known[at]

    bench = Bench(choices, members, truth, rows)
    figures = [f"auroc/{name}" for name in truth.names]
    values: dict[str, float] = {}
    data: list[tuple[Change, ...]] = [()] + [(change,) for change in every_change(of_data)]
    for score in _product(of_text):
        for change in data:
            try:
                found = bench.figures(figures, (*score, *change))
            except Unavailable:
                continue
            for title, over_labels in means.items():
                areas = [found[f"auroc/{name}"] for name in over_labels]
                there = [area for area in areas if not np.isnan(area)]
                label = " + ".join([*(one.label for one in (*score, *change)), *([title] if title else [])])
                if there:
                    values[label] = float(np.mean(there))
    values |= image_readings
    if not values:
        return {}
    every = np.array(list(values.values()))
    single = {label: value for label, value in values.items() if label and " + " not in label}
    return {
        "multiverse/min": float(every.min()),
        "multiverse/median": float(np.median(every)),
        "multiverse/max": float(every.max()),
        "multiverse/readings": float(len(every)),
        **{f"alone/{label}": value for label, value in single.items()},
    }


def _only(choice: Choice, names: Sequence[str]) -> Choice:
    return Choice(choice.name, choice.stage, choice.current, tuple(one for one in choice.others if one.name in names))


def _product(choices: Sequence[Choice]) -> list[Reading]:
    """Every combination of the variants of these choices."""
    options = [[(), *((Change(choice, variant),) for variant in choice.others)] for choice in choices]
    return [tuple(itertools.chain(*parts)) for parts in itertools.product(*options)]
