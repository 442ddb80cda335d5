"""Links over HTTP: against servers on the official SDK, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest

from intercept_py.log import Log
from intercept_py.model import JsonObject, Tool
from intercept_py.transports.conversation import Event
from intercept_py.transports.http_client import HttpClient
from intercept_py.transports.http_link import HttpLink, Remote
from intercept_py.wire.catalogue import Catalogue
from intercept_py.wire.commands import ToUpstream
from intercept_py.wire.messages import Arrival
from tests.support.raw_http import Answering, RawServer, Seen, json_answer
from tests.support.sdk_process import sdk_server
from tests.support.told import Told, asks, notifies

pytestmark = pytest.mark.anyio
LIMIT = 1024 * 1024
CLIENT = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


class Talk:
    """A link and what it tells."""

    def __init__(self, url: str, schemas: dict[str, JsonObject], limit: int, alone: bool, version: str | None) -> None:
        self.client = HttpClient(url)
        self.told = Told()
        self.read, write = os.pipe()
        self._log = write
        known = Catalogue()
        known.replace(Tool(name, schema) for name, schema in schemas.items())
        self._make = partial(HttpLink, Remote(self.client, limit, Log("debug", write)), self.told, known)
        self.link = self._make(version, alone)

    def another(self) -> HttpLink:
        """A link that shares the connections of the first one."""
        return self._make()

    def ask(self, ticket: int, method: str, *, modern: bool = True, **params: Any) -> None:
        self.link.send([asks(ticket, method, modern=modern, **params)])

    def notify(self, method: str, **params: Any) -> None:
        self.link.send([notifies(method, **params)])

    async def begin(self) -> None:
        """The handshake of the legacy eras."""
        self.ask(1, "initialize", modern=False, **CLIENT)
        assert "result" in (await self.told.answer(1))[-1]
        self.notify("notifications/initialized")

    def logged(self) -> str:
        """What has been logged. Nothing more is."""
        os.close(self._log)
        self._log = -1
        with open(self.read, encoding="utf-8") as file:
            self.read = -1
            return file.read()

    async def close(self) -> None:
        await self.link.close()
        await self.client.close()
        for fd in (self.read, self._log):
            if fd >= 0:
                os.close(fd)


@asynccontextmanager
async def talk(
    url: str,
    schemas: dict[str, JsonObject] | None = None,
    *,
    limit: int = LIMIT,
    alone: bool = False,
    version: str | None = None,
) -> AsyncIterator[Talk]:
    made = Talk(url, schemas or {}, limit, alone, version)
    try:
        yield made
    finally:
        await made.close()


# ---- with servers on the SDK


async def test_modern_requests_are_answered_by_a_server_of_the_sdk() -> None:
    async with sdk_server("everything_server", "http") as url, talk(url) as it:
        it.ask(1, "server/discover")
        assert "2026-07-28" in (await it.told.message(1))["result"]["supportedVersions"]
        it.ask(2, "tools/call", name="test_simple_text", arguments={})
        assert (await it.told.message(2))["result"]["content"][0]["type"] == "text"
        it.ask(3, "resources/read", uri="test://static-text")
        assert (await it.told.message(3))["result"]["contents"][0]["uri"] == "test://static-text"
        assert not it.link.session


async def test_progress_comes_before_the_answer_on_an_event_stream() -> None:
    async with sdk_server("sdk_server", "http") as url, talk(url) as it:
        it.ask(5, "tools/call", name="count", arguments={"steps": 3}, _meta={"progressToken": 5})
        assert await it.told.next() == ("opened", 5)
        messages: list[Any] = []
        while len(messages) < 4:
            _, more, stream, _ = await it.told.next()
            assert stream == 5
            messages += more
        assert [message["params"]["progress"] for message in messages[:3]] == [1, 2, 3]
        assert messages[3]["id"] == 5


async def test_a_modern_cancellation_ends_the_request_at_the_server() -> None:
    async with sdk_server("sdk_server", "http") as url, talk(url) as it:
        it.ask(1, "tools/call", name="hang", arguments={"name": "a"})
        it.ask(2, "tools/call", name="await_hanging", arguments={"name": "a"})
        assert (await it.told.message(2))["result"]["content"][0]["text"] == "hanging"
        it.notify("notifications/cancelled", requestId=1, reason="test")
        assert await it.told.next() == ("failed", 1, "the request was cancelled")
        it.ask(3, "tools/call", name="await_cancelled", arguments={"name": "a"})
        assert (await it.told.message(3))["result"]["content"][0]["text"] == "cancelled"


async def test_a_legacy_session_is_begun_and_used() -> None:
    async with sdk_server("everything_server", "http") as url, talk(url) as it:
        await it.begin()
        assert it.link.session
        it.ask(2, "tools/call", modern=False, name="test_simple_text", arguments={})
        _, _, stream, event = await it.told.news()
        assert stream == 2
        assert isinstance(event, Event)  # this server's events have ids
        it.ask(3, "tools/list", modern=False)
        assert "tools" in (await it.told.answer(3))[-1]["result"]


async def test_a_server_of_the_sdk_may_ask_its_legacy_client_in_the_middle_of_a_call() -> None:
    async with sdk_server("sdk_server", "http") as url, talk(url) as it:
        it.ask(1, "initialize", modern=False, **{**CLIENT, "capabilities": {"elicitation": {}}})
        await it.told.answer(1)
        it.notify("notifications/initialized")
        it.ask(2, "tools/call", modern=False, name="greet", arguments={})
        _, (question,), stream, _ = await it.told.news()
        assert (question["method"], stream) == ("elicitation/create", 2)
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
        it.link.send([ToUpstream(json.dumps(answer).encode())])
        assert (await it.told.answer(2))[-1]["result"]["content"][0]["text"] == "hello Ada"


async def test_a_server_of_the_sdk_gives_a_session_one_stream_at_a_time_to_listen_to() -> None:
    async with sdk_server("everything_server", "http") as url, talk(url) as it:
        await it.begin()
        it.link.listen(-7, None)
        assert await it.told.next() == ("opened", -7)
        it.link.listen(-8, None)
        assert (await it.told.news())[:3] == ("status", -8, 409)
        it.link.unlisten(-7)
        while True:  # until the server has noticed
            it.link.listen(-9, None)
            if await it.told.next() == ("opened", -9):
                return


@pytest.mark.parametrize("alone", [True, False])
async def test_a_stream_that_a_server_of_the_sdk_cuts_off_is_resumed(alone: bool) -> None:
    async with sdk_server("everything_server", "http") as url, talk(url, alone=alone) as it:
        await it.begin()
        # Sometimes this server cuts a stream off before the event from which it could be resumed.
        for ticket in range(2, 200):
            it.ask(ticket, "tools/call", modern=False, name="test_reconnection", arguments={})
            if await _resumed(it, ticket, alone):
                return
    raise AssertionError


async def _resumed(it: Talk, ticket: int, alone: bool) -> bool:
    last: str | None = None
    while True:
        told = await it.told.next()
        if told[:2] == ("failed", ticket):
            return False
        if told[0] == "messages" and told[3] is not None:
            last = told[3].id or last
        if told == ("ended", ticket):
            assert not alone
            it.link.listen(-ticket, last)
        if told[0] == "messages" and told[1] and told[1][-1].get("id") == ticket:
            assert told[2] == (ticket if alone else -ticket)
            return True


# ---- what is sent


def answering(result: str = "{}") -> Answering:
    """Every request is answered with this result, everything else accepted."""

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        message = json.loads(seen.body) if seen.body else {}
        if "id" in message and "method" in message:
            writer.write(json_answer(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message["id"], result.encode())))
        else:
            writer.write(json_answer(b"", status="202 Accepted"))

    return answer


async def test_a_modern_call_has_the_fields_that_repeat_it() -> None:
    schema = {"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    async with RawServer(answering()) as server, talk(server.url, {"t": schema}) as it:
        it.ask(1, "tools/call", name="t", arguments={"region": "K\u00f6ln"})
        await it.told.message(1)
        (seen,) = server.seen
        names = [name for name, _ in seen.fields]
        assert names == [
            "host", "user-agent", "content-type", "accept", "mcp-protocol-version", "mcp-method", "mcp-name",
            "mcp-param-region", "content-length",
        ]  # fmt: skip
        assert seen.field("content-type") == "application/json"
        assert seen.field("accept") == "application/json, text/event-stream"
        assert seen.field("mcp-param-region") == "=?base64?S8O2bG4=?="


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("state", [None, "rojo=1"])
async def test_the_trace_context_of_a_message_goes_on_as_it_came(state: str | None, modern: bool) -> None:
    traced = msgspec.structs.replace(asks(1, "tools/call", modern=modern, name="t"), arrival=Arrival(PARENT, state))
    async with RawServer(answering()) as server, talk(server.url, version=None if modern else "2025-06-18") as it:
        it.link.send([traced, asks(2, "tools/call", modern=modern, name="t")])
        await it.told.message(1)
        await it.told.message(2)
        first, second = sorted(server.seen, key=lambda seen: seen.body)
        assert trace(first) == (PARENT, state)
        assert trace(second) == (None, None)


async def test_the_trace_context_of_a_notification_goes_on_as_it_came() -> None:
    traced = msgspec.structs.replace(notifies("notifications/roots/list_changed"), arrival=Arrival(PARENT, "rojo=1"))
    async with RawServer(answering()) as server, talk(server.url, version="2025-06-18") as it:
        it.link.send([traced])
        await _until(lambda: bool(server.seen))
        assert trace(server.seen[0]) == (PARENT, "rojo=1")


def trace(seen: Seen) -> tuple[str | None, str | None]:
    return seen.field("traceparent"), seen.field("tracestate")


HANDSHAKE = '{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"s","version":"1"}}'


def handshake(rest: Answering, session: str | None = "s-1") -> Answering:
    """Answers `initialize`, leaves everything else to `rest`."""

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if b'"initialize"' not in seen.body:
            await rest(seen, writer)
            return
        more = [] if session is None else [f"Mcp-Session-Id: {session}"]
        writer.write(json_answer(b'{"jsonrpc":"2.0","id":1,"result":%b}' % HANDSHAKE.encode(), *more))

    return answer


async def test_a_legacy_session_names_itself_and_its_version_after_the_handshake_only() -> None:
    async with RawServer(handshake(answering())) as server:
        async with talk(server.url) as it:
            await it.begin()
            it.ask(2, "tools/call", modern=False, name="t")
            await it.told.message(2)
        marks = [
            (seen.method, seen.field("mcp-session-id"), seen.field("mcp-protocol-version")) for seen in server.seen
        ]
        agreed = ("s-1", "2025-06-18")
        assert marks == [("POST", None, None), ("POST", *agreed), ("POST", *agreed), ("DELETE", *agreed)]
        assert all(seen.field("mcp-method") is None for seen in server.seen)


async def test_what_is_sent_at_once_arrives_in_order() -> None:
    """A client that does not wait for the handshake is served, and no answer overtakes a notification."""
    async with RawServer(handshake(answering())) as server, talk(server.url) as it:
        batch = [asks(1, "initialize", modern=False, **CLIENT), notifies("notifications/initialized")]
        batch += [asks(2, "tools/list", modern=False), notifies("notifications/roots/list_changed")]
        it.link.send(batch)
        assert batch == []
        for ticket in (1, 2):
            await it.told.message(ticket)
        it.ask(3, "ping", modern=False)
        await it.told.message(3)
        sent = [json.loads(seen.body)["method"] for seen in server.seen]
        assert sent == [
            "initialize", "notifications/initialized", "tools/list", "notifications/roots/list_changed", "ping",
        ]  # fmt: skip


async def test_a_legacy_client_without_a_session_names_its_version() -> None:
    async with RawServer(answering()) as server, talk(server.url, version="2025-03-26") as it:
        it.ask(1, "tools/list", modern=False)
        await it.told.message(1)
        it.notify("notifications/cancelled", requestId=9)
        await _until(lambda: len(server.seen) == 2)
        assert [seen.field("mcp-protocol-version") for seen in server.seen] == ["2025-03-26"] * 2


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


async def test_a_modern_client_has_no_notifications_to_send() -> None:
    async with RawServer(answering()) as server, talk(server.url) as it:
        it.notify("notifications/roots/list_changed")
        it.notify("notifications/cancelled", requestId=9)
        it.ask(1, "tools/list")
        await it.told.message(1)
        assert len(server.seen) == 1


async def test_a_legacy_cancellation_is_told_and_the_answer_still_taken() -> None:
    go_on = asyncio.Event()

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if b"tools/call" in seen.body:
            await go_on.wait()
        elif b"cancelled" in seen.body:
            go_on.set()
        await answering()(seen, writer)

    async with RawServer(handshake(answer)) as server, talk(server.url) as it:
        await it.begin()
        it.ask(2, "tools/call", modern=False, name="t")
        await _until(lambda: len(server.seen) == 3)
        it.notify("notifications/cancelled", requestId=2)
        assert (await it.told.message(2))["id"] == 2
        assert json.loads(server.seen[3].body)["params"] == {"requestId": 2}


async def test_leaving_ends_what_is_not_answered() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)

    async with RawServer(answer) as server, talk(server.url) as it, asyncio.timeout(20):
        it.ask(1, "subscriptions/listen")
        assert await it.told.next() == ("opened", 1)
        it.link.leave()
        await server.closed.wait()
        assert it.told.now.empty()


async def test_leaving_lets_an_answered_stream_end_so_that_its_connection_is_used_again() -> None:
    left = asyncio.Event()

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        ticket = json.loads(seen.body)["id"]
        writer.write(STREAM + chunk(b'data: {"jsonrpc":"2.0","id":%d,"result":{}}\n\n' % ticket))
        await left.wait()
        left.clear()
        writer.write(b"0\r\n\r\n")

    async with RawServer(answer) as server, talk(server.url) as it:
        for ticket in range(20):
            it.ask(ticket, "tools/list")
            await it.told.message(ticket)
            it.link.leave()
            left.set()
            it.link = it.another()
        assert server.connections < 10


async def test_a_stream_that_goes_on_after_the_answer_is_ended() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b"data: " + ANSWER + b"\n\n"))

    async with RawServer(answer) as server, talk(server.url) as it, asyncio.timeout(20):
        it.ask(1, "tools/list")
        await it.told.message(1)
        await server.closed.wait()
        assert it.told.now.empty()


async def test_a_session_that_the_server_does_not_know_any_more_is_over() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        unknown = b"tools/call" in seen.body or b"roots" in seen.body
        error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}'
        await (always(json_answer(error, status="404 Not Found")) if unknown else answering())(seen, writer)

    gone = ("gone", "the server does not know the session any more: begin a new one")
    async with RawServer(handshake(answer)) as server:
        async with talk(server.url) as it:
            await it.begin()
            it.ask(2, "tools/call", modern=False, name="t")
            kind, ticket, status, body = await it.told.next()
            assert (kind, ticket, status) == ("status", 2, 404)
            assert json.loads(body)["error"]["message"] == "Session not found"
            assert await it.told.next() == gone
        async with talk(server.url) as it:
            await it.begin()
            it.notify("notifications/roots/list_changed")
            assert await it.told.next() == gone


# ---- what is answered

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def streaming(*events: bytes) -> bytes:
    return STREAM + b"".join(map(chunk, events)) + b"0\r\n\r\n"


def always(answer: bytes) -> Answering:
    async def write(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return write


ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}'
REDIRECT = b"HTTP/1.1 307 T\r\nLocation: http://evil.example/hunter2\r\nContent-Length: 0\r\n\r\n"
CREDENTIALS = "the server does not accept the proxy's credentials (HTTP status "


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (json_answer(b"", status="202 Accepted"), "the server accepted the request, and does not answer it"),
        (REDIRECT, "the server redirects (HTTP status 307): give its final URL to the proxy"),
        (json_answer(b'{"hunter2":1}', "WWW-Authenticate: Bearer x", status="401 U"), CREDENTIALS + "401)"),
        (json_answer(ANSWER.replace(b"result", b"error"), status="403 F"), CREDENTIALS + "403)"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", "the server answered with `text/html` instead of"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: <\xe9>\r\n\r\n", "the server answered with something else instead of"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n" + ANSWER, "the server answered with something else instead"),
        (json_answer(ANSWER, "Content-Encoding: gzip"), "the server's answer is compressed, which nobody asked for"),
        (json_answer(b"x" * (LIMIT + 1)), f"the server's answer is longer than {LIMIT} bytes: raise --max-message-byt"),
        (streaming(), "the server ended its event stream without the answer"),
        (streaming(b"data: {}"), "the server ended its event stream without the answer"),
        (STREAM + b"zz", "the server's answer is not HTTP as it should be"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_none_fails_the_request_in_one_clear_line(answer: bytes, why: str) -> None:
    async with RawServer(always(answer)) as server, talk(server.url) as it:
        it.ask(1, "tools/call", name="t")
        told = await it.told.next()
        if told == ("opened", 1):
            told = await it.told.next()
        kind, stream, said = told
        assert (kind, stream) == ("failed", 1)
        assert said.startswith(why)
        assert "hunter2" not in said
        assert it.told.now.empty()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'"x"', b'{"id":2,"result":{}}', b'{"method":"x","id":1}', ANSWER + b"x"]
)
async def test_a_body_that_does_not_answer_is_shown_to_the_relay_and_fails_the_request(body: bytes) -> None:
    async with RawServer(always(json_answer(body))) as server, talk(server.url) as it:
        it.ask(1, "tools/list")
        kind, _, stream, _ = await it.told.next()
        assert (kind, stream) == ("messages", 1)
        assert await it.told.next() == ("failed", 1, "what the server answered is no answer to the request")


async def test_a_json_answer_may_be_printed_over_several_lines() -> None:
    pretty = json.dumps(json.loads(ANSWER), indent=2).encode()
    async with RawServer(always(json_answer(pretty))) as server, talk(server.url) as it:
        it.ask(1, "tools/list")
        assert await it.told.message(1) == json.loads(ANSWER)


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found"])
async def test_an_error_that_answers_the_request_is_its_answer_whatever_the_status(status: str) -> None:
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}'
    async with RawServer(always(json_answer(error, status=status))) as server, talk(server.url) as it:
        it.ask(1, "nonsense")
        assert await it.told.message(1) == json.loads(error)


@pytest.mark.parametrize(
    ("body", "passed"),
    [
        (b"<html>hunter2</html>", b""),
        (b'{"error":"hunter2"}', b""),
        (b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no\\u00e9","x":1}}', b"no\\u00e9"),
        (
            b'{"jsonrpc":"2.0","error":{"code":-32022,"message":"no","data":{"supported":["a"]}}}',
            b'{"supported":["a"]}',
        ),
        (b"[" * 100_000, b""),
    ],
)
async def test_a_refusal_is_passed_with_its_status_and_a_json_rpc_error_if_it_has_one(
    body: bytes, passed: bytes
) -> None:
    async with RawServer(always(json_answer(body, status="400 Bad Request"))) as server, talk(server.url) as it:
        it.ask(1, "server/discover")
        kind, stream, status, said = await it.told.next()
        assert (kind, stream, status) == ("status", 1, 400)
        assert passed in said
        assert bool(said) == bool(passed)
        if said:
            assert json.loads(said)["id"] is None
            assert said.isascii()


async def test_a_refusal_without_an_end_is_not_read_for_ever() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Oops\r\n\r\n" + b"x" * 100_000)

    async with RawServer(answer) as server, talk(server.url) as it, asyncio.timeout(20):
        it.ask(1, "tools/list")
        assert await it.told.next() == ("status", 1, 500, b"")
        await server.closed.wait()


async def test_events_are_passed_as_they_come_with_their_marks() -> None:
    progress = b'{"jsonrpc":"2.0","method":"notifications/progress"}'
    events = [
        b"id: a\r\ndata:\r\n\r\n",
        b": ping\r\n\r\nevent: other\r\ndata: {}\r\n\r\ndata: " + progress + b"\r\n\r\n",
        b"data: " + progress + b"\n\nid: b\ndata: " + progress + b"\n\nretry: 5\n\n",
        b"id: c\ndata: " + ANSWER[:10],
        ANSWER[10:] + b"\n\n",
    ]
    note, answer = json.loads(progress), json.loads(ANSWER)
    async with RawServer(always(streaming(*events))) as server, talk(server.url) as it:
        it.ask(1, "tools/list")
        told: list[tuple[Any, ...]] = [await it.told.next()]
        while not (told[-1][0] == "messages" and answer in told[-1][1]):
            told.append(await it.told.next())
        assert told == [
            ("opened", 1),
            ("messages", [], 1, Event("a")),
            ("messages", [note], 1, None),
            ("messages", [note, note], 1, Event("b")),
            ("messages", [], 1, Event(None, 5)),
            ("messages", [answer], 1, Event("c")),
        ]
        assert it.told.now.empty()


async def test_a_long_event_is_passed_and_one_over_the_limit_fails_its_request() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        ticket = json.loads(seen.body)["id"]
        text = b"x" * (3_000_000 if ticket == 1 else 5_000_000)
        writer.write(streaming(b'data: {"jsonrpc":"2.0","id":%d,"result":"%b"}\n\n' % (ticket, text)))

    async with RawServer(answer) as server, talk(server.url, limit=4_000_000) as it:
        it.ask(1, "tools/list")
        assert len((await it.told.message(1))["result"]) == 3_000_000
        it.ask(2, "tools/list")
        assert await it.told.next() == ("opened", 2)
        why = "an event of the server's is longer than 4000000 bytes: raise --max-message-bytes"
        assert await it.told.next() == ("failed", 2, why)


async def test_answers_to_other_requests_are_passed_and_are_not_taken_for_the_answer() -> None:
    other = b'{"jsonrpc":"2.0","id":99,"result":{}}'
    async with RawServer(always(streaming(b"data: " + other + b"\n\n"))) as server, talk(server.url) as it:
        it.ask(1, "tools/list")
        assert await it.told.message(1) == json.loads(other)
        assert (await it.told.next())[:2] == ("failed", 1)


@pytest.mark.parametrize("session", ["a b", "x" * 1025, "caf\u00e9", ""])
async def test_a_session_id_that_may_not_be_sent_fails_the_handshake(session: str) -> None:
    async with RawServer(handshake(answering(), session)) as server, talk(server.url) as it:
        it.ask(1, "initialize", modern=False, **CLIENT)
        assert await it.told.next() == ("failed", 1, "the server's session id is none that may be sent")
        assert not it.link.session


# ---- event streams that end early


async def test_a_stream_with_ids_may_be_resumed_in_a_session_and_nowhere_else() -> None:
    cut = STREAM + chunk(b"id: a\ndata:\n\n") + b"0\r\n\r\n"
    failed = ("failed", 1, "the server ended its event stream without the answer")
    for modern, session, expected in ((False, b"s1", ("ended", 1)), (False, None, failed), (True, b"s1", failed)):
        async with RawServer(always(cut)) as server, talk(server.url, version="2025-11-25") as it:
            it.link.begun(session)
            it.ask(1, "tools/list", modern=modern)
            assert [(await it.told.next())[0] for _ in range(2)] == ["opened", "messages"]
            assert await it.told.next() == expected


async def test_a_link_alone_resumes_a_stream_that_broke_with_the_last_id_after_the_time_that_was_named() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "POST":
            writer.write(STREAM + chunk(b"retry: 1\nid: a\ndata:\n\n"))
            writer.close()
        elif len(server.seen) == 2:
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        elif len(server.seen) == 3:
            writer.write(streaming(b"id: b\ndata:\n\n"))
        else:
            writer.write(streaming(b"data: " + ANSWER + b"\n\n"))

    async with RawServer(answer) as server, talk(server.url, alone=True, version="2025-11-25") as it:
        it.ask(1, "tools/list", modern=False)
        while (told := await it.told.next())[0] != "messages" or not told[1]:
            assert told[0] in ("opened", "messages")
        assert told[1:3] == ([json.loads(ANSWER)], 1)
        assert [seen.field("last-event-id") for seen in server.seen] == [None, "a", "a", "b"]
        assert [seen.field("accept") for seen in server.seen[1:]] == ["text/event-stream"] * 3


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "405 Not Allowed"])
async def test_a_link_alone_does_not_resume_where_the_server_refuses(status: str) -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        cut = streaming(b"retry: 1\nid: a\ndata:\n\n")
        writer.write(cut if seen.method == "POST" else json_answer(b"", status=status))

    async with RawServer(answer) as server, talk(server.url, alone=True, version="2025-11-25") as it:
        it.ask(1, "tools/list", modern=False)
        while (told := await it.told.next())[0] != "failed":
            pass
        assert told == ("failed", 1, f"the server answered with HTTP status {status[:3]}")


async def test_a_link_alone_gives_up_on_a_stream_after_a_few_tries() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "POST":
            writer.write(STREAM + chunk(b"retry: 1\nid: a\ndata:\n\n"))
        writer.close()

    async with RawServer(answer) as server, talk(server.url, alone=True, version="2025-11-25") as it:
        it.ask(1, "tools/list", modern=False)
        while (told := await it.told.next())[0] != "failed":
            pass
        assert told[1] == 1
        assert len(server.seen) == 6


async def test_a_link_alone_listens_once_the_session_has_begun_and_again_when_that_ends() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "GET":
            writer.write(streaming(b"retry: 1\n\n"))
        else:
            await answering()(seen, writer)

    async with RawServer(handshake(answer)) as server, talk(server.url, alone=True) as it:
        await it.begin()
        for _ in range(10):
            assert await it.told.next() == ("opened", -1)
            assert await it.told.next() == ("messages", [], -1, Event(None, 1))
        assert {seen.field("mcp-session-id") for seen in server.seen if seen.method == "GET"} == {"s-1"}


@pytest.mark.parametrize(
    ("status", "passed"), [("405 Not Allowed", 405), ("401 Unauthorized", 502), ("500 Oops", 502), ("302 F", 502)]
)
async def test_a_listener_is_told_why_there_is_no_stream(status: str, passed: int) -> None:
    async with (
        RawServer(always(json_answer(b"", status=status))) as server,
        talk(server.url, version="2025-11-25") as it,
    ):
        it.link.listen(-1, "7")
        assert await it.told.next() == ("status", -1, passed, b"")
        assert server.seen[0].field("last-event-id") == "7"


async def test_a_listener_is_told_that_its_stream_has_ended() -> None:
    async with RawServer(always(streaming(b"data: {}\n\n"))) as server, talk(server.url, version="2025-11-25") as it:
        it.link.listen(-1, None)
        assert [(await it.told.next())[0] for _ in range(3)] == ["opened", "messages", "ended"]


async def test_a_listener_of_a_session_that_is_over_is_told_so() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "GET":
            writer.write(json_answer(b"", status="404 Not Found"))
        else:
            await answering()(seen, writer)

    async with RawServer(handshake(answer)) as server, talk(server.url) as it:
        await it.begin()
        it.link.listen(-1, None)
        assert await it.told.next() == ("status", -1, 404, b"")
        assert await it.told.next() == ("gone", "the server does not know the session any more: begin a new one")


# ---- what the server does not take


async def test_a_notification_that_is_refused_is_logged_and_holds_nothing_up() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if b"roots" in seen.body:
            writer.write(json_answer(b"hunter2", status="400 Bad Request"))
        else:
            await answering()(seen, writer)

    async with RawServer(handshake(answer)) as server, talk(server.url) as it:
        await it.begin()
        it.notify("notifications/roots/list_changed")
        it.ask(2, "ping", modern=False)
        await it.told.message(2)
        assert "a message did not reach the server: the server answered with HTTP status 400\n" in it.logged()


async def test_what_a_server_does_not_answer_is_bounded() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if b"initialize" in seen.body:
            await asyncio.sleep(60)

    async with RawServer(answer) as server, talk(server.url) as it:
        it.ask(1, "initialize", modern=False, **CLIENT)
        for ticket in range(2, 80):
            it.ask(ticket, "tools/call", modern=False, name="x" * 1_000_000)
        told = [it.told.now.get_nowait() for _ in range(it.told.now.qsize())]
        assert {each[0] for each in told} == {"failed"}
        assert 10 < len(told) < 20
        assert told[0][2] == "the server does not take what it is sent: try again later"
        assert it.link.crowded


async def test_a_connection_that_is_refused_fails_the_request_without_naming_the_address() -> None:
    async with RawServer(answering()) as server:
        url = server.url
    async with talk(url) as it:
        it.ask(1, "tools/list")
        assert await it.told.next() == ("failed", 1, "the server cannot be reached: nothing listens at its address")


async def test_closing_does_not_wait_for_a_server_that_does_not_answer() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "DELETE":
            await asyncio.sleep(60)
        await answering()(seen, writer)

    async with asyncio.timeout(20), RawServer(handshake(answer)) as server:
        async with talk(server.url) as it:
            await it.begin()
            it.ask(2, "ping", modern=False)
            await it.told.message(2)
        assert server.seen[-1].method == "DELETE"
