"""What a collector of OpenTelemetry receives where the client is on stdio: the proxy as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
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


@asynccontextmanager
async def proxy(
    folder: Path, back: list[str], changed: str = "", **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The proxy in front of a server. `changed` is run before it begins."""
    (folder / "policy.yaml").write_text(
        "default: allow\ntools: {list_runs: {}, forbidden: {rules: [{action: deny}]}}\n"
    )
    options = ("-c", str(folder / "policy.yaml"), "--audit", str(folder / "audit.jsonl"), "--log-level", "warn")
    program = f"import sys; from intercept_py.__main__ import main; {changed}\nsys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "run", *options, *back),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        async with asyncio.timeout(30):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(folder: Path, back: list[str], **environment: str) -> tuple[int | None, str]:
    """The proxy, from the first call to its end; the exit status and what stderr says."""
    async with proxy(folder, back, **environment) as process:
        _, said = await process.communicate(CALLS.encode())
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
    assert "what could not be sent within 1 s is lost" in said
    *_, last = (json.loads(line)["event"] for line in (tmp_path / "audit.jsonl").read_bytes().splitlines())
    assert last == "stop"


async def test_variables_that_are_meant_for_others_are_said_and_the_proxy_goes_on(kind: str, tmp_path: Path) -> None:
    async with server(kind) as back:
        status, said = await run(tmp_path, back, OTEL_TRACES_EXPORTER="zipkin")
    assert status == 0
    assert "warn: telemetry: nothing is sent: `OTEL_TRACES_EXPORTER` asks for an exporter that there is none of" in said
    assert len(said.splitlines()) == 1
    events = [json.loads(line)["event"] for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    assert sorted(events) == ["decision", "decision", "outcome", "start", "stop"]


async def test_a_service_that_cannot_send_what_it_is_told_to_does_not_start(kind: str, tmp_path: Path) -> None:
    async with server(kind) as back:
        status, said = await run(tmp_path, ["--listen", "127.0.0.1:0", *back], OTEL_TRACES_EXPORTER="zipkin")
    assert status == 73
    assert "`OTEL_TRACES_EXPORTER` asks for an exporter that there is none of" in said
    assert len(said.splitlines()) == 1
    assert (tmp_path / "audit.jsonl").read_bytes() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_what_waits_for_a_collector_that_never_answers(
    number: signal.Signals, kind: str, tmp_path: Path
) -> None:
    patient = "from intercept_py import telemetry as it; it._LAST_WORDS_ON_STDIO = 1e6"
    with collecting() as collector:
        collector.open.clear()
        async with (
            server(kind) as back,
            proxy(tmp_path, back, patient, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as it,
        ):
            assert it.stdin is not None
            it.stdin.write(CALLS.encode())
            it.stdin.close()
            await asyncio.to_thread(collector.asked.wait)  # nothing is sent before the end of so short a session
            it.send_signal(number)
            assert await it.wait() in {-number, 128 + number}
    *_, last = (json.loads(line)["event"] for line in (tmp_path / "audit.jsonl").read_bytes().splitlines())
    assert last == "stop"


async def test_nothing_of_it_is_imported_where_nobody_asks(tmp_path: Path) -> None:
    async with server("stdio") as back:
        status, said = await run(tmp_path, back, PYTHONPROFILEIMPORTTIME="1")
    assert status == 0
    assert "intercept_py.enforcer" in said
    assert "telemetry" not in said
