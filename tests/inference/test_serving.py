"""The page of `inference.py --serve`, without a browser: the command, what the button does, who is answered."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import plain_checkpoint, write_plain

from cxrcl.commands.inference import main as inference
from cxrcl.errors import RESEARCH_ONLY, ConfigError
from cxrcl.inference import serving
from cxrcl.inference.predict import LoadedModel, Predictor, opened_model
from cxrcl.inference.questions import ALL, Questions

pytest.importorskip("gradio")

PACKAGE = Path(serving.__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the command sets, put back."""
    for name in ("GRADIO_TEMP_DIR", "GRADIO_RUN_HISTORY", "no_proxy", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, str(tmp_path))


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line of a command that serves nothing."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["inference.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            inference()
        captured = capsys.readouterr()
        assert end.value.code == 2 and captured.out == ""
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
        return captured.err

    return run


@pytest.mark.parametrize(
    "option", [["--out", "x"], ["--overwrite"], ["--json"], ["--heatmap"], ["--batch-size", "0"], ["--batch-size", "8"]]
)
def test_options_of_the_other_mode_are_refused(refused: Callable[..., str], option: list[str]) -> None:
    assert f"{option[0]}: not with --serve" in refused("--checkpoint", "a.pt", "--serve", *option)


def test_a_port_needs_the_page(refused: Callable[..., str]) -> None:
    assert "--port: of --serve" in refused("--checkpoint", "a.pt", "--image", "a.png", "--port", 7860)


@pytest.mark.parametrize("arguments", [["--serve", "--image", "a.png"], []], ids=["both", "neither"])
def test_either_images_or_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["inference.py", "--checkpoint", "a.pt", *arguments])
    with pytest.raises(SystemExit):
        inference()
    assert "--serve" in capsys.readouterr().err


def test_the_port_must_be_free(refused: Callable[..., str]) -> None:
    with socket.socket() as other:
        other.bind((serving.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"--port {port}: address already in use" in refused("--checkpoint", "a.pt", "--serve", "--port", port)
    for wrong in (0, 65536, -1):
        assert "expected 1 to 65535" in refused("--checkpoint", "a.pt", "--serve", "--port", wrong)
    serving.check_port(port)


def test_gradio_is_an_extra(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'cxrcl[app]'" in refused("--checkpoint", "a.pt", "--serve")


def test_gradio_is_imported_for_the_page_only() -> None:
    """It takes seconds, and asks its own service for news when it is told so by its settings."""
    imported = re.compile(r"^( *)(?:import|from) (?:gradio|cxrcl\.inference\.serving_page)\b", re.MULTILINE)
    found = {path.name: imported.findall(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {name for name, indents in found.items() if indents} == {"serving.py", "serving_page.py"}
    assert "" not in found["serving.py"]


def test_what_is_uploaded_has_a_folder_of_its_own_and_other_settings_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "FASTAPI_OTEL_AUTO_CONFIGURE"):
        monkeypatch.setenv(name, "/")
    with serving.own_folder() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        set_now = {name: value for name, value in os.environ.items() if name.startswith(("GRADIO_", "FASTAPI_"))}
        assert set_now == {"GRADIO_TEMP_DIR": str(folder.resolve() / "uploads"), "GRADIO_RUN_HISTORY": "False"}
        (folder / "uploads").mkdir()
    assert not folder.exists()


def test_mistakes_in_questions_end_the_command_before_there_is_a_page(
    refused: Callable[..., str], trained: Path, tmp_path: Path
) -> None:
    command = ("--checkpoint", trained, "--serve", "--port", _free_port())
    assert "no such label 'Edma'" in refused(*command, "--labels", "Edma")
    assert "--phrase: 9 of them, expected 8" in refused(*command, "--phrase", *"abcdefghi")
    assert "--sentences absent.txt: cannot be read" in refused(*command, "--sentences", "absent.txt")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((serving.HOST, 0))
        return int(probe.getsockname()[1])


# --------------------------------------------------------------------------------------------- what the button does


@pytest.fixture(scope="module")
def loaded(trained: Path) -> Iterator[LoadedModel]:
    with opened_model(trained, "cpu") as found:
        yield found


@pytest.fixture
def film(tiny_set: Path) -> str:
    return str(tiny_set / "images" / "0_pa.png")


@pytest.fixture
def session_of(tmp_path: Path) -> Callable[..., Any]:
    from cxrcl.inference.serving_page import PageSession

    (tmp_path / "work").mkdir()
    return lambda loaded, questions=ALL: PageSession(loaded, questions, tmp_path / "work")


def test_an_image_gets_what_the_command_line_says(
    loaded: LoadedModel, session_of: Callable[..., Any], film: str, tmp_path: Path
) -> None:
    answer = session_of(loaded).answer(film, [], " wet lungs \n\nnormal\n")
    questions = Questions(phrases=["wet lungs", "normal"])
    (entry,) = Predictor(loaded, questions).predict([Path(film)])
    assert answer.content["probabilities"] == pytest.approx(entry["probabilities"])
    assert answer.content["phrases"] == pytest.approx(entry["phrases"])
    assert [s["text"] for s in answer.content["sentences"]] == [s["text"] for s in entry["sentences"]]
    assert answer.content["note"] == RESEARCH_ONLY and "softmax" in answer.content["rule"]
    assert [map_["title"].split(" (")[0] for map_ in answer.content["heatmap"]["maps"]] == ["wet lungs", "normal"]
    assert answer.picture.width > 600
    for text in (RESEARCH_ONLY, "softmax", "wet lungs", *(s["text"] for s in entry["sentences"])):
        assert text in answer.html
    values = [float(value) for value in re.findall(r'class="number">(\d\.\d{3})<', answer.html)[:3]]
    assert values == pytest.approx(sorted(entry["probabilities"].values(), reverse=True), abs=1e-3)
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


def test_no_answer_names_the_file(
    loaded: LoadedModel, session_of: Callable[..., Any], film: str, tmp_path: Path
) -> None:
    """Which may name a person: the same image of another name gets the same picture and the same words."""
    named = shutil.copyfile(film, tmp_path / "Doe^John.png")
    one, other = (session_of(loaded).answer(str(path), [], "") for path in (film, named))
    assert one.html == other.html and one.content == other.content and "image" not in one.content
    assert one.picture.tobytes() == other.picture.tobytes()


def test_chosen_findings_are_read_alone_and_have_maps(
    loaded: LoadedModel, session_of: Callable[..., Any], film: str
) -> None:
    session = session_of(loaded)
    assert session.labels == ["No Finding", "Cardiomegaly", "Edema"] and session.takes_texts
    content = session.answer(film, ["Edema"], "").content
    assert list(content["probabilities"]) == ["Edema"] and "phrases" not in content
    assert [map_["title"].split()[0] for map_ in content["heatmap"]["maps"]] == ["Edema"]


def test_what_the_command_asks_stands_in_the_page(
    loaded: LoadedModel, session_of: Callable[..., Any], film: str, tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_text("series number 3.")
    questions = Questions(["Scoliosis", "Edema"], "pair.json", str(tmp_path / "own.txt"), ["wet lungs"])
    session = session_of(loaded, questions)
    assert session.labels == ["Scoliosis", "Edema"]
    content = session.answer(film, [], "").content
    assert list(content["probabilities"]) == ["Scoliosis", "Edema"] and "phrases" not in content
    assert [s["text"] for s in content["sentences"]] == ["series number 3."]

    from cxrcl.inference.serving_page import build

    blocks = {getattr(block, "label", None): block for block in build(session, "a.pt")[0].blocks.values()}
    assert blocks["Phrases"].value == "wet lungs" and blocks["Phrases"].visible
    assert [label for label, _ in blocks["Findings"].choices] == ["Scoliosis", "Edema"]


def test_what_cannot_be_read_is_one_line(
    loaded: LoadedModel, session_of: Callable[..., Any], film: str, tmp_path: Path
) -> None:
    session = session_of(loaded)
    bad = tmp_path / "Doe^John.png"
    bad.write_bytes(b"no film")
    for answer, line in (
        (session.answer(None, [], ""), "Choose an image first."),
        (session.answer(str(bad), [], ""), "Not read: not an image in a known format"),
        (session.answer(str(tmp_path / "gone.png"), [], ""), "The image is no longer there: choose it again."),
        (session.answer(film, [], "\n".join("abcdefghi")), "9 phrases: expected 8 at most."),
        (session.answer(film, ["Edma"], ""), "--labels: no such label &#x27;Edma&#x27; (did you mean `Edema`?)"),
    ):
        assert f"<p>{line}" in answer.html and RESEARCH_ONLY in answer.html
        assert "Doe" not in answer.html and answer.picture is None and answer.content is None
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


def test_what_is_typed_is_text_and_no_markup(loaded: LoadedModel, session_of: Callable[..., Any], film: str) -> None:
    said = session_of(loaded).answer(film, [], "<img src=x onerror=alert(1)>").html
    assert "<img" not in said and "&lt;img src=x" in said


def test_the_same_questions_are_encoded_once(
    loaded: LoadedModel, session_of: Callable[..., Any], film: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxrcl.inference import serving_page

    made = []
    monkeypatch.setattr(serving_page, "Predictor", lambda *given: made.append(given[1]) or Predictor(*given))
    session = session_of(loaded, Questions(phrases=["wet lungs"]))
    first, again = (session.answer(film, [], "wet lungs\n") for _ in range(2))
    assert len(made) == 1 and first == again._replace(picture=first.picture)
    assert list(session.answer(film, [], "dry lungs").content["phrases"]) == ["dry lungs"] and len(made) == 2
    assert list(session.answer(film, ["Edema"], "dry lungs").content["probabilities"]) == ["Edema"] and len(made) == 3


def test_images_are_read_one_at_a_time(
    loaded: LoadedModel, session_of: Callable[..., Any], film: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxrcl.inference import serving_page

    together = threading.Barrier(2)
    met = []

    def waits(self: Any, *arguments: Any) -> Any:
        try:
            met.append(together.wait(timeout=0.3))
        except threading.BrokenBarrierError:
            together.reset()

    session = session_of(loaded)
    monkeypatch.setattr(serving_page.PageSession, "_answer", waits)
    threads = [threading.Thread(target=session.answer, args=(film, [], "")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == []


@pytest.mark.parametrize("name", ["classify", "simclr"])
def test_a_classifier_has_labels_alone_and_an_encoder_is_refused(
    trained: Path, session_of: Callable[..., Any], film: str, tmp_path: Path, name: str
) -> None:
    from cxrcl.app.model import build_model

    head = {"_target_": "cxrcl.models.heads.Linear", "out_dim": 6}
    state = plain_checkpoint(trained)
    nodes, labels = state["config"]["model"], state["config"]["labels"]
    nodes["objective"] = {
        "classify": {"_target_": "cxrcl.objectives.classify.Classify"},
        "simclr": {"_target_": "cxrcl.objectives.simclr.SimClr", "image_head": head},
    }[name]
    state["model"] = build_model(nodes, labels, None, ("cxrcl",)).state_dict()
    write_plain(state, tmp_path / "made.pt")
    with opened_model(tmp_path / "made.pt", "cpu") as loaded:
        if name == "simclr":
            with pytest.raises(ConfigError, match="SimClr neither classifies nor compares"):
                session_of(loaded)
            return
        session = session_of(loaded)
        answer = session.answer(film, ["Edema"], "")
    assert not session.takes_texts and list(answer.content["probabilities"]) == ["Edema"]
    assert "sigmoid" in answer.html and "sentences" not in answer.html

    from cxrcl.inference.serving_page import build

    blocks = {getattr(block, "label", None): block for block in build(session, "a.pt")[0].blocks.values()}
    assert blocks["Phrases"].visible is False


# ------------------------------------------------------------------------------------------------ who is answered


@pytest.mark.parametrize(
    ("path", "headers", "allowed"),
    [
        ("/", {"host": "127.0.0.1:7860"}, True),
        ("/config", {"host": "localhost:7860", "origin": "http://localhost:7860"}, True),
        ("/config", {"host": "127.0.0.1:7860", "sec-fetch-site": "same-origin"}, True),
        ("/", {"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site"}, True),  # a link to the page
        ("/config", {"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site"}, False),
        ("/config", {"host": "127.0.0.1:7860", "sec-fetch-site": "same-site"}, False),  # another port of localhost
        ("/config", {"host": "127.0.0.1:7860", "origin": "http://localhost:3000"}, False),
        ("/config", {"host": "127.0.0.1:7860", "origin": "null"}, False),
        ("/", {"host": "rebound.example:7860"}, False),
        ("/", {}, False),
        ("/gradio_api/file=http://elsewhere.example/film.png", {"host": "127.0.0.1:7860"}, False),
        ("/gradio_api/file=HTTPS://elsewhere.example/film.png", {"host": "127.0.0.1:7860"}, False),
        ("/gradio_api/file=/tmp/film.png", {"host": "127.0.0.1:7860"}, True),
    ],
)
def test_only_the_page_itself_is_answered(path: str, headers: dict[str, str], allowed: bool) -> None:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"public")]})
        await send({"type": "http.response.body", "body": b"here"})

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(serving.LocalOnly(app, 7860)({"type": "http", "path": path, "headers": pairs}, None, send))
    assert sent[0]["status"] == (200 if allowed else 403) and (sent[1]["body"] == b"here") == allowed
    if allowed:
        got = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        assert "default-src 'self'" in got["content-security-policy"]
        assert got["cache-control"] == ("no-store" if "/file=" in path else "public")
