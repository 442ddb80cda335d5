"""One HTTP/1.1 connection to a server, from the client's side, and the request on it.

Answers are not trusted: their heads, trailers and interim answers are bounded, and one whose length could be read in
two ways, or that nobody asked for, ends the connection. Below: `http_heads`. Above: `http_client`.
"""

from __future__ import annotations

__all__ = ["ClientConnection", "Known", "Pool", "Request"]

import asyncio
import select
import socket
from abc import ABC, abstractmethod
from typing import Final, Protocol, TypeAlias, cast

import httptools

from intercept_py.transports.http_heads import END, Heads, is_whole
from intercept_py.transports.prompt_writing import PromptWriter

_MAX_HEAD = 64 * 1024
_MAX_FIELDS = 256
_MAX_INTERIM = 16
"""Bounds of an answer's head and of its trailers, in bytes and fields; of answers with a status below 200."""
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""After two minutes of silence from a machine that is gone, its connections end."""
_SAID = frozenset({b"content-type", b"content-encoding", b"mcp-session-id", b"content-length", b"transfer-encoding"})


Known: TypeAlias = tuple[int, dict[bytes, bytes], int]
"""A head after which the connection can be kept: status, fields, and how long the body is."""
_SERVER: Final = "server"


class Request(ABC):
    """One request and what comes back: `head`, then `data` as often as needed, then `end`; or `broken` at any point.

    Nothing comes after `end`, `broken` and `abort`.
    """

    over = False
    authorization: str | None = None
    connection: ClientConnection | None = None

    @abstractmethod
    def head(self, status: int, fields: dict[bytes, bytes]) -> None:
        """The answer begins. `fields`: by name in lower case, only those that say something about it."""

    @abstractmethod
    def data(self, chunk: bytes) -> None:
        """A part of its body."""

    @abstractmethod
    def end(self) -> None:
        """It is complete."""

    @abstractmethod
    def broken(self, why: str) -> None:
        """There is no answer, or not all of it."""

    def abort(self) -> None:
        """Wait for no answer: the server sees the connection end."""
        if not self.over:  # else its connection may be another's
            self.over = True
            if self.connection is not None:
                self.connection.abort()

    def fail(self, why: str) -> None:
        """Call `broken`, unless it is over."""
        if not self.over:
            self.over = True
            self.broken(why)


class Pool(Protocol):
    """What a connection belongs to."""

    buffer: memoryview
    """Where connections read into. One is enough: what is read is parsed at once."""
    heads: Heads[Known]

    def opened(self, connection: ClientConnection) -> None:
        """A connection was made."""

    def lost(self, connection: ClientConnection) -> None:
        """A connection has ended."""

    def release(self, connection: ClientConnection) -> None:
        """A connection may be used for another request."""


class ClientConnection(asyncio.BufferedProtocol):
    """One connection and the request on it, if there is one. `unused` is the pool's: since it looked the last time."""

    def __init__(self, pool: Pool) -> None:
        self.unused = False
        self._pool = pool
        self._request: Request | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._poll = select.poll()
        self._fields: dict[bytes, bytes] = {}
        self._fault: str | None = None
        self._quiet = 0  # bytes since there was something to pass on
        self._count = 0  # of header fields
        self._interim = 0
        self._final = False  # the head is complete
        self._complete = False
        self._until_end = False
        self._keep = False
        self._unknown: bytes | None = None  # the head that is being read, if all of it is at hand

    def start(self, data: bytes, request: Request) -> None:
        """Send a request, which is `data`. The connection is idle."""
        self._request = request
        request.connection = self
        self._quiet = self._count = self._interim = 0
        self._final = self._complete = self._until_end = False
        self._fields = {}
        self._writer.write(data)

    def fresh(self) -> bool:
        """Whether the connection is open and silent. One with anything to read has ended, or says what nobody asked."""
        return not self._transport.is_closing() and not self._poll.poll(0)

    def abort(self) -> None:
        """End the connection; nobody hears of it."""
        self._request = None
        self._transport.abort()

    def fail(self, why: str) -> None:
        """End the connection and the request on it."""
        request, self._request = self._request, None
        self._transport.abort()
        if request is not None:
            request.fail(why)

    # ---- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not derived from it
        self._writer = PromptWriter(self._transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._poll.register(sock.fileno(), select.POLLIN)
        self._pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._pool.lost(self)
        del self._parser  # which refers to us: the ring would wait for the garbage collector, which comes rarely
        request, self._request = self._request, None
        if request is None:
            return
        if self._until_end and exc is None:
            request.over = True
            request.end()
        else:
            when = (
                "in the middle of its answer" if self._final else "without an answer; it may have acted on the request"
            )
            request.fail(f"the server closed the connection {when}")

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return self._pool.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        if self._request is None:
            self._transport.abort()
            return
        if not self._quiet and not self._final and self._take(bytes(self._pool.buffer[:nbytes])):
            return
        self._quiet += nbytes
        try:
            self._parser.feed_data(self._pool.buffer[:nbytes])
        except httptools.HttpParserError:
            self._keep = False
            if not self._complete:  # else what follows is wrong, not the answer
                self.fail(self._fault or "the server's answer is not HTTP as it should be")
                return
        except httptools.HttpParserUpgrade:
            self.fail("the server wants to speak another protocol than HTTP")
            return
        if self._complete:
            self._finish()
        elif self._quiet > _MAX_HEAD:
            self.fail(f"the head of the server's answer is longer than {_MAX_HEAD} bytes")

    def _take(self, data: bytes) -> bool:
        """Take an answer whose head is known, if it is whole; False if it has to be parsed."""
        end = data.find(END) + len(END)
        head = data[:end]
        known = self._pool.heads.get((_SERVER, head))
        if known is None or len(data) != end + known[2]:
            self._unknown = head
            return False
        status, fields, length = known
        request = self._request
        assert request is not None
        self._final = self._complete = self._keep = True
        request.head(status, fields)
        if length and self._request is not None:
            request.data(data[end:])
        if self._request is not None:
            self._finish()
        return True

    def _learn(self, status: int, fields: dict[bytes, bytes]) -> None:
        """Keep what was read out of a head, if the length of the answer is plain."""
        head, self._unknown = self._unknown, None
        length = fields.get(b"content-length")
        if head is None or length is None or status in (204, 304) or not self._parser.should_keep_alive():
            return
        if is_whole(head, self._count):
            self._pool.heads.learn((_SERVER, head), (status, fields, int(length)))

    def _finish(self) -> None:
        request, self._request = self._request, None
        # An answer that came before all of the request was sent leaves the rest of it behind.
        if self._keep and not self._transport.get_write_buffer_size() and not self._transport.is_closing():
            self._pool.release(self)
        else:
            self._transport.close()
        if request is not None:
            request.over = True
            request.end()

    # ---- httptools

    def on_message_begin(self) -> None:
        """See `httptools`: a second answer to one request is none."""
        if self._complete:
            raise ValueError

    def on_header(self, name: bytes, value: bytes) -> None:
        """See `httptools`. Trailers are ignored."""
        self._count += 1
        if self._count > _MAX_FIELDS:
            self._refuse(f"the server's answer has more than {_MAX_FIELDS} header fields")
        name = name.lower()
        if name in _SAID and not self._final:
            if name in self._fields:
                self._refuse(f"the server's answer has two `{name.decode()}` fields")
            self._fields[name] = value.strip(b" \t")  # RFC 9110, 5.5; `httptools` leaves blanks behind a value

    def on_headers_complete(self) -> None:
        """See `httptools`."""
        status, fields = self._parser.get_status_code(), self._fields
        if status < 200:
            self._unknown = None  # which was this one's
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                self._refuse("the server promises an answer and never gives it")
            return
        coding = fields.get(b"transfer-encoding")
        if coding is not None and (b"content-length" in fields or coding.lower() != b"chunked"):
            self._refuse("the length of the server's answer is not certain")
        self._until_end = coding is None and b"content-length" not in fields and status not in (204, 304)
        self._final = True
        self._quiet = 0
        self._learn(status, fields)
        if self._request is not None:
            self._request.head(status, fields)

    def on_body(self, body: bytes) -> None:
        """See `httptools`."""
        self._quiet = 0
        if self._request is not None:
            self._request.data(body)

    def on_message_complete(self) -> None:
        """See `httptools`."""
        if self._final:
            self._complete = True
            self._keep = self._parser.should_keep_alive()
        else:  # an answer with a status below 200 is followed by the real one
            self._fields = {}

    def _refuse(self, why: str) -> None:
        self._fault = why
        raise ValueError(why)
