"""What inference.py leaves in its folder, also when it is stopped."""

from __future__ import annotations

import csv
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxrcl.commands import inference as command
from cxrcl.commands.inference import main as inference
from cxrcl.errors import DataError
from cxrcl.inference import predict, results
from cxrcl.inference.results import Results

HEAD = {"rule": "the rule"}


def entry(image: str, **probabilities: float) -> dict[str, Any]:
    return {"image": image, "probabilities": probabilities}


def kept(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def rows(folder: Path) -> list[list[str]]:
    with (folder / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def test_entries_are_a_row_each_in_the_order_of_the_labels(tmp_path: Path) -> None:
    found = Results(tmp_path, HEAD, ("Edema", "Mass"), 2)
    found.add(entry("a.png", Mass=0.25, Edema=0.5))
    found.add({"image": "b, c.png", "error": "empty file"})
    found.write()
    expected = [["image", "Edema", "Mass", "error"], ["a.png", "0.5", "0.25", ""], ["b, c.png", "", "", "empty file"]]
    assert rows(tmp_path) == expected
    assert kept(tmp_path) == {**HEAD, "complete": True, "images": found.entries}
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "predictions.csv"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1.png", "@x", "\tx", "\rx"])
def test_no_name_is_a_formula(name: str, tmp_path: Path) -> None:
    found = Results(tmp_path, HEAD, (name,), 1)
    found.add(entry(name, **{name: 1e-9}))
    found.write()
    assert rows(tmp_path) == [["image", f"'{name}", "error"], [f"'{name}", "1e-09", ""]]
    assert kept(tmp_path)["images"][0]["image"] == name


def test_names_that_are_no_text_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"r\xf6ntgen.png")
    found = Results(tmp_path, HEAD, (), 1)
    found.add({"image": name, "error": "empty file"})
    found.write()
    assert kept(tmp_path)["images"][0]["image"] == name and rows(tmp_path)[1][0] == "r\\udcf6ntgen.png"
    assert (
        results.shown(f"{name}\n") == "r\\udcf6ntgen.png\\n"
        and results.shown("Röntgen (1) 胸.png") == "Röntgen (1) 胸.png"
    )


def test_files_are_written_now_and_then_and_the_rarer_the_longer_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(results.time, "monotonic", lambda: clock[0])
    found = Results(tmp_path, HEAD, (), 9)
    assert kept(tmp_path) == {**HEAD, "complete": False, "images": []}

    def written_at(*seconds: float) -> list[int]:
        counts = []
        for clock[0] in seconds:
            found.add({"image": "a"})
            counts.append(len(kept(tmp_path)["images"]))
        return counts

    assert written_at(1, 4, 6, 7, 10, 12) == [0, 0, 3, 3, 3, 6]
    replaced = results.replaced

    def slowly(path: Path, mode: int) -> Any:
        clock[0] += 1
        return replaced(path, mode)

    monkeypatch.setattr(results, "replaced", slowly)
    found.write()  # two files in two seconds: then none for forty
    assert written_at(20, 50, 56) == [6, 6, 9] and kept(tmp_path)["complete"]


def test_a_write_that_fails_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Results(tmp_path, HEAD, (), 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        found.write()
    assert kept(tmp_path)["images"] == [] and len(list(tmp_path.iterdir())) == 2


# -------------------------------------------------------------------------------------------------- the command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["inference.py", *map(str, arguments)])
    try:
        inference()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (OSError(5, "I/O error"), 1)])
def test_what_was_read_before_an_interruption_is_kept(
    error: BaseException,
    status: int,
    trained: Path,
    tiny_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = predict.Predictor.predict

    def stopped(self: predict.Predictor, images: Any, batch_size: int) -> Iterator[dict[str, Any]]:
        for number, found in enumerate(whole(self, images, batch_size)):
            if number == 2:
                raise error
            yield found

    monkeypatch.setattr(predict.Predictor, "predict", stopped)
    (tmp_path / "heatmaps").mkdir()
    (tmp_path / "heatmaps" / "old.png").touch()
    command = ("--checkpoint", trained, "--image", tiny_set / "images", "--out", tmp_path)
    assert run(monkeypatch, *command, "--overwrite") == status
    found = kept(tmp_path)
    assert not found["complete"] and len(found["images"]) == 2 and "probabilities" in found["images"][1]
    assert len(rows(tmp_path)) == 3 and not list((tmp_path / "heatmaps").iterdir())
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    if status == 130:
        assert "2 of 30 images were read" in said.err and said.out.count("No Finding") == 2


def test_tables_end_where_the_files_have_the_rest(
    trained: Path, tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("--checkpoint", trained, "--image", tiny_set / "images")
    for more, tables in (((), 30), (("--out", tmp_path / "out"), 20)):
        assert run(monkeypatch, *command, *more) == 0
        said = capsys.readouterr().out
        assert said.count("No Finding") == tables
        assert ("and 10 more images in" in said) == bool(more)
    assert len(rows(tmp_path / "out")) == 31


def test_members_of_zip_files_are_read(
    trained: Path, tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tiny_set / "images" / "0_pa.png"
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(film, "a/film.png")
    member = tmp_path / "films.zip!" / "a" / "film.png"
    out = tmp_path / "out"
    assert run(monkeypatch, "--checkpoint", trained, "--image", member, film, "--heatmap", "--out", out) == 0
    one, two = kept(out)["images"]
    assert one["image"] == str(member) and one["probabilities"] == pytest.approx(two["probabilities"], abs=1e-6)
    assert one["heatmap"]["picture"] == "heatmaps/film.png.png"
    for path, said in ((f"{tmp_path}/films.zip!/b.png", "no such file inside"), (f"{film}.zip!/b.png", "not found")):
        with pytest.raises(DataError, match=said):
            command.find_images([Path(path)])


def test_dicom_files_need_no_suffix(tmp_path: Path) -> None:
    for name in ("IM0001", "1.2.840.1", "DICOMDIR"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    (tmp_path / "README").write_text("DICM")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [path.name for path in command.find_images([tmp_path])] == ["1.2.840.1", "IM0001"]


def test_pictures_of_a_command_before_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "heatmaps").mkdir()
    for name in ("a.png", "heatmaps/a.png.png"):
        (tmp_path / name).touch()
    assert command.find_images([tmp_path], tmp_path) == [tmp_path / "a.png"]
    assert len(command.find_images([tmp_path])) == 2


@pytest.mark.parametrize("option", ["--image", "--out", "--checkpoint"])
def test_an_empty_path_is_not_the_current_folder(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--checkpoint": "a.pt", "--image": "a.png", "--out": "b", option: ""}
    assert run(monkeypatch, *(part for pair in given.items() for part in pair)) == 2
    assert f"{option}: expected a path, found an empty one" in capsys.readouterr().err


def test_names_of_any_bytes_are_shown_and_drawn(
    trained: Path, tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (os.fsdecode(b"r\xf6ntgen.png"), "two\nlines.png", f"{'😀' * 62}.png", f"{'😀' * 62}.tif")
    film = (tiny_set / "images" / "0_pa.png").read_bytes()
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_bytes(film)
    out = tmp_path / "out"
    assert run(monkeypatch, "--checkpoint", trained, "--image", tmp_path / "in", "--heatmap", "--out", out) == 0
    said = capsys.readouterr().out
    assert "r\\udcf6ntgen.png\n" in said and "two\\nlines.png\n" in said
    pictures = {found["heatmap"]["picture"] for found in kept(out)["images"]}
    assert len(pictures) == 4 and all((out / picture).is_file() for picture in pictures)
    assert {"heatmaps/r\\udcf6ntgen.png.png", "heatmaps/two\\nlines.png.png"} < pictures
    assert (out / "heatmaps").stat().st_mode & 0o777 == 0o700


def test_an_image_that_goes_away_while_it_is_drawn_is_a_fault_of_that_image(
    trained: Path, tiny_set: Path, tmp_path: Path
) -> None:
    films = [tmp_path / name for name in ("a.npy", "b.npy")]
    for path in films:
        np.save(path, np.arange(1600.0).reshape(40, 40))
    with predict.opened_model(trained, "cpu") as restored:
        found = predict.Predictor(restored, pictures=tmp_path / "maps").predict(films)
        assert "heatmap" in next(found)
        films[1].unlink()
        assert next(found) == {"image": str(films[1]), "error": "file not found"}
