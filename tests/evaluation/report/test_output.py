"""The files of a report."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import page_data
import pandas as pd
import pytest

from cxrcl.evaluation.report import output
from cxrcl.evaluation.report.content import Page, of_scores
from cxrcl.evaluation.report.page.render import render


@pytest.fixture(scope="module")
def page() -> Page:
    return page_data.page()


@pytest.fixture(scope="module")
def folder(page: Page, tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "new"
    output.write(folder, page)
    return folder


def test_all_files_are_written_and_nothing_else(page: Page, folder: Path) -> None:
    names = {"report.html", "report.md", "results.json", "groups.json", "predictions.csv"}
    names |= {"embeddings.npy", "embeddings.csv"}
    assert {file.name for file in folder.iterdir()} == names
    assert (folder / "report.html").read_text(encoding="utf-8") == render(page)


def test_results_hold_every_metric(page: Page, folder: Path) -> None:
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert found["retrieval"]["image_to_text"]["r1"] == 0.11 and found["loss"] == {"total": 3.25}
    assert found["five"]["images"] == {"all": 8.0, "Edema": 4.0}
    assert found["facts"]["splits"] == "test" and found["facts"]["checkpoint"] == "run/best.pt"
    assert found["notes"] == page.notes and found["controls"] == ["shuffled images"]
    label = found["scores"]["zero_shot"]["models"][0]["labels"][1]
    assert label["scores"]["auroc"]["value"] == page.scores["zero_shot"].models[0].labels[1].scores["auroc"].value


def test_page_markdown_and_results_agree(page: Page, folder: Path) -> None:
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    html = (folder / "report.html").read_text(encoding="utf-8")
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    for label in found["scores"]["zero_shot"]["models"][0]["labels"]:
        for metric in ("auroc", "auprc", "f1", "brier"):
            score = label["scores"][metric]
            if score["value"] is None:
                assert score["reason"] in html and score["reason"] in markdown
            else:
                interval = f"[{score['low']:.3f}, {score['high']:.3f}]"
                assert f"{score['value']:.3f} {interval}" in markdown
                assert f'{score["value"]:.3f} <span class="ci">{interval}</span>' in html


def test_markdown_shows_controls_once_and_one_last_line(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Evaluation") and text.count("Research use only") == 1 and "# Scores" not in text
    assert text.count("shuffled images") == 1 and "## zero_shot" in text and "### AUROC" in text
    assert "image -> text" in text and "- checkpoint: run/best.pt" in text


def test_predictions_are_the_scores_of_every_image(page: Page, folder: Path) -> None:
    table = pd.read_csv(folder / "predictions.csv")
    scores, _, _ = page_data.arrays()
    assert table["image"].tolist() == page.checkpoints[0].images.names and set(table["split"]) == {"test"}
    assert np.allclose(table["zero_shot/Edema/score"], scores[:, 1], rtol=1e-12)
    assert np.allclose(table[f"zero_shot/{page_data.MARKUP}/probability"], scores[:, 2], rtol=1e-12)
    assert len(table.columns) == 2 + 2 * 5 and not [name for name in table if "patient" in name]


def test_scores_of_other_images_are_no_predictions(page: Page) -> None:
    one = page.checkpoints[0]
    other = replace(one, name="other", images=replace(one.images, names=[f"b{k}.png" for k in range(150)]))
    table = output.predictions(replace(page, checkpoints=[one, other]))
    assert "run / zero_shot/Edema/score" in table and not any(name.startswith("other") for name in table)
    assert output.predictions(replace(page, checkpoints=[replace(one, images=None)])) is None


def test_embeddings_stand_beside_their_images(folder: Path) -> None:
    assert np.array_equal(np.load(folder / "embeddings.npy"), np.ones((1, 4), np.float32))
    table = pd.read_csv(folder / "embeddings.csv")
    assert table["image"].tolist() == ["a.png"] and table["Edema"].tolist() == [0]


def test_embeddings_as_parquet(page: Page, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    one = page.checkpoints[0]
    space = replace(one.spaces["space"], dump=replace(one.spaces["space"].dump, format="parquet"))
    output.write(tmp_path, replace(page, checkpoints=[replace(one, spaces={"space": space})]))
    table = pd.read_parquet(tmp_path / "embeddings.parquet")
    assert np.stack(table["embedding"]).tolist() == [[1, 1, 1, 1]] and table["split"].tolist() == ["test"]


def test_several_checkpoints_are_kept_apart(page: Page, tmp_path: Path) -> None:
    both = replace(page, checkpoints=[page_data.checkpoint("a"), page_data.checkpoint("b c")], scores={})
    names = {file.name for file in output.write(tmp_path, both)}
    assert {"embeddings_a_space.npy", "embeddings_b_c_space.npy"} <= names
    found = output.results(both)
    assert (
        found["a"]["loss"] == found["b c"]["loss"] == {"total": 3.25}
        and found["a"]["facts"]["checkpoint"] == "a/best.pt"
    )
    assert "b c / zero_shot/Edema/score" in output.predictions(both)


def test_a_report_of_scores_alone_has_no_images(tmp_path: Path) -> None:
    files = output.write(tmp_path, of_scores(page_data.report("one")))
    assert [file.name for file in files] == ["report.html", "report.md", "results.json", "groups.json"]


def test_files_are_whole_or_as_they_were(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = output.write(tmp_path, page)[0]
    before = first.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        output.write(tmp_path, replace(page, title="Another"))
    assert first.read_bytes() == before and not list(tmp_path.glob(".*"))
