"""`intercept-py serve`: what is told before anything is served, and several servers that are served apart."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import anyio
import httpx2
import msgspec
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from intercept_py.cli import audit, serve
from intercept_py.identity import tokens
from tests.conformance.pairings import listening
from tests.support import web
from tests.support.commands import echo_server
from tests.support.wire import DENIED

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/gateway/gateway.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a policy, `a.yaml`."""
    (tmp_path / "a.yaml").write_text("default: deny\n")
    return tmp_path


def check(file: Path) -> int:
    return serve.main(["-c", str(file), "--check"])


# ---- the check


def test_a_good_file_gets_a_line_and_each_of_its_servers_another(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "gateway.yaml"
    file.write_text(
        "public_url: https://mcp.example.com\nauth: {tokens: tokens.json}\nservers:\n"
        "  a: {policy: a.yaml, command: [sh]}\n  b: {policy: a.yaml, url: 'https://b.example.com/mcp'}\n"
    )
    (folder / "tokens.json").write_text('{"version": 1, "tokens": []}')
    assert check(file) == 0
    policy = "enforced, denies unlisted tools, revision "
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file}: ok, 2 servers, callers show a token"
    assert lines[1].startswith(f"{file}: `a` at https://mcp.example.com/a/mcp: {policy}")
    assert lines[2].startswith(f"{file}: `b` at https://mcp.example.com/b/mcp: {policy}")
    assert len(lines) == 3


def test_what_is_missing_here_is_told_but_the_file_is_good(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert check(EXAMPLE) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{EXAMPLE}: ok, 3 servers, callers show a token"
    missing = [line for line in lines if line.endswith(" (here and now)")]
    assert [line.split(": ")[1] for line in missing] == [
        "$.auth.tokens",
        "$.servers.files.command[0]",
        "$.servers.jobs.command[0]",
        "$.servers.github.headers.Authorization",
    ]


def test_all_mistakes_of_the_file_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "gateway.yaml"
    file.write_text("listn: 127.0.0.1:1\nservers: {A: {policy: a.yaml, command: sh}}\n")
    assert check(file) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{file}:1:1: $.listn: unknown field `listn`: did you mean `listen`?",
        f"{file}:2:11: $.servers.A: `A` cannot stand in a URL: write `a`",
        f"{file}:2:40: $.servers.A.command: `command` is a list of words: write `[sh]`",
    ]


def test_all_mistakes_of_all_policies_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "gateway.yaml"
    (folder / "b.yaml").write_text("defualt: deny\nmode: off\n")
    file.write_text(
        "servers:\n  a: {policy: a.yaml, command: [sh]}\n"
        "  b: {policy: b.yaml, command: [sh]}\n  c: {policy: c.yaml, command: [sh]}\n"
    )
    assert check(file) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{folder}/b.yaml:1:1: $.defualt: ")
    assert lines[1].startswith(f"{folder}/b.yaml:2:7: $.mode: ")
    assert lines[2].startswith(f"{file}:4:15: $.servers.c.policy: cannot read the policy `{folder}/c.yaml`: ")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "none.yaml") == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("none.yaml:1:1: $: cannot read the gateway file: No such file or directory")


@pytest.mark.parametrize("arguments", [[], ["-c"], ["--chekc", "-c", "g.yaml"], ["g.yaml"]])
def test_a_usage_error_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        serve.main(arguments)
    assert caught.value.code == 64
    assert len(capsys.readouterr().err.splitlines()) == 1


# ---- the start


def started(file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The gateway's end, where it must not be able to start."""
    command = [sys.executable, "-m", "intercept_py", "serve", "-c", str(file)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **environment}
    )


def test_all_that_is_missing_is_told_before_anything_is_started(folder: Path) -> None:
    file = folder / "gateway.yaml"
    file.write_text(
        "servers:\n  a: {policy: a.yaml, command: [nonesuch]}\n  b: {policy: b.yaml, command: [sh]}\n"
        "  c: {policy: a.yaml, url: 'http://127.0.0.1:1/mcp', headers: {X: env:NOT_SET}}\n"
    )
    done = started(file)
    assert done.returncode == 78
    assert [line.split(": ")[2:4] for line in done.stderr.splitlines()] == [
        [f"{file}:3:15", "$.servers.b.policy"],
        [f"{file}:2:33", "$.servers.a.command[0]"],
        [f"{file}:4:67", "$.servers.c.headers.X"],
    ]


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ("state: memcached://127.0.0.1", 78, ":1:8: $.state: state of kind `memcached` is not supported"),
        ("audit: /proc/nowhere/audit.jsonl", 73, "/proc/nowhere"),
        ("listen: 127.0.0.1:TAKEN", 73, "cannot listen on `127.0.0.1:"),
    ],
)
def test_what_cannot_be_begun_is_one_line(folder: Path, more: str, status: int, words: str) -> None:
    file = folder / "gateway.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file.write_text(
            more.replace("TAKEN", str(taken.getsockname()[1])) + "\nservers: {a: {policy: a.yaml, command: [sh]}}\n"
        )
        done = started(file)
    (error,) = [line for line in done.stderr.splitlines() if ": error: " in line]
    assert words in error
    assert "Traceback" not in done.stderr
    assert done.returncode == status


# ---- three servers behind one port

POLICY = """
default: allow
tools:
  list_runs: {rules: [{rate_limit: 2/hour}]}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two servers that are alike, and one that nobody can reach, for callers with a token."""
    folder = tmp_path_factory.mktemp("gateway")
    for name in "abc":
        (folder / f"{name}.yaml").write_text(POLICY)
    command = json.dumps(echo_server())
    (folder / "secret").write_text("secret of b\n")
    (folder / "gateway.yaml").write_text(
        "listen: 127.0.0.1:0\naudit: audit.jsonl\nauth: {tokens: tokens.json, scopes: [mcp]}\nservers:\n"
        f"  a: {{policy: a.yaml, command: {command}, env: {{WHO: a}}, max_sessions: 2}}\n"
        f"  b: {{policy: b.yaml, command: {command}, env: {{WHO: b, KEY: '@secret'}}, scopes: [b]}}\n"
        "  c: {policy: c.yaml, url: 'http://127.0.0.1:1/mcp'}\n"
    )
    now = datetime.now(UTC)
    file = str(folder / "tokens.json")
    found = {
        name: tokens.add(file, name, scopes, now, None)
        for name, scopes in {"both": ("mcp", "b"), "only-a": ("mcp",), "neither": ()}.items()
    }
    command_line = [sys.executable, "-m", "intercept_py", "serve", "-c", str(folder / "gateway.yaml")]
    with listening(command_line, folder / "log") as url:
        yield Gateway(folder, url.removesuffix("/a/mcp"), found)


class Gateway(msgspec.Struct, frozen=True):
    """One that runs: its files, its URL, and tokens by their names."""

    folder: Path
    url: str
    tokens: Mapping[str, str]

    @asynccontextmanager
    async def client(self, server: str, mode: Literal["auto", "legacy"] = "auto") -> AsyncIterator[Client]:
        """A client of the SDK that shows the token `both`."""
        async with web.client(headers={"Authorization": f"Bearer {self.tokens['both']}"}) as http:
            transport = streamable_http_client(f"{self.url}/{server}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                yield client


async def call(client: Client, tool: str, **arguments: object) -> str:
    """The text that a call is answered with."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_servers_with_the_same_tools_are_called_apart(gateway: Gateway, mode: Literal["auto", "legacy"]) -> None:
    async with gateway.client("a", mode) as a, gateway.client("b", mode) as b:
        assert {tool.name for tool in (await a.list_tools()).tools} == {
            tool.name for tool in (await b.list_tools()).tools
        }
        assert [await call(client, "environment", name="WHO") for client in (a, b)] == ["a", "b"]
        assert [await call(client, "environment", name="KEY") for client in (a, b)] == ["(unset)", "secret of b"]


@pytest.mark.anyio
async def test_a_limit_that_one_server_has_used_up_is_untouched_at_the_other(gateway: Gateway) -> None:
    async with gateway.client("a") as a, gateway.client("b") as b:
        assert [(await call(a, "list_runs")).startswith(DENIED) for _ in range(3)] == [False, False, True]
        assert not (await call(b, "list_runs")).startswith(DENIED)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_server_that_ends_is_missed_by_its_own_clients_only(
    gateway: Gateway, mode: Literal["auto", "legacy"]
) -> None:
    async with gateway.client("b", mode) as b:
        with suppress(ExceptionGroup, MCPError):
            async with gateway.client("a", mode) as a:
                with pytest.raises(MCPError):
                    await a.call_tool("exit", {"code": 3})
        assert await call(b, "environment", name="WHO") == "b"
    with anyio.fail_after(20):
        while not await is_back(gateway, mode):
            await anyio.sleep(0.1)


async def is_back(gateway: Gateway, mode: Literal["auto", "legacy"]) -> bool:
    """Whether the server `a` answers: it is started anew when somebody asks, though not many times a second."""
    with suppress(ExceptionGroup, MCPError):
        async with gateway.client("a", mode) as a:
            return await call(a, "environment", name="WHO") == "a"
    return False


@pytest.mark.anyio
async def test_a_server_that_cannot_be_reached_is_told_to_its_own_clients_only(gateway: Gateway) -> None:
    with pytest.raises((ExceptionGroup, MCPError)):
        async with gateway.client("c") as c:
            await c.list_tools()
    async with gateway.client("b") as b:
        assert await call(b, "environment", name="WHO") == "b"


@pytest.mark.anyio
async def test_a_changed_policy_counts_for_its_own_server_only(gateway: Gateway) -> None:
    file = gateway.folder / "b.yaml"
    file.write_text(POLICY + "  measure: {rules: [{action: deny}]}\n")
    async with gateway.client("a") as a, gateway.client("b") as b:
        with anyio.fail_after(20):
            while not (await call(b, "measure", value=1)).startswith(DENIED):
                await anyio.sleep(0.1)
        assert not (await call(a, "measure", value=1)).startswith(DENIED)


@pytest.mark.parametrize(
    ("token", "statuses"),
    [(None, (401, 401)), ("nobody", (401, 401)), ("neither", (403, 403)), ("only-a", (200, 403)), ("both", (200, 200))],
)
def test_who_may_call_depends_on_the_server(gateway: Gateway, token: str | None, statuses: tuple[int, int]) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {gateway.tokens.get(token, token)}"}
    headers |= {"Accept": "application/json, text/event-stream"}
    answers = [web.post(f"{gateway.url}/{name}/mcp", json=INITIALIZE, headers=headers) for name in "ab"]
    assert tuple(answer.status_code for answer in answers) == statuses
    for name, answer in zip("ab", answers, strict=True):
        end(gateway, name, answer)


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


def test_each_server_has_room_for_as_many_sessions_as_the_file_says(gateway: Gateway) -> None:
    headers = {"Authorization": f"Bearer {gateway.tokens['both']}", "Accept": "application/json, text/event-stream"}
    answers = {
        name: [web.post(f"{gateway.url}/{name}/mcp", json=INITIALIZE, headers=headers) for _ in range(3)]
        for name in "ab"
    }
    assert {name: [answer.status_code for answer in found] for name, found in answers.items()} == {
        "a": [200, 200, 503],
        "b": [200, 200, 200],
    }
    for name, found in answers.items():
        for answer in found:
            end(gateway, name, answer)


def end(gateway: Gateway, server: str, answer: httpx2.Response) -> None:
    """End the session that an answer tells of, if it does."""
    if "mcp-session-id" in answer.headers:
        headers = dict(answer.request.headers) | {"mcp-session-id": answer.headers["mcp-session-id"]}
        headers = {name: headers[name] for name in ("authorization", "mcp-session-id")}
        assert httpx2.delete(f"{gateway.url}/{server}/mcp", headers=headers).status_code < 300


def test_there_is_nothing_beside_the_servers(gateway: Gateway) -> None:
    for path in ("/mcp", "/", "/d/mcp", "/a", "/a/mcp/", "/A/mcp"):
        assert web.post(f"{gateway.url}{path}", json=INITIALIZE).status_code == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [("mcp.example.com", 200), ("mcp.internal:8443", 200), ("localhost:8000", 200), ("evil.example.com", 421)],
)
def test_behind_a_reverse_proxy_it_answers_to_its_public_name_and_to_this_machine(
    folder: Path, host: str, status: int
) -> None:
    token = tokens.add(str(folder / "tokens.json"), "me", (), datetime.now(UTC), None)
    (folder / "gateway.yaml").write_text(
        "listen: 127.0.0.1:0\npublic_url: https://mcp.example.com\nallow_hosts: [mcp.internal]\n"
        f"auth: {{tokens: tokens.json}}\nservers: {{a: {{policy: a.yaml, command: {json.dumps(echo_server())}}}}}\n"
    )
    with listening(
        [sys.executable, "-m", "intercept_py", "serve", "-c", str(folder / "gateway.yaml")], folder / "log"
    ) as url:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream", "Host": host}
        assert web.post(url, json=INITIALIZE, headers=headers).status_code == status


@pytest.mark.anyio
async def test_every_decision_on_record_says_its_server(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    async with gateway.client("a") as a, gateway.client("b") as b:
        await call(a, "echo", text="to a")
        await call(b, "echo", text="to b")
    file = gateway.folder / "audit.jsonl"
    records = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert {record["server"] for record in records if record["event"] == "start"} == {"a", "b", "c"}
    assert {record["server"] for record in records if record.get("tool") == "echo"} == {"a", "b"}
    assert audit.main(["verify", str(file)]) == 0
    assert "ok" in capsys.readouterr().out
