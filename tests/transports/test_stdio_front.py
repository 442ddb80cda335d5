"""A client on stdin and stdout, whatever these are, in front of a server that speaks HTTP: the proxy as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.raw_http import RawServer, Seen, json_answer
from tests.support.wire import MODERN_META

pytestmark = pytest.mark.anyio

PYTHON = [sys.executable, "-m", "intercept_py"]
MAIN = "; import sys; from intercept_py.__main__ import main; sys.exit(main())"
WITHOUT_UVLOOP = [sys.executable, "-c", f"import sys; sys.modules['uvloop'] = None{MAIN}"]
GRACE = "from intercept_py.transports import stdio_front as it; it._PENDING_GRACE"
PATIENT, IMPATIENT = ([sys.executable, "-c", f"{GRACE} = {grace}{MAIN}"] for grace in (1e9, 0))
REQUESTS = [{"jsonrpc": "2.0", "id": id, "method": "ping", "params": {"_meta": MODERN_META}} for id in ("a", "b")]
LINES = "".join(f"{json.dumps(request)}\n" for request in REQUESTS)
TEXT = "x" * 500_000
"""More than a pipe holds, and less than has the proxy stop reading."""


@pytest.fixture(params=[PYTHON, WITHOUT_UVLOOP], ids=["uvloop", "asyncio"])
def program(request: pytest.FixtureRequest) -> list[str]:
    """Both event loops, which refuse what they cannot wait for in ways of their own."""
    words: list[str] = request.param
    return words


async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(json_answer(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % json.loads(seen.body)["id"]))


async def answer_much(seen: Seen, writer: asyncio.StreamWriter) -> None:
    body = {"jsonrpc": "2.0", "id": json.loads(seen.body)["id"], "result": {"text": TEXT}}
    writer.write(json_answer(json.dumps(body).encode()))


@asynccontextmanager
async def proxy(
    program: Sequence[str], folder: Path, url: str, stdin: int | IO[Any], stdout: int | IO[Any], *more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The proxy between these and the server at `url`."""
    (folder / "policy.yaml").write_text("default: allow\n")
    options = ("-c", str(folder / "policy.yaml"), "--audit", str(folder / "audit.jsonl"), "--upstream", url, *more)
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *program, "run", *options, stdin=stdin, stdout=stdout, stderr=log
        )
    try:
        async with asyncio.timeout(20):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # which waits for the end of a pipe that nobody reads, too


async def recorded(audit: Path, outcomes: int) -> None:
    """Wait for what another process writes to a file, of which no event tells."""
    while not audit.exists() or audit.read_bytes().count(b'"outcome"') < outcomes:
        await asyncio.sleep(0.01)


async def test_the_end_of_input_at_once_is_the_end(program: list[str], tmp_path: Path) -> None:
    async with proxy(program, tmp_path, "http://127.0.0.1:1/", subprocess.DEVNULL, subprocess.PIPE) as process:
        said, _ = await process.communicate()
    assert (process.returncode, said) == (0, b"")
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_requests_in_a_file_are_answered_into_a_file(program: list[str], tmp_path: Path) -> None:
    asked, answered = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    asked.write_text(LINES)
    async with RawServer(answer) as server:
        with asked.open("rb") as stdin, answered.open("wb") as stdout:
            async with proxy(program, tmp_path, server.url, stdin, stdout) as process:
                assert await process.wait() == 0
    assert {json.loads(line)["id"] for line in answered.read_bytes().splitlines()} == {"a", "b"}


async def test_answers_may_go_nowhere(program: list[str], tmp_path: Path) -> None:
    async with (
        RawServer(answer) as server,
        proxy(program, tmp_path, server.url, subprocess.PIPE, subprocess.DEVNULL) as process,
    ):
        await process.communicate(LINES.encode())
        assert process.returncode == 0
        assert len(server.seen) == 2


async def test_an_answer_that_the_client_reads_late_is_not_cut_off(program: list[str], tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    async with (
        RawServer(answer_much) as server,
        proxy(program, tmp_path, server.url, subprocess.PIPE, subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(REQUESTS[0]).encode())
        process.stdin.close()
        await recorded(audit, 1)
        answered = json.loads(await process.stdout.read())
        assert await process.wait() == 0
    assert answered["result"]["text"] == TEXT


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """What a client reads when it likes to, and where the proxy writes to."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    with suppress(OSError):  # closed already
        os.close(writing)


async def test_a_client_that_reads_slowly_gets_all_of_its_answer(pipe: tuple[int, int], tmp_path: Path) -> None:
    program = [sys.executable, "-c", f"{GRACE} = 2{MAIN}"]
    reading, writing = pipe
    read = b""
    async with RawServer(answer_much) as server, proxy(program, tmp_path, server.url, subprocess.PIPE, writing) as it:
        os.close(writing)
        assert it.stdin is not None
        it.stdin.write(json.dumps(REQUESTS[0]).encode())
        it.stdin.close()
        while part := await asyncio.to_thread(os.read, reading, 20_000):
            read += part
            await asyncio.sleep(0.15)  # longer than the grace in all, and far shorter each time
        assert await it.wait() == 0
    assert json.loads(read)["result"]["text"] == TEXT


async def test_what_a_server_said_before_it_was_gone_can_still_be_read(pipe: tuple[int, int], tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    streams: list[asyncio.StreamWriter] = []

    async def end_after_an_answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "GET":
            streams.append(writer)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: endpoint\ndata: /m\n\n")
            await asyncio.Event().wait()
        writer.write(json_answer(b"", status="202 Accepted"))
        asked = json.loads(seen.body)
        if asked["method"] == "ping":
            body = {"jsonrpc": "2.0", "id": asked["id"], "result": {"text": TEXT}}
            streams[0].write(f"event: message\ndata: {json.dumps(body)}\n\n".encode())
        else:
            streams[0].close()

    reading, writing = pipe
    async with (
        RawServer(end_after_an_answer) as server,
        proxy(PATIENT, tmp_path, server.url, subprocess.PIPE, writing, "--transport", "sse") as process,
    ):
        os.close(writing)
        assert process.stdin is not None
        process.stdin.write(b'{"jsonrpc":"2.0","id":"a","method":"ping"}\n')
        process.stdin.write(b'{"jsonrpc":"2.0","id":"b","method":"resources/list"}\n')
        await recorded(audit, 2)
        with os.fdopen(os.dup(reading), "rb") as stdout:
            first, second = [json.loads(line) for line in await asyncio.to_thread(stdout.readlines)]
        assert await process.wait() == 0
    assert (first["id"], first["result"]["text"]) == ("a", TEXT)
    assert (second["id"], "ended its event stream" in second["error"]["message"]) == ("b", True)


@pytest.mark.parametrize(
    ("program", "number", "status"),
    [(PATIENT, signal.SIGTERM, 143), (IMPATIENT, None, 0)],
    ids=["a signal", "the end of input"],
)
async def test_a_client_that_does_not_read_cannot_keep_it_from_ending(
    program: list[str], number: signal.Signals | None, status: int, pipe: tuple[int, int], tmp_path: Path
) -> None:
    audit = tmp_path / "audit.jsonl"

    async def hold_the_first(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if len(server.seen) == 1:
            await asyncio.Event().wait()
        await answer_much(seen, writer)

    async with (
        RawServer(hold_the_first) as server,
        proxy(program, tmp_path, server.url, subprocess.PIPE, pipe[1]) as process,
    ):
        assert process.stdin is not None
        process.stdin.write(LINES.encode())
        await recorded(audit, 1)
        if number is None:
            process.stdin.close()
        else:
            process.send_signal(number)
        assert await process.wait() == status
    records = [json.loads(line) for line in audit.read_bytes().splitlines()]
    assert [one["event"] for one in records] == ["start", "decision", "decision", "outcome", "outcome", "stop"]
    assert "bytes of answers are lost" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("ended", [False, True], ids=["input goes on", "input has ended"])
async def test_a_signal_ends_it_at_once_and_is_told_in_the_exit_status(
    number: signal.Signals, ended: bool, tmp_path: Path
) -> None:
    asked = asyncio.Event()

    async def hold(seen: Seen, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with (
        RawServer(hold) as server,
        proxy(PATIENT, tmp_path, server.url, subprocess.PIPE, subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        line = json.dumps(REQUESTS[0])
        if ended:
            process.stdin.write(line.encode())  # which is read when nothing can follow
            process.stdin.close()
        else:
            process.stdin.write(f"{line}\n".encode())
        await asked.wait()
        process.send_signal(number)
        assert await process.wait() == 128 + number
    *_, last = (json.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines())
    assert (last["event"], last["reason"]) == ("stop", "the proxy was told to stop")
