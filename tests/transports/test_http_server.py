"""The HTTP side on each server: which message reaches which conversation, what is refused, how answers are told."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount as StarletteMount

from intercept_py.errors import ProtocolError
from intercept_py.transports.conversation import Event
from intercept_py.transports.http_exchange import STREAM_LIMIT
from intercept_py.transports.http_gateway import Document, Settings
from intercept_py.transports.http_server import create_app
from intercept_py.wire.commands import ToUpstream
from intercept_py.wire.messages import Arrival
from tests.support import web
from tests.support.http_front import JSON, MODERN, RUNNERS, Front, Link, Scripted, call, front, message, talk

pytestmark = pytest.mark.anyio


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def http(**options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with web.client(**options) as client:
        yield client


def modern_headers(body: dict[str, Any]) -> dict[str, str]:
    told = {**JSON, **MODERN, "Mcp-Method": body["method"]}
    if "name" in body["params"]:
        told["Mcp-Name"] = body["params"]["name"]
    return told


async def post(
    where: Front, body: dict[str, Any] | bytes, headers: dict[str, str] | None = None, **more: str
) -> httpx2.Response:
    """A POST of a modern message with the headers it needs, unless others are given."""
    if headers is None:
        assert isinstance(body, dict)
        headers = modern_headers(body)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with http() as client:
        return await client.post(where.url, content=data, headers={**headers, **more})


async def begin(where: Front, **more: str) -> dict[str, str]:
    """Open a session: the headers that its requests have."""
    answer = await post(where, message("initialize", 0, protocolVersion="2025-11-25"), JSON, **more)
    assert answer.status_code == 200, answer.text
    return {**JSON, "Mcp-Session-Id": answer.headers["mcp-session-id"], **more}


def events(text: str) -> list[Any]:
    """The data of all events."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def last(answer: httpx2.Response) -> Any:
    """The answer itself, whichever way it was told."""
    return events(answer.text)[-1] if "event-stream" in answer.headers["content-type"] else answer.json()


# ---- one POST


async def test_a_call_is_answered_with_json_and_headers_of_ours_alone(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where:
        answer = await post(where, call("echo", "a", modern=True, x=1))
        assert (answer.status_code, answer.json()["id"]) == (200, "a")
        assert answer.json()["result"]["content"][0]["text"] == '{"x": 1}'
        told = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
        assert told.pop("server", "uvicorn" if runner != "ours" else None) in (None, "uvicorn")
        assert told == {"content-type": "application/json", "cache-control": "no-store"}
        assert where.upstream.links[0].left


async def test_a_call_that_policy_forbids_never_reaches_the_server(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where:
        answer = await post(where, call("forbidden", modern=True))
        assert (answer.status_code, answer.json()["result"]["isError"]) == (200, True)
        assert where.upstream.methods() == []


@pytest.mark.parametrize(
    ("code", "status"),
    [(-32700, 400), (-32600, 400), (-32602, 400), (-32020, 400), (-32021, 400), (-32022, 400), (-32601, 404),
     (-32603, 200), (-31403, 200), (7, 200)],
)  # fmt: skip
async def test_the_status_of_an_error_follows_its_code_in_the_modern_era_alone(
    tmp_path: Path, code: int, status: int
) -> None:
    async with front(tmp_path, upstream=Scripted(one_stream=False, session=False)) as where:
        where.upstream.tools["fail"] = lambda link, one: link.fail(one.ticket or 0, code)
        answer = await post(where, call("fail", modern=True))
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert (await post(where, call("fail"), JSON)).status_code == 200


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
)
async def test_methods_that_the_modern_era_removed_are_not_found(tmp_path: Path, runner: str, method: str) -> None:
    async with front(tmp_path, runner) as where:
        answer = await post(where, message(method, modern=True))
        assert (answer.status_code, answer.json()["error"]["code"], answer.json()["id"]) == (404, -32601, 1)
        assert where.upstream.links == []


ECHO = call("echo", modern=True)
OLD = call("echo")


@pytest.mark.parametrize(
    ("body", "change", "status", "code"),
    [
        (ECHO, {"Mcp-Method": "tools/list"}, 400, -32020),
        (ECHO, {"Mcp-Method": ""}, 400, -32020),
        (ECHO, {"Mcp-Name": "other"}, 400, -32020),
        (ECHO, {"Mcp-Name": "=?base64?ZWNobw==?="}, 200, None),
        (ECHO, {"MCP-Protocol-Version": "2025-11-25"}, 400, -32020),
        (ECHO, {"MCP-Protocol-Version": "2027-01-01"}, 400, -32020),
        (OLD, {}, 400, -32602),
        (OLD, {"MCP-Protocol-Version": "1900-01-01"}, 400, -32602),
        ({**ECHO, "params": {**ECHO["params"], "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}},
         {}, 400, -32602),
        ({**ECHO, "id": None}, {}, 400, -32600),
        ({**ECHO, "id": True}, {}, 400, -32600),
        ({**ECHO, "extra": 1}, {}, 400, -32600),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, {}, 400, -32600),
        (b"[]", {}, 400, -32600),
        (b"7", {}, 400, -32600),
        (b"{", {}, 400, -32700),
        (b"", {}, 400, -32700),
        (b'{"a": NaN}', {}, 400, -32700),
        (b'{"a":"\xff"}', {}, 400, -32700),
        (b"[" * 100_000, {}, 400, -32600),
        (json.dumps(ECHO).replace('"id": 1', '"id": 1, "id": 2').encode(), {}, 400, -32600),
        ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}, {}, 202, None),
        ({"jsonrpc": "2.0", "method": "notifications/x"}, {"MCP-Protocol-Version": "2027-01-01"}, 400, -32022),
    ],
)  # fmt: skip
async def test_what_a_modern_request_lacks_is_told(
    tmp_path: Path, body: dict[str, Any] | bytes, change: dict[str, str], status: int, code: int | None
) -> None:
    async with front(tmp_path) as where:
        answer = await post(where, body, {**modern_headers(ECHO), **change})
        assert answer.status_code == status, answer.text
        if code is not None:
            assert answer.json()["error"]["code"] == code
            assert where.upstream.methods() == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Type": "application/json;charset=UTF-8"}, 200),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity"}, 200),
        ({"Accept": "application/json"}, 406),
        ({"Accept": "text/event-stream"}, 406),
        ({"Accept": "text/html, */*;q=0.1"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "localhost:"}, 200),
        ({"Host": "127.0.0.1@evil.example"}, 400),
        ({"Host": "evil.example@localhost"}, 400),
        ({"Host": "localhost/evil"}, 400),
        ({"Host": "localhost?evil"}, 400),
        ({"Host": "127.0.0.1#evil.example"}, 400),
        ({"Host": "[::1]evil"}, 400),
        ({"Host": "[::1"}, 400),
        ({"Host": "[:::1]"}, 400),
        ({"Host": "localhost:99999"}, 400),
        ({"Host": "localhost:-1"}, 400),
        ({"Host": "proxy.example@localhost"}, 400),
        ({"Host": "proxy.example:99"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:5000"}, 200),
        ({"Origin": "https://[::1]"}, 200),
        ({"Origin": "http://evil.example\\@localhost"}, 403),
        ({"Origin": "http://evil.example@localhost"}, 403),
        ({"Origin": "chrome-extension://localhost"}, 403),
        ({"Origin": "//localhost"}, 403),
        ({"Origin": "http://localhost/"}, 403),
        ({"Origin": "http://localhost:99999"}, 403),
        ({"Origin": "https://app.example"}, 200),
        ({"Origin": "https://app.example.evil.example"}, 403),
        ({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}, 200),
    ],
)
async def test_the_head_of_a_request_is_checked(
    tmp_path: Path, runner: str, headers: dict[str, str], status: int
) -> None:
    settings = Settings(hosts=("proxy.example",), origins=("https://app.example",))
    async with front(tmp_path, runner, settings=settings) as where:
        for _ in range(2):  # what was found good is remembered
            answer = await post(where, call("echo", modern=True), modern_headers(ECHO) | headers)
            assert answer.status_code == status, answer.text
            assert status == 200 or answer.json()["error"]["code"] == -32600


async def test_a_head_that_agreed_with_one_call_does_not_agree_with_another(tmp_path: Path, runner: str) -> None:
    headers = modern_headers(ECHO)
    async with front(tmp_path, runner) as where:
        for _ in range(4):  # what was read out of a head is kept
            assert (await post(where, ECHO, headers)).status_code == 200
        answer = await post(where, call("hold", modern=True), headers)  # which is as long
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
        version = call("echo", modern=True)
        version["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-29"
        answer = await post(where, version, headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
        assert where.upstream.methods().count("tools/call") == 4


NOT_THE_MOON = """version: "1"
default: allow
tools: {start: {rules: [{conditions: [{path: args.region, op: neq, value: moon}]}]}}
"""
REGION = {"type": "string", "x-mcp-header": "Region"}


async def test_the_head_of_a_call_agrees_with_the_arguments_that_its_tool_has_it_repeat(
    tmp_path: Path, runner: str
) -> None:
    upstream = Scripted()
    upstream.listed = [{"name": "start", "inputSchema": {"type": "object", "properties": {"region": REGION}}}]
    async with front(tmp_path, runner, upstream, policy=NOT_THE_MOON) as where:

        async def start(region: str, **headers: str) -> tuple[int, int | None]:
            told = call("start", modern=True, region=region)
            answer = await post(where, told, modern_headers(told) | headers)
            return answer.status_code, answer.json().get("error", {}).get("code")

        # Its tools are not known yet: they are asked for before the first call goes on.
        assert await start("us", **{"Mcp-Param-Region": "eu"}) == (400, -32020)
        for _ in range(4):  # what was read out of a head is kept
            assert await start("eu", **{"Mcp-Param-Region": "eu"}) == (200, None)
        assert await start("us", **{"Mcp-Param-Region": "eu"}) == (400, -32020)
        assert await start("eu") == (400, -32020)
        assert upstream.methods().count("tools/call") == 4
        assert upstream.methods().count("tools/list") == 1
        upstream.links[0].say("notifications/tools/list_changed")
        assert await start("eu") == (400, -32020)
        assert upstream.methods().count("tools/list") == 2


class Unlisted(Scripted):
    """One that knows no `tools/list`, or whose answer is nonsense."""

    def __init__(self, listed: list[Any] | None) -> None:
        super().__init__()
        self.listed = listed

    def connect(self, *args: Any) -> Any:
        listed, self.listed = self.listed, []  # so that nothing is known before anybody has asked
        made = super().connect(*args)
        self.listed = listed
        return made


@pytest.mark.parametrize("listed", [None, ["nonsense"]])
async def test_a_server_that_lists_no_tools_is_not_asked_at_every_call(
    tmp_path: Path, runner: str, listed: list[Any] | None
) -> None:
    upstream = Unlisted(listed)
    told = call("start", modern=True, region="eu")
    async with front(tmp_path, runner, upstream) as where:
        for _ in range(5):
            assert (await post(where, told)).status_code == 200
            # Nobody can say whether this is true, and others may have routed by it.
            answer = await post(where, told, modern_headers(told) | {"Mcp-Param-Region": "us"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    assert upstream.methods().count("tools/call") == 5
    assert upstream.methods().count("tools/list") <= 2  # the list may have been forgotten meanwhile


@pytest.mark.parametrize(
    "body", [b'{"id":1', b"[]", b'{"jsonrpc":"2.0","id":1,"id":2,"method":"initialize"}', b'{"id":{}}']
)
async def test_a_body_that_is_refused_is_not_kept_until_somebody_looks_for_garbage(
    tmp_path: Path, runner: str, body: bytes
) -> None:
    async with front(tmp_path, runner) as where:
        await post(where, body, JSON)
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            assert (await post(where, body, JSON)).status_code == 400
            gc.collect()
            assert not [thing for thing in gc.garbage if isinstance(thing, ProtocolError)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()


async def test_a_message_takes_along_what_its_own_request_said_besides(tmp_path: Path, runner: str) -> None:
    parents = [f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333{number}-01" for number in range(2)]
    async with front(tmp_path, runner) as where:
        for parent in (*parents, None):
            headers = {} if parent is None else {"traceparent": parent, "tracestate": "a=b"}
            assert (await post(where, ECHO, modern_headers(ECHO) | headers)).status_code == 200
        arrivals = [told.arrival for link in where.upstream.links for told in link.told if told.method == "tools/call"]
    assert all(one is not None and (b"mcp-name", b"echo") in one.mcp for one in arrivals)
    besides = [msgspec.structs.replace(one, mcp=()) for one in arrivals if one is not None]
    assert besides == [Arrival(parent, parent and "a=b", "2026-07-28") for parent in (*parents, None)]


async def test_messages_of_a_session_take_along_what_their_requests_said_besides(tmp_path: Path, runner: str) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with front(tmp_path, runner) as where:
        traced = await begin(where, traceparent=parent)
        holding = asyncio.ensure_future(post(where, call("hold", 5), traced))
        await where.upstream.until(lambda: "tools/call" in where.upstream.methods())
        await post(where, message("notifications/cancelled", None, requestId=5), traced)
        (link,) = where.upstream.links
        link.fail(next(told.ticket or 0 for told in link.told if told.method == "tools/call"), -32000)
        await holding
        arrivals = {told.method: told.arrival and told.arrival.traceparent for told in link.told}
    assert arrivals == dict.fromkeys(("initialize", "tools/call", "notifications/cancelled"), parent)


@pytest.mark.parametrize("name", ["mcp-method", "MCP-Name", "mcp-protocol-version", "Content-Type", "Origin"])
async def test_a_field_that_only_one_reader_may_see_is_refused_twice(tmp_path: Path, runner: str, name: str) -> None:
    async with front(tmp_path, runner) as where, http() as client:
        told = [*modern_headers(ECHO).items(), ("Origin", "http://localhost")]
        told += [(key, value) for key, value in told if key.lower() == name.lower()]
        answer = await client.post(where.url, json=ECHO, headers=told)
        assert (answer.status_code, where.upstream.methods()) == (400, [])


async def test_a_body_is_bounded_in_size_and_time(tmp_path: Path, runner: str) -> None:
    settings = Settings(body_limit=1000, body_patience=0.5)
    head = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with front(tmp_path, runner, settings=settings, patience=0.5) as where:
        assert (await post(where, b" " * 1001, modern_headers(ECHO))).status_code == 413
        answer = await talk(where.port, head + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b" " * 1001 + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        answer = await talk(where.port, head + b"Content-Length: 2\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert (await post(where, ECHO)).status_code == 200


async def test_other_paths_and_methods_are_refused(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where, http() as client:
        root = where.url.removesuffix("/mcp")
        assert (await client.get(f"{root}/other")).status_code == 404
        assert (await client.get(f"{root}/mcp/")).status_code == 404
        for method in ("PUT", "PATCH", "OPTIONS", "HEAD"):
            answer = await client.request(method, where.url)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, DELETE")
        answer = await client.post(f"{root}/healthz", headers=JSON)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        for method in ("GET", "DELETE"):
            answer = await client.request(method, where.url, headers={**MODERN, "Accept": "text/event-stream"})
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# ---- who calls


async def test_who_may_not_call_gets_the_challenge_and_no_hint(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner, guarded=True) as where:
        answer = await post(where, ECHO)
        assert (answer.status_code, answer.content) == (401, b"{}")
        assert answer.headers["www-authenticate"] == 'Bearer realm="mcp"'
        answer = await post(where, ECHO, modern_headers(ECHO), Authorization="Bearer slow mallory")
        assert (answer.status_code, answer.content) == (403, b"{}")
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
        assert where.upstream.links == []
        for name in ("alice", "slow alice"):
            answer = await post(where, ECHO, modern_headers(ECHO), Authorization=f"Bearer {name}")
            assert answer.status_code == 200


@pytest.mark.parametrize(("name", "status"), [("mallory", 403), ("alice", 200), ("bug", 500)])
async def test_a_body_is_not_read_before_it_is_known_who_sends_it(
    tmp_path: Path, runner: str, name: str, status: int
) -> None:
    size = 32 * 1024 * 1024  # more than the kernel keeps for a connection
    async with front(tmp_path, runner, settings=Settings(body_limit=2 * size), guarded=True) as where:
        where.mount.door.clear()
        told = {**modern_headers(ECHO), "Authorization": f"Bearer slow {name}", "Content-Length": str(size)}
        head = "".join(f"{key}: {value}\r\n" for key, value in told.items())
        reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
        writer.write(f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n".encode())
        await asyncio.wait_for(where.mount.asked.wait(), 20)
        writer.write(json.dumps(ECHO).encode().ljust(size))
        before = -1
        while before != (left := writer.transport.get_write_buffer_size()):
            before = left
            await asyncio.sleep(0.2)
        assert left > size / 2
        where.mount.door.set()
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 %d " % status)
        writer.close()


async def test_a_bug_in_finding_out_who_calls_is_answered(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner, guarded=True) as where:
        answer = await post(where, ECHO, modern_headers(ECHO), Authorization="Bearer slow bug")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, -32603)
        assert where.upstream.links == []


@pytest.mark.parametrize("slow", ["", "slow "])
async def test_who_is_revoked_does_not_listen_any_longer(tmp_path: Path, runner: str, slow: str) -> None:
    async with front(tmp_path, runner, settings=Settings(heartbeat=0.05), guarded=True) as where:
        where.upstream.tools["hold"] = lambda link, one: None
        authorization = {"Authorization": f"Bearer {slow}alice"}
        headers = await begin(where, **authorization)
        subscribe = message("subscriptions/listen", 5, modern=True, notifications={})
        where.upstream.act = lambda link, one: link.receiver.opened(one.ticket or 0)
        async with (
            listening(where, headers) as stream,
            streamed(where, subscribe, {**modern_headers(subscribe), **authorization}) as subscription,
        ):
            for answer in (stream, subscription):
                assert answer.status_code == 200
            where.mount.revoked = frozenset({"alice"})
            for answer in (stream, subscription):
                assert b"data:" not in await answer.aread()
        await where.upstream.until(lambda: not where.upstream.links[0].listening)
        await where.upstream.until(lambda: "notifications/cancelled" in where.upstream.methods())


async def test_a_session_belongs_to_who_opened_it(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner, guarded=True) as where:
        headers = await begin(where, Authorization="Bearer alice")
        assert (await post(where, OLD, headers)).status_code == 200
        stranger = {**headers, "Authorization": "Bearer slow bob"}
        assert (await post(where, OLD, stranger)).status_code == 404
        async with http() as client:
            assert (await client.delete(where.url, headers=stranger)).status_code == 404
        assert (await post(where, OLD, headers)).status_code == 200


async def test_probes_are_for_this_machine_or_for_callers_or_for_all(tmp_path: Path, runner: str) -> None:
    documents = {
        "/metrics": Document("text/plain; version=0.0.4", lambda: b"calls 1\n"),
        "/open": Document("application/json", lambda: b"[]", open=True),
    }
    for settings, status in ((Settings(), 200), (Settings(local=False), 401), (Settings(False, open_probes=True), 200)):
        options: dict[str, Any] = {"settings": settings, "guarded": True, "documents": documents}
        async with front(tmp_path, runner, **options) as where, http() as client:
            root = where.url.removesuffix("/mcp")
            assert (await client.get(f"{root}/healthz")).status_code == 200
            for path in ("/readyz", "/metrics"):
                assert (await client.get(root + path)).status_code == status
                known = await client.get(root + path, headers={"Authorization": "Bearer slow alice"})
                assert known.status_code == 200
            assert (await client.get(f"{root}/open")).status_code == 200
            for path in ("/healthz", "/readyz", "/metrics", "/open"):
                probe, head = await client.get(root + path), await client.head(root + path)
                assert (head.status_code, head.content) == (probe.status_code, b"")
                assert head.headers["content-type"] == probe.headers["content-type"]
            assert (await client.post(f"{root}/open", json=1)).status_code == 405
            assert known.headers["content-type"] == "text/plain; version=0.0.4"
            assert known.text == "calls 1\n"


# ---- sessions of the eras that have them


async def test_a_session_is_opened_used_and_ended(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where, http() as client:
        headers = await begin(where)
        (link,) = where.upstream.links
        assert (await post(where, message("notifications/initialized", None), headers)).status_code == 202
        answer = await post(where, call("echo", 7, x=2), headers)
        assert answer.headers["content-type"] == "text/event-stream"
        assert [event["id"] for event in events(answer.text)] == [7]
        assert where.upstream.methods() == ["initialize", "notifications/initialized", "tools/call"]
        assert (await client.delete(where.url, headers=headers)).status_code == 200
        assert link.closed
        assert (await post(where, OLD, headers)).status_code == 404
        assert (await client.delete(where.url, headers=headers)).status_code == 404


async def test_without_a_session_there_is_only_initialize(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where, http() as client:
        listening = {"Accept": "text/event-stream"}
        assert (await post(where, OLD, JSON)).status_code == 400
        assert (await post(where, OLD, JSON | {"Mcp-Session-Id": "no such"})).status_code == 404
        assert (await client.get(where.url, headers=listening)).status_code == 400
        assert (await client.get(where.url, headers=listening | {"Mcp-Session-Id": "x"})).status_code == 404
        assert (await client.delete(where.url)).status_code == 400
        assert (await post(where, b'{"jsonrpc":"2.0","id":1,"id":2,"method":"initialize"}', JSON)).status_code == 400
        assert where.upstream.links == []


async def test_a_server_without_sessions_is_asked_once_for_each_post(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner, Scripted(one_stream=False, session=False)) as where, http() as client:
        answer = await post(where, message("initialize", protocolVersion="2025-11-25"), JSON)
        assert answer.status_code == 200
        assert "mcp-session-id" not in answer.headers
        assert (await post(where, message("notifications/initialized", None), JSON)).status_code == 202
        assert (await post(where, OLD, JSON)).json()["id"] == 1
        assert len(where.upstream.links) == 3
        assert (await client.get(where.url, headers={"Accept": "text/event-stream"})).status_code == 405


async def test_an_initialize_that_fails_leaves_nothing_behind(tmp_path: Path, runner: str) -> None:
    upstream = Scripted()

    def refuse(link: Link, one: ToUpstream) -> None:
        link.fail(one.ticket or 0, -32602)

    upstream.act = refuse
    async with front(tmp_path, runner, upstream) as where:
        answer = await post(where, message("initialize"), JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32602)
        assert "mcp-session-id" not in answer.headers
        await upstream.until(lambda: upstream.links[0].closed)


async def test_sessions_are_bounded_and_end_when_idle(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner, settings=Settings(max_sessions=1, session_idle=0.4)) as where:
        headers = await begin(where)
        answer = await post(where, message("initialize"), JSON)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert len(where.upstream.links) == 1
        await where.upstream.until(lambda: where.upstream.links[0].closed)
        assert (await post(where, OLD, headers)).status_code == 404
        await begin(where)


async def test_nobody_takes_all_sessions_so_that_others_get_none(tmp_path: Path) -> None:
    async with front(tmp_path, settings=Settings(max_sessions=20), guarded=True) as where:

        async def opened(name: str) -> int:
            body = message("initialize", 0, protocolVersion="2025-11-25")
            return (await post(where, body, JSON, Authorization=f"Bearer {name}")).status_code

        assert [await opened("hog") for _ in range(20)] == [200] * 18 + [503] * 2
        assert [await opened(name) for name in ("ada", "ada", "bob", "cyd")] == [200, 503, 200, 503]


async def test_a_request_at_the_server_keeps_its_session(tmp_path: Path) -> None:
    async with front(tmp_path, settings=Settings(session_idle=0.2)) as where:
        headers = await begin(where)
        waiting = asyncio.ensure_future(post(where, call("hold", 5), headers))
        await where.upstream.until(lambda: "tools/call" in where.upstream.methods())
        (link,) = where.upstream.links
        await asyncio.sleep(0.6)
        assert not link.closed
        link.answer(link.told[-1].ticket or 0)
        assert last(await waiting) == {"jsonrpc": "2.0", "id": 5, "result": {}}


async def test_a_server_that_ends_takes_its_session_along(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where:
        headers = await begin(where)
        waiting = asyncio.ensure_future(post(where, call("hold", 5), headers))
        await where.upstream.until(lambda: "tools/call" in where.upstream.methods())
        where.upstream.links[0].receiver.gone("it ended")
        answer = await waiting
        assert (answer.status_code, last(answer)["error"]["message"]) == (200, "it ended")
        assert (await post(where, OLD, headers)).status_code == 404


async def test_what_waits_is_answered_when_the_client_ends_the_session(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where, http() as client:
        headers = await begin(where)
        waiting = asyncio.ensure_future(post(where, call("hold", 5), headers))
        await where.upstream.until(lambda: "tools/call" in where.upstream.methods())
        assert (await client.delete(where.url, headers=headers)).status_code == 200
        assert last(await waiting)["id"] == 5


async def test_a_second_request_with_an_id_in_flight_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    async with front(tmp_path) as where:
        headers = await begin(where)
        first = asyncio.ensure_future(post(where, call("hold", 5), headers))
        await where.upstream.until(lambda: "tools/call" in where.upstream.methods())
        second = await post(where, call("hold", 5), headers)
        assert (second.status_code, second.json()["id"]) == (400, None)
        (link,) = where.upstream.links
        link.answer(link.told[-1].ticket or 0)
        assert last(await first) == {"jsonrpc": "2.0", "id": 5, "result": {}}


# ---- streams


@asynccontextmanager
async def streamed(where: Front, body: dict[str, Any], headers: dict[str, str]) -> AsyncIterator[httpx2.Response]:
    async with http() as client, client.stream("POST", where.url, json=body, headers=headers) as answer:
        yield answer


@asynccontextmanager
async def listening(where: Front, headers: dict[str, str], **more: str) -> AsyncIterator[httpx2.Response]:
    told = {**headers, "Accept": "text/event-stream", **more}
    async with http() as client, client.stream("GET", where.url, headers=told) as answer:
        yield answer


async def lines(answer: httpx2.Response, number: int) -> list[str]:
    """So many lines of a stream that is not blank, as they come."""
    found: list[str] = []
    async for line in answer.aiter_lines():
        if line:
            found.append(line)
        if len(found) == number:
            return found
    return found


@pytest.mark.parametrize("modern", [True, False])
async def test_what_comes_before_an_answer_is_streamed_at_once(tmp_path: Path, runner: str, modern: bool) -> None:
    async with front(tmp_path, runner) as where:
        headers = modern_headers(call("talk", modern=True)) if modern else await begin(where)

        def speak(link: Link, one: ToUpstream) -> None:
            link.say("notifications/message", stream=one.ticket or 0, level="info", data="working")

        where.upstream.tools["talk"] = speak
        async with streamed(where, call("talk", 3, modern=modern), headers) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["x-accel-buffering"] == "no"
            assert answer.headers["cache-control"] == "no-store"
            told = answer.aiter_lines()
            assert await anext(told) == "event: message"
            assert json.loads((await anext(told))[6:])["params"]["data"] == "working"
            link = where.upstream.links[-1]
            link.answer(link.told[-1].ticket or 0)
            rest = [line async for line in told if line.startswith("data")]
            assert json.loads(rest[0][6:]) == {"jsonrpc": "2.0", "id": 3, "result": {}}
            assert len(rest) == 1


async def test_a_stream_of_the_servers_is_one_of_ours_with_its_marks(tmp_path: Path, runner: str) -> None:
    upstream = Scripted()

    def begin_stream(link: Link, one: ToUpstream) -> None:
        ticket = one.ticket or 0
        link.receiver.opened(ticket)
        link.receiver.from_upstream([], ticket, Event("e0", 500))
        link.say("notifications/message", ticket, Event("e1"), level="info", data="x")
        link.receiver.ended(ticket)

    upstream.tools["poll"] = begin_stream
    upstream.on_listen = lambda link, stream: None
    async with front(tmp_path, runner, upstream) as where:
        headers = await begin(where)
        answer = await post(where, call("poll", 9), headers)
        assert answer.status_code == 200
        assert [line for line in answer.text.splitlines() if line.startswith(("id", "retry"))] == [
            "id: e0", "retry: 500", "id: e1",
        ]  # fmt: skip
        assert len(events(answer.text)) == 1
        (link,) = upstream.links
        resumed = asyncio.ensure_future(_read_all(where, headers, {"Last-Event-ID": "e1"}))
        await upstream.until(lambda: bool(link.listening))
        assert link.listening == {-1: "e1"}
        link.receiver.opened(-1)
        link.answer(link.told[-1].ticket or 0, stream=-1, event=Event("e2"))
        link.receiver.ended(-1)
        text = await resumed
        assert "id: e2" in text
        assert events(text) == [{"jsonrpc": "2.0", "id": 9, "result": {}}]


async def _read_all(where: Front, headers: dict[str, str], more: dict[str, str]) -> str:
    async with listening(where, headers, **more) as answer:
        return (await answer.aread()).decode()


async def test_what_a_server_says_unasked_goes_where_its_client_listens(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where:
        headers = await begin(where)
        (link,) = where.upstream.links
        link.say("notifications/tools/list_changed")  # nobody listens yet
        async with listening(where, headers) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            told = stream.aiter_lines()
            assert await anext(told) == "event: message"
            assert "list_changed" in await anext(told)
            link.say("notifications/message", level="info", data="more")
            assert [await anext(told) for _ in range(3)][2].endswith('"more"}}')
        await where.upstream.until(lambda: not link.listening)

        waiting = asyncio.ensure_future(post(where, call("hold", 5), headers))
        await where.upstream.until(lambda: "tools/call" in where.upstream.methods())
        link.say("notifications/message", level="info", data="in passing")
        link.answer(link.told[-1].ticket or 0)
        first, last = events((await waiting).text)
        assert (first["params"]["data"], last["id"]) == ("in passing", 5)


async def test_a_status_of_the_servers_is_passed_on(tmp_path: Path, runner: str) -> None:
    upstream = Scripted(one_stream=False)
    upstream.on_listen = lambda link, stream: link.receiver.status(stream, 405, b"")
    upstream.tools["lost"] = lambda link, one: link.receiver.status(one.ticket or 0, 404, b'{"error":1}')
    async with front(tmp_path, runner, upstream) as where:
        headers = await begin(where)
        async with listening(where, headers) as answer:
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        lost = await post(where, call("lost"), headers)
        assert (lost.status_code, lost.json()) == (404, {"error": 1})
        lost = await post(where, call("lost", modern=True))
        assert (lost.status_code, lost.json()) == (404, {"error": 1})


async def test_a_status_without_an_error_becomes_one_that_says_so(tmp_path: Path, runner: str) -> None:
    upstream = Scripted(one_stream=False)
    upstream.tools["busy"] = lambda link, one: link.receiver.status(one.ticket or 0, 429, b"")
    upstream.tools["lost"] = lambda link, one: link.receiver.status(one.ticket or 0, 404, b"")
    async with front(tmp_path, runner, upstream) as where:
        headers = await begin(where)
        for answer in (await post(where, call("busy", 7), headers), await post(where, call("busy", 7, modern=True))):
            error = {"code": -32603, "message": "the server answered with HTTP status 429"}
            assert (answer.status_code, answer.json()) == (429, {"jsonrpc": "2.0", "id": 7, "error": error})
        lost = await post(where, call("lost"), headers)
        assert (lost.status_code, lost.content) == (404, b"")


@pytest.mark.parametrize(
    ("status", "told"), [(404, 404), (503, 503), (520, 502), (499, 502), (599, 502), (430, 502), (101, 502), (302, 502)]
)
async def test_a_status_that_nobody_knows_is_a_bad_gateway(tmp_path: Path, runner: str, status: int, told: int) -> None:
    upstream = Scripted(one_stream=False)
    upstream.on_listen = lambda link, stream: link.receiver.status(stream, status, b"")
    upstream.tools["odd"] = lambda link, one: link.receiver.status(one.ticket or 0, status, b'{"error":1}')
    async with front(tmp_path, runner, upstream) as where:
        headers = await begin(where)
        async with listening(where, headers) as answer:
            assert answer.status_code == told
        assert (await post(where, call("odd"), headers)).status_code == told
        odd = await post(where, call("odd", modern=True))
        assert (odd.status_code, odd.json()) == (told, {"error": 1})


async def test_a_place_to_resume_from_is_bounded(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where:
        headers = await begin(where)
        async with listening(where, headers, **{"Last-Event-ID": "x" * 1025}) as answer:
            assert answer.status_code == 400
        async with listening(where, headers, **{"Last-Event-ID": "x" * 1024}) as answer:
            assert answer.status_code == 200


async def test_a_session_has_a_bounded_number_of_streams(tmp_path: Path) -> None:
    async with front(tmp_path) as where:
        headers = await begin(where)
        tasks = [asyncio.ensure_future(_read_all(where, headers, {})) for _ in range(16)]
        await where.upstream.until(lambda: len(where.upstream.links[0].listening) == 16)
        async with listening(where, headers) as answer:
            assert answer.status_code == 409
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await where.upstream.until(lambda: not where.upstream.links[0].listening)


async def test_a_client_that_leaves_cancels_its_modern_request(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where:
        waiting = asyncio.ensure_future(post(where, call("hold", modern=True)))
        await where.upstream.until(lambda: "tools/call" in where.upstream.methods())
        waiting.cancel()
        await where.upstream.until(lambda: where.upstream.methods() == ["tools/call", "notifications/cancelled"])


async def test_a_client_that_leaves_cancels_nothing_in_older_eras(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner) as where:
        headers = await begin(where)
        waiting = asyncio.ensure_future(post(where, call("hold"), headers))
        await where.upstream.until(lambda: "tools/call" in where.upstream.methods())
        waiting.cancel()
        assert (await post(where, call("echo", 2), headers)).status_code == 200
        assert "notifications/cancelled" not in where.upstream.methods()


async def test_a_request_of_a_session_that_its_client_cancels_is_over(tmp_path: Path, runner: str) -> None:
    cancelled = message("notifications/cancelled", None, requestId=1, reason="enough")
    async with front(tmp_path, runner) as where:
        headers = await begin(where)
        waiting = asyncio.ensure_future(post(where, call("hold"), headers))
        await where.upstream.until(lambda: "tools/call" in where.upstream.methods())
        assert (await post(where, cancelled, headers)).status_code == 202
        answer = await waiting
        assert (answer.status_code, events(answer.text)) == (200, [])
        assert where.upstream.methods()[-1] == "notifications/cancelled"
        (link,) = where.upstream.links
        link.answer(next(one.ticket for one in link.told if one.method == "tools/call" and one.ticket))  # too late
        assert last(await post(where, call("echo", 1), headers))["result"]["content"]


async def test_a_silent_answer_gives_signs_of_life(tmp_path: Path, runner: str) -> None:
    async with front(tmp_path, runner, settings=Settings(heartbeat=0.05)) as where:
        body = call("hold", modern=True)
        async with streamed(where, body, modern_headers(body)) as answer:
            assert await lines(answer, 3) == [": still here"] * 3
            link = where.upstream.links[-1]
            link.answer(link.told[-1].ticket or 0)


async def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path, runner: str) -> None:
    upstream = Scripted()
    sent = 0

    def flood(link: Link, one: ToUpstream) -> None:
        nonlocal sent
        if "notifications/cancelled" not in upstream.methods():
            sent += 1
            link.say("notifications/message", one.ticket or 0, level="info", data="x" * 1024 * 1024)
            asyncio.get_running_loop().call_later(0.001, flood, link, one)

    upstream.tools["flood"] = flood
    async with front(tmp_path, runner, upstream) as where:
        body = call("flood", modern=True)
        async with streamed(where, body, modern_headers(body)):
            await upstream.until(lambda: "notifications/cancelled" in upstream.methods())
            assert sent < 2 * STREAM_LIMIT / 1024 / 1024
        assert (await post(where, ECHO)).status_code == 200


async def test_the_application_can_be_mounted_elsewhere(tmp_path: Path) -> None:
    async with front(tmp_path) as where:
        application = create_app({"/mcp": next(iter(where.app._mounts.values()))})
        outer = Starlette(routes=[StarletteMount("/proxy", app=application)])
        async with http(transport=httpx2.ASGITransport(outer), base_url="http://localhost") as client:
            answer = await client.post("/proxy/mcp", json=ECHO, headers=modern_headers(ECHO))
            assert (answer.status_code, answer.json()["id"]) == (200, 1)
        await application.handler.close()
