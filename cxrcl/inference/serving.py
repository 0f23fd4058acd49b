"""A page for predictions on images, on this machine only: `inference.py --checkpoint C --serve`.

Radiographs are of persons, so the page loads nothing from elsewhere, answers no other site, and keeps what is uploaded
in one folder that goes with the process.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxrcl.config.nodes import OWN_PACKAGES, Packages
from cxrcl.errors import RESEARCH_ONLY, UserError
from cxrcl.inference import predict
from cxrcl.inference.questions import ALL, Questions

logger = logging.getLogger(__name__)
HOST = "127.0.0.1"
PORT = 7860
LARGEST_MB = 200
Message = MutableMapping[str, Any]

# The browser itself holds the page to this: scripts, fonts and requests of this address alone, in no site's frame.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def serve(
    checkpoint: Path,
    questions: Questions = ALL,
    port: int = PORT,
    device: str = "auto",
    packages: Packages = OWN_PACKAGES,
) -> None:
    """Serve the page until the process is asked to end (Ctrl-C, SIGTERM, SIGHUP). In the main thread.

    Args:
        questions: the labels on the page's list and the phrases that stand in it at first; prompts and sentences of
            every prediction.

    Raises:
        UserError: gradio is missing, the port cannot be used, or a checkpoint or question that cannot.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("--serve: needs gradio: pip install 'cxrcl[app]'")
    check_port(port)
    with _until_asked_to_end(), predict.opened_model(checkpoint, device, packages) as loaded, own_folder() as folder:
        from cxrcl.inference.serving_page import PageSession, build

        session = PageSession(loaded, questions, folder)
        page, looks = build(session, checkpoint.name)
        _launch(page, port, looks)
        logger.info(f"http://{HOST}:{port}  (Ctrl-C ends it)\n{RESEARCH_ONLY}")
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)
            session.close()


def check_port(port: int) -> None:
    """Check that the page can listen on the port.

    Raises:
        UserError: it cannot.
    """
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port}: expected 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what ended a moment ago is no hindrance
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port {port}: {(error.strerror or 'no').lower()}; name another port") from None


def _launch(page: Any, port: int, looks: dict[str, Any]) -> None:
    """Serve the page in the one of gradio's ways that reads uploaded files only: a mounted page reads all."""
    from starlette.middleware import Middleware

    try:
        page.launch(
            server_name=HOST,
            server_port=port,
            max_file_size=LARGEST_MB * 10**6,
            app_kwargs={"middleware": [Middleware(LocalOnly, port=port)]},
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            enable_monitoring=False,
            footer_links=[],  # would lead elsewhere
            **looks,
        )
    except OSError:  # taken since it was checked
        check_port(port)
        raise


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for everything that is uploaded or drawn, removed afterwards; before gradio is imported."""
    with tempfile.TemporaryDirectory(prefix="cxrcl-serve-") as folder:
        for name in [name for name in os.environ if name.startswith(("GRADIO_", "FASTAPI_"))]:
            del os.environ[name]  # settings of other pages could share this one, serve more files, or report requests
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder, "uploads").resolve())
        os.environ["GRADIO_RUN_HISTORY"] = "False"  # would keep images in the browser
        os.environ["no_proxy"] = "*"  # gradio asks its own server whether it is up
        yield Path(folder)


@contextmanager
def _until_asked_to_end() -> Iterator[None]:
    """A context that signals to end leave as Ctrl-C does, so that folders are removed."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {name: signal.signal(name, stop) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


class LocalOnly:
    """ASGI: refuse what another site's page asks for, and what makes the server fetch from elsewhere.

    gradio answers every `Host`, so a name that its owner points at 127.0.0.1 (DNS rebinding) would be let in.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self.origins = {f"http://{host}" for host in self.hosts}

    async def __call__(self, scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":  # there are no web sockets
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not self.allows(scope["path"], headers):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"not allowed\n"})
            return

        more = dict(HEADERS)
        if "/file=" in scope["path"]:
            more["cache-control"] = "no-store"  # no image in the browser's own cache

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0].decode("latin-1").lower() not in more]
                message["headers"] = [*kept, *((name.encode(), value.encode()) for name, value in more.items())]
            await send(message)

        await self.app(scope, receive, with_headers)

    def allows(self, path: str, headers: dict[str, str]) -> bool:
        """Whether a request with these headers, in lower case, is answered."""
        if headers.get("host") not in self.hosts or headers.get("origin", next(iter(self.origins))) not in self.origins:
            return False
        if path != "/" and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return False  # a picture or script in another site's page; a link to the page itself may be followed
        return "=http" not in path.lower()
