"""Reading images from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import plain_checkpoint, write_plain
from PIL import Image

from cxrcl.commands import inference as command
from cxrcl.commands.hydra import compose
from cxrcl.commands.inference import main as inference
from cxrcl.errors import RESEARCH_ONLY, DataError

Read = Callable[..., tuple[int, str, str]]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Read:
    """Run the command: (status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inference.py", *map(str, arguments)])
        capsys.readouterr()
        try:
            inference()
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
def test_wrong_arguments_are_one_line(read: Read, arguments: list[str]) -> None:
    status, out, err = read(*arguments)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and err.endswith("; see inference.py --help\n")


def test_mistakes_are_one_line(read: Read, film: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "positives.json").write_text('{"Edema": {"pos": ["edema."]}}')
    (tmp_path / "blank.txt").write_text(" \n\n")
    for arguments, said in (
        (["--checkpoint", trained, "--image", "absent.png"], "--image absent.png: not found"),
        (["--checkpoint", trained, "--image", tmp_path / "empty"], "the folder holds no image"),
        (["--checkpoint", "absent.pt", "--image", film], "absent.pt: checkpoint not found"),
        (["--checkpoint", film, "--image", film], "not a cxrcl checkpoint"),
        (["--checkpoint", trained, "--image", film, "--batch-size", 0], "--batch-size 0: expected 1 or more"),
        (["--checkpoint", trained, "--image", film, "--prompts", "absent.json"], "prompts file absent.json not found"),
        (["--checkpoint", trained, "--image", film, "--prompts", tmp_path / "positives.json"], "needs both sides"),
        (["--checkpoint", trained, "--image", film, "--out", tmp_path / "file" / "x"], "cannot write there"),
        (["--checkpoint", trained, "--image", film, "--heatmap"], "add --out DIR"),
        (
            ["--checkpoint", trained, "--image", film, "--labels", "Edma"],
            "no such label 'Edma' (did you mean `Edema`?)",
        ),
        (["--checkpoint", trained, "--image", film, "--labels", "Scoliosis"], "--prompts pair.json makes sentences"),
        (["--checkpoint", trained, "--image", film, "--labels", "Edema,,Mass"], "names separated by commas"),
        (["--checkpoint", trained, "--image", film, "--labels", "Edema,Edema"], "Edema is named twice"),
        (["--checkpoint", trained, "--image", film, "--sentences", "absent.txt"], "--sentences absent.txt: cannot be"),
        (["--checkpoint", trained, "--image", film, "--sentences", tmp_path], "cannot be read"),
        (["--checkpoint", trained, "--image", film, "--sentences", film], "not UTF-8 text"),
        (["--checkpoint", trained, "--image", film, "--sentences", tmp_path / "blank.txt"], "no sentence in it"),
        (["--checkpoint", trained, "--image", film, "--phrase", "edema", "..."], "--phrase '...': expected words"),
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
    found = command.find_images([other, tmp_path / "films"])
    assert found[0] == other and found[1:] == sorted(found[1:])
    assert {path.name for path in found} == {"odd name.dat", "a.JPG", "b.png", "c.tif", "d.webp", "x.dcm"}
    with pytest.raises(DataError, match="not found"):
        command.find_images([other, tmp_path / "absent"])


def test_as_tables_ranks_labels_and_shows_failures() -> None:
    entries = [
        {"image": "a.png", "probabilities": {"Edema": 0.25, "Cardiomegaly": 0.9}},
        {"image": "b.png", "error": "empty file"},
    ]
    lines = command.as_tables(entries, "the rule").splitlines()
    assert lines[0] == "a.png"
    assert lines[1] == f"  Cardiomegaly  0.900  {'#' * 18}" and lines[2] == f"  Edema         0.250  {'#' * 5}"
    assert "b.png" in lines and "  not read: empty file" in lines
    assert lines[-2:] == ["the rule", RESEARCH_ONLY]
    entry = {**entries[0], "sentences": [{"text": "wet lungs.", "cosine": 0.5}], "phrases": {"fluid": -0.25}}
    lines = command.as_tables([entry], "the rule").splitlines()
    assert lines[4:6] == ["  -0.250  fluid", "   0.500  wet lungs."]


def test_an_image_gets_a_table(read: Read, trained: Path, film: Path) -> None:
    status, out, err = read("--checkpoint", trained, "--image", film)
    assert status == 0 and err == ""
    assert out.startswith(f"{film}\n") and all(label in out for label in ("No Finding", "Cardiomegaly", "Edema"))
    assert RESEARCH_ONLY in out


def test_results_are_written_and_kept(read: Read, trained: Path, film: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    assert read("--checkpoint", trained, "--image", film, "--out", out)[0] == 0
    content = json.loads((out / "results.json").read_text())
    assert set(content) == {"rule", "note", "checkpoint", "complete", "images"} and content["checkpoint"] == str(
        trained
    )
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
    assert status == 1 and err == f"1 of 3 images could not be read:\n  {bad}: empty file\n"
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
    from cxrcl.app.train import train

    own = [item for item in tiny_run if not item.startswith("image_encoder")]
    folders = [f"init_from='{trained}'", f"data.root='{tiny_set}'", f"run_dir='{tmp_path}'", "evals=[]"]
    classifier = train(compose("finetune", [*own, *folders, "data.labels=[Edema]"])).checkpoint
    status, out, _ = read("--checkpoint", classifier, "--image", film, "--json")
    assert status == 0 and list(json.loads(out)["images"][0]["probabilities"]) == ["Edema"]
    for option in ("--prompts", "--sentences", "--phrase"):
        status, _, err = read("--checkpoint", classifier, "--image", film, option, "zero_shot.json")
        assert status == 2 and f"{option}: this checkpoint is a classifier and reads no text" in err
    status, _, err = read("--checkpoint", classifier, "--image", film, "--labels", "Cardiomegaly")
    assert status == 2 and "no such label 'Cardiomegaly'" in err
    out = tmp_path / "maps"
    status, _, err = read("--checkpoint", classifier, "--image", film, "--heatmap", "--out", out)
    (entry,) = json.loads((out / "results.json").read_text())["images"]
    assert status == 0 and "log-odds" in entry["heatmap"]["maps"][0]["kind"] and "sentences" not in entry


def entry_of(read: Read, *arguments: object) -> dict[str, Any]:
    status, out, err = read(*arguments, "--json")
    assert status == 0, err
    return json.loads(out)["images"][0]


def test_labels_are_read_alone_and_as_before(read: Read, trained: Path, film: Path) -> None:
    command = ("--checkpoint", trained, "--image", film)
    every, some = entry_of(read, *command), entry_of(read, *command, "--labels", "Edema, Cardiomegaly")
    assert list(some["probabilities"]) == ["Edema", "Cardiomegaly"]
    for name, value in some["probabilities"].items():
        assert value == pytest.approx(every["probabilities"][name], abs=1e-6)
    # A shipped label that the training did not have has sentences all the same.
    assert list(entry_of(read, *command, "--labels", "Fracture")["probabilities"]) == ["Fracture"]


def test_prompts_for_any_label_take_the_labels_of_the_checkpoint_or_those_asked(
    read: Read, trained: Path, film: Path
) -> None:
    command = ("--checkpoint", trained, "--image", film, "--prompts", "pair.json")
    found = entry_of(read, *command)
    assert list(found["probabilities"]) == ["No Finding", "Cardiomegaly", "Edema"]
    assert found["probabilities"] != entry_of(read, "--checkpoint", trained, "--image", film)["probabilities"]
    found = entry_of(read, *command, "--labels", "Scoliosis,Edema")
    assert list(found["probabilities"]) == ["Scoliosis", "Edema"]
    assert {s["text"] for s in found["sentences"]} == {"Scoliosis", "No Scoliosis", "Edema", "No Edema"}


def test_labels_choose_from_a_prompts_file(read: Read, trained: Path, film: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "own.json"
    prompts.write_text(json.dumps({name: {"pos": [name], "neg": [f"no {name}"]} for name in ("a", "b", "c")}))
    command = ("--checkpoint", trained, "--image", film, "--prompts", prompts)
    assert list(entry_of(read, *command, "--labels", "c,a")["probabilities"]) == ["c", "a"]
    status, _, err = read(*command, "--labels", "Edema")
    assert status == 2 and "no such label 'Edema' (known: a, b, c)" in err


def test_the_best_sentences_are_told_with_their_cosines(read: Read, trained: Path, film: Path, tmp_path: Path) -> None:
    import cxrcl

    model = cxrcl.load(trained, device="cpu")
    command = ("--checkpoint", trained, "--image", film)
    of_prompts = entry_of(read, *command)["sentences"]
    assert len(of_prompts) == 5
    texts = ["the heart is enlarged.", "Series number 3 shown.", "normal", "edema"]
    (tmp_path / "own.txt").write_text("\n".join(["\ufeff" + texts[0], "", *texts[1:], texts[1]]))
    own = entry_of(read, *command, "--sentences", tmp_path / "own.txt")["sentences"]
    cosines = (model.embed_images([film]) @ model.embed_texts(texts).T)[0]
    assert [s["text"] for s in own] == [texts[k] for k in (-cosines).argsort()]
    assert [s["cosine"] for s in own] == pytest.approx(sorted(cosines.tolist(), reverse=True), abs=1e-5)
    phrases = entry_of(read, *command, "--phrase", "normal", "edema", "--phrase", "no edema")["phrases"]
    assert list(phrases) == ["normal", "edema", "no edema"] and phrases["edema"] == pytest.approx(cosines[3], abs=1e-5)


# ---------------------------------------------------------------------------------------------------- heat-maps


def test_heat_maps_are_a_picture_of_each_image_and_an_entry(
    read: Read, trained: Path, film: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for path in (folder / "a" / "$x$ röntgen.png", folder / "b" / "$x$ röntgen.png"):
        path.parent.mkdir(parents=True)
        path.write_bytes(film.read_bytes())
    (folder / "bad.png").write_bytes(b"no image")
    out = tmp_path / "out"
    command = ("--checkpoint", trained, "--image", folder, "--out", out)
    status, said, err = read(*command, "--heatmap")
    assert status == 1 and "1 of 3 images could not be read:" in err and "pictures in" in said
    one, two, bad = json.loads((out / "results.json").read_text())["images"]
    assert set(bad) == {"image", "error"}
    names = [entry["heatmap"]["picture"] for entry in (one, two)]
    assert names == ["heatmaps/$x$ röntgen.png.png", "heatmaps/$x$ röntgen.png_2.png"]
    for entry in (one, two):
        with Image.open(out / entry["heatmap"]["picture"]) as picture:
            assert picture.format == "PNG" and picture.width > 600 and np.asarray(picture.convert("L")).std() > 20
        titles = [map_["title"] for map_ in entry["heatmap"]["maps"]]
        ranked = sorted(entry["probabilities"].items(), key=lambda item: -item[1])
        assert titles == [f"{name}  {value:.2f}" for name, value in ranked]
        assert all(0 <= v <= 1 for map_ in entry["heatmap"]["maps"] for v in map_["peak"])
    # Refused before any work, and nothing is lost.
    status, _, err = read(*command, "--heatmap")
    assert status == 2 and "add --overwrite" in err and err.count("\n") == 1
    assert "results.json exists" in err
    for name in ("results.json", "predictions.csv"):
        (out / name).unlink()
    assert "röntgen.png.png exists: add --overwrite" in read(*command)[2]
    status, _, err = read(*command, "--heatmap", "--overwrite", "--labels", "Edma")
    assert status == 2 and len(list((out / "heatmaps").iterdir())) == 2
    assert read("--checkpoint", trained, "--image", film, "--heatmap", "--overwrite", "--out", out)[0] == 0
    assert [path.name for path in (out / "heatmaps").iterdir()] == ["0_pa.png.png"]


def test_a_phrase_gets_a_map_and_named_labels_too(read: Read, trained: Path, film: Path, tmp_path: Path) -> None:
    command = ("--checkpoint", trained, "--image", film, "--heatmap", "--overwrite", "--out", tmp_path)
    asked = ("--phrase", "left pleural effusion")
    for more, prefixes in (((), ["left"]), (("--labels", "Edema,Cardiomegaly"), ["left", "Edema", "Cardio"])):
        maps = entry_of(read, *command, *asked, *more)["heatmap"]["maps"]
        assert [map_["title"].startswith(p) for map_, p in zip(maps, prefixes, strict=True)] == [True] * len(prefixes)
        assert "cosine" in maps[0]["kind"]


GLORIA = {
    "_target_": "cxrcl.objectives.gloria.Gloria",
    **{head: {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6} for head in ("image_head", "text_head")},
    **{head: {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6} for head in ("region_head", "word_head")},
}


def test_gloria_shows_the_attention_of_each_word(
    read: Read, with_objective: Callable[..., Path], film: Path, tmp_path: Path
) -> None:
    command = ("--checkpoint", with_objective(GLORIA), "--image", film, "--heatmap", "--out", tmp_path)
    maps = entry_of(read, *command, "--phrase", "left pleural effusion.")["heatmap"]["maps"]
    assert [map_["title"].split(" (")[0] for map_ in maps] == [
        *("left pleural effusion.", "left", "pleural", "effusion", "."),
    ]
    assert all("attention" in map_["kind"] for map_ in maps)


def test_chosen_patches_are_boxes_with_scores(read: Read, trained: Path, tiny_set: Path, tmp_path: Path) -> None:
    from cxrcl.app.model import build_model

    state = plain_checkpoint(trained)
    vit = {"_target_": "cxrcl.models.vit.ConvStemViT", "size": 32, "width": 16, "depth": 2, "heads": 2}
    topk = {"_target_": "cxrcl.models.patch_selection.TopKPatches", "encoder": vit, "num_patches": 3}
    state["config"]["model"]["image_encoder"] = topk
    torch.manual_seed(0)
    state["model"] = build_model(state["config"]["model"], state["config"]["labels"], None, ("cxrcl",)).state_dict()
    write_plain(state, tmp_path / "topk.pt")
    film = tiny_set / "images" / "0_lateral.png"  # a square
    command = ("--checkpoint", tmp_path / "topk.pt", "--image", film, "--heatmap", "--out", tmp_path / "out")
    entry = entry_of(read, *command)
    assert entry["heatmap"]["maps"][0]["title"] == "score of each patch"
    scores = [patch["score"] for patch in entry["patches"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    for x0, y0, x1, y1 in (patch["box"] for patch in entry["patches"]):
        assert x1 - x0 == pytest.approx(0.25) and y1 - y0 == pytest.approx(0.25) and x0 % 0.25 == y0 % 0.25 == 0


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
    from cxrcl.app.model import build_model

    def make(objective: dict[str, Any]) -> Path:
        state = plain_checkpoint(trained)
        nodes, labels = state["config"]["model"], state["config"]["labels"]
        nodes["objective"] = objective
        state["model"] = build_model(nodes, labels, None, ("cxrcl",)).state_dict()
        write_plain(state, tmp_path / "made.pt")
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
