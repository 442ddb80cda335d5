"""A raw MCP client over pipes: sends bytes or messages, receives lines, and sees exit codes and left-over processes.

It knows the protocol's envelope and nothing else, so it can say what a correct client never would. Every wait has a
deadline and fails with what the process wrote to stderr. Every process that descends from it carries a mark in its
environment, by which `survivors` finds those that outlive it, whatever session or group they moved to (Linux).
"""

from __future__ import annotations

__all__ = [
    "DECISION_KEY",
    "DENIED",
    "MODERN_META",
    "StartDirect",
    "StartProxy",
    "Wire",
    "denial",
    "proxy_command",
    "text_of",
]

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

Message = dict[str, Any]

DEADLINE = 20.0
DENIED = "[INTERCEPT POLICY DENIED] "
DECISION_KEY = "dev.intercept-py/decision"
_MARK = "INTERCEPT_TEST_MARK"
MODERN_META: Message = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    "io.modelcontextprotocol/clientInfo": {"name": "wire", "version": "1"},
}


def proxy_command(policy: str | os.PathLike[str], command: Sequence[str], *options: str) -> list[str]:
    """`intercept-py run` with `policy` and `options` in front of `command`."""
    return [sys.executable, "-m", "intercept_py", "run", "-c", os.fspath(policy), *options, "--", *command]


def text_of(message: Message) -> str:
    """The first text of a tool result."""
    return str(message["result"]["content"][0]["text"])


def denial(message: Message) -> str:
    """The reason in a denial; fails for everything that is not one."""
    assert message.get("result", {}).get("isError") is True, f"not a denial: {message}"
    text = text_of(message)
    assert text.startswith(DENIED), f"not a denial: {message}"
    assert "structuredContent" not in message["result"]
    return text.removeprefix(DENIED)


class Wire:
    """A running command and the pipes to it. Use as a context manager: leaving it ends every process that it started.

    `others` keeps the messages that arrived while `request` waited for its answer.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | os.PathLike[str] | None = None
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.others: list[Message] = []
        self._buffer = bytearray()
        self._searched = 0
        self._next_id = 0
        self._eof = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        environment = {**os.environ, **(env or {}), _MARK: self.mark}
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            cwd=cwd,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in = self.process.stdin.fileno()
        self._out = self.process.stdout.fileno()
        for fd in (self._in, self._out):
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)

    # -- sending ------------------------------------------------------------------------------------------------------

    def send(self, message: Message | bytes, timeout: float = DEADLINE) -> None:
        """Write one message, or raw bytes exactly as given (with a line end if they have none).

        Reads meanwhile what arrives, so that a peer that answers at once cannot block. Raises BrokenPipeError when the
        peer does not read any more.
        """
        data = message if isinstance(message, bytes) else json.dumps(message, separators=(",", ":")).encode()
        self.send_raw(data if data.endswith(b"\n") else data + b"\n", timeout)

    def send_raw(self, data: bytes, timeout: float = DEADLINE) -> None:
        """Write bytes exactly as given."""
        deadline, view = time.monotonic() + timeout, memoryview(data)
        while view:
            readable, writable = self._poll(deadline, write=True)
            if readable:
                self._fill()
            if writable:
                try:
                    view = view[os.write(self._in, view) :]
                except BlockingIOError:
                    continue

    def close_stdin(self) -> None:
        """End the input of the process, as a client does that is finished."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, not to its group."""
        self.process.send_signal(number)

    # -- receiving ----------------------------------------------------------------------------------------------------

    def recv_line(self, timeout: float = DEADLINE) -> bytes | None:
        """The next line without its end, or None at the end of the output (where an unfinished line fails the test)."""
        deadline = time.monotonic() + timeout
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._searched = 0
                return line
            self._searched = len(self._buffer)
            if self._eof:
                assert not self._buffer, f"the output ends inside a line: {bytes(self._buffer[:200])!r}"
                return None
            self._poll(deadline)
            self._fill()

    def recv(self, timeout: float = DEADLINE) -> Message:
        """The next message; fails at the end of the output and on anything that is not one JSON object per line."""
        line = self.recv_line(timeout)
        assert line is not None, f"the process closed its output; stderr: {self.stderr()}"
        message = json.loads(line)
        assert isinstance(message, dict), f"not a message: {line[:200]!r}"
        assert message.get("jsonrpc") == "2.0", f"not a message: {line[:200]!r}"
        return message

    def recv_all(self, timeout: float = DEADLINE) -> list[Message]:
        """Every message up to the end of the output."""
        deadline, messages = time.monotonic() + timeout, []
        while (line := self.recv_line(deadline - time.monotonic())) is not None:
            messages.append(json.loads(line))
        return messages

    def answer_to(self, ident: int | str, timeout: float = DEADLINE) -> Message:
        """The answer to the request `ident`; what else arrives is kept in `others`."""
        for index, message in enumerate(self.others):
            if message.get("id") == ident and "method" not in message:
                return self.others.pop(index)
        deadline = time.monotonic() + timeout
        while True:
            message = self.recv(deadline - time.monotonic())
            if message.get("id") == ident and type(message.get("id")) is type(ident) and "method" not in message:
                return message
            self.others.append(message)

    def other(self, method: str, timeout: float = DEADLINE) -> Message:
        """The next request or notification of the server that has this method, from `others` or as it arrives."""
        for index, message in enumerate(self.others):
            if message.get("method") == method:
                return self.others.pop(index)
        deadline = time.monotonic() + timeout
        while (message := self.recv(deadline - time.monotonic())).get("method") != method:
            self.others.append(message)
        return message

    # -- the protocol's envelope --------------------------------------------------------------------------------------

    def new_id(self) -> int:
        """An id that this client has not used yet."""
        self._next_id += 1
        return self._next_id

    def start(self, method: str, params: Message | None = None, *, ident: int | str | None = None) -> int | str:
        """Send a request and return its id without waiting for the answer."""
        ident = self.new_id() if ident is None else ident
        body = {} if params is None else {"params": params}
        self.send({"jsonrpc": "2.0", "id": ident, "method": method, **body})
        return ident

    def request(self, method: str, params: Message | None = None, *, timeout: float = DEADLINE) -> Message:
        """Send a request and return the whole answer."""
        return self.answer_to(self.start(method, params), timeout)

    def notify(self, method: str, params: Message | None = None) -> None:
        """Send a notification."""
        body = {} if params is None else {"params": params}
        self.send({"jsonrpc": "2.0", "method": method, **body})

    def initialize(self, version: str = "2025-11-25", capabilities: Message | None = None) -> Message:
        """The legacy handshake; returns the InitializeResult."""
        info = {"name": "wire", "version": "1"}
        params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": info}
        answer = self.request("initialize", params)
        self.notify("notifications/initialized")
        result: Message = answer["result"]
        return result

    def start_call(self, tool: str, arguments: Message | None = None, *, modern: bool = False) -> int | str:
        """Send a `tools/call` and return its id."""
        params: Message = {"name": tool, "arguments": arguments or {}}
        return self.start("tools/call", {**params, "_meta": MODERN_META} if modern else params)

    def call(
        self, tool: str, arguments: Message | None = None, *, modern: bool = False, timeout: float = DEADLINE
    ) -> Message:
        """Send a `tools/call` and return the whole answer."""
        return self.answer_to(self.start_call(tool, arguments, modern=modern), timeout)

    def list_tools(self, *, modern: bool = False) -> list[Message]:
        """The tools of all pages, as the server sent them."""
        tools: list[Message] = []
        params: Message = {"_meta": MODERN_META} if modern else {}
        while True:
            result = self.request("tools/list", params)["result"]
            tools += result["tools"]
            if "nextCursor" not in result:
                return tools
            params = {**params, "cursor": result["nextCursor"]}

    # -- the process --------------------------------------------------------------------------------------------------

    def stderr(self) -> str:
        """Everything written to stderr so far."""
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode(errors="replace")

    def wait(self, timeout: float = DEADLINE) -> int:
        """The exit code of the process (negative for a signal)."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process did not exit within {timeout} s; stderr: {self.stderr()}") from None

    def finish(self, timeout: float = DEADLINE) -> int:
        """Close stdin, read the output to its end and return the exit code; nothing may be left running."""
        self.close_stdin()
        self.others += self.recv_all(timeout)
        code = self.wait(timeout)
        self.assert_no_survivors()
        return code

    def survivors(self) -> dict[int, str]:
        """The live processes that descend from this client's command: process id to command line."""
        needle = f"{_MARK}={self.mark}".encode()
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    marked = needle in file.read().split(b"\0")
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if marked and command:
                found[int(entry)] = command
        return found

    def assert_no_survivors(self, timeout: float = DEADLINE) -> None:
        """Wait until every process of this client's command has ended; fail with those that live on."""
        deadline = time.monotonic() + timeout
        for pid in self.survivors():
            _await_end(pid, deadline)
        left = self.survivors()
        assert not left, f"left running: {left}"

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(3 if kind is None else 0.1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in self.survivors():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._stderr.close()

    # -- pipes --------------------------------------------------------------------------------------------------------

    def _poll(self, deadline: float, *, write: bool = False) -> tuple[bool, bool]:
        """Wait until there is something to read (or room to write): (readable, writable)."""
        remaining = deadline - time.monotonic()
        readers = [] if self._eof else [self._out]
        ready = select.select(readers, [self._in] if write else [], [], max(remaining, 0))
        if not ready[0] and not ready[1]:
            raise AssertionError(f"nothing happened before the deadline; stderr: {self.stderr()[-2000:]}")
        return bool(ready[0]), bool(ready[1])

    def _fill(self) -> None:
        try:
            data = os.read(self._out, 1 << 20)
        except BlockingIOError:
            return
        self._eof = not data
        self._buffer += data


def _await_end(pid: int, deadline: float) -> None:
    """Return when the process has ended or the deadline has passed."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [], max(deadline - time.monotonic(), 0))
    finally:
        os.close(handle)


class StartProxy(Protocol):
    """The fixture `proxy`: `intercept-py run` with a policy, as a path or as its text."""

    def __call__(
        self,
        policy: str | Path,
        command: Sequence[str] | None = None,
        *options: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Wire: ...


class StartDirect(Protocol):
    """The fixture `direct`: a server with nothing in front of it."""

    def __call__(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Wire: ...
