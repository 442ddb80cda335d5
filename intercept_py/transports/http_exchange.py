"""One request of an MCP client's and what is answered: one JSON document, or a stream of events once there is more.

Below: `http_messages`, `wire.sse`. Above: `http_sessions`.
"""

from __future__ import annotations

__all__ = ["STREAM_LIMIT", "Exchange", "is_error"]

import re
from collections.abc import Callable
from typing import Final

import msgspec

from intercept_py.model import RequestId
from intercept_py.transports.conversation import Event
from intercept_py.transports.http_messages import EVENT_STREAM, JSON, Answer, Fields, Reply, nobody
from intercept_py.wire import sse
from intercept_py.wire.codec import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR

STREAM_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of a stream that its client may leave unread before it is cut off."""

_STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    -32020: 400,
    -32021: 400,
    -32022: 400,
    -32601: 404,
}
"""The HTTP status of an error by its code (MCP 2026-07-28, streamable HTTP). All others, and all of older eras: 200."""

_FAILED: Final = re.compile(rb'\{"jsonrpc":"2\.0","id":(?:null|-?\d+|"(?:[^"\\]|\\.)*"),"error":')
_COMMENT: Final = b": still here\n\n"


class _Error(msgspec.Struct, frozen=True):
    code: int | None = None


class _Failure(msgspec.Struct, frozen=True):
    error: _Error = _Error()


_decode_failure = msgspec.json.Decoder(_Failure).decode


def is_error(message: bytes) -> bool:
    """Whether an answer in the relay's encoding is an error."""
    return _FAILED.match(message) is not None


class Exchange:
    """See the module. `modern`: its era. `request`: the id of the request; `stream`: the name of a GET stream, if it is
    one. `endless`: its client only listens, and this is the `Authorization` and the address by which it may. `over`:
    nothing more can be sent, and everything that is sent nonetheless is dropped; it is then taken from the set
    `waiting`.
    """

    __slots__ = (
        "_modern",
        "_opening",
        "_quiet",
        "_reply",
        "_waiting",
        "endless",
        "lost",
        "over",
        "request",
        "stream",
        "streaming",
    )

    def __init__(
        self, reply: Reply, waiting: set[Exchange], *, modern: bool = False, request: RequestId | None = None
    ) -> None:
        self.request = request
        self.stream = 0
        self.endless: tuple[str | None, str] | None = None
        self.over = False
        self.streaming = False
        self._waiting = waiting
        self._modern = modern
        self._reply = reply
        self.lost: Callable[[Exchange], None] | None = None
        self._opening: Callable[[bytes], Fields] | None = None
        self._quiet = False
        reply.lost = self._gone

    def begin_with(self, opening: Callable[[bytes], Fields]) -> None:
        """Ask this for more fields when the answer begins; it is told the first message, which may be empty."""
        self._opening = opening

    def message(self, data: bytes, event: Event | None, final: bool) -> None:
        """Send one message; the `final` one ends the exchange. One that comes alone is the JSON document."""
        if self.over:
            return
        if final and not self.streaming and event is None:
            self.answer(Answer(self._status(data), data, JSON))
            return
        self.open(data if final else b"")
        self._send(sse.encode_event(data, *_marks(event)))
        if final:
            self.end()

    def refuse(self, error: bytes) -> None:
        """End with an error that answers no request: the body was none that could be told from others."""
        self.answer(Answer(400, error, JSON))

    def mark(self, event: Event) -> None:
        """Send an event without data: it tells the client from where to resume (MCP 2025-11-25, transports)."""
        self.open()
        self._send(sse.encode_event(None, *_marks(event)))

    def open(self, first: bytes = b"") -> None:
        """Answer with a stream of events, if it does not already."""
        if not self.streaming and not self.over:
            self.streaming = True
            self._reply.begin((*EVENT_STREAM, *self._more_fields(first)))

    def answer(self, answer: Answer) -> None:
        """End with a whole answer; where a stream has begun its body becomes the last event."""
        if self.over:
            return
        if self.streaming:
            if answer.body:
                self._send(sse.encode_event(answer.body))
            self.end()
            return
        self._close()
        more = self._more_fields(answer.body)
        if more:
            answer = Answer(answer.status, answer.body, (*answer.fields, *more), answer.close)
        self._reply.whole(answer)

    def end(self) -> None:
        """End the stream; one that has not begun is an empty one."""
        self.open()
        if not self.over:
            self._close()
            self._reply.end()

    def _close(self) -> None:
        self.over = True
        self._waiting.discard(self)
        self._reply.lost = nobody  # a ring of references would wait for the garbage collector, at every call

    def withdraw(self, error: bytes = b"") -> None:
        """End it, with an error or without, though the server has not: for who watches, as if the client had gone."""
        if self.over:
            return
        if error and not self.streaming:
            self._reply.whole(Answer(503, error, JSON, close=True))
        else:
            self.open()
            if error:
                self._reply.part(sse.encode_event(error))
            self._reply.end()
        self._gone()

    def still_here(self) -> None:
        """Call this every few seconds: a stream that was quiet since the last time gets a sign of life.

        A request that is not answered yet becomes a stream for it, unless its answer brings fields that are not known
        before. In this way we, and everybody between us and the client, notice that the other side is gone.
        """
        if self._quiet and not self.over and (self.streaming or self._opening is None):
            self.open()
            self._send(_COMMENT)
        self._quiet = True

    def _send(self, data: bytes) -> None:
        if self.over:
            return
        if self._reply.backlog > STREAM_LIMIT:
            self._gone()
            self._reply.cut()
            return
        self._quiet = False
        self._reply.part(data)

    def _gone(self) -> None:
        if not self.over:
            self._close()
            lost, self.lost = self.lost, None
            if lost is not None:
                lost(self)

    def _more_fields(self, first: bytes) -> Fields:
        opening, self._opening = self._opening, None
        return opening(first) if opening is not None else ()

    def _status(self, message: bytes) -> int:
        if not self._modern or not is_error(message):
            return 200
        try:
            return _STATUS.get(_decode_failure(message).error.code or 0, 200)
        except msgspec.MsgspecError:  # a code that is no number: the client may make of it what it can
            return 200


def _marks(event: Event | None) -> tuple[str | None, int | None]:
    return (None, None) if event is None else (event.id, event.retry)
