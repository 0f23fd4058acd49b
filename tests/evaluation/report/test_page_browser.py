"""The report in a browser, where there is one: `chromium` on the PATH."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import page_data
import pytest

from cxrcl.evaluation.report.page import render

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--enable-logging=stderr")
# A window of a browser without a screen cannot be narrower than 500 px, a frame in it can.
FRAME = """<body><iframe src="{name}" style="width:{width}px;height:800px;border:0"></iframe>
<script>onmessage = (event) => { document.title = event.data }</script>"""
MEASURE = (
    """<script>parent.postMessage(innerWidth + "/" + document.scrollingElement.scrollWidth, "*")</script></body>"""
)


def opened(file: Path) -> tuple[str, list[str]]:
    """The page's elements after loading, and what its console says."""
    command = ["chromium", *OPTIONS, f"--user-data-dir={file.parent / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def html() -> str:
    return render(page_data.page())


def test_the_console_is_silent(html: str, tmp_path: Path) -> None:
    page, broken = tmp_path / "page.html", tmp_path / "broken.html"
    page.write_text(html, encoding="utf-8")
    content, said = opened(page)
    assert said == [] and content.count("<section") == html.count("<section")
    broken.write_text(html.replace("</body>", "<script>missing()</script></body>"), encoding="utf-8")
    assert opened(broken)[1], "the policy of the page forbids scripts, and the console says so"


@pytest.mark.parametrize("width", [390, 1280])
def test_only_boxes_scroll_sideways(html: str, tmp_path: Path, width: int) -> None:
    measured = re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", MEASURE)
    (tmp_path / "page.html").write_text(measured, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("{name}", "page.html").replace("{width}", str(width)), encoding="utf-8")
    found = re.search(r"<title>(\d+)/(\d+)</title>", opened(frame)[0])
    assert found is not None and int(found[1]) == width and 0.9 * width < int(found[2]) <= width
