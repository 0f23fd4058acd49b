"""The evaluator of negations, on models that read them, do not, or prefer denials whatever the image shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ALONE, FixedData
from torch import Tensor
from torch.nn import functional as F

from cxrcl.evaluation.evaluator import EvaluatorResult
from cxrcl.evaluation.negation import choices
from cxrcl.evaluation.negation.evaluator import Negation
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.types import Features, Tokens

FINDINGS = ("Edema", "Fracture")
PROMPTS = {name: {"pos": [f"{name}."], "neg": [f"No {name}."]} for name in FINDINGS}


class Reader(torch.nn.Module):
    """Images are their first pixels; a text is the sum of what its sentences say, one axis a finding.

    Args:
        no: what "no" makes of a finding: -1 turns it round, 1 leaves it.
        bias: of denials, on an axis that every image has.
    """

    def __init__(self, no: float = -1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.no, self.bias, self.texts = no, bias, list[str]()

    def tokenizer(self, texts: list[str]) -> Tokens:
        first = len(self.texts)
        self.texts += texts
        ones = [[1]] * len(texts)
        return Tokens([[first + k] for k in range(len(texts))], ones, ones)

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        return F.normalize(torch.stack([self._said(self.texts[k]) for k in ids[:, 0].tolist()]), dim=-1)

    def _said(self, text: str) -> Tensor:
        vector = torch.tensor([0.0, 0.0, 0.1, 0.01])
        for sentence in filter(None, text.split(".")):
            for axis, name in enumerate(FINDINGS):
                if name in sentence:
                    denied = "No " in sentence
                    vector[axis] += self.no if denied else 1.0
                    vector[2] += self.bias if denied else 0.0
        return vector

    def encode_images(self, images: Tensor) -> Features:
        return Features(images[:, 0, 0], images[:, 0])

    def embed_images(self, features: Features) -> Tensor:
        return F.normalize(features.pooled, dim=-1)


class Named(FixedData):
    """Data whose images have names, two of each patient, below a folder."""

    folder = Path()

    def column(self, split: str, name: str) -> list[str]:
        images = [f"{k}.png" for k in range(self.size(split))]
        return {"image": images, "path": [f"{self.folder}/{one}" for one in images]}.get(
            name, super().column(split, name)
        )


@pytest.fixture
def films(tmp_path: Path) -> Named:
    """40 images; a quarter shows edema, every second one a fracture."""
    labels = torch.tensor([[float(k % 4 == 0), float(k % 2 == 1)] for k in range(40)])
    pixels = torch.cat([labels * 2 - 1, 3 * torch.ones(40, 1), torch.zeros(40, 1)], dim=1)
    images = pixels[:, None, None].expand(-1, 3, 4, -1).contiguous()
    data = Named(FINDINGS, {"test": (images, labels, [""] * 40, [f"p{k // 2}" for k in range(40)])})
    data.folder = tmp_path
    return data


def pairs_of(data: Named) -> pd.DataFrame:
    """A pair for each image and finding, as reports of two sentences and alone."""
    rows: list[dict[str, str]] = []
    for k, labels in enumerate(data.truth("test").tolist()):
        said = [f"{name}." if value else f"No {name}." for name, value in zip(FINDINGS, labels)]
        for axis, name in enumerate(FINDINGS):
            base = {"image": f"{k}.png", "finding": name, "direction": "to_absent" if labels[axis] else "to_present"}
            other = said[1 - axis]
            rows.append({**base, "unit": "sentence", "affirmed": f"{name}.", "negated": f"No {name}.", "omitted": ""})
            texts = {"affirmed": f"{name}. {other}", "negated": f"No {name}. {other}", "omitted": other}
            rows.append({**base, "unit": "report", **texts})
    return pd.DataFrame(rows)


def run(data: Named, model: Reader, pairs: pd.DataFrame | None = None, **arguments: Any) -> EvaluatorResult:
    (pairs_of(data) if pairs is None else pairs).to_csv(data.folder / "negation.csv", index=False)
    evaluator = Negation(data, lambda name, labels: PROMPTS, splits=("test",), **{"resamples": 50, **arguments})
    return evaluator.run(SharedPass(model, ALONE, data, 64, evaluator.requests(model, ALONE.device)))


def test_a_model_that_reads_negations_is_always_right(films: Named) -> None:
    metrics = run(films, Reader()).metrics
    for unit in ("report", "sentence"):
        for share in ("balanced", "to_absent", "to_present", *FINDINGS):
            assert metrics[f"{unit}/model/{share}"] == metrics[f"{unit}_high/model/{share}"] == 1
            assert 0.6 < metrics[f"{unit}_low/model/{share}"] < 0.9  # ten or twenty patients
    assert metrics["accuracy"] == 1 and metrics["report_order/all_in_order/balanced"] == 1
    assert [metrics[f"{name}_mean_auroc"] for name in ("POS", "NEG", "PNC")] == [1, 1, 1]
    assert metrics["report_pairs/to_absent"] == 30 and metrics["report_patients/balanced"] == 20


def test_a_model_that_ignores_negations_is_at_chance(films: Named) -> None:
    metrics = run(films, Reader(no=1.0)).metrics
    assert metrics["sentence/model/balanced"] == metrics["sentence/model/to_absent"] == 0.5  # ties count one half
    assert metrics["POS_mean_auroc"] == 1 and metrics["NEG_mean_auroc"] == 0 and metrics["PNC_mean_auroc"] == 0.5
    assert metrics["NEG_auroc/Edema"] < 0.5


def test_a_taste_for_denials_is_at_chance_however_many_of_the_pairs_are_denials(films: Named) -> None:
    metrics = run(films, Reader(no=0.0, bias=5.0)).metrics
    assert metrics["sentence_pairs/to_absent"] == 30 and metrics["sentence_pairs/to_present"] == 50
    for chooser in ("model", "other_patients_image", "mean_image"):
        assert metrics[f"sentence/{chooser}/to_absent"] == 0 and metrics[f"sentence/{chooser}/to_present"] == 1
        assert metrics[f"sentence/{chooser}/balanced"] == 0.5
    assert metrics["sentence/shorter_text/to_absent"] == 1  # denials are longer


def test_both_halves_are_about_the_same_findings(films: Named) -> None:
    """Without edemas nothing is known of its affirmations: its denials are no part of the shares."""
    pairs = pairs_of(films)
    one = pairs[(pairs["finding"] == "Fracture") | (pairs["direction"] == "to_present")]
    metrics = run(films, Reader(), one).metrics
    assert metrics["report_pairs/balanced"] == 40 and "report/model/Edema" not in metrics


def test_intervals_are_of_patients_and_can_be_left_out(films: Named) -> None:
    noisy = Reader(no=0.0)
    with_interval, without = run(films, noisy, resamples=200).metrics, run(films, noisy, resamples=0).metrics
    low, high = (with_interval[f"report_{end}/shorter_text/to_absent"] for end in ("low", "high"))
    assert low <= with_interval["report/shorter_text/to_absent"] <= high
    assert not [name for name in without if "_low" in name or "_high" in name]


def test_own_pairs_need_three_columns(films: Named, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    own = [{"image": f"{k}.png", "affirmed": "Edema.", "negated": "No Edema."} for k in range(0, 40, 4)]
    pd.DataFrame([*own, {"image": "elsewhere.png", "affirmed": "a", "negated": "b"}]).to_csv(file, index=False)
    metrics = run_with(films, file).metrics
    assert metrics["accuracy"] == metrics["report/model/to_absent"] == 1 and metrics["report_pairs/to_absent"] == 10
    assert not [name for name in metrics if "balanced" in name or "order" in name or "texts_alone" in name]


def run_with(data: Named, file: Path, **arguments: Any) -> EvaluatorResult:
    """Pairs of a user's file."""
    arguments = {"resamples": 20, "pairs": str(file), **arguments}
    evaluator = Negation(data, lambda name, labels: PROMPTS, splits=("test",), **arguments)
    model = Reader()
    return evaluator.run(SharedPass(model, ALONE, data, 64, evaluator.requests(model, ALONE.device)))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "0.png", "affirmed": "a"}], "no column negated"),
        ([{"image": "0.png", "affirmed": "a", "negated": " "}], "blank negated in row 2"),
        ([{"image": "0.png", "affirmed": "a", "negated": "a"}], "the same text in row 2"),
        ([{"image": "x.png", "affirmed": "a", "negated": "b"}], "none of its 1 pairs is of an image of test"),
        ([{"image": "0.png", "affirmed": "a", "negated": "b", "direction": "up"}], "direction 'up' in row 2"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(films: Named, tmp_path: Path, rows: list[dict[str, str]], said: str) -> None:
    file = tmp_path / "mine.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    with pytest.raises(ValueError, match=said) as error:
        run_with(films, file)
    assert "\n" not in str(error.value) and str(file) in str(error.value)


def test_missing_pairs_are_said_with_the_command_that_makes_them(films: Named) -> None:
    with pytest.raises(ValueError, match=r"`python scripts/negation_pairs\.py '.*'` makes pairs of its reports"):
        Negation(films, lambda name, labels: PROMPTS, splits=("test",))


def test_settings_of_the_prompts(films: Named) -> None:
    every = run(films, Reader())
    assert len(every.artifacts["tables"]) == 4
    without = run(films, Reader(), file=None)
    assert len(without.artifacts["tables"]) == 3 and "POS_mean_auroc" not in without.metrics
    one = run(films, Reader(), labels=["Edema"]).metrics
    assert "POS_auroc/Edema" in one and "POS_auroc/Fracture" not in one
    films.splits["test"][0][:, :, :, 0] *= -1  # edema is wrong now
    assert run(films, Reader(), mean_over=["Fracture"]).metrics["POS_mean_auroc"] == 1
    assert run(films, Reader()).metrics["POS_mean_auroc"] == 0.5
    evaluator = Negation(films, lambda name, labels: PROMPTS, splits=("test",), over="max")
    assert evaluator.zero_shot is not None and evaluator.zero_shot.prompted.over == "max"
    with pytest.raises(ValueError, match="against_normal"):
        Negation(films, lambda name, labels: PROMPTS, splits=("test",), against_normal=["Edema"])


def test_data_without_labels_have_pairs_alone(films: Named) -> None:
    pairs = pairs_of(films)
    films.labels = ()
    assert "accuracy" in run(films, Reader(), pairs).metrics


# -------------------------------------------------------------------------------------------------- controls


def test_another_image_is_one_of_another_patient() -> None:
    patients = np.random.default_rng(0).integers(0, 12, 100)
    moved = choices.of_other_patients(patients)
    assert sorted(moved) == list(range(100)) and not (patients[moved] == patients).any()


def texts(give_away: bool) -> pd.DataFrame:
    """200 pairs of 100 patients in the same words; a turned text may be marked."""
    rng, rows = np.random.default_rng(1), []
    for k in range(200):
        present = bool(rng.integers(2))
        side = ("left", "right")[rng.integers(2)]
        affirmed, negated = f"{side} edema", f"no {side} edema"
        if give_away:
            affirmed, negated = (affirmed, f"{negated} seen") if present else (f"{affirmed} seen", negated)
        direction = "to_absent" if present else "to_present"
        rows.append(
            {"patient": f"p{k // 2}", "finding": "", "direction": direction, "affirmed": affirmed, "negated": negated}
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("give_away", "least", "most"), [(True, 0.99, 1.0), (False, 0.3, 0.6)])
def test_a_reader_of_texts_alone_finds_what_gives_the_turned_one_away(
    give_away: bool, least: float, most: float
) -> None:
    pairs = texts(give_away)
    patients, shares = Patients(pairs["patient"].tolist(), 0), choices.shares_of_halves(pairs)
    said = choices.by_text_alone(pairs, shares["balanced"], patients)
    assert said is not None and least <= (choices.share(said, shares["balanced"], patients).value or 0) <= most


def test_pairs_of_a_patient_are_not_independent() -> None:
    """Twenty patients of two pairs each, alike within a patient: the interval is that of twenty, not of forty."""
    values = np.repeat([1.0, 0.0] * 10, 2)
    by_patient = choices.share(values, np.ones(40), Patients(np.repeat(np.arange(20), 2), 1))
    by_pair = choices.share(values, np.ones(40), Patients(np.arange(40), 1))
    assert (
        by_patient.value == by_pair.value == 0.5 and by_patient.low and by_patient.high and by_pair.low and by_pair.high
    )
    assert by_patient.high - by_patient.low > 1.2 * (by_pair.high - by_pair.low)


def test_few_patients_have_no_interval() -> None:
    few = choices.share(np.ones(18), np.ones(18), Patients(np.repeat(np.arange(9), 2), 1))
    assert (few.value, few.low, few.withheld) == (1, None, "9 patients, fewer than 10")


@pytest.mark.parametrize("true", [0.5, 0.9])
def test_intervals_hold_the_true_share(true: float) -> None:
    """400 samples of 30 patients with one to four pairs, which have half of their chance in common."""
    rng, held = np.random.default_rng(3), 0
    for _ in range(400):
        sizes = rng.integers(1, 5, 30)
        common = np.repeat(rng.random(30) < true, sizes)
        own = rng.random(len(common)) < true
        values = np.where(rng.random(len(common)) < 0.5, common, own).astype(float)
        found = choices.share(values, np.ones(len(values)), Patients(np.repeat(np.arange(30), sizes), 1))
        held += found.low is not None and found.high is not None and found.low <= true <= found.high
    assert held >= 0.93 * 400
