"""Links to servers over streamable HTTP: every message is a POST of its own.

In the eras with a handshake (MCP 2025-03-26 to 2025-11-25) the link keeps the server's session, passes GET streams on,
and ends the session with DELETE. What is no request goes out alone: the next message waits until the server has taken
it, as SDKs do, because messages on two connections have no order. In the modern era (2026-07-28) a cancellation is the
end of the connection.

Below: `link_requests`, `http_client`, `wire.http_fields`. Above: `upstreams`.
"""

from __future__ import annotations

__all__ = ["HttpLink", "Remote", "trace_of"]

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

from intercept_py.log import Log
from intercept_py.model import JsonObject
from intercept_py.transports.client_connection import Request
from intercept_py.transports.conversation import Receiver
from intercept_py.transports.http_address import encode_fields
from intercept_py.transports.http_client import HttpClient
from intercept_py.transports.link_asking import Asking
from intercept_py.transports.link_messages import EVENTS, JSON, refusal
from intercept_py.transports.link_requests import Goodbye, Listening, Notice, Post
from intercept_py.wire.catalogue import Catalogue
from intercept_py.wire.commands import ToUpstream
from intercept_py.wire.http_fields import encode_value, outbound_fields, trace_fields, version_of
from intercept_py.wire.http_params import Mirror, mirrors_in
from intercept_py.wire.messages import PROTOCOL_VERSION_KEY, Arrival

_POST = encode_fields([(b"Content-Type", JSON), (b"Accept", JSON + b", " + EVENTS)])
_GET = encode_fields([(b"Accept", EVENTS)])
_CROWDED = 64
"""So many notifications that the server has not accepted, and it gets no more courtesies."""
_FULL = 64 * 1024 * 1024
"""Over so many bytes that a server has not answered, requests for it fail."""
_PATIENCE = 30.0
"""Seconds that a cancelled request of the eras with a handshake may still take."""
_PAUSE, _MAX_PAUSE = 1.0, 60.0
_TRIES = 5
"""Seconds before an event stream is asked for again where the server names no time; how often in a row."""
_FAREWELL = 2.0
_LONGEST_KEPT = 256
"""Of the name of a tool and a version, characters up to which their fields are kept."""


class Remote:
    """One server and what all links to it share. `limit`: bytes of the longest message."""

    def __init__(self, client: HttpClient, limit: int, log: Log) -> None:
        self.client = client
        self.limit = limit
        self.log = log


def _fields_of_call(params: JsonObject, version: str, mirrors: tuple[Mirror, ...]) -> bytes:
    """The lines that the POST of a modern `tools/call` has."""
    name: str = params["name"]
    if len(name) + len(version) <= _LONGEST_KEPT and not mirrors:
        return _fields_of_plain_call(name, version)
    return _POST + encode_fields(outbound_fields("tools/call", params, None, mirrors))


@lru_cache(maxsize=256)
def _fields_of_plain_call(name: str, version: str) -> bytes:
    """Those of a call that repeats no arguments. Most calls are of a few tools."""
    params = {"name": name, "_meta": {PROTOCOL_VERSION_KEY: version}}
    return _POST + encode_fields(outbound_fields("tools/call", params, None))


def trace_of(arrival: Arrival | None) -> bytes:
    """The lines of a message's trace context, which goes on as it came if it is sound."""
    if arrival is None or arrival.traceparent is None:
        return b""
    return encode_fields(trace_fields(arrival.traceparent, arrival.tracestate))


class HttpLink:
    """The link of one conversation.

    `known` are the tools, for the fields that repeat arguments. `version`: that of a legacy client without a session.
    `alone`: nobody else listens to the server or resumes its streams, so the link does.
    """

    def __init__(
        self,
        remote: Remote,
        receiver: Receiver,
        known: Catalogue,
        version: str | None = None,
        alone: bool = False,
    ) -> None:
        self.receiver = receiver
        self.limit = remote.limit
        self._remote = remote
        self._known = known
        self._version = version
        self._alone = alone
        self._session: bytes | None = None
        self._asking: dict[int, Asking] = {}
        self._notices: set[Request] = set()
        self._full = max(_FULL, remote.limit)
        self._weight = 0  # bytes of what is sent and not answered, or waits
        self._first: Request | None = None  # which has to be answered before anything else is sent
        self._queue: deque[ToUpstream] = deque()
        self._timers: set[asyncio.TimerHandle] = set()
        self._left = False

    @property
    def crowded(self) -> bool:
        """See `Link`."""
        return len(self._notices) + len(self._queue) > _CROWDED

    @property
    def session(self) -> bool:
        """See `Link`."""
        return self._session is not None

    def send(self, messages: list[ToUpstream]) -> None:
        """See `Link`."""
        batch = messages[:]
        messages.clear()  # what follows may bring more
        for message in batch:
            if self._weight + len(message.data) > self._full:
                self._refuse(message)
                continue
            self._weight += len(message.data)
            if self._first is None and not self._queue:
                self._send(message)
            else:
                self._queue.append(message)

    def _refuse(self, message: ToUpstream) -> None:
        why = "the server does not take what it is sent: try again later"
        if message.ticket is None:
            self.unnoticed(why)
        else:
            self.receiver.failed(message.ticket, why)

    def listen(self, stream: int, last_event_id: str | None) -> None:
        """See `Link`."""
        self._listen(Listening(self, stream, last_event_id))

    def unlisten(self, stream: int) -> None:
        """See `Link`."""
        listening = self._asking.get(stream)
        if listening is not None:
            listening.leave()

    def leave(self) -> None:
        """See `Link`. What has been answered may come to its end, so that its connection can be used again."""
        self._left = True
        self._queue.clear()
        for timer in self._timers:
            timer.cancel()
        for request in list(self._asking.values()):
            if not request.is_answered:
                request.leave()

    async def close(self) -> None:
        """See `Link`."""
        self.leave()
        for notice in list(self._notices):
            notice.abort()
            notice.end()
        if self._session is None:
            return
        goodbye = Goodbye()
        self._remote.client.send("DELETE", self._legacy_fields(), None, goodbye)
        self._session = None
        with suppress(TimeoutError):
            await asyncio.wait_for(goodbye.done.wait(), _FAREWELL)
        goodbye.abort()

    # ---- sending

    def _send(self, message: ToUpstream) -> None:
        method, params, ticket = message.method, message.params, message.ticket
        version = version_of(params)
        modern = type(version) is str
        if ticket is None:
            self._notify(message, modern)
            return
        post = self._asking[ticket] = Post(self, ticket, method, modern, len(message.data))
        if type(version) is not str:
            agreed = None if method == "initialize" else self._version
            if method == "initialize":
                self._session, self._first = None, post
            fields = _POST + encode_fields(outbound_fields(method, params, agreed)) + self._session_field()
            fields += trace_of(message.arrival)
        elif method == "tools/call":
            fields = _fields_of_call(params, version, mirrors_in(self._known, params["name"])) + trace_of(
                message.arrival
            )
        else:
            fields = _POST + encode_fields(outbound_fields(method, params, None)) + trace_of(message.arrival)
        self._remote.client.send("POST", fields, message.data, post)

    def _notify(self, message: ToUpstream, modern: bool) -> None:
        if message.method == "notifications/cancelled" and self._hang_up(message.params.get("requestId")):
            self._weight -= len(message.data)
            return
        if not modern and self._version is None:  # of a client in the modern era, which has none over HTTP
            self._weight -= len(message.data)
            self._remote.log("debug", f"left out `{message.method}`: the server has no session to which it belongs")
            return
        notice = Notice(self, len(message.data))
        self._notices.add(notice)
        if not modern:
            self._first = notice
            notice.begins = self._alone and message.method == "notifications/initialized"
        fields = encode_fields(outbound_fields(message.method, message.params, self._version))
        fields += self._session_field() + trace_of(message.arrival)
        self._remote.client.send("POST", _POST + fields, message.data, notice)

    def _hang_up(self, ticket: object) -> bool:
        """End a request that was cancelled; False if the server has to be told (MCP 2025-11-25, cancellation)."""
        request = self._asking.get(ticket) if type(ticket) is int else None
        if request is None:
            return False
        if isinstance(request, Post) and request.modern:
            request.give_up("the request was cancelled")
            return True
        self._later(_PATIENCE, request.leave)
        return False

    def _session_field(self) -> bytes:
        return b"" if self._session is None else b"Mcp-Session-Id: %b\r\n" % self._session

    def _legacy_fields(self) -> bytes:
        return encode_fields(outbound_fields(None, {}, self._version)) + self._session_field()

    def _listen(self, listening: Listening) -> None:
        self._asking[listening.stream] = listening
        fields = _GET + self._legacy_fields()
        if listening.last_id is not None:
            fields += encode_fields([(b"Last-Event-ID", encode_value(listening.last_id))])
        self._remote.client.send("GET", fields, None, listening)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            what()

        timer = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(timer)

    # ---- what becomes of requests, see `link_asking.Owner`

    def begun(self, session: bytes | None) -> None:
        """See `Owner`."""
        self._session = session

    def agreed(self, version: str) -> None:
        """See `Owner`."""
        self._version = version

    def answered(self, request: Request) -> None:
        """See `Owner`."""
        if request is not self._first:
            return
        self._first = None
        if isinstance(request, Notice) and request.begins and self._session is not None:
            self.listen(-1, None)
        while self._queue and self._first is None:
            self._send(self._queue.popleft())

    def over(self, request: Asking) -> None:
        """See `Owner`."""
        if self._asking.get(request.stream) is request:
            del self._asking[request.stream]
            self._weight -= request.size
        self.answered(request)

    def noticed(self, notice: Request, size: int) -> None:
        """See `Owner`."""
        self._notices.discard(notice)
        self._weight -= size
        self.answered(notice)

    def stopped(self, request: Asking, why: str) -> None:
        """See `Owner`."""
        if self._left:
            return
        stream = request.stream
        if self._alone and (stream < 0 or request.resumable) and request.tries < _TRIES:
            self._resume(request)
        elif stream < 0 and not request.streaming:
            self.receiver.status(stream, 502, b"")
        elif stream < 0 or (request.resumable and self._session is not None and not self._alone):
            self.receiver.ended(stream)
        else:
            self.receiver.failed(stream, why)

    def _resume(self, request: Asking) -> None:
        again = Listening(self, request.stream, request.last_id)
        again.retry, again.tries = request.retry, request.tries + 1
        pause = _PAUSE * 2**request.tries if request.retry is None else request.retry / 1000
        self._later(min(pause, _MAX_PAUSE), lambda: self._listen(again))

    def refused(self, request: Request, status: int) -> str:
        """See `Owner`."""
        if status == 401:
            self._remote.client.refused(request)
        if status == 404 and self._session is not None:
            return "the server does not know the session any more: begin a new one"
        return refusal(status)

    def unnoticed(self, why: str) -> None:
        """See `Owner`."""
        self._remote.log("warn", f"a message did not reach the server: {why}")
