"""Which answer belongs to which HTTP request: for one POST, and for the sessions of MCP 2025-11-25 and before.

Both are fronts of a conversation. Below: `http_exchange`. Above: `http_sessions`, `http_endpoint`.
"""

from __future__ import annotations

__all__ = ["HttpSession", "OnePost"]

import secrets
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from intercept_py.errors import ProtocolError
from intercept_py.model import Caller, RequestId
from intercept_py.transports.conversation import Conversation, Event
from intercept_py.transports.http_exchange import Exchange
from intercept_py.transports.http_messages import JSON, Answer, empty, problem
from intercept_py.wire.commands import ToClient
from intercept_py.wire.messages import INTERNAL_ERROR, Incoming

_MOST_HELD: Final = 64
_MOST_HELD_BYTES: Final = 1024 * 1024
"""Of what a server says while its client listens nowhere."""
_MOST_STREAMS: Final = 16
"""GET streams of one session: one to listen on, and those that are resumed."""
_FAILURES: Final = frozenset(status.value for status in HTTPStatus if status >= 400)


def _status_answer(status: int, body: bytes, request: RequestId | None) -> Answer:
    """What the server answered with, for the client: its status and its JSON-RPC error, or one of ours.

    404 and 405 are part of the protocol as they are: there is no such session any more, and no such stream.
    Statuses that nobody has registered (520, 499), and those of an answer that should have had more, are a bad gateway.
    """
    if status not in _FAILURES:
        status = 502
    if not body and request is not None and status not in (404, 405):
        why = f"the server answered with HTTP status {status}"
        return problem(status, why, code=INTERNAL_ERROR, request_id=request)
    if not body:
        return empty(status, (b"allow", b"POST")) if status == 405 else empty(status)
    return Answer(status, body, JSON)


class OnePost:
    """The front of a conversation that is one POST: every request of the modern era.

    `over` is called when the conversation is of no more use.
    """

    __slots__ = ("_conversation", "_exchange", "_over")

    def __init__(self, exchange: Exchange, over: Callable[[Conversation], None]) -> None:
        self._exchange = exchange
        self._over = over
        self._conversation: Conversation | None = None
        exchange.lost = self._lost

    def send(self, conversation: Conversation, message: Incoming | ProtocolError) -> None:
        """Hand the message on. What is no request is answered by this at once."""
        self._conversation = conversation
        conversation.from_client(message)
        if self._exchange.request is None:
            self._exchange.answer(empty(202))
        self._look()

    def _lost(self, exchange: Exchange) -> None:
        """The client is gone, which cancels the request (MCP 2026-07-28, cancellation)."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            if exchange.request is not None:
                conversation.cancel(exchange.request)
            self._over(conversation)

    def deliver(self, messages: list[ToClient], event: Event | None) -> None:
        """See `Front`."""
        last = len(messages) - 1
        for number, message in enumerate(messages):
            if message.final and message.request is None:
                self._exchange.refuse(message.data)
            else:
                self._exchange.message(message.data, event if number == last else None, message.final)
        self._look()

    def mark(self, request: RequestId | None, stream: int, event: Event) -> None:
        """See `Front`."""
        self._exchange.mark(event)

    def opened(self, request: RequestId | None, stream: int) -> None:
        """See `Front`."""
        self._exchange.open()

    def status(self, request: RequestId | None, stream: int, status: int, body: bytes) -> None:
        """See `Front`."""
        self._exchange.answer(_status_answer(status, body, request))
        self._look()

    def ended(self, request: RequestId | None, stream: int) -> None:
        """See `Front`."""
        self._exchange.end()
        self._look()

    def gone(self, why: str) -> None:
        """See `Front`."""
        self._exchange.answer(problem(502, why))
        self._look()

    def _look(self) -> None:
        if self._exchange.over and self._conversation is not None:
            conversation, self._conversation = self._conversation, None
            self._over(conversation)


class HttpSession:
    """The front of a conversation that lasts: any number of POSTs, and GET streams on which the server speaks unasked.

    `principal` opened it and nobody else may use it. `idle_since`: when the last request ended, None while there is
    one; `clock` gives seconds. `over` is called when the server ended it. `conversation` is to be set before anything
    is called.
    """

    conversation: Conversation

    def __init__(self, caller: Caller, clock: Callable[[], float], over: Callable[[HttpSession], None]) -> None:
        self.key = secrets.token_urlsafe(24)
        self.principal = caller.principal
        self.idle_since: float | None = clock()
        self._caller = caller
        self._clock = clock
        self._over = over
        self._posts: dict[RequestId, Exchange] = {}  # the newest last
        self._listeners: dict[int, Exchange] = {}
        self._last_stream = 0
        self._handing: Exchange | None = None  # whose message is being handed on right now
        self._held: deque[ToClient] = deque()
        self._held_bytes = 0

    # ---- from the client

    def post(self, exchange: Exchange, caller: Caller, message: Incoming | ProtocolError) -> None:
        """Hand a message on. What is no request is answered by this at once."""
        conversation = self.conversation
        if caller != self._caller:
            self._caller = caller
            conversation.speaks(caller)
        request = exchange.request
        if request is not None and request not in self._posts:  # else it is going to be refused
            self._posts[request] = exchange
            self.idle_since = None
        exchange.lost = self._lost
        self._handing = exchange
        try:
            conversation.from_client(message)
        finally:
            self._handing = None
        if request is None:
            exchange.answer(empty(202))
        elif exchange.over:
            self._forget(exchange)
        elif self._held:
            self._release(exchange)

    def listen(self, exchange: Exchange, last_event_id: str | None) -> bool:
        """Let the server speak on this GET request; False if it has too many already."""
        if len(self._listeners) >= _MOST_STREAMS:
            return False
        self._last_stream -= 1
        exchange.stream = self._last_stream
        self._listeners[exchange.stream] = exchange
        self.idle_since = None
        exchange.lost = self._lost
        exchange.begin_with(lambda _: ())  # the server is asked first
        self.conversation.listen(exchange.stream, last_event_id)
        return True

    def _lost(self, exchange: Exchange) -> None:
        """The client of this request is gone. In these eras that cancels nothing (MCP 2025-11-25, transports)."""
        self._forget(exchange)
        if exchange.stream:
            self.conversation.unlisten(exchange.stream)

    def _forget(self, exchange: Exchange) -> None:
        if exchange.stream:
            self._listeners.pop(exchange.stream, None)
        elif exchange.request is not None and self._posts.get(exchange.request) is exchange:
            del self._posts[exchange.request]
        if not self._posts and not self._listeners:
            self.idle_since = self._clock()

    # ---- what the conversation tells us, see `Front`

    def deliver(self, messages: list[ToClient], event: Event | None) -> None:
        """See `Front`."""
        for message in messages[:-1]:
            self._deliver(message, None)
        if messages:
            self._deliver(messages[-1], event)

    def mark(self, request: RequestId | None, stream: int, event: Event) -> None:
        """See `Front`."""
        exchange = self._exchange(request, stream)
        if exchange is not None:
            exchange.mark(event)

    def _deliver(self, message: ToClient, event: Event | None) -> None:
        exchange = self._where(message)
        if exchange is not None and message.final and message.request is None:
            exchange.refuse(message.data)
            self._forget(exchange)
        elif exchange is not None:
            exchange.message(message.data, event, message.final and message.stream >= 0)
            if exchange.over:
                self._forget(exchange)
        elif not message.final:
            self._hold(message)

    def _where(self, message: ToClient) -> Exchange | None:
        """The request that a message answers or belongs to, else where the client listens; None: nowhere."""
        exchange = self._listeners.get(message.stream)
        if exchange is None and message.request is not None:
            exchange = self._posts.get(message.request)
        if exchange is not None or message.final:
            return exchange or (self._handing if message.request is None else None)
        streams = [listener for listener in self._listeners.values() if listener.streaming]
        return next(reversed(streams or list(self._posts.values())), None)

    def _hold(self, message: ToClient) -> None:
        self._held.append(message)
        self._held_bytes += len(message.data)
        while len(self._held) > _MOST_HELD or self._held_bytes > _MOST_HELD_BYTES:
            self._held_bytes -= len(self._held.popleft().data)

    def _release(self, exchange: Exchange) -> None:
        held, self._held, self._held_bytes = self._held, deque(), 0
        for message in held:
            exchange.message(message.data, None, False)

    def _exchange(self, request: RequestId | None, stream: int) -> Exchange | None:
        if stream < 0:
            return self._listeners.get(stream)
        return None if request is None else self._posts.get(request)

    def opened(self, request: RequestId | None, stream: int) -> None:
        """See `Front`."""
        exchange = self._exchange(request, stream)
        if exchange is not None:
            exchange.open()
            if stream < 0:
                self._release(exchange)

    def status(self, request: RequestId | None, stream: int, status: int, body: bytes) -> None:
        """See `Front`."""
        exchange = self._exchange(request, stream)
        if exchange is not None:
            exchange.answer(_status_answer(status, body, request))
            self._forget(exchange)

    def ended(self, request: RequestId | None, stream: int) -> None:
        """See `Front`."""
        exchange = self._exchange(request, stream)
        if exchange is not None:
            exchange.end()
            self._forget(exchange)

    def gone(self, why: str) -> None:
        """See `Front`."""
        self._over(self)
        self.hang_up(why)

    # ---- ends

    def hang_up(self, why: str) -> None:
        """End everything that is still open."""
        for exchange in [*self._posts.values(), *self._listeners.values()]:
            if exchange.streaming:
                exchange.end()
            else:
                exchange.answer(problem(404, why))
            self._forget(exchange)
