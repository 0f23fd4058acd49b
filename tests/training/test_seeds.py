"""Seeds of a step and of its chunks: the same with every interpreter, another for each step, process and chunk."""

from __future__ import annotations

import torch

from cxrcl.distributed import Runtime, mixed_seed

CPU = torch.device("cpu")


def test_seeds_are_those_that_numpy_specifies() -> None:
    assert mixed_seed(0, 0, 0) == 15793235383387715774
    assert mixed_seed(2026, 17, 3) == 11671485025361364680
    assert mixed_seed(2**63 + 5, 2) == 11712093672874779075


def test_each_step_process_and_chunk_has_another_seed() -> None:
    steps = {mixed_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(4)}
    assert len(steps) == 600
    # The generator of the CPU takes the lower half only.
    assert len({seed % 2**32 for seed in steps}) == 600
    first = mixed_seed(0, 0, 0)
    assert len({mixed_seed(first, chunk) for chunk in range(50)}) == 50


def test_a_runtime_seeds_by_its_rank() -> None:
    with torch.random.fork_rng(devices=[]):
        for rank in (0, 1):
            Runtime(rank, 2, CPU).seed(7, 3)
            assert torch.initial_seed() == mixed_seed(7, 3, rank)
