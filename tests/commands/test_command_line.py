"""What a person at the command line sees: one line for a mistake, and exit status 2."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from checkpoints import plain_checkpoint, write_plain
from command_line import Command
from helpers import ROOT
from tiny import TINY_RUN, TINY_TEXT

from cxrcl.app.evaluate import evaluate
from cxrcl.commands.hydra import compose


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blank_pictures: None) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mistake(command: Command, tmp_path: Path) -> Callable[..., str]:
    def run(entry: str, *arguments: str) -> str:
        before = set(tmp_path.iterdir())
        status, out, err = command(entry, *arguments)
        assert status == 2, err
        assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
        assert "Traceback" not in err and "hydra" not in err.lower() and "omegaconf" not in err.lower()
        assert out == "" and set(tmp_path.iterdir()) == before
        return err

    return run


def script(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, str(ROOT / name), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=100, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tariner.batch_size=3"], "tariner.batch_size: no such setting (did you mean `trainer.batch_size`?)"),
        (["batch_size=3"], "batch_size: no such setting (did you mean `trainer.batch_size`?)"),
        (["+trainer.batchsize=3"], "trainer.batchsize: no such setting (did you mean `batch_size`?)"),
        (["objctive=clip"], "objctive: no such setting (did you mean `objective`?)"),
        (
            ["objective=convirt", "objective.lambda=0.5"],
            "objective.lambda: no such setting (did you mean `objective.lambda_`?)",
        ),
        (["objective.queue_sise=8", "objective=moco"], "(did you mean `objective.queue_size`?)"),
        (["objctive=clip", "objective=moco", "objective.queue_sise=8"], "objctive: no such setting"),
        (["objective.queue_sise=8", "objctive=clip", "objective=moco"], "(did you mean `objective.queue_size`?)"),
        (
            ["objective.queue_sise=8", "objective=moco", "optimizer=adamv"],
            "optimizer=adamv: no such option (did you mean `adamw`?)",
        ),
        (["objective=clop"], "objective=clop: no such option (did you mean `clip`?); options: classify, clip"),
        (["experiment=dem"], "experiment=dem: no such option (did you mean `demo`?)"),
        (["evals=[zeroshot]"], "evals=zeroshot: no such option (did you mean `zero_shot`?)"),
        (["foo"], "'foo' is not an override: write key=value"),
        (["outputs/demo/best.pt"], "'outputs/demo/best.pt' is not an override"),
        (["out=mine"], "out: no such setting (did you mean `run_dir`?)"),
        (["checkpoint=a.pt"], "checkpoint: no such setting (did you mean `init_from`?)"),
        (
            ["experiment=compare_init", "study.inits.clop=a.pt"],
            "(did you mean `study.inits.clip`?); a start of your own is added with +study.inits.clop=FILE",
        ),
        (["splits=valid"], "splits='valid': expected a list: 'splits=[valid]'"),
        (["trainer.batch_size==3"], "is not an override"),
        (["data.views=[PA"], "is not an override"),
        (["data.views=PA,AP"], "quote the whole for lists: 'key=[a,b]'"),
        (["=3"], "a group takes the name of one of its files"),
        (["transform=null"], "a group takes the name of one of its files"),
        (["trainer.batch_size=many"], "trainer.batch_size='many': input should be a valid integer"),
        (["trainer.batch_size=0"], "trainer.batch_size=0: input should be greater than or equal to 1"),
        (
            ["seed=-1", "trainer.log_every=0"],
            "seed=-1: input should be greater than or equal to 0; trainer.log_every=0",
        ),
        (["data=[phantom,phantom]"], "data=[...]: phantom stands twice"),
        (["~data.sources.phantom"], "data: no source; choose one with data=<name>"),
        (["data.root=/nowhere"], "/nowhere/manifest.csv: not found"),
        (["seed=${nothing}"], "seed: "),
        (["run_dir=???"], "run_dir: has to be set: run_dir=..."),
        (["--trainer.batch_size=3"], "--trainer.batch_size=3: no such option; settings are written key=value"),
        (["-x"], "-x: no such option"),
        (["--allow-package"], "--allow-package needs the name of a Python package"),
        (["--allow-package", "a b"], "--allow-package needs the name of a Python package"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "said",
)
def test_mistakes_of_train(mistake: Callable[..., str], arguments: list[str], said: str) -> None:
    assert said in mistake("train", *arguments)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer._target_=os.system", "optimizer._target_=os.system: only cxrcl"),
        ("transform._target_=subprocess.Popen", "transform._target_=subprocess.Popen: only cxrcl may be named here"),
        (
            "objective.image_head._target_=cxrcl.commands.entry.os.system",
            "objective.image_head._target_=cxrcl.commands.entry.os.system",
        ),
        ("+transform.rotate=3", "transform.rotate: RadiographTransform has no such setting"),
        ("transform.scale=[2,1]", "transform: scale=[2.0, 1.0]"),
        ("prompts.file=absent.json", "prompts file absent.json not found; shipped ones: against_normal.json"),
        ("trainer.batch_size=1000", "trainer.batch_size=1000"),
        ("trainer.accumulate=2", "trainer.accumulate=2"),
        ("trainer.max_steps=null", "set max_epochs or max_steps"),
        ("trainer.max_epochs=1", "trainer.max_steps=2 and trainer.max_epochs=1.0 contradict"),
        ("trainer.select=zero_shit/x", "trainer.select=zero_shit/x: no evaluator zero_shit"),
        ("init_from=absent.pt", "absent.pt: checkpoint not found"),
        ("data.views=[LL]", "view 'LL' does not occur in the data: it has Lateral, PA"),
        ("data.labels=[Scoliosis]", "no such column: Scoliosis; label columns: No Finding, Cardiomegaly, Edema"),
        ("data.label_policy={Scoliosis: ones}", "label_policy names labels that the data does not have: Scoliosis"),
        ("text_encoder.heads=3", "width=16 is not divisible by heads=3"),
        ("image_encoder.name=resnet999", "image_encoder: name=resnet999: timm has no such model"),
    ],
)
def test_mistakes_of_train_with_data(mistake: Callable[..., str], tiny_set: Path, override: str, said: str) -> None:
    assert said in mistake("train", *TINY_RUN, *TINY_TEXT, f"data.root='{tiny_set}'", override)


def test_a_label_value_of_two(
    mistake: Callable[..., str], put: Callable[..., Path], rows: list[dict[str, str]], tmp_path: Path
) -> None:
    rows[3]["Edema"] = "2"
    message = mistake("train", f"data.root={put(rows)}")
    assert "label 'Edema' is '2' in 1 row, first at row 5" in message


def test_a_patient_in_two_splits(
    mistake: Callable[..., str], put: Callable[..., Path], rows: list[dict[str, str]]
) -> None:
    rows[0]["split"] = "test"
    message = mistake("train", f"data.root={put(rows)}")
    assert "1 patients stand in more than one split" in message and "data.check_patients=false" in message


@pytest.mark.parametrize(
    ("entry", "arguments", "said"),
    [
        ("finetune", [], "init_from"),
        ("finetune", ["init_from=absent.pt"], "absent.pt: checkpoint not found"),
        ("finetune", ["splits=[test]"], "splits=['test']: the test split scores a finished checkpoint (evaluate.py)"),
        ("finetune", ["evals.classification.splits=[test]"], "evals.classification.splits=['test']: the test"),
        ("evaluate", [], "checkpoint: has to be set: checkpoint=..."),
        ("evaluate", ["checkpoint=absent.pt"], "absent.pt: checkpoint not found"),
        ("evaluate", ["checkpoint=a b.pt", "batch_size=none"], "error: batch_size='none'"),
        ("evaluate", ["checkpoint=absent.pt", "data=phantm"], "data=phantm: no such option (did you mean `phantom`?)"),
        ("evaluate", ["checkpoint=absent.pt", "data.lables=[]"], "did you mean `data.labels`?"),
        ("evaluate", ["checkpoint=absent.pt", "splits=[tset]"], "splits.0='tset'"),
    ],
)
def test_mistakes_of_finetune_and_evaluate(
    mistake: Callable[..., str], tiny_set: Path, entry: str, arguments: list[str], said: str
) -> None:
    source = [f"data.root='{tiny_set}'"] if entry == "finetune" else []
    assert said in mistake(entry, *source, *arguments)


def test_evaluate_names_a_split_without_rows(
    mistake: Callable[..., str], trained: Path, put: Callable[..., Path], rows: list[dict[str, str]], tiny_set: Path
) -> None:
    folder = put([row for row in rows if row["split"] != "test"])
    message = mistake("evaluate", f"checkpoint='{trained}'", f"data.root={folder}", "data.num_workers=0")
    assert "splits: no row has the split test" in message


def test_cfg_job_prints_the_config_and_writes_nothing(command: Command, tmp_path: Path) -> None:
    status, out, err = command("train", "trainer.batch_size=7", "--cfg", "job")
    values = yaml.safe_load(out)
    assert status == 0 and err == "" and values["trainer"]["batch_size"] == 7 and "hydra" not in values
    assert list(tmp_path.iterdir()) == []


def test_the_entry_file_answers_a_misspelt_key_in_one_line(tmp_path: Path) -> None:
    found = script(tmp_path, "train.py", "trainer.btach_size=3")
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr == "error: trainer.btach_size: no such setting (did you mean `trainer.batch_size`?)\n"
    assert list(tmp_path.iterdir()) == []


def test_train_and_evaluate_from_the_command_line(command: Command, tiny_set: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a run = 1"
    status, out, err = command(
        "train", *TINY_RUN, *TINY_TEXT, f"data.root='{tiny_set}'", f"run_dir='{folder}'", "evals=[]"
    )
    assert status == 0 and err == "" and "checkpoint: " in out and "TensorBoard: tensorboard --logdir" in out
    assert "next: python evaluate.py checkpoint=" in out and "evals=" not in out.partition("next: ")[2]
    checkpoint = folder / "checkpoints" / "last.pt"
    arguments = [f"checkpoint='{checkpoint}'", "evals=[retrieval]", "data.num_workers=0", "device=cpu"]
    status, out, err = command("evaluate", *arguments)
    assert status == 0 and err == "" and "report: " in out
    assert (folder / "evaluate_test" / "results.json").is_file() and (folder / "evaluate_test" / "report.md").is_file()
    (checkpoint.parent / "copy.pt").write_bytes(checkpoint.read_bytes())
    both = f"checkpoint=['{checkpoint}','{checkpoint.parent / 'copy.pt'}']"
    status, out, err = command("evaluate", both, *arguments[1:], f"out='{folder / 'both'}'")
    assert status == 0 and "last / retrieval: image -> text" in out and "copy / retrieval: image -> text" in out
    assert {path.name for path in tmp_path.iterdir()} == {folder.name}


@pytest.mark.parametrize(
    "objective", [["simclr"], ["moco", "objective.queue_size=4"], ["clip_simclr", "objective.primary=simclr"]], ids=str
)
def test_features_alone_are_scored_by_the_probe_that_the_next_command_asks_for(
    command: Command, tiny_set: Path, tmp_path: Path, objective: list[str]
) -> None:
    given = [*TINY_RUN, f"objective={objective[0]}", *objective[1:], "evals=[]", "data.labels=[Cardiomegaly]"]
    status, out, err = command("train", *given, f"data.root='{tiny_set}'", f"run_dir='{tmp_path / 'a run'}'")
    assert status == 0, err
    (following,) = [line.removeprefix("next: python ") for line in out.splitlines() if line.startswith("next: ")]
    assert following.endswith(" 'evals=[linear_probe]'")
    entry, *arguments = shlex.split(following)
    status, out, err = command(entry.removesuffix(".py"), *arguments, "device=cpu", "data.num_workers=0")
    assert status == 0, err
    assert "linear_probe" in json.loads((tmp_path / "a run" / "evaluate_test" / "results.json").read_text())


def test_a_sum_whose_primary_part_reads_text_is_scored_by_the_defaults(
    command: Command, tiny_set: Path, tmp_path: Path
) -> None:
    given = [*TINY_RUN, "objective=clip_simclr", "evals=[]", f"data.root='{tiny_set}'", f"run_dir='{tmp_path / 'run'}'"]
    status, out, err = command("train", *given)
    assert status == 0, err
    assert "evaluate.py" in out.partition("next: ")[2] and "evals=" not in out.partition("next: ")[2]


def test_a_setting_of_one_evaluator_does_not_demand_the_others(command: Command, trained: Path, tmp_path: Path) -> None:
    arguments = [f"checkpoint='{trained}'", f"out='{tmp_path / 'out'}'", "data.num_workers=0", "device=cpu"]
    status, out, err = command("evaluate", *arguments, "evals.zero_shot.resamples=10")
    assert status == 0, err
    assert "evals.classification is left out: Clip does not meet Classifies" in out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["scores"]) == {"zero_shot", "view_only"} and "classification" not in results
    assert "mean_auroc_low" in results["zero_shot"] and results["retrieval"]


@pytest.mark.parametrize(
    ("stored", "given", "positives"),
    [("ignore", "null", 1), ("ignore", "ones", 2), ("ones", "null", 2), ("ones", "ignore", 1)],
)
def test_the_policy_of_an_evaluation_is_that_of_training_unless_given(
    trained: Path, tmp_path: Path, stored: str, given: str, positives: int
) -> None:
    state = plain_checkpoint(trained)
    state["config"]["data"]["label_policy"] = stored
    write_plain(state, tmp_path / "x.pt")
    overrides = [f"checkpoint='{tmp_path / 'x.pt'}'", f"data.label_policy={given}", "evals=[zero_shot]", "device=cpu"]
    scored = evaluate(compose("evaluate", overrides))
    assert scored.results["zero_shot"]["positives/Edema"] == positives
    assert scored.results["zero_shot"]["negatives/Edema"] == 2


def test_the_same_run_again_is_already_complete(command: Command, trained: Path, tiny_set: Path) -> None:
    where = ["evals=[]", f"data.root='{tiny_set}'", f"run_dir='{trained.parent.parent}'"]
    status, out, _ = command("train", *TINY_RUN, *TINY_TEXT, *where)
    assert status == 0 and "already complete" in out


@pytest.mark.slow
def test_a_sweep_runs_each_value_and_goes_on_after_a_failure(tmp_path: Path, tiny_set: Path) -> None:
    arguments = [*TINY_RUN, *TINY_TEXT, "evals=[]"]
    sweep = ["--multirun", "seed=0,-1,2", "run_dir='runs/${seed}'"]
    found = script(tmp_path, "train.py", *arguments, f"data.root='{tiny_set}'", *sweep)
    assert found.returncode == 2
    assert "error: seed=-1" in found.stderr and "Traceback" not in found.stderr
    for seed in (0, 2):
        assert (tmp_path / "runs" / str(seed) / "checkpoints" / "last.pt").is_file()
