"""Links to servers that are our child processes: one child for one conversation, or one for many.

Below: `child_process`. Above: `gateway`.
"""

from __future__ import annotations

__all__ = ["ChildLink", "SharedChild"]

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.log import Log
from intercept_py.model import Json, RequestId
from intercept_py.processes import Child
from intercept_py.transports.child_process import ChildProcess
from intercept_py.transports.conversation import Receiver
from intercept_py.transports.lines import TooLong
from intercept_py.wire import codec, messages
from intercept_py.wire.commands import ToUpstream

_METHOD_NOT_FOUND = -32601


class ChildLink:
    """The link of a conversation that has a child to itself."""

    session = True

    def __init__(self, child: Child, receiver: Receiver, limit: int) -> None:
        self._receiver = receiver
        self._process = ChildProcess(child, limit, receiver.from_upstream, receiver.gone)

    @property
    def crowded(self) -> bool:
        """See `Link`."""
        return self._process.crowded

    def send(self, messages: list[ToUpstream]) -> None:
        """See `Link`."""
        if self._process.full:
            _refuse(messages, self._receiver)
        else:
            # Answered with a stream, since what a child says meanwhile belongs to one; but the answer to `initialize`
            # brings the session's id.
            asked = [it.ticket for it in messages if it.ticket is not None and it.method != "initialize"]
            self._process.send(messages)
            for ticket in asked:
                self._receiver.opened(ticket)

    def listen(self, stream: int, last_event_id: str | None) -> None:
        """What a child says unasked comes as it is, from no stream. It can repeat nothing."""
        self._receiver.opened(stream)

    def unlisten(self, stream: int) -> None:
        """See `listen`."""

    def leave(self) -> None:
        """A child that has one conversation is ended with `close`."""

    def look(self) -> None:
        """See `ChildProcess`."""
        self._process.look()

    async def close(self) -> None:
        """See `Link`."""
        await self._process.close()


class SharedChild:
    """One child for conversations that need no handshake, each of them a request or a few (MCP 2026-07-28).

    Their requests have tickets from one source, by which the child's messages find the way back. What belongs to none
    of them is nobody's business and dropped.
    """

    def __init__(self, child: Child, limit: int, log: Log) -> None:
        self._log = log
        self._process = ChildProcess(child, limit, self._receive, self._gone)
        self._owners: dict[int, _Share] = {}
        self._shares: set[_Share] = set()
        self._callers: set[object] = set()

    @property
    def ended(self) -> bool:
        """Whether another child is needed."""
        return self._process.ended

    def link(self, receiver: Receiver, who: object) -> _Share:
        """A link for one more conversation; `who` stands for its caller."""
        if len(self._callers) < 2:
            self._callers.add(who)
        share = _Share(self, receiver)
        self._shares.add(share)
        return share

    def look(self) -> None:
        """See `ChildProcess`."""
        self._process.look()

    async def close(self) -> None:
        """End the child; the conversations are told."""
        await self._process.close()
        self._gone("the proxy is shutting down")

    # ---- for the shares

    @property
    def crowded(self) -> bool:
        """See `Link`."""
        return self._process.crowded

    def send(self, share: _Share, commands: list[ToUpstream]) -> None:
        """Send what a conversation has to say, and remember who asked."""
        if self._process.full:
            _refuse(commands, share.receiver)
            return
        for command in commands:
            if command.ticket is not None:
                self._owners[command.ticket] = share
                share.tickets.add(command.ticket)
        self._process.send(commands)

    def leave(self, share: _Share) -> None:
        """A conversation is over; what it still waited for is nobody's."""
        self._shares.discard(share)
        for ticket in share.tickets & self._owners.keys():
            del self._owners[ticket]

    # ---- from the child

    def _receive(self, lines: list[bytes | TooLong]) -> None:
        for line in lines:
            share = self._owner(line)
            if share is not None:
                share.receiver.from_upstream([line])

    def _owner(self, line: bytes | TooLong) -> _Share | None:
        if isinstance(line, TooLong):
            return self._take(codec.guess_id(line.edges))
        try:
            envelope = codec.decode_envelope(line)
        except ProtocolError as exc:
            self._log("warn", f"dropped a line from the server: {exc}")
            return self._take(codec.guess_id(line))
        if envelope.method is msgspec.UNSET:
            return self._take(envelope.id)
        if envelope.id is not msgspec.UNSET:
            # Forbidden in 2026-07-28 (patterns, multi round-trip requests), and there is no one client to ask.
            self._log("warn", f"refused `{_shown(envelope.method)}` from the server: it has many clients to ask")
            why = "this client answers no requests"
            self._process.send([ToUpstream(messages.error(envelope.id, _METHOD_NOT_FOUND, why), True)])
            return None
        owner = self._concerned(envelope.method, bytes(envelope.params))
        if owner is None:
            self._log("debug", f"dropped `{_shown(envelope.method)}` from the server: it concerns no open request")
        return owner

    def _take(self, ticket: RequestId | object) -> _Share | None:
        return self._owners.pop(ticket, None) if type(ticket) is int else None

    def _concerned(self, method: str, params: bytes) -> _Share | None:
        """Whose request a notification is about.

        One that does not say so goes to the only request there is, if there was never another caller: it may be late.
        """
        try:
            value = codec.decode_payload(params) if params else {}
        except ProtocolError:
            return None
        ticket = _named_ticket(method, value)
        if ticket is not None:
            return self._owners.get(ticket)
        alone = len(self._owners) == 1 and len(self._callers) == 1
        return next(iter(self._owners.values())) if alone else None

    def _gone(self, why: str) -> None:
        shares, self._shares = self._shares, set()
        self._owners.clear()
        for share in shares:
            share.receiver.gone(why)


class _Share:
    """The link of one conversation with a child that others use as well."""

    session = False

    def __init__(self, shared: SharedChild, receiver: Receiver) -> None:
        self.receiver = receiver
        self.tickets: set[int] = set()
        self._shared = shared

    @property
    def crowded(self) -> bool:
        """See `Link`."""
        return self._shared.crowded

    def send(self, messages: list[ToUpstream]) -> None:
        """See `Link`."""
        self._shared.send(self, messages)

    def listen(self, stream: int, last_event_id: str | None) -> None:
        """A request is all that such a conversation has."""

    def unlisten(self, stream: int) -> None:
        """See `listen`."""

    def leave(self) -> None:
        """See `Link`."""
        self._shared.leave(self)

    async def close(self) -> None:
        """See `Link`."""
        self._shared.leave(self)


def _refuse(commands: list[ToUpstream], receiver: Receiver) -> None:
    tickets = [command.ticket for command in commands if command.ticket is not None]
    commands.clear()
    for ticket in tickets:
        receiver.failed(ticket, "the server does not read its input: try again later")


def _named_ticket(method: str, params: Json) -> int | None:
    """The ticket that a notification names, if it names one; -1 for one that cannot be ours."""
    if type(params) is not dict:
        return None
    if method == "notifications/progress":
        return _number(params.get("progressToken"))
    if method == "notifications/cancelled":
        return _number(params.get("requestId"))
    meta = params.get("_meta")
    if type(meta) is dict and messages.SUBSCRIPTION_KEY in meta:
        return _number(meta[messages.SUBSCRIPTION_KEY])
    return None


def _number(value: Json) -> int:
    if type(value) is str and value.isascii() and value.isdecimal():
        return int(value[:18])  # some servers make a string of a subscription's id
    return value if type(value) is int else -1


def _shown(method: str) -> str:
    return method[:64] if messages.is_method(method) else "a message"
