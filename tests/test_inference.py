"""Reading films from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cxrcl import cli, inference
from cxrcl.errors import DataError

Read = Callable[..., tuple[int, str, str]]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Read:
    """Run the command: (status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inference.py", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.inference()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def film(tiny_set: Path) -> Path:
    return tiny_set / "images" / "0_pa.png"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--checkpoint", "a.pt"],
        ["--image", "a.png"],
        ["--checkpoint", "a.pt", "--image"],
        ["--checkpoint", "a.pt", "--image", "a.png", "--device", "tpu"],
        ["--checkpoint", "a.pt", "--image", "a.png", "--batch-size", "many"],
        ["--checkpoint", "a.pt", "--image", "a.png", "--colour"],
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "said",
)
def test_wrong_arguments_end_with_usage(read: Read, arguments: list[str]) -> None:
    status, out, err = read(*arguments)
    assert status == 2 and out == "" and "inference.py: error:" in err


def test_mistakes_are_one_line(read: Read, film: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "positives.json").write_text('{"Edema": {"pos": ["edema."]}}')
    for arguments, said in (
        (["--checkpoint", trained, "--image", "absent.png"], "--image absent.png: not found"),
        (["--checkpoint", trained, "--image", tmp_path / "empty"], "the folder holds no image"),
        (["--checkpoint", "absent.pt", "--image", film], "absent.pt: checkpoint not found"),
        (["--checkpoint", film, "--image", film], "not a cxrcl checkpoint"),
        (["--checkpoint", trained, "--image", film, "--batch-size", 0], "--batch-size 0: expected 1 or more"),
        (["--checkpoint", trained, "--image", film, "--prompts", "absent.json"], "prompts file absent.json not found"),
        (["--checkpoint", trained, "--image", film, "--prompts", tmp_path / "positives.json"], "needs both sides"),
        (["--checkpoint", trained, "--image", film, "--out", tmp_path / "file" / "x"], "cannot write there"),
    ):
        status, out, err = read(*arguments)
        assert status == 2 and out == "" and said in err
        assert err.startswith("error: ") and err.count("\n") == 1


def test_find_images_takes_files_as_they_are_and_folders_sorted(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/deep/c.tif", "sub/notes.txt", ".hidden/d.webp", "x.dcm"):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "films" / "folder.png").mkdir()
    other = tmp_path / "odd name.dat"
    other.touch()
    found = inference.find_images([other, tmp_path / "films"])
    assert found[0] == other and found[1:] == sorted(found[1:])
    assert {path.name for path in found} == {"odd name.dat", "a.JPG", "b.png", "c.tif", "d.webp", "x.dcm"}
    with pytest.raises(DataError, match="not found"):
        inference.find_images([other, tmp_path / "absent"])


def test_as_tables_ranks_labels_and_shows_failures() -> None:
    entries = [
        {"image": "a.png", "probabilities": {"Edema": 0.25, "Cardiomegaly": 0.9}},
        {"image": "b.png", "error": "empty file"},
    ]
    lines = inference.as_tables(entries, "the rule").splitlines()
    assert lines[0] == "a.png"
    assert lines[1] == f"  Cardiomegaly  0.900  {'#' * 18}" and lines[2] == f"  Edema         0.250  {'#' * 5}"
    assert "b.png" in lines and "  not read: empty file" in lines
    assert lines[-2:] == ["the rule", inference.RESEARCH_ONLY]


def test_a_film_gets_a_table(read: Read, trained: Path, film: Path) -> None:
    status, out, err = read("--checkpoint", trained, "--image", film)
    assert status == 0 and err == ""
    assert out.startswith(f"{film}\n") and all(label in out for label in ("No Finding", "Cardiomegaly", "Edema"))
    assert inference.RESEARCH_ONLY in out


def test_results_are_written_and_kept(read: Read, trained: Path, film: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    assert read("--checkpoint", trained, "--image", film, "--out", out)[0] == 0
    content = json.loads((out / "results.json").read_text())
    assert set(content) == {"rule", "note", "checkpoint", "images"} and content["checkpoint"] == str(trained)
    (entry,) = content["images"]
    assert entry["image"] == str(film) and list(entry["probabilities"]) == ["No Finding", "Cardiomegaly", "Edema"]
    assert all(0 < value < 1 for value in entry["probabilities"].values())
    status, _, err = read("--checkpoint", trained, "--image", film, "--out", out)
    assert status == 2 and "add --overwrite" in err
    lateral = film.with_name("0_lateral.png")
    assert read("--checkpoint", trained, "--image", lateral, "--out", out, "--overwrite")[0] == 0
    assert json.loads((out / "results.json").read_text())["images"][0]["image"] == str(lateral)


def test_json_is_the_only_output(read: Read, trained: Path, film: Path, tmp_path: Path) -> None:
    status, out, _ = read("--checkpoint", trained, "--image", film, "--json", "--out", tmp_path)
    assert status == 0 and json.loads(out) == json.loads((tmp_path / "results.json").read_text())


def test_a_bad_file_is_reported_and_the_others_are_read(read: Read, trained: Path, film: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    films = [film, bad, film.with_name("1_pa.png")]
    status, out, err = read("--checkpoint", trained, "--json", "--image", *films)
    entries = json.loads(out)["images"]
    assert status == 1 and err == "1 of 3 images could not be read\n"
    assert [entry["image"] for entry in entries] == [str(path) for path in films]
    assert entries[1]["error"] == "empty file" and "probabilities" in entries[0] and "probabilities" in entries[2]
    status, out, _ = read("--checkpoint", trained, "--image", bad)
    assert status == 1 and "not read: empty file" in out


def test_neither_the_batch_size_nor_the_company_changes_a_probability(read: Read, trained: Path, film: Path) -> None:
    films = [film, film.with_name("1_pa.png"), film.with_name("2_lateral.png")]
    found = []
    for size in (1, 2, 32):
        out = read("--checkpoint", trained, "--json", "--batch-size", size, "--image", *films)[1]
        found.append([list(entry["probabilities"].values()) for entry in json.loads(out)["images"]])
    assert found[0][0] != found[0][1]
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert one == pytest.approx(two, abs=1e-5)


def test_prompts_of_ones_own_name_the_labels(read: Read, trained: Path, film: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "own.json"
    prompts.write_text(json.dumps({"Big heart": {"pos": ["the heart is enlarged."], "neg": ["the heart is normal."]}}))
    _, out, _ = read("--checkpoint", trained, "--image", film, "--json", "--prompts", prompts)
    assert list(json.loads(out)["images"][0]["probabilities"]) == ["Big heart"]


def test_a_classifier_reads_its_own_labels_and_no_prompts(
    read: Read, trained: Path, tiny_set: Path, film: Path, tiny_run: list[str], tmp_path: Path
) -> None:
    from cxrcl import app

    own = [item for item in tiny_run if not item.startswith("image_encoder")]
    folders = [f"init_from='{trained}'", f"data.root='{tiny_set}'", f"run_dir='{tmp_path}'", "evals=[]"]
    classifier = app.train(cli.compose("finetune", [*own, *folders, "data.labels=[Edema]"])).checkpoint
    status, out, _ = read("--checkpoint", classifier, "--image", film, "--json")
    assert status == 0 and list(json.loads(out)["images"][0]["probabilities"]) == ["Edema"]
    status, _, err = read("--checkpoint", classifier, "--image", film, "--prompts", "zero_shot.json")
    assert status == 2 and "reads no text" in err


HEAD = {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6}
SIMCLR = {"_target_": "cxrcl.objectives.simclr.SimClr", "image_head": HEAD}
PARTS = {
    "clip": {"_target_": "cxrcl.objectives.clip.Clip", "image_head": HEAD, "text_head": HEAD},
    "classify": {"_target_": "cxrcl.objectives.classify.Classify"},
    "simclr": SIMCLR,
}


def sum_of(primary: str) -> dict[str, Any]:
    return {"_target_": "cxrcl.objectives.combined.Sum", "primary": primary, "parts": PARTS}


@pytest.fixture
def with_objective(trained: Path, tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """The trained checkpoint with another objective on its towers, of random weights."""
    from cxrcl import assemble, checkpoint

    def make(objective: dict[str, Any]) -> Path:
        state = checkpoint.load(trained)
        nodes, labels = state["config"]["model"], state["config"]["labels"]
        nodes["objective"] = objective
        state["model"] = assemble.build_model(nodes, labels, None, ("cxrcl",)).state_dict()
        checkpoint.save(state, tmp_path / "made.pt")
        return tmp_path / "made.pt"

    return make


@pytest.mark.parametrize(("primary", "rule"), [("clip", "softmax"), ("classify", "sigmoid")])
def test_a_sum_reads_as_its_primary_part(
    read: Read, with_objective: Callable[..., Path], film: Path, primary: str, rule: str
) -> None:
    status, out, err = read("--checkpoint", with_objective(sum_of(primary)), "--image", film, "--json")
    assert status == 0, err
    content = json.loads(out)
    (entry,) = content["images"]
    assert rule in content["rule"] and list(entry["probabilities"]) == ["No Finding", "Cardiomegaly", "Edema"]
    assert all(0 < value < 1 for value in entry["probabilities"].values())


@pytest.mark.parametrize("objective", [SIMCLR, sum_of("simclr")], ids=["simclr", "sum"])
def test_a_model_without_probabilities_says_what_to_do(
    read: Read, with_objective: Callable[..., Path], film: Path, objective: dict[str, Any]
) -> None:
    status, out, err = read("--checkpoint", with_objective(objective), "--image", film)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert "SimClr neither classifies nor compares" in err and "finetune.py init_from" in err
