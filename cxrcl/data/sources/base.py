"""The base of sources: a source has, or can make, a folder with a manifest.

A module of this package that defines `read(source, ...) -> Prepared` is a data set that `scripts/prepare.py <name>`
turns into a folder with a manifest; its further keyword arguments are options of that command. Options that several
sets share are fields of a frozen dataclass, which is the default of one keyword (see `draw.Draw`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cxrcl import files as csv_file
from cxrcl.data.text.prompts import Prompts
from cxrcl.errors import DataError
from cxrcl.types import Part, Positive


class Source:
    """Base of all sources; by itself a folder that has a manifest.csv.

    Args:
        root: the folder; null: `store`.
        weight: share of the training samples of an epoch, relative to the weights of the other sources; null for all
            of them: each sample once an epoch.
        fraction: of the training patients, above 0 and at most 1; null: that of the run.
        prompts: a prompt file for the labels of this source (or its content); null: that of the run.
        store: a packed store with the images of the manifest (see `data.images.store`); null: they are read from files.
    """

    def __init__(
        self,
        root: str | None = None,
        weight: Positive | None = None,
        fraction: Part | None = None,
        prompts: str | Prompts | None = None,
        store: str | None = None,
    ) -> None:
        folder = store if root is None else root
        if folder is None:
            raise ValueError("root and store: null both, expected a folder with manifest.csv, or a packed store")
        self.root = Path(folder).expanduser()
        self.store = None if store is None else Path(store).expanduser()
        self.weight, self.fraction, self.prompts = weight, fraction, prompts

    def prepare(self) -> Path:
        """Make the data when it is missing (called in one process only) and return its folder."""
        return self.root


@dataclass(frozen=True)
class Prepared:
    """A download as a manifest, before it is written.

    Attributes:
        table: one image a row, str columns of the manifest (`image` relative to `images`), labels '1', '0', '-1', ''.
        labels: the label columns, in order.
        images: the folder that holds the images; `image` may lead into a zip file in it: `archive.zip!/inside/a.png`.
        dropped: reason -> number of rows that were left out.
        notes: for the card: the split rule, the label policy, published counts.
    """

    table: pd.DataFrame
    labels: tuple[str, ...]
    images: Path
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def read_table(
    file: Path, columns: Sequence[str], hint: str = "", separator: str = ",", header: bool = True
) -> pd.DataFrame:
    """Read a CSV (.gz too) of the download: every cell is a string, a blank one ''.

    Args:
        columns: names that have to be there.
        hint: what to do when the file is missing.
        header: whether the first line names the columns; else they are named '0', '1', ...

    Raises:
        DataError: the file or one of `columns` is missing, or it is no CSV.
    """
    table = csv_file.read(file, separator, header, hint)
    missing = [name for name in columns if name not in table]
    if missing:
        raise DataError(f"{file}: no column {', '.join(missing)}; found: {', '.join(table.columns)}")
    return table


def split_patients(
    patients: pd.Series, shares: Mapping[str, float], seed: int = 0, groups: pd.Series | None = None
) -> pd.Series:
    """A split for each row, the same for all rows of a patient.

    Args:
        patients: ids [rows].
        shares: split -> share of the patients; they sum to 1.
        seed: of the shuffle; the order of rows has no influence.
        groups: [rows], the same for all rows of a patient: the shares hold in each group, to a patient or two.

    Returns:
        The split of each row [rows].
    """
    if not np.isclose(sum(shares.values()), 1) or min(shares.values()) < 0:
        raise ValueError(f"shares={dict(shares)}: expected shares that sum to 1")
    names = np.array(sorted(patients.unique()), dtype=object)
    rng = np.random.Generator(np.random.Philox(seed))
    names = names[rng.permutation(len(names))]
    counts = np.diff(np.rint(np.cumsum([0, *shares.values()]) * len(names)).astype(int))
    splits = np.repeat(np.array(list(shares), dtype=object), counts)
    if groups is not None:
        group = pd.Series(groups.to_numpy(), index=patients.to_numpy())
        group = group[~group.index.duplicated()]
        names = names[np.argsort(group.loc[names].to_numpy(dtype=object), kind="stable")]
        # Patients now stand group by group: with splits that are spread evenly over them the shares hold in each group.
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
        splits = splits[np.argsort(places, kind="stable")]
        splits = np.roll(splits, rng.integers(len(splits)))  # else a small first group would always be in train
    return patients.map(dict(zip(names, splits)))
