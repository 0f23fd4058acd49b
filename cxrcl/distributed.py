"""Everything that knows how many processes there are. No other module asks for a rank.

One process a device, started by torchrun (or by nobody: a world of one). Control messages (sizes, flags, objects) go
over gloo on the CPU and never wait for the accelerator; tensors go over nccl on CUDA and gloo on the CPU.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from cxrcl.errors import ConfigError

T = TypeVar("T")


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def mixed_seed(*numbers: int) -> int:
    """One seed of 64 bits out of several numbers of 0 or more, the same with every version of Python and NumPy."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def offset(local_rows: int) -> int:
    """Where this process's rows begin among the rows of all processes."""
    return dist.get_rank() * local_rows if dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    """All-gather whose backward sums, for each process, the gradients that all processes hold for its rows.

    With DistributedDataParallel's mean over processes, a loss that is the mean over local rows then has exactly the
    gradient of one process that sees the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = rows.new_empty((world_size() * rows.shape[0], *rows.shape[1:]))
        dist.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        own = grad.new_empty((grad.shape[0] // world_size(), *grad.shape[1:]))
        dist.reduce_scatter_tensor(own, grad.contiguous())
        return own


def _agree_on_shape(rows: Tensor) -> Tensor:
    """Pad every dimension but the first to the largest of all processes; unequal batches are an error."""
    mine = torch.tensor(rows.shape, dtype=torch.int64)
    shapes = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(shapes, mine)
    table = torch.stack(shapes)
    if (table[:, 0] != table[0, 0]).any():
        raise RuntimeError(f"processes hold batches of different sizes: {table[:, 0].tolist()}")
    largest = table.amax(dim=0)
    padding = [pad for size, most in zip(mine.tolist()[:0:-1], largest.tolist()[:0:-1]) for pad in (0, most - size)]
    return nn.functional.pad(rows, padding) if any(padding) else rows


def gather(rows: Tensor) -> Tensor:
    """[B, ...] of each process -> [world * B, ...], in the order of ranks, with gradient.

    Shapes are agreed on first: trailing dimensions (token lengths, say) are zero-padded to the longest.
    """
    if world_size() == 1:
        return rows
    rows = _agree_on_shape(rows)
    if rows.requires_grad:
        return _Gather.apply(rows)
    return _Gather.forward(None, rows)


def rows_of_all(rows: Tensor) -> Tensor:
    """`gather` without gradient: for keys of a queue, identities of texts, partial sums."""
    with torch.no_grad():
        return gather(rows.detach())


def shuffle(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Exchange rows between processes by a random permutation, the same in all of them (shuffling BN of MoCo).

    Returns:
        This process's rows after the exchange [B, ...] and the order for `unshuffle`. Alone, rows stay where they are:
        their order has no part in batch statistics.
    """
    world = world_size()
    if world == 1:
        return rows, torch.arange(len(rows), device=rows.device)
    order = torch.randperm(world * len(rows))
    dist.broadcast(order, src=0)  # over gloo, on the CPU
    order = order.to(rows.device)
    first = offset(len(rows))
    return rows_of_all(rows)[order[first : first + len(rows)]], order


def unshuffle(rows: Tensor, order: Tensor) -> Tensor:
    """Bring computed rows back to the processes and places that `shuffle` took them from."""
    if world_size() == 1:
        return rows
    first = offset(len(rows))
    return rows_of_all(rows)[order.argsort()[first : first + len(rows)]]


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Running means and variances of every BatchNorm, in the order of registration."""
    statistics: list[Tensor] = []
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None and part.running_var is not None:
            statistics += [part.running_mean, part.running_var]
    return statistics


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Afterwards the running statistics of BatchNorm are what they were."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    copies = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    try:
        yield
    finally:
        for buffer, value in copies:
            buffer.copy_(value)


@dataclass(frozen=True)
class Runtime:
    """This process's place among all processes."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, count: int) -> range:
        """This process's positions among `count`: contiguous, disjoint, covering, sizes differing by at most one."""
        return range(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Rows of all processes in the order of ranks, without gradient; the number of rows may differ."""
        if self.world == 1:
            return rows
        sizes = self.gather_objects(len(rows))
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = _Gather.forward(None, padded).unflatten(0, (self.world, max(sizes)))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def mean(self, value: Tensor) -> Tensor:
        """Mean over processes, without gradient."""
        value = value.detach().clone()
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag: is it raised in any process?"""
        if self.world == 1:
            return flags
        raised = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return tuple(bool(value) for value in raised.tolist())

    def gather_objects(self, value: T) -> list[T]:
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def main_decides(self, decide: Callable[[], T]) -> T:
        """`decide()` runs in the main process only; all get its value, or all raise its error."""
        if self.world == 1:
            return decide()
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = decide()
            except Exception as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` whose gradients are averaged over processes; itself in a world of one."""
        if self.world == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Buffers are not broadcast: queues are kept equal by construction, running statistics are averaged below.
        # PyTorch 2.13 renamed the option.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        settings: dict[str, Any] = {option: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(module, device_ids=ids, **settings)

    def sync_batchnorm(self, module: nn.Module) -> nn.Module:
        """BatchNorm over the global batch. Only CUDA has it: elsewhere, and alone, the module is returned as it is."""
        if self.world > 1 and self.device.type == "cuda":
            from timm.layers import convert_sync_batchnorm  # knows the layers that hold their activation, too

            return convert_sync_batchnorm(module)
        return module

    def seed(self, *numbers: int) -> None:
        """Seed the generators of this process and its device by these numbers and the rank.

        torch.manual_seed also asks each kind of device that is not there, which takes as long as the step of a probe.
        """
        number = mixed_seed(*numbers, self.rank)
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    @contextmanager
    def averaged_statistics(self, module: nn.Module) -> Iterator[None]:
        """Inside, running statistics of BatchNorm are the mean over processes; afterwards each has its own again."""
        if self.world == 1:
            yield
            return
        with statistics_kept(module):
            for statistic in running_statistics(module):
                statistic.copy_(self.mean(statistic))
            yield


def _available_threads(local_world: int) -> int:
    """Cores this process may use, shared among the processes of the machine: oversubscription costs a factor of ten."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // local_world)


@contextmanager
def start(device: str = "auto", timeout_minutes: float = 10.0) -> Iterator[Runtime]:
    """Join the processes that torchrun started (its environment variables say so), or run alone.

    Args:
        device: auto (CUDA when present), cpu or cuda.
        timeout_minutes: a process that waits longer for the others ends with an error.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: PyTorch finds no CUDA device; use device=auto or device=cpu")
    use_cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if use_cuda and local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own ({torch.cuda.device_count()} found): "
            "lower --nproc_per_node, or set device=cpu"
        )
    if use_cuda:
        torch.cuda.set_device(local_rank)
    if "OMP_NUM_THREADS" not in os.environ or world > 1:
        torch.set_num_threads(_available_threads(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    place = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if world == 1:
        yield Runtime(rank=0, world=1, device=place)
        return
    backend = "cpu:gloo,cuda:nccl" if use_cuda else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    if dist.get_rank() > 0:  # what all processes would say is said once
        logging.getLogger("cxrcl").setLevel(logging.ERROR)
    try:
        yield Runtime(rank=dist.get_rank(), world=world, device=place)
    finally:
        dist.destroy_process_group()
