"""Several sources in one run: weights, fractions and prompts by source, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import plain_checkpoint
from helpers import ALONE, ROOT
from tiny import LABELS, TINY_RUN, TINY_TEXT, write_film, write_rows, write_tiny_set

from cxrcl.app import evaluate as evaluate_module
from cxrcl.app import sources as mixture
from cxrcl.app.data import load_data
from cxrcl.app.train import train
from cxrcl.commands import hydra as hydra_module
from cxrcl.commands.train import main as train_command
from cxrcl.config import sections
from cxrcl.config.nodes import OWN_PACKAGES
from cxrcl.data import manifest
from cxrcl.data.dataset import Sample, TrainSet
from cxrcl.data.order import Key
from cxrcl.data.sources.base import Source
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.reports import ReportSampler
from cxrcl.data.text.texts import Texts
from cxrcl.errors import ConfigError, UserError

PROMPTS = {"_target_": "cxrcl.data.text.prompts.PromptSampler", "file": "chexpert.json", "num_negatives": 1}
SHARDS = {"pos": ["Shards of metal."], "neg": ["Free of metal."], "unc": ["Perhaps metal."]}
OWN_FILE = {"Shrapnel": SHARDS, "Edema": {"pos": ["Wet."], "neg": ["Dry."], "unc": ["Damp."]}}


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """$CXRCL_DATA: mimic_cxr has reports and labels (12 studies of train), chexpert labels only (8, one of its own)."""
    write_tiny_set(tmp_path / "data" / "mimic_cxr")
    rows = []
    for k in range(12):
        write_film(tmp_path / "data" / "chexpert" / f"{k}.png", 100 + k)
        ids = {"patient": f"{k:03d}", "study": "1", "view": "PA", "split": "train" if k < 8 else "valid"}
        rows.append({"image": f"{k}.png", **ids, "Edema": str(k % 2), "Shrapnel": str(k // 2 % 2)})
    write_rows(tmp_path / "data" / "chexpert", rows)
    (tmp_path / "own.json").write_text(json.dumps(OWN_FILE))
    return tmp_path


@pytest.fixture
def compose(sets: Path, monkeypatch: pytest.MonkeyPatch, clean_hydra: None) -> Callable[..., dict[str, Any]]:
    monkeypatch.setenv("CXRCL_DATA", str(sets / "data"))

    def make(*overrides: str, name: str = "train") -> dict[str, Any]:
        own = f"data.sources.chexpert.prompts={sets / 'own.json'}"
        return hydra_module.compose(name, [*TINY_RUN, *TINY_TEXT, "data=[mimic_cxr,chexpert]", own, *overrides])

    return make


def sources_of(values: dict[str, Any]) -> dict[str, Source]:
    return mixture.build_sources(sections.parse(values["data"], sections.Data), OWN_PACKAGES)


def load(values: dict[str, Any]) -> manifest.Manifest:
    cfg = sections.parse(values["data"], sections.Data)
    return load_data(cfg, mixture.build_sources(cfg, OWN_PACKAGES), ALONE)


# ------------------------------------------------------------------------------------------------ settings


def test_a_weight_for_some_sources_only_is_an_error(compose: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"data\.sources\.chexpert\.weight: null, but other sources have a weight"):
        sources_of(compose("data.sources.mimic_cxr.weight=2"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["data.sources.chexpert.weight=0", "data.sources.mimic_cxr.weight=1"],
            "chexpert.weight=0: input should",
        ),
        (["data.fraction=0"], "data.fraction=0: input should be greater than 0"),
        (["data.fraction=1.5"], "data.fraction=1.5: input should be less than or equal to 1"),
        (["data.root=x"], "set data.sources.<name>.root of each instead"),
        (["data.sources.mimic_cxr.prompts=absent.json"], "data.sources.mimic_cxr.prompts: prompts file absent.json"),
        (["data.sources.chexpert.prompts=null"], "has no sentences for Shrapnel"),
        (["data.sources.chexpert.weight=1e-6", "data.sources.mimic_cxr.weight=1"], "weight=1e-06: gives 0 of 20"),
        (["data.text=report", *(f"data.sources.{k}.weight=1" for k in ("mimic_cxr", "chexpert"))], "gives 5 of 10"),
        (["data.views=[Lateral]"], "no image of the source chexpert is left"),
        (["data.labels=[Edema,Edema]"], "data.labels: Edema stands twice: name each label once"),
    ],
)
def test_mistakes(compose: Callable[..., dict[str, Any]], overrides: Sequence[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        train(compose("evals=[]", *overrides))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_settings_of_the_only_source_hold_for_another_folder(compose: Callable[..., dict[str, Any]]) -> None:
    values = hydra_module.compose(
        "train", ["data=chexpert", "data.sources.chexpert.fraction=0.5", "data.root=elsewhere"]
    )
    (source,) = sources_of(values).values()
    assert source.root == Path("elsewhere") and source.fraction == 0.5


# -------------------------------------------------------------------------------------------------- fractions


def counts(data: manifest.Manifest) -> dict[tuple[str, str], int]:
    patients = data.rows[["part", "split", "patient"]].drop_duplicates()
    return dict(Counter(zip(patients["part"], patients["split"], strict=True)))


def test_fractions_thin_the_training_patients_of_their_source(compose: Callable[..., dict[str, Any]]) -> None:
    whole = counts(load(compose()))
    assert whole["mimic_cxr", "train"] == 12 and whole["chexpert", "train"] == 8
    all_thin = counts(load(compose("data.fraction=0.5")))
    assert all_thin == {**whole, ("mimic_cxr", "train"): 6, ("chexpert", "train"): 4}
    one_thin = counts(load(compose("data.sources.chexpert.fraction=0.1")))
    assert one_thin == {**whole, ("chexpert", "train"): 1}
    own = counts(load(compose("data.fraction=0.5", "data.sources.chexpert.fraction=1")))
    assert own == {**whole, ("mimic_cxr", "train"): 6}


def test_the_seed_of_the_fraction_is_not_that_of_the_run(compose: Callable[..., dict[str, Any]]) -> None:
    prints = [
        load(compose("data.fraction=0.5", setting)).fingerprint()
        for setting in ("seed=0", "seed=1", "data.fraction_seed=1")
    ]
    assert prints[0] == prints[1] != prints[2]


# ------------------------------------------------------------------------------------------------------ order


def order_of(values: dict[str, Any]) -> tuple[Any, str, np.ndarray]:
    data = load(values).split("train")
    order, said = mixture.training_order(sources_of(values), data, [np.array([k]) for k in range(len(data))], 0)
    return order, said, data.rows["part"].to_numpy()


def test_weights_decide_the_share_of_each_source(compose: Callable[..., dict[str, Any]]) -> None:
    weights = ["data.sources.mimic_cxr.weight=1", "data.sources.chexpert.weight=4"]
    order, said, part = order_of(compose(*weights))
    assert said == "mimic_cxr 18 x 0.278, chexpert 8 x 2.62"
    for epoch in range(2):
        drawn = [part[item] for _, item in order(epoch)]
        assert drawn.count("mimic_cxr") == 5 and drawn.count("chexpert") == 21


def test_without_weights_each_sample_comes_once(compose: Callable[..., dict[str, Any]]) -> None:
    order, said, _ = order_of(compose())
    assert order is None and said == "mimic_cxr 18 x 1, chexpert 8 x 1"


def test_a_source_for_evaluation_only_needs_no_share(compose: Callable[..., dict[str, Any]], sets: Path) -> None:
    file = sets / "data" / "chexpert" / "manifest.csv"
    file.write_text(file.read_text().replace("train", "test"))
    order, said, _ = order_of(compose("data.sources.mimic_cxr.weight=1", "data.sources.chexpert.weight=4"))
    assert said == "mimic_cxr 18 x 1, chexpert 0" and sorted(item for _, item in order(0)) == list(range(18))


# ---------------------------------------------------------------------------------------------------- prompts


def test_each_source_speaks_with_its_own_sentences_of_its_own_labels(compose: Callable[..., dict[str, Any]]) -> None:
    values = compose()
    data = load(values)
    assert data.labels == (*LABELS, "Shrapnel")
    prompts = mixture.prompts_of(PROMPTS, sources_of(values), OWN_PACKAGES)
    texts = Texts(data, "auto", ReportSampler(("findings", "impression")), prompts)
    own = {sentence for forms in OWN_FILE.values() for kind in forms.values() for sentence in kind}
    reported = data.rows["findings"] != ""
    for row, part in enumerate(data.rows["part"]):
        if part == "chexpert":
            assert set(texts.draw(row, np.random.default_rng(row))) <= own
        elif reported[row]:
            assert "heart is" in texts.make(row, None)
        else:
            assert not set(texts.draw(row, np.random.default_rng(row))) & own
    assert set(data.rows["part"][~reported]) == {"mimic_cxr", "chexpert"}


def test_the_only_source_uses_its_own_file_too(sets: Path) -> None:
    own = {"a": Source("x", prompts=str(sets / "own.json"))}
    alone = mixture.prompts_of(PROMPTS, own, OWN_PACKAGES)
    assert isinstance(alone, PromptSampler) and alone.prompts == OWN_FILE and alone.num_negatives == 1
    plain = mixture.prompts_of(PROMPTS, {"a": Source("x")}, OWN_PACKAGES)
    assert isinstance(plain, PromptSampler) and "Fracture" in plain.prompts


# --------------------------------------------------------------------------------------------- the entry points


WEIGHTS = ["data.sources.mimic_cxr.weight=1", "data.sources.chexpert.weight=9"]
MIXED = ["data=[mimic_cxr,chexpert]", *TINY_RUN, *TINY_TEXT, *WEIGHTS, "data.sources.chexpert.prompts=own.json"]


def test_reports_and_labels_in_one_batch(
    sets: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], clean_hydra: None
) -> None:
    monkeypatch.chdir(sets)
    monkeypatch.setenv("CXRCL_DATA", "data")
    monkeypatch.setattr(sys, "argv", ["train.py", *MIXED, "data.fraction=0.5", "evals=[loss]", "run_dir=run"])
    make, drawn = TrainSet.__getitem__, list[Key]()

    def recorded(self: TrainSet, key: Key) -> Sample:
        drawn.append(key)
        return make(self, key)

    monkeypatch.setattr(TrainSet, "__getitem__", recorded)
    train_command()
    assert "an epoch takes mimic_cxr 6 x 0.167, chexpert 4 x 2.25" in capfd.readouterr().out
    assert len(set(drawn)) == 8 and sum(item >= 6 for _, item in drawn) >= 7  # 4 at most, if each came once
    stored = plain_checkpoint(sets / "run" / "checkpoints" / "last.pt")["config"]
    assert list(stored["data"]["sources"]) == ["mimic_cxr", "chexpert"]  # in place of the default, not beside it
    assert stored["data"]["sources"]["chexpert"]["prompts"] == OWN_FILE
    # Evaluation needs no prompts file, and sees whole splits; only the split train is as thin as in training.
    (sets / "own.json").unlink()
    evaluate = ["checkpoint=run/checkpoints/last.pt", "splits=[valid]", "evals=[loss]", "device=cpu"]
    evaluate += ["data.num_workers=0"]
    for more, images in (
        ([], 10),
        (["data.filter={part: [mimic_cxr]}"], 6),
        (["data=[chexpert]"], 4),
        (["data=[chexpert]", "splits=[train]"], 8),
        (["data=[chexpert]", "splits=[train]", "data.fraction=0.25"], 2),
    ):
        facts = evaluate_module.evaluate(hydra_module.compose("evaluate", [*evaluate, *more])).facts
        assert facts["images"] == str(images)


@pytest.mark.slow
def test_a_mixture_is_pasted_as_it_stands(sets: Path) -> None:
    line = [sys.executable, str(ROOT / "train.py"), *MIXED, "evals=[]"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CXRCL_DATA": "data"}
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=sets, env=environment)
    assert done.returncode == 0, done.stderr
    assert "an epoch takes mimic_cxr 12 x 0.167, chexpert 8 x 2.25" in done.stdout


@pytest.mark.parametrize(("chosen", "names"), [("phantom", ["phantom"]), ("[phantom]", ["phantom"])])
def test_one_source_is_named_with_or_without_brackets(clean_hydra: None, chosen: str, names: list[str]) -> None:
    for entry in ("train", "finetune", "evaluate"):
        more = ["checkpoint=x"] if entry == "evaluate" else []
        assert list(hydra_module.compose(entry, [f"data={chosen}", *more])["data"]["sources"]) == names


def test_several_sources_take_the_place_of_the_default(clean_hydra: None) -> None:
    options = sorted(path.stem for path in (ROOT / "configs" / "data").glob("*.yaml") if path.stem != "phantom")
    for entry in ("train", "finetune", "evaluate"):
        more = ["checkpoint=x"] if entry == "evaluate" else []
        sources = hydra_module.compose(entry, [f"data=[{','.join(options)}]", *more])["data"]["sources"]
        assert list(sources) == options
        assert all(node["root"].endswith(f"/{name}") for name, node in sources.items())
