"""Messages on stdin and stdout that no well-behaved client sends, to a real server."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from intercept_py.jobs.stdio import MAX_MESSAGE
from tests.support.jobs import command, root_of


class Raw:
    """A client that says what it likes; `ready` once the server knows it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.stdin, self.stdout = process, process.stdin, process.stdout

    def say(self, line: bytes) -> None:
        self.stdin.write(line + b"\n")
        self.stdin.flush()

    def ask(self, ident: int | str, method: str, **params: Any) -> None:
        message = {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}
        self.say(json.dumps(message).encode())

    def call(self, ident: int | str, tool: str, **arguments: Any) -> None:
        self.ask(ident, "tools/call", name=tool, arguments=arguments)

    def hear(self) -> dict[str, Any]:
        """The next message that is an answer."""
        while "method" in (message := json.loads(self.stdout.readline())):
            pass
        return dict(message)

    def ready(self) -> None:
        who = {"name": "raw", "version": "1"}
        self.ask(0, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=who)
        assert self.hear()["id"] == 0
        self.say(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')


@contextmanager
def raw(path: Path, *options: str) -> Iterator[Raw]:
    """A client of a codex server of its own."""
    argv = command("codex", path, *options)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        client = Raw(process)
        try:
            client.ready()
            yield client
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raw]:
    with raw(tmp_path_factory.mktemp("shared")) as client:
        yield client


def calling(ident: object, arguments: str) -> bytes:
    head = f'{{"jsonrpc":"2.0","id":{json.dumps(ident)},"method":"tools/call","params":{{"name":"codex_list",'
    return f'{head}"arguments":{arguments}}}}}'.encode()


@pytest.mark.parametrize(
    ("line", "ident", "code"),
    [
        (b"nonsense", None, -32700),
        (b"\xff", None, -32700),
        (b"{}", None, -32600),
        (b"[" + calling(1, "{}") + b"]", None, -32600),
        (b"[" * 100_000, None, -32600),
        (calling(2, '{"limit": NaN}'), 2, -32700),
        (calling(3, '{"limit": "\\ud800"}'), 3, -32700),
        (calling(4, "[" * 100 + "]" * 100), 4, -32600),
        (calling(5, '{"limit": 1, "limit": 2}'), 5, -32600),
        (calling(6, json.dumps("x" * MAX_MESSAGE)), 6, -32600),
        (calling(None, "{}"), None, -32600),
        (calling(1.5, "{}"), None, -32600),
        (calling(True, "{}"), None, -32600),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_is_no_message_is_answered_with_an_error(shared: Raw, line: bytes, ident: int | None, code: int) -> None:
    shared.say(line)
    answer = shared.hear()
    assert (answer["id"], answer["error"]["code"]) == (ident, code)
    assert len(answer["error"]["message"]) < 200
    shared.call("after", "codex_list")
    assert shared.hear()["id"] == "after"


def test_an_id_is_one_request_at_a_time(tmp_path: Path) -> None:
    with raw(tmp_path, "--agent-async") as client:
        client.call(1, "codex_start", prompt="sleep 60", cwd=str(root_of(tmp_path)))
        job = client.hear()["result"]["structuredContent"]["job_id"]
        client.call(2, "codex_wait", job_id=job)
        client.call("2", "codex_list")
        refused = client.hear()
        assert (refused["id"], refused["error"]["code"]) == (None, -32600)
        client.say(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}')
        client.call(2, "codex_list")
        assert client.hear()["id"] == 2


def fill(client: Raw) -> int:
    """Ask for more and more without reading an answer, until the server does not read either; how often."""
    os.set_blocking(client.stdin.fileno(), False)
    said = 0
    while said < 10_000 and select.select([], [client.stdin], [], 2)[1]:
        os.write(client.stdin.fileno(), calling(said, "{}") + b"\n")  # all of it or nothing (PIPE_BUF)
        said += 1
    return said


def test_a_client_that_does_not_read_is_not_read_either_and_loses_nothing(tmp_path: Path) -> None:
    """What the server has in memory for it is bounded: the rest stays in the pipe."""
    with raw(tmp_path) as client:
        said = fill(client)
        assert said < 10_000
        assert {client.hear()["id"] for _ in range(said)} == set(range(said))


@pytest.mark.parametrize("both", [False, True])
def test_a_client_that_does_not_read_can_hang_up(both: bool, tmp_path: Path) -> None:
    with raw(tmp_path) as client:
        fill(client)
        client.stdin.close()
        if both:
            client.stdout.close()
        assert client.process.wait(20) == 0
