"""How a server is reached: a command to start, once for each session and once for all requests without one, or a URL.

Below: the links of `transports`. Above: `gateway`.
"""

from __future__ import annotations

__all__ = ["Command", "OldUrl", "Upstream", "Url"]

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Protocol
from weakref import WeakSet

from intercept_py import processes
from intercept_py.errors import UpstreamError
from intercept_py.log import Log
from intercept_py.transports.child_link import ChildLink, SharedChild
from intercept_py.transports.conversation import Link, Receiver
from intercept_py.transports.http_client import HttpClient
from intercept_py.transports.http_link import HttpLink, Remote
from intercept_py.transports.sse_link import SseLink
from intercept_py.wire.catalogue import Catalogue

_PAUSE = 1.0
"""Seconds between two starts of the shared child: one that ends at once is not started for every request."""


class Upstream(Protocol):
    """One server. Its links are for conversations with a session, which have it to themselves, or without."""

    one_stream: bool
    """Whether all that it says comes on one stream. In eras with a handshake it is there for one session then, and only
    a progress token tells which request it speaks about.
    """

    reusable: bool
    """Whether a link without a session is as good as new when nothing waits for it."""

    headers: bool
    """Whether requests go to it with headers that repeat arguments, so that its tools have to be known."""

    def connect(
        self, session: bool, version: str | None, known: Catalogue, who: object
    ) -> tuple[Callable[[Receiver], Link], Callable[[], int]]:
        """What makes a link, and the source of tickets for its conversation. Raises `UpstreamError`.

        `version` is the protocol version that a legacy client without a session names, `known` what is known of the
        server's tools in the conversation, and `who` stands for its caller.
        """

    def look(self) -> None:
        """Notice servers that have ended. Call it a few times a second."""

    async def close(self) -> None:
        """End what conversations do not end themselves."""


class Command:
    """A server that is started with a command; `environment` is all of its environment."""

    one_stream = True
    reusable = False
    headers = False

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], limit: int, log: Log) -> None:
        self._command = command
        self._environment = environment
        self._limit = limit
        self._log = log
        self._links: WeakSet[ChildLink] = WeakSet()
        self._shared: SharedChild | None = None
        self._mint = count(1).__next__
        self._started = -_PAUSE
        self._old: set[asyncio.Task[None]] = set()

    def connect(
        self, session: bool, version: str | None, known: Catalogue, who: object
    ) -> tuple[Callable[[Receiver], Link], Callable[[], int]]:
        """See `Upstream`."""
        if not session:
            shared = self._running()
            return lambda receiver: shared.link(receiver, who), self._mint
        child = self._start()

        def link(receiver: Receiver) -> Link:
            made = ChildLink(child, receiver, self._limit)
            self._links.add(made)
            return made

        return link, count(1).__next__

    def look(self) -> None:
        """See `Upstream`."""
        for link in list(self._links):
            link.look()
        if self._shared is not None:
            self._shared.look()

    async def close(self) -> None:
        """See `Upstream`."""
        shared, self._shared = self._shared, None
        if shared is not None:
            await shared.close()
        await asyncio.gather(*self._old)

    def _start(self) -> processes.Child:
        try:
            child = processes.start(self._command, self._environment)
        except UpstreamError as exc:
            self._log("error", str(exc))
            raise UpstreamError("the server could not be started: the log of the proxy says why") from None
        self._log("debug", f"started the server as process {child.pid}")
        return child

    def _running(self) -> SharedChild:
        if self._shared is None or self._shared.ended:
            now = time.monotonic()
            if now < self._started + _PAUSE:
                raise UpstreamError("the server ended as soon as it was started: see what it said on stderr")
            self._started = now
            if self._shared is not None:  # what is left of it
                task = asyncio.ensure_future(self._shared.close())
                self._old.add(task)
                task.add_done_callback(self._old.discard)
            self._shared = SharedChild(self._start(), self._limit, self._log)
        return self._shared


class Url:
    """A server that answers over streamable HTTP. `alone`: there is one client, which cannot resume streams itself."""

    one_stream = False
    reusable = True
    headers = True

    def __init__(self, client: HttpClient, limit: int, log: Log, *, alone: bool) -> None:
        self._client = client
        self._remote = Remote(client, limit, log)
        self._alone = alone
        self._mint = count(1).__next__

    def connect(
        self, session: bool, version: str | None, known: Catalogue, who: object
    ) -> tuple[Callable[[Receiver], Link], Callable[[], int]]:
        """See `Upstream`."""
        return lambda receiver: HttpLink(self._remote, receiver, known, version, self._alone), self._mint

    def look(self) -> None:
        """Its connections tell."""

    async def close(self) -> None:
        """See `Upstream`."""
        await self._client.close()


class OldUrl:
    """A server that speaks HTTP+SSE (MCP 2024-11-05), which has nothing but sessions."""

    one_stream = True
    reusable = False
    headers = False

    def __init__(self, client: HttpClient, limit: int, log: Log) -> None:
        self._client = client
        self._remote = Remote(client, limit, log)

    def connect(
        self, session: bool, version: str | None, known: Catalogue, who: object
    ) -> tuple[Callable[[Receiver], Link], Callable[[], int]]:
        """See `Upstream`."""
        if not session:
            raise UpstreamError("the server speaks HTTP+SSE (MCP 2024-11-05): begin with `initialize`")
        return lambda receiver: SseLink(self._remote, receiver), count(1).__next__

    def look(self) -> None:
        """Its connections tell."""

    async def close(self) -> None:
        """See `Upstream`."""
        await self._client.close()
