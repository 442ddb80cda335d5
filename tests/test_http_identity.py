"""Who calls over HTTP, end to end: the proxy as a process, a real issuer, clients on the SDK, and what servers see."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from intercept_py.identity import tokens
from tests.support import issuer as issuers
from tests.support import web
from tests.support.commands import echo_server
from tests.support.echo_server import TOOLS, EchoServer
from tests.support.http_front import JSON, MODERN, call, message
from tests.support.issuer import Issuer, SigningKey, encoded
from tests.support.raw_http import RawServer, Seen, json_answer
from tests.support.wire import DENIED

pytestmark = pytest.mark.anyio

POLICY = """
default: deny
tools:
  echo: {rules: [{rate_limit: {max: 2, window: 1h, per: principal}}]}
  list_runs: {}
  measure: {}
  cancel_run:
    rules: [{name: writers, conditions: [{path: caller.scopes, op: contains, value: "runs:write"}]}]
  refund:
    rules: [{name: finance only, conditions: [{path: caller.claims.groups, op: contains, value: finance}]}]
"""
MODES = ("legacy", "auto")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuers.running() as one:
        yield one


class Proxy(msgspec.Struct, frozen=True):
    """One that runs: where it is, and its files."""

    process: Process
    url: str
    folder: Path
    issuer: Issuer

    @property
    def tokens(self) -> str:
        return str(self.folder / "tokens.json")

    def token(self, subject: str = "alice", **claims: Any) -> str:
        """An access token of the issuer's that is good, but for what is said otherwise."""
        now = int(time.time())
        times = {"iat": now, "exp": now + 600, "jti": uuid.uuid4().hex}
        return self.issuer.sign(**{"sub": subject, "aud": self.url, **times, **claims})

    def own(self, name: str, *scopes: str) -> str:
        """A token of our own."""
        return tokens.add(self.tokens, name, scopes, datetime.now(UTC), None)

    @asynccontextmanager
    async def client(self, token: str, mode: Any = "auto") -> AsyncIterator[Client]:
        """A client of the SDK that shows a token."""
        async with (
            asyncio.timeout(30),
            web.client(headers=bearer(token)) as http,
            Client(streamable_http_client(self.url, http_client=http), mode=mode) as client,
        ):
            yield client

    async def post(self, token: str | None, body: Any, **fields: str) -> httpx2.Response:
        """One request of the modern era, or of a session that `fields` name."""
        headers = JSON | (bearer(token) if token else {})
        if "_meta" in body["params"]:
            headers |= MODERN | {"Mcp-Method": body["method"]}
            headers |= {"Mcp-Name": body["params"]["name"]} if "name" in body["params"] else {}
        async with web.client() as http:
            return await http.post(self.url, json=body, headers=headers | fields)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def proxy(folder: Path, issuer: Issuer, *back: str) -> AsyncIterator[Proxy]:
    """The proxy in front of the echo server, or of what `back` says. It ends with the block."""
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "tokens.json").write_text('{"version": 1, "tokens": []}')
    kept = ("--audit", str(folder / "audit.jsonl"), "--state", "memory://", "--tokens", str(folder / "tokens.json"))
    trusted = ("--issuer", issuer.url, "--jwks", issuer.jwks_url)
    command = ("run", "-c", str(folder / "policy.yaml"), "--listen", "127.0.0.1:0", *kept, *trusted)
    back = back or ("--", *echo_server())
    log = folder / "log"
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "intercept_py", *command, *back, stdin=asyncio.subprocess.DEVNULL, stderr=said
        )
    try:
        await until(lambda: "listening on http" in log.read_text())
        url = log.read_text().partition("listening on ")[2].split()[0]
        yield Proxy(process, url, folder, issuer)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(20):
            await process.wait()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


async def say(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


# ---- who is let in


async def test_no_bad_token_is_let_in_nor_told_what_is_wrong_with_it(tmp_path: Path, issuer: Issuer) -> None:
    async with proxy(tmp_path, issuer) as one:
        revoked = one.own("gone")
        assert (await one.post(revoked, call("list_runs", modern=True))).status_code == 200
        tokens.revoke(one.tokens, "gone")
        good, now = one.token(), int(time.time())
        header, payload, _ = good.split(".")
        bad = {
            "wrong": "nonsense",
            "of nobody": "ipt_" + "0" * 72,
            "expired": one.token(exp=now - 120),
            "not yet": one.token(nbf=now + 600),
            "for somebody else": one.token(aud="https://elsewhere.example/mcp"),
            "of another issuer": one.token(iss="https://issuer.example"),
            "of another key": issuer.sign(SigningKey("one"), sub="alice", aud=one.url, iat=now, exp=now + 600),
            "no ID token": one.token(header={"typ": "JWT"}),
            "alg none": f"{encoded({'alg': 'none', 'typ': 'at+jwt'})}.{payload}.",
            "unsigned": f"{header}.{payload}.",
            "revoked": revoked,
        }
        answers = {why: await one.post(token, call("list_runs", modern=True)) for why, token in bad.items()}
        told = {why: (it.status_code, it.headers["www-authenticate"], it.content) for why, it in answers.items()}
        base = one.url.removesuffix("/mcp")
        link = f'Bearer resource_metadata="{base}/.well-known/oauth-protected-resource/mcp"'
        assert set(told.values()) == {(401, f'{link}, error="invalid_token"', b"{}")}, told
        assert {tuple(sorted(set(it.headers) - {"date"})) for it in answers.values()} == {
            ("cache-control", "content-length", "content-type", "www-authenticate")
        }
        none = await one.post(None, call("list_runs", modern=True))
        assert (none.status_code, none.headers["www-authenticate"], none.content) == (401, link, b"{}")
        for token in bad.values():
            with pytest.raises((ExceptionGroup, MCPError)):
                async with one.client(token) as client:
                    await client.list_tools()
        assert (await one.post(good, call("list_runs", modern=True))).status_code == 200
        log = (tmp_path / "log").read_text()
        assert [why for why, token in bad.items() if token in log] == []


async def test_clients_find_the_issuer_without_a_token(tmp_path: Path, issuer: Issuer) -> None:
    async with proxy(tmp_path, issuer) as one, web.client() as http:
        challenge = (await one.post(None, call("list_runs", modern=True))).headers["www-authenticate"]
        document = (await http.get(challenge.partition('="')[2].rstrip('"'))).json()
        assert document["resource"] == one.url
        assert document["authorization_servers"] == [issuer.url]


# ---- what they may


@pytest.mark.parametrize("mode", MODES)
async def test_rules_and_lists_look_at_who_calls(mode: str, tmp_path: Path, issuer: Issuer) -> None:
    async with proxy(tmp_path, issuer) as one:
        callers = {
            "reader": one.token("reader"),
            "writer": one.token("writer", scope="runs:read runs:write"),
            "clerk": one.token("clerk", groups=["finance"]),
            "ci": one.own("ci", "runs:write"),
        }
        may: dict[str, set[str]] = {}
        for name, token in callers.items():
            async with one.client(token, mode) as client:
                listed = {tool.name for tool in (await client.list_tools()).tools} & {"cancel_run", "refund"}
                calls: dict[str, dict[str, Any]] = {"cancel_run": {"runId": "r"}, "refund": {"amount": 1}}
                done = {tool for tool, it in calls.items() if not (await say(client, tool, **it)).startswith(DENIED)}
                assert done == listed
                may[name] = done
        assert may == {"reader": set(), "writer": {"cancel_run"}, "clerk": {"refund"}, "ci": {"cancel_run"}}
        records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        named = {record["principal"] for record in records if record["event"] == "decision"}
        assert named == {"ci", *(f"{issuer.url}#{name}" for name in ("reader", "writer", "clerk"))}


async def test_a_principal_has_one_limit_in_all_its_sessions_and_tokens(tmp_path: Path, issuer: Issuer) -> None:
    async with proxy(tmp_path, issuer) as one:
        said = []
        for token, mode in ((one.token(), "legacy"), (one.token(), "auto"), (one.token(), "legacy")):
            async with one.client(token, mode) as client:
                said.append(await say(client, "echo", text="x"))
        assert said[:2] == ["x", "x"]
        assert said[2].startswith(DENIED)
        async with one.client(one.token("bob")) as client:
            assert await say(client, "echo", text="x") == "x"


async def test_nobody_can_use_the_session_of_another_principal(tmp_path: Path, issuer: Issuer) -> None:
    async with proxy(tmp_path, issuer) as one, web.client() as http:
        hello: dict[str, Any] = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        begun = await one.post(one.token(), message("initialize", **hello))
        mine = {"mcp-session-id": begun.headers["mcp-session-id"]}
        listing = message("tools/list", 2)
        assert (await one.post(one.token(), listing, **mine)).status_code == 200  # with another token of hers
        foreign = await one.post(one.token("mallory"), listing, **mine)
        unknown = await one.post(one.token("mallory"), listing, **{"mcp-session-id": "x" * 32})
        assert (foreign.status_code, foreign.content) == (unknown.status_code, unknown.content)
        assert foreign.status_code == 404
        fields = bearer(one.token("mallory")) | mine | {"Accept": "text/event-stream"}
        assert (await http.get(one.url, headers=fields)).status_code == 404
        assert (await http.delete(one.url, headers=fields)).status_code == 404
        assert (await one.post(one.token(), listing, **mine)).status_code == 200


# ---- credentials stay on their side


class Upstream:
    """A server that records what it is sent. `hold`: calls are answered once it is set. `wanted`: the only
    `Authorization` it takes.
    """

    def __init__(self) -> None:
        self.server = RawServer(self._answer)
        self.hold = asyncio.Event()
        self.hold.set()
        self.wanted: str | None = None
        self._echo = EchoServer(TOOLS, 0, "both")

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        if self.wanted is not None and seen.field("authorization") != self.wanted:
            fields = f'WWW-Authenticate: Bearer error="invalid_token", was="{seen.field("authorization")}"'
            writer.write(json_answer(b'{"error":"bad"}', fields, status="401 Unauthorized"))
            return
        if b'"tools/call"' in seen.body:
            await self.hold.wait()
        answer = self._echo.take(seen.body)
        writer.write(json_answer(answer) if answer else b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("mode", MODES)
async def test_no_credentials_cross_the_proxy(
    mode: str, tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_TOKEN", "Bearer s3cret-of-the-proxy")
    upstream = Upstream()
    async with upstream.server as server:
        back = ("--upstream", server.url, "--header", "Authorization: env:UPSTREAM_TOKEN")
        async with proxy(tmp_path, issuer, *back) as one:
            token = one.token()
            async with one.client(token, mode) as client:
                assert await say(client, "echo", text="x") == "x"
            plain = await one.post(token, call("list_runs", modern=True))
            upstream.wanted = "something else"
            refused = await one.post(token, call("list_runs", modern=True))
    assert len(server.seen) >= 4
    assert {seen.field("authorization") for seen in server.seen} == {"Bearer s3cret-of-the-proxy"}
    assert [seen for seen in server.seen if token in repr(seen)] == []
    for answer in (plain, refused):
        assert "s3cret" not in repr(answer.headers) + answer.text
    assert refused.json()["error"]["code"] == -32603
    assert "www-authenticate" not in refused.headers
    for file in ("log", "audit.jsonl"):
        text = (tmp_path / file).read_text()
        assert "s3cret" not in text
        assert token not in text


async def test_a_token_that_the_server_refuses_is_replaced(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_SECRET", "s3cret-of-the-client")
    gives(issuer, "first-t0ken")
    upstream = Upstream()
    upstream.wanted = "Bearer first-t0ken"
    async with upstream.server as server:
        granted = ("--oauth-token-url", f"{issuer.url}/token", "--oauth-client-id", "proxy")
        secret = ("--oauth-client-secret", "env:CLIENT_SECRET", "--oauth-scope", "mcp")
        async with proxy(tmp_path, issuer, "--upstream", server.url, *granted, *secret) as one:
            token = one.token()
            answers = [await one.post(token, call("list_runs", modern=True)) for _ in range(3)]
            assert all("result" in answer.json() for answer in answers)
            assert asked(issuer) == 1
            gives(issuer, "second-t0ken")
            upstream.wanted = "Bearer second-t0ken"
            answers.append(await one.post(token, call("list_runs", modern=True)))
            assert "error" in answers[-1].json()  # it was written, and is not written again
            async with asyncio.timeout(20):
                while "result" not in answers[-1].json():
                    await asyncio.sleep(0.1)  # the issuer is not asked many times a second
                    answers.append(await one.post(token, call("list_runs", modern=True)))
            assert asked(issuer) == 2
    assert {seen.field("authorization") for seen in server.seen} == {"Bearer first-t0ken", "Bearer second-t0ken"}
    told = "".join(repr(answer.headers) + answer.text for answer in answers)
    for text in (told, (tmp_path / "log").read_text(), (tmp_path / "audit.jsonl").read_text()):
        assert "t0ken" not in text
        assert "s3cret" not in text


def gives(issuer: Issuer, token: str) -> None:
    """Have the issuer's token endpoint give this."""
    body = json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": 600}).encode()
    issuer.answers["/token"] = (200, {"Content-Type": "application/json"}, body)


def asked(issuer: Issuer) -> int:
    """How often it was asked for one."""
    return sum(seen.path == "/token" for seen in issuer.seen)


# ---- signals


async def test_sighup_reads_the_policy_anew_and_keeps_the_old_one_if_it_is_wrong(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with proxy(tmp_path, issuer) as one, one.client(one.token(), "legacy") as client:
        assert not (await say(client, "measure", value=1)).startswith(DENIED)
        (tmp_path / "policy.yaml").write_text("default: dney\n")
        one.process.send_signal(signal.SIGHUP)
        await until(lambda: "stays in force" in (tmp_path / "log").read_text())
        assert not (await say(client, "measure", value=1)).startswith(DENIED)
        (tmp_path / "policy.yaml").write_text(POLICY.replace("measure: {}", "measure: {rules: [{action: deny}]}"))
        one.process.send_signal(signal.SIGHUP)
        await until(lambda: "reloaded" in (tmp_path / "log").read_text())
        assert (await say(client, "measure", value=1)).startswith(DENIED)
        assert not (await say(client, "list_runs")).startswith(DENIED)


async def test_sigterm_lets_a_call_come_to_its_end_and_takes_no_other(tmp_path: Path, issuer: Issuer) -> None:
    upstream = Upstream()
    async with upstream.server as server, proxy(tmp_path, issuer, "--upstream", server.url) as one:
        upstream.hold.clear()
        running = asyncio.create_task(one.post(one.token(), call("list_runs", modern=True)))
        await until(lambda: any(b'"tools/call"' in seen.body for seen in server.seen))
        one.process.send_signal(signal.SIGTERM)
        port = int(one.url.split(":")[2].partition("/")[0])
        async with asyncio.timeout(20):
            while await takes_connections(port):
                await asyncio.sleep(0.02)
        assert not running.done()
        assert one.process.returncode is None
        upstream.hold.set()
        assert "result" in (await running).json()
        assert await asyncio.wait_for(one.process.wait(), 20) == 0
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [record["event"] for record in records] == ["start", "decision", "outcome", "stop"]
    assert records[2]["outcome"] == "ok"


async def takes_connections(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:  # refused, or reset if it was just about to be accepted
        return False
    writer.close()
    return True
