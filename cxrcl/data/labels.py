"""The CheXpert label names, and what to do with uncertain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

NO_FINDING = "No Finding"
CHEXPERT = (
    NO_FINDING,
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

_UNCERTAIN_BECOMES = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0, "keep": -1.0}


def apply_policy(values: np.ndarray, names: Sequence[str], policy: str | Mapping[str, str]) -> np.ndarray:
    """Replace uncertain labels (-1) by the value that the policy gives them.

    Args:
        values: float32 [rows, C] of 1, 0, -1 and nan (the source does not say).
        policy: `ignore` (-1 -> nan), `zeros`, `ones`, `keep` (-1 stays), or one of these for each label by name;
            labels that the mapping does not name are ignored. nan stays nan under every policy.
        names: the labels, C of them.

    Returns:
        float32 [rows, C].

    Raises:
        ValueError: the policy names a label that is not there.
    """
    if isinstance(policy, str):
        policy = dict.fromkeys(names, policy)
    unknown = sorted(set(policy) - set(names))
    if unknown:
        raise ValueError(f"label_policy names labels that the data does not have: {', '.join(unknown)}")
    replacement = [_UNCERTAIN_BECOMES[policy.get(name, "ignore")] for name in names]
    return np.where(values == -1, np.asarray(replacement, dtype=values.dtype), values)
