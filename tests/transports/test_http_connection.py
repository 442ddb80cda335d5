"""Our own HTTP/1.1 server against clients that do not play fair: raw bytes on real sockets."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from intercept_py.transports.http_gateway import Settings
from intercept_py.transports.http_messages import Answer
from tests.support.http_front import Front, Link, Scripted, call, front, talk

pytestmark = pytest.mark.anyio

BODY = json.dumps(call("echo", modern=True)).encode()
FIELDS = (
    b"Host: localhost\r\nContent-Type: application/json\r\nAccept: */*\r\nMCP-Protocol-Version: 2026-07-28\r\n"
    b"Mcp-Method: tools/call\r\nMcp-Name: echo\r\n"
)
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
HEAD = b"POST /mcp HTTP/1.1\r\n" + FIELDS
GOOD = HEAD + LENGTH + b"\r\n" + BODY
LAST = HEAD + LENGTH + b"Connection: close\r\n\r\n" + BODY
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def statuses(heard: bytes) -> list[int]:
    """The status of each answer in what was heard."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (LAST, [200]),
        (GOOD + LAST, [200, 200]),
        (GOOD * 500 + LAST, [200] * 501),
        (b"\r\n" + LAST, [200]),
        (HEAD + CHUNKED + b"Connection: close\r\n\r\n" + chunks(BODY, 7), [200]),
        (HEAD + CHUNKED + b"Connection: close\r\n\r\n" + chunks(BODY, 9)[:-2] + b"X-Trailer: 1\r\n\r\n", [200]),
        (b"POST /mcp HTTP/1.0\r\n" + FIELDS + LENGTH + b"\r\n" + BODY, [200]),
        (
            HEAD.replace(b"Host: localhost", b"Host:\t localhost \t") + LENGTH + b"Connection: close\r\n\r\n" + BODY,
            [200],
        ),
        (LAST.replace(b"/mcp", b"http://localhost:1/mcp?a=b").replace(b"localhost\r\n", b"evil.example\r\n"), [200]),
        (LAST.replace(b"/mcp", b"HTTPS://[::1]/mcp"), [200]),
        (GOOD.replace(b"/mcp", b"http://localhost/mcp") * 4 + LAST, [200] * 5),
        (LAST + GOOD, [200]),  # nothing is read behind the last request
        (HEAD + LENGTH + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + BODY + LAST, [200, 200]),
        ((HEAD + LENGTH + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + BODY) * 500, [200] * 100 + [400]),
        (GOOD + b"nonsense\r\n\r\n", [200, 400]),
        # Framing that two parsers may read differently.
        (HEAD + LENGTH + CHUNKED + b"\r\n" + chunks(BODY, 100), [400]),
        (HEAD + CHUNKED + LENGTH + b"\r\n" + chunks(BODY, 100), [400]),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks(BODY, 100), [400]),
        (HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunks(BODY, 100), [400]),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + chunks(BODY, 100), [400]),
        (HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + chunks(BODY, 100), [400]),
        (b"POST /mcp HTTP/1.0\r\n" + FIELDS + CHUNKED + b"\r\n" + chunks(BODY, 100), [400]),
        (HEAD + LENGTH * 2 + b"\r\n" + BODY, [400]),
        (HEAD + b"Content-Length: 3, 3\r\n\r\nabc", [400]),
        (HEAD + b"Content-Length: +3\r\n\r\nabc", [400]),
        (HEAD + b"Content-Length: -1\r\n\r\n", [400]),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", [400]),
        (HEAD + CHUNKED + b"\r\nffffffffffffffffffff\r\n", [400]),
        (HEAD + CHUNKED + b"\r\n-1\r\n", [400]),
        (HEAD + CHUNKED + b"\r\n3\nabc\n0\n\n", [400]),
        (HEAD.replace(b"\r\n", b"\n") + b"\n", [400]),
        (HEAD + b"X: a\r\n b\r\n" + LENGTH + b"\r\n" + BODY, [400]),
        (HEAD + b"X: a\x00b\r\n" + LENGTH + b"\r\n" + BODY, [400]),
        (HEAD + b"X: a\rb\r\n" + LENGTH + b"\r\n" + BODY, [400]),
        (HEAD + b": a\r\n" + LENGTH + b"\r\n" + BODY, [400]),
        (HEAD + b"Host: other\r\nConnection: close\r\n" + LENGTH + b"\r\n" + BODY, [400]),
        # Requests that are none of ours.
        (b"GET http://evil.example/mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", [421]),
        (LAST.replace(b"/mcp", b"http://evil.example@localhost/mcp"), [400]),
        (LAST.replace(b"/mcp", b"http:///mcp"), [400]),
        (LAST.replace(b"/mcp", b"ftp://localhost/mcp"), [400]),
        (LAST.replace(b"/mcp", b"http://localhost"), [404]),
        (LAST.replace(b"/mcp", b"http://localhost?/mcp"), [404]),
        (LAST.replace(b"/mcp", b"http://localhost/mcp").replace(b"Host: localhost\r\n", b""), [400]),
        (LAST.replace(b"/mcp", b"http://localhost/mcp").replace(b"Host", b"Host: localhost\r\nHost"), [400]),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", [400]),
        (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", [400]),
        (b"GET /mcp HTTP/1.1\r\nConnection: close\r\n\r\n", [400]),
        (b"GET /mcp HTTP/1.0\r\n\r\n", [400]),
        (b"GET /mcp\r\n\r\n", [505]),
        (b"GET /mcp HTTP/2.0\r\nHost: localhost\r\n\r\n", [505]),
        (b"GET /mcp HTTP/1.7\r\nHost: localhost\r\n\r\n", [400]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
        (b"BREW /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n", [400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]),
        (HEAD + LENGTH + b"Expect: tea\r\n\r\n" + BODY, [417]),
        # Too much of it.
        (HEAD + b"X: " + b"a" * 70_000 + b"\r\n" + LENGTH + b"\r\n" + BODY, [431]),
        (HEAD + b"X: 1\r\n" * 200 + LENGTH + b"\r\n" + BODY, [431]),
        (b"GET /" + b"a" * 70_000, [431]),
        (b"\r\n" * 70_000, [431]),
        (HEAD + CHUNKED + b"\r\n1;" + b"a" * 300_000, [431]),
        (HEAD + CHUNKED + b"\r\n0\r\nX: " + b"a" * 300_000, [431]),
    ],
)
async def test_every_request_gets_its_answer_and_no_other(tmp_path: Path, said: bytes, expected: list[int]) -> None:
    async with front(tmp_path) as where:
        heard = await talk(where.port, said)
        assert statuses(heard) == expected, heard[:2000]
        assert len(where.upstream.methods()) == expected.count(200)
        assert b"Traceback" not in heard


async def test_a_request_may_come_byte_by_byte(tmp_path: Path) -> None:
    async with front(tmp_path) as where:
        reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(LAST)):
            writer.write(LAST[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        assert statuses(await reader.read()) == [200]
        writer.close()


async def test_who_asks_whether_to_send_is_told(tmp_path: Path) -> None:
    settings = Settings(body_limit=1000)
    async with front(tmp_path, settings=settings) as where:
        reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
        writer.write(HEAD + LENGTH + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert statuses(await reader.read()) == [200]
        writer.close()
        ask = b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
        assert statuses(await talk(where.port, HEAD + ask)) == [413]
        assert statuses(await talk(where.port, HEAD.replace(b"localhost", b"evil") + ask)) == [421]


async def test_who_asks_whether_to_send_behind_another_request_has_the_answer_to_that_first(tmp_path: Path) -> None:
    ask = LENGTH + b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
    async with front(tmp_path) as where:
        heard = await talk(where.port, GOOD + HEAD + ask + BODY)
    assert [status for status in statuses(heard) if status != 100] == [200, 200]
    assert statuses(heard)[0] == 200


async def test_who_asks_whether_to_send_is_told_once_it_is_known_who_asks(tmp_path: Path) -> None:
    ask = LENGTH + b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
    async with front(tmp_path, guarded=True) as where:
        assert statuses(await talk(where.port, HEAD + b"Authorization: Bearer slow mallory\r\n" + ask)) == [403]
        where.mount.door.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
        writer.write(HEAD + b"Authorization: Bearer slow alice\r\n" + ask)
        await where.mount.asked.wait()
        where.mount.door.set()
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert statuses(await reader.read()) == [200]
        writer.close()


async def test_who_leaves_before_it_is_known_who_it_is_does_no_harm(tmp_path: Path) -> None:
    async with front(tmp_path, settings=Settings(body_patience=0.2), patience=0.2, guarded=True) as where:
        where.mount.door.clear()
        said = HEAD + b"Authorization: Bearer slow alice\r\n" + LENGTH + b"\r\n" + BODY[:9]
        assert statuses(await talk(where.port, said)) == [408]
        where.mount.door.set()
        good = LAST.replace(b"Host", b"Authorization: Bearer slow alice\r\nHost")
        assert statuses(await talk(where.port, good)) == [200]
        assert where.upstream.methods() == ["tools/call"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_of_100_mb_is_refused_without_being_kept(tmp_path: Path, declared: bool) -> None:
    async with front(tmp_path) as where:
        reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
        writer.write(HEAD + (b"Content-Length: 104857600\r\n\r\n" if declared else CHUNKED + b"\r\n"))
        piece = b" " * 1048576 if declared else b"100000\r\n" + b" " * 1048576 + b"\r\n"
        try:
            async with asyncio.timeout(20):
                for _ in range(100):
                    writer.write(piece)
                    await writer.drain()
        except ConnectionError:
            pass
        heard = await reader.read(9)
        assert heard == b"HTTP/1.1 "
        assert await reader.read(3) == b"413"
        writer.close()
        assert statuses(await talk(where.port, LAST)) == [200]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", []),
        (b"POST /mcp HT", [408]),
        (HEAD, [408]),
        (HEAD + LENGTH + b"\r\n{", [408]),
        (GOOD, [200]),
        (GOOD + b"POST", [200, 408]),
        (HEAD.replace(b"localhost", b"evil") + b"Content-Length: 90\r\n\r\n{", [408]),
    ],
)
async def test_who_does_not_finish_is_hung_up_on(tmp_path: Path, said: bytes, expected: list[int]) -> None:
    async with front(tmp_path, settings=Settings(body_patience=0.3), patience=0.3, idle=0.3) as where:
        assert statuses(await talk(where.port, said)) == expected


async def test_a_head_that_comes_one_byte_at_a_time_is_late_all_the_same(tmp_path: Path) -> None:
    async with front(tmp_path, patience=0.4) as where:
        reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
        answer = asyncio.ensure_future(reader.read())
        for at in range(len(HEAD)):
            if answer.done() or writer.is_closing():
                break
            writer.write(HEAD[at : at + 1])
            await asyncio.sleep(0.02)
        assert statuses(await answer) == [408]
        assert at < len(HEAD) - 1
        writer.close()


async def test_a_client_that_only_half_hangs_up_is_gone(tmp_path: Path) -> None:
    async with front(tmp_path) as where:
        hold = json.dumps(call("hold", modern=True)).encode()
        said = HEAD.replace(b"echo", b"hold") + b"Content-Length: %d\r\n\r\n" % len(hold) + hold
        assert await talk(where.port, said, hang_up=True) == b""
        await where.upstream.until(lambda: where.upstream.methods() == ["tools/call", "notifications/cancelled"])


async def test_who_asks_for_a_head_gets_no_body_though_it_sends_one(tmp_path: Path) -> None:
    async with front(tmp_path) as where:
        said = b"HEAD /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        answer = await talk(where.port, said)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert answer.endswith(b"\r\n\r\n")


async def test_pipelined_requests_are_answered_in_order_and_one_at_a_time(tmp_path: Path) -> None:
    upstream = Scripted()
    async with front(tmp_path, upstream=upstream) as where:
        hold = json.dumps(call("hold", "first", modern=True)).encode()
        first = HEAD.replace(b"echo", b"hold") + b"Content-Length: %d\r\n\r\n" % len(hold) + hold
        answer = asyncio.ensure_future(talk(where.port, first + LAST))
        await upstream.until(lambda: upstream.methods() == ["tools/call"])
        assert await _health(where) == [200]  # others are served meanwhile
        assert upstream.methods() == ["tools/call"]
        (link,) = upstream.links
        link.answer(link.told[0].ticket or 0)
        heard = await answer
        assert statuses(heard) == [200, 200]
        assert heard.index(b'"first"') < heard.index(b'"id":1')


async def test_what_waits_its_turn_is_for_who_may_call_by_then(tmp_path: Path) -> None:
    upstream = Scripted()
    async with front(tmp_path, upstream=upstream, guarded=True) as where:
        token = b"Authorization: Bearer alice\r\nHost"
        hold = json.dumps(call("hold", "first", modern=True)).encode()
        first = HEAD.replace(b"echo", b"hold") + b"Content-Length: %d\r\n\r\n" % len(hold) + hold
        answer = asyncio.ensure_future(talk(where.port, (first + GOOD + LAST).replace(b"Host", token)))
        await upstream.until(lambda: upstream.methods() == ["tools/call"])
        where.mount.revoked = frozenset({"alice"})
        (link,) = upstream.links
        link.answer(link.told[0].ticket or 0)
        assert statuses(await answer) == [200, 401, 401]
        assert upstream.methods() == ["tools/call"]


async def test_an_answer_that_cannot_be_sent_is_replaced(tmp_path: Path) -> None:
    """What fails in making an answer must not leave the client without any."""
    async with front(tmp_path) as where:
        where.app._pages["/odd"] = (lambda: Answer(799), True)
        odd = b"GET /odd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert statuses(await talk(where.port, odd)) == [500]


async def _health(where: Front) -> list[int]:
    return statuses(await talk(where.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))


async def test_a_client_that_pipelines_but_does_not_read_is_not_read_either(tmp_path: Path) -> None:
    upstream = Scripted()

    def large(link: Link, one: Any) -> None:
        link.answer(one.ticket or 0, {"content": [{"type": "text", "text": "x" * 1_000_000}]})

    upstream.tools["echo"] = large
    async with front(tmp_path, upstream=upstream) as where:
        _, writer = await asyncio.open_connection("127.0.0.1", where.port, limit=2**16)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(GOOD * 200)
        await upstream.until(lambda: len(upstream.links) > 2)
        before = -1
        while before != len(upstream.links):
            before = len(upstream.links)
            await asyncio.sleep(0.2)
        assert before < 50
        writer.close()


async def test_an_answer_to_http_1_0_ends_with_the_connection(tmp_path: Path) -> None:
    upstream = Scripted()

    def stream(link: Link, one: Any) -> None:
        link.say("notifications/message", one.ticket or 0, level="info", data="x")
        link.answer(one.ticket or 0)

    upstream.tools["echo"] = stream
    async with front(tmp_path, upstream=upstream) as where:
        heard = await talk(where.port, b"POST /mcp HTTP/1.0\r\n" + FIELDS + LENGTH + b"\r\n" + BODY)
        head, _, body = heard.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert body.startswith(b"event: message\ndata: ")
        assert body.endswith(b"}\n\n")


async def test_head_requests_get_no_body(tmp_path: Path) -> None:
    async with front(tmp_path) as where:
        heard = await talk(where.port, b"HEAD /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert statuses(heard) == [405]
        assert heard.endswith(b"\r\n\r\n")


async def test_connections_are_bounded(tmp_path: Path) -> None:
    async with front(tmp_path, max_connections=3) as where:
        idle = [await asyncio.open_connection("127.0.0.1", where.port) for _ in range(3)]
        assert statuses(await talk(where.port, GOOD)) == [503]
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(20):
            while await _health(where) != [200]:
                await asyncio.sleep(0.01)


async def test_random_damage_does_no_harm(tmp_path: Path) -> None:
    """Mutations of good requests: every answer is an HTTP answer below 500, and the server stays well."""
    dice = random.Random(20260728)
    pool = [
        GOOD,
        LAST,
        HEAD + CHUNKED + b"\r\n" + chunks(BODY, 50),
        GOOD * 3,
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    snippets = [
        b"\r\n",
        b"\n",
        b"\x00",
        b"\xff",
        b" ",
        b":",
        b"0",
        b"9" * 30,
        b"chunked",
        LENGTH,
        b'"id":1,',
        b"{",
        b"]",
    ]
    async with front(tmp_path, settings=Settings(body_patience=0.2), patience=0.2, idle=0.2) as where:

        async def one() -> None:
            said = bytearray(dice.choice(pool))
            for _ in range(dice.randint(1, 4)):
                at = dice.randrange(len(said))
                match dice.randrange(4):
                    case 0:
                        said[at] = dice.randrange(256)
                    case 1:
                        del said[at : at + dice.randint(1, 40)]
                    case 2:
                        said[at:at] = dice.choice(snippets)
                    case 3:
                        said[at:at] = said[dice.randrange(len(said)) :][: dice.randint(1, 200)]
                if not said:
                    break
            heard = await talk(where.port, bytes(said))
            found = statuses(heard)
            assert all(200 <= status < 500 or status == 505 for status in found), (bytes(said), heard)
            assert b"Traceback" not in heard

        for _ in range(40):
            await asyncio.gather(*(one() for _ in range(25)))
        assert await _health(where) == [200]
