"""The page of `inference.py --serve` as a process of its own: in a browser, where there is one, and over HTTP."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from heatmap_pointing import draw_images
from PIL import Image

from cxrcl.errors import RESEARCH_ONLY
from cxrcl.inference.serving import LARGEST_MB

pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PICTURE = ".maps img"
FILM = "Doe^John 1950.png"  # as hospitals name them


class Server(NamedTuple):
    process: subprocess.Popen[str]
    address: str
    port: int
    temporary: Path  # where its folder is


@contextmanager
def running(checkpoint: Path, temporary: Path, port: int | None = None, *options: str) -> Iterator[Server]:
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    command = [
        sys.executable,
        "inference.py",
        "--checkpoint",
        str(checkpoint),
        "--serve",
        "--port",
        str(port),
        *options,
    ]
    # A proxy that is not there: whatever is asked of the network fails. Settings that would open the page to others.
    nowhere = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "all")}
    opening = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_ALLOWED_PATHS": "/", "GRADIO_SHARE": "True"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **nowhere, **opening, "TMPDIR": str(temporary)},
        # A shell's background jobs, which tests may be among, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in first, process.stderr.read()
        assert process.stdout.readline() == f"{RESEARCH_ONLY}\n"
        yield Server(process, f"http://127.0.0.1:{port}", port, temporary)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(trained, tmp_path_factory.mktemp("serve")) as found:
        yield found


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A phantom image, 16 bit."""
    ((pixels, *_),) = draw_images(1, 96, seed=0)
    Image.fromarray(pixels.astype(np.uint16) * 200).save(tmp_path / FILM)
    return tmp_path / FILM


# ------------------------------------------------------------------------------------------------------- in a browser


class Seen(NamedTuple):
    page: Any
    console: list[str]  # errors
    elsewhere: list[str]  # what was asked of other hosts


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Seen]]:
    """Open a page in a window of its own; what it asks of other hosts is refused and kept."""
    contexts = []

    def to(server: Server, width: int = 1280) -> Seen:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        seen = Seen(contexts[-1].new_page(), [], [])

        def only_here(route: Any) -> None:
            if route.request.url.startswith(server.address + "/"):
                route.continue_()
            else:
                seen.elsewhere.append(route.request.url)
                route.abort()

        seen.page.route(re.compile("^(?!data:|blob:)"), only_here)
        seen.page.on("console", lambda said: seen.console.append(said.text) if said.type == "error" else None)
        seen.page.on("pageerror", lambda error: seen.console.append(str(error)))
        seen.page.goto(server.address)
        return seen

    yield to
    for context in contexts:
        context.close()


def read(page: Any, film: Path) -> None:
    page.locator("input[type=file]").set_input_files(film)
    page.get_by_text(film.stem[:4]).first.wait_for()
    page.get_by_role("button", name="Read the image").click()


@pytest.mark.parametrize("width", [390, 1280])
def test_an_image_is_dropped_and_read(server: Server, visit: Callable[..., Seen], film: Path, width: int) -> None:
    page, console, elsewhere = visit(server, width)
    page.get_by_text(RESEARCH_ONLY).first.wait_for()
    page.get_by_label("Findings").click()
    page.get_by_role("option", name="Edema").click()
    page.get_by_label("Phrases").fill("left pleural effusion\n${1+1}<b>")
    read(page, film)
    page.locator(".answer td.bar").wait_for()
    found = page.locator(".answer").inner_text()
    assert re.search(r"Edema\s+0\.\d{3}", found) and "Cardiomegaly" not in found and RESEARCH_ONLY in found
    assert "left pleural effusion" in found and "${1+1}<b>" in found and "softmax" in found
    page.wait_for_function(f"document.querySelector('{PICTURE}')?.naturalWidth > 600")
    assert page.locator(PICTURE).bounding_box()["x"] >= 0  # the frame is moved to the right alone
    page.get_by_text("As JSON").click()
    page.get_by_text("heatmap").wait_for()
    assert RESEARCH_ONLY in page.locator(".maps").inner_text()
    assert console == [] and elsewhere == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_a_file_that_is_no_image_is_one_line_and_the_page_goes_on(
    server: Server, visit: Callable[..., Seen], film: Path, tmp_path: Path
) -> None:
    page, console, _ = visit(server)
    (tmp_path / "notes.txt").write_text("no film")
    read(page, tmp_path / "notes.txt")
    page.get_by_text("Not read: not an image in a known format").wait_for()
    assert page.locator(PICTURE).count() == 0
    page.get_by_label("Clear").click()
    read(page, film)
    page.locator(".answer td.bar").first.wait_for()
    assert "Not read" not in page.locator(".answer").inner_text() and console == []


def test_no_result_stands_beside_another_image_than_its_own(
    server: Server, visit: Callable[..., Seen], film: Path, tmp_path: Path
) -> None:
    page, console, _ = visit(server)
    read(page, film)
    page.locator(PICTURE).wait_for()
    page.get_by_label("Clear").click()
    page.get_by_text("Not read yet.").wait_for()
    page.locator(PICTURE).wait_for(state="detached")

    slow = tmp_path / "slow.png"
    Image.new("L", (9000, 9000), 50).save(slow)
    with page.expect_response("**/queue/join*"):
        read(page, slow)
    page.get_by_label("Clear").click()
    other = visit(server).page  # its film is read after the slow one, whose result is then there
    read(other, film)
    other.locator(PICTURE).wait_for()
    assert "Not read yet." in page.locator(".answer").inner_text()
    assert page.locator(PICTURE).count() == 0 and console == []


def test_the_page_names_no_other_host_to_load_from(server: Server) -> None:
    with httpx.Client(base_url=server.address, trust_env=False) as client:
        page, styles = client.get("/").text.replace(server.address, ""), client.get("/theme.css").text
    assert re.findall(r"<(?:script|link)[^>]*(?:src|href)=", page)
    for found in (r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//", r"fonts\.g"):
        assert re.findall(found, page) == []
    assert "--font" in styles and re.findall(r"""(?:url\(|@import\s*)["']?(?:https?:)?//""", styles) == []


def test_a_page_that_outlives_its_server_says_what_to_do(
    trained: Path, visit: Callable[..., Seen], film: Path, tmp_path: Path
) -> None:
    with running(trained, tmp_path) as first:
        page = visit(first).page
        read(page, film)
        page.locator(".answer td.bar").first.wait_for()
    with running(trained, tmp_path, first.port) as second:
        page.get_by_role("button", name="Read the image").click()
        page.get_by_text("The image is no longer there").first.wait_for()
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(30) == 0 and "Doe" not in "".join(second.process.communicate())


# --------------------------------------------------------------------------------------------------------- over HTTP


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
    with pytest.raises(OSError):  # an address of this machine too, that whoever listens on all of them answers
        socket.create_connection(("127.0.0.2", server.port), timeout=5)


def test_other_sites_and_other_files_are_refused(server: Server, trained: Path) -> None:
    with httpx.Client(base_url=server.address, trust_env=False) as client:
        settings = client.get("/config").json()
        assert settings["analytics_enabled"] is settings.get("run_history", False) is False
        assert settings["footer_links"] == settings["stylesheets"] == []
        for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}):
            assert client.get("/config", headers=headers).status_code == 403
        for path in ("/etc/passwd", trained, ROOT / "README.md", "http://elsewhere.example/film.png"):
            assert client.get(f"/gradio_api/file={path}").status_code == 403
        large = client.post("/gradio_api/upload", files={"files": ("a.png", b"0" * (LARGEST_MB * 10**6 + 1))})
        assert large.status_code == 413


def test_a_forged_upload_reads_no_other_file(server: Server, tiny_set: Path) -> None:
    forged = {"path": str(tiny_set / "images" / "0_pa.png"), "meta": {"_type": "gradio.FileData"}}
    with httpx.Client(base_url=server.address, trust_env=False, timeout=30) as client:
        assert _asked(client, forged)["success"] is False
        content = Path(forged["path"]).read_bytes()
        (path,) = client.post("/gradio_api/upload", files={"files": (FILM, content)}).json()
        assert _asked(client, {**forged, "path": path})["success"] is True


def _asked(client: Any, film: dict[str, Any]) -> dict[str, Any]:
    """What the button answers."""
    call = {"data": [film, [], ""], "fn_index": 0, "session_hash": "forged"}
    assert client.post("/gradio_api/queue/join", json=call).status_code == 200
    lines = client.get("/gradio_api/queue/data", params={"session_hash": "forged"}).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    return next(event for event in events if event["msg"] == "process_completed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_it_ends_without_a_trace(trained: Path, tiny_set: Path, tmp_path: Path, number: signal.Signals) -> None:
    with running(trained, tmp_path) as server:
        with httpx.Client(base_url=server.address, trust_env=False, timeout=30) as client:
            content = (tiny_set / "images" / "0_pa.png").read_bytes()
            (path,) = client.post("/gradio_api/upload", files={"files": (FILM, content)}).json()
            assert Path(path).exists() and tmp_path in Path(path).parents
            assert _asked(client, {"path": path, "meta": {"_type": "gradio.FileData"}})["success"] is True
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        said, errors = server.process.communicate()
    assert (said, errors) == ("", "")
    assert list(tmp_path.iterdir()) == []
