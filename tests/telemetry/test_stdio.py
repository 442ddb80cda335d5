"""What a collector of OpenTelemetry receives where the client is on stdio: the proxy as a process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.commands import echo_server
from tests.support.otlp_collector import collecting, values
from tests.support.raw_http import RawServer, Seen, json_answer

pytestmark = pytest.mark.anyio

CALLS = "".join(
    json.dumps({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {}}}) + "\n"
    for id, tool in ((1, "list_runs"), (2, "forbidden"))
)


@asynccontextmanager
async def server(kind: str) -> AsyncIterator[list[str]]:
    """The arguments that name a server: a command or a URL."""

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        id = json.loads(seen.body)["id"]
        writer.write(json_answer(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[]}}' % id))

    if kind == "stdio":
        yield ["--", *echo_server()]
        return
    async with RawServer(answer) as running:
        yield ["--upstream", running.url]


async def run(folder: Path, back: list[str], **environment: str) -> tuple[int | None, str]:
    """The proxy, from the first call to its end; the exit status and what stderr says."""
    (folder / "policy.yaml").write_text(
        "default: allow\ntools: {list_runs: {}, forbidden: {rules: [{action: deny}]}}\n"
    )
    options = ("-c", str(folder / "policy.yaml"), "--audit", str(folder / "audit.jsonl"), "--log-level", "warn")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "intercept_py", "run", *options, *back),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        async with asyncio.timeout(30):
            _, said = await process.communicate(CALLS.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


@pytest.fixture(params=["stdio", "http"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the server speaks."""
    kind: str = request.param
    return kind


async def test_every_request_is_a_span_when_the_proxy_has_ended(kind: str, tmp_path: Path) -> None:
    with collecting() as collector:
        async with server(kind) as back:
            assert await run(tmp_path, back, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) == (0, "")
    spans = {span.name: values(span.attributes) for span in collector.spans()}
    assert {name: one["intercept.decision"] for name, one in spans.items()} == {
        "tools/call list_runs": "allow",
        "tools/call forbidden": "deny",
    }
    assert {one["network.transport"] for one in spans.values()} == {"pipe"}
    assert {metric.name for metric in collector.metrics()} == {"mcp.server.operation.duration"}


async def test_a_collector_that_never_answers_does_not_keep_the_proxy_from_ending(kind: str, tmp_path: Path) -> None:
    with collecting() as collector:
        collector.open.clear()
        async with server(kind) as back:
            status, said = await run(tmp_path, back, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert status == 0
    assert "what could not be sent within 3 s is lost" in said
    *_, last = (json.loads(line)["event"] for line in (tmp_path / "audit.jsonl").read_bytes().splitlines())
    assert last == "stop"


async def test_what_cannot_be_sent_is_said_before_anything_is_started(kind: str, tmp_path: Path) -> None:
    async with server(kind) as back:
        status, said = await run(tmp_path, back, OTEL_TRACES_EXPORTER="zipkin")
    assert status == 73
    assert "`OTEL_TRACES_EXPORTER` asks for an exporter that there is none of" in said
    assert len(said.splitlines()) == 1
    assert (tmp_path / "audit.jsonl").read_bytes() == b""


async def test_nothing_of_it_is_imported_where_nobody_asks(tmp_path: Path) -> None:
    async with server("stdio") as back:
        status, said = await run(tmp_path, back, PYTHONPROFILEIMPORTTIME="1")
    assert status == 0
    assert "intercept_py.enforcer" in said
    assert "telemetry" not in said
