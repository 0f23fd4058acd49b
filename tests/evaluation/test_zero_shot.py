"""Zero-shot scores against explicit loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import FixedData, metrics_of

from cxrcl.evaluation.metrics.ranking import auroc
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.evaluation.zero_shot import ZeroShot

PROMPTS = {
    "No Finding": {"pos": ["a normal film"], "neg": ["an abnormal film", "disease"]},
    "Cardiomegaly": {"pos": ["the heart is large", "big heart", "cardiomegaly"], "neg": ["the heart is normal"]},
    "Edema": {"pos": ["edema"], "neg": ["no edema", "clear lungs"]},
    "Elsewhere": {"pos": ["other"], "neg": ["none"]},
}
OTHER = {"Edema": {"pos": ["wet lungs"], "neg": ["dry lungs"]}}
BOTH = ("valid", "test")


def zero_shot(data: Any, **arguments: Any) -> ZeroShot:
    files = {
        "zero_shot.json": PROMPTS,
        "again.json": PROMPTS,
        "other.json": OTHER,
        "elsewhere.json": {"Elsewhere": PROMPTS["Elsewhere"]},
    }
    return ZeroShot(data, lambda name, labels: files[name], **arguments)


def scores_of(evaluator: ZeroShot, known: Any, alone: Any, data: Any) -> Any:
    shared = SharedPass(known, alone, data, 64, evaluator.requests(known, alone.device))
    return evaluator.score(shared, evaluator.splits)


def films(data: Any) -> list[Any]:
    rows = [film.flatten() for split in BOTH for film in data.splits[split][0]]
    return [row / row.norm() for row in rows]


def by_loop(known: Any, data: Any, over: str) -> np.ndarray:
    """Positive less negative, one image and one label at a time."""
    rows = []
    for image in films(data):
        row = []
        for label in ("No Finding", "Cardiomegaly", "Edema"):
            sides = []
            for kind in ("pos", "neg"):
                embedded = [known.text(sentence) for sentence in PROMPTS[label][kind]]
                cosines = [float(image @ text) for text in embedded]
                total = sum(embedded)
                direction = float(image @ (total / total.norm()))
                sides.append({"direction": direction, "mean": sum(cosines) / len(cosines), "max": max(cosines)}[over])
            row.append(sides[0] - sides[1])
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("over", ["direction", "mean", "max"])
def test_scores_are_margins_between_the_prompts(known: Any, data: Any, alone: Any, over: Any) -> None:
    evaluator = zero_shot(data, splits=BOTH, over=over)
    assert evaluator.labels == ("No Finding", "Cardiomegaly", "Edema")
    found, expected = scores_of(evaluator, known, alone, data), by_loop(known, data, over)
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-7 * expected)), atol=1e-5)
    figures = metrics_of(evaluator, known, alone)
    for k, name in enumerate(evaluator.labels):
        assert figures[f"auroc/{name}"] == auroc(expected[:, k], found.labels[:, k])


def test_a_protocol_may_take_the_softmax_of_bare_cosines(known: Any, data: Any, alone: Any) -> None:
    bare = zero_shot(data, splits=BOTH, scaled=False)
    expected = 1 / (1 + np.exp(-by_loop(known, data, "direction")))
    np.testing.assert_allclose(scores_of(bare, known, alone, data).probabilities, expected, atol=1e-6)
    assert "scale" in zero_shot(data).rule and "scale" not in bare.rule


def test_each_image_and_each_sentence_is_encoded_once(known: Any, data: Any, alone: Any) -> None:
    metrics_of(zero_shot(data, splits=BOTH, other_files=["other.json"]), known, alone)
    assert known.images_seen == 7
    assert known.texts_seen == 12


def test_three_readings_of_each_prompt_file(known: Any, data: Any, alone: Any) -> None:
    figures = metrics_of(zero_shot(data, splits=BOTH, other_files=["other.json"]), known, alone)
    truth = np.concatenate([data.splits[split][1].numpy()[:, 2] for split in BOTH])
    wet, dry = (
        np.array([float(image @ known.text(OTHER["Edema"][k][0])) for image in films(data)]) for k in ("pos", "neg")
    )
    assert figures["other/affirmative"] == auroc(wet, truth)
    assert figures["other/negated"] == auroc(-dry, truth)
    assert figures["other/combined"] == auroc(wet - dry, truth)
    assert figures["zero_shot/combined"] == figures["mean_auroc"]
    both = [figures[f"{name}/combined"] for name in ("zero_shot", "other")]
    assert figures["over_prompts/mean"] == sum(both) / 2 and figures["over_prompts/worst"] == min(both)


def test_every_reading_has_the_interval_of_its_mean(known: Any, alone: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    labels = (torch.rand(60, 3, generator=generator) < 0.4).float()
    films = (torch.randn(60, 3, 4, 4, generator=generator), labels, [""] * 60, [f"p{k // 2}" for k in range(60)])
    data = FixedData(("No Finding", "Cardiomegaly", "Edema"), {"valid": films})
    plain, found = (
        metrics_of(zero_shot(data, other_files=["other.json"], resamples=count), known, alone) for count in (0, 50)
    )
    assert not [key for key in plain if "_low" in key]
    readings = [f"{file}/{name}" for file in ("zero_shot", "other") for name in ("combined", "affirmative", "negated")]
    for name in (*readings, "over_prompts/mean", "over_prompts/worst"):
        assert found[f"{name}_low"] < plain[name] < found[f"{name}_high"]
    worst = min("zero_shot", "other", key=lambda file: plain[f"{file}/combined"])
    for end in ("low", "high"):  # the score proper has one interval, wherever it stands
        assert found[f"zero_shot/combined_{end}"] == pytest.approx(found[f"mean_auroc_{end}"], abs=1e-12)
        assert found[f"over_prompts/worst_{end}"] == found[f"{worst}/combined_{end}"]
    same = metrics_of(zero_shot(data, other_files=["again.json"], resamples=50), known, alone)
    assert same["over_prompts/mean_low"] == pytest.approx(same["mean_auroc_low"], abs=1e-12)  # one file, twice


def test_positive_prompts_alone_have_one_reading(known: Any, data: Any, alone: Any) -> None:
    files = {name: {label: {"pos": kinds["pos"]} for label, kinds in PROMPTS.items()} for name in ("a.json", "b.json")}
    files["b.json"] = {label: {"pos": ["no " + kinds["pos"][0][::-1]]} for label, kinds in PROMPTS.items()}
    evaluator = ZeroShot(
        data, lambda name, _: files[name], splits=BOTH, file="a.json", other_files=["b.json"], sides="positive"
    )
    figures = metrics_of(evaluator, known, alone)
    assert figures["a/affirmative"] == figures["mean_auroc"] != figures["b/affirmative"]
    assert not [key for key in figures if key.endswith(("/combined", "/negated"))]
    assert figures["over_prompts/worst"] == min(figures[f"{name}/affirmative"] for name in "ab")
    with pytest.raises(ValueError, match=r"a\.json has no positive and negative prompts"):
        ZeroShot(data, lambda name, _: files[name], splits=BOTH, file="a.json")


def test_labels_and_their_mean_can_be_named(known: Any, data: Any, alone: Any) -> None:
    two = zero_shot(data, splits=BOTH, labels=["Edema", "Cardiomegaly"], mean_over=["Edema"])
    figures, everything = metrics_of(two, known, alone), metrics_of(zero_shot(data, splits=BOTH), known, alone)
    assert {key for key in figures if key.startswith("auroc/")} == {"auroc/Edema", "auroc/Cardiomegaly"}
    assert figures["mean_auroc"] == figures["zero_shot/combined"] == everything["auroc/Edema"]


def test_normal_images_serve_as_negatives_of_the_named_labels(known: Any, data: Any, alone: Any) -> None:
    plain = metrics_of(zero_shot(data, splits=BOTH), known, alone)
    against = metrics_of(zero_shot(data, splits=BOTH, against_normal=["Edema"]), known, alone)
    # Image 1 is normal and says nothing about edema.
    assert against["negatives/Edema"] == plain["negatives/Edema"] + 1
    assert against["negatives/Cardiomegaly"] == plain["negatives/Cardiomegaly"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ["Oedema"]}, "labels: no label Oedema"),
        ({"mean_over": ["Oedema"]}, "mean_over: no label Oedema"),
        ({"file": "elsewhere.json"}, "elsewhere.json has no positive and negative prompts for No Finding"),
        ({"other_files": ["elsewhere.json"]}, "elsewhere.json has no positive and negative prompts"),
        ({"by": "local"}, "over=direction, by=local"),
    ],
)
def test_wrong_settings_are_refused(data: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        zero_shot(data, **settings)


def test_a_model_without_local_similarity_is_refused(known: Any, data: Any, alone: Any) -> None:
    with pytest.raises(ValueError, match="Known has no local similarity of regions and words: set by=global"):
        metrics_of(zero_shot(data, over="max", by="both"), known, alone)
