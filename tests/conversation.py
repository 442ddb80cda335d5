"""A session with real parts (policy, counters, audit file) and no process: for tests of what reaches which side.

`Upstream` below is the server: it is given exactly the lines that the proxy would write to its stdin.
"""

from __future__ import annotations

__all__ = ["LIMIT", "Conversation", "Message", "call", "parse"]

import itertools
import json
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from intercept_py.audit.log import AuditLog
from intercept_py.enforcer import Enforcer
from intercept_py.errors import AuditError
from intercept_py.log import Log
from intercept_py.model import Caller
from intercept_py.observing import Observer
from intercept_py.policy import loader
from intercept_py.proxy import Session
from intercept_py.state import State, open_state
from intercept_py.wire.messages import Arrival, Incoming, parse_client

Message = dict[str, Any]
LIMIT = 10 * 1024 * 1024


def parse(line: bytes) -> Message:
    """A line that must be one canonical JSON object."""
    assert line.isascii()
    assert b"\n" not in line
    message = json.loads(line)
    assert isinstance(message, dict)
    return message


def call(id: Any, tool: str = "cancel_run", arguments: Message | None = None, **params: Any) -> Message:
    """A `tools/call`."""
    body = {"name": tool, "arguments": {"runId": "run_1"} if arguments is None else arguments, **params}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": body}


def _close(log: AuditLog) -> None:
    with suppress(AuditError):
        log.close()


class Conversation:
    """Both ends of one session. `client` and `upstream` hold what each side was sent, in order."""

    def __init__(
        self,
        policy: str,
        folder: Path,
        *,
        state: State | None = None,
        audit: AuditLog | None = None,
        wrap: Callable[[AuditLog], AuditLog] | None = None,
        fail_open: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self.path = folder / "audit.jsonl"
        log = audit or AuditLog.open(str(self.path))
        weakref.finalize(self, _close, log)
        self.now = 0.0
        self.client: list[Message] = []
        self.upstream: list[Message] = []
        self._ticks = itertools.count()
        enforcer = Enforcer(
            loader.load(policy.encode(), "policy.yaml"),
            state or open_state("memory://"),
            wrap(log) if wrap else log,
            "test",
            Caller(session="0123456789abcdef"),
            lambda: 1_800_000_000.0 + next(self._ticks) / 1000,
            lambda: self.now,
            fail_open=fail_open,
            observer=observer,
        )
        self.session = Session(enforcer, Log("error", fd=2), lambda: self.now, timeout=300.0)
        self.arrival: Arrival | None = None  # what the client's messages come with

    def _deliver(self) -> None:
        self.upstream += [parse(message.data) for message in self.session.to_upstream]
        self.client += [json.loads(message.data) for message in self.session.to_client]
        self.session.to_upstream.clear()
        self.session.to_client.clear()
        self.session.sent()

    def say(self, *messages: Message | bytes) -> None:
        """The client sends these, in one read."""
        lines = [message if isinstance(message, bytes) else json.dumps(message).encode() for message in messages]
        taken: list[bytes | Incoming] = []
        for line in lines:
            if self.arrival is None:
                taken.append(line)
                continue
            message = parse_client(line)
            message.arrival = self.arrival
            taken.append(message)
        self.session.from_client(taken, LIMIT)
        self._deliver()

    def reply(self, *messages: Message | bytes) -> None:
        """The server sends these, in one read."""
        lines = [message if isinstance(message, bytes) else json.dumps(message).encode() for message in messages]
        self.session.from_upstream(list(lines), LIMIT)
        self._deliver()

    def answer(self, request: Message, result: Any = None) -> None:
        """The server answers a request that it was sent."""
        self.reply({"jsonrpc": "2.0", "id": request["id"], "result": {"content": []} if result is None else result})

    def end(self) -> None:
        """The server ends."""
        self.session.upstream_gone("the server ended")
        self.session.rest()
        self._deliver()

    def calls(self) -> list[Message]:
        """The tool calls that reached the server."""
        return [message for message in self.upstream if message.get("method") == "tools/call"]

    def answers(self, id: Any) -> list[Message]:
        """What the client was answered under this id."""
        return [message for message in self.client if message.get("id") == id and "method" not in message]

    def records(self) -> list[Message]:
        """The audit file."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()] if self.path.exists() else []
