"""Bodies of requests that are arriving: how much of them may be kept, of all clients together (security rule 10). Pure.

Above: `http_server`, which has them counted by whoever reads from clients: `http_connection`, `http_asgi`.
"""

from __future__ import annotations

__all__ = ["SMALL", "Arrivals", "Sender"]

from typing import Final, Protocol

from intercept_py.log import Log

SMALL: Final = 64 * 1024
"""Bytes that each client may have kept without being counted: nothing small is ever refused for what others send."""


class Sender(Protocol):
    """A client whose bodies are counted."""

    def give_way(self) -> None:
        """Forget them, and have the client try again later. It is not counted any more."""


class Arrivals:
    """See the module. Where there is more than `most` bytes, whose body is the longest on its way gives way.

    To refuse the newest instead would let a few who never finish keep all others out.
    """

    def __init__(self, most: int, log: Log) -> None:
        self._most = most
        self._log = log
        self._kept: dict[Sender, int] = {}  # the oldest first
        self._total = 0

    def keep(self, sender: Sender, size: int) -> None:
        """So many bytes of a client's are kept now."""
        self._total += size - self._kept.get(sender, 0)
        self._kept[sender] = size
        while self._total > self._most:
            oldest = next(iter(self._kept))
            self.release(oldest)
            self._log("warn", "a body was refused while it arrived: clients were sending too much together")
            oldest.give_way()

    def release(self, sender: Sender) -> None:
        """Nothing of a client's is kept any more."""
        self._total -= self._kept.pop(sender, 0)
