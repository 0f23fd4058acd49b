"""Several trainings in one command: starts of the encoder x parts of the training data x draws of a part x seeds.

Each cell of the grid is a training, of which held-out images choose the checkpoint, and one evaluation of that
checkpoint on the test split. What is finished is read from its folder; a cell that fails is written down and tried
again the next time.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrcl.app import study_report
from cxrcl.app.evaluate import Scored, evaluate
from cxrcl.app.job import FROM_PYTHON, Typed
from cxrcl.app.study_report import Record
from cxrcl.app.train import Trained, train
from cxrcl.checkpoint import exported
from cxrcl.checkpoint.file import load
from cxrcl.config import sections
from cxrcl.config.moved import with_current_names
from cxrcl.config.nodes import differences
from cxrcl.config.sections import Study
from cxrcl.errors import ConfigError
from cxrcl.files import replaced

logger = logging.getLogger(__name__)
Figures = Mapping[str, Mapping[str, float]]
RANDOM, IMAGENET = "random", "imagenet"


@dataclass(frozen=True)
class Cell:
    start: str
    fraction: float
    draw: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.start}_{100 * self.fraction:g}percent_draw{self.draw}_seed{self.seed}"


def cells(study: Study, starts: Sequence[str]) -> Iterator[Cell]:
    """All images are the same ones in every draw: the whole training split has one draw."""
    for start, fraction in itertools.product(starts, study.fractions):
        for draw, seed in itertools.product(study.draws[:1] if fraction == 1 else study.draws, study.seeds):
            yield Cell(start, fraction, draw, seed)


def run_from_config(values: Mapping[str, Any], packages: Sequence[str], typed: Typed = FROM_PYTHON) -> Path | None:
    """The grid of the section `study`, in this process; the folder of its table, or None when asked to stop."""
    cfg = sections.parse(values, sections.Train)
    assert cfg.study is not None
    folder = Path(cfg.run_dir or f"outputs/{cfg.name}").expanduser()
    finished = run(
        values,
        cfg.study,
        folder,
        train=lambda settings: train(settings, requested_evals=("*",), packages=packages, typed=typed),
        evaluate=lambda settings: _figures(evaluate(settings, packages=packages)),
    )
    return folder if finished else None


def _figures(scored: Scored) -> Figures:
    logger.info(f"trained on: {scored.facts['trained on']}")  # a start may have been trained on what is scored
    return scored.results


def run(
    values: Mapping[str, Any],
    study: Study,
    folder: Path,
    train: Callable[[dict[str, Any]], Trained],
    evaluate: Callable[[dict[str, Any]], Figures],
) -> bool:
    """The whole grid, cell by cell; False when a training was asked to stop.

    Args:
        values: the composed config of a training, as plain containers.
        folder: takes a folder for each cell, and study.md, study.csv, results.json and study.png after each of them.
            Of the checkpoints of a cell that was scored, those remain that `study.keep` names.
        train, evaluate: the commands: settings -> what a training tells, and figures by evaluator.

    Raises:
        ConfigError: a mistake that concerns all cells, before any of them is begun; or no cell could be finished.
    """
    values = with_current_names(values)
    _check(values, study)
    starts, left_out = _starts(values, study)
    if not starts:
        raise ConfigError(f"study.inits: {', '.join(left_out)} are left out, so that nothing is left to compare")
    for name in left_out:
        logger.info(f"study.inits.{name}: left out")
    grid, records = list(cells(study, list(starts))), dict[str, Record]()
    for number, cell in enumerate(grid, start=1):
        start, of_cell = starts[cell.start], folder / cell.name
        settings = settings_of(values, study, cell, start, of_cell)
        record = _finished(of_cell, settings, start.digest)
        if record is None:
            logger.info(f"cell {number} of {len(grid)}: {cell.name}")
            record = _run_cell(cell, settings, start.digest, study, train, evaluate)
            if record is None:
                logger.info("the study was stopped: the same command goes on from there")
                return False
            of_cell.mkdir(parents=True, exist_ok=True)
            with replaced(of_cell / "cell.json") as file:
                file.write(json.dumps(record.stored, indent=1, ensure_ascii=False).encode() + b"\n")
            if record.error is None and study.keep != "all":
                _tidy(of_cell / "checkpoints", record.stored["checkpoint"])
            result = f"failed: {record.error}" if record.error else f"{study.figure} {record.value:.4f}"
            logger.info(f"{cell.name}: {result}")
        records[cell.name] = record
        study_report.write(folder, study, list(records.values()), len(grid), left_out)
    errors = [record.error for record in records.values() if record.error]
    if len(errors) == len(grid):
        raise ConfigError(f"no cell of the study could be finished; the first said: {errors[0]}")
    return True


# ------------------------------------------------------------------------------------------------ where cells start


@dataclass(frozen=True)
class Start:
    """What differs between the starts of an encoder."""

    image_encoder: Mapping[str, Any] | None
    init_from: str | None
    digest: str  # of the file: another file of the same name makes another cell


def _starts(values: Mapping[str, Any], study: Study) -> tuple[dict[str, Start], list[str]]:
    """Starts by name, and the names of those that are left out.

    Raises:
        ConfigError: a file that is not there, or no architecture for an encoder that does not start from a checkpoint.
    """
    named = values.get("image_encoder")
    files = {name: file for name, file in study.inits.items() if isinstance(file, str)}
    absent = [f"{name}: {file}" for name, file in files.items() if file != "hub" and not _told_by(file).is_file()]
    if absent:
        raise ConfigError(f"study.inits.{'; study.inits.'.join(absent)}: no such file; null leaves a start out")
    checkpoints = [file for name, file in files.items() if name != IMAGENET]
    if named is None and checkpoints:  # the same architecture for all starts
        named = load(Path(checkpoints[0]).expanduser()).recipe.model.get("image_encoder")
    starts: dict[str, Start] = {}
    for name, asked in study.inits.items():
        file = files.get(name)
        if asked and name in (RANDOM, IMAGENET):
            if named is None:
                raise ConfigError(f"study.inits.{name}: of which architecture? choose it with image_encoder=<name>")
            weights = {} if file is None else {"pretrained": True} if file == "hub" else {"weights": file}
            starts[name] = Start({**named, **weights}, None, _digest(file))
        elif file is not None:
            starts[name] = Start(values.get("image_encoder"), file, _digest(file))
    return starts, [name for name in study.inits if name not in starts]


def _told_by(file: str) -> Path:
    """The file that tells weights from others: of an exported model the one with the checksums of the rest."""
    path = Path(file).expanduser()
    return path / exported.CONFIG if path.is_dir() else path


def _digest(file: str | None) -> str:
    return "" if file in (None, "hub") else exported.sha256(_told_by(file))


def settings_of(values: Mapping[str, Any], study: Study, cell: Cell, start: Start, folder: Path) -> dict[str, Any]:
    """The config of a cell's training. Features are cached, if at all, where the encoder is frozen."""
    data = {**values["data"], "fraction": cell.fraction, "fraction_seed": cell.draw}
    return {
        **values,
        "study": None,
        "name": cell.name,
        "run_dir": str(folder),
        "seed": cell.seed,
        "image_encoder": start.image_encoder,
        "init_from": start.init_from,
        "data": {**data, "cache_features": bool(data.get("cache_features")) and study.probe},
        "objective": {**values["objective"], "freeze_encoder": study.probe},
    }


# --------------------------------------------------------------------------------------------------- one cell


def _run_cell(
    cell: Cell,
    settings: dict[str, Any],
    digest: str,
    study: Study,
    train: Callable[[dict[str, Any]], Trained],
    evaluate: Callable[[dict[str, Any]], Figures],
) -> Record | None:
    """What came of it; None when the training was asked to stop."""
    stored: dict[str, Any] = {**vars(cell), "digest": digest, "settings": settings}
    try:
        trained = train(settings)
        if not trained.finished:
            return None
        figures = evaluate(evaluation_of(settings, trained.checkpoint))
        value = _value(figures, study.figure)
    except Exception as error:  # whatever it is, the other cells are not lost
        line = " ".join(str(error).split()) or type(error).__name__
        return Record({**stored, "error": line})
    return Record(
        {
            **stored,
            "value": value,
            "figures": {k: dict(v) for k, v in figures.items()},
            "checkpoint": None if study.keep == "none" else str(trained.checkpoint),
            "steps": trained.steps,
            "seconds": round(trained.seconds, 1),
        }
    )


def evaluation_of(settings: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The config of the evaluation: the evaluators that chose the checkpoint, on the test split."""
    evals = {
        name: {**node, "splits": ["test"]} if "splits" in node else node
        for name, node in settings["evals"].items()
        if node is not None
    }
    keys = ("num_workers", "skip_bad_images")
    return {
        **{key: settings[key] for key in ("device", "timeout_minutes") if key in settings},
        "checkpoint": str(file),
        "splits": ["test"],
        "data": {key: settings["data"][key] for key in keys if key in settings["data"]},
        "evals": evals,
        "batch_size": settings["trainer"]["batch_size"],
        "random_weights": False,
        "groups": [],
        "resamples": 0,
    }


def _value(figures: Figures, name: str) -> float:
    evaluator, figure = name.split("/", 1)
    found = figures.get(evaluator, {})
    if figure not in found:
        raise ConfigError(f"study.figure={name}: not measured; there is {', '.join(f'{evaluator}/{k}' for k in found)}")
    if math.isnan(found[figure]):
        raise ConfigError(
            f"study.figure={name}: not a number; the images lack cases or others of every label that counts"
        )
    return float(found[figure])


def _finished(folder: Path, settings: Mapping[str, Any], digest: str) -> Record | None:
    """The record of an earlier command, if this cell was finished by it.

    Raises:
        ConfigError: it was another cell: other settings, or other weights to start from.
    """
    file = folder / "cell.json"
    if not file.is_file():
        return None
    stored = json.loads(file.read_text(encoding="utf-8"))
    if "error" in stored:
        return None
    changed = differences(with_current_names(stored["settings"]), json.loads(json.dumps(settings)))
    changed = [key for key in changed if key not in ("data.num_workers", "device", "timeout_minutes", "run_dir")]
    changed += ["the file of init weights"] if stored["digest"] != digest else []
    if changed:
        raise ConfigError(
            f"{folder} was run with other settings ({', '.join(changed[:8])}): use the same ones to go on with the "
            "study, or another run_dir"
        )
    return Record(stored)


def _tidy(folder: Path, kept: str | None) -> None:
    """All checkpoints but one: a cell that was scored is not gone on with, and there are many cells."""
    for file in folder.glob("*.pt"):
        if kept is None or file.name != Path(kept).name:
            file.unlink()


def check_unseen(values: Mapping[str, Any]) -> None:
    """Raises ConfigError where a training would look at the test split."""
    given = {"splits": values["splits"]}
    for name, node in (values.get("evals") or {}).items():
        given |= {f"evals.{name}.{key}": value for key, value in (node or {}).items()}
    for where, value in given.items():
        if value == "test" or (isinstance(value, list) and "test" in value):
            raise ConfigError(
                f"{where}={value}: the test split scores a finished checkpoint (evaluate.py) and cannot choose it; "
                f"set {'[valid]' if isinstance(value, list) else 'valid'}"
            )


def _check(values: Mapping[str, Any], study: Study) -> None:
    """Raises ConfigError for what would spoil every cell, in silence or with the same message."""
    check_unseen(values)
    if "freeze_encoder" not in values["objective"]:
        raise ConfigError("study: trains a classifier; set objective=classify, or start it with the command finetune")
    trainer = values["trainer"]
    if trainer["evaluate_every_epochs"] is None and trainer["evaluate_every_steps"] is None:
        raise ConfigError("study: no figure would choose a checkpoint; set trainer.evaluate_every_epochs=1")
    if study.figure.count("/") < 1 or (values.get("evals") or {}).get(study.figure.split("/")[0]) is None:
        raise ConfigError(f"study.figure={study.figure}: expected <evaluator>/<figure> of an evaluator in evals")
    if isinstance(study.inits.get(RANDOM), str):
        raise ConfigError(f"study.inits.random={study.inits[RANDOM]}: starts from no file; give it another name")
    if no_file := [name for name, file in study.inits.items() if isinstance(file, bool) and name != RANDOM]:
        raise ConfigError(f"study.inits.{no_file[0]}: expected a file, or null to leave it out")
    strange = [name for name in study.inits if not re.fullmatch(r"[\w-]+", name)]
    if strange:
        raise ConfigError(f"study.inits: {', '.join(strange)}: names are made of letters, digits, _ and -")
    if values["data"].get("split_lists") and study.draws != [0]:
        raise ConfigError(f"study.draws={study.draws}: data.split_lists hold a single draw; set study.draws=[0]")
    for what in ("fractions", "seeds", "draws"):
        given: list[Any] = getattr(study, what)
        if not given or len(set(given)) < len(given):
            raise ConfigError(f"study.{what}={given}: expected one value or more, each once")
