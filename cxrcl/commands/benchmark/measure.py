"""Time of contenders that take turns, peak memory of a child process, and waits for the device."""

from __future__ import annotations

import gc
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cxrcl.errors import UserError

Work = Callable[[], object]
MEGABYTE = 1e6


# --------------------------------------------------------------------------------------------------- time


def race(
    contenders: Mapping[str, Work],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    settle: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each contender in each round. Contenders should have run before: there is no warm-up here.

    Args:
        contenders: run once a round, each time beginning with the next one, so that none always follows another.
        clock: seconds.
        settle: called before the clock is read, such as `torch.cuda.synchronize`.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            settle()
            begin = clock()
            contenders[name]()
            settle()
            seconds[name].append(clock() - begin)
    return seconds


class Ratio(NamedTuple):
    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.lowest:.2f}, {self.highest:.2f}]"


def ratio(reference: Sequence[float], ours: Sequence[float]) -> Ratio:
    """How many times as long the reference takes, round by round: a machine that slows down slows both of a round."""
    each = [slow / fast for slow, fast in zip(reference, ours, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


# ------------------------------------------------------------------------------------------------- memory


def _status_megabytes(field: str) -> float:
    """A field of /proc/self/status, which are in units of 1024 bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, field
    return int(found[1]) * 1024 / MEGABYTE


def can_measure_memory() -> bool:
    """Linux keeps a peak that can be set back; that of getrusage would hide behind an earlier, higher one."""
    return os.access("/proc/self/clear_refs", os.W_OK)


def peak_here(work: Work) -> float:
    """MB by which this process grows at most while it works."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far becomes what is in use now
    before = _status_megabytes("VmRSS")
    work()
    return _status_megabytes("VmHWM") - before


def peak_in_child(arguments: Sequence[str]) -> float:
    """`benchmark.py` with these arguments in a fresh process, which prints its `peak_here`.

    Raises:
        UserError: the child did not end well (the machine's memory may be too small).
    """
    # One heap, and every large block straight from the system and back: what is freed is no longer counted.
    quiet = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "cxrcl", "benchmark", *arguments]
    child = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["no message; killed for want of memory?"])[-1]
        raise UserError(f"{' '.join(arguments)}: the child process ended with status {child.returncode}: {reason}")
    return float(child.stdout)


def peak_on_cuda(work: Work) -> float:
    """MB by which the memory of tensors on the current CUDA device grows at most."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MEGABYTE


# -------------------------------------------------------------------------------------------------- waits


class _Waits(TorchDispatchMode):
    """Counts operations after which Python needs a value, or a shape, that only the device knows."""

    ALWAYS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim"}
    BY_MASK = {"index", "index_put", "index_put_", "_index_put_impl_"}  # a mask of bool as an index is a `nonzero`

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in self.BY_MASK and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        self.count += name in self.ALWAYS or masks
        return func(*args, **(kwargs or {}))


def waits(work: Work) -> int:
    """How often a device would have to finish before Python can go on (`.item()`, boolean indices and their like).

    Counted by operation, so that it shows on the CPU, too.
    """
    with _Waits() as counted:
        work()
    return counted.count
