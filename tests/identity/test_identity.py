"""The comparison finds what it should: made-up recordings, one change at a time."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from compare import Names, compare
from record import leaves_of

NO_NAMES: dict[str, dict[str, str]] = {"keys": {}, "values": {}}


@pytest.fixture
def recording() -> dict[str, dict[str, str]]:
    state: dict[str, Any] = {
        "model": {"head.weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)},
        "config": {"schedule": {"_target_": "cxrcl.optim.Cosine"}, "betas": (0.9, 0.98), "views": []},
        "exposure": {"films": torch.tensor([1, 2])},
    }
    leaves = {f"last.pt/{path}": leaf for path, leaf in leaves_of(state)}
    return {"clip": {**leaves, "metrics.jsonl/train/loss@1": "2.5", "films.csv/image": "column of 2 ab"}}


def test_equal_recordings_have_no_difference_and_every_leaf_is_compared(recording: Any) -> None:
    differences, compared = compare(recording, copy.deepcopy(recording), NO_NAMES)
    assert differences == []
    assert compared == {"tensors": 3, "values": 4, "metrics": 1, "columns": 1}


def test_one_flipped_bit_another_shape_and_another_dtype_are_differences() -> None:
    weights = torch.arange(6.0)
    flipped = weights.clone()
    flipped.view(torch.int32)[5] ^= 1
    old = {"clip": dict(leaves_of({"weight": weights}))}
    for other in (flipped, weights.reshape(2, 3), weights.view(torch.int32)):
        differences, _ = compare(old, {"clip": dict(leaves_of({"weight": other}))}, NO_NAMES)
        assert len(differences) == 1 and differences[0].startswith("clip: weight: tensor float32 [6] ")


@pytest.mark.parametrize("key", ["metrics.jsonl/train/loss@1", "last.pt/config.betas.1", "films.csv/image"])
def test_every_changed_missing_or_new_leaf_is_a_difference(recording: Any, key: str) -> None:
    changed, shorter = copy.deepcopy(recording), copy.deepcopy(recording)
    changed["clip"][key] += "1"
    del shorter["clip"][key]
    for old, new in ((recording, changed), (recording, shorter), (shorter, recording), (recording, {})):
        differences, _ = compare(old, new, NO_NAMES)
        assert len(differences) == 1 and differences[0].startswith("clip: ")


def test_names_translate_places_and_values_and_have_to_be_used(recording: Any) -> None:
    text = json.dumps(recording).replace("cxrcl.optim.", "cxrcl.training.optim.").replace("films.csv/", "images.csv/")
    new = json.loads(text.replace("exposure.films", "exposure.images"))
    names = {
        "keys": {"last.pt/exposure.films": "last.pt/exposure.images", "films.csv/*": "images.csv/*"},
        "values": {"cxrcl.optim.*": "cxrcl.training.optim.*"},
    }
    assert compare(recording, new, names)[0] == []
    assert len(compare(recording, new, NO_NAMES)[0]) == 5  # a renamed place is missing and new
    assert compare(new, new, names)[0] == [
        "names.json: keys: 'last.pt/exposure.films' translates nothing",
        "names.json: keys: 'films.csv/*' translates nothing",
        "names.json: values: 'cxrcl.optim.*' translates nothing",
    ]


def test_a_star_stands_for_any_text_and_the_closest_name_is_taken() -> None:
    names = Names({"a.*.films": "a.*.images", "*.films": "*.pictures", "b.films": "c"})
    expected = {"a.0.b.films": "a.0.b.images", "x.films": "x.pictures", "b.films": "c", "films": "films"}
    assert {name: names(name) for name in expected} == expected


@pytest.mark.parametrize("keys", [{"a/*": "b"}, {"a": "b*"}, {"a**": "b**"}, {"a": "a"}])
def test_names_that_are_no_translation_are_refused(keys: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected two different names"):
        compare({}, {}, {"keys": keys, "values": {}})


def test_the_command_ends_with_status_1_where_there_is_a_difference(recording: Any, tmp_path: Path) -> None:
    other = copy.deepcopy(recording)
    other["clip"]["metrics.jsonl/train/loss@1"] = "2.5000000000000004"
    for name, content in (("old", recording), ("new", other), ("names", NO_NAMES)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    command = [sys.executable, str(Path(__file__).with_name("compare.py")), "--names", "names.json", "old.json"]
    for new, status, last in (("old.json", 0, "no differences"), ("new.json", 1, "1 differences")):
        done = subprocess.run([*command, new], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == status and done.stdout.rstrip().endswith(last), done.stdout + done.stderr


def test_what_may_be_added_or_changed_is_named_and_has_to_be_there() -> None:
    old, new = {"a": {"x/schema": "1", "x/y": "3"}}, {"a": {"x/schema": "2", "x/y": "3", "x/more.z": "4"}}
    names = {"keys": {}, "values": {}, "added": ["x/more.*"], "changed": {"x/schema": ["1", "2"]}}
    assert compare(old, new, names)[0] == []
    assert compare(old, old, names)[0] == [
        "names.json: changed: 'x/schema' is not",
        "names.json: added: 'x/more.*' translates nothing",
    ]
    assert len(compare(old, {"a": {**new["a"], "x/schema": "3"}}, names)[0]) == 2
