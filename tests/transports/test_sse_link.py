"""Links over the old HTTP+SSE transport: against the SDK's server, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from intercept_py.log import Log
from intercept_py.transports.http_client import HttpClient
from intercept_py.transports.http_link import Remote
from intercept_py.transports.sse_link import SseLink
from intercept_py.wire.commands import ToUpstream
from intercept_py.wire.messages import Arrival
from tests.support.raw_http import Answering, RawServer, Seen, json_answer
from tests.support.sdk_process import sdk_server
from tests.support.told import Told, asks, notifies

pytestmark = pytest.mark.anyio
CLIENT = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
ENDPOINT = HEAD + b"event: endpoint\r\ndata: /messages?session_id=1\r\n\r\n"
ELSEWHERE = "the server wants messages to go to another server"
NOWHERE = "the server does not say where messages go"
ACCEPTED = json_answer(b"", status="202 Accepted")


@asynccontextmanager
async def link(url: str, limit: int = 4_000_000) -> AsyncIterator[tuple[SseLink, Told]]:
    """A link and what it tells."""
    client, told, null = HttpClient(url), Told(), os.open(os.devnull, os.O_WRONLY)
    made = SseLink(Remote(client, limit, Log("error", null)), told)
    try:
        yield made, told
    finally:
        await made.close()
        await client.close()
        os.close(null)


async def test_a_session_with_a_server_of_the_sdk() -> None:
    async with sdk_server("sse_server") as url, link(url) as (it, told):
        client = {**CLIENT, "capabilities": {"elicitation": {}}}
        batch = [asks(1, "initialize", modern=False, **client), notifies("notifications/initialized")]
        it.send([*batch, asks(2, "tools/call", modern=False, name="say", arguments={"text": "x" * 1_500_000})])
        assert (await told.message(0))["result"]["protocolVersion"] == "2024-11-05"
        assert len((await told.message(0))["result"]["content"][0]["text"]) == 1_500_000
        it.send([asks(3, "tools/call", modern=False, name="greet", arguments={})])
        question = await told.message(0)
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
        it.send([ToUpstream(json.dumps(answer).encode())])
        assert (await told.message(0))["result"]["content"][0]["text"] == "hello Ada"


def stream(events: bytes, *, post: bytes = ACCEPTED) -> Answering:
    """A server that sends these bytes and no more on its event stream."""

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "POST":
            writer.write(post)
        else:
            writer.write(events)
            await writer.drain()
            await asyncio.sleep(60)

    return answer


async def test_messages_go_one_after_the_other_to_where_the_server_says() -> None:
    async with RawServer(stream(ENDPOINT)) as server, link(server.url) as (it, _):
        it.send([asks(number, "ping", modern=False) for number in range(1, 20)])
        async with asyncio.timeout(20):
            while len(server.seen) < 20:
                await asyncio.sleep(0.001)
        first, *posts = server.seen
        assert (first.method, first.target, first.field("accept")) == ("GET", "/mcp", "text/event-stream")
        assert {(seen.method, seen.target) for seen in posts} == {("POST", "/messages?session_id=1")}
        assert [json.loads(seen.body)["id"] for seen in posts] == list(range(1, 20))
        assert server.connections == 2


async def test_the_trace_context_of_a_message_goes_on_as_it_came() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traced = msgspec.structs.replace(asks(1, "ping", modern=False), arrival=Arrival(parent, "rojo=1"))
    async with RawServer(stream(ENDPOINT)) as server, link(server.url) as (it, _):
        it.send([traced, asks(2, "ping", modern=False)])
        async with asyncio.timeout(20):
            while len(server.seen) < 3:
                await asyncio.sleep(0.001)
        fields = [(seen.field("traceparent"), seen.field("tracestate")) for seen in server.seen]
        assert fields == [(None, None), (parent, "rojo=1"), (None, None)]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (HEAD + b"event: endpoint\ndata: http://evil.example/x\n\n", ELSEWHERE),
        (HEAD + b"event: endpoint\ndata: //evil.example/x\n\n", ELSEWHERE),
        (HEAD + b"event: endpoint\ndata: https://127.0.0.1/x\n\n", ELSEWHERE),
        (HEAD + b"event: endpoint\ndata: http://a:b@127.0.0.1/x\n\n", NOWHERE),
        (HEAD + b"event: endpoint\ndata: \xff\n\n", NOWHERE),
        (HEAD + b"event: endpoint\ndata: javascript:x\n\n", NOWHERE),
        (json_answer(b"{}"), "the server does not answer with an event stream"),
        (json_answer(b"{}", status="405 Not Allowed"), "the server answered with HTTP status 405"),
        (json_answer(b"{}", status="401 Unauthorized"), "the server does not accept the proxy's cred"),
        (json_answer(b"{}", "Location: /hunter2", status="307 T"), "the server redirects (HTTP status 307): give its "),
        (ENDPOINT + b"data: " + b"x" * 5_000_000, "an event of the server's is longer than 4000000 "),
    ],
)  # fmt: skip
async def test_a_server_that_does_not_begin_a_session_is_gone(events: bytes, why: str) -> None:
    async with RawServer(stream(events)) as server, link(server.url) as (it, told):
        it.send([asks(1, "initialize", modern=False, **CLIENT)])
        kind, said = await told.next()
        assert kind == "gone"
        assert said.startswith(why)
        assert "hunter2" not in said
        it.send([asks(2, "ping", modern=False)])
        assert await told.next() == ("failed", 2, "the server is gone")


async def test_the_end_of_the_event_stream_is_the_end_of_the_session() -> None:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(ENDPOINT + b'data: {"a":1}\n\n')
        writer.close()

    async with RawServer(answer) as server, link(server.url) as (_, told):
        assert await told.message(0) == {"a": 1}
        assert await told.next() == ("gone", "the server ended its event stream")


@pytest.mark.parametrize("post", [json_answer(b"hunter2", status="400 Bad Request"), b"nonsense\r\n\r\n"])
async def test_a_message_that_is_refused_fails_its_request_and_holds_nothing_up(post: bytes) -> None:
    async with RawServer(stream(ENDPOINT, post=post)) as server, link(server.url) as (it, told):
        it.send([asks(1, "ping", modern=False), notifies("notifications/initialized"), asks(2, "ping", modern=False)])
        failures: list[Any] = [await told.next(), await told.next()]
        assert [(kind, ticket) for kind, ticket, _ in failures] == [("failed", 1), ("failed", 2)]
        assert "hunter2" not in str(failures)
        assert len(server.seen) == 4


async def test_what_the_server_does_not_accept_is_bounded() -> None:
    async with RawServer(stream(HEAD)) as server, link(server.url) as (it, told):
        it.send([asks(ticket, "ping", modern=False, text="x" * 1_000_000) for ticket in range(80)])
        refused = [told.now.get_nowait() for _ in range(told.now.qsize())]
        assert 10 < len(refused) < 20
        assert refused[0][2] == "the server does not take what it is sent"
        assert it.crowded


async def test_the_server_sees_that_a_session_is_over() -> None:
    closed = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ENDPOINT + b"data: {}\n\n")
        await reader.read()
        closed.set()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with link(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as (_, told):
        await told.message(0)
    async with asyncio.timeout(20):
        await closed.wait()
    server.close()
    await server.wait_closed()
