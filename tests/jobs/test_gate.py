"""What HTTP requests a job server refuses before its dialect sees them, and how long it waits for one."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from intercept_py.jobs.gate import BODY_LIMIT
from intercept_py.jobs.serving import over_http
from intercept_py.transports.http_guard import is_loopback
from tests.support import web

pytestmark = pytest.mark.anyio

Headers = dict[str, str]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body of the request."""
    assert scope["type"] in ("http", "lifespan")
    if scope["type"] == "http":
        body = await Request(scope, receive).body()
        await JSONResponse({"got": body.decode()})(scope, receive, send)


@asynccontextmanager
async def serving(host: str = "127.0.0.1", patience: int = 10) -> AsyncIterator[tuple[str, int]]:
    """The echo behind the gate on a free port, reached over the loopback; a quarter of a minute's time."""
    with anyio.fail_after(15), socket.create_server((host, 0)) as listener:
        async with over_http(echo, listener, patience):
            yield ("127.0.0.1" if host == "0.0.0.0" else host), listener.getsockname()[1]


async def post(address: tuple[str, int], body: bytes = b"{}", headers: Headers | None = None) -> tuple[int, Any]:
    async with web.client() as http:
        answer = await http.post(f"http://{address[0]}:{address[1]}/", content=body, headers=headers)
        return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "127.0.0.1@evil.example"}, 421),
        ({"Host": "[::1"}, 421),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Encoding": "identity"}, 200),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json; charset=UTF-8"}, 200),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Type": "application/json; charset=utf-7"}, 415),
    ],
)
async def test_strangers_and_other_encodings_are_refused(headers: Headers, status: int) -> None:
    async with serving() as address:
        found, told = await post(address, headers=headers)
        assert found == status
        assert told == {"got": "{}"} if status == 200 else list(told) == ["error"]


async def test_on_an_address_for_all_only_other_hosts_may_be_named() -> None:
    async with serving("0.0.0.0") as address:
        named = {"Host": "jobs.example"}
        assert (await post(address, headers=named))[0] == 200
        assert (await post(address, headers={**named, "Origin": "http://jobs.example"}))[0] == 403


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 200, ""),
        (b'{"a": {"b": [1]}}', 200, ""),
        (b'{"id": 1, "id": 2}', 400, "request body: message has an object with a duplicate key"),
        (b'{"id": 1, "\\u0069d": 2}', 400, "duplicate key"),
        (b"[" * 65 + b"]" * 65, 400, "nested deeper than 64 levels"),
        (b"[" * 100_000, 400, "nested deeper than 64 levels"),
        (b'{"a": NaN}', 400, "not JSON"),
        (b'"\xff"', 400, "not JSON in UTF-8: invalid UTF-8"),
        ('{"a": 1}'.encode("utf-16"), 400, "not JSON"),
        (b" " * (BODY_LIMIT + 1), 413, f"longer than {BODY_LIMIT} bytes"),
    ],
)
async def test_a_body_is_json_that_every_parser_reads_alike(body: bytes, status: int, words: str) -> None:
    async with serving() as address:
        found, told = await post(address, body)
        assert (found, words in json.dumps(told)) == (status, True)


def talk(address: tuple[str, int], said: bytes) -> bytes:
    """All that is answered until the server hangs up."""
    with socket.create_connection(address) as connection:
        connection.settimeout(15)
        connection.sendall(said)
        answer = b""
        while data := connection.recv(4096):
            answer += data
        return answer


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", b""),
        (b"POST / HT", b""),
        (HEAD, b""),
        (HEAD + b"\r\n{", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /", b"HTTP/1.1 200 "),
    ],
)
async def test_who_does_not_finish_a_request_is_hung_up_on(said: bytes, answer: bytes) -> None:
    async with serving(patience=1) as address:
        told = await anyio.to_thread.run_sync(talk, address, said)
    assert told.startswith(answer)
    assert bool(told) == bool(answer)


async def test_a_request_on_one_connection_too_many_is_refused() -> None:
    async with serving() as address:
        idle = [await anyio.to_thread.run_sync(partial(socket.create_connection, address)) for _ in range(128)]
        try:
            async with web.client() as http:
                assert (await http.get(f"http://{address[0]}:{address[1]}/")).status_code == 503
        finally:
            for connection in idle:
                connection.close()
        while (await post(address))[0] != 200:
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("LOCALHOST", True),
        ("0.0.0.0", False), ("::", False), ("192.0.2.1", False), ("example.com", False), ("", False),
    ],
)  # fmt: skip
async def test_loopback_is_what_only_this_machine_reaches(host: str, local: bool) -> None:
    assert is_loopback(host) is local
