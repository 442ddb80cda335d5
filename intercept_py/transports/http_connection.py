"""One client's connection to our HTTP/1.1 server: requests in, answers out, in order, each within its time.

It exists because a call through a general ASGI server costs several times as much (`benchmarks/http_servers.py`). No
task, timer or lock for a request: the parser calls back, the app answers when it can, and `http_service` looks at the
deadlines of all connections once a second. Left out on purpose: TLS, upgrades, HTTP/2.

Below: `http_arrivals`, `http_host`, `http_reader`. Above: `http_service`.
"""

from __future__ import annotations

__all__ = ["Connection"]

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from intercept_py.transports.http_arrivals import SMALL
from intercept_py.transports.http_host import Host
from intercept_py.transports.http_messages import JSON, Answer, Fields, crowded, nobody, problem, too_slow
from intercept_py.transports.http_reader import Request, RequestReader, encode_fields
from intercept_py.transports.prompt_writing import PromptWriter

_LINGER: Final = 2.0
"""Seconds in which a client that still sends may read why it is refused, before the connection closes."""
_STALLED: Final = 60.0
"""Seconds that a client may leave an answer unread."""
_LARGE: Final = 1024 * 1024
"""Bytes written at once that are looked at together with what others have not read."""
_NEVER: Final = float("inf")
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""After two minutes of silence from a machine that is gone, its connections end."""
_STATUS_LINES: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_JSON_LINES: Final = encode_fields(JSON)


class _ConnectionReply:
    """The answer to one request, see `http_messages.Reply`."""

    __slots__ = ("_connection", "_request", "lost")

    def __init__(self, connection: Connection, request: Request) -> None:
        self.lost: Callable[[], None] = nobody
        self._request = request
        self._connection: Connection | None = connection

    @property
    def backlog(self) -> int:
        return 0 if self._connection is None else self._connection.transport.get_write_buffer_size()

    def whole(self, answer: Answer) -> None:
        connection = self._connection
        if connection is not None:
            data = connection.encode(answer, self._request)
            self._connection = None  # not before: where that fails, another answer can still be given
            connection.write(data)
            connection.done(self._request.close or answer.close)

    def begin(self, fields: Fields) -> None:
        if self._connection is not None:
            self._connection.writer.write(self._connection.encode_head(fields, self._request))

    def part(self, data: bytes) -> None:
        if self._connection is not None:
            chunk = data if self._request.is_old else b"%x\r\n%b\r\n" % (len(data), data)
            self._connection.write(chunk)

    def end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if not self._request.is_old:
                connection.writer.write(b"0\r\n\r\n")
            connection.done(self._request.close)

    def cut(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.transport.abort()

    def leave(self) -> None:
        """The client is gone."""
        if self._connection is not None:
            self._connection = None
            self.lost()


class Connection(asyncio.Protocol):
    """See the module. At `deadline`, a time of the host's, it is to be told that it `expired`."""

    transport: asyncio.Transport
    writer: PromptWriter

    def __init__(self, host: Host) -> None:
        self.deadline = host.now + host.patience
        self._host = host
        self._reply: _ConnectionReply | None = None  # that is not complete
        self._awaited: tuple[Request | None, bool] = (None, True)  # what the deadline is for: a request, its head
        self._counted = False  # among `Arrivals`
        self._doubtful: Request | None = None  # nobody knows yet who sends it: its body is not read
        self._pumping = False
        self._stalled = False  # the client does not read
        self._deaf = False  # what comes in is thrown away, the connection is about to close

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # so is uvloop's
        """Begin to wait for a request."""
        self.transport = transport
        self.writer = PromptWriter(transport)
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else ""
        app = self._host.app
        self._reader = RequestReader(
            address, self._host.heads, app.read, app.admit, app.settings.body_limit, self._proceed
        )
        _keep_alive(transport.get_extra_info("socket"))
        self._host.connections.add(self)
        if self._host.full:
            self._turn_away(problem(503, "too many connections are open: try again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._host.connections.discard(self)
        self._deaf = True
        self._doubtful = None
        self._host.app.arrivals.release(self)
        self._reader.close()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.leave()

    def data_received(self, data: bytes) -> None:
        """Read, and answer what is complete."""
        if self._deaf:
            return
        reader = self._reader
        try:
            reader.feed(data)
        except Exception as exc:  # a bug of ours must not take the other requests with it
            self._host.failed(exc)
            reader.refuse(problem(500, "the proxy failed to read this request"))
        if reader.ready or reader.refusal is not None:
            self._pump()
        elif self._reply is None and self._awaited != (reader.request, reader.in_head):
            self._wait()
        if reader.request is not None:
            self._doubt()
            self._count()

    def _doubt(self) -> None:
        """Nobody unknown makes us keep more of a body than what came together with its head."""
        request = self._reader.doubtful()
        if request is not None and self._doubtful is None and not self._deaf:
            self._doubtful = request
            self._read_or_not()
            self._host.app.identify(request.intake, self._told)

    def _told(self, intake: Any) -> None:
        request, self._doubtful = self._doubtful, None
        if request is not None and not self._deaf:
            self._reader.settle(request, intake)
            self._pump()

    def _count(self) -> None:
        """What is kept of bodies is bounded for all clients together."""
        size = self._reader.kept()
        if size > SMALL:
            self._counted = True
            self._host.app.arrivals.keep(self, size)
        elif self._counted:
            self._counted = False
            self._host.app.arrivals.release(self)

    def give_way(self) -> None:
        """See `Sender`. Requests whose turn has not come are not answered, as the end of the connection tells."""
        self._counted = False
        self._reader.ready.clear()
        self._reader.refuse(crowded())
        self._pump()

    def pause_writing(self) -> None:
        """The client does not read its answers: it may do so for some time."""
        self._stalled = True
        self.deadline = self._host.now + _STALLED

    def resume_writing(self) -> None:
        """It reads again."""
        self._stalled = False
        self._pump()

    def _proceed(self, request: Request) -> None:
        """Let a client send its body. One that pipelines sends it without being told."""
        if self._reply is None and not self._reader.ready and not request.is_old:
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # ---- answers

    def _pump(self) -> None:
        """Answer requests in order, one after the other."""
        if self._pumping:
            return
        self._pumping = True
        reader = self._reader
        try:
            while reader.ready and self._reply is None and not self._stalled:
                request = reader.ready.popleft()
                reply = self._reply = _ConnectionReply(self, request)
                if isinstance(request.intake, Answer):
                    reply.whole(request.intake)
                else:
                    self._host.app.take(request.intake, b"".join(request.body), reply)
        finally:
            self._pumping = False
        if self._counted:
            self._count()
        if self._deaf:
            return
        if reader.refusal is not None and self._reply is None and not reader.ready:
            self._turn_away(reader.refusal)
            return
        self._wait()
        self._read_or_not()

    def _read_or_not(self) -> None:
        """Requests behind one that is not answered wait in the kernel; without any, clients that leave are noticed."""
        wait = bool(self._reader.ready) or self._doubtful is not None
        if self.transport.is_reading() == wait:
            if wait:
                self.transport.pause_reading()
                self._count()
            else:
                self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send something of an answer."""
        self.writer.write(data)
        if len(data) > _LARGE:
            self._host.weigh()

    def unread_for(self) -> float:
        """Seconds for which the client has left an answer unread; 1 at least."""
        return 1 + (self._host.now - self.deadline + _STALLED if self._stalled else 0)

    def encode(self, answer: Answer, request: Request) -> bytes:
        """The bytes of a whole answer."""
        if request.shared:
            answer = answer.sharing(request.shared)
        close = request.close or answer.close or self._host.ending
        data = b"%b%b%bcontent-length: %d\r\n%b\r\n%b" % (
            _STATUS_LINES[answer.status],
            _JSON_LINES if answer.fields is JSON else encode_fields(answer.fields),
            self._host.date,
            len(answer.body),
            b"connection: close\r\n" if close else b"",
            b"" if request.method == b"HEAD" else answer.body,
        )
        return data if answer.status != 204 else data.replace(b"content-length: 0\r\n", b"", 1)  # RFC 9110, 8.6

    def encode_head(self, fields: Fields, request: Request) -> bytes:
        """The bytes of the head of an answer whose length is not known."""
        chunked = b"" if request.is_old else b"transfer-encoding: chunked\r\n"
        close = b"connection: close\r\n" if request.close or self._host.ending else b""
        lines = encode_fields(fields + request.shared)
        return b"".join((_STATUS_LINES[200], lines, self._host.date, chunked, close, b"\r\n"))

    def done(self, close: bool) -> None:
        """An answer is complete."""
        self._reply = None
        if close or self._host.ending:
            self._deaf = True
            self.transport.close()
        elif self._reader.ready or self._reader.refusal is not None:
            self._pump()
        else:  # reading may be paused for a doubtful body: whoever is told who sends it goes on
            self._wait()

    # ---- time

    def _wait(self) -> None:
        """Set the deadline for what the client has to do next."""
        if self._stalled:
            return
        if self._reply is not None:
            self.deadline = _NEVER
            return
        host, reader = self._host, self._reader
        self._awaited = (reader.request, reader.in_head)
        if reader.request is None:
            self.deadline = host.now + host.idle
        else:
            self.deadline = host.now + (host.patience if reader.in_head else host.app.settings.body_patience)

    def expired(self) -> None:
        """The deadline has passed."""
        if self._deaf or self._stalled:
            self.transport.abort()
        elif self._reader.request is not None:
            patience = self._host.patience if self._reader.in_head else self._host.app.settings.body_patience
            self._turn_away(too_slow(patience))
        else:
            self.transport.close()

    # ---- ends

    def shutdown(self) -> None:
        """Close as soon as nothing is being answered."""
        if self._reply is None and not self._deaf:
            self.transport.close()

    def _turn_away(self, answer: Answer) -> None:
        """Refuse what is not going to be read to its end.

        Closing at once would make the kernel withdraw the answer from a client that still sends (RFC 9112, 9.6).
        """
        self._deaf = True
        answer = self._reader.refuse(answer)
        self._host.app.arrivals.release(self)
        last = Request()
        last.method, last.close = self._reader.refused, True
        self.writer.write(self.encode(answer, last))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.deadline = self._host.now + _LINGER


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
