"""What the proxy says to people: one line a message, on stderr. stdout belongs to MCP alone.

Lines are escaped: they quote tool names and messages that come from strangers (security rule 11). `logging` is not
used: it costs 12 ms of the proxy's start, and there is one destination and one format.
"""

from __future__ import annotations

__all__ = ["LEVELS", "Log", "printable"]

import os
import select
import time
from unicodedata import category

LEVELS = ("debug", "info", "warn", "error")

_MAX_LINE = 2000


def printable(text: str) -> str:
    """The text with everything escaped that could move a cursor, end a line or change the reading direction.

    Control, format (bidi, zero-width), surrogate, private and unassigned characters and line separators become
    `\\xNN` or `\\uNNNN`, the way Python writes them; a backslash stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if category(c) in _UNSAFE else c for c in text)


_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 0x7F else repr(character)[1:-1]


class Log:
    """Writes lines of at least `level` to a file descriptor (stderr).

    Loses lines rather than the proxy: what would block (nobody reads stderr) is dropped, and over `BURST` lines
    within a second are counted instead of written, because a hostile server can cause one per line that it sends.
    """

    BURST = 50

    def __init__(self, level: str = "info", fd: int = 2) -> None:
        self._least = LEVELS.index(level)
        self._fd = fd
        self._ready = select.poll()
        self._ready.register(fd, select.POLLOUT)
        self._second = 0
        self._written = 0
        self._suppressed = 0

    def __call__(self, level: str, text: str) -> None:
        """Say one line."""
        if LEVELS.index(level) < self._least:
            return
        second = int(time.monotonic())
        if second != self._second:
            suppressed, self._second, self._written, self._suppressed = self._suppressed, second, 0, 0
            if suppressed:
                self._write(f"intercept-py: warn: {suppressed} more lines like these were left out")
        self._written += 1
        if self._written > self.BURST:
            self._suppressed += 1
            return
        self._write(f"intercept-py: {level}: {printable(text)}")

    def _write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        if len(data) > _MAX_LINE:
            data = data[:_MAX_LINE].decode("utf-8", "ignore").encode() + "…".encode()
        try:
            if self._ready.poll(0):  # at least PIPE_BUF bytes fit: a line never blocks
                os.write(self._fd, data + b"\n")
        except OSError:
            pass
