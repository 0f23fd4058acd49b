"""results.json stays small, whatever is scored, and what it leaves to other files is whole there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cxrcl.evaluation.report.content import Page
from cxrcl.evaluation.report.output import results
from cxrcl.evaluation.report.results_files import MOST_BYTES, json_files, written
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.models import score_models
from cxrcl.evaluation.scores.scoring import ranked_only
from cxrcl.evaluation.scores.thresholds import ThresholdRule, predicted_from_scores

COUNT, SHUFFLED = 240, "shuffled images"
COLUMNS = {"sex": 2, "age": 5, "view": 3, "scanner": 2}


def page(labels: int, evaluators: int = 2) -> Page:
    """Three models and a control on so many labels and, with twelve groups, by each evaluator."""
    rng = np.random.default_rng(0)
    names = tuple(f"Finding number {k}" for k in range(labels))
    truth = (rng.random((COUNT, labels)) < 0.3).astype(float)
    truth[:3, 0] = np.nan
    models = [
        predicted_from_scores(
            name, names, np.clip(0.6 * rng.random(truth.shape) + 0.4 * np.nan_to_num(truth), 0, 1), None,
            ThresholdRule("given", 0.5), False,
        )
        for name in ("clip", "gloria", "moco")
    ]  # fmt: skip
    models.append(ranked_only(SHUFFLED, names, rng.random(truth.shape)))
    groups = {column: [str(k % count) for k in range(COUNT)] for column, count in COLUMNS.items()}
    patients = Patients([str(k // 2) for k in range(COUNT)], 10)
    report = score_models(models, truth, patients, names[1:], groups, {"evaluator": "x"}, controls=(SHUFFLED,))
    return Page("Evaluation", scores={f"evaluator {k}": report for k in range(evaluators)}, controls=[SHUFFLED])


@pytest.fixture(scope="module")
def usual() -> Page:
    return page(14)


def test_three_models_with_fourteen_labels_and_twelve_groups_stay_below_a_megabyte(usual: Page) -> None:
    whole = results(usual)
    assert len(json.dumps(whole)) > 6 * MOST_BYTES
    files = json_files(whole, usual.controls)
    assert sorted(files) == ["groups.json", "results.json"] and len(files["results.json"]) < 0.9 * MOST_BYTES
    found = json.loads(files["results.json"])["scores"]["evaluator 1"]
    report = usual.scores["evaluator 1"]
    for model, of_file in zip(report.models, found["models"], strict=True):
        for label, part in zip(model.labels, of_file["labels"], strict=True):
            assert (part["positives"], part["unknown"]) == (label.positives, label.unknown)
            for metric, score in label.scores.items():
                if model.name == SHUFFLED and score.value is None:
                    assert metric not in part["scores"]
                    continue
                assert part["scores"][metric]["value"] == score.value  # to the last digit
                assert part["scores"][metric]["low"] == (score.low and pytest.approx(score.low, rel=1e-5))
                assert part["scores"][metric].get("reason") == score.reason
    shown = {(c["model"], c["kind"], c["label"], c["metric"]) for c in found["comparisons"]}
    assert shown == {(c.model, c.kind, c.label, c.metric) for c in report.comparisons if c.difference.value is not None}
    assert json.loads(files["results.json"])["groups"] == "groups.json"


def test_groups_stand_in_a_file_of_their_own(usual: Page) -> None:
    groups = json.loads(json_files(results(usual), usual.controls)["groups.json"])["evaluator 0"]
    model = usual.scores["evaluator 0"].models[2]
    assert list(groups) == ["clip", "gloria", "moco"] and len(groups["moco"]["groups"]) == sum(COLUMNS.values())
    for group, part in zip(model.groups, groups["moco"]["groups"], strict=True):
        assert (part["column"], part["group"], part["images"]) == (group.column, group.group, group.images)
        assert part["labels"][3]["scores"]["auroc"]["value"] == group.labels[3].scores["auroc"].value
        assert "reliability" not in part["labels"][3]
    assert [each["gap"]["value"] for each in groups["moco"]["gaps"]] == [each.gap.value for each in model.gaps]


def test_scores_of_many_labels_go_to_files_of_their_own(usual: Page) -> None:
    from cxrcl.evaluation.report import results_files

    few = replace(
        usual, scores={"small": usual.scores["evaluator 0"], "as large / as this": usual.scores["evaluator 0"]}
    )
    whole = json_files(results(few), few.controls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_files, "MOST_BYTES", len(whole["results.json"]) - 1)
        files = json_files(results(few), few.controls)
    assert sorted(files) == ["groups.json", "results.json", "scores_small.json"]
    found = json.loads(files["results.json"])["scores"]
    assert found["small"] == "scores_small.json"
    assert {**found, "small": json.loads(files["scores_small.json"])} == json.loads(whole["results.json"])["scores"]


@pytest.mark.parametrize("value", [{"a": "x \n  [{]}\\", "b": {"c": [], "d": {}}}, [1, [2, {"ü": None}]], {}, 1.5])
def test_what_is_written_is_read_again(value: Any) -> None:
    assert json.loads(written(value)) == value
