"""The files of a report, all from one `Page`, so that they cannot disagree.

- `report.html`: the page.
- `report.md`: facts and tables.
- `results.json`: every metric, null where it does not exist; label scores with their intervals below `scores`;
  `trained_on`: sources, and how many of the scored images were trained on or have a patient or a source that was;
  `run`: what was run; `data`, `prompts`: on what.
- `groups.json` and others: parts of it that are too much (`cxrcl.evaluation.report.results_files`).
- `prompts.json`: sentences that are too many for it.
- `predictions.csv`: one row an image: `image` as it stands in the manifest, `split`, and of each evaluator and label
  `<evaluator>/<label>/score` and, where there is one, `<evaluator>/<label>/probability`. Patients are not named; where
  the manifest's image names hold their numbers, this file does as well.
- `seen_in_training.csv`, where there are any: scored images that a checkpoint was trained on, or on others of their
  patient, and as what they were found: `image (pixels)`, `image (name)`, `patient` or `patient, perhaps`.
- `embeddings[_<evaluator>].npy` and `.csv`, or `.parquet`, where `dump` asks for them.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxrcl.errors import RESEARCH_ONLY
from cxrcl.evaluation.report import score_markdown, tables
from cxrcl.evaluation.report.content import Checkpoint, Page
from cxrcl.evaluation.report.facts import DataFacts
from cxrcl.evaluation.report.page.render import render
from cxrcl.evaluation.report.results_files import json_files
from cxrcl.evaluation.report.score_tables import TITLES, score_table
from cxrcl.evaluation.scores.score_report import ScoreReport, plain
from cxrcl.files import replaced

if TYPE_CHECKING:
    from cxrcl.evaluation.representation import Dump

HTML, MARKDOWN, PREDICTIONS = "report.html", "report.md", "predictions.csv"
PROMPTS, SEEN = "prompts.json", "seen_in_training.csv"
LONG_PROMPTS = 20_000  # characters


def write(folder: Path, page: Page) -> list[Path]:
    """Make the folder and its files; each is whole or not there, and files of these names are replaced.

    Returns:
        The files, the page first.

    Raises:
        OSError: nothing can be written there.
    """
    files: dict[str, bytes] = {
        HTML: render(page).encode(),
        MARKDOWN: markdown(page).encode(),
        **json_files(results(page), page.controls),
    }
    if long := _long_prompts(page.data):
        files[PROMPTS] = (json.dumps(long, indent=1, ensure_ascii=False) + "\n").encode()
    table = predictions(page)
    if table is not None:
        files[PREDICTIONS] = table.to_csv(index=False).encode()
    seen = seen_in_training(page)
    if len(seen):
        files[SEEN] = seen.to_csv(index=False).encode()
    for name, dump in _dumps(page).items():
        files |= _embeddings(name, dump)
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(folder / name, content) for name, content in files.items()]


def _write(path: Path, content: bytes) -> Path:
    with replaced(path) as file:
        file.write(content)
    return path


def results(page: Page) -> dict[str, Any]:
    """Metrics by evaluator; by model first, where it is not the only checkpoint. Facts, notes, and label scores."""
    content: dict[str, Any] = {}
    for one in page.checkpoints:
        if [one] == page.proper:
            content |= tables.nested(one.metrics) | _trained_on(one)
        else:
            content[one.name] = {**tables.nested(one.metrics), "facts": one.shown_facts, **_trained_on(one)}
    content |= {"title": page.title, "facts": plain(page.shown_facts()), "notes": list(page.notes)}
    content |= _data(page.data) if page.data is not None else {}
    content |= {"run": plain(page.run)} if page.run else {}
    content |= {"controls": list(page.controls)} if page.controls else {}
    return content | ({"scores": plain(page.scores)} if page.scores else {})


def _data(data: DataFacts) -> dict[str, Any]:
    """What was scored, as values; prompts by hash, and the sentences once, but for long ones (`_long_prompts`)."""
    files = {file.sha256: file for files in data.prompts.values() for file in files}
    long = _long_prompts(data)
    return {
        "data": {name: value for name, value in plain(data).items() if name != "prompts"},
        "prompts": {name: {file.name: file.sha256 for file in files} for name, files in data.prompts.items() if files},
        "sentences": {key: PROMPTS if key in long else file.sentences for key, file in files.items()},
    }


def _long_prompts(data: DataFacts | None) -> dict[str, Any]:
    """The content of prompts.json: sentences by hash, of files that are too long to stand in results.json."""
    files = [] if data is None else [file for files in data.prompts.values() for file in files]
    return {file.sha256: file.sentences for file in files if len(file.text) > LONG_PROMPTS}


def _trained_on(one: Checkpoint) -> dict[str, Any]:
    """The fact as numbers, for programs: a text is not to be searched for the word CONTAMINATED."""
    if one.facts is None:
        return {}
    found = one.facts.trained_on
    trained_on = {} if found is None else {"trained_on": {**plain(found), "contaminated": found.contaminated}}
    return {**trained_on, "views": plain({"trained_on": one.facts.views, "not_seen": one.facts.views_not_seen})}


def markdown(page: Page) -> str:
    """The report as Markdown: facts and tables."""
    parts = [f"# {page.title}", *score_markdown.facts_and_notes(page.shown_facts(), page.notes)]
    for one in page.checkpoints:
        parts += [] if [one] == page.proper else [f"## {one.name}", *score_markdown.facts_and_notes(one.shown_facts)]
        parts.append(tables.tables(one.metrics, one.tables))
    for evaluator, scores in page.scores.items():
        if evaluator in page.controls:
            continue
        parts += [f"## {evaluator}"] if evaluator else []
        parts += score_markdown.parts(_without(scores, page.controls), level="###")
        if any(model.name in page.controls for model in scores.models):
            parts += ["### Beside controls", score_table(TITLES["auroc"], scores.models, ("auroc",)).text()]
    return "\n\n".join(part for part in (*parts, RESEARCH_ONLY) if part) + "\n"


def _without(scores: ScoreReport, controls: Sequence[str]) -> ScoreReport:
    models = [model for model in scores.models if model.name not in controls]
    return replace(scores, models=models, comparisons=[c for c in scores.comparisons if c.model not in controls])


def predictions(page: Page) -> pd.DataFrame | None:
    """The content of predictions.csv, a row an image; None where no label was scored.

    Checkpoints that scored other images than the first are left out.
    """
    images = page.checkpoints[0].images if page.checkpoints else None
    if images is None:
        return None
    columns: dict[str, Any] = {"image": images.names, "split": images.splits}
    for one in page.checkpoints:
        for evaluator, scores in one.scores.items() if one.images == images else ():
            name = page.of(one.name, evaluator)
            for k, label in enumerate(scores.names):
                columns[f"{name}/{label}/score"] = scores.scores[:, k]
                if scores.probabilities is not None:
                    columns[f"{name}/{label}/probability"] = scores.probabilities[:, k]
    return pd.DataFrame(columns) if len(columns) > 2 else None


def seen_in_training(page: Page) -> pd.DataFrame:
    """The content of seen_in_training.csv, a row for each checkpoint and image."""
    rows = [
        {"checkpoint": one.name, "image": image, "split": split, "found": found}
        for one in page.checkpoints
        if one.images is not None
        for image, split, found in zip(one.images.names, one.images.splits, one.found)
        if found not in ("source", "unknown")
    ]
    return pd.DataFrame(rows)


def _dumps(page: Page) -> dict[str, Dump]:
    """Embeddings by file name; the evaluator is named where there are several."""
    dumps = {
        page.of(one.name, name): space.dump for one in page.proper for name, space in one.spaces.items() if space.dump
    }
    several = len(dumps) > 1
    return {"embeddings" + (f"_{_for_file(name)}" if several else ""): dump for name, dump in dumps.items()}


def _for_file(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)


def _embeddings(name: str, dump: Dump) -> dict[str, bytes]:
    """The files of one dump, by name."""
    rows = pd.DataFrame({"image": dump.images, "split": dump.splits})
    rows = pd.concat([rows, pd.DataFrame(dump.labels, columns=list(dump.names))], axis=1)
    file = io.BytesIO()
    if dump.format == "parquet":
        rows["embedding"] = list(dump.embeddings)
        rows.to_parquet(file, index=False)
        return {f"{name}.parquet": file.getvalue()}
    np.save(file, dump.embeddings)
    return {f"{name}.npy": file.getvalue(), f"{name}.csv": rows.to_csv(index=False).encode()}
