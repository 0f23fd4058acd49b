"""The spread of one figure over readings, on a model whose embeddings are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import FixedData
from known_model import Known

from cxrcl.distributed import Runtime
from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.evaluation.metrics import mean_auroc
from cxrcl.evaluation.zero_shot import ZeroShot

FAMILIES = {
    "a.json": {
        "Cardiomegaly": {"pos": ["big heart", "the heart is large"], "neg": ["small heart"]},
        "Edema": {"pos": ["edema", "fluid"], "neg": ["no edema", "dry lungs"]},
    },
    "b.json": {
        "Cardiomegaly": {"pos": ["cardiomegaly"], "neg": ["no cardiomegaly"]},
        "Edema": {"pos": ["oedema"], "neg": ["no oedema"]},
    },
}
# The columns of the 7 images of `data`, patients of two images each: without blanks, so that labels have one meaning.
LABELS = ("Cardiomegaly", "Edema")


@pytest.fixture
def zero_shot(data: FixedData) -> ZeroShot:
    return ZeroShot(
        data, lambda file, labels: FAMILIES[file], ("valid", "test"), "a.json", ["b.json"], multiverse={"seen: x": 0.99}
    )


def test_minimum_median_maximum_and_number_are_those_of_all_readings(
    zero_shot: ZeroShot, data: FixedData, known: Known, alone: Runtime
) -> None:
    metrics = Evaluators({"z": zero_shot}, data, 4)(known, alone)["z"].metrics
    values = [0.99]
    images = np.concatenate([known.embed_images(known.encode_images(batch)) for batch in pictures(data)])
    truth = np.concatenate([data.truth(split).numpy() for split in ("valid", "test")])[:, 1:]
    for family, over, sides in itertools.product(FAMILIES.values(), ("direction", "mean", "max"), ("both", "positive")):
        scores = []
        for name in LABELS:
            both = []
            for side in ("pos", "neg"):
                vectors = np.stack([known.text(sentence).numpy() for sentence in family[name][side]])
                mean = vectors.mean(axis=0)
                similarity = {
                    "direction": images @ (mean / np.linalg.norm(mean)),
                    "mean": images @ mean,
                    "max": (images @ vectors.T).max(axis=1),
                }[over]
                both.append(similarity)
            scores.append(both[0] - both[1] if sides == "both" else both[0])
        stacked = np.stack(scores, axis=1)
        first = [0, 2, 4, 6]  # of each patient
        for rows, blank in ((slice(None), False), (slice(None), True), (first, False)):
            labels = np.nan_to_num(truth, nan=0.0) if blank else truth
            # The unit vectors of this model are its projections: both means of directions are one reading of two names.
            twice = 2 if over == "direction" else 1
            values += [mean_auroc(stacked[rows], labels[rows], LABELS)] * twice
    expected = [value for value in values if not np.isnan(value)]
    assert metrics["multiverse/readings"] == len(expected)
    assert metrics["multiverse/min"] == pytest.approx(min(expected), abs=1e-6)
    assert metrics["multiverse/median"] == pytest.approx(np.median(expected), abs=0.05)  # 7 images have near ties
    assert metrics["multiverse/max"] == pytest.approx(max(expected), abs=1e-6)
    assert metrics["alone/seen: x"] == 0.99
    assert metrics["alone/prompts: b.json"] == pytest.approx(metrics["b/combined"])


def pictures(data: FixedData):  # type: ignore[no-untyped-def]
    for split in ("valid", "test"):
        for batch in data.batches(split, range(data.size(split)), 4):
            yield batch.images[:, 0]


def test_training_measures_no_spread(data: FixedData, known: Known, alone: Runtime) -> None:
    plain = ZeroShot(data, lambda file, labels: FAMILIES[file], ("test",), "a.json")
    metrics = Evaluators({"z": plain}, data, 4)(known, alone)["z"].metrics
    assert not [name for name in metrics if name.startswith(("multiverse", "alone"))]
