"""`cxrcl results`: parts are run once at a commit, and the page says what was measured and what was not."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrcl.commands.results import page, parts
from cxrcl.commands.results.figures import aurocs
from cxrcl.commands.results.running import DOWNLOAD, Checkout, Command, Ledger, Part
from cxrcl.errors import ConfigError, DataError
from cxrcl.evaluation.report.table import Table

COUNT = "import sys, pathlib; file = pathlib.Path(sys.argv[1]); file.open('a').write('x')"
CHECKOUT = Checkout(Path(), "0123456789abcdef", "")


def count(file: Path) -> Command:
    """Writes one more letter into a file."""
    return Command(("python", "-c", COUNT, str(file)))


def part(name: str, *commands: Command, lacks: str = "") -> Part:
    def read() -> list[Table]:
        lengths = [
            [file.name, str(len(file.read_text()))] for file in sorted(Path(commands[0].words[-1]).parent.glob("*.n"))
        ]
        return [Table("Lengths", ["file", "length"], lengths)]

    return Part(name, f"The part {name}", "What it measures.", commands, read, lacks)


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[..., Ledger]:
    return lambda threads=1, **places: Ledger(tmp_path / "out", threads, places)


def test_a_command_that_ended_well_is_not_run_again_but_with_other_threads(
    ledger: Callable[..., Ledger], tmp_path: Path
) -> None:
    one = part("one", count(tmp_path / "a.n"), count(tmp_path / "b.n"))
    assert ledger().run(one) and ledger().run(one)
    also = part("also", count(tmp_path / "a.n"), count(tmp_path / "c.n"))  # shares a command with the first
    assert ledger().run(also)
    assert {file.name: len(file.read_text()) for file in tmp_path.glob("*.n")} == {"a.n": 1, "b.n": 1, "c.n": 1}
    assert ledger(threads=2).run(also) and (tmp_path / "c.n").read_text() == "xx"


def test_killed_in_the_middle_it_goes_on_with_what_is_left(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    first, once = tmp_path / "a.n", tmp_path / "killed"
    kill = (
        "import os, pathlib, signal, sys; once = pathlib.Path(sys.argv[1])\n"
        "if not once.exists(): once.touch(); os.kill(os.getppid(), signal.SIGKILL)"
    )
    both = part("p", count(first), Command(("python", "-c", kill, str(once))))
    process = multiprocessing.get_context("fork").Process(target=ledger().run, args=(both,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and once.exists() and first.read_text() == "x"
    assert ledger().run(both) and first.read_text() == "x"


def test_a_part_that_fails_is_said_and_the_others_stand(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    bad = part(
        "bad",
        count(tmp_path / "a.n"),
        Command(("python", "-c", "raise SystemExit('no space left')")),
        count(tmp_path / "z.n"),
    )
    every = [
        bad,
        part("good", count(tmp_path / "b.n")),
        part("absent", count(tmp_path / "d.n"), lacks="needs a download"),
        part("later", count(tmp_path / "l.n")),
    ]
    book = ledger()
    assert [book.run(each) for each in every[:2]] == [False, True] and not (tmp_path / "z.n").exists()
    text = page.write(tmp_path / "docs" / "results.md", every, book, CHECKOUT).read_text()
    assert "## The part good" in text and "## The part bad" not in text and "b.n  | 1" in text
    assert count(tmp_path / "b.n").line in text, "the command can be pasted"
    said = text.partition("## Not measured")[2]
    assert "ended with status 1: no space left" in said and "needs a download" in said
    assert "(`later`): 1 of 1 commands have not been run at this commit." in said
    assert "`0123456789abcdef`" in text and "not committed" not in text


def test_files_that_cannot_be_read_are_a_failure_of_their_part(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    def read() -> list[Table]:
        raise KeyError("mean_auroc")

    broken = Part("broken", "Broken", "", [count(tmp_path / "a.n")], read)
    book = ledger()
    book.run(broken)
    assert (
        "its files cannot be read: KeyError" in page.write(tmp_path / "page.md", [broken], book, CHECKOUT).read_text()
    )
    assert "broken" in book.failures


def test_a_folder_of_this_machine_is_put_in_for_the_run_only(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    copy = Command(
        (
            "python",
            "-c",
            "import sys, pathlib; pathlib.Path(sys.argv[2]).write_text(sys.argv[1])",
            DOWNLOAD,
            str(tmp_path / "told"),
        )
    )
    book = ledger(**{DOWNLOAD: "/secret/place"})
    assert book.run(part("one", copy)) and (tmp_path / "told").read_text() == "/secret/place"
    assert "secret" not in (book.folder / "done.json").read_text() + copy.line


def test_a_change_that_is_not_committed_is_said_and_the_page_is_none(
    tmp_path: Path, ledger: Callable[..., Ledger]
) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    with pytest.raises(ConfigError, match="no git checkout"):
        Checkout.find(tmp_path, tmp_path / "docs" / "results.md")
    git("init", "-q")
    (tmp_path / "docs").mkdir()
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", "-A")
    git("commit", "-qm", "first")
    results = tmp_path / "docs" / "results.md"
    clean = Checkout.find(tmp_path, results)
    results.write_text("written by the command itself")
    assert Checkout.find(tmp_path, results) == clean and not clean.is_dirty and len(clean.commit) == 40
    states = {clean.state}
    for text in ("a = 2\n", "a = 3\n"):
        (tmp_path / "code.py").write_text(text)
        changed = Checkout.find(tmp_path, results)
        assert changed.is_dirty and changed.commit == clean.commit
        states.add(changed.state)
    (tmp_path / "code.py").write_text("a = 1\n")
    (tmp_path / ".venv").symlink_to(tmp_path / "docs")  # no file
    for text in ("b = 1", "b = 2"):  # a file that git does not know yet
        (tmp_path / "new.py").write_text(text)
        states.add(Checkout.find(tmp_path, results).state)
    assert len(states) == 5
    assert "not committed" in page.write(results, [], ledger(), changed).read_text()


def test_aurocs_of_seeds_are_those_of_their_predictions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [f"{k}.png" for k in range(80)]
    manifest = pd.DataFrame({"image": images, "patient": [f"p{k // 2}" for k in range(80)]})
    manifest["A"], manifest["No Finding"] = rng.choice(["0", "1", "", "-1"], 80), rng.choice(["0", "1"], 80)
    manifest["Devices"] = np.where(manifest["No Finding"] == "1", "", rng.choice(["1", ""], 80))
    manifest.to_csv(tmp_path / "manifest.csv", index=False)
    folders, scores = [tmp_path / "0", tmp_path / "1"], rng.normal(size=(2, 80, 2))
    for folder, of_seed in zip(folders, scores):
        folder.mkdir()
        table = pd.DataFrame(
            {"image": images, "zero_shot/A/score": of_seed[:, 0], "zero_shot/Devices/score": of_seed[:, 1]}
        )
        table.sample(frac=1, random_state=len(folder.name)).to_csv(folder / "predictions.csv", index=False)
    found = aurocs(folders, "zero_shot", tmp_path, mean_over=["A"], against_normal=["Devices"])
    known = manifest["A"].isin(["0", "1"])
    wanted = [roc_auc_score(manifest["A"][known] == "1", of_seed[known, 0]) for of_seed in scores]
    assert found.seeds() == [f"{value:.3f}" for value in wanted]
    assert found.cell("A").text == found.cell().text == f"{np.mean(wanted):.3f}" and found.cell("A").aside.startswith(
        "[0."
    )
    normal, ill = manifest["No Finding"] == "1", manifest["Devices"] == "1"
    devices = [roc_auc_score(ill[normal | ill], of_seed[normal | ill, 1]) for of_seed in scores]
    assert found.cell("Devices").text == f"{np.mean(devices):.3f}" and found.counts[1] == (ill.sum(), normal.sum())
    assert found.minus(found, "A").text == "+0.000" and found.minus(found, "A").aside == "[+0.000, +0.000]"


def test_every_command_of_every_part_can_be_composed() -> None:
    from cxrcl.commands.hydra import compose

    files = {"train.py": "train", "finetune.py": "finetune", "evaluate.py": "evaluate"}
    lines = [c.words[1:] for each in parts.make(Path("out"), True) for c in each.commands]
    places = ("seed=", "run_dir=", "out=", "checkpoint=")
    kinds = {tuple(word for word in words if not word.startswith(places)): words for words in lines}
    for file, *overrides in (words for words in kinds.values() if words[0] in files):
        compose(files[file], overrides)
    scripts = {"scripts/prepare.py", "scripts/benchmark.py", "scripts/heatmap_pointing.py"}
    assert {words[0] for words in lines} - set(files) == {"-m", *scripts}


def test_labels_are_read_from_where_the_demo_draws_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cxrcl.commands.hydra import compose
    from cxrcl.data.sources.phantom import Phantom

    monkeypatch.setenv("CXRCL_DATA", str(tmp_path))
    node = compose("train", ["experiment=demo"])["data"]["sources"]["phantom"]
    drawn = Phantom(**{key: value for key, value in node.items() if key != "_target_"}).root
    demo = parts.make(tmp_path, False)[0]
    for seed in (0, 1, 2):
        (tmp_path / f"demo-{seed}").mkdir()
        (tmp_path / f"demo-{seed}" / "predictions.csv").write_text("image,zero_shot/Edema/score\na.png,0.5\n")
    with pytest.raises(DataError, match=f"{drawn}/manifest.csv: not found"):
        demo.read()
