"""Web pages as clients: what a browser asks and looks for (Fetch standard, CORS), on each server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from intercept_py.transports.http_gateway import Settings
from tests.support import web
from tests.support.http_front import JSON, MODERN, RUNNERS, Front, Scripted, call, front, message, talk

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("runner", RUNNERS)]

APP = "https://app.example"
SETTINGS = Settings(origins=(APP, "http://localhost:5173", "chrome-extension://abcdefghijklmnop"), body_limit=100_000)
CALL = call("echo", modern=True)
HEADERS = {**JSON, **MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "echo", "Origin": APP}


async def ask(where: Front, method: str, path: str = "/mcp", body: Any = None, **headers: str) -> tuple[int, Any]:
    """The status and the headers of an answer."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    async with web.client() as client:
        root = where.url.removesuffix("/mcp")
        answer = await client.request(method, root + path, headers=told, content=body and json.dumps(body).encode())
    return answer.status_code, answer.headers


def preflight(origin: str, method: str = "POST", headers: str = "") -> dict[str, str]:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    return asked | ({"Access-Control-Request-Headers": headers} if headers else {})


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173", "chrome-extension://abcdefghijklmnop"])
async def test_a_browser_may_send_what_clients_send_without_a_token(tmp_path: Path, runner: str, origin: str) -> None:
    wanted = (
        "accept,Authorization,content-type,last-event-id,mcp-method,mcp-name,mcp-param-region,mcp-protocol-version,"
        "mcp-session-id,traceparent,tracestate"
    )
    async with front(tmp_path, runner, settings=SETTINGS, guarded=True) as where:
        status, told = await ask(where, "OPTIONS", **preflight(origin, headers=f"{wanted},x-other,cookie"))
        assert (status, told["access-control-allow-origin"], told["vary"].lower()) == (204, origin, "origin")
        assert set(told["access-control-allow-methods"].split(", ")) == {"GET", "POST", "DELETE"}
        assert told["access-control-allow-headers"].split(", ") == wanted.lower().split(",")
        assert "access-control-allow-credentials" not in told
        assert "content-length" not in told
        status, _ = await ask(where, "OPTIONS", **preflight(origin))
        assert status == 204


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil.example", "null", f"{APP}:8443"])
async def test_a_browser_is_told_nothing_for_other_pages(tmp_path: Path, runner: str, origin: str) -> None:
    async with front(tmp_path, runner, settings=SETTINGS) as where:
        for method, headers in (("OPTIONS", preflight(origin)), ("POST", HEADERS | {"Origin": origin})):
            status, told = await ask(where, method, body=CALL if method == "POST" else None, **headers)
            assert status == 403
            assert not [name for name in told if name.startswith("access-control")]
        assert where.upstream.methods() == []


async def test_a_page_of_this_machine_reads_nothing_unless_it_is_listed(tmp_path: Path, runner: str) -> None:
    origin = "http://localhost:8080"
    async with front(tmp_path, runner, settings=SETTINGS) as where:
        tried = (("OPTIONS", preflight(origin), 405), ("POST", HEADERS | {"Origin": origin}, 200))
        for method, headers, expected in tried:
            status, told = await ask(where, method, body=CALL if method == "POST" else None, **headers)
            assert status == expected
            assert not [name for name in told if name.startswith("access-control")]


async def test_only_a_listed_page_may_ask_where_others_than_this_machine_call(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner, settings=Settings(local=False, origins=(APP,))) as where:
        assert (await ask(where, "OPTIONS", **preflight("http://localhost:5173")))[0] == 403
        assert (await ask(where, "OPTIONS", **preflight(APP)))[0] == 204


async def test_a_page_reads_what_its_session_is_and_what_is_streamed(tmp_path: Path, runner: str) -> None:
    upstream = Scripted()

    def stream(link: Any, one: Any) -> None:
        link.say("notifications/message", one.ticket or 0, level="info", data="x")
        link.answer(one.ticket or 0)

    upstream.tools["stream"] = stream
    async with front(tmp_path, runner, upstream, SETTINGS) as where:
        opened = message("initialize", 0, protocolVersion="2025-11-25")
        status, told = await ask(where, "POST", body=opened, **JSON, Origin=APP)
        assert (status, told["access-control-allow-origin"]) == (200, APP)
        exposed = told["access-control-expose-headers"].split(", ")
        assert {"mcp-session-id", "www-authenticate", "retry-after"} == set(exposed)
        session = {"Mcp-Session-Id": told["mcp-session-id"], "Origin": APP}
        status, told = await ask(where, "POST", body=call("stream"), **JSON, **session)
        assert (status, told["content-type"], told["access-control-allow-origin"]) == (200, "text/event-stream", APP)
        assert (await ask(where, "DELETE", **session))[1]["access-control-allow-origin"] == APP


@pytest.mark.parametrize(
    ("method", "path", "change", "status"),
    [
        ("POST", "/mcp", {"Authorization": "Bearer alice"}, 200),
        ("POST", "/mcp", {}, 401),
        ("POST", "/mcp", {"Authorization": "Bearer slow mallory"}, 403),
        ("POST", "/mcp", {"Authorization": "Bearer slow bug"}, 500),
        ("POST", "/mcp", {"Authorization": "Bearer alice", "Content-Type": "text/plain"}, 415),
        ("POST", "/mcp", {"Authorization": "Bearer alice", "Mcp-Name": "other"}, 400),
        ("POST", "/other", {"Authorization": "Bearer alice"}, 404),
        ("GET", "/mcp", {"Authorization": "Bearer alice", "Mcp-Session-Id": "none"}, 405),
        ("DELETE", "/mcp", {"Authorization": "Bearer alice", "MCP-Protocol-Version": "2025-11-25",
                            "Mcp-Session-Id": "none"}, 404),
        ("OPTIONS", "/mcp", {"Authorization": "Bearer alice"}, 405),
        ("GET", "/healthz", {}, 200),
        ("GET", "/readyz", {}, 200),
    ],
)  # fmt: skip
async def test_a_page_reads_why_it_is_refused(
    tmp_path: Path, runner: str, method: str, path: str, change: dict[str, str], status: int
) -> None:
    async with front(tmp_path, runner, settings=SETTINGS, guarded=True) as where:
        for _ in range(3):  # what was read out of a head is kept
            got, told = await ask(where, method, path, CALL if method == "POST" else None, **(HEADERS | change))
            assert (got, told.get_list("access-control-allow-origin")) == (status, [APP])
            assert (told["vary"].lower(), "access-control-expose-headers" in told) == ("origin", True)


@pytest.mark.parametrize(
    ("rest", "status"),
    [(b"Content-Length: 100001\r\n\r\n" + b" " * 100_001, 413), (b"Content-Length: 2\r\n\r\n{", 408)],
)
async def test_a_page_reads_why_its_body_is_refused(tmp_path: Path, runner: str, rest: bytes, status: int) -> None:
    settings = Settings(origins=(APP,), body_limit=100_000, body_patience=0.3)
    async with front(tmp_path, runner, settings=settings) as where:
        fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        said = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\n{fields}".encode() + rest
        heard = await talk(where.port, said, until=b"\r\n\r\n")
        assert heard.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\naccess-control-allow-origin: https://app.example\r\n" in heard


async def test_who_is_no_page_gets_no_more_than_before(tmp_path: Path, runner: str) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != "Origin"}
    async with front(tmp_path, runner, settings=SETTINGS) as where:
        told = (await ask(where, "POST", body=CALL, **headers))[1]
        assert not [name for name in told if name.startswith("access-control") or name == "vary"]
