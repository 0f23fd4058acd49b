"""What every stage of a training needs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cxrcl.config import sections
from cxrcl.distributed import Runtime


@dataclass(frozen=True)
class Job:
    """What every stage of a training needs.

    Attributes:
        cfg: the config, checked.
        values: the same as plain containers, as they go into checkpoints.
        packages: whose classes the config may name.
        requested_evals: evaluators that the user named; "*" for all.
    """

    cfg: sections.Train
    values: Mapping[str, Any]
    packages: Sequence[str]
    requested_evals: Collection[str]
    runtime: Runtime


def make_deterministic(job: Job) -> None:
    """Only operations with one result, where the config asks for it."""
    if job.cfg.trainer.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it only
        torch.use_deterministic_algorithms(True)
