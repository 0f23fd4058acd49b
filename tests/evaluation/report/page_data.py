"""A page with something in every section."""

from __future__ import annotations

import numpy as np
import torch
from score_data import LABELS, awkward

from cxrcl.evaluation.examples import Example, grey_png
from cxrcl.evaluation.report.content import Checkpoint, ClassSimilarity, Page, ScoredImages
from cxrcl.evaluation.report.facts import DataFacts, ModelFacts
from cxrcl.evaluation.representation import Dump, Space
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.models import score_models
from cxrcl.evaluation.scores.score_report import ScoreReport, Scores
from cxrcl.evaluation.scores.thresholds import ThresholdRule, predicted_from_scores
from cxrcl.evaluation.zero_shot_classes import ClassConfusion

COUNT = 150
MARKUP = "<b>$large$ & 'bold'"
FILM = torch.arange(64.0).reshape(8, 8)
NAMES = ("Edema", MARKUP)
METRICS = {
    "zero_shot": {
        "zero_shot/combined": 0.8,
        "zero_shot/affirmative": 0.7,
        "zero_shot/negated": 0.45,
        "over_prompts/mean": 0.8,
        "over_prompts/worst": 0.8,
    },
    "five": {
        "accuracy": 0.625,
        "chance": 0.5,
        "macro_f1": 0.61,
        "macro_recall": 0.6,
        "images": 8.0,
        "images/Edema": 4.0,
    },
    "retrieval": {
        f"{way}/{name}": value
        for way in ("image_to_text", "text_to_image")
        for name, value in {
            **{"r1": 0.11, "chance_r1": 0.02, "r5": 0.33, "chance_r5": 0.1, "median_rank": 7.5, "mean_rank": 9.0},
            **{"r1_low": 0.05, "r1_high": 0.2, "queries": 40.0, "gallery": 50.0, "p5": 0.4, "chance_p": 0.2},
        }.items()
    },
    "space": {"modality_gap": 0.7, "class_similarity": 0.31, "classes": 2.0},
    "loss": {"total": 3.25},
}


def labels() -> tuple[str, ...]:
    return (*LABELS[:2], MARKUP, *LABELS[3:])


def arrays() -> tuple[np.ndarray, np.ndarray, list[str]]:
    return awkward(count=COUNT)


def report(*names: str) -> ScoreReport:
    scores, truth, ids = arrays()
    models = [
        predicted_from_scores(name, labels(), scores ** (1 + k), None, ThresholdRule("given", 0.5), False)
        for k, name in enumerate(names)
    ]
    groups = {"sex": ["F" if k % 3 else "M" for k in range(COUNT)]}
    facts = {"files": {"p.csv": "12ab"}, "split": "test"}
    return score_models(models, truth, Patients(ids, 30), labels()[1:], groups, facts, ["a note"])


def space() -> Space:
    rng = np.random.default_rng(0)
    similarity = np.array([[1, 0.31], [0.31, 1]])
    dump = Dump("npy", ["a.png"], ["test"], labels(), np.zeros((1, 5)), np.ones((1, 4), np.float32))
    return Space(
        classes=NAMES,
        similarity=similarity,
        points=rng.normal(size=(12, 6)),
        point_labels=[NAMES[k % 2] for k in range(12)],
        modalities=["image"] * 8 + ["text"] * 4,
        along={"image": rng.normal(0.5, 0.1, 20), "text": rng.normal(-0.2, 0.1, 20)},
        methods=("pca",),
        dimensions=(2, 3),
        seed=0,
        dump=dump,
    )


def checkpoint(name: str = "run") -> Checkpoint:
    scores, truth, _ = arrays()
    example = Example("p1/a.png", grey_png(FILM), MARKUP, 0.42, 3, [("clear", 0.5), (MARKUP, 0.42)])
    return Checkpoint(
        name=name,
        facts=ModelFacts(checkpoint=f"{name}/best.pt", step=6, weights="as trained", fingerprint="12ab"),
        metrics=METRICS,
        scores={"zero_shot": Scores(labels(), scores, truth, scores)},
        confusions={"five": ClassConfusion(NAMES, np.array([[3, 1], [2, 2]]))},
        spaces={"space": space()},
        examples={"retrieval": [example]},
        at_start={"space": ClassSimilarity(NAMES, np.array([[1, 0.9], [0.9, 1]]))},
        training=[{"step": k, "train/loss": 4.0 - k / 10, "zero_shot/mean_auroc": k / 10} for k in range(5)],
        images=ScoredImages([f"{k}.png" for k in range(COUNT)], ["test"] * COUNT),
    )


def page() -> Page:
    return Page(
        title=f"Evaluation {MARKUP}",
        data=DataFacts(("test",), COUNT, "34cd", "unknown", rules={"zero_shot": "margin"}),
        notes=[f"trained on {MARKUP}"],
        checkpoints=[checkpoint()],
        scores={"zero_shot": report("run", "shuffled images")},
        controls=["shuffled images"],
        config="splits: [test]",
        command="python evaluate.py",
    )
