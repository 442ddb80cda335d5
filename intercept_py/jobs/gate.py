"""What every HTTP request passes before it reaches a dialect, and how long a client may take to send one.

Refused (security rules 1 and 2): hosts and origins that only a stranger's web page names, and bodies that are no plain
JSON in UTF-8, too long, or late.

Below: `wire.codec`, `transports.http_guard`. Above: `serving`.
"""

from __future__ import annotations

__all__ = ["BODY_LIMIT", "Gate", "Patient"]

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from intercept_py.errors import ProtocolError
from intercept_py.transports.http_guard import is_plain, names_loopback
from intercept_py.wire.codec import decode

BODY_LIMIT = 4 * 1024 * 1024
"""The longest request body, in bytes; a longer one is refused with 413."""


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Gate:
    """ASGI middleware that refuses with `{"error": text}`; the body of a request that passes has arrived and is JSON.

    With `local` requests must name this machine as their host. A body may take `patience` seconds.
    """

    def __init__(self, app: ASGIApp, local: bool, patience: float) -> None:
        self._app = app
        self._local = local
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass or answer it."""
        if scope["type"] == "http":
            try:
                receive = await self._passed(Headers(scope=scope), receive)
            except _RefusedError as exc:
                refusal = JSONResponse({"error": str(exc)}, exc.status, {"connection": "close"})
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _passed(self, headers: Headers, receive: Receive) -> Receive:
        if self._local and not names_loopback(f"//{headers.get('host', '')}"):
            raise _RefusedError(421, "this server answers for this machine only, not for another host")
        if "origin" in headers and not names_loopback(headers["origin"]):
            raise _RefusedError(403, "web pages of other hosts may not call this server")
        encoded = headers.get("content-encoding", "identity").lower() != "identity"
        if encoded or not is_plain(headers.get("content-type", ""), required=False):
            raise _RefusedError(415, "send the body as plain JSON in UTF-8")
        try:
            async with asyncio.timeout(self._patience):
                body = await _read(receive)
        except TimeoutError:
            raise _RefusedError(408, f"the body did not arrive within {self._patience:g} s") from None
        try:
            if body:
                decode(body)
        except ProtocolError as exc:
            raise _RefusedError(400, f"request body: {exc}") from None
        return _again(body, receive)


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _RefusedError(400, "the body is incomplete")
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            raise _RefusedError(413, f"request body is longer than {BODY_LIMIT} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that begins with a whole body which was read already."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


class Patient(H11Protocol):
    """Closes connections on which the head of a request does not arrive within uvicorn's `timeout_keep_alive`."""

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Wait no longer if the head of a request is complete."""
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop()
        super().connection_lost(exc)

    def _expect(self) -> None:
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._stop()
        elif self._closing is None:
            self._closing = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _stop(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
