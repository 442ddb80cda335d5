"""The HTTP requests that a link makes of its server, and what their answers mean to the conversation.

Nothing that an answer says is repeated to the client except messages and errors of JSON-RPC: no header, no page, no
address that it redirects to. Sources: MCP 2026-07-28 and 2025-11-25, streamable HTTP.

Below: `link_asking`, `link_messages`. Above: `http_link`.
"""

from __future__ import annotations

__all__ = ["Goodbye", "Listening", "Notice", "Post"]

import asyncio

from intercept_py.transports import link_messages
from intercept_py.transports.client_connection import Request
from intercept_py.transports.link_asking import Asking, Owner
from intercept_py.transports.link_messages import EVENTS, JSON, id_answered, is_encoded, media_type, one_line
from intercept_py.wire.sse import EventReader

_LINGER = 5.0
"""Seconds that an answer may go on after all that was asked for has come."""
_PATIENCE = 30.0
"""Seconds that a server may take to accept a notification: what comes after it waits."""
_MAX_ERROR = 64 * 1024
_CREDENTIALS = (401, 403, 407)


class Post(Asking):
    """A request of the client's. `modern`: its era."""

    def __init__(self, owner: Owner, ticket: int, method: str | None, modern: bool, size: int) -> None:
        super().__init__(owner, ticket, size)
        self.modern = modern
        self._begins = method == "initialize"
        self._parts: list[bytes] = []
        self._length = 0

    @property
    def resumable(self) -> bool:
        """See `Asking`; the modern era resumes nothing."""
        return self.last_id is not None and not self.modern

    def head(self, status: int, fields: dict[bytes, bytes]) -> None:
        """See `Request`."""
        self.status = status
        kind = media_type(fields)
        if status >= 300:
            self._limit = min(self._limit, _MAX_ERROR)
        elif is_encoded(fields):
            self.give_up("the server's answer is compressed, which nobody asked for")
        elif self._begins and not self._begin(fields.get(b"mcp-session-id")):
            self.give_up("the server's session id is none that may be sent")
        elif kind == EVENTS:
            self._events = EventReader(self._limit)
            self._owner.receiver.opened(self.stream)
        elif status in (202, 204):
            self.give_up("the server accepted the request, and does not answer it")
        elif kind != JSON:
            self.give_up(f"the server answered with {link_messages.shown(kind)} instead of JSON or an event stream")

    def _begin(self, session: bytes | None) -> bool:
        if session is not None and not link_messages.is_session(session):
            return False
        self._owner.begun(session)
        return True

    def data(self, chunk: bytes) -> None:
        """See `Request`."""
        if self._events is not None:
            self._feed(self._events, chunk)
            return
        self._length += len(chunk)
        if self._length <= self._limit:
            self._parts.append(chunk)
        elif self.status < 300:
            self.give_up(f"the server's answer is longer than {self._limit} bytes: raise --max-message-bytes")
        else:
            self._refused(b"")

    def _look(self, line: bytes) -> None:
        if self._begins and id_answered(line) == self.stream:
            version = link_messages.agreed_version(line)
            if version is not None:
                self._owner.agreed(version)
        super()._look(line)

    def end(self) -> None:
        """See `Request`."""
        if self._events is not None:
            self._stopped("the server ended its event stream without the answer")
            return
        line = one_line(b"".join(self._parts))
        if self.status >= 300 and (self.status in _CREDENTIALS or not self._answers(line)):
            self._refused(line)
            return
        if self._begins:
            self._look(line)
        self._close()
        self._owner.receiver.from_upstream([line], self.stream)
        if not self._answers(line):
            self._failed("what the server answered is no answer to the request")

    def _answers(self, line: bytes) -> bool:
        return id_answered(line) == self.stream

    def _refused(self, body: bytes) -> None:
        self.leave()
        why, receiver, lost = self._owner.refused(self, self.status), self._owner.receiver, self._owner.session
        if self.status in _CREDENTIALS or self.status < 400:
            self._failed(why)
        else:
            receiver.status(self.stream, self.status, link_messages.as_error(body))
        if self.status == 404 and lost and not self.modern:
            receiver.gone(why)

    def broken(self, why: str) -> None:
        """See `Request`."""
        if self._events is not None:
            self._stopped(why)
        else:
            self._close()
            self._failed(why)


class Listening(Asking):
    """A GET: what the server says unasked (`stream` below 0), or the rest of an event stream that was cut off."""

    def __init__(self, owner: Owner, stream: int, last_id: str | None) -> None:
        super().__init__(owner, stream)
        self.last_id = last_id

    def head(self, status: int, fields: dict[bytes, bytes]) -> None:
        """See `Request`."""
        self.status = status
        if status == 200 and media_type(fields) == EVENTS and not is_encoded(fields):
            self.tries = 0
            self._events = EventReader(self._limit)
            if self.stream < 0:
                self._owner.receiver.opened(self.stream)
            return
        self.leave()
        why, receiver, lost = self._owner.refused(self, status), self._owner.receiver, self._owner.session
        if status >= 500:
            self._owner.stopped(self, why)
        elif self.stream > 0:
            self._failed(why)
        else:
            receiver.status(self.stream, status if 400 <= status not in _CREDENTIALS else 502, b"")
        if status == 404 and lost:
            receiver.gone(why)

    def data(self, chunk: bytes) -> None:
        """See `Request`."""
        if self._events is not None:
            self._feed(self._events, chunk)

    def end(self) -> None:
        """See `Request`."""
        self._stopped("the server ended its event stream without the answer")

    def broken(self, why: str) -> None:
        """See `Request`."""
        self._stopped(why)

    def _failed(self, why: str) -> None:
        if self.stream > 0:
            super()._failed(why)
        else:
            self._owner.receiver.ended(self.stream)


class Notice(Request):
    """A notification, or an answer to the server, which says no more than whether it took it. `size` as in `Asking`.

    `begins`: the server is to be listened to once it has this.
    """

    begins = False

    def __init__(self, owner: Owner, size: int) -> None:
        self._size = size
        self._owner = owner
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._too_late)

    def head(self, status: int, fields: dict[bytes, bytes]) -> None:
        """See `Request`."""
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_LINGER, self.leave)
        self._owner.answered(self)
        if status < 300:
            return
        lost = self._owner.session
        why = self._owner.refused(self, status)
        self._owner.unnoticed(why)
        if status == 404 and lost:
            self._owner.receiver.gone(why)

    def data(self, chunk: bytes) -> None:
        """Nobody reads it."""

    def end(self) -> None:
        """See `Request`."""
        self._timer.cancel()
        self._owner.noticed(self, self._size)

    def leave(self) -> None:
        """Wait for nothing more."""
        self.abort()
        self.end()

    def broken(self, why: str) -> None:
        """See `Request`."""
        self.end()
        self._owner.unnoticed(why)

    def _too_late(self) -> None:
        self.leave()
        self._owner.unnoticed(f"the server did not accept it within {_PATIENCE:g} s")


class Goodbye(Request):
    """DELETE of a session. `done` once it has been answered or cannot be."""

    def __init__(self) -> None:
        self.done = asyncio.Event()

    def head(self, status: int, fields: dict[bytes, bytes]) -> None:
        """A server may refuse (405) and keep the session (MCP 2025-11-25, session management)."""
        self.done.set()

    def data(self, chunk: bytes) -> None:
        """Nobody reads it."""

    def end(self) -> None:
        """See `Request`."""

    def broken(self, why: str) -> None:
        """See `Request`."""
        self.done.set()
