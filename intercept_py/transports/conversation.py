"""One client's exchange with one server over transports that use asyncio: a session between a front and a link.

A *front* is where the client is (our stdin and stdout, or HTTP requests), a *link* is a session's connection to its
server (a child process, or HTTP requests of ours). Both only move bytes; what they mean is the session's business.
Nothing here waits. Below: `wire.commands`. Above: fronts, links, `gateway`.
"""

from __future__ import annotations

__all__ = ["NOBODY", "Conversation", "Event", "Front", "Link", "Receiver"]

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.model import Caller, RequestId
from intercept_py.transports.lines import TooLong
from intercept_py.wire.commands import ToClient, ToUpstream
from intercept_py.wire.messages import Incoming


class Event(msgspec.Struct, frozen=True):
    """What a server-sent event says besides its data (HTML, server-sent events). `retry` is in milliseconds."""

    id: str | None = None
    retry: int | None = None


class Session(Protocol):
    """What a conversation drives; see `proxy.Session`."""

    to_client: list[ToClient]
    to_upstream: list[ToUpstream]
    unanswered: list[RequestId]
    upstream_crowded: bool

    def from_client(self, lines: Sequence[bytes | Incoming | ProtocolError | TooLong], limit: int) -> None: ...
    def from_upstream(self, lines: list[bytes | TooLong], limit: int, stream: int = 0) -> None: ...
    def speaks(self, caller: Caller) -> None: ...
    def abandon(self, request_id: RequestId) -> None: ...
    def failed(self, ticket: int, why: str) -> None: ...
    def request_of(self, ticket: int) -> RequestId | None: ...
    def sent(self) -> None: ...
    def rest(self) -> None: ...
    def tick(self) -> None: ...
    def upstream_gone(self, why: str) -> None: ...
    @property
    def judging(self) -> bool: ...
    @property
    def idle(self) -> bool: ...


class Front(Protocol):
    """What a conversation tells the side where its client is. A `stream` below 0 is one that `listen` was asked for."""

    def deliver(self, messages: list[ToClient], event: Event | None) -> None:
        """Send these. `event` goes with the last one."""

    def mark(self, request: RequestId | None, stream: int, event: Event) -> None:
        """Send an event that has no data: it says from where to resume (MCP 2025-11-25, transports)."""

    def opened(self, request: RequestId | None, stream: int) -> None:
        """The server answers this request, or this stream, with an event stream: do likewise, now."""

    def status(self, request: RequestId | None, stream: int, status: int, body: bytes) -> None:
        """The server answered this with an HTTP status, and a body that is a JSON-RPC error or empty."""

    def ended(self, request: RequestId | None, stream: int) -> None:
        """This event stream is over before the answer: the server ended and will resume it, or the client cancelled."""

    def gone(self, why: str) -> None:
        """The server is gone. Everything that waited for it has been answered."""


class Link(Protocol):
    """A conversation's connection to its server."""

    @property
    def crowded(self) -> bool:
        """Whether the server does not read what it is sent: it gets no more answers to its own questions."""

    @property
    def session(self) -> bool:
        """Whether the server keeps a session for this connection, as far as that is known."""

    def send(self, messages: list[ToUpstream]) -> None:
        """Send these, sometime soon and in this order, and clear the list."""

    def listen(self, stream: int, last_event_id: str | None) -> None:
        """Ask for what the server has to say unasked; `stream` (below 0) is the name for it."""

    def unlisten(self, stream: int) -> None:
        """The client does not listen to this any more."""

    def leave(self) -> None:
        """Nobody will send anything more, nor wait for an answer."""

    async def close(self) -> None:
        """End the connection, within seconds."""


class Receiver(Protocol):
    """What a link tells its conversation. `stream`: 0, the ticket of a request, or what `listen` named."""

    def from_upstream(self, lines: list[bytes | TooLong], stream: int = 0, event: Event | None = None) -> None:
        """The server said these; `event` belongs to the last of them, and may be there without one."""

    def opened(self, stream: int) -> None:
        """An event stream begins."""

    def status(self, stream: int, status: int, body: bytes) -> None:
        """The server answered with an HTTP status and no message; the body is a JSON-RPC error or empty."""

    def ended(self, stream: int) -> None:
        """An event stream ended before its answer and may be resumed."""

    def failed(self, stream: int, why: str) -> None:
        """There will be no answer to this request."""

    def gone(self, why: str) -> None:
        """Nothing will ever come again."""


class _Over:
    """The link of a conversation that is over. Without it both would live on until somebody looks for garbage."""

    crowded = session = False

    def send(self, messages: list[ToUpstream]) -> None:
        messages.clear()

    def listen(self, stream: int, last_event_id: str | None) -> None:
        pass

    def unlisten(self, stream: int) -> None:
        pass

    def leave(self) -> None:
        pass

    async def close(self) -> None:
        pass


_OVER = _Over()


class _Nobody:
    """The front of a conversation without a client."""

    def deliver(self, messages: list[ToClient], event: Event | None) -> None:
        pass

    def mark(self, request: RequestId | None, stream: int, event: Event) -> None:
        pass

    def opened(self, request: RequestId | None, stream: int) -> None:
        pass

    def status(self, request: RequestId | None, stream: int, status: int, body: bytes) -> None:
        pass

    def ended(self, request: RequestId | None, stream: int) -> None:
        pass

    def gone(self, why: str) -> None:
        pass


NOBODY: Final[Front] = _Nobody()


class Conversation:
    """See the module. `limit` is the longest message in bytes.

    `news` is called when messages are on their way; whoever gets it calls `Session.sent` before long.
    """

    def __init__(
        self,
        session: Session,
        front: Front,
        connect: Callable[[Receiver], Link],
        limit: int,
        news: Callable[[Conversation], None],
    ) -> None:
        self.session = session
        self._front = front
        self._limit = limit
        self._news = news
        self.link: Link = connect(self)

    # ---- from the front

    def meet(self, front: Front) -> None:
        """Go on with another client, where nothing is left of the one before."""
        self._front = front

    def speaks(self, caller: Caller) -> None:
        """What comes from the client from now on is this caller's."""
        self.session.speaks(caller)

    def from_client(self, line: bytes | Incoming | ProtocolError | TooLong) -> None:
        """One message from the client, see `proxy.Session`. `Front.deliver` may be called before this returns."""
        self.session.upstream_crowded = self.link.crowded
        self.session.from_client([line], self._limit)
        self.pump()

    def cancel(self, request: RequestId) -> None:
        """The client has gone away from a request."""
        self.session.abandon(request)
        self.pump()

    def listen(self, stream: int, last_event_id: str | None = None) -> None:
        """The client listens to what the server has to say unasked; `stream` (below 0) names that."""
        self.link.listen(stream, last_event_id)

    def unlisten(self, stream: int) -> None:
        """The client does not listen to this any more."""
        self.link.unlisten(stream)

    def tick(self) -> None:
        """Give up on what the server has had too long. Call it about once a second while `waiting`."""
        self.session.tick()
        self.pump()

    @property
    def waiting(self) -> bool:
        """Whether a request waits for the server, or one of its own for the client."""
        return not self.session.idle

    def leave(self) -> None:
        """Nobody will say anything more, nor wait for an answer; the connection to the server may be shared."""
        link, self.link = self.link, _OVER
        link.leave()

    async def close(self) -> None:
        """End the connection to the server; what waits for it is answered."""
        await self.link.close()
        self.session.upstream_gone("the proxy is shutting down")
        self.pump()
        self._front, self.link = NOBODY, _OVER  # rings that would wait for the garbage collector, which comes rarely

    # ---- from the link, see `Receiver`

    def from_upstream(self, lines: list[bytes | TooLong], stream: int = 0, event: Event | None = None) -> None:
        """See `Receiver`."""
        self.session.from_upstream(lines, self._limit, stream)
        if event is not None and not self.session.to_client:
            self.pump()
            request = self.session.request_of(stream)
            if stream < 0 or request is not None:
                self._front.mark(request, stream, event)
            return
        self.pump(event)

    def opened(self, stream: int) -> None:
        """See `Receiver`."""
        self._tell(self._front.opened, stream)

    def status(self, stream: int, status: int, body: bytes) -> None:
        """See `Receiver`."""
        request = self.session.request_of(stream)
        try:
            if stream < 0 or request is not None:
                self._front.status(request, stream, status, body)
        finally:
            self.session.failed(stream, f"the server answered with HTTP status {status}")
            self.pump()

    def ended(self, stream: int) -> None:
        """See `Receiver`."""
        self._tell(self._front.ended, stream)

    def _tell(self, what: Callable[[RequestId | None, int], None], stream: int) -> None:
        request = self.session.request_of(stream)
        if stream < 0 or request is not None:  # else it is about a question of the proxy's own
            what(request, stream)

    def failed(self, stream: int, why: str) -> None:
        """See `Receiver`."""
        self.session.failed(stream, why)
        self.pump()

    def gone(self, why: str) -> None:
        """See `Receiver`."""
        self.session.upstream_gone(why)
        self.pump()
        self._front.gone(why)

    def pump(self, event: Event | None = None) -> None:
        """Send what the session has collected."""
        session = self.session
        if session.to_upstream:
            self.link.send(session.to_upstream)
        elif not (session.to_client or session.unanswered) and session.judging:
            return  # it goes on when that is recorded
        if session.to_client:
            messages, session.to_client = session.to_client, []
            self._front.deliver(messages, event)
        if session.unanswered:
            requests, session.unanswered = session.unanswered, []
            for request in requests:
                self._front.ended(request, 0)
        self._news(self)
