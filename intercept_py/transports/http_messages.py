"""An HTTP request's answer, and the way by which it leaves, whichever server runs us.

Below: `wire.messages`. Above: all of `http_*`; `http_connection` and `http_asgi` implement `Reply`.
"""

from __future__ import annotations

__all__ = [
    "EVENT_STREAM",
    "JSON",
    "NO_STORE",
    "Answer",
    "Field",
    "Fields",
    "Reply",
    "crowded",
    "empty",
    "json_answer",
    "nobody",
    "problem",
    "too_long",
    "too_slow",
]

from collections.abc import Callable
from typing import Protocol, TypeAlias

import msgspec

from intercept_py.model import Json, RequestId
from intercept_py.wire import messages
from intercept_py.wire.codec import INVALID_REQUEST
from intercept_py.wire.messages import INTERNAL_ERROR

Field: TypeAlias = tuple[bytes, bytes]
Fields: TypeAlias = tuple[Field, ...]
"""Header fields as ASGI has them: names in lower case. Ours only; nothing of the server's or the client's is copied."""

NO_STORE = (b"cache-control", b"no-store")
JSON: Fields = ((b"content-type", b"application/json"), NO_STORE)
EVENT_STREAM: Fields = ((b"content-type", b"text/event-stream"), NO_STORE, (b"x-accel-buffering", b"no"))
"""The last one keeps nginx from holding events back."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. Who sends it adds `Content-Length`, `Date` and `Connection`; `close`: nothing may follow it."""

    status: int
    body: bytes = b""
    fields: Fields = JSON
    close: bool = False

    def sharing(self, fields: Fields) -> Answer:
        """The same with more fields."""
        return Answer(self.status, self.body, (*self.fields, *fields), self.close) if fields else self


class Reply(Protocol):
    """Where the answer to one request goes: `whole`, or `begin`, `part`s and `end`. Nothing here waits or raises."""

    lost: Callable[[], None]
    """Called when the client goes away before the answer ended, once; what is sent then is dropped."""

    @property
    def backlog(self) -> int:
        """Bytes that the client has not taken yet."""

    def whole(self, answer: Answer) -> None:
        """Send all of it. Where something was sent already this is `cut`."""

    def begin(self, fields: Fields) -> None:
        """Begin an answer of status 200 whose length is not known."""

    def part(self, data: bytes) -> None:
        """Send a part of it, now."""

    def end(self) -> None:
        """That was all."""

    def cut(self) -> None:
        """Break off: the client is to see that this is not all. `lost` is not called."""


def nobody() -> None:
    """The `lost` of an answer that nobody watches."""


def empty(status: int, *fields: Field) -> Answer:
    """An answer without a body."""
    return Answer(status, b"", (NO_STORE, *fields))


def json_answer(status: int, body: bytes, *fields: Field) -> Answer:
    """An answer whose body is JSON."""
    return Answer(status, body, (*JSON, *fields))


def problem(
    status: int,
    why: str,
    *fields: Field,
    code: int = INVALID_REQUEST,
    request_id: RequestId | None = None,
    data: Json = None,
    close: bool = False,
) -> Answer:
    """A refusal, as the JSON-RPC error that MCP's SDKs send with an HTTP status. `why` is one line for a person."""
    return Answer(status, messages.error(request_id, code, why, data), (*JSON, *fields), close)


def too_long(limit: int) -> Answer:
    """A body over the bound."""
    return problem(413, f"the body is longer than {limit} bytes", close=True)


def crowded() -> Answer:
    """A body that has no room beside those of others."""
    why = "too much is being sent at once: try again later"
    return problem(503, why, (b"retry-after", b"5"), code=INTERNAL_ERROR, close=True)


def too_slow(patience: float) -> Answer:
    """A request that does not arrive."""
    return problem(408, f"the request did not arrive within {patience:g} s", close=True)
