"""MCP servers that misbehave, one per mode: `python -S -E bad_server.py MODE [ARGUMENT]`.

Each behaves like `echo_server.py` except for the one thing its mode names. Modes that break before or instead of the
protocol never read a message.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..")))

from tests.support import echo_server

Echo = echo_server.EchoServer
Reply = Callable[[Echo, bytes], bytes]


def _serve(reply: Reply) -> None:
    """Answer lines with `reply` until the client closes its end."""
    server = Echo(echo_server.TOOLS, 0, "both")
    rest = b""
    while data := os.read(0, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if out := reply(server, line):
                echo_server.write(out)


def _is_call(line: bytes) -> bool:
    try:
        message = json.loads(line)
    except ValueError:
        return False
    return isinstance(message, dict) and message.get("method") == "tools/call"


def exit_at_once(argument: str) -> None:
    """Exit with the code ARGUMENT before anything is read."""
    os.write(2, b"bad_server: exiting at once\n")
    os._exit(int(argument or "3"))


def flood(argument: str) -> None:
    """Write bytes without a line end for as long as somebody takes them (or ARGUMENT bytes, then serve)."""
    chunk, left = b"x" * 65536, int(argument) if argument else None
    while left is None or left > 0:
        echo_server.write(chunk if left is None else chunk[:left])
        left = None if left is None else left - len(chunk)
    echo_server.write(b"\n")
    _serve(Echo.take)


def flood_lines(argument: str) -> None:
    """Write well-formed notifications without end."""
    line = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"flood"}}\n'
    while True:
        echo_server.write(line * 500)


def noise(argument: str) -> None:
    """Put lines that are no message of the protocol before every answer."""
    lines = (
        b"starting up...",
        b"",
        b"{}",
        b"[]",
        b"[{}]",
        b"42",
        b"null",
        b"\xff\xfe\x00",
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"1.0","id":"noise","result":{}}',
        b'{"jsonrpc":"2.0","id":"noise","result":{},"error":{"code":1,"message":"both"}}',
        b'{"jsonrpc":"2.0","id":',
        b"[" * 5000,
    )
    junk = b"\n".join(lines) + b"\n"
    _serve(lambda server, line: junk + server.take(line))


def silent(argument: str) -> None:
    """Read everything, answer nothing (or, with ARGUMENT `calls`, nothing but tool calls goes unanswered)."""
    if argument == "calls":
        _serve(lambda server, line: b"" if _is_call(line) else server.take(line))
    _serve(lambda server, line: b"")


def deaf(argument: str) -> None:
    """Never read, never answer, never end until a signal comes."""
    signal.pause()


def double_answer(argument: str) -> None:
    """Answer every request twice."""
    _serve(lambda server, line: server.take(line) * 2)


def unknown_ids(argument: str) -> None:
    """Put answers to requests that nobody made before every answer."""
    forged = b"".join(
        echo_server.line({"jsonrpc": "2.0", "id": ident, "result": {"content": [], "forged": True}})
        for ident in (987654321, "987654321", -1, "", None, 1.5, True)
    )
    _serve(lambda server, line: forged + server.take(line))


def dies_mid_call(argument: str) -> None:
    """Exit with the code ARGUMENT when the first tool call arrives."""

    def reply(server: Echo, line: bytes) -> bytes:
        if _is_call(line):
            os._exit(int(argument or "7"))
        return server.take(line)

    _serve(reply)


def killed_mid_call(argument: str) -> None:
    """End by SIGKILL when the first tool call arrives."""

    def reply(server: Echo, line: bytes) -> bytes:
        if _is_call(line):
            os.kill(os.getpid(), signal.SIGKILL)
        return server.take(line)

    _serve(reply)


def closes_stdout(argument: str) -> None:
    """Close stdout when the first tool call arrives, and live on."""

    def reply(server: Echo, line: bytes) -> bytes:
        if _is_call(line):
            os.close(1)
            signal.pause()
        return server.take(line)

    _serve(reply)


def closes_stdin(argument: str) -> None:
    """Answer one message, then stop reading and live on."""
    server = Echo(echo_server.TOOLS, 0, "both")
    echo_server.write(server.take(os.read(0, 65536).split(b"\n")[0]))
    os.close(0)
    signal.pause()


def half_answer(argument: str) -> None:
    """Exit in the middle of the line that answers the first tool call."""

    def reply(server: Echo, line: bytes) -> bytes:
        out = server.take(line)
        if _is_call(line):
            echo_server.write(out[: len(out) // 2])
            os._exit(0)
        return out

    _serve(reply)


def _stubborn() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def ignores_eof_and_term(argument: str) -> None:
    """Serve, and live on after stdin has closed and SIGTERM has come; only SIGKILL ends it."""
    _stubborn()
    _serve(Echo.take)
    while True:
        signal.pause()


def spawns_grandchild(argument: str) -> None:
    """Serve with a child of its own that ignores the end of its input and SIGTERM (a shell wrapper around a server)."""
    if os.fork() == 0:
        _stubborn()
        while True:
            signal.pause()
    _serve(Echo.take)


def huge_result(argument: str) -> None:
    """Answer every tool call with a text of ARGUMENT bytes (default 20 MiB)."""
    content = [{"type": "text", "text": "x" * int(argument or str(20 * 1024 * 1024))}]

    def reply(server: Echo, line: bytes) -> bytes:
        if not _is_call(line):
            return server.take(line)
        return echo_server.line({"jsonrpc": "2.0", "id": json.loads(line)["id"], "result": {"content": content}})

    _serve(reply)


def _with_result(method: str, result: Any) -> None:
    def reply(server: Echo, line: bytes) -> bytes:
        try:
            message = json.loads(line)
        except ValueError:
            return b""
        if message.get("method") != method:
            return server.take(line)
        return echo_server.line({"jsonrpc": "2.0", "id": message["id"], "result": result})

    _serve(reply)


def bad_list(argument: str) -> None:
    """Answer `tools/list` with a result that is no list of tools: ARGUMENT is the JSON of the result."""
    _with_result("tools/list", json.loads(argument or '{"tools": "many"}'))


def endless_list(argument: str) -> None:
    """Answer every `tools/list` with one tool and a cursor to the next page."""
    _with_result("tools/list", {"tools": [echo_server.TOOLS[0]], "nextCursor": "again"})


def no_list(argument: str) -> None:
    """Never answer `tools/list`; serve everything else."""
    _serve(lambda server, line: b"" if b'"tools/list"' in line else server.take(line))


def loud_stderr(argument: str) -> None:
    """Write ARGUMENT bytes (default 10 MiB) to stderr, then serve: a full stderr pipe must not stop the proxy."""
    os.write(2, b"e" * 100 + b"\n")
    for _ in range(int(argument or str(10 * 1024 * 1024)) // 65536):
        os.write(2, b"e" * 65535 + b"\n")
    _serve(Echo.take)


MODES: dict[str, Callable[[str], None]] = {
    "exit-at-once": exit_at_once,
    "flood": flood,
    "flood-lines": flood_lines,
    "noise": noise,
    "silent": silent,
    "deaf": deaf,
    "double-answer": double_answer,
    "unknown-ids": unknown_ids,
    "dies-mid-call": dies_mid_call,
    "killed-mid-call": killed_mid_call,
    "closes-stdout": closes_stdout,
    "closes-stdin": closes_stdin,
    "half-answer": half_answer,
    "ignores-eof-and-term": ignores_eof_and_term,
    "spawns-grandchild": spawns_grandchild,
    "huge-result": huge_result,
    "bad-list": bad_list,
    "endless-list": endless_list,
    "no-list": no_list,
    "loud-stderr": loud_stderr,
}


def main(arguments: list[str]) -> None:
    mode, argument = arguments[0], "".join(arguments[1:2])
    try:
        MODES[mode](argument)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
