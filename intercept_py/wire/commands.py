"""What the relay asks its session to do, in order. Their counterparts, the events, are the relay's methods."""

from __future__ import annotations

__all__ = ["Command", "Judge", "Note", "Settle", "ToClient", "ToUpstream", "ToolsKnown", "Unanswered", "Withdraw"]

from typing import TypeAlias

import msgspec

from intercept_py.model import JsonObject, Outcome, RequestId
from intercept_py.wire.messages import Arrival, Incoming


class ToUpstream(msgspec.Struct, frozen=True):
    """Send this line to the server. A `courtesy` may be left out where the server does not read what it is sent.

    For transports whose headers repeat what a message says: `ticket` is the id of a request, `method` and `params` are
    those of a request or a notification; an answer to the server has none of them. `arrival`: see `Incoming`.
    """

    data: bytes
    courtesy: bool = False
    ticket: int | None = None
    method: str | None = None
    params: JsonObject = {}
    arrival: Arrival | None = None


class ToClient(msgspec.Struct, frozen=True):
    """Send this line to the client.

    `request`: the client's request that it belongs to, as far as that is known; `final`: it is an answer, that of
    `request` or, without one, to a message whose id could not be used. `stream`: where it came from, see
    `Relay.from_upstream`.
    """

    data: bytes
    request: RequestId | None = None
    final: bool = False
    stream: int = 0


class Unanswered(msgspec.Struct, frozen=True):
    """The client cancelled this request of its own, and no answer to it will come: do not wait for one."""

    request: RequestId


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


Command: TypeAlias = ToUpstream | ToClient | Unanswered | Judge | Withdraw | Settle | ToolsKnown | Note
