"""Every shipped config fits the classes it names, and every mistake in one is a line with the place and the remedy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ALONE, PACKAGES

from cxrcl.app import evaluators
from cxrcl.app.evaluators import GIVEN_TO_EVALUATORS
from cxrcl.app.model import GIVEN_TO_OBJECTIVES
from cxrcl.commands import hydra as hydra_module
from cxrcl.commands.entry import config_folder
from cxrcl.config import sections
from cxrcl.config.nodes import OPTIMIZER_PACKAGES, OWN_PACKAGES, bind, build, differences, locate, parameters
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.data.sources.base import Source
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.errors import ConfigError, nearest
from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.objectives.base import Objective
from cxrcl.training.optim import Schedule
from cxrcl.types import ImageSpec

CONFIGS = config_folder()
GROUPS = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())
GIVEN = dict.fromkeys(GIVEN_TO_EVALUATORS)
PLACES: dict[str, tuple[type, dict[str, Any], tuple[str, ...]]] = {
    "prompts": (PromptSampler, {}, OWN_PACKAGES),
    "transform": (RadiographTransform, {"spec": None}, OWN_PACKAGES),
    "image_encoder": (ImageEncoder, {}, OWN_PACKAGES),
    "text_encoder": (TextEncoder, {"corpus": None}, OWN_PACKAGES),
    "objective": (Objective, dict.fromkeys(GIVEN_TO_OBJECTIVES), OWN_PACKAGES),
    "optimizer": (torch.optim.Optimizer, {"params": []}, OPTIMIZER_PACKAGES),
    "schedule": (Schedule, {"total_steps": 9, "warmup_steps": 0}, OWN_PACKAGES),
}
REQUIRED = {"train": [], "finetune": ["init_from=x.pt"], "evaluate": ["checkpoint=x.pt"]}


def entries_of(experiment: str) -> tuple[str, ...]:
    """An experiment belongs to one kind of entry; those for one alone say so in their name."""
    if experiment.startswith("evaluate_"):
        return ("evaluate",)
    if experiment == "iu_clip":  # it sets the size of the images, and fine-tuning has that of its checkpoint
        return ("train",)
    return ("finetune",) if experiment.startswith(("finetune", "compare_")) else ("train", "finetune")


def choices() -> Iterator[Any]:
    """(entry, override) for every file of every group that the entry has.

    Fine-tuning takes most groups as they are in training: of these one file is enough, the others are slow tests.
    """
    for entry in REQUIRED:
        groups = ["data", "evals", "experiment"] if entry == "evaluate" else GROUPS
        for group in groups:
            of_training = entry == "finetune" and group not in ("experiment", "objective", "evals")
            for k, file in enumerate(sorted((CONFIGS / group).glob("*.yaml"))):
                if group != "experiment" or entry in entries_of(file.stem):
                    override = f"{group}={file.stem}" if group != "evals" else f"evals=[{file.stem}]"
                    yield pytest.param(entry, override, marks=[pytest.mark.slow] if of_training and k else [])


def compose(entry: str, *overrides: str) -> dict[str, Any]:
    return hydra_module.compose(entry, [*REQUIRED[entry], "data.root=here", *overrides])


def nodes(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], type, dict[str, Any], tuple[str, ...]]]:
    for name, (base, given, packages) in PLACES.items():
        if values.get(name) is not None:
            yield name, values[name], base, given, packages
    for name, node in values.get("evals", {}).items():
        yield f"evals.{name}", node, object, GIVEN, OWN_PACKAGES
    for name, node in values["data"]["sources"].items():
        yield f"data.sources.{name}", node, Source, {}, OWN_PACKAGES


def unlisted(node: dict[str, Any], given: dict[str, Any], nested: bool = False) -> list[str]:
    """Settings of the node's class that the node does not show; foreign classes have too many to show."""
    cls = locate(node, object, "", ("cxrcl", "torch.optim", "timm.optim"))
    if not cls.__module__.startswith("cxrcl."):
        return []
    found = []
    for name, parameter in parameters(cls).items():
        waits = nested and parameter.default is inspect.Parameter.empty
        if name not in given and name not in node and not waits:
            found.append(f"{cls.__name__}.{name}")
        elif isinstance(node.get(name), dict):
            for part in [node[name], *node[name].values()]:
                found += unlisted(part, given, nested=True) if isinstance(part, dict) and "_target_" in part else []
    return found


@pytest.mark.parametrize(("entry", "override"), list(choices()), ids=lambda value: str(value))
def test_every_config_composes_and_fits_its_classes(entry: str, override: str) -> None:
    values = compose(entry, override)
    sections.parse(values, sections.Evaluate if entry == "evaluate" else sections.Train)
    for where, node, base, given, packages in nodes(values):
        bind(node, base, where, given, packages)
        assert unlisted(node, given) == [], where


def test_every_group_is_known_to_these_tests() -> None:
    assert set(GROUPS) == {*PLACES, "data", "evals", "experiment"}


@pytest.mark.parametrize("schema", [sections.Train, sections.Data, sections.Freeze, sections.Trainer, sections.Reports])
def test_the_training_config_shows_every_setting_of_the_skeleton(schema: type[sections.BaseModel]) -> None:
    values = compose("train")
    shown = {
        sections.Train: values,
        sections.Data: values["data"],
        sections.Freeze: values["freeze"],
        sections.Trainer: values["trainer"],
        sections.Reports: values["data"]["reports"],
    }[schema]
    assert set(shown) == set(schema.model_fields)


def test_the_evaluation_config_shows_every_setting_of_the_skeleton() -> None:
    values = compose("evaluate")
    assert set(values) == set(sections.Evaluate.model_fields)
    assert set(values["data"]) == set(sections.EvaluateData.model_fields)


# ------------------------------------------------------------------------------------------------- nodes

SPEC = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
TRANSFORM = {"_target_": "cxrcl.data.images.transforms.RadiographTransform"}


def transform(**values: Any) -> RadiographTransform:
    return build({**TRANSFORM, **values}, RadiographTransform, "transform", {"spec": SPEC})


def fault(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_build_passes_settings_and_given_objects() -> None:
    made = transform(scale=[0.5, 1], rotate_deg=5)
    assert made.spec is SPEC and made.scale == (0.5, 1.0) and made.rotate_deg == 5


def test_given_objects_that_are_not_asked_for_are_not_passed() -> None:
    node = {"_target_": "cxrcl.data.sources.base.Source", "root": "x"}
    assert build(node, Source, "data", {"corpus": 3}).root == Path("x")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rotate": 3}, "transform.rotate: RadiographTransform has no such setting (did you mean `rotate_deg`?)"),
        ({"zzz": 3}, "transform.zzz: RadiographTransform has no such setting (known: aspect, blur_probability"),
        ({"rotate_deg": "far"}, "transform.rotate_deg='far': input should be a valid number"),
        ({"fit": "stretch"}, "transform.fit='stretch': input should be 'pad', 'crop' or 'squash'"),
        ({"scale": [1]}, "transform.scale.1: missing"),
        ({"scale": [2, 1]}, "transform: scale=[2.0, 1.0]: expected two areas"),
        ({"spec": 3}, "transform.spec: comes from other parts of the config"),
        ({"_partial_": True}, "transform._partial_: RadiographTransform has no such setting"),
        ({"self": 1}, "transform.self: RadiographTransform has no such setting"),
    ],
)
def test_faults_of_settings(values: dict[str, Any], said: str) -> None:
    assert said in fault(lambda: transform(**values))


def test_several_faults_of_a_node_come_at_once() -> None:
    message = fault(lambda: transform(rotate_deg="far", contrast="high"))
    assert "transform.rotate_deg='far'" in message and "transform.contrast='high'" in message


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "torch.hub.load",
        "torch.load",
        "cxrclx.Thing",
        "cxrcl_evil.Thing",
        "cxrcl.commands.entry.os.system",
        "cxrcl.commands.entry.os",
        "cxrcl.commands.entry.Path",
        "cxrcl.config.BaseModel",
        "cxrcl.config.nodes.build",
        "cxrcl.data.transforms.torch.hub.load",
        "cxrcl",
        "cxrcl.",
        "cxrcl..data",
        "",
        "__main__.Thing",
    ],
)
@pytest.mark.parametrize("base", [object, RadiographTransform])
def test_a_target_outside_of_the_allowed_packages_is_refused(target: str, base: type) -> None:
    message = fault(lambda: build({"_target_": target}, base, "transform"))
    assert message.startswith(f"transform._target_={target}")


@pytest.mark.parametrize("target", ["torch.optim.lr_scheduler.LambdaLR", "torch.load", "timm.create_model"])
def test_only_optimizers_come_from_the_optimizer_packages(target: str) -> None:
    node = {"_target_": target}
    assert fault(lambda: build(node, torch.optim.Optimizer, "optimizer", {}, OPTIMIZER_PACKAGES))


def test_a_class_of_another_kind_is_refused() -> None:
    node = {"_target_": "cxrcl.data.sources.base.Source", "root": "x"}
    assert fault(lambda: build(node, RadiographTransform, "transform")).endswith("not a RadiographTransform")


def test_a_misspelt_class_or_module_is_answered_with_the_nearest() -> None:
    node = {"_target_": "cxrcl.data.images.transforms.RadiografTransform"}
    message = fault(lambda: build(node, RadiographTransform, "transform"))
    assert "has no class RadiografTransform (did you mean `RadiographTransform`?)" in message
    node = {"_target_": "cxrcl.data.transform.RadiographTransform"}
    assert "cannot import cxrcl.data.transform" in fault(lambda: build(node, RadiographTransform, "transform"))


@pytest.mark.parametrize("node", [{}, {"fit": "pad"}, {"_target_": 3}, {"_target_": None}])
def test_a_node_needs_a_target(node: dict[str, Any]) -> None:
    assert "transform: expected a mapping with `_target_" in fault(
        lambda: build(node, RadiographTransform, "transform")
    )


def test_a_package_can_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_sources.py").write_text(
        "from cxrcl.data.sources.base import Source\nclass Mine(Source):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "own_sources.Mine", "root": "x"}
    assert "--allow-package" in fault(lambda: build(node, Source, "data.sources.mine"))
    made = build(node, Source, "data.sources.mine", packages=("cxrcl", "own_sources"))
    assert type(made).__name__ == "Mine"
    node = {"_target_": "not_installed.Mine"}
    message = fault(lambda: build(node, Source, "data.sources.mine", packages=("not_installed",)))
    assert message.endswith(
        "cannot import not_installed (No module named 'not_installed'): install the package, "
        "or set PYTHONPATH to the folder that holds it"
    )


def test_only_an_evaluator_is_one() -> None:
    node, alone = {"_target_": "helpers.StopsRun"}, ALONE

    def made() -> Evaluators:
        return evaluators.build_evaluators({"mine": node}, None, Objective(), 4, PACKAGES, [], alone)  # type: ignore[arg-type]

    assert set(made().evaluators) == {"mine"}
    node["_target_"] = "helpers.FixedData"
    assert fault(made) == "evals.mine._target_=helpers.FixedData: not an Evaluator"


# ---------------------------------------------------------------------------------------------- skeleton


def test_parse_reports_all_faults_at_once() -> None:
    values = compose("train")
    values["seed"] = -1
    values["nmae"] = "x"
    values["trainer"] |= {"batch_size": 0, "precision": "fp8", "max_step": 3, "clip_norm": "none"}
    values["data"] |= {"unit": "patient", "label_policy": "guess"}
    values["data"]["reports"] |= {"sentences": 0}
    del values["objective"]
    message = fault(lambda: sections.parse(values, sections.Train))
    for said in (
        "seed=-1: ",
        "nmae: no such setting (did you mean `name`?)",
        "trainer.batch_size=0: ",
        "trainer.precision='fp8': ",
        "trainer.max_step: no such setting (did you mean `max_steps`?)",
        "trainer.clip_norm='none': ",
        "data.unit='patient': ",
        "data.label_policy='guess': ",
        "data.reports.sentences=0: ",
        "objective: missing, set it with objective=...",
    ):
        assert said in message
    assert message.count("data.label_policy") == 1


def test_a_policy_for_each_label_is_read() -> None:
    values = compose("train")
    values["data"]["label_policy"] = {"Edema": "ones"}
    assert sections.parse(values, sections.Train).data.label_policy == {"Edema": "ones"}
    values["data"]["label_policy"] = {"Edema": "guess"}
    assert "data.label_policy.Edema='guess'" in fault(lambda: sections.parse(values, sections.Train))


@pytest.mark.parametrize(
    ("count", "epochs", "default", "expected"),
    [(7, None, None, 7), (None, 2.0, None, 20), (None, 0.26, None, 3), (None, 0, 5, 0), (None, None, 5, 5)],
)
def test_steps(count: int | None, epochs: float | None, default: int | None, expected: int) -> None:
    assert sections.steps(count, epochs, 10, "trainer.max", default) == expected


def test_steps_and_epochs_together_contradict() -> None:
    message = fault(lambda: sections.steps(3, 1.0, 10, "trainer.max"))
    assert "trainer.max_steps=3 and trainer.max_epochs=1.0 contradict" in message


def test_differences_name_dotted_keys() -> None:
    old = {"a": 1, "b": {"c": [1], "d": {"e": 2}}, "gone": 0, "same": {"x": None}}
    new = {"a": 1, "b": {"c": [2], "d": {"e": 3}}, "new": 0, "same": {"x": None}}
    assert differences(old, new) == ["b.c", "b.d.e", "gone", "new"]
    assert differences(old, old) == []


def test_a_setting_that_a_later_version_brought_is_no_difference_at_its_default() -> None:
    old = {"_target_": "cxrcl.evaluation.zero_shot.ZeroShot", "by": "global"}
    assert differences(old, {**old, "sides": "both"}) == []
    assert differences(old, {**old, "sides": "positive"}) == ["sides"]
    assert differences({**old, "sides": "positive"}, {**old, "sides": "both"}) == ["sides"]
    assert differences({"_target_": "mylab.X"}, {"_target_": "mylab.X", "size": 1}) == ["size"]


def test_nearest() -> None:
    assert nearest("colour", ["color", "size"]) == " (did you mean `color`?)"
    assert nearest("zzz", ["color", "size"]) == " (known: color, size)"
    assert nearest("zzz", []) == ""
