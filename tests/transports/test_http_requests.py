"""Requests over HTTP that are right but for some parts: each gets an answer, and none is a fault of ours."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_front import JSON, MODERN, Front, Scripted, call, front, message, talk

pytestmark = pytest.mark.anyio

Message = dict[str, Any]
REQUESTS: dict[str, Callable[[bool], Message]] = {
    "call": lambda modern: call("echo", modern=modern),
    "list": lambda modern: message("tools/list", modern=modern),
    "initialize": lambda modern: message("initialize", modern=modern, protocolVersion="2025-11-25", capabilities={}),
    "cancelled": lambda modern: message("notifications/cancelled", None, modern=modern, requestId=1),
    "listen": lambda modern: message("subscriptions/listen", modern=modern, notifications={"toolsListChanged": True}),
    "task": lambda modern: message("tasks/get", modern=modern, taskId="t"),
}
VALUES: list[Any] = [None, True, 7, 1.5, 2**60, "", "x", "\u00e9", [], [[]], {}, {"a": []}]
_MISSING = object()


def headers_of(told: Message, modern: bool) -> dict[str, str]:
    headers = {"Host": "127.0.0.1", **JSON}
    if modern:
        headers |= {**MODERN, "Mcp-Method": told["method"]}
        named = told["params"].get("name", told["params"].get("taskId"))
        headers |= {} if named is None else {"Mcp-Name": named}
    return headers


def server() -> Scripted:
    made = Scripted(one_stream=False, session=False)
    made.tools["echo"] = lambda link, one: link.answer(one.ticket or 0)
    return made


async def answered(where: Front, headers: dict[str, str], body: bytes, start: str = "POST /mcp") -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    said = f"{start} HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
    heard = await talk(where.port, said, until=b"\r\n\r\n")
    assert heard.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4")), (said, heard)


def spoilt(told: Message) -> Iterator[Message]:
    """A message in all its variants in which one member has another value, or is missing."""
    places: list[tuple[str, ...]] = [(key,) for key in told]
    places += [("params", key) for key in told["params"]]
    places += [("params", "_meta", key) for key in told["params"].get("_meta", {})]
    for *way, last in places:
        for value in [*VALUES, _MISSING]:
            made: Message = json.loads(json.dumps(told))
            within = made
            for key in way:
                within = within[key]
            if value is _MISSING:
                del within[last]
            else:
                within[last] = value
            yield made


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
@pytest.mark.parametrize("told", REQUESTS.values(), ids=REQUESTS)
async def test_no_member_with_another_value(tmp_path: Path, told: Callable[[bool], Message], modern: bool) -> None:
    right = told(modern)
    async with front(tmp_path, upstream=server()) as where:
        for headers in (headers_of(right, modern), JSON, JSON | MODERN):
            for wrong in spoilt(right):
                await answered(where, {"Host": "127.0.0.1"} | headers, json.dumps(wrong).encode())


NAMES = (
    "Accept", "Authorization", "Connection", "Content-Encoding", "Content-Type", "Expect", "Host", "Last-Event-ID",
    "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name", "Mcp-Param-X", "Mcp-Session-Id", "Origin", "traceparent",
)  # fmt: skip
SAID = (
    "", "\xff", "a" * 300, "x", "0", "-1", "*/*", "text/event-stream, */*", "application/json", "tools/call", "echo",
    "2026-07-28", "2025-11-25", "=?base64?eA==?=", "=?base64?!?=", "http://[", "close", "Basic eDp5",
)  # fmt: skip
PATHS = ("/mcp", "/mcp/", "//mcp", "/%6dcp", "/", "/healthz", "/readyz")
STARTS = [f"{verb} {path}" for verb in ("GET", "DELETE", "HEAD", "OPTIONS", "PUT", "POST") for path in PATHS]


async def test_no_head_and_body_of_mixed_parts(tmp_path: Path) -> None:
    dice = random.Random(20261122)
    pool: list[tuple[dict[str, str], Message]] = []
    for told in REQUESTS.values():
        for modern in (True, False):
            right = told(modern)
            pool += [(headers_of(right, modern), wrong) for wrong in (right, *spoilt(right))]
    async with front(tmp_path, upstream=server()) as where:
        for _ in range(3000):
            headers, body = dict(dice.choice(pool)[0]), json.dumps(dice.choice(pool)[1]).encode()
            for _ in range(dice.randrange(3)):
                name = dice.choice(NAMES)
                headers.pop(name, None)
                if dice.random() < 0.7:
                    headers[name] = dice.choice(SAID)
            start = "POST /mcp" if dice.random() < 0.7 else dice.choice(STARTS)
            await answered(where, headers, b"" if start.startswith(("GET", "HEAD")) else body, start)
