"""Runs the proxy's HTTP side: binds, bounds how long clients may take, and drains at the end.

Below: `http_connection`, `http_server`. Above: `cli`.
"""

from __future__ import annotations

__all__ = ["MAX_BACKLOG", "MAX_CONNECTIONS", "bind", "new_event_loop", "serving"]

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from importlib.util import find_spec
from typing import Final

from intercept_py.errors import InterceptError
from intercept_py.log import Log
from intercept_py.transports.http_connection import Connection
from intercept_py.transports.http_guard import is_loopback
from intercept_py.transports.http_heads import Heads
from intercept_py.transports.http_reader import Known
from intercept_py.transports.http_server import App

MAX_CONNECTIONS: Final = 4096
_BACKLOG: Final = 1024
_TICK: Final = 1.0
MAX_BACKLOG: Final = 256 * 1024 * 1024
"""Bytes that all clients together may leave unread."""


def bind(host: str, port: int, *, authenticated: bool) -> socket.socket:
    """A socket that listens; port 0 means any. Raises `InterceptError`, also where strangers could use the proxy.

    Security rule 2: beyond this machine only with authentication.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if not authenticated and not is_loopback(str(address[0])):
            raise InterceptError(
                f"`{host}` is reached from other machines: listen on 127.0.0.1, or let callers prove who they are "
                "(--tokens or --issuer; `auth` in a gateway file)"
            )
        # Only with the protocol named does asyncio send small answers at once (TCP_NODELAY).
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise InterceptError(f"cannot listen on `{host}:{port}`: {exc.strerror or exc}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise InterceptError(f"cannot listen on `{host}:{port}`: {exc.strerror or exc}") from None
    return listener


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The fastest event loop that is installed; for `asyncio.Runner`."""
    if find_spec("uvloop") is None:
        return asyncio.new_event_loop()
    import uvloop  # optional

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class Service:
    """All connections of a server, see `http_connection.Host`."""

    def __init__(
        self, app: App, log: Log, patience: float, idle: float, max_connections: int, max_backlog: int
    ) -> None:
        self.app = app
        self.connections: set[Connection] = set()
        self.ending = False
        self.patience = patience
        self.idle = idle
        self.now = 0.0
        self.date = b""
        self.heads: Heads[Known] = Heads()
        self._log = log
        self._max_connections = max_connections
        self._max_backlog = max_backlog
        self._loop = asyncio.get_running_loop()
        self._emptied = asyncio.Event()
        self._look()

    @property
    def full(self) -> bool:
        """Whether there are more connections than there may be."""
        return len(self.connections) > self._max_connections

    def failed(self, exc: Exception) -> None:
        """Tell of a bug of ours."""
        self._log("error", f"an HTTP request could not be read ({type(exc).__name__})")

    def weigh(self) -> None:
        """Cut off those who leave most unread, for longest, while all of them together leave too much."""
        backlogs = {each: size for each in self.connections if (size := each.transport.get_write_buffer_size())}
        total = sum(backlogs.values())
        if total <= self._max_backlog:
            return
        cut = 0
        for connection in sorted(backlogs, key=lambda each: -backlogs[each] * each.unread_for()):
            connection.transport.abort()
            cut += 1
            total -= backlogs[connection]
            if total <= self._max_backlog:
                break
        self._log("warn", f"{cut} HTTP clients that left answers unread were cut off: they were too large together")

    def _look(self) -> None:
        """Once a second: the date, who has run out of time, and what nobody reads."""
        self.now = self._loop.time()
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
        for connection in [each for each in self.connections if each.deadline <= self.now]:
            connection.expired()
        self.weigh()
        self._timer = self._loop.call_later(min(_TICK, self.patience / 2), self._look)

    async def end(self, grace: float) -> None:
        """Let what is being answered be answered, for `grace` seconds, and end the rest."""
        self.ending = True
        self.app.quieten()
        until = self._loop.time() + grace
        for connection in list(self.connections):
            connection.shutdown()
        while self.connections and self._loop.time() < until:
            await asyncio.sleep(0.02)
        await self.app.close()
        for connection in list(self.connections):
            connection.transport.close()
        await asyncio.sleep(0)
        for connection in list(self.connections):
            connection.transport.abort()
        self._timer.cancel()


@asynccontextmanager
async def serving(
    app: App,
    listener: socket.socket,
    log: Log,
    *,
    patience: float = 10.0,
    idle: float = 75.0,
    grace: float = 10.0,
    max_connections: int = MAX_CONNECTIONS,
    max_backlog: int = MAX_BACKLOG,
) -> AsyncIterator[None]:
    """Serve on a socket that listens until the context is left; then requests at hand have `grace` seconds to end.

    `patience`: seconds that the head of a request may take; `idle`: that a connection may be without one;
    `max_backlog`: bytes of answers that all clients together may leave unread.
    """
    service = Service(app, log, patience, idle, max_connections, max_backlog)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), sock=listener)
    try:
        yield
    finally:
        server.close()
        await service.end(grace)
