"""Which images are scored, what their labels are read as, which labels a mean is over, where decisions are cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxrcl.evaluation.choices.choice import Choice, Stage, Unavailable, Variant, chosen
from cxrcl.evaluation.metrics import NO_FINDING

# The labels of the CheXpert competition (Irvin et al. 2019, section 5).
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
BLANKS = (
    Variant("blank is unknown", lambda truth: truth),
    Variant("blank is negative", lambda truth: truth.filled(np.nan, 0.0), "labels.fillna(0)"),
)
POLICIES = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}


@dataclass(frozen=True)
class Truth:
    """Labels of all images.

    Attributes:
        names: C labels.
        values: float [N, C] of 1, 0, -1 (uncertain) and nan (blank).
        mean_over: the labels of means.
    """

    names: tuple[str, ...]
    values: np.ndarray
    mean_over: tuple[str, ...]

    def filled(self, old: float, new: float) -> Truth:
        """The labels with one value in place of another."""
        found = np.isnan(self.values) if np.isnan(old) else self.values == old
        return replace(self, values=np.where(found, new, self.values))

    def against_normal(self, names: Sequence[str]) -> Truth:
        """Images labelled `No Finding` are negatives of these labels wherever they are blank."""
        normal, values = self.values[:, self.names.index(NO_FINDING)] == 1, self.values.copy()
        for name in names:
            column = values[:, self.names.index(name)]
            column[normal & np.isnan(column)] = 0
        return replace(self, values=values)


@dataclass(frozen=True)
class Rows:
    """Which of all images are scored.

    Attributes:
        table: a row an image, with the manifest's columns as far as they are known.
        keep: bool [N].
    """

    table: pd.DataFrame
    keep: np.ndarray

    def where(self, keep: np.ndarray) -> Rows:
        """Those of them where `keep`, bool [N], is true.

        Raises:
            Unavailable: none is left.
        """
        kept = self.keep & keep
        if not kept.any():
            raise Unavailable("no image would be left")
        return replace(self, keep=kept)


def of_splits(splits: Sequence[str]) -> Variant:
    """The images of these splits."""

    def step(rows: Rows) -> Rows:
        return rows.where(rows.table["split"].isin(list(splits)).to_numpy())

    return Variant(" + ".join(splits), step, f"'splits=[{','.join(splits)}]'")


def _frontal(rows: Rows) -> Rows:
    return rows.where(is_frontal(rows.table["view"]))


def is_frontal(views: pd.Series) -> np.ndarray:
    """Whether a view is a frontal one, bool [N]: AP, PA, or a word for it."""
    return views.str.lower().str.contains(r"^(?:ap|pa|front|antero|postero)").to_numpy(dtype=bool)


def first_of(columns: Sequence[str]) -> Callable[[Rows], Rows]:
    """The first scored image of each patient or study."""

    def step(rows: Rows) -> Rows:
        kept = rows.table[rows.keep]
        first = np.zeros(len(rows.table), dtype=bool)
        first[np.flatnonzero(rows.keep)[~kept.duplicated(list(columns)).to_numpy()]] = True
        return replace(rows, keep=first)

    return step


def row_choices(table: pd.DataFrame, splits: Sequence[str], scored: np.ndarray | None = None) -> list[Choice]:
    """Choices of which images are scored, of those that the table of images can tell.

    Args:
        table: of all images that were encoded.
        splits: the current ones.
        scored: bool [N], images that the current views and filter leave in; None: all.
    """
    return [*_split_choice(table, splits), *image_choices(table, scored)]


def _split_choice(table: pd.DataFrame, splits: Sequence[str]) -> list[Choice]:
    present = [name for name in ("train", "valid", "test") if (table["split"] == name).any()]
    groups = list(dict.fromkeys([tuple(splits), *((name,) for name in present), tuple(present)]))
    if len(present) == 3:
        groups.append(("valid", "test"))
    of = [of_splits(group) for group in dict.fromkeys(groups)]
    return [Choice("split", Stage.ROWS, of[0], tuple(of[1:]))]


def image_choices(table: pd.DataFrame, scored: np.ndarray | None = None) -> list[Choice]:
    """Choices among the images of the scored splits; the arguments are those of `row_choices`."""
    kept = np.ones(len(table), dtype=bool) if scored is None else scored
    current = Variant("as data.views and data.filter say", lambda rows: rows.where(kept))
    others = [] if kept.all() else [Variant("all", lambda rows: rows, "data.views=null data.filter={}")]
    if "view" in table and 0 < is_frontal(table["view"][kept]).sum() < kept.sum():
        names = sorted({view for view in table["view"].unique() if is_frontal(pd.Series([view]))[0]})
        others.append(Variant("frontal only", _frontal, f"'data.views=[{','.join(names)}]'"))
    found = [Choice("images", Stage.ROWS, current, tuple(others))]
    per: list[Variant] = []
    known: list[bytes] = [np.zeros(len(table), dtype=bool).tobytes()]
    for what, columns in (("patient", ["patient"]), ("study", ["patient", "study"])):
        if all(column in table for column in columns):
            again = table.duplicated(columns).to_numpy()
            if again.tobytes() not in known:  # as many studies as images, or as patients
                known.append(again.tobytes())
                per.append(Variant(f"first of each {what}", first_of(columns), f"table.drop_duplicates({columns})"))
    if per:
        found.append(Choice("images of a patient", Stage.ROWS, Variant("all", lambda rows: rows), tuple(per)))
    return found


def label_choices(
    truth: Truth,
    policy: str | Mapping[str, str] = "ignore",
    against_normal: Sequence[str] = (),
    evaluator: str = "zero_shot",
) -> list[Choice]:
    """Choices of what labels mean.

    Args:
        truth: labels as the source has them, uncertain ones being -1.
        policy, against_normal: the current ones.
        evaluator: whose settings a remedy overrides.
    """
    by_label = isinstance(policy, Mapping)

    def apply(policies: Mapping[str, str]) -> Callable[[Truth], Truth]:
        new = [{**POLICIES, "keep": -1.0}[policies.get(name, "ignore")] for name in truth.names]
        return lambda truth: replace(truth, values=np.where(truth.values == -1, new, truth.values))

    current = policy if isinstance(policy, Mapping) else dict.fromkeys(truth.names, policy)
    mixed = [Variant("as data.label_policy says", apply(current))] if by_label or policy not in POLICIES else []
    policies = mixed + [
        Variant(f"uncertain: {name}", apply(dict.fromkeys(truth.names, name)), f"data.label_policy={name}")
        for name in POLICIES
    ]
    found = blank_choices(truth)  # before the policy, which may make uncertain ones blank
    if (truth.values == -1).any():
        name = mixed[0].name if mixed else f"uncertain: {policy}"
        found.append(chosen("uncertain labels", Stage.LABELS, policies, name))
    if np.isnan(truth.values).any() and NO_FINDING in truth.names:
        rest = [name for name in truth.names if name != NO_FINDING]
        now = Variant("as now", lambda truth: truth.against_normal(against_normal) if against_normal else truth)
        other = Variant(
            "images without finding are negatives of blank labels",
            lambda truth: truth.against_normal(rest),
            f"'evals.{evaluator}.against_normal=[{','.join(rest)}]'",
        )
        found.append(Choice("negatives", Stage.LABELS, now, (other,)))
    return found


def blank_choices(truth: Truth) -> list[Choice]:
    """What a blank cell means, where there are any."""
    return [chosen("blank labels", Stage.LABELS, BLANKS, BLANKS[0].name)] if np.isnan(truth.values).any() else []


def mean_choice(truth: Truth, target_labels: Sequence[str] = (), evaluator: str = "zero_shot") -> Choice:
    """Which labels a mean is over.

    Args:
        target_labels: those that the target names, where it names any.
    """
    names = truth.names
    without = tuple(name for name in names if name != NO_FINDING)
    sets = {
        "all but No Finding": without,
        "all labels": names,
        "the five of the CheXpert competition": tuple(name for name in FIVE if name in names),
        "those that the target names": tuple(name for name in target_labels if name in names),
    }
    seen, others = [set(truth.mean_over)], []
    for title, over in sets.items():
        if over and set(over) not in seen:
            seen.append(set(over))
            others.append(Variant(title, _over(over), f"'evals.{evaluator}.mean_over=[{','.join(over)}]'"))
    return Choice("labels in the mean", Stage.LABELS, Variant("as now", lambda truth: truth), tuple(others))


def _over(names: tuple[str, ...]) -> Callable[[Truth], Truth]:
    return lambda truth: replace(truth, mean_over=names)
