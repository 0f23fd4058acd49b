"""Stage 6: where a run writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxrcl.app.sources import fractions_of
from cxrcl.app.stages.evaluation import Evaluation
from cxrcl.app.stages.inputs import Inputs
from cxrcl.app.stages.job import Job
from cxrcl.app.stages.samples import Samples
from cxrcl.checkpoint.content import Checkpoint, Origin
from cxrcl.data.fractions import write_index
from cxrcl.training.run_folder import RunFolder, choose_folder
from cxrcl.training.tracking import FileTracker, Tracker


@dataclass(frozen=True)
class Outputs:
    """Where a run writes."""

    folder: Path
    store: RunFolder
    tracker: Tracker


def open_outputs(
    job: Job, inputs: Inputs, samples: Samples, evaluation: Evaluation, origin: Origin, resumed: Checkpoint | None
) -> Outputs:
    """Choose the folder, and open what is written there.

    Args:
        origin: goes into every checkpoint.
    """
    cfg, runtime = job.cfg, job.runtime
    folder = runtime.main_decides(lambda: choose_folder(cfg.run_dir, cfg.name))
    is_subset = cfg.data.split_lists or fractions_of(inputs.sources, cfg.data.fraction)
    if runtime.is_main and is_subset:
        path = folder / "training_images.csv"
        write_index(path, samples.manifest, evaluation.manifest, evaluation.evaluated_splits)
    store = RunFolder(folder, cfg.trainer.keep_best, origin, resumed.best if resumed else ())
    tracker = FileTracker(folder, cfg.trainer.log_every) if runtime.is_main else Tracker()
    return Outputs(folder, store, tracker)
