"""One server's MCP endpoint: which HTTP request goes to which conversation.

Below: `http_ladder`, `http_sessions`. Above: `http_server`.
"""

from __future__ import annotations

__all__ = ["Endpoint"]

from collections.abc import Callable, Coroutine
from typing import Any, Final

from intercept_py.errors import ProtocolError, UpstreamError
from intercept_py.model import Caller
from intercept_py.transports.http_exchange import Exchange
from intercept_py.transports.http_fronts import HttpSession, OnePost
from intercept_py.transports.http_gateway import Challenge, Gateway, Settings
from intercept_py.transports.http_guard import Head
from intercept_py.transports.http_ladder import Post, read_post, unsound
from intercept_py.transports.http_messages import Answer, Reply, empty, json_answer, problem
from intercept_py.transports.http_sessions import Sessions
from intercept_py.wire import messages
from intercept_py.wire.messages import INTERNAL_ERROR

_MODERN_METHODS: Final = (b"allow", b"POST")
_LEGACY_METHODS: Final = (b"allow", b"GET, POST, DELETE")
_NO_SESSION: Final = "the mcp-session-id header is missing: begin with `initialize`"


class Endpoint:
    """See the module. `run` takes a coroutine that somebody owns; `clock` gives seconds that never go back."""

    def __init__(
        self,
        gateway: Gateway,
        settings: Settings,
        run: Callable[[Coroutine[Any, Any, None]], None],
        clock: Callable[[], float],
    ) -> None:
        self.gateway = gateway
        self.sessions = Sessions(gateway, settings, run, clock)
        self._run = run
        self._waiting: set[Exchange] = set()  # that are not over
        self._doubted: set[Exchange] = set()  # of which somebody finds out whether their clients may go on listening

    def take(self, head: Head, caller: Caller, body: bytes, reply: Reply) -> None:
        """Answer a request, sooner or later."""
        if head.method == "POST":
            answer = self._post(head, caller, body, reply)
        elif head.modern and head.method in ("GET", "DELETE"):
            answer = empty(405, _MODERN_METHODS)
        elif head.method == "GET":
            answer = self._get(head, caller, reply)
        elif head.method == "DELETE":
            answer = self._delete(head, caller, reply)
        else:
            answer = problem(405, "use POST, GET or DELETE here", _LEGACY_METHODS)
        if answer is not None:
            reply.whole(answer)

    def _post(self, head: Head, caller: Caller, body: bytes, reply: Reply) -> Answer | None:
        post = read_post(head, body, caller, self.gateway.mirrors_of)
        if isinstance(post, Answer):
            return post
        exchange = Exchange(reply, self._waiting, modern=post.modern, request=post.request)
        if post.method == "subscriptions/listen":
            exchange.endless = head.authorization, head.address
        try:
            return self._converse(head, caller, post, exchange)
        except UpstreamError as exc:
            return json_answer(200 if post.request is not None else 503, _failed(post, exc))
        finally:
            if not exchange.over:
                self._waiting.add(exchange)

    def _converse(self, head: Head, caller: Caller, post: Post, exchange: Exchange) -> Answer | None:
        session: HttpSession | Answer | None = None
        if not post.modern:
            if head.session is not None:
                session = self.sessions.find(head.session, caller)
            elif post.method == "initialize" and post.request is not None:
                if isinstance(post.message, ProtocolError):
                    return unsound(post.message)  # nothing is started for it
                session = self.sessions.begin(caller, exchange)
            elif self.gateway.needs_session:
                session = problem(400, _NO_SESSION)
        if session is None:
            front = OnePost(exchange, self.gateway.over)
            version = None if post.modern else head.version
            front.send(self.gateway.converse(front, caller, session=False, version=version), post.message)
            return None
        if isinstance(session, Answer):
            return session
        session.post(exchange, caller, post.message)
        if self.gateway.needs_session and post.method != "initialize":
            exchange.open()  # a child cannot ask for a stream; SDK servers of these eras answer with nothing else
        return None

    def _get(self, head: Head, caller: Caller, reply: Reply) -> Answer | None:
        if not head.events:
            return problem(406, "the client must accept text/event-stream")
        session = self._named(head, caller)
        if isinstance(session, Answer):
            return session
        exchange = Exchange(reply, self._waiting)
        exchange.endless = head.authorization, head.address
        if not session.listen(exchange, head.last_event_id):
            return problem(409, "this session has too many open streams")
        if not exchange.over:
            self._waiting.add(exchange)
        return None

    def _delete(self, head: Head, caller: Caller, reply: Reply) -> Answer | None:
        session = self._named(head, caller)
        if isinstance(session, Answer):
            return session
        self._run(self._end(session, reply))
        return None

    async def _end(self, session: HttpSession, reply: Reply) -> None:
        try:
            await self.sessions.end(session, "the session has ended")
        finally:
            reply.whole(empty(200))

    def _named(self, head: Head, caller: Caller) -> HttpSession | Answer:
        if head.session is not None:
            return self.sessions.find(head.session, caller)
        return problem(400, _NO_SESSION) if self.gateway.needs_session else empty(405, _MODERN_METHODS)

    def still_here(self) -> None:
        """Call this every few seconds, see `Exchange.still_here`. Who may not listen any more is not told any more."""
        for exchange in list(self._waiting):
            if exchange.endless is not None:
                self._look_again(exchange, *exchange.endless)
            exchange.still_here()

    def _look_again(self, exchange: Exchange, authorization: str | None, address: str) -> None:
        caller = self.gateway.recognise(authorization, address)
        if isinstance(caller, Challenge):
            exchange.withdraw()
        elif caller is None and exchange not in self._doubted:
            self._doubted.add(exchange)
            self._run(self._find_out(exchange, authorization, address))

    async def _find_out(self, exchange: Exchange, authorization: str | None, address: str) -> None:
        caller: Caller | Challenge | None = None
        try:
            caller = await self.gateway.authenticate(authorization, address)
        finally:
            self._doubted.discard(exchange)
            if not isinstance(caller, Caller):
                exchange.withdraw()

    def quieten(self) -> None:
        """End the streams on which clients only listen."""
        for exchange in list(self._waiting):
            if exchange.endless is not None:
                exchange.withdraw()

    def close(self) -> None:
        """End what waits though its session, if it had one, has ended."""
        for exchange in list(self._waiting):
            exchange.withdraw(messages.error(exchange.request, INTERNAL_ERROR, "the proxy is shutting down"))


def _failed(post: Post, exc: UpstreamError) -> bytes:
    return messages.error(post.request, INTERNAL_ERROR, str(exc))
