"""What stands before gradio: it lets nothing through that the page does not need.

gradio serves no file but those it was handed. Mounted in another application, however, it takes any file of this
machine, or of another one, for an upload where a request says that it is one.
"""

import json
import re
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detkit.web.reading import MAX_BYTES

UPLOAD = "/gradio_api/upload"  # the one request whose body is no JSON
ELSEWHERE = re.compile(r"(=|/file/)/*https?:", re.IGNORECASE)  # an address of another server, which gradio would fetch
MAX_UPLOAD = 16 * MAX_BYTES  # of all files that are sent at once
MAX_WORDS = 2**20  # of a request that is no upload
HEADERS = {
    # gradio's page has scripts and styles in it; nothing may come from, or go to, another server.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:;"
        " frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Guard:
    """ASGI middleware: sizes are limited, and other sites' requests and files outside `folder` refused."""

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self.app, self.folder = app, folder.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = _refusal(scope)
        if refusal is None and _is_words(scope):
            receive, refusal = await _read_words(receive, self.folder)
        app = self.app if refusal is None else PlainTextResponse(refusal[1], refusal[0])
        await app(scope, receive, _with_headers(send))


def _refusal(scope: Scope) -> tuple[int, str] | None:
    """Status and reason for a request that is refused by its head alone."""
    if ELSEWHERE.search(scope["path"]):
        return 403, "This page fetches nothing from other servers."
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return None
    headers = Headers(scope=scope)
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return 403, "This page takes nothing from other sites."
    length = headers.get("content-length", "")
    if not length.isdecimal() or "transfer-encoding" in headers:  # which counts more than the length
        return 411, "The length of the request is missing."
    limit = MAX_WORDS if _is_words(scope) else MAX_UPLOAD
    if int(length) > limit:
        return 413, f"Up to {limit // 2**20} MiB are taken at once."
    return None


def _is_words(scope: Scope) -> bool:
    return scope["method"] not in ("GET", "HEAD", "OPTIONS") and scope["path"] != UPLOAD


async def _read_words(receive: Receive, folder: Path) -> tuple[Receive, tuple[int, str] | None]:
    """The request's body, to be received again, and why it is refused."""
    body = b""
    message: Message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_WORDS:
            return receive, (413, f"Up to {MAX_WORDS // 2**20} MiB are taken at once.")
    try:
        refused = _names_others(json.loads(body), folder) if body else False
    except (ValueError, RecursionError):
        return receive, (400, "Expected JSON.")
    return _Again(body, receive), (403, "This page takes no files but those sent to it.") if refused else None


class _Again:
    """Gives the body that was read, then what comes after it: that the client has gone."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.message: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self.receive = receive

    async def __call__(self) -> Message:
        message, self.message = self.message, None
        return await self.receive() if message is None else message


def _names_others(value: Any, folder: Path) -> bool:
    """Whether some `path` in JSON is no file in `folder`; an address of another server is none."""
    if isinstance(value, dict):
        path = value.get("path")
        outside = isinstance(path, str) and not Path(path).resolve().is_relative_to(folder)
        return outside or any(_names_others(part, folder) for part in value.values())
    return isinstance(value, list) and any(_names_others(part, folder) for part in value)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending
