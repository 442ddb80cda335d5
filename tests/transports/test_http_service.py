"""Where the proxy may listen, and how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from intercept_py.errors import InterceptError
from intercept_py.transports.http_gateway import Settings
from intercept_py.transports.http_service import bind, new_event_loop
from intercept_py.wire.commands import ToUpstream
from tests.support import web
from tests.support.http_front import JSON, RUNNERS, Front, Link, Scripted, call, front, message, talk
from tests.transports.test_http_connection import BODY, FIELDS, GOOD, LAST, chunks, statuses

pytestmark = pytest.mark.anyio


def test_strangers_may_listen_in_only_where_callers_prove_who_they_are() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        bind(host, 0, authenticated=False).close()
    with pytest.raises(InterceptError, match=r"`0\.0\.0\.0` is reached from other machines"):
        bind("0.0.0.0", 0, authenticated=False)
    bind("0.0.0.0", 0, authenticated=True).close()


def test_an_address_that_cannot_be_had_is_told_in_one_line() -> None:
    with bind("127.0.0.1", 0, authenticated=False) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InterceptError, match=rf"^cannot listen on `127\.0\.0\.1:{port}`: .+$"):
            bind("127.0.0.1", port, authenticated=False)
    with pytest.raises(InterceptError, match=r"^cannot listen on `no\.such\.host\.invalid:1`: "):
        bind("no.such.host.invalid", 1, authenticated=True)


def test_small_answers_are_sent_at_once() -> None:
    """Without the protocol in the socket asyncio leaves Nagle's algorithm on: 40 ms for an answer of two writes."""
    with bind("127.0.0.1", 0, authenticated=False) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_an_event_loop_can_be_had() -> None:
    loop = new_event_loop()
    assert loop.run_until_complete(asyncio.sleep(0, 7)) == 7
    loop.close()


async def test_what_is_under_way_at_the_end_is_answered_and_the_rest_ends(tmp_path: Path) -> None:
    async with web.client() as client:
        async with front(tmp_path, grace=20) as where:
            opened = await client.post(where.url, json=message("initialize"), headers=JSON)
            headers = {**JSON, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
            waiting = asyncio.ensure_future(client.post(where.url, json=call("hold", 5), headers=headers))
            listening = asyncio.ensure_future(client.get(where.url, headers={**headers, "Accept": "*/*"}))
            _, idle = await asyncio.open_connection("127.0.0.1", where.port)
            (link,) = where.upstream.links
            await where.upstream.until(lambda: link.told[-1].method == "tools/call" and bool(link.listening))
            ticket = link.told[-1].ticket or 0
            loop = asyncio.get_running_loop()
            listening.add_done_callback(lambda _: loop.call_later(0.1, link.answer, ticket))
        assert (await listening).status_code == 200
        answer = await waiting
        assert answer.text == 'event: message\ndata: {"jsonrpc":"2.0","id":5,"result":{}}\n\n'
        assert link.closed
        idle.close()


async def test_what_does_not_end_by_itself_is_ended(tmp_path: Path) -> None:
    async with web.client() as client:
        async with front(tmp_path, grace=0.1) as where:
            body = call("hold", 5, modern=True)
            told = {**JSON, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "hold"}
            waiting = asyncio.ensure_future(client.post(where.url, json=body, headers=told))
            await where.upstream.until(lambda: where.upstream.methods() == ["tools/call"])
        answer = await waiting
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the proxy is shutting down")


async def test_nothing_is_begun_after_the_end_has_begun(tmp_path: Path) -> None:
    async with front(tmp_path, grace=20) as where:
        hold = json.dumps(call("hold", 1, modern=True)).encode()
        first = b"POST /mcp HTTP/1.1\r\n" + FIELDS.replace(b"echo", b"hold") + b"Content-Length: %d\r\n\r\n" % len(hold)
        reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
        writer.write(first + hold)
        await where.upstream.until(lambda: where.upstream.methods() == ["tools/call"])
        where.app.quieten()
        writer.write(first + hold)
        (link,) = where.upstream.links
        link.answer(link.told[0].ticket or 0)
        assert statuses(await reader.read()) == [200, 503]
        writer.close()


async def test_what_all_clients_together_leave_unread_is_bounded(tmp_path: Path) -> None:
    upstream = Scripted()
    size = 8_000_000

    def large(link: Link, one: ToUpstream) -> None:
        link.answer(one.ticket or 0, {"content": [{"type": "text", "text": "x" * size}]})

    upstream.tools["echo"] = large
    loop = asyncio.get_running_loop()
    async with front(tmp_path, upstream=upstream, max_backlog=2 * size) as where:
        readers: list[socket.socket] = []
        for _ in range(8):
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.setblocking(False)
            await loop.sock_connect(reader, ("127.0.0.1", where.port))
            await loop.sock_sendall(reader, GOOD)
            readers.append(reader)
            await upstream.until(lambda: len(upstream.methods()) == len(readers))
        heard = await asyncio.gather(*(_all_of(reader, size) for reader in readers))
        assert sum(heard) < len(readers)
        assert len(await talk(where.port, LAST)) > size


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("piece", [1_000_000, 100], ids=["large pieces", "small pieces"])
async def test_bodies_that_are_arriving_are_bounded_together(tmp_path: Path, runner: str, piece: int) -> None:
    """Those that have been on their way for longest give way, so that nobody is kept out by who never finishes."""
    size = 1_000_000
    begun = b"POST /mcp HTTP/1.1\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n"
    begun += (b"%x\r\n%b\r\n" % (piece, b" " * piece)) * (size // piece)
    async with front(tmp_path, runner, settings=Settings(body_limit=2 * size, bodies_limit=5 * size // 2)) as where:
        clients = [await asyncio.open_connection("127.0.0.1", where.port) for _ in range(6)]
        for _, writer in clients:
            writer.write(begun)
        answers = {asyncio.ensure_future(reader.readuntil(b"\r\n\r\n")): writer for reader, writer in clients}
        open_ones = set(answers)
        async with asyncio.timeout(30):
            while len(open_ones) > 2:
                _, open_ones = await asyncio.wait(open_ones, return_when=asyncio.FIRST_COMPLETED)
        large = chunks(BODY.ljust(size), size)
        last = b"POST /mcp HTTP/1.1\r\nConnection: close\r\n" + FIELDS
        assert statuses(await talk(where.port, last + b"Transfer-Encoding: chunked\r\n\r\n" + large)) == [200]
        for answer, writer in answers.items():
            if not answer.done():
                writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
        heads = await asyncio.gather(*answers)
        assert sorted(statuses(b"".join(heads))) == [200, *[503] * 5]
        assert b"".join(heads).lower().count(b"\r\nretry-after: ") == 5
        for _, writer in clients:
            writer.close()


async def test_what_waits_its_turn_counts_as_what_is_arriving(tmp_path: Path) -> None:
    size = 1_000_000
    large = b"POST /mcp HTTP/1.1\r\n" + FIELDS + b"Content-Length: %d\r\n\r\n" % size + BODY.ljust(size)
    async with front(tmp_path, settings=Settings(body_limit=size, bodies_limit=3 * size // 2)) as where:
        clients = []
        for number in range(1, 4):
            hold = json.dumps(call("hold", modern=True)).encode()
            length = b"Content-Length: %d\r\n\r\n" % len(hold)
            client = await asyncio.open_connection("127.0.0.1", where.port)
            client[1].write(b"POST /mcp HTTP/1.1\r\n" + FIELDS.replace(b"echo", b"hold") + length + hold + large)
            await client[1].drain()
            clients.append(client)
            await _until_called(where, number)
        assert statuses(await talk(where.port, large.replace(b"Host", b"Connection: close\r\nHost"))) == [200]
        for link in where.upstream.links[:3]:
            link.answer(link.told[0].ticket or 0)
        for reader, writer in clients:
            assert statuses(await reader.read()) == [200, 503]
            writer.close()


async def _until_called(where: Front, times: int) -> None:
    await where.upstream.until(lambda: where.upstream.methods() == ["tools/call"] * times)


async def _all_of(reader: socket.socket, size: int) -> bool:
    """Whether so much comes before the connection ends."""
    heard = 0
    loop = asyncio.get_running_loop()
    with reader:
        while heard < size:
            try:
                data = await asyncio.wait_for(loop.sock_recv(reader, 1 << 20), 20)
            except ConnectionResetError:
                return False
            if not data:
                return False
            heard += len(data)
    return True
