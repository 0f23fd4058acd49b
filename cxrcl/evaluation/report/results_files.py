"""results.json, small enough to be opened and sent, and the files of what is too much for it.

- `results.json`: below 1 MB. A score has its value, `low` and `high`, null where there are none; `reason`, `withheld`
  and the like only where there is something to say. Bounds and p-values have six digits.
- `groups.json`: evaluator -> model -> `groups` and `gaps`, without the reliability curves of groups.
- `scores_<evaluator>.json`: what stands below `scores` in results.json, where it would not fit: many labels or models.
  results.json names the file in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

RESULTS, GROUPS = "results.json", "groups.json"
MOST_BYTES = 1_000_000
_ROUNDED = ("low", "high", "p", "p_holm")


def json_files(content: Mapping[str, Any], controls: Collection[str] = ()) -> dict[str, bytes]:
    """The files of what `output.results` gives, by name.

    Args:
        controls: names of models of which neither groups nor metrics that they do not have are kept.
    """
    scores: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for evaluator, report in lean(content.get("scores", {})).items():
        models = [_without_nothing(model) if model["name"] in controls else model for model in report["models"]]
        own = {m["name"]: {key: m[key] for key in ("groups", "gaps")} for m in models if m["groups"]}
        groups |= {evaluator: own} if own else {}
        models = [{key: value for key, value in m.items() if key not in ("groups", "gaps")} for m in models]
        compared = [each for each in report["comparisons"] if each["difference"]["value"] is not None]
        scores[evaluator] = {**report, "models": models, "comparisons": compared}
    for column in (group for own in groups.values() for parts in own.values() for group in parts["groups"]):
        for label in column["labels"]:
            label.pop("reliability")
    files = {GROUPS: written(groups)} if groups else {}
    small = {**lean(content), **({"scores": scores} if scores else {}), **({"groups": GROUPS} if groups else {})}
    for evaluator in sorted(scores, key=lambda name: -len(written(scores[name]))):
        if len(written(small)) <= MOST_BYTES:
            break
        name = f"scores_{re.sub(r'[^A-Za-z0-9.-]+', '_', evaluator)}.json"
        files[name] = written(scores[evaluator])
        small["scores"] = {**small["scores"], evaluator: name}
    return {RESULTS: written(small), **files}


def lean(value: Any) -> Any:
    """Plain values with scores as results.json has them."""
    if isinstance(value, Mapping):
        is_score = {"value", "low", "high"} <= set(value)
        return {
            key: _rounded(part) if key in _ROUNDED else lean(part)
            for key, part in value.items()
            if not is_score or key in ("value", "low", "high") or part
        }
    return [lean(part) for part in value] if isinstance(value, list | tuple) else value


def written(content: Any) -> bytes:
    """JSON, what holds no other container on one line. Only line ends outside of strings are touched."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda part: re.sub(r"\n\s*", " ", part[0]), text)
    return f"{text}\n".encode()


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else lean(value)


def _without_nothing(model: Mapping[str, Any]) -> dict[str, Any]:
    """A control, which is there for the metrics that it has."""

    def kept(part: Mapping[str, Any]) -> dict[str, Any]:
        scores = {name: score for name, score in part["scores"].items() if score["value"] is not None}
        return {**part, "scores": scores, **({"over": {m: part["over"][m] for m in scores}} if "over" in part else {})}

    parts = {key: [kept(part) for part in model[key]] for key in ("labels", "averages")}
    return {**model, **parts, "groups": [], "gaps": []}
