"""Where splits come from: a draw by patient, or the published lists of a set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrcl.data.sources.base import split_patients
from cxrcl.data.sources.cells import filled
from cxrcl.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Splits drawn by patient: all of them, or only valid, from the patients of train.

    A set that always has a test split says so by a test_fraction of None, and prepare.py has no such option for it.

    Attributes:
        valid_fraction: share drawn for valid, unless the chosen split has one: of all, or of train where there is a
            test split. Of patients; of images or reports in a set that does not tell whose they are.
        test_fraction: share drawn for test, where the chosen split has none; counted as for valid.
        seed: of the draw.
    """

    valid_fraction: float = 0.1
    test_fraction: float | None = 0.1
    seed: int = 0

    def splits(
        self, patients: pd.Series, own_splits: pd.Series | None = None, balanced: pd.Series | None = None
    ) -> tuple[pd.Series, str]:
        """A split for each row, all rows of a patient in one.

        Args:
            patients: ids, one a row.
            own_splits: the splits of the data, or None. A missing valid split is drawn from the patients of train.
            balanced: a column whose values should be as frequent in every split; a patient counts as the set of its
                values.

        Returns:
            The splits, and a note on where they are from.

        Raises:
            DataError: the fractions leave nothing for train.
        """
        valid, test = self.valid_fraction, self.test_fraction or 0.0
        if not (valid >= 0 and test >= 0 and valid + test < 1):  # so that nan is refused, too
            test_option = "" if self.test_fraction is None else f" --test-fraction {test:g}"
            raise DataError(f"--valid-fraction {valid:g}{test_option}: expected 0 or more, and together less than 1")
        if own_splits is None:
            splits, how = pd.Series("train", index=patients.index, dtype=object), "drawn by patient"
            shares = {"train": 1 - valid - test, "valid": valid, "test": test}
        else:
            splits, how = own_splits.astype(object), "as the data has them, but valid is drawn from train"
            shares = {"train": 1 - valid, "valid": valid}
            if "valid" in splits.values or "train" not in splits.values or valid == 0:
                return own_splits, "Splits: as the data has them."
        rows = splits == "train"
        groups = None if balanced is None else _sets(patients[rows], balanced[rows])
        splits[rows] = split_patients(patients[rows], shares, self.seed, groups)
        parts = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        even = "" if balanced is None else f", balanced by {balanced.name}"
        return splits, f"Splits: {how} ({parts} of the patients, seed {self.seed}{even})."


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """More patients held out of train, by a hash of their ids: they stay the same when patients or images are added.

    A drawn split changes with every patient that is added; this one lets images be added to train later without one of
    them having been scored before.

    Attributes:
        hold_out: share of the patients of train that go to test, and the data's own valid and test with them: nothing
            that was ever scored chooses a setting again.
        develop: share of the patients of train that go to valid, to choose settings on; leave it out for the last run.
    """

    hold_out: float = 0.0
    develop: float = 0.0

    def splits(self, patients: pd.Series, own_splits: pd.Series) -> tuple[pd.Series, str]:
        """A split for each row, all rows of a patient in one.

        Args:
            patients: ids, one a row.
            own_splits: the splits of the data.

        Returns:
            The splits, and a note on where they are from; the data's own where nothing is to be held out.

        Raises:
            DataError: the shares leave nothing for train.
        """
        hold_out, develop = self.hold_out, self.develop
        if not (hold_out >= 0 and develop >= 0 and hold_out + develop < 1):  # so that nan is refused, too
            raise DataError(
                f"--hold-out {hold_out:g} --develop {develop:g}: expected 0 or more, and together less than 1"
            )
        if hold_out == develop == 0:
            return own_splits, "Splits: as the data has them."
        place = patients.map({name: _place(name) for name in patients.unique()})
        drawn = np.select([place < hold_out, place < hold_out + develop], ["test", "valid"], "train")
        splits = pd.Series(drawn, patients.index).where(own_splits == "train", "test")
        return splits, (
            f"Splits: the data's own valid and test are test; of the patients of train {hold_out:g} are test and "
            f"{develop:g} valid, by the SHA-256 of their ids."
        )


def _place(name: str) -> float:
    """Where an id lies in [0, 1): the same everywhere and always."""
    return int.from_bytes(hashlib.sha256(f"0:{name}".encode()).digest()[:8], "big") / 2**64


def _sets(patients: pd.Series, values: pd.Series) -> pd.Series:
    """For each row, the different values of its patient's rows, joined: the same for all rows of a patient."""
    pairs = pd.DataFrame({"patient": patients, "value": filled(values)}).drop_duplicates().sort_values("value")
    return patients.map(pairs.groupby("patient")["value"].agg("|".join))


def listed_splits(folder: Path, lists: Mapping[str, str], read: Callable[[Path], pd.Series], what: str) -> pd.Series:
    """The split of each image that published lists name.

    Args:
        folder: of the lists.
        lists: file -> split.
        read: file -> the names in it.
        what: images or patients, whichever the names are of.

    Returns:
        Splits, their index the names.

    Raises:
        DataError: a name stands in the lists of two splits.
    """
    splits = pd.concat([pd.Series(split, index=read(folder / file).to_numpy()) for file, split in lists.items()])
    several = splits.groupby(level=0).nunique()
    if (several > 1).any():
        raise DataError(
            f"{folder}: {int((several > 1).sum())} {what} stand in two of {', '.join(lists)} "
            f"(the first: {several.index[several > 1][0]}): expected lists without an image in common"
        )
    return splits[~splits.index.duplicated()]
