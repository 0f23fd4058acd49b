"""ConVIRT against its formula and published numbers."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import assert_golden, assert_same, golden, info_nce_by_loop, two_towers, unit_rows

from cxrcl.objectives.convirt import ConVirt
from cxrcl.objectives.towers import unit_vectors


@pytest.mark.parametrize(
    ("name", "tau", "weight"), [("convirt", "tau", "lambda_"), ("convirt_colab", "temperature", "alpha_weight")]
)
def test_golden_values_and_gradients(name: str, tau: str, weight: str) -> None:
    given, values = golden(name)
    meta = json.loads(str(values["meta"]))
    model = two_towers(ConVirt, tau=meta[tau], lambda_=meta[weight])
    # The files' inputs are raw: their gradients go through the normalisation.
    output = model.loss({key: unit_vectors(value)[:, None] for key, value in given.items()}, {})
    assert_golden(given, values, output.loss, within=1e-5)
    for key in ("image_to_text", "text_to_image"):
        if f"out_loss_{key}_mean" in values:
            assert abs(output.logs[key].item() - values[f"out_loss_{key}_mean"]) < 1e-5


@pytest.mark.parametrize("names", [None, [0, 1, 2, 1, 0, 5]])
def test_loss_is_the_weighted_mean_of_both_directions(names: list[int] | None) -> None:
    image, text = unit_rows(1, 6, 1, 6), unit_rows(2, 6, 1, 6)
    known = {} if names is None else {"text": torch.tensor(names)[:, None]}
    output = two_towers(ConVirt, torch.float64, tau=0.2, lambda_=0.6).loss({"image": image, "text": text}, known)
    scale = torch.tensor(5.0, dtype=torch.float64)
    to_text, to_image = info_nce_by_loop(
        image[:, 0], text[:, 0], scale, lambda i, j: names is not None and names[i] == names[j]
    )
    assert_same([output.loss], [0.6 * to_text + 0.4 * to_image], (image, text), within=1e-10)


def test_settings_change_the_loss() -> None:
    embeddings = {"image": unit_rows(1, 6, 1, 6).float(), "text": unit_rows(2, 6, 1, 6).float()}
    settings = ({}, {"tau": 0.3}, {"lambda_": 0.5})
    losses = [two_towers(ConVirt, **setting).loss(embeddings, {}).loss.item() for setting in settings]
    assert all(abs(a - b) > 1e-3 for k, a in enumerate(losses) for b in losses[:k])


def test_the_temperature_is_fixed() -> None:
    model = two_towers(ConVirt, tau=0.25)
    assert model.similarity_scale() == 4
    assert not [name for name, _ in model.named_parameters() if "scale" in name or "tau" in name]
