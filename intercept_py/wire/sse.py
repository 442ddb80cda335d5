"""Server-sent events: parsed as they arrive, with a bound, and written (WHATWG HTML, 9.2 server-sent events). No I/O.

Below: nothing. Above: `transports.http_link` reads, `transports.http_server` writes.
"""

from __future__ import annotations

__all__ = ["EventReader", "ServerEvent", "encode_event"]

import msgspec

_MARK = b"\xef\xbb\xbf"
_DATA = b"data: "
_MAX_ID_LENGTH = 1024
_MAX_RETRY_DIGITS = 9


class ServerEvent(msgspec.Struct, frozen=True):
    """One event. `data` is None where it has none: such an event only sets `id`, or `retry` (milliseconds)."""

    data: bytes | None = None
    name: str = "message"
    id: str | None = None
    retry: int | None = None


class EventReader:
    """Feed it what was read, get complete events. Holds at most `limit` bytes of an event, and one chunk.

    `too_long` once an event or a line is longer than that: nothing comes out any more.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.too_long = False
        self._parts: list[bytes] = []  # of a line that is not complete
        self._held = 0  # bytes in them
        self._begun = False
        self._after_cr = False
        self._start_event()

    def _start_event(self) -> None:
        self._data: list[bytes] = []
        self._size = 0  # bytes in them, and the line ends between
        self._name = "message"
        self._id: str | None = None
        self._retry: int | None = None

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that the chunk completes, in order. Comments, and events that say nothing, are left out."""
        events: list[ServerEvent] = []
        if not self._begun:
            chunk = self._without_mark(chunk)
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        first, *rest = chunk.split(b"\n")
        self._hold(first)
        if rest:
            lines = [b"".join(self._parts), *rest[:-1]]
            self._parts, self._held = [], 0
            for line in lines:
                if line and not self.too_long:
                    self._take(line)
                elif not self.too_long:
                    self._end_event(events)
            self._hold(rest[-1])
        return events

    def _without_mark(self, chunk: bytes) -> bytes:
        """Leave out the byte order mark that a stream may begin with, however it is cut into chunks."""
        chunk = b"".join(self._parts) + chunk
        self._parts, self._held = [], 0
        self._begun = len(chunk) >= len(_MARK) or not _MARK.startswith(chunk)
        return chunk.removeprefix(_MARK)

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """Lines end with CR LF, LF or CR. A CR ends its line at once, and a LF right behind it ends no other."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, part: bytes) -> None:
        if part and not self.too_long:
            self._parts.append(part)
            self._held += len(part)
            if self._held > self.limit + len(_DATA):
                self._give_up()

    def _give_up(self) -> None:
        self.too_long = True
        self._parts = []
        self._start_event()

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + bool(self._data)
            if self._size > self.limit:
                self._give_up()
            else:
                self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace") or "message"
        elif field == b"id" and b"\0" not in value and len(value) <= _MAX_ID_LENGTH:
            self._id = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self._retry = int(value)

    def _end_event(self, events: list[ServerEvent]) -> None:
        if self._data or self._id is not None or self._retry is not None:
            data = b"\n".join(self._data) if self._data else None
            events.append(ServerEvent(data, self._name, self._id, self._retry))
        self._start_event()


def encode_event(data: bytes | None, id: str | None = None, retry: int | None = None) -> bytes:  # noqa: A002
    """One event named `message`; `data` is one line, `id` has no line end. Without data it only sets the others."""
    head = b"" if data is None else b"event: message\n"
    if id is not None:
        head += b"id: %b\n" % id.encode("utf-8")
    if retry is not None:
        head += b"retry: %d\n" % retry
    # A reader that ignores events without a data field would miss the id as well.
    return b"%bdata: %b\n\n" % (head, data or b"")
