"""Newline-delimited messages out of a stream of bytes, with a bound (MCP, stdio transport). No I/O."""

from __future__ import annotations

__all__ = ["LineReader", "TooLong"]

from typing import final

import msgspec

_EDGE = 512
_BLANK = (b"", b"\r")


@final
class TooLong(msgspec.Struct, frozen=True):
    """Stands for a line over the bound, which was not kept: `edges` is its beginning and its end."""

    edges: bytes


class LineReader:
    """Feed it what was read, get complete lines without their newline. Holds at most `limit` bytes and one chunk."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._head: bytes | None = None  # of a line that is being skipped

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """The lines that `data` completes; blank ones are left out."""
        first, *rest = data.split(b"\n")
        self._hold(first)
        if not rest:
            return []
        lines: list[bytes | TooLong] = [self._take(), *rest[:-1]]
        self._hold(rest[-1])
        return [line for line in lines if line not in _BLANK]

    def _hold(self, part: bytes) -> None:
        if not part:
            return
        self._parts.append(part)
        self._size += len(part)
        if self._size > self.limit:
            held = b"".join(self._parts)
            if self._head is None:
                self._head = held[:_EDGE]
            self._parts = [held[-_EDGE:]]
            self._size = self.limit  # so that the next part ends up here again

    def _take(self) -> bytes | TooLong:
        line = b"".join(self._parts)
        head, self._head, self._parts, self._size = self._head, None, [], 0
        return line if head is None else TooLong(head + line)
