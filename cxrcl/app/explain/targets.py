"""The figures to be reached: a number, several by name, or those of another results.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrcl.errors import ConfigError
from cxrcl.evaluation.choices.figures import CLASS_ACCURACY, MEAN, check
from cxrcl.evaluation.choices.search import Target
from cxrcl.evaluation.metrics import METRICS

# Other code reads, resizes and rounds in another order: of the same weights, images and choices figures with three
# digits were up to this far apart, rounding included (docs/explain.md, the true causes of the study).
OTHER_CODE = 0.0005


def read_target(
    target: Any, figure: str, evaluator: str, labels: Sequence[str], tolerance: float | None
) -> tuple[Target, list[str]]:
    """What is to be reached, and notes on what of it is not compared.

    Args:
        target: a number; {figure or label: value}; or the name of a JSON file of such, or of a results.json.
        figure: what a number is, and, by its metric, what values of labels are.
        evaluator: which entry of a results.json.
        labels: those of the data.
        tolerance: None: half a unit of the last digit given, and what other code differs by.

    Raises:
        ConfigError: no number, figures that do not exist, or nothing that can be compared.
    """
    found = _content(target, evaluator) if isinstance(target, str) else target
    metric = figure.removeprefix(MEAN).partition("/")[0]
    values: dict[str, float] = {}
    for name, value in found.items() if isinstance(found, Mapping) else [(figure, found)]:
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ConfigError(f"target: {name}={value!r}: expected a number")
        known = name == CLASS_ACCURACY or name.startswith(MEAN) or name.partition("/")[0] in METRICS
        values[name if known else f"{metric}/{name}"] = float(value)
    absent = [name for name in values if "/" in name and name.partition("/")[2] not in labels]
    notes = [f"not compared, since the data have no such label: {', '.join(absent)}"] if absent else []
    values = {name: value for name, value in values.items() if name not in absent}
    if not values:
        raise ConfigError(
            f"target={target}: no figure that the data have (their labels: {', '.join(labels)}); expected a number, "
            "{figure or label: value} or a JSON file of these"
        )
    try:
        check(list(values), labels)
    except ValueError as error:
        raise ConfigError(f"target: {error}") from None
    digits = max(_decimals(value) for value in values.values())
    return Target(values, 0.5 * 10.0**-digits + OTHER_CODE if tolerance is None else tolerance), notes


def _decimals(value: float) -> int:
    """Digits after the point, as the number was given; four at most."""
    return min(4, len(f"{value:.10f}".rstrip("0").partition(".")[2]))


def _content(name: str, evaluator: str) -> Any:
    path = Path(name).expanduser()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"target={name}: expected a number, {{figure: value}} or a JSON file; no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"target={name}: not JSON ({error})") from None
    if not isinstance(content, Mapping):
        return content
    scorers = {key: part for key, part in content.items() if isinstance(part, Mapping) and f"{MEAN}auroc" in part}
    if scorers:
        if evaluator not in scorers and len(scorers) > 1:
            raise ConfigError(f"target={name}: has {', '.join(scorers)}: choose one with of=NAME")
        return _of_evaluator(scorers.get(evaluator, next(iter(scorers.values()))))
    if isinstance(content.get("models"), list) and content["models"]:  # of scripts/score.py
        model = content["models"][0]
        of_labels = {one["label"]: one["scores"]["auroc"]["value"] for one in model["labels"]}
        macro = next((one for one in model["averages"] if one["name"] == "macro"), None)
        return of_labels | ({f"{MEAN}auroc": macro["scores"]["auroc"]["value"]} if macro else {})
    return content


def _of_evaluator(part: Mapping[str, Any]) -> dict[str, Any]:
    """AUROC of the labels and their mean."""
    by_label = {f"auroc/{label}": value for label, value in part.get("auroc", {}).items()}
    return {f"{MEAN}auroc": part[f"{MEAN}auroc"], **by_label}
