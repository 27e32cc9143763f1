"""Serving the page: one address, one folder for what visitors send, and an end that leaves nothing behind."""

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.engine.signals import StopSignals
from detkit.predict import Detector
from detkit.types import Detect

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FAREWELL = 2  # seconds that open connections get at the end


class Address:
    """A host and a port that are ours inside the context."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def __enter__(self) -> "Address":
        """Raises ValueError where another program has the port, or the host is not of this machine."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            self.socket = socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            raise ValueError(
                f"cannot serve the page at {self.host}, port {self.port} ({error.strerror or error}): choose others by"
                " --host and --port; --port 0 takes a free one"
            ) from None
        self.port = self.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def url(self) -> str:
        """Where a browser of this machine finds the page."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"


@dataclass(frozen=True)
class Show:
    """What the page shows: a detector from the checkpoint called `name`, which looks at pictures by `detect`."""

    detector: Detector
    detect: Detect
    name: str
    score: float  # where the slider begins


def serve(show: Show, address: Address, say: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM, which raise Stopped. `say` gets the lines for the terminal."""
    with (
        tempfile.TemporaryDirectory(prefix="detkit-web-") as folder,
        StopSignals() as signals,
        signals.immediate(),
    ):
        server = build_server(show, address, Path(folder))
        say(f"the page of {show.name}: {address.url} (Ctrl-C ends it)")
        if address.host not in LOOPBACK:
            say("warning: other machines can reach it; there is no password, and cameras need https")
        server.run(sockets=[address.socket])  # hands signals on when all connections are closed


def build_server(show: Show, address: Address, folder: Path) -> "uvicorn.Server":
    """The server of the page, not yet running; all that visitors send and get lies in `folder`."""
    _keep_to_this_machine(folder)
    import uvicorn

    options = {"log_level": "warning", "timeout_graceful_shutdown": FAREWELL, "server_header": False}
    server = uvicorn.Server(uvicorn.Config(_application(show, address, folder), **options))
    return server


def _keep_to_this_machine(folder: Path) -> None:
    """What gradio takes from the environment: no telemetry, no look for newer versions, files in `folder` alone."""
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
        "GRADIO_SHARE": "False",
        "GRADIO_SSR_MODE": "False",
        "GRADIO_ALLOWED_PATHS": "",
    }


def _application(show: Show, address: Address, folder: Path) -> "FastAPI":
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from detkit.web.examples import find_examples
    from detkit.web.guard import Guard
    from detkit.web.handlers import Handlers
    from detkit.web.layout import appearance, build_page
    from detkit.web.reading import MAX_BYTES

    handlers = Handlers(show.detector, show.detect, find_examples(show.detector), folder)
    page = build_page(handlers, show.name, show.score)
    app = FastAPI(openapi_url=None)
    gradio.mount_gradio_app(
        app, page, "/", server_name=address.host, server_port=address.port, footer_links=[], run_history=False,
        allowed_paths=[], show_error=False, max_file_size=MAX_BYTES, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, **appearance(),
    )  # fmt: skip
    app.add_middleware(Guard, folder=folder)
    if address.host in LOOPBACK:  # a name that another site lets point here is not taken
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    return app
