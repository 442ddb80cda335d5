"""One connection between a client and its server, without I/O: messages in, commands out.

The relay knows the protocol: ids, eras, cancellation, listing. It does not know policy: each message that asks
something to happen becomes a `Judge` command, and goes on only when `decided` says so. Below: `messages`,
`catalogue`. Above: `proxy` performs the commands in order. Nothing here raises for what a peer sends.

A request's *ticket* is the id under which it goes to the server (ours, never the client's). Its life:

    from_client ─ Judge ─ decided(denial) ─ ToClient                       refused
                        └ decided(None) ─── ToUpstream ─ from_upstream ─ Settle, ToClient    answered
                                                       ├ expire ──────── Settle, ToClient    timed out
                                                       └ upstream_gone ─ Settle, ToClient    server ended
                └ cancelled by the client while it is judged ─ Withdraw ─ decided ─ Settle   never sent
"""

from __future__ import annotations

__all__ = ["MAX_HELD_BYTES", "MAX_PENDING", "Relay", "nothing_hidden"]

from collections.abc import Callable
from itertools import count

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.model import Json, JsonObject, Outcome, RequestId
from intercept_py.wire import catalogue, codec, messages
from intercept_py.wire.codec import INVALID_REQUEST
from intercept_py.wire.commands import (
    Command,
    Judge,
    Note,
    Settle,
    ToClient,
    ToolsKnown,
    ToUpstream,
    Unanswered,
    Withdraw,
)
from intercept_py.wire.listing import Listing
from intercept_py.wire.messages import Denial, Incoming

MAX_PENDING = 1024
"""Requests in flight in one direction (ours; MCP names no bound)."""
MAX_HELD_BYTES = 64 * 1024 * 1024
"""What messages that are being judged may have, all together."""
_METHOD_NOT_FOUND = -32601
_PATIENCE = 3600.0
"""Seconds that the client may take to answer the server: there may be a person to ask."""
_LONGEST = 86_400.0
"""Seconds after which progress does not prolong a request any more (MCP, lifecycle, timeouts: there is a maximum)."""
_IMPATIENCE = 30.0
"""Seconds that the proxy's own questions, and requests that the client cancelled, may take at most."""


class _Pending(msgspec.Struct):
    """A request at the server. `client_id` None: the proxy's own. `cancelled`: nobody wants the answer.

    `began`: when it went to the server; `since`: when the wait for it last started anew. `token`: the client's progress
    token, where another one was sent in its place.
    """

    client_id: RequestId | None
    method: str
    modern: bool
    began: float
    since: float
    generation: int = 0
    cancelled: bool = False
    token: RequestId | None = None


class _Asked(msgspec.Struct, frozen=True):
    """A request of the server's at the client."""

    ticket: int
    since: float


class _Head(msgspec.Struct):
    """The members of a result that tell how a call ended; raw, because a server may send any type."""

    isError: msgspec.Raw = msgspec.Raw()  # noqa: N815 - the wire's spelling


_decode_head = msgspec.json.Decoder(_Head).decode


def nothing_hidden(_name: str) -> bool:
    """The `hidden` of a policy that hides nothing: lists pass as they are."""
    return False


class Relay:
    """See the module. `hidden` says which tools a client must not see, `varies` whether that depends on the caller.

    Both may be replaced at any time (reload).

    Relays that share a server give it tickets from one source, `mint`, and share what is known of its tools. With
    `correlate` progress tokens become tickets on their way to the server: what it then says of a request's progress is
    known to belong to that request, whatever other requests call theirs.
    """

    def __init__(
        self,
        hidden: Callable[[str], bool] = nothing_hidden,
        *,
        varies: bool = False,
        known: catalogue.Catalogue | None = None,
        mint: Callable[[], int] | None = None,
        correlate: bool = False,
    ) -> None:
        self.hidden = hidden
        self.varies = varies
        self.catalogue = catalogue.Catalogue() if known is None else known
        self._mint = count(1).__next__ if mint is None else mint
        self._correlate = correlate
        self._held: dict[int, Incoming] = {}  # messages that are being judged
        self._withdrawn: set[int] = set()  # those of them that the client has cancelled
        self._held_bytes = 0
        self._pending: dict[int, _Pending] = {}
        self._by_client_id: dict[RequestId, int] = {}
        self._asked: dict[RequestId, _Asked] = {}  # the server's own requests that the client has not answered
        self._generation = 0  # of the server's list of tools, as far as it announces changes
        self._progressed = False  # since the last look at what takes too long
        self._listing: Listing | None = None
        self._announces_tools = False
        self._listeners: set[int] = set()  # modern subscriptions to tools/list_changed, by ticket
        self._hiding: dict[int, Callable[[str], bool]] = {}  # what was hidden when a list was asked for, by ticket

    # ---- from the client

    def from_client(self, line: bytes | Incoming) -> list[Command]:
        """One line from the client, or what `parse_client` made of it.

        What is not understood is answered with an error and goes no further.
        """
        try:
            message = line if type(line) is Incoming else messages.parse_client(line)
        except ProtocolError as exc:
            return self.unsound(exc)
        size = len(message.line)
        if message.method is None:
            return self._client_answer(message)
        if message.id is None:
            if message.method == "notifications/cancelled":
                return self._client_cancels(message)
        elif message.id in self._by_client_id:
            # Answered with id null: an error that carried the id would be taken for the answer of the first request.
            text = "a request with this id is still in flight: the second one is refused"
            return [Note("warn", text), ToClient(messages.error(None, INVALID_REQUEST, text), None, True)]
        elif len(self._by_client_id) >= MAX_PENDING:
            text = f"{MAX_PENDING} requests are in flight: wait for an answer before sending more"
            return self.refuse(message.id, messages.DENIED_CODE, text)
        if self._held_bytes + size > MAX_HELD_BYTES:
            text = "too much waits for the server's list of tools: try again later"
            return self.refuse(message.id, messages.DENIED_CODE, text)
        ticket = self._mint()
        if message.id is not None:
            self._by_client_id[message.id] = ticket
        self._held[ticket] = message
        self._held_bytes += size
        if message.method == "tools/list":
            self._hiding[ticket] = self.hidden
        return [Judge(ticket, message)]

    def unsound(self, fault: ProtocolError) -> list[Command]:
        """A message from the client in which `parse_client` found a fault."""
        return self.refuse(fault.request_id, fault.code, str(fault))

    def refuse(self, request_id: RequestId | None, code: int, why: str) -> list[Command]:
        """Answer a message from the client that goes no further. Never under the id of another request in flight."""
        if request_id in self._by_client_id:
            request_id = None
        return [
            Note("warn", f"refused a message from the client: {why}"),
            ToClient(messages.error(request_id, code, why), request_id, True),
        ]

    def too_long(self, edges: bytes, why: str) -> list[Command]:
        """A line of the client's that was too long to be read; `edges` is its beginning and its end."""
        return self.refuse(codec.guess_id(edges), INVALID_REQUEST, why)

    def _client_answer(self, message: Incoming) -> list[Command]:
        assert message.id is not None
        asked = self._asked.get(message.id)
        if asked is None or asked.ticket in self._held:
            return [Note("warn", "dropped an answer from the client that nobody asked for")]
        del self._asked[message.id]
        ticket = asked.ticket
        outcome: Outcome = "ok" if "result" in message.value else "error"
        return [Settle(ticket, outcome), ToUpstream(codec.encode(message.value))]

    def _client_cancels(self, message: Incoming) -> list[Command]:
        request_id = _request_id(message.params)
        ticket = None if request_id is None else self._by_client_id.get(request_id)
        if ticket is None or request_id is None:
            return [Note("debug", "dropped a cancellation of a request that is not in flight")]
        if ticket in self._held:
            self._withdrawn.add(ticket)
            del self._by_client_id[request_id]
            return [Withdraw(ticket), Unanswered(request_id)]
        self._pending[ticket].cancelled = True
        message.params["requestId"] = ticket
        data = codec.encode(message.value)
        told = ToUpstream(data, False, None, message.method, message.params, message.arrival)
        # Where a server has streams it ends that of the request, with or without an answer.
        return [told, Unanswered(request_id)] if self._correlate else [told]

    def abandon(self, request_id: RequestId) -> list[Command]:
        """The client has gone away from a request, which cancels it (MCP 2026-07-28, streamable HTTP: cancellation)."""
        ticket = self._by_client_id.get(request_id)
        if ticket is None:
            return []
        if ticket in self._held:
            self._withdrawn.add(ticket)
            del self._by_client_id[request_id]
            return [Withdraw(ticket)]
        self._pending[ticket].cancelled = True
        return [self._cancellation(ticket, "the client went away")]

    @staticmethod
    def _cancellation(ticket: int, reason: str) -> ToUpstream:
        method, params = "notifications/cancelled", {"requestId": ticket, "reason": reason}
        return ToUpstream(
            codec.encode({"jsonrpc": "2.0", "method": method, "params": params}), method=method, params=params
        )

    # ---- decisions

    def decided(self, ticket: int, denial: Denial | None, now: float) -> list[Command]:
        """The answer to a `Judge`: None lets the message go on. `now` (seconds, any clock) starts the wait."""
        message = self._held.pop(ticket)
        self._held_bytes -= len(message.line)
        if ticket in self._withdrawn:
            self._withdrawn.remove(ticket)
            self._hiding.pop(ticket, None)
            return [Settle(ticket, "withdrawn")]
        if not message.value:
            return self._server_decided(ticket, message, denial, now)
        if denial is not None:
            if message.id is None:
                return [Note("warn", f"dropped `{message.method}` from the client: {denial.reason}")]
            del self._by_client_id[message.id]
            self._hiding.pop(ticket, None)
            refusal = messages.refusal(message.id, str(message.method), message.modern, denial)
            return [ToClient(refusal, message.id, True)]
        if message.id is None:
            data = codec.encode(message.value)
            return [ToUpstream(data, False, None, message.method, message.params, message.arrival)]
        pending = _Pending(message.id, str(message.method), message.modern, now, now, self._generation)
        self._pending[ticket] = pending
        message.value["id"] = ticket
        if self._correlate:
            _replace_token(message.params, ticket, pending)
        if message.method == "subscriptions/listen":
            self._listen(ticket, message)
        data = codec.encode(message.value)
        return [ToUpstream(data, False, ticket, message.method, message.params, message.arrival)]

    def mistaken(self, ticket: int, code: int, why: str) -> list[Command]:
        """The answer to a `Judge` whose message goes no further, and is no matter of policy: it contradicts itself."""
        message = self._held.pop(ticket)
        self._held_bytes -= len(message.line)
        if message.id is not None:
            del self._by_client_id[message.id]
        return self.refuse(message.id, code, why)

    def _server_decided(self, ticket: int, message: Incoming, denial: Denial | None, now: float) -> list[Command]:
        if denial is None:
            if message.id is not None:
                self._asked[message.id] = _Asked(ticket, now)
            return [ToClient(message.line, message.request, False, message.stream)]
        if message.id is None:
            return [Note("warn", f"dropped `{message.method}` from the server: {denial.reason}")]
        del self._asked[message.id]
        refusal = messages.refusal(message.id, str(message.method), message.modern, denial)
        return [ToUpstream(refusal, courtesy=True)]

    def _listen(self, ticket: int, message: Incoming) -> None:
        wanted = message.params.get("notifications")
        if type(wanted) is dict and wanted.get("toolsListChanged") is True and message.id is not None:
            self._listeners.add(ticket)

    # ---- from the server

    def from_upstream(self, line: bytes, stream: int = 0) -> list[Command]:
        """One line from the server. What is not understood is dropped; a request that it seems to answer fails.

        `stream`: where the transport has several, the ticket of the request in whose answer it came, or a number below
        0 for a stream that is no answer.
        """
        try:
            envelope = codec.decode_envelope(line)
        except ProtocolError as exc:
            return self.unreadable(line, str(exc))
        if envelope.method is not msgspec.UNSET:
            return self._server_asks(envelope, envelope.method, stream)
        ticket = envelope.id
        pending = self._pending.pop(ticket, None) if type(ticket) is int else None
        if pending is None or type(ticket) is not int:
            return [Note("warn", "dropped an answer from the server that nobody waits for")]
        return self._answered(ticket, pending, bytes(envelope.result), bytes(envelope.error), stream)

    def unreadable(self, line: bytes, why: str) -> list[Command]:
        """A line that is no message, or too long to be read (then `line` is its beginning and end)."""
        commands: list[Command] = [Note("warn", f"dropped a line from the server: {why}")]
        ticket = codec.guess_id(line)
        pending = None if ticket is None else self._pending.pop(ticket, None)
        if ticket is not None and pending is not None:
            commands += self._fail(ticket, pending, "error", f"the server's answer was dropped: {why}")
        return commands

    def failed(self, ticket: int, why: str) -> list[Command]:
        """The transport knows that this request will get no answer."""
        pending = self._pending.pop(ticket, None)
        return [] if pending is None else self._fail(ticket, pending, "error", why)

    def request_of(self, ticket: int) -> RequestId | None:
        """The id that the client gave to a request at the server; None where it is not the client's, or over."""
        pending = self._pending.get(ticket)
        return None if pending is None else pending.client_id

    def _answered(self, ticket: int, pending: _Pending, result: bytes, error: bytes, stream: int) -> list[Command]:
        if error == b"null":  # some servers write both members
            error = b""
        if bool(result) == bool(error):
            why = "the server's answer has not exactly one of `result` and `error`"
            return self._fail(ticket, pending, "error", why)
        if pending.client_id is None:
            return self._listed(result) if result else self._listing_ended("the server refused `tools/list`")
        if error:
            self._release(ticket, pending)
            return [
                Settle(ticket, "error", _error_code(error), error),
                ToClient(
                    messages.response(pending.client_id, b"error", _one_line(error)), pending.client_id, True, stream
                ),
            ]
        try:
            result = self._rewrite(ticket, pending, result)
        except ProtocolError as exc:
            return self._fail(ticket, pending, "error", str(exc))
        self._release(ticket, pending)
        outcome: Outcome = "tool_error" if pending.method == "tools/call" and _is_tool_error(result) else "ok"
        return [
            Settle(ticket, outcome, None, result),
            ToClient(
                messages.response(pending.client_id, b"result", _one_line(result)), pending.client_id, True, stream
            ),
        ]

    def _release(self, ticket: int, pending: _Pending) -> None:
        if pending.client_id is not None:
            self._by_client_id.pop(pending.client_id, None)
        self._listeners.discard(ticket)
        self._hiding.pop(ticket, None)

    def _rewrite(self, ticket: int, pending: _Pending, result: bytes) -> bytes:
        """The few results that the proxy must read: lists (hiding), the handshake, the end of a subscription."""
        if pending.method == "tools/list":
            hidden = self._hiding.get(ticket, self.hidden)
            if hidden is nothing_hidden and not self.catalogue.known:
                return result
            page, tools, _ = catalogue.read_page(result)
            if pending.generation == self._generation:  # an answer from before a change says nothing about now
                self.catalogue.amend(tools)
            if hidden is nothing_hidden:
                return result
            return catalogue.filter_page(page, hidden, pending.modern, self.varies)
        if pending.method == "initialize":
            self._announces_tools = _announces_tools(result)
        elif pending.method == "subscriptions/listen":
            value = codec.decode_payload(result)
            meta = value.get("_meta") if type(value) is dict else None
            if type(meta) is dict and messages.SUBSCRIPTION_KEY in meta:
                meta[messages.SUBSCRIPTION_KEY] = pending.client_id
                return codec.encode(value)
        return result

    def _fail(self, ticket: int, pending: _Pending, outcome: Outcome, why: str) -> list[Command]:
        """Answer a request in the server's place. One that the client cancelled wants no answer (MCP, cancellation)."""
        if pending.client_id is None:
            return self._listing_ended(why)
        self._release(ticket, pending)
        if pending.cancelled:
            return [Settle(ticket, "cancelled"), Unanswered(pending.client_id)]
        return [
            Settle(ticket, outcome, messages.INTERNAL_ERROR),
            ToClient(messages.error(pending.client_id, messages.INTERNAL_ERROR, why), pending.client_id, True),
        ]

    def _server_asks(self, envelope: codec.Envelope, method: str, stream: int) -> list[Command]:
        """A request (sampling, elicitation, roots, ping) or a notification of the server's."""
        if not messages.is_method(method) or not (envelope.id is msgspec.UNSET or messages.is_id(envelope.id)):
            return [Note("warn", "dropped a message from the server: its method or its id is out of bounds")]
        if method == "tools/call":  # rules for tools are about what clients call
            return self._declined(envelope.id)
        if stream > 0 and stream not in self._pending:
            return [Note("warn", f"dropped `{method}` from the server: the request that it is about is over")]
        try:
            data, request, settled = self._translate(method, bytes(envelope.params))
        except ProtocolError as exc:
            return [Note("warn", f"dropped `{method}` from the server: {exc}")]
        request_id = envelope.id
        body = b'{"jsonrpc":"2.0"'
        assert request_id is not None
        ticket = self._mint()
        if request_id is not msgspec.UNSET:
            if request_id in self._asked:
                return [Note("warn", f"dropped `{method}` from the server: a request with its id is in flight")]
            if len(self._asked) >= MAX_PENDING:
                why = f"{MAX_PENDING} requests of the server are in flight"
                busy = ToUpstream(messages.error(request_id, messages.DENIED_CODE, why), courtesy=True)
                return [Note("warn", f"refused `{method}` from the server: {why}"), busy]
            self._asked[request_id] = _Asked(ticket, 0.0)
            body += b',"id":' + codec.encode(request_id)
        body += b',"method":' + codec.encode(method)
        body += b',"params":' + _one_line(data) + b"}" if data else b"}"
        if request is None and stream > 0:
            request = self.request_of(stream)
        asked_id = None if request_id is msgspec.UNSET else request_id
        message = Incoming({}, asked_id, method, {}, False, body, request, stream)
        self._held[ticket] = message
        self._held_bytes += len(body)
        return [*settled, Judge(ticket, message, upward=False)]

    @staticmethod
    def _declined(request_id: object) -> list[Command]:
        """A server wants to call a tool."""
        why = "clients have no tools"
        note = Note("warn", f"refused `tools/call` from the server: {why}")
        if not isinstance(request_id, int | str):
            return [note]
        return [note, ToUpstream(messages.error(request_id, _METHOD_NOT_FOUND, why), courtesy=True)]

    def _translate(self, method: str, params: bytes) -> tuple[bytes, RequestId | None, list[Command]]:
        """Give the ids inside a notification their client spelling, and tell the request that it belongs to.

        Raises when it speaks of an unknown request.
        """
        if method == "notifications/tools/list_changed":
            self.catalogue.forget()
            self._generation += 1
            if self._listing is not None:
                self._listing.stale = True
        elif method == "notifications/progress":
            self._progressed = True
            if self._correlate:
                return *self._progress(params), []
        elif method == "notifications/cancelled":
            return self._server_cancels(params)
        if params.find(b"subscriptionId") < 0:
            return params, None, []
        value = codec.decode_payload(params)
        meta = value.get("_meta") if type(value) is dict else None
        if type(meta) is dict and messages.SUBSCRIPTION_KEY in meta:
            listener = meta[messages.SUBSCRIPTION_KEY] = self._listener(meta[messages.SUBSCRIPTION_KEY])
            return codec.encode(value), listener, []
        return params, None, []

    def _progress(self, params: bytes) -> tuple[bytes, RequestId | None]:
        """Progress of a request whose token is its ticket."""
        value = codec.decode_payload(params)
        token = value.get("progressToken") if type(value) is dict else None
        pending = self._pending.get(token) if type(token) is int else None
        if pending is None or pending.token is None or pending.cancelled:
            raise ProtocolError(INVALID_REQUEST, "it names a request that is not in flight")
        value["progressToken"] = pending.token
        return codec.encode(value), pending.client_id

    def _server_cancels(self, params: bytes) -> tuple[bytes, RequestId | None, list[Command]]:
        """The server withdraws its own request, or ends one of ours (a subscription)."""
        value = codec.decode_payload(params)
        request_id = _request_id(value)
        pending = self._pending.get(request_id) if type(request_id) is int else None
        if pending is not None and pending.client_id is not None:
            value["requestId"] = pending.client_id
            return codec.encode(value), pending.client_id, []
        asked = None if request_id is None else self._asked.pop(request_id, None)
        if asked is None:
            raise ProtocolError(INVALID_REQUEST, "it names a request that is not in flight")
        if asked.ticket in self._held:
            self._withdrawn.add(asked.ticket)
            raise ProtocolError(INVALID_REQUEST, "the client has not seen the request that it names")
        return params, None, [Settle(asked.ticket, "cancelled")]

    def _listener(self, subscription: object) -> RequestId:
        """The client's id of a subscription (MCP 2026-07-28, patterns/subscriptions: the id of its listen request)."""
        ticket = subscription
        if isinstance(subscription, str) and subscription.isascii() and subscription.isdecimal():
            ticket = int(subscription[:18])
        pending = self._pending.get(ticket) if type(ticket) is int else None
        if pending is None or pending.client_id is None:
            raise ProtocolError(INVALID_REQUEST, "it belongs to a subscription that is not open")
        return pending.client_id

    # ---- the proxy's own questions

    def fetch_tools(self, envelope: JsonObject, now: float) -> list[Command]:
        """Ask the server for its whole list; `ToolsKnown` follows. `envelope`: the caller's `_meta` if it is modern."""
        if self._listing is not None:
            return []
        self._listing = Listing(envelope, now)
        return self._next_page(self._listing)

    def _next_page(self, listing: Listing) -> list[Command]:
        ticket = self._mint()
        self._pending[ticket] = _Pending(None, "tools/list", bool(listing.envelope), listing.since, listing.since)
        return [listing.request(ticket)]

    def _listed(self, result: bytes) -> list[Command]:
        listing = self._listing
        if listing is None:
            return []
        try:
            if not listing.take(result):
                return self._next_page(listing)
        except ProtocolError as exc:
            return self._listing_ended(str(exc))
        self.catalogue.replace(listing.tools)
        return self._listing_ended(None)

    def _listing_ended(self, problem: str | None) -> list[Command]:
        self._listing = None
        if problem is not None:
            self.catalogue.failed = True
        return [ToolsKnown(problem)]

    def announce_tools(self) -> list[Command]:
        """Tell the client that its list changed, where the server announces that (legacy) or the client asked."""
        note: JsonObject = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        commands: list[Command] = [ToClient(codec.encode(note))] if self._announces_tools else []
        for ticket in sorted(self._listeners):
            request_id = self._pending[ticket].client_id
            meta = {messages.SUBSCRIPTION_KEY: request_id}
            commands.append(ToClient(codec.encode({**note, "params": {"_meta": meta}}), request_id))
        return commands

    # ---- ends

    def expire(self, now: float, timeout: float) -> list[Command]:
        """Give up on requests that the server has had for `timeout` seconds; sooner where no person waits for the
        answer.

        Subscriptions wait for ever (MCP 2026-07-28: `subscriptions/listen` is answered when it ends). A server that
        reports progress, or waits for the client to answer a question, is at work: the wait starts anew, for a day.
        """
        commands: list[Command] = []
        if self._progressed or self._asked:
            self._progressed = False
            for pending in self._pending.values():
                if pending.client_id is not None and not pending.cancelled and now - pending.began < _LONGEST:
                    pending.since = now
        for ticket, pending in list(self._pending.items()):
            nobody_waits = pending.client_id is None or pending.cancelled
            bound = min(timeout, _IMPATIENCE) if nobody_waits else timeout
            listens = pending.method == "subscriptions/listen" and not pending.cancelled
            if now - pending.since < bound or listens:
                continue
            del self._pending[ticket]
            if pending.method != "initialize" and not pending.cancelled:
                commands.append(self._cancellation(ticket, "timeout"))
            why = f"the server did not answer within {bound:g} s"
            commands += self._fail(ticket, pending, "timeout", why)
        for request_id, asked in list(self._asked.items()):
            patience = max(timeout, _PATIENCE)
            if asked.ticket not in self._held and now - asked.since >= patience:
                del self._asked[request_id]
                why = f"the client did not answer within {patience:g} s"
                answer = messages.error(request_id, messages.INTERNAL_ERROR, why)
                commands += [Settle(asked.ticket, "timeout"), ToUpstream(answer, courtesy=True)]
        return commands

    @property
    def waiting(self) -> bool:
        """Whether any request is at the server, or one of its own at the client."""
        return bool(self._pending or self._asked)

    def upstream_gone(self, why: str) -> list[Command]:
        """The server ended: every request that is still open gets its one answer."""
        commands: list[Command] = []
        pending, self._pending = self._pending, {}
        for ticket, request in pending.items():
            commands += self._fail(ticket, request, "upstream_gone", why)
        return commands


def _request_id(params: Json) -> RequestId | None:
    """`params.requestId` of a cancellation, if it is an id at all (True is not 1)."""
    request_id = params.get("requestId") if type(params) is dict else None
    return request_id if type(request_id) in (int, str) else None


def _replace_token(params: JsonObject, ticket: int, pending: _Pending) -> None:
    """Have the server report progress under the ticket (MCP, basic/utilities/progress: tokens are the sender's)."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if type(meta) is dict else None
    if type(meta) is dict and messages.is_id(token):
        pending.token, meta["progressToken"] = token, ticket


def _is_tool_error(result: bytes) -> bool:
    if result.find(b"isError") < 0 and result.find(b"\\") < 0:  # a key can be spelled with escapes
        return False
    try:
        return bytes(_decode_head(result).isError) == b"true"
    except (msgspec.MsgspecError, RecursionError):
        return False


def _error_code(error: bytes) -> int | None:
    try:
        code = codec.decode_payload(error).get("code")
    except (ProtocolError, AttributeError):
        return None
    return code if type(code) is int and abs(code) < 2**53 else None


def _announces_tools(result: bytes) -> bool:
    """Whether an InitializeResult has `capabilities.tools.listChanged` (MCP 2025-11-25, server/tools, capabilities)."""
    try:
        return codec.decode_payload(result)["capabilities"]["tools"]["listChanged"] is True
    except (ProtocolError, LookupError, TypeError):
        return False


def _one_line(payload: bytes) -> bytes:
    """Raw CR can only be white space in checked JSON, but some readers end a line at it."""
    return payload.replace(b"\r", b" ")
