"""Links to servers over HTTP+SSE, the transport of MCP 2024-11-05: one event stream down, one POST for a message up.

Not by the SDK's client: that ends a session at an event of 1 MiB, follows redirects, and writes messages anew on their
way. Below: `http_client`, `wire.sse`. Above: `upstreams`.
"""

from __future__ import annotations

__all__ = ["SseLink"]

import asyncio
from collections import deque
from urllib.parse import urljoin

from intercept_py.errors import UpstreamError
from intercept_py.transports.client_connection import Request
from intercept_py.transports.conversation import Receiver
from intercept_py.transports.http_address import encode_fields, parse_url
from intercept_py.transports.http_link import Remote, trace_of
from intercept_py.transports.link_messages import EVENTS, JSON, is_encoded, media_type, one_line, refusal
from intercept_py.wire.commands import ToUpstream
from intercept_py.wire.sse import EventReader, ServerEvent

_GET = encode_fields([(b"Accept", EVENTS)])
_POST = encode_fields([(b"Content-Type", JSON)])
_PATIENCE = 30.0
"""Seconds for the server to say where messages go, and to accept one."""
_CROWDED = 64
_FULL = 64 * 1024 * 1024
"""Messages, and bytes, that the server has not accepted: over them courtesies are held back, requests fail."""


class SseLink:
    """The link of one conversation. It connects when it is made; what is sent before that waits."""

    session = True

    def __init__(self, remote: Remote, receiver: Receiver) -> None:
        self._remote = remote
        self._receiver = receiver
        self._target: str | None = None  # of messages
        self._queue: deque[ToUpstream] = deque()
        self._weight = 0
        self._delivery: _Delivery | None = None
        self._over = False
        self._stream = _Stream(self, remote.limit)
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._too_late)
        remote.client.send("GET", _GET, None, self._stream)

    @property
    def crowded(self) -> bool:
        """See `Link`."""
        return len(self._queue) > _CROWDED

    def send(self, messages: list[ToUpstream]) -> None:
        """See `Link`."""
        batch = messages[:]
        messages.clear()  # what follows may bring more
        for message in batch:
            if self._over or self._weight + len(message.data) > max(_FULL, self._remote.limit):
                why = "the server is gone" if self._over else "the server does not take what it is sent"
                self.undelivered(message, why)
            else:
                self._weight += len(message.data)
                self._queue.append(message)
        self._deliver()

    def listen(self, stream: int, last_event_id: str | None) -> None:
        """What the server says unasked comes as it is."""

    def unlisten(self, stream: int) -> None:
        """See `listen`."""

    def leave(self) -> None:
        """See `Link`."""
        self._over = True
        self._queue.clear()
        self._timer.cancel()
        self._stream.abort()
        if self._delivery is not None:
            self._delivery.abort()

    async def close(self) -> None:
        """See `Link`. The end of its event stream ends a session."""
        self.leave()

    # ---- for the requests

    def take(self, events: list[ServerEvent]) -> None:
        """What the server says."""
        lines = []
        for event in events:
            if event.name == "endpoint" and self._target is None:
                self._begin(event.data or b"")
            elif event.name == "message" and event.data:
                lines.append(one_line(event.data))
        if lines:
            self._receiver.from_upstream([*lines])

    def _begin(self, endpoint: bytes) -> None:
        ours = self._remote.client.address
        try:
            address = parse_url(urljoin(ours.url, endpoint.decode("utf-8")))
        except (UpstreamError, ValueError):
            self.gone("the server does not say where messages go")
            return
        if (address.host, address.port, address.tls) != (ours.host, ours.port, ours.tls):
            self.gone("the server wants messages to go to another server")
            return
        self._timer.cancel()
        self._target = address.target
        self._deliver()

    def _deliver(self) -> None:
        """Send the next message, once the server has the one before: two connections have no order."""
        if self._target is not None and self._delivery is None and self._queue:
            message = self._queue.popleft()
            self._delivery = _Delivery(self, message)
            fields = _POST + trace_of(message.arrival)
            self._remote.client.send("POST", fields, message.data, self._delivery, self._target)

    def delivered(self, delivery: _Delivery, status: int) -> None:
        """The server has answered a message with this status."""
        self._next(delivery)
        if status == 401:
            self._remote.client.refused(delivery)
        if status >= 300:
            self.undelivered(delivery.message, refusal(status))

    def lost(self, delivery: _Delivery, why: str) -> None:
        """The server does not answer a message."""
        self._next(delivery)
        self.undelivered(delivery.message, why)

    def _next(self, delivery: _Delivery) -> None:
        self._delivery = None
        self._weight -= len(delivery.message.data)
        self._deliver()

    def undelivered(self, message: ToUpstream, why: str) -> None:
        """A message has not reached the server."""
        if message.ticket is None:
            self._remote.log("warn", f"a message did not reach the server: {why}")
        else:
            self._receiver.failed(message.ticket, why)

    def refused(self, stream: _Stream, status: int) -> None:
        """The server gives no event stream."""
        if status == 401:
            self._remote.client.refused(stream)
        self.gone(refusal(status) if status >= 300 else "the server does not answer with an event stream")

    def gone(self, why: str) -> None:
        """There is no session any more."""
        if not self._over:
            self.leave()
            self._receiver.gone(why)

    def _too_late(self) -> None:
        self.gone(f"the server did not say within {_PATIENCE:g} s where messages go")


class _Stream(Request):
    """The event stream of a session."""

    def __init__(self, link: SseLink, limit: int) -> None:
        self._link = link
        self._events = EventReader(limit)

    def head(self, status: int, fields: dict[bytes, bytes]) -> None:
        """See `Request`."""
        if status != 200 or media_type(fields) != EVENTS or is_encoded(fields):
            self._link.refused(self, status)

    def data(self, chunk: bytes) -> None:
        """See `Request`."""
        self._link.take(self._events.feed(chunk))
        if self._events.too_long:
            self._link.gone(
                f"an event of the server's is longer than {self._events.limit} bytes: raise --max-message-bytes"
            )

    def end(self) -> None:
        """See `Request`."""
        self._link.gone("the server ended its event stream")

    def broken(self, why: str) -> None:
        """See `Request`."""
        self._link.gone(why)


class _Delivery(Request):
    """The POST of one message, whose answer says no more than whether the server took it."""

    def __init__(self, link: SseLink, message: ToUpstream) -> None:
        self.message = message
        self._link = link
        self._status = 0
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._too_late)

    def head(self, status: int, fields: dict[bytes, bytes]) -> None:
        """See `Request`."""
        self._status = status

    def data(self, chunk: bytes) -> None:
        """Nobody reads it."""

    def end(self) -> None:
        """See `Request`."""
        self._timer.cancel()
        self._link.delivered(self, self._status)

    def abort(self) -> None:
        """See `Request`."""
        self._timer.cancel()
        super().abort()

    def broken(self, why: str) -> None:
        """See `Request`."""
        self._timer.cancel()
        self._link.lost(self, why)

    def _too_late(self) -> None:
        self.abort()
        self._link.lost(self, f"the server did not accept it within {_PATIENCE:g} s")
