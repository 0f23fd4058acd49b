"""The pointing game on phantom images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import heatmap_pointing
import numpy as np
import pytest

from cxrcl.errors import ConfigError


def test_images_have_one_finding_in_a_box_and_come_again() -> None:
    drawn = heatmap_pointing.draw_images(13, 48, seed=1)
    again, others = heatmap_pointing.draw_images(13, 48, seed=1), heatmap_pointing.draw_images(13, 48, seed=2)
    assert len({label for _, label, _, _ in drawn}) == 12 and drawn[0][1] == drawn[12][1]
    for (film, label, phrase, box), (same, *_) in zip(drawn, again, strict=True):
        assert film.shape == (48, 48) and film.dtype == np.uint8 and np.array_equal(film, same)
        assert phrase.endswith(label.lower())
        assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
    assert not np.array_equal(drawn[0][0], others[0][0])


@pytest.mark.parametrize("kind", ["labels", "grad_cam"])
def test_hits_stand_beside_what_chance_would_give(
    kind: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    options = ["--films", "12", "--size", "32", "--map", kind, "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["heatmap_pointing.py", str(trained), *options])
    heatmap_pointing.main()
    assert "12 images; 95 % interval" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert len(found["labels"]) == 12 and found["all"] == pytest.approx(np.mean([*found["labels"].values()], axis=0))
    areas = {label: (b[2] - b[0]) * (b[3] - b[1]) for _, label, _, b in heatmap_pointing.draw_images(12, 32, 12345)}
    assert {label: row[1] for label, row in found["labels"].items()} == pytest.approx(areas)


def test_attention_needs_a_model_that_has_it(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["heatmap_pointing.py", str(trained), "--films", "12", "--map", "attention"])
    with pytest.raises(ConfigError, match="Clip has no attention of words"):
        heatmap_pointing.main()
