"""Phantom images, a small CLIP trained on them, its tables, one image read: `make demo`, or `cxrcl demo`.

Run again, it says that it is complete, or goes on where it was stopped; that is decided before torch is imported.
Overrides of the command line go to the training config: `cxrcl demo seed=1 run_dir=outputs/demo_seed1`.
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
from cxrcl.commands.entry import INTERRUPTED, guarded, quoted, spelled
from cxrcl.commands.evaluate import trained_on, write_report
from cxrcl.commands.hydra import compose, compose_or_explain

FOLDER = "outputs/demo"


def main() -> None:
    guarded(run)


def run() -> None:
    values = compose_or_explain("train", ["experiment=demo", f"run_dir={FOLDER}", *sys.argv[1:]])
    folder = Path(values["run_dir"])
    recipe = hashlib.sha256(json.dumps([cxrcl.__version__, values], sort_keys=True).encode()).hexdigest()[:16]
    file = folder / "demo.json"
    if file.is_file() and (done := json.loads(file.read_text(encoding="utf-8"))).get("recipe") == recipe:
        print(f"the demo is complete (remove {folder} to run it again)\n\n{done['shown']}")
        return
    _train_and_show(values, folder, file, recipe)


def _train_and_show(values: dict[str, Any], folder: Path, file: Path, recipe: str) -> None:
    started = time.monotonic()
    print("cxrcl demo: draws phantom images (first time only), pre-trains a small CLIP, scores it, reads one of them.")
    print("It takes about three minutes on 2 CPU cores. Ctrl-C stops it; `make demo` goes on from there.\n", flush=True)
    from cxrcl.app.evaluate import evaluate
    from cxrcl.app.job import Typed
    from cxrcl.app.train import train
    from cxrcl.commands.inference import as_tables
    from cxrcl.data.phantom import contact_sheet
    from cxrcl.evaluation.report import tables
    from cxrcl.inference import predict

    trained = train(values, typed=Typed(shlex.join(["cxrcl", "demo", *sys.argv[1:]])))
    if not trained.finished:
        sys.exit(INTERRUPTED)
    evals = "evals=[zero_shot,retrieval,representation,view_only,pixel_ridge]"
    overrides = [f"checkpoint='{_escaped(trained.checkpoint)}'", evals, "evals.representation.max_samples_per_class=50"]
    scored = evaluate(
        compose("evaluate", overrides),
        typed=Typed(f"{spelled('evaluate')} {shlex.join(overrides)}", tuple(overrides)),
    )
    assert scored.page is not None
    written = write_report(folder, scored.page)

    phantom = _phantom_folder(values)
    sheet = folder / "contact_sheet.png"
    contact_sheet(phantom, sheet)
    example, truth = _example(phantom)
    with predict.opened_model(trained.checkpoint) as loaded:
        predictor = predict.Predictor(loaded)
        entries = list(predictor.predict([example]))

    shown = "\n".join(
        [
            f"zero-shot on the test split ({scored.facts['images']} images of patients not seen in training); "
            "pixel_ridge is trained with labels on 32 x 32 pixels:",
            tables.label_table(scored.results, "auroc").text(),
            "",
            tables.retrieval_table(scored.results).text(),
            "",
            *trained_on(scored.page),
            "",
            as_tables(entries, predictor.rule),
            f"  what is drawn there: {truth}",
            "",
            f"report        {written}",
            f"figures       {folder / 'results.json'}",
            f"images        {sheet}",
            f"checkpoint    {trained.checkpoint}",
            f"TensorBoard   {_bin()}tensorboard --logdir {quoted(folder)}",
            f"read an image {_here('inference')} --checkpoint {quoted(trained.checkpoint)} --image {quoted(example)}",
            f"your own      {_here('train')} data.root=DIR   (DIR/manifest.csv: see README.md)",
        ]
    )
    seconds = round(time.monotonic() - started, 1)
    content = {
        **tables.nested(scored.results),
        "seconds": seconds,
        "images_per_second": round(trained.images_per_second, 1),
        "steps": trained.steps,
        "seed": values["seed"],
        "recipe": recipe,
        "shown": shown,
    }
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{shown}\n\n{seconds:.0f} s, {trained.images_per_second:.0f} images/s while training")


def _bin() -> str:
    """Where the commands of the virtual environment lie that `make` builds in a checkout; nothing elsewhere."""
    return ".venv/bin/" if Path(".venv/bin/python").is_file() else ""


def _here(command: str) -> str:
    return f"{_bin()}{spelled(command)}"


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("'", "\\'")


def _phantom_folder(values: dict[str, Any]) -> Path:
    from cxrcl.data.sources.phantom import Phantom

    node = values["data"]["sources"]["phantom"]
    return Phantom(**{key: value for key, value in node.items() if key != "_target_"}).root


def _example(phantom: Path) -> tuple[Path, str]:
    """A frontal test image with two findings or three, and what its labels say."""
    from cxrcl.data import manifest

    data = manifest.load(phantom).split("test")
    findings = (data.values[:, 1:] == 1).sum(axis=1)
    frontal = data.rows["view"].isin(["PA", "AP"]).to_numpy()
    row = int(((findings >= 2) & (findings <= 3) & frontal).argmax())
    present = [name for name, value in zip(data.labels, data.values[row]) if value == 1]
    return Path(data.rows["path"].iloc[row]), ", ".join(present)
