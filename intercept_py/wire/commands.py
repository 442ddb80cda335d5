"""What the relay asks its session to do, in order. Their counterparts, the events, are the relay's methods."""

from __future__ import annotations

__all__ = ["Command", "Judge", "Note", "Settle", "ToClient", "ToUpstream", "ToolsKnown", "Withdraw"]

from typing import TypeAlias

import msgspec

from intercept_py.model import Outcome
from intercept_py.wire.messages import Incoming


class ToUpstream(msgspec.Struct, frozen=True):
    """Send this line to the server. A `courtesy` may be left out where the server does not read what it is sent."""

    data: bytes
    courtesy: bool = False


class ToClient(msgspec.Struct, frozen=True):
    """Send this line to the client."""

    data: bytes


class Judge(msgspec.Struct, frozen=True):
    """Decide about this message and say so with `Relay.decided`. `upward`: it goes from the client to the server."""

    ticket: int
    message: Incoming
    upward: bool = True


class Withdraw(msgspec.Struct, frozen=True):
    """The client cancelled a request that is still being judged: stop waiting, `decided` may come at any time."""

    ticket: int


class Settle(msgspec.Struct, frozen=True):
    """An allowed request is over: ok, tool_error, error, timeout, cancelled, upstream_gone or withdrawn."""

    ticket: int
    outcome: Outcome
    code: int | None = None
    result: bytes = b""


class ToolsKnown(msgspec.Struct, frozen=True):
    """`fetch_tools` came to its end; `problem` says why there is no list."""

    problem: str | None = None


class Note(msgspec.Struct, frozen=True):
    """Something a person may want to know: `level` is debug, info, warn or error."""

    level: str
    text: str


Command: TypeAlias = ToUpstream | ToClient | Judge | Withdraw | Settle | ToolsKnown | Note
