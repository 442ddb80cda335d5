"""Heads that are not read again: what is made of any bytes is the same as if each head were read anew."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.transports.client_connection import ClientConnection, Request
from intercept_py.transports.client_connection import Known as KnownAnswer
from intercept_py.transports.http_heads import Heads, is_whole
from intercept_py.transports.http_messages import Answer, Field, problem
from intercept_py.transports.http_reader import Known, RequestReader


class Forgetful(Heads[Any]):
    """Keeps nothing: each head is read anew."""

    def learn(self, key: tuple[str, bytes], made: Any) -> None:
        pass


# -- requests ----------------------------------------------------------------------------------------------------------

CALL = b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nMcp-Name: echo\r\n\r\nhello"
REQUESTS = [
    CALL,
    CALL.replace(b"echo", b" other "),
    CALL.replace(b"hello", b"\r\n\r\nh"),
    b"GET /mcp HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\n",
    b"POST /mcp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nhello",
    b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" + b"x" * 900,
    b"POST /mcp HTTP/1.0\r\nHost: x\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
    b"POST /unknown HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"\r\n" + CALL,
    b"POST /mcp HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello",
    b"POST /mcp HTTP/1.1\r\nHost: x\r\n folded\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /mcp HTTP/1.1\r\nHost: x\nX: y\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"\r\n\r\n",
]
LIMIT = 500


class Passed(NamedTuple):
    """What was read out of a head."""

    method: str
    path: str
    fields: tuple[Field, ...]
    address: str
    known: bool = True
    shared: tuple[Field, ...] = ()


class Site:
    """Reads heads, and says who may go on."""

    def __init__(self) -> None:
        self.read_heads = 0
        self.refuses = False

    def read(self, method: str, path: str, fields: list[Field], address: str) -> Passed | Answer:
        self.read_heads += 1
        return problem(400, "never") if path == "/never" else Passed(method, path, tuple(fields), address)

    def admit(self, head: Passed) -> Passed | Answer:
        if self.refuses or head.path == "/refused":
            return problem(401, "refused")
        return head._replace(known=head.path != "/unknown")


def reader(site: Site, heads: Heads[Known], address: str = "there") -> RequestReader:
    return RequestReader(address, heads, site.read, site.admit, LIMIT, lambda request: None)


def requests(heads: Heads[Known], chunks: list[bytes]) -> list[Any]:
    """Everything that a reader makes of these chunks."""
    reading = reader(Site(), heads)
    for chunk in chunks:
        reading.feed(chunk)
    made: list[Any] = [
        (one.method, one.intake, b"".join(one.body), one.size, one.close, one.is_old) for one in reading.ready
    ]
    rest = reading.request
    pending = None if rest is None else (rest.method, rest.intake, b"".join(rest.body), reading.in_head)
    return [*made, reading.refusal, pending, None if (doubt := reading.doubtful()) is None else doubt.url]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


STREAMS = st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5).map(b"".join)
PLACES = st.lists(st.integers(0, 2000), max_size=4)
EDITS = st.lists(
    st.tuples(st.integers(0, 2000), st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b":", b"\0"])), max_size=3
)


def edited(data: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    """With some bytes replaced."""
    for place, piece in edits:
        place %= len(data) + 1
        data = data[:place] + piece + data[place + 1 :]
    return data


@given(taught=STREAMS, stream=STREAMS, edits=EDITS, places=PLACES, same=st.booleans())
@settings(max_examples=400, deadline=None)
def test_requests_are_the_same_whether_or_not_heads_like_theirs_were_read_before(
    taught: bytes, stream: bytes, edits: list[tuple[int, bytes]], places: list[int], same: bool
) -> None:
    stream = edited(stream, edits)
    heads: Heads[Known] = Heads()
    for lesson in [stream if same else edited(taught, edits), *REQUESTS]:
        for _ in range(3):
            requests(heads, [lesson])
    for chunks in ([stream], cut(stream, places)):
        assert requests(heads, chunks) == requests(Forgetful(), chunks)


def test_a_head_is_read_twice_and_never_again() -> None:
    site, heads = Site(), Heads[Known]()
    reading = reader(site, heads)
    for _ in range(2):
        reading.feed(CALL)
    for _ in range(4):
        reading.feed(CALL + CALL)
    assert (site.read_heads, len(reading.ready)) == (2, 10)
    assert {(one.method, b"".join(one.body), one.intake.path) for one in reading.ready} == {(b"POST", b"hello", "/mcp")}
    reader(site, heads, "elsewhere").feed(CALL)
    assert site.read_heads == 3  # where it comes from is a part of it


@pytest.mark.parametrize("before", [REQUESTS[7], REQUESTS[11], CALL[:60], CALL[:-1], b"\r\n", b"x"])
def test_a_known_head_is_one_only_where_a_request_may_begin(before: bytes) -> None:
    heads: Heads[Known] = Heads()
    for _ in range(3):
        requests(heads, [CALL])
    assert requests(heads, [before, CALL, CALL]) == requests(Forgetful(), [before, CALL, CALL])


def test_empty_lines_between_requests_add_up_to_no_long_head() -> None:
    reading = reader(Site(), Heads())
    for _ in range(40_000):
        reading.feed(b"\r\n")
        reading.feed(CALL)
        reading.ready.clear()
    assert reading.refusal is None


def test_who_may_go_on_is_asked_for_every_request() -> None:
    site = Site()
    reading = reader(site, Heads())
    for _ in range(3):
        reading.feed(CALL)
    site.refuses = True
    reading.feed(CALL)
    assert [isinstance(one.intake, Answer) for one in reading.ready] == [False, False, False, True]


def test_heads_of_strangers_and_heads_that_are_always_new_are_not_kept() -> None:
    heads = Heads[Known]()
    for path in (b"/unknown", b"/refused", b"/never"):
        for _ in range(3):
            requests(heads, [CALL.replace(b"/mcp", path)])
    for number in range(10_000):
        requests(heads, [CALL.replace(b"echo", b"%d" % number)])
    for _ in range(3):
        requests(heads, [CALL.replace(b"echo", b"x" * 5000)])
    assert heads._known == {}
    assert len(heads._seen) <= 4096
    for number in range(300):
        requests(heads, [CALL.replace(b"echo", b"%d" % number)] * 2)
    assert 0 < len(heads._known) <= 256


@pytest.mark.parametrize(
    ("head", "fields", "whole"),
    [
        (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", 1, True),
        (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", 2, False),
        (b"GET / HTTP/1.1\r\n\r\n", 0, True),
        (b"GET / HTTP/1.1\nA: b\r\n\r\n", 1, False),
        (b"GET / HTTP/1.1\r\nA: b\n\r\n\r\n", 1, False),
        (b"GET / HTTP/1.1\r\nA: \rb\r\n\r\n", 1, False),
        (b"\r\n\r\n", 0, False),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", 1, False),
        (b"GET", 0, False),
        (b"", 0, False),
    ],
)
def test_what_is_one_head_for_every_parser(head: bytes, fields: int, whole: bool) -> None:
    assert is_whole(head, fields) is whole


# -- answers -----------------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
ANSWERS = [
    OK,
    OK.replace(b"{}", b"[]"),
    OK.replace(b"200 OK", b"404 Not Found"),
    OK.replace(b"200 OK", b"204 No Content"),
    OK.replace(b"Length: 2", b"Length: 0").replace(b"{}", b""),
    OK.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked").replace(b"{}", b"2\r\n{}\r\n0\r\n\r\n"),
    OK.replace(b"Content-Length: 2", b"X: y"),
    OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    OK.replace(b"\r\n\r\n", b"\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    OK.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\n\r\n"),
    OK.replace(b"\r\n", b"\n"),
    OK.replace(b"json\r\n", b"json\n"),
    OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"\r\n" + OK,
    b"\r\n\r\n" + OK,
    b"\r\n\r\n{}",
    OK + b"HTTP/1.1 200 OK\r\n",
    OK[:-1],
]


class Heard(Request):
    """A request that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.body = b""

    def head(self, status: int, fields: dict[bytes, bytes]) -> None:
        self.told.append((status, fields))

    def data(self, chunk: bytes) -> None:
        self.body += chunk

    def end(self) -> None:
        self.told.append("end")

    def broken(self, why: str) -> None:
        self.told.append(why)


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self, owned: socket.socket) -> None:
        self._socket = owned
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> socket.socket:
        return self._socket

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = abort


class Shelf:
    """A pool of one connection."""

    def __init__(self, heads: Heads[KnownAnswer]) -> None:
        self.buffer = memoryview(bytearray(65536))
        self.heads = heads
        self.released = 0

    def opened(self, connection: ClientConnection) -> None:
        pass

    def lost(self, connection: ClientConnection) -> None:
        pass

    def release(self, connection: ClientConnection) -> None:
        self.released += 1


@contextmanager
def connected(heads: Heads[KnownAnswer]) -> Iterator[tuple[Shelf, Wire, ClientConnection, Callable[[bytes], None]]]:
    with socket.socket() as owned:
        shelf, wire = Shelf(heads), Wire(owned)
        connection = ClientConnection(shelf)
        connection.connection_made(wire)

        def say(data: bytes) -> None:
            if not wire.closed:
                shelf.buffer[: len(data)] = data
                connection.buffer_updated(len(data))

        yield shelf, wire, connection, say


def answers(heads: Heads[KnownAnswer], conversation: list[list[bytes]]) -> list[Any]:
    """All that requests are told, one after the other on one connection, each answered with such chunks."""
    told: list[Any] = []
    with connected(heads) as (shelf, wire, connection, say):
        for chunks in conversation:
            request = Heard()
            before = shelf.released
            connection.start(b"", request)
            for chunk in chunks:
                say(chunk)
            told.append((request.told, request.body, request.over, shelf.released - before, wire.closed))
            if shelf.released == before:
                break
    return told


@given(
    taught=st.lists(st.sampled_from(ANSWERS), max_size=4),
    said=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4),
    edits=EDITS,
    places=PLACES,
)
@settings(max_examples=400, deadline=None)
def test_answers_are_the_same_whether_or_not_heads_like_theirs_were_read_before(
    taught: list[bytes], said: list[bytes], edits: list[tuple[int, bytes]], places: list[int]
) -> None:
    said = [edited(one, edits) for one in said]
    heads: Heads[KnownAnswer] = Heads()
    for lesson in [*ANSWERS, *taught, *said]:
        for _ in range(3):
            answers(heads, [[lesson]])
    for conversation in ([[one] for one in said], [cut(one, places) for one in said]):
        assert answers(heads, conversation) == answers(Forgetful(), conversation)


@pytest.mark.parametrize("before", [OK[:17], OK[:30], OK[:-1], b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n", b"x"])
def test_a_known_head_is_one_only_where_an_answer_may_begin(before: bytes) -> None:
    heads: Heads[KnownAnswer] = Heads()
    for _ in range(3):
        answers(heads, [[OK]])
    assert answers(heads, [[before, OK], [OK]]) == answers(Forgetful(), [[before, OK], [OK]])


def test_an_answer_with_a_known_head_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: Heads[KnownAnswer] = Heads()
    before = [answers(heads, [[OK]]) for _ in range(2)]

    class Blind:
        """A parser that finds nothing."""

        def __init__(self, protocol: object) -> None:
            pass

        def feed_data(self, data: bytes) -> None:
            raise AssertionError("parsed")

    monkeypatch.setattr(httptools, "HttpResponseParser", Blind)
    assert answers(heads, [[OK]]) == before[0] == before[1]


def test_heads_are_compared_as_a_whole() -> None:
    """Neither a hash nor a beginning is enough."""
    heads, chance = Heads[int](), random.Random(7)
    keys = [("a", bytes(chance.choices(b"ab", k=8))) for _ in range(400)]
    for _ in range(2):
        for number, key in enumerate(keys):
            heads.learn(key, number)
    kept = [(key, heads.get(key)) for key in keys if heads.get(key) is not None]
    assert kept
    assert all(number is not None and keys[number] == key for key, number in kept)
    assert heads.get(("b", keys[-1][1])) is None
