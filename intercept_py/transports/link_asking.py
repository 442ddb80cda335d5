"""A link's request whose answer may be an event stream: its messages, its end, and from where it could go on.

Below: `client_connection`, `link_messages`, `wire.sse`. Above: `link_requests`.
"""

from __future__ import annotations

__all__ = ["Asking", "Owner"]

import asyncio
from typing import Protocol

from intercept_py.transports.client_connection import Request
from intercept_py.transports.conversation import Event, Receiver
from intercept_py.transports.link_messages import id_answered, one_line
from intercept_py.wire.sse import EventReader, ServerEvent

_LINGER = 5.0
"""Seconds that an event stream may go on after the answer."""


class Owner(Protocol):
    """The link of a request."""

    receiver: Receiver
    limit: int
    """Bytes of the longest message."""

    @property
    def session(self) -> bool:
        """Whether the server has given the conversation a session."""

    def begun(self, session: bytes | None) -> None:
        """The server accepts `initialize`, and this is its session's id, if it has any."""

    def agreed(self, version: str) -> None:
        """The server answered `initialize` with this version."""

    def answered(self, request: Request) -> None:
        """What may only be sent after this has been answered may be sent."""

    def over(self, request: Asking) -> None:
        """Nothing more comes of a request."""

    def noticed(self, notice: Request, size: int) -> None:
        """Nothing more comes of a notification, or of an answer to the server, of so many bytes."""

    def stopped(self, request: Asking, why: str) -> None:
        """It ended before it brought what was asked for, and may be asked for again."""

    def refused(self, request: Request, status: int) -> str:
        """The server does not do as it was asked. Returns why, for the client."""

    def unnoticed(self, why: str) -> None:
        """A notification, or an answer to the server, has not reached it."""


class Asking(Request):
    """A request whose answer may be an event stream. `stream` names it, see `Receiver`; `size`: bytes of its body.

    `last_id` and `retry` (milliseconds): from where and after what time to resume it, as far as the server said so.
    `tries`: how often in a row it has been resumed in vain.
    """

    is_answered = False
    last_id: str | None = None
    retry: int | None = None
    status = 0
    tries = 0
    _events: EventReader | None = None
    _linger: asyncio.TimerHandle | None = None

    def __init__(self, owner: Owner, stream: int, size: int = 0) -> None:
        self.stream = stream
        self.size = size
        self._owner = owner
        self._limit = owner.limit

    @property
    def streaming(self) -> bool:
        """Whether the server answers with an event stream."""
        return self._events is not None

    @property
    def resumable(self) -> bool:
        """Whether the rest of its event stream may be asked for (MCP 2025-11-25, resumability)."""
        return self.last_id is not None

    def _feed(self, events: EventReader, chunk: bytes) -> None:
        complete = events.feed(chunk)
        if complete:
            self._read(complete)
        if self.is_answered and self._linger is None and not self.over:
            self._linger = asyncio.get_running_loop().call_later(_LINGER, self.leave)
        if events.too_long:
            self.give_up(f"an event of the server's is longer than {self._limit} bytes: raise --max-message-bytes")

    def _read(self, events: list[ServerEvent]) -> None:
        """Pass messages on, those of one chunk together; an event with an id or a time to retry ends a group."""
        receiver, lines = self._owner.receiver, list[bytes]()
        for event in events:
            marks = self._mark(event)
            line = one_line(event.data) if event.data and event.name == "message" else None
            if line is not None:
                self._look(line)
                lines.append(line)
            elif lines and marks is not None:
                receiver.from_upstream([*lines], self.stream)
                lines.clear()
            if marks is not None:
                receiver.from_upstream([*lines], self.stream, marks)
                lines.clear()
        if lines:
            receiver.from_upstream([*lines], self.stream)

    def _mark(self, event: ServerEvent) -> Event | None:
        if event.id is None and event.retry is None:
            return None
        if event.id is not None:
            self.last_id = event.id or None  # an empty one takes the last one back
        if event.retry is not None:
            self.retry = event.retry
        return Event(event.id, event.retry)

    def _look(self, line: bytes) -> None:
        """See whether this is the answer. What else the server says is the relay's business."""
        if self.stream > 0 and not self.is_answered and id_answered(line) == self.stream:
            self.is_answered = True
            self._owner.answered(self)

    def leave(self) -> None:
        """Wait for nothing more."""
        self.abort()
        self._close()

    def give_up(self, why: str) -> None:
        """There is nothing to be made of the answer."""
        self.leave()
        if not self.is_answered:
            self._failed(why)

    def _close(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._owner.over(self)

    def _failed(self, why: str) -> None:
        self._owner.receiver.failed(self.stream, why)

    def _stopped(self, why: str) -> None:
        self._close()
        if not self.is_answered:
            self._owner.stopped(self, why)
