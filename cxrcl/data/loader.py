"""Samples -> batches."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from cxrcl.data.dataset import Sample
from cxrcl.data.order import Key, in_order
from cxrcl.data.text.tokens import TokenTable, tokenize
from cxrcl.errors import UserError
from cxrcl.types import Batch, Features, Text, Tokenizer

T = TypeVar("T")


def features_of(pooled: torch.Tensor) -> Features:
    """Features of pooled ones alone: float32 [B, V, dim] -> the same and no local ones, [B, V, 0, dim]."""
    return Features(pooled, pooled[:, :, None][:, :, :0])


def _stacked(arrays: Sequence[Any]) -> torch.Tensor | None:
    """Arrays of equal shape -> one tensor; None where samples have none."""
    return None if arrays[0] is None else torch.from_numpy(np.stack(arrays))


class Collate:
    """Stacks samples and tokenises all their texts in one call.

    Args:
        tokenizer: None: batches without texts.
        table: tokens of sentences that were looked up before; the same batches, made sooner.
    """

    def __init__(self, tokenizer: Tokenizer | None, table: TokenTable | None = None) -> None:
        self.tokenizer = tokenizer
        self.table = table

    def _text(self, samples: Sequence[Sample], tokenizer: Tokenizer) -> Text:
        """Text [B, T, L], padded to the longest of the batch."""
        texts = [text for sample in samples for text in sample.texts]
        tokens = tokenize(texts, tokenizer) if self.table is None else self.table(texts)
        return Text(*(torch.from_numpy(part).view(len(samples), len(samples[0].texts), -1) for part in tokens))

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """A batch: images uint8 [B, V, 1, S, S], labels float32 [B, C], texts int64 [B, T, L] (see `Batch`)."""
        features = _stacked([s.image_features for s in samples])
        tokenizer = self.tokenizer if samples[0].texts else None
        return Batch(
            images=_stacked([s.images for s in samples]),
            augment=_stacked([s.augment for s in samples]),
            text=None if tokenizer is None else self._text(samples, tokenizer),
            labels=torch.from_numpy(np.stack([s.labels for s in samples])),
            index=torch.tensor([s.index for s in samples], dtype=torch.int64),
            image_features=None if features is None else features_of(features),
            unreadable_row=torch.tensor([s.unreadable_row for s in samples], dtype=torch.int64),
            image_rows=_stacked([s.image_rows for s in samples]),
        )


class _Each:
    """What a function gives for each path."""

    def __init__(self, make: Callable[[str], Any], paths: np.ndarray) -> None:
        self.make, self.paths = make, paths

    def __getitem__(self, key: Key) -> Any:
        return self.make(str(self.paths[key[1]]))


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone: torch's own check waits for results to be fetched first."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # one worker, one core
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # The main process decides when to stop; a worker that obeys Ctrl-C or SIGTERM by itself only prints a traceback.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)


class BatchReader:
    """Reads batches in worker processes, and ends those processes whatever happens.

    Args:
        num_workers: 0 reads in this process.
        pin_memory: page-locked memory, for copies to CUDA that do not wait.
    """

    def __init__(self, num_workers: int, pin_memory: bool = False) -> None:
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self._open: list[Generator[Batch, None, None]] = []

    def batches(self, dataset: Any, keys: Any, collate: Collate) -> Iterator[Batch]:
        """One batch for each list of keys, in order: `collate` of the samples that `dataset` gives for the keys."""
        # A handful of batches is read sooner than workers start.
        workers = self.num_workers if len(keys) > 8 else 0
        loader = DataLoader(
            dataset,
            batch_sampler=keys,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=_start_worker,
            pin_memory=self.pin_memory,
            prefetch_factor=4 if workers else None,
        )
        generator = self._read(loader)
        self._open.append(generator)
        return generator

    def each(self, make: Callable[[str], T], paths: np.ndarray, batch_size: int) -> Iterator[list[T]]:
        """What `make` gives for each path, str [N], in order, in lists of `batch_size`; it runs in the workers."""
        collate: Any = list
        made: Any = self.batches(_Each(make, paths), in_order(range(len(paths)), batch_size), collate)
        return made

    @staticmethod
    def _read(loader: DataLoader[Any]) -> Generator[Batch, None, None]:
        iterator = iter(loader)
        try:
            yield from iterator
        except UserError as error:
            # A worker's error arrives with its traceback in the message, the error itself in the last line.
            reason = str(error).strip().splitlines()[-1]
            raise type(error)(reason.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")) from None
        finally:
            # The workers ignore SIGTERM: an iterator kept alive by a traceback would leave them for ever.
            shutdown = getattr(iterator, "_shutdown_workers", None)
            if shutdown is not None:
                shutdown()

    def close(self) -> None:
        """End the workers of loops that were left early."""
        for generator in self._open:
            generator.close()
        self._open.clear()
