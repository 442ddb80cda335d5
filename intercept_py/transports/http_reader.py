"""Requests out of the bytes of one HTTP/1.1 connection, bounded and read in one way only. No I/O.

`httptools` parses, strictly; what it lets pass though others may read it differently is refused here (RFC 9112, 11.2:
request smuggling). Below: `http_heads`, `http_messages`. Above: `http_connection`.
"""

from __future__ import annotations

__all__ = ["Intake", "Known", "Request", "RequestReader", "encode_fields"]

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import httptools

from intercept_py.transports.http_heads import END, Heads, is_whole
from intercept_py.transports.http_messages import Answer, Field, Fields, problem, too_long

_MAX_HEAD: Final = 64 * 1024
_MAX_FIELDS: Final = 100
_SMALL: Final = 64 * 1024
"""Of a body that is refused, bytes that are read so that the connection can be kept."""
_MANY: Final = 1024
"""Pieces of a body that are kept apart."""
_MAX_WISHES: Final = 100
"""Requests on one connection that may ask for another protocol: each of them is read twice."""
_FRAMING: Final = frozenset({b"content-length", b"expect", b"transfer-encoding"})
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)
_UNREADABLE: Final = problem(400, "this is no HTTP/1.1 request that every parser would read alike")
_HEAD_TOO_LONG: Final = problem(431, f"the head of the request is longer than {_MAX_HEAD} bytes")
_TOO_MANY_FIELDS: Final = problem(431, f"the request has more than {_MAX_FIELDS} header fields")


Known: TypeAlias = tuple[Any, bytes, int, Fields]
"""A head that may pass: what was read out of it, the method, how long the body is, and what its answers share."""


class Intake(Protocol):
    """What a handler makes of a head that may pass."""

    @property
    def known(self) -> bool:
        """Whether it is known who calls; else the body is not wanted yet."""


class Request:
    """A request, from its first byte until it is answered.

    `intake` is what `admit` said of its head: an `Answer` refuses it. `is_old`: HTTP/1.0, which has no chunks. `close`:
    nothing may follow it. `shared`: fields that go with every answer to it.
    """

    __slots__ = ("body", "close", "fields", "framing", "intake", "is_old", "method", "shared", "size", "url")

    def __init__(self) -> None:
        self.method = b""
        self.url = b""
        self.fields: list[Field] = []
        self.framing: dict[bytes, bytes] = {}
        self.body: list[bytes] = []
        self.size = 0
        self.shared: Fields = ()
        self.intake: Any = None  # an `Intake` or an `Answer`, once there is a head
        self.is_old = False
        self.close = False

    def length(self) -> int:
        """Of its head, in bytes, but for what separates fields."""
        return len(self.url) + sum([len(name) + len(value) for name, value in self.fields])


def _ignore(request: Request) -> None:
    """Nobody is there to be told."""


class RequestReader:
    """Feed it what was read, take requests from `ready`, in order.

    `read` makes something of a method, a path, fields (names in lower case) and the peer's `address`, which depends on
    nothing else and is kept in `heads`; in it are the fields that answers have `shared`. `admit` is asked about that
    for every request before the body is read, which may have `limit` bytes. Both may refuse it. `proceed` is called
    when the client wants to know whether to send it. `refusal`: nothing more is read, this is the answer behind those
    to what is ready. `request`: one that is not complete, `in_head` not even its head; `refused`: the method of one
    that never will be.
    """

    def __init__(
        self,
        address: str,
        heads: Heads[Known],
        read: Callable[[str, str, list[Field], str], Any],
        admit: Callable[[Any], Any],
        limit: int,
        proceed: Callable[[Request], None],
    ) -> None:
        self.ready: deque[Request] = deque()
        self.refusal: Answer | None = None
        self.request: Request | None = None
        self.in_head = True
        self.refused = b""
        self._address = address
        self._heads = heads
        self._read = read
        self._admit = admit
        self._limit = limit
        self._proceed = proceed
        self._parser = httptools.HttpRequestParser(self)
        self._received = 0  # bytes of the head, or since then
        self._wishes = 0
        self._unknown: bytes | None = None  # the head that is being read, if all of it is at hand
        self._last = False  # nothing may follow the request that was read last

    def feed(self, data: bytes) -> None:
        """Read on. Raises what `read` and `admit` raise, or `httptools.HttpParserCallbackError`."""
        while data and self.refusal is None:
            between = self.request is None and not self._received and not self._last
            data = self._take(data) if between else self._parse(data)
        if self._received and self._too_much():
            self.refuse(_HEAD_TOO_LONG)

    def refuse(self, answer: Answer) -> Answer:
        """Read nothing more. What the client is told is what it was refused with first."""
        if self.refusal is None:
            self.refusal = answer
            if self.request is not None:
                self.refused = self.request.method
                self.refusal = answer.sharing(self.request.shared)
                self.request.body.clear()
                self.request = None
        return self.refusal

    def close(self) -> None:
        """Nothing more comes. Rings of references would wait for the garbage collector, which comes rarely."""
        self.ready.clear()
        self._proceed = _ignore
        del self._parser

    def kept(self) -> int:
        """Bytes of bodies that nobody has taken. Pieces become one where many small ones would take much more room."""
        waiting = [*self.ready] if self.request is None else [*self.ready, self.request]
        for request in waiting:
            if len(request.body) > _MANY:
                request.body[:] = [b"".join(request.body)]
        return sum([request.size for request in waiting])

    def doubtful(self) -> Request | None:
        """The request whose body has begun to come though nobody knows who calls: read no more, and `settle` it."""
        request = self.request
        if request is None or self.in_head or isinstance(request.intake, Answer) or request.intake.known:
            return None
        return request

    def settle(self, request: Request, intake: Intake | Answer) -> None:
        """Who sends the request that was doubtful is known, or it is refused."""
        if self.request is request:
            request.intake = intake
            if isinstance(intake, Answer):
                request.body.clear()
            self._expect_body(request)

    def _take(self, data: bytes) -> bytes:
        """Read a request from its beginning; what is left is to be read anew."""
        end = data.find(END) + len(END)
        head = data[:end]
        known = self._heads.get((self._address, head))
        if known is None or len(data) < end + known[2]:
            self._unknown = head
            try:
                return self._parse(data)
            finally:
                self._unknown = None
        request = Request()
        read, request.method, request.size, request.shared = known
        request.intake = self._admit(read)
        request.body.append(data[end : end + request.size])
        self.ready.append(request)
        return data[end + request.size :]

    def _learn(self, request: Request, read: Any) -> None:
        """Keep what was read out of a head whose sender is known, if it is a plain one."""
        head, self._unknown = self._unknown, None
        if head is None or isinstance(request.intake, Answer) or not request.intake.known:
            return
        length = int(request.framing.get(b"content-length", b"0"))
        plain = len(request.framing) == (b"content-length" in request.framing) and not request.close
        if plain and length <= self._limit and is_whole(head, len(request.fields)):
            self._heads.learn((self._address, head), (read, request.method, length, request.shared))

    def _parse(self, data: bytes) -> bytes:
        """Parse; what is left is to be parsed anew."""
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            return self._without_wish(data[exc.args[0] :])
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError:
            self.refuse(_UNREADABLE)
        return b""

    def _without_wish(self, rest: bytes) -> bytes:
        """A request as it would be if it did not ask for another protocol, as Java's client does (RFC 9110, 7.8).

        The parser would take its body for that protocol. `rest` is what came behind the head.
        """
        request, self.request = self.request, None
        if request is None:
            return b""
        self._wishes += 1
        if self._wishes > _MAX_WISHES:
            self.refuse(problem(400, "this server speaks HTTP/1.1 only: leave out the upgrade header"))
            return b""
        kept = [field for field in request.fields if field[0] not in (b"upgrade", b"connection")]
        self._parser = httptools.HttpRequestParser(self)
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (request.method, request.url, encode_fields(tuple(kept)), rest)

    def _too_much(self) -> bool:
        """Whether a head, or what is around the bytes of a body (sizes and extensions of chunks, trailers), is long."""
        if self.in_head:
            return self._received > _MAX_HEAD
        size = self.request.size if self.request is not None else 0
        return self._received > _MAX_HEAD + 8 * size

    # ---- what the parser finds

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.refusal is None:
            self.request = Request()

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        if self.request is not None:
            self.request.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer, which nobody reads."""
        request = self.request
        if request is None or not self.in_head:
            return
        name = name.lower()
        value = value.strip(b" \t")  # which the parser leaves at its end (RFC 9110, 5.5)
        request.fields.append((name, value))
        if name in _FRAMING:
            request.framing[name] = value
        if len(request.fields) > _MAX_FIELDS:
            self.refuse(_TOO_MANY_FIELDS)

    def on_headers_complete(self) -> None:
        """Ask whether the body is wanted."""
        request = self.request
        received, self._received = self._received, 0
        self.in_head = False
        if request is None:
            return
        request.method = self._parser.get_method()
        version = self._parser.get_http_version()
        request.is_old = version == "1.0"
        self._last = request.close = request.is_old or not self._parser.should_keep_alive()
        refusal = _unfit(request, version)
        if refusal is None and received > _MAX_HEAD and request.length() > _MAX_HEAD:
            refusal = _HEAD_TOO_LONG
        if refusal is not None:
            self.refuse(refusal)
        elif not self._parser.should_upgrade():  # else it comes back without that wish
            path = _origin_form(request).partition(b"?")[0].decode("latin-1")
            read = self._read(request.method.decode("ascii"), path, request.fields, self._address)
            if isinstance(read, Answer):
                request.intake = read
            else:
                request.shared = read.shared
                request.intake = self._admit(read)
            self._learn(request, read)
            if request.framing and (isinstance(request.intake, Answer) or request.intake.known):
                self._expect_body(request)

    def _expect_body(self, request: Request) -> None:
        """A client that asks whether to send is told (RFC 9110, 10.1.1), and one that need not send is told as well."""
        refused = isinstance(request.intake, Answer)
        length = int(request.framing.get(b"content-length", b"0"))
        expects = b"expect" in request.framing
        if refused and (expects or length > _SMALL):
            self.refuse(request.intake)
        elif length > self._limit:
            self.refuse(too_long(self._limit))
        elif expects:
            self._proceed(request)

    def on_body(self, data: bytes) -> None:
        """A piece of the body. What is refused, but small, is read and thrown away."""
        request = self.request
        if request is None:
            return
        request.size += len(data)
        if isinstance(request.intake, Answer):
            if request.size > _SMALL:
                self.refuse(request.intake)
        elif request.size > self._limit:
            self.refuse(too_long(self._limit))
        else:
            request.body.append(data)

    def on_message_complete(self) -> None:
        """The request is there."""
        self.in_head = True
        self._received = 0
        if self.request is not None and not self._parser.should_upgrade():
            self.ready.append(self.request)
            self.request = None


def encode_fields(fields: Fields) -> bytes:
    """The lines of a head that these fields make."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def _origin_form(request: Request) -> bytes:
    """The path and query of the target. A host that it names takes the place of the one in `Host` (RFC 9112, 3.2.2)."""
    named = _ABSOLUTE.match(request.url)
    if named is None:
        return request.url
    request.fields = [(name, named[1] if name == b"host" else value) for name, value in request.fields]
    rest = request.url[named.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def _unfit(request: Request, version: str) -> Answer | None:
    """What the parser lets pass though others may read it differently."""
    if version not in ("1.0", "1.1"):
        return problem(505, "send HTTP/1.1")
    if not request.url.startswith(b"/") and not _ABSOLUTE.match(request.url):
        return problem(400, "the request must name a path")
    coding = request.framing.get(b"transfer-encoding")
    if coding is not None and (request.is_old or coding.lower() != b"chunked"):
        return problem(400, "the only transfer encoding is chunked")
    if request.framing.get(b"expect", b"100-continue").lower() != b"100-continue":
        return problem(417, "nothing but 100-continue can be expected")
    return None
