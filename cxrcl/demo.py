"""`make demo`: phantom films, a small CLIP, zero-shot and retrieval tables, one film read.

Run again, it says that it is complete, or goes on where it was stopped; that is decided before torch is imported.
Overrides of the command line go to the training config: `python -m cxrcl.demo seed=1 run_dir=outputs/demo_seed1`.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import cxrcl
from cxrcl import cli

FOLDER = "outputs/demo"


def main() -> None:
    values = cli.compose_or_explain("train", ["experiment=demo", f"run_dir={FOLDER}", *sys.argv[1:]])
    folder = Path(values["run_dir"])
    recipe = hashlib.sha256(json.dumps([cxrcl.__version__, values], sort_keys=True).encode()).hexdigest()[:16]
    file = folder / "demo.json"
    if file.is_file() and (done := json.loads(file.read_text(encoding="utf-8"))).get("recipe") == recipe:
        print(f"the demo is complete (remove {folder} to run it again)\n\n{done['shown']}")
        return
    _run(values, folder, file, recipe)


def _run(values: dict[str, Any], folder: Path, file: Path, recipe: str) -> None:
    started = time.monotonic()
    print("cxrcl demo: draws phantom films (first time only), pre-trains a small CLIP, scores it, reads one film.")
    print("It takes about three minutes on 2 CPU cores. Ctrl-C stops it; `make demo` goes on from there.\n", flush=True)
    from cxrcl import app
    from cxrcl.data.phantom import contact_sheet
    from cxrcl.evaluation import report
    from cxrcl.inference import reading
    from cxrcl.inference.command import as_tables

    trained = app.train(values)
    if not trained.finished:
        sys.exit(cli.INTERRUPTED)
    evals = "evals=[zero_shot,retrieval,representation,view_only,pixel_ridge]"
    overrides = [f"checkpoint='{_escaped(trained.checkpoint)}'", evals, "evals.representation.max_samples_per_class=50"]
    scored = app.evaluate(cli.compose("evaluate", overrides), command=f"python evaluate.py {shlex.join(overrides)}")
    assert scored.page is not None
    written = cli.write_report(folder, scored.page)

    films = _phantom_folder(values)
    sheet = folder / "contact_sheet.png"
    contact_sheet(films, sheet)
    example, truth = _example(films)
    with reading.opened(trained.checkpoint) as restored:
        read = reading.Reading(restored)
        entries = list(read.of([example]))

    checkpoint, image = shlex.quote(str(trained.checkpoint)), shlex.quote(str(example))
    shown = "\n".join(
        [
            f"zero-shot on the test split ({scored.facts['images']} films of patients not seen in training); "
            "pixel_ridge is trained with labels on 32 x 32 pixels:",
            report.label_table(scored.results, "auroc"),
            "",
            report.retrieval_table(scored.results),
            "",
            as_tables(entries, read.rule),
            f"  what is drawn there: {truth}",
            "",
            f"report        {written}",
            f"figures       {folder / 'results.json'}",
            f"films         {sheet}",
            f"checkpoint    {trained.checkpoint}",
            f"TensorBoard   .venv/bin/tensorboard --logdir {shlex.quote(str(folder))}",
            f"read a film   .venv/bin/python inference.py --checkpoint {checkpoint} --image {image}",
            "your own      .venv/bin/python train.py data.root=DIR   (DIR/manifest.csv: see README.md)",
        ]
    )
    seconds = round(time.monotonic() - started, 1)
    content = {
        **report.nested(scored.results),
        "seconds": seconds,
        "images_per_second": round(trained.images_per_second, 1),
        "steps": trained.steps,
        "seed": values["seed"],
        "recipe": recipe,
        "shown": shown,
    }
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{shown}\n\n{seconds:.0f} s, {trained.images_per_second:.0f} images/s while training")


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("'", "\\'")


def _phantom_folder(values: dict[str, Any]) -> Path:
    from cxrcl.data.sources.phantom import Phantom

    node = values["data"]["sources"]["phantom"]
    return Phantom(**{key: value for key, value in node.items() if key != "_target_"}).root


def _example(films: Path) -> tuple[Path, str]:
    """A frontal test film with two findings or three, and what its labels say."""
    from cxrcl.data import manifest

    data = manifest.load(films).split("test")
    findings = (data.values[:, 1:] == 1).sum(axis=1)
    frontal = data.rows["view"].isin(["PA", "AP"]).to_numpy()
    row = int(((findings >= 2) & (findings <= 3) & frontal).argmax())
    present = [name for name, value in zip(data.labels, data.values[row]) if value == 1]
    return Path(data.rows["path"].iloc[row]), ", ".join(present)


if __name__ == "__main__":
    cli.guarded(main)
