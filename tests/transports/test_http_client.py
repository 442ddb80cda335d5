"""The HTTP client against servers that answer as they should, and as they should not."""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from intercept_py.errors import InterceptError
from intercept_py.transports import http_client
from intercept_py.transports.client_connection import Request
from intercept_py.transports.http_client import HttpClient
from tests.support.raw_http import Answering, RawServer, Seen, certificates, json_answer

pytestmark = pytest.mark.anyio
OK = json_answer(b"{}")


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops, which treat a connection's end and its buffers differently."""
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Call(Request):
    """A request whose answer can be awaited: status, fields and body. `parts`: what has come of the body."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.begun = asyncio.Event()
        self.came = asyncio.Event()
        self._result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def head(self, status: int, fields: dict[bytes, bytes]) -> None:
        self.status, self.fields = status, fields
        self.begun.set()

    def data(self, chunk: bytes) -> None:
        self.parts.append(chunk)
        self.came.set()

    def end(self) -> None:
        self._result.set_result(b"".join(self.parts))

    def broken(self, why: str) -> None:
        self._result.set_exception(ConnectionError(why))

    async def result(self) -> bytes:
        async with asyncio.timeout(20):
            return await self._result

    async def failure(self) -> str:
        with pytest.raises(ConnectionError) as caught:
            await self.result()
        return str(caught.value)


def post(client: HttpClient, body: bytes = b"{}", fields: bytes = b"") -> Call:
    call = Call()
    client.send("POST", fields, body, call)
    return call


def always(answer: bytes, *, close: bool = False) -> Answering:
    async def write(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        if close:
            writer.close()

    return write


# ---- answers as they should be


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (OK, b"{}", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nContent-Type: x\r\n\r\n", b"a", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Type: x\r\n\r\n" + OK, b"{}", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", b"a", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", b"a", False),
    ],
)
async def test_answers_are_read_and_connections_kept(answer: bytes, body: bytes, kept: bool) -> None:
    async with RawServer(always(answer)) as server:
        client = HttpClient(server.url)
        for _ in range(3):
            assert await post(client).result() == body
        assert server.connections == (1 if kept else 3)
        await client.close()


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with RawServer(always(b"HTTP/1.1 200 OK\r\n\r\nabc", close=True)) as server:
        client = HttpClient(server.url)
        assert await post(client).result() == b"abc"
        await client.close()


async def test_a_request_has_these_fields_and_no_others() -> None:
    async with RawServer(always(OK)) as server:
        client = HttpClient(f"{server.url}?a=b", fields=[(b"Authorization", b"Bearer x")])
        await post(client, b"[1]", b"Mcp-Method: ping\r\n").result()
        call = Call()
        client.send("GET", b"", None, call)
        await call.result()
        host = server.url.split("/")[2]
        fixed = [("host", host), ("authorization", "Bearer x"), ("user-agent", "intercept-py")]
        first = Seen("POST", "/mcp?a=b", [*fixed, ("mcp-method", "ping"), ("content-length", "3")], b"[1]")
        assert server.seen == [first, Seen("GET", "/mcp?a=b", fixed, b"")]
        await client.close()


async def test_the_parts_of_an_answer_come_when_they_come() -> None:
    go_on = asyncio.Event()

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await go_on.wait()
        go_on.clear()
        writer.write(b"1\r\na\r\n")
        await go_on.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")

    async with RawServer(answer) as server, asyncio.timeout(20):
        client = HttpClient(server.url)
        call = post(client)
        await call.begun.wait()
        assert call.parts == []
        go_on.set()
        await call.came.wait()
        assert call.parts == [b"a"]
        go_on.set()
        assert await call.result() == b"ab"
        await client.close()


async def test_long_bodies_pass_in_both_directions() -> None:
    body = b"x" * 10_000_000
    async with RawServer(always(json_answer(body))) as server:
        client = HttpClient(server.url)
        assert await post(client, body).result() == body
        assert server.seen[0].body == body
        await client.close()


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    together = asyncio.Barrier(50)

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await together.wait()
        writer.write(json_answer(seen.body))

    async with RawServer(answer) as server:
        client = HttpClient(server.url)
        for _ in range(2):
            calls = [post(client, str(number).encode()) for number in range(50)]
            assert [await call.result() for call in calls] == [str(number).encode() for number in range(50)]
        assert server.connections == 50
        await client.close()


async def test_there_are_no_more_connections_than_allowed() -> None:
    release = asyncio.Event()

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(OK)

    async with RawServer(answer) as server:
        client = HttpClient(server.url, most=2)
        held = [post(client), post(client)]
        assert await post(client).failure() == "all 2 connections to the server are in use"
        release.set()
        assert [await call.result() for call in held] == [b"{}", b"{}"]
        assert await post(client).result() == b"{}"
        await client.close()


# ---- when a request may be sent


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    async with RawServer(always(OK, close=True)) as server:
        client = HttpClient(server.url)
        for _ in range(20):
            assert await post(client).result() == b"{}"
        assert len(server.seen) == 20
        await client.close()


async def test_what_nobody_asked_for_is_never_taken_for_an_answer() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(json_answer(seen.body) + json_answer(b'"a second answer"'))

    async with RawServer(answer) as server:
        client = HttpClient(server.url)
        for number in range(10):
            assert await post(client, str(number).encode()).result() == str(number).encode()
        assert server.connections == 10
        await client.close()


async def test_a_connection_that_is_not_used_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_IDLE", 0.1)
    async with RawServer(always(OK)) as server, asyncio.timeout(20):
        client = HttpClient(server.url)
        await post(client).result()
        await server.closed.wait()
        await client.close()


async def test_only_what_was_not_used_between_two_looks_is_closed() -> None:
    async with RawServer(always(OK)) as server, asyncio.timeout(20):
        client = HttpClient(server.url)
        for _ in range(5):
            await post(client).result()
            client._close_unused()
        assert server.connections == 1
        both = [post(client), post(client)]
        for one in both:
            await one.result()
        client._close_unused()
        await post(client).result()  # on one of the two
        client._close_unused()
        await server.closed.wait()
        assert len(client._idle) == 1
        assert server.connections == 2
        await client.close()


async def test_what_comes_on_an_idle_connection_ends_it() -> None:
    writers: list[asyncio.StreamWriter] = []

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(json_answer(seen.body))

    async with RawServer(answer) as server, asyncio.timeout(20):
        client = HttpClient(server.url)
        await post(client, b"1").result()
        writers[0].write(json_answer(b'"unasked"'))
        assert await post(client, b"2").result() == b"2"
        await server.closed.wait()
        assert server.connections == 2
        await client.close()


async def test_a_request_that_was_written_is_not_sent_again() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if len(server.seen) == 2:
            writer.close()  # the client's connection was open when it sent this
        else:
            writer.write(OK)

    async with RawServer(answer) as server:
        client = HttpClient(server.url)
        await post(client).result()
        assert await post(client).failure() == (
            "the server closed the connection without an answer; it may have acted on the request"
        )
        assert len(server.seen) == 2
        await client.close()


async def test_an_answer_before_the_request_was_read_ends_the_connection() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    for _ in range(2):
        call = post(client, b"x" * 20_000_000)
        await call.result()
        assert call.status == 413
    assert len(connections) == 2
    await client.close()
    server.close()
    for writer in connections:
        writer.transport.abort()
    await server.wait_closed()


# ---- answers as they should not be


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (CHUNKED + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: identity\r\n\r\nabc", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "the length of the server's answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "the length of the server's answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc", ""),
        (b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", ""),
        (CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n", ""),
        (CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n", "the server's answer has two `con"),
        (b"HTTP/1.1 200 OK\r\nMcp-Session-Id: a\r\nmcp-session-id: b\r\n\r\n", "the server's answer has two `mcp"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "the server's answer is not HTTP as it should be"),
        (b"\x15\x03\x03\x00\x02\x02\x16", "the server's answer is not HTTP as it should be"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc", "the server wants to speak"),
        (b"HTTP/1.1 103 Hints\r\n\r\n" * 17, "the server promises an answer and never gives it"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "the head of the server's answer is longer than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300, "the server's answer has more than 256 header fields"),
        (CHUNKED + b"\r\n0\r\nX: " + b"x" * 200_000, "the head of the server's answer is longer than 65536 bytes"),
        (CHUNKED + b"\r\n0\r\n" + b"X: y\r\n" * 300, "the server's answer has more than 256 header fields"),
        (CHUNKED + b"\r\n1;" + b"x" * 200_000, "the head of the server's answer is longer than 65536 bytes"),
    ],
)  # fmt: skip
async def test_an_answer_that_cannot_be_trusted_is_none_and_its_connection_is_not_used_again(
    answer: bytes, why: str
) -> None:
    async with RawServer(always(answer)) as server:
        client = HttpClient(server.url)
        for _ in range(2):
            assert (await post(client).failure()).startswith(why)
        assert server.connections == 2
        await client.close()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", CHUNKED + b"\r\n5\r\nabc", CHUNKED + b"\r\n3\r\nabc\r\n"],
)
async def test_an_answer_that_is_cut_off_is_none(answer: bytes) -> None:
    async with RawServer(always(answer, close=True)) as server:
        client = HttpClient(server.url)
        assert await post(client).failure() == "the server closed the connection in the middle of its answer"
        await client.close()


async def test_whatever_a_server_sends_a_request_has_one_end() -> None:
    random = Random(5)
    models = [
        OK,
        CHUNKED + b"Content-Type: text/event-stream\r\n\r\n6\r\ndata: \r\n3;a=b\r\n{}\n\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + OK,
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n",
    ]

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        data = bytearray(random.choice(models))
        for _ in range(random.randrange(4)):
            at = random.randrange(len(data) + 1)
            data[at : at + random.randrange(3)] = random.choice([b"", b"\0", b"\r\n", b"\n", b":", b"0", b"f", b"\xff"])
        while data:
            size = random.randrange(1, len(data) + 1)
            writer.write(bytes(data[:size]))
            await writer.drain()
            del data[:size]
        writer.close()

    answers, failures = 0, list[str]()
    async with RawServer(answer) as server:
        client = HttpClient(server.url)
        for _ in range(1000):
            try:
                await post(client).result()
                answers += 1
            except ConnectionError as exc:
                failures.append(str(exc))
        await client.close()
    assert min(answers, len(failures)) > 100
    assert all(map(str.isprintable, failures))


# ---- no connection


async def test_where_nothing_listens_there_is_no_answer() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    client = HttpClient(f"http://127.0.0.1:{port}/secret-path")
    assert await post(client).failure() == "the server cannot be reached: nothing listens at its address"
    await client.close()


async def test_a_name_that_is_not_known_says_so() -> None:
    client = HttpClient("http://name.invalid/mcp")
    assert await post(client).failure() == "the server cannot be reached: its name is not known"
    await client.close()


async def test_a_server_that_does_not_shake_hands_is_not_waited_for_long(tmp_path: Path) -> None:
    async with RawServer(always(OK)) as server:
        client = HttpClient(server.url.replace("http:", "https:"), patience=0.2)
        assert await post(client).failure() == "the server cannot be reached within 0.2 s"
        await client.close()


async def test_a_server_that_does_not_speak_tls_says_so() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    client = HttpClient(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert await post(client).failure() == "the server cannot be reached: it does not speak TLS as it should"
    await client.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("host", "trusted", "why"),
    [
        ("127.0.0.1", True, None),
        ("127.0.0.1", False, "unable to get local issuer certificate"),
        ("127.0.0.2", True, "IP address mismatch, certificate is not valid for '127.0.0.1'."),
    ],
)
async def test_certificates_are_verified(tmp_path: Path, host: str, trusted: bool, why: str | None) -> None:
    authority, context = certificates(tmp_path, host)
    async with RawServer(always(OK), context) as server:
        ours = ssl.create_default_context(cafile=str(authority)) if trusted else None
        client = HttpClient(server.url, context=ours)
        if why is None:
            for _ in range(3):
                assert await post(client, b"x" * 1_000_000).result() == b"{}"
            assert server.connections == 1
        else:
            assert await post(client).failure() == f"the server's certificate is not trusted: {why}"
            assert server.seen == []
        await client.close()


# ---- ends


async def test_the_server_sees_that_a_request_is_given_up() -> None:
    got = asyncio.Event()

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"\r\n1\r\na\r\n")
        got.set()

    async with RawServer(answer) as server, asyncio.timeout(20):
        client = HttpClient(server.url)
        call = post(client)
        await got.wait()
        await call.came.wait()
        call.abort()
        await server.closed.wait()
        await client.close()


async def test_a_request_that_is_given_up_before_there_is_a_connection_is_not_sent() -> None:
    async with RawServer(always(OK)) as server:
        client = HttpClient(server.url)
        post(client, b"1").abort()
        assert await post(client, b"2").result() == b"{}"
        assert [seen.body for seen in server.seen] == [b"2"]
        await client.close()


async def test_giving_up_an_answered_request_does_not_touch_the_next_one() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.body == b"2":
            await asyncio.wait_for(go_on.wait(), 20)
        writer.write(OK)

    go_on = asyncio.Event()
    async with RawServer(answer) as server:
        client = HttpClient(server.url)
        first = post(client, b"1")
        await first.result()
        second = post(client, b"2")
        first.abort()
        go_on.set()
        assert await second.result() == b"{}"
        assert server.connections == 1
        await client.close()


@pytest.mark.parametrize("when", ["connecting", "waiting"])
async def test_closing_the_client_tells_whoever_waits(when: str) -> None:
    got = asyncio.Event()

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        got.set()
        await asyncio.sleep(60)

    async with RawServer(answer) as server, asyncio.timeout(20):
        client = HttpClient(server.url)
        call = post(client)
        if when == "waiting":
            await got.wait()
        await client.close()
        assert await call.failure() == "the proxy is shutting down"


# ---- credentials


class Tokens:
    """Credentials that change when they are refused."""

    def __init__(self, given: Callable[[int], str]) -> None:
        self.number = 1
        self._given = given

    async def authorization(self) -> str:
        await asyncio.sleep(0)
        return self._given(self.number)

    def refused(self, authorization: str) -> None:
        assert authorization == self._given(self.number)
        self.number += 1


async def test_credentials_are_asked_for_every_request_and_told_when_they_are_refused() -> None:
    async with RawServer(always(OK)) as server:
        client = HttpClient(server.url, credentials=Tokens(lambda number: f"Bearer t{number}"))
        call = post(client)
        await call.result()
        client.refused(call)
        await post(client).result()
        assert [seen.field("authorization") for seen in server.seen] == ["Bearer t1", "Bearer t2"]
        await client.close()


async def test_without_credentials_nothing_is_sent() -> None:
    def none(number: int) -> str:
        raise InterceptError("the issuer https://issuer.example said hunter2")

    async with RawServer(always(OK)) as server:
        client = HttpClient(server.url, credentials=Tokens(none))
        assert await post(client).failure() == "the proxy has no credentials for the server"
        assert server.connections == 0
        await client.close()
