"""The sessions of one endpoint: opened by `initialize`, found by `Mcp-Session-Id`, ended by DELETE, idleness or the
server (MCP 2025-03-26 to 2025-11-25, transports: session management).

Below: `http_fronts`. Above: `http_endpoint`.
"""

from __future__ import annotations

__all__ = ["Sessions"]

from collections.abc import Callable, Coroutine
from itertools import chain
from typing import Any, Final

from intercept_py.model import Caller
from intercept_py.transports.http_exchange import Exchange, is_error
from intercept_py.transports.http_fronts import HttpSession
from intercept_py.transports.http_gateway import Gateway, Settings
from intercept_py.transports.http_messages import Answer, Fields, problem
from intercept_py.wire.messages import INTERNAL_ERROR

_LAST: Final = 10


class Sessions:
    """See the module. `run` takes a coroutine that somebody owns; `clock` gives seconds that never go back."""

    def __init__(
        self,
        gateway: Gateway,
        settings: Settings,
        run: Callable[[Coroutine[Any, Any, None]], None],
        clock: Callable[[], float],
    ) -> None:
        self._gateway = gateway
        self._settings = settings
        self._run = run
        self._clock = clock
        self._known: dict[str, HttpSession] = {}
        self._opening: set[HttpSession] = set()  # whose `initialize` is not answered yet

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str, caller: Caller) -> HttpSession | Answer:
        """The session of a request. Somebody else's is like one that does not exist."""
        session = self._known.get(key)
        if session is None or session.principal != caller.principal:
            return problem(404, "there is no such session: begin another with `initialize`")
        return session

    def begin(self, caller: Caller, exchange: Exchange) -> HttpSession | Answer:
        """A session for the request that opens it. Raises `UpstreamError` if the server cannot be started.

        It exists for other requests, and its id is told, once the server has agreed to it.
        """
        if not self._has_room(caller):
            why = "too many sessions are open: try again later"
            return problem(503, why, (b"retry-after", b"10"), code=INTERNAL_ERROR)
        session = HttpSession(caller, self._clock, self._forget)
        session.conversation = self._gateway.converse(session, caller, session=True, version=None)
        self._opening.add(session)
        exchange.begin_with(lambda first: self._establish(session, first))
        return session

    def _has_room(self, caller: Caller) -> bool:
        """A tenth of all places is for principals who have none yet: else one of them could keep all others out."""
        most = self._settings.max_sessions
        free = most - len(self._known) - len(self._opening)
        if caller.principal is None or free > most // _LAST:
            return free > 0
        held = (session.principal for session in chain(self._known.values(), self._opening))
        return free > 0 and caller.principal not in held

    def _establish(self, session: HttpSession, first: bytes) -> Fields:
        """The answer to `initialize` begins. A server that keeps no session needs none of ours."""
        self._opening.discard(session)
        if is_error(first) or not session.conversation.link.session:
            self._run(session.conversation.close())
            return ()
        self._known[session.key] = session
        return ((b"mcp-session-id", session.key.encode("ascii")),)

    def _forget(self, session: HttpSession) -> None:
        self._known.pop(session.key, None)
        self._opening.discard(session)

    def sweep(self) -> None:
        """End sessions that nobody has used for too long, and those whose client left before they began."""
        now = self._clock()
        for session in [*self._known.values(), *self._opening]:
            idle = session.idle_since
            if idle is not None and (session in self._opening or now - idle >= self._settings.session_idle):
                self._run(self.end(session, "the session was idle for too long"))

    async def end(self, session: HttpSession, why: str) -> None:
        """End a session: its server is told, what waits for it is answered."""
        self._forget(session)
        try:
            await session.conversation.close()
        finally:
            session.hang_up(why)

    def close(self) -> None:
        """End all of them."""
        for session in [*self._known.values(), *self._opening]:
            self._run(self.end(session, "the proxy is shutting down"))
