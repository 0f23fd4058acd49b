"""The predictions.csv of evaluate.py as a file of predictions."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrcl.errors import ConfigError, DataError
from cxrcl.evaluation.scores import evaluated_files, prediction_files

ONE = (
    "image,split,zero_shot/Edema/score,zero_shot/Edema/probability,zero_shot/A / B/score,zero_shot/A / B/probability\n"
)
TWO = "image,split,zero_shot/Edema/score,runs/a / zero_shot/Edema/score,classification/Edema/score\n"


def read(folder: Path, text: str, evaluator: str | None = None) -> evaluated_files.Predictions:
    file = folder / "predictions.csv"
    file.write_text(text, encoding="utf-8")
    (found,) = evaluated_files.predictions([prediction_files.read(file, "image")], evaluator)
    return found


def test_probabilities_decide_and_scores_rank(tmp_path: Path) -> None:
    for evaluator in (None, "zero_shot"):
        found = read(tmp_path, f"{ONE}a,test,3,.9,1,.2\n", evaluator)
        assert found.ranked is not None
        assert found.decided.rows.to_dict("list") == {"image": ["a"], "Edema": [".9"], "A / B": [".2"]}
        assert found.ranked.rows.to_dict("list") == {"image": ["a"], "Edema": ["3"], "A / B": ["1"]}


def test_an_evaluator_is_chosen_of_several_and_scores_do_without_probabilities(tmp_path: Path) -> None:
    for evaluator, score in (("zero_shot", "1"), ("runs/a / zero_shot", "2"), ("classification", "3")):
        found = read(tmp_path, f"{TWO}a,test,1,2,3\n", evaluator)
        assert found.ranked is not None
        assert found.decided.column("Edema") == found.ranked.column("Edema") == [score]


def test_plain_files_are_left_as_they_are(tmp_path: Path) -> None:
    found = read(tmp_path, "image,Edema\na,1\n")
    assert found.ranked is None and found.decided.names == ["image", "Edema"]


@pytest.mark.parametrize(
    ("text", "evaluator", "message"),
    [
        (TWO, None, "several evaluators: choose with --evaluator: 'zero_shot', 'runs/a / zero_shot', 'classification'"),
        (TWO, "probe", "no evaluator 'probe'; it has 'zero_shot', 'runs/a / zero_shot', 'classification'"),
        (
            "image,z/A/score,z/B/score,z/A/probability\n",
            None,
            "B has one of the columns score and probability only: keep both",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, evaluator: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text + ",".join(["a", *["0"] * text.count(",")]) + "\n", evaluator)


def test_an_evaluator_of_a_plain_file_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--evaluator zero_shot: .*predictions\.csv is no predictions\.csv of evalu"):
        read(tmp_path, "image,Edema\na,1\n", "zero_shot")
