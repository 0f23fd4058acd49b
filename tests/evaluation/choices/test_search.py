"""The engine on embeddings that are drawn: a cause that is planted by arithmetic of the test's own is named first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from cxrcl.evaluation.choices import labels, scoring, texts
from cxrcl.evaluation.choices.bench import Bench, Members
from cxrcl.evaluation.choices.choice import NOW, Change, Choice, Reading, Stage, Unavailable, Variant, state
from cxrcl.evaluation.choices.figures import DECISION_CHOICE
from cxrcl.evaluation.choices.scoring import Embedded
from cxrcl.evaluation.choices.search import Findings, Search, Target

NAMES = ("No Finding", "Cardiomegaly", "Edema", "Pneumonia", "Fracture")
N, D = 240, 24
RANDOM = np.random.default_rng(3)
TRUTH = (RANDOM.random((N, 5)) < (0.4, 0.3, 0.4, 0.5, 0.3)).astype(float)
TRUTH[RANDOM.random((N, 5)) < 0.12] = -1
TRUTH[RANDOM.random((N, 5)) < 0.15] = np.nan
AXES = RANDOM.normal(size=(5, D))
FOUND = np.nan_to_num(TRUTH)
IMAGES = {
    "as now": FOUND @ AXES + 1.5 * RANDOM.normal(size=(N, D)) * 2,
    "dark": FOUND @ AXES * 0.6 + RANDOM.normal(size=(N, D)) * 3,
    "light": FOUND @ AXES * 0.7 + RANDOM.normal(size=(N, D)) * 3,
}
POSITIVE = {
    file: {name: AXES[k] + RANDOM.normal(size=(n, D)) * 0.7 for k, name in enumerate(NAMES)}
    for file, n in (("a", 4), ("b", 2))
}
NEGATIVE = {
    file: {name: -0.3 * AXES[k] + RANDOM.normal(size=(n, D)) for k, name in enumerate(NAMES)}
    for file, n in (("a", 3), ("b", 2))
}
TABLE = pd.DataFrame(
    {
        "image": [f"{k}.png" for k in range(N)],
        "patient": [f"{k // 2}" for k in range(N)],
        "study": [f"{k // 2}" for k in range(N)],
        "view": ["PA" if k % 3 else "Lateral" for k in range(N)],
        "split": ["valid" if k % 4 == 0 else "test" for k in range(N)],
    }
)
FIGURES = [f"auroc/{name}" for name in NAMES]


def normalised(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pictures(kind: str) -> Variant:
    return Variant(kind, lambda _: kind, f"image.{kind}")


IMAGE_CHOICE = Choice("light of the images", Stage.IMAGES, NOW, (pictures("dark"), pictures("light")))


def make_bench(embedded: list[str] | None = None) -> Bench:
    families = {file: {name: {"pos": [file]} for name in NAMES} for file in POSITIVE}
    choices = [
        IMAGE_CHOICE,
        texts.family_choice(families, "a"),
        *scoring.choices("direction", "both", True),
        *labels.row_choices(TABLE, ["test"]),
        *labels.label_choices(labels.Truth(NAMES, TRUTH, NAMES[1:])),
        labels.mean_choice(labels.Truth(NAMES, TRUTH, NAMES[1:])),
        DECISION_CHOICE,
    ]

    def embed(reading: Reading) -> Members:
        kind = state(choices, Stage.IMAGES, reading, "as now")
        read = state(choices, Stage.TEXTS, reading, texts.Texts(families["a"]))
        file = read.sentences["Edema"]["pos"][0]
        if embedded is not None:
            embedded.append(f"{kind} {file}")
        return Members([Embedded(normalised(IMAGES[kind]), POSITIVE[file], NEGATIVE[file], 12.0)])

    return Bench(choices, embed, labels.Truth(NAMES, TRUTH, NAMES[1:]), labels.Rows(TABLE, np.ones(N, dtype=bool)))


def target_of(
    kind: str = "as now",
    file: str = "a",
    score: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda positive, negative: positive - negative,
    splits: Sequence[str] = ("test",),
    uncertain: float = np.nan,
    blank: float = np.nan,
    frontal: bool = False,
    mean: bool = False,
    over: Callable[[np.ndarray], np.ndarray] = lambda cosines: cosines.mean(axis=1),
) -> dict[str, float]:
    """AUROC by scikit-learn, from similarities of the test's own.

    The cosine to the mean direction is the mean cosine but for a factor of the group: both sides' factors matter.
    """
    images = normalised(IMAGES[kind])
    sides = []
    for group in (POSITIVE[file], NEGATIVE[file]):
        columns = []
        for name in NAMES:
            cosines = images @ normalised(group[name]).T
            length = np.linalg.norm(normalised(group[name]).mean(axis=0)) if mean else 1.0
            columns.append(over(cosines) / length)
        sides.append(np.stack(columns, axis=1))
    scores = score(*sides)
    rows = TABLE["split"].isin(splits).to_numpy() & ((TABLE["view"] == "PA").to_numpy() | (not frontal))
    found = {}
    for k, name in enumerate(NAMES):
        truth = np.where(TRUTH[:, k] == -1, uncertain, TRUTH[:, k])
        truth = np.where(np.isnan(TRUTH[:, k]), blank, truth)
        known = rows & ~np.isnan(truth)
        found[f"auroc/{name}"] = float(roc_auc_score(truth[known], scores[known, k]))
    return found


def found_by(target: Mapping[str, float], bench: Bench | None = None, tolerance: float = 0.0005) -> Findings:
    bench = bench or make_bench()
    return Search(bench.choices, bench.figures, Target(target, tolerance), seconds=30).run()


DIRECTION = {"mean": True}
SINGLE = {
    "averaging of prompts: mean similarity": {},
    "averaging of prompts: largest similarity": {"over": lambda cosines: cosines.max(axis=1)},
    "prompts: b": {"file": "b", **DIRECTION},
    "light of the images: dark": {"kind": "dark", **DIRECTION},
    "split: valid": {"splits": ["valid"], **DIRECTION},
    "uncertain labels: uncertain: ones": {"uncertain": 1.0, **DIRECTION},
    "blank labels: blank is negative": {"blank": 0.0, **DIRECTION},
    "images: frontal only": {"frontal": True, **DIRECTION},
    "score: softmax over labels": {"score": lambda p, n: softmax(12.0 * p, axis=1), **DIRECTION},
}


@pytest.mark.parametrize("cause", SINGLE)
def test_a_planted_cause_comes_first(cause: str) -> None:
    found = found_by(target_of(**SINGLE[cause]))
    assert found.tried[0].label == found.reached[0].label == cause
    assert found.reached[0].distance < 1e-6 < found.start.distance


def test_nothing_is_named_where_there_is_no_cause() -> None:
    found = found_by(target_of(mean=True))
    assert [one.reading for one in found.reached] == [()]


def test_two_causes_are_found_together_and_no_single_one_is_named() -> None:
    found = found_by(target_of("dark", file="b", mean=True))
    assert found.reached[0].label == found.tried[0].label == "light of the images: dark + prompts: b"


def test_three_causes_are_found_together() -> None:
    found = found_by(target_of("light", file="b", uncertain=1.0, mean=True))
    assert found.reached[0].label == "light of the images: light + prompts: b + uncertain labels: uncertain: ones"


def test_what_reaches_nothing_is_said() -> None:
    found = found_by(dict.fromkeys(FIGURES, 0.99))
    assert found.reached == [] and found.tried[0].distance < found.start.distance
    assert [one.distance for one in found.tried] == sorted(one.distance for one in found.tried)


def test_figures_that_a_change_leaves_as_they_are_are_named_and_not_ranked() -> None:
    found = found_by(target_of())
    assert "threshold: largest F1 on the scored images" in found.without_effect  # AUROC knows no threshold
    assert "score: positive only, cosine" not in found.without_effect


def test_equal_rankings_are_told_apart_by_other_metrics_only() -> None:
    bench = make_bench()
    reading = (of(bench, "scale", "bare cosines"),)
    rankings, decisions = ["mean_auroc", "mean_auprc"], ["mean_f1", "mean_ece"]
    assert bench.figures(rankings, reading) == bench.figures(rankings)
    assert bench.figures(decisions, reading) != bench.figures(decisions)
    found = found_by(bench.figures(decisions, reading), bench)
    assert found.tried[0].label == "scale: bare cosines"


def of(bench: Bench, choice: str, variant: str) -> Change:
    return next(
        Change(one, each) for one in bench.choices for each in one.others if (one.name, each.name) == (choice, variant)
    )


def test_decisions_are_those_of_scikit_learn() -> None:
    bench = make_bench()
    found = bench.figures(["accuracy/Edema", "f1/Edema"], (of(bench, "score", "positive only, sigmoid"),))
    groups = [normalised(POSITIVE["a"][name]).mean(axis=0) for name in NAMES]
    cosine = normalised(IMAGES["as now"]) @ (groups[2] / np.linalg.norm(groups[2]))
    rows = (TABLE["split"] == "test").to_numpy() & np.isin(TRUTH[:, 2], (0, 1))
    called, truth = cosine[rows] >= 0, TRUTH[rows, 2]
    assert found["accuracy/Edema"] == pytest.approx(accuracy_score(truth, called), abs=1e-12)
    assert found["f1/Edema"] == pytest.approx(f1_score(truth, called), abs=1e-12)


def test_one_pass_over_the_images_serves_all_that_comes_after_it() -> None:
    passes: list[str] = []
    bench = make_bench(passes)
    found_by(target_of("dark", uncertain=1.0, mean=True), bench)
    of_dark = [one for one in passes if one.startswith("dark")]
    assert 0 < len(of_dark) <= 20  # of each prompts file, averaging and score, whatever the labels


def test_what_cannot_be_tried_is_listed_with_the_reason() -> None:
    bench = make_bench()

    def measure(names: Sequence[str], reading: Reading) -> Mapping[str, float]:
        if any(change.choice is IMAGE_CHOICE for change in reading):
            raise Unavailable("images are not read")
        return bench.figures(names, reading)

    found = Search(bench.choices, measure, Target({"mean_auroc": 0.5}, 0.001), seconds=0).run()
    assert found.not_tried == {f"light of the images: {kind}": "images are not read" for kind in ("dark", "light")}


def test_ctrl_c_keeps_what_is_known() -> None:
    bench, calls = make_bench(), []

    def measure(names: Sequence[str], reading: Reading) -> Mapping[str, float]:
        calls.append(reading)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return bench.figures(names, reading)

    found = Search(bench.choices, measure, Target(target_of(), 0.0005)).run()
    assert not found.complete and 0 < len(found.tried) <= 4


def test_intervals_are_of_patients_and_hold_the_figure() -> None:
    names = ["mean_auroc", "auroc/Edema"]
    scores, plain = make_bench().intervals(names, resamples=100), make_bench().figures(names)
    for name in names:
        assert plain[name] == pytest.approx(scores[name].value, abs=1e-9)
        assert scores[name].low < plain[name] < scores[name].high
