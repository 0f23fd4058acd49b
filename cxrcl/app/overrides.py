"""Which override mends a mistake: the rooms below name their own argument, and only the app knows its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cxrcl.errors import UserError
from cxrcl.training.trainer import NonFinite

# By the argument that an error names.
LOADING = {
    "root": "data.root=DIR",
    "labels": "data.labels=[...]",
    "check_patients": "data.check_patients=false",
    "allow_outside_root": "data.allow_outside_root=true",
    "views": "data.views=[...]",
    "filters": "data.filter={...}",
}
LISTS = {"split_lists": "data.split_lists=DIR", "fraction": "data.fraction=1"}
TEXTS = {
    "labels": "data.labels=[...]",
    "num_negatives": "prompts.num_negatives=0",
    "uncertain": "prompts.uncertain=false",
}
SAMPLES = {"unit": "data.unit=image", "texts": "data.text=prompts"}
BATCHES = {"batch_size": "trainer.batch_size=..."}
FITTING = {
    "learning_rate": "optimizer.lr=..., or trainer.precision=fp32",
    "max_bad_fraction": "data.max_bad_fraction=...",
    "select": "trainer.select=...",
}


@contextmanager
def explained(overrides: Mapping[str, str]) -> Iterator[None]:
    """Put the override that mends a mistake at the end of its line; a decorator, too.

    Args:
        overrides: argument of the code inside -> what sets it on the command line.
    """
    try:
        yield
    except (UserError, NonFinite) as error:
        override = overrides.get(error.argument or "")
        if override is None:
            raise
        raise type(error)(f"{error} (on the command line: {override})") from None
