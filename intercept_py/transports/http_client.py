"""A lean HTTP/1.1 client for one server: a pool of connections that are kept, and answers as they arrive.

Plain callbacks, no task for a request: what a call costs here is the greater part of what the proxy adds to it. Written
on `httptools` because libraries cost several times as much (`benchmarks/http_clients.py`). Left out on purpose:
redirects, cookies, content encodings, proxies, HTTP/2, pipelining.

A request is never sent twice. Only a connection that is known to be open gets it, and one on which it was written and
that ends without an answer is a failure: the server may have acted on it.

Below: `client_connection`, `http_address`. Above: `http_link`.
"""

from __future__ import annotations

__all__ = ["Credentials", "HttpClient"]

import asyncio
import socket
import ssl
from collections.abc import Coroutine, Iterable
from functools import lru_cache
from typing import Protocol

from intercept_py.errors import InterceptError
from intercept_py.transports.client_connection import ClientConnection, Known, Request
from intercept_py.transports.http_address import encode_fields, parse_url
from intercept_py.transports.http_heads import Heads

_CHUNK = 64 * 1024  # asyncio's 256 KiB cost a memory mapping at every read
_IDLE = 30.0
"""Seconds for which a connection that is not in use is kept at most; half of them at least."""


class Credentials(Protocol):
    """Proves to the server who the proxy is, where that takes more than a fixed field."""

    async def authorization(self) -> str:
        """The value of the `Authorization` field. Raises `InterceptError` if there is none."""

    def refused(self, authorization: str) -> None:
        """The server did not take this value."""


@lru_cache(maxsize=64)
def _start(method: str, target: str, fixed: bytes) -> bytes:
    """The head as far as it is the same for all requests of a kind."""
    return b"%b %b HTTP/1.1\r\n%b" % (method.encode("ascii"), target.encode("ascii"), fixed)


class HttpClient:
    """See the module. `fields` go with every request. `most`: connections at a time. Times are in seconds.

    Raises `UpstreamError` for a URL that cannot be used. Used by one event loop, from within it.
    """

    def __init__(
        self,
        url: str,
        *,
        fields: Iterable[tuple[bytes, bytes]] = (),
        context: ssl.SSLContext | None = None,
        credentials: Credentials | None = None,
        patience: float = 10.0,
        most: int = 8192,
    ) -> None:
        self.address = parse_url(url)
        self.buffer = memoryview(bytearray(_CHUNK))  # one for all connections: what is read is parsed at once
        self.heads: Heads[Known] = Heads()
        self._credentials = credentials
        self._context = (context or ssl.create_default_context()) if self.address.tls else None
        self._patience = patience
        self._most = most
        named = [*fields]
        if not any(name.lower() == b"user-agent" for name, _ in named):
            named.append((b"User-Agent", b"intercept-py"))
        self._fixed = encode_fields([(b"Host", self.address.authority.encode("ascii")), *named])
        self._connections: set[ClientConnection] = set()
        self._idle: list[ClientConnection] = []
        self._tasks: dict[asyncio.Task[None], Request] = {}  # what has no connection yet
        self._sweep: asyncio.TimerHandle | None = None

    def send(self, method: str, fields: bytes, body: bytes | None, request: Request, target: str | None = None) -> None:
        """Send a request, which hears what becomes of it.

        `fields` are lines as `encode_fields` makes them. `target`: another one of the same server.
        """
        start = _start(method, target or self.address.target, self._fixed)
        if self._credentials is not None:
            self._run(self._authorize(self._credentials, start, fields, body, request), request)
        else:
            self._send(self._encode(start, fields, body), request)

    @staticmethod
    def _encode(start: bytes, fields: bytes, body: bytes | None) -> bytes:
        if body is None:
            return b"%b%b\r\n" % (start, fields)
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (start, fields, len(body), body)

    def _send(self, data: bytes, request: Request) -> None:
        connection = self._reusable()
        if connection is not None:
            connection.start(data, request)
        elif len(self._connections) + len(self._tasks) >= self._most:
            request.fail(f"all {self._most} connections to the server are in use")
        else:
            self._run(self._send_anew(data, request), request)

    def _run(self, work: Coroutine[None, None, None], request: Request) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = request
        task.add_done_callback(self._tasks.pop)

    async def _authorize(
        self, credentials: Credentials, start: bytes, fields: bytes, body: bytes | None, request: Request
    ) -> None:
        try:
            request.authorization = await credentials.authorization()
        except InterceptError:  # who raised it has told those who run the proxy
            request.fail("the proxy has no credentials for the server")
        if not request.over:
            fields = b"%bAuthorization: %b\r\n" % (fields, str(request.authorization).encode("ascii"))
            self._send(self._encode(start, fields, body), request)

    async def _send_anew(self, data: bytes, request: Request) -> None:
        try:
            async with asyncio.timeout(self._patience):
                connection = await self._connect()
        except Exception as exc:  # whatever it is, somebody waits for an answer
            request.fail(self._why(exc))
            return
        if request.over:
            self.release(connection)
        else:
            connection.start(data, request)

    async def _connect(self) -> ClientConnection:
        address = self.address
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: ClientConnection(self), address.host, address.port, ssl=self._context
        )
        return connection

    def _why(self, exc: Exception) -> str:
        """Why there is no connection; without the address, which the client need not know."""
        match exc:
            case ssl.SSLCertVerificationError():
                return f"the server's certificate is not trusted: {exc.verify_message}"
            case ssl.SSLError():
                return "the server cannot be reached: it does not speak TLS as it should"
            case socket.gaierror():
                return "the server cannot be reached: its name is not known"
            case TimeoutError():
                return f"the server cannot be reached within {self._patience:g} s"
            case ConnectionRefusedError():
                return "the server cannot be reached: nothing listens at its address"
            case OSError():
                return "the server cannot be reached"
        return f"the proxy failed to reach the server ({type(exc).__name__})"

    # ---- the pool

    def _reusable(self) -> ClientConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.fresh():
                return connection
            connection.abort()
        return None

    def opened(self, connection: ClientConnection) -> None:
        """A connection was made."""
        self._connections.add(connection)

    def lost(self, connection: ClientConnection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def release(self, connection: ClientConnection) -> None:
        """A connection may be used for another request."""
        connection.unused = False
        self._idle.append(connection)
        if self._sweep is None:
            self._look_later()

    def _look_later(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(_IDLE / 2, self._close_unused)

    def _close_unused(self) -> None:
        """Close what was not used since the last look: no clock is read, nor any rounded."""
        looked, self._idle, self._sweep = self._idle, [], None
        for connection in looked:
            if connection.unused:
                connection.abort()
            else:
                connection.unused = True
                self._idle.append(connection)
        if self._idle:
            self._look_later()

    def refused(self, request: Request) -> None:
        """The server did not take the credentials that went with a request."""
        if self._credentials is not None and request.authorization is not None:
            self._credentials.refused(request.authorization)

    async def close(self) -> None:
        """End all connections; what waits for an answer is told."""
        if self._sweep is not None:
            self._sweep.cancel()
        tasks = dict(self._tasks)
        for task, request in tasks.items():
            task.cancel()
            request.fail("the proxy is shutting down")
        for connection in list(self._connections):
            connection.fail("the proxy is shutting down")
        await asyncio.gather(*tasks, return_exceptions=True)
