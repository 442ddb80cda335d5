"""Heads of HTTP messages that were read before: one that comes again, byte for byte, is not read again. No I/O.

Clients and servers send the same few heads all day, and to parse one costs as much as to judge a call. What is kept is
what the parser made of those bytes at the start of a message, so nothing is read in a second way. Above:
`http_reader`, `client_connection`.
"""

from __future__ import annotations

__all__ = ["END", "Heads", "is_whole"]

from typing import Final, Generic, TypeVar

_K = TypeVar("_K")

END: Final = b"\r\n\r\n"
_MOST: Final = 256
_MOST_SEEN: Final = 4096
_LONGEST: Final = 4096
"""Bytes of a head that is kept. All of them are 1 MiB at most, and some times that with what is made of them."""


class Heads(Generic[_K]):
    """What was made of heads. One is kept when it comes for the second time: many have a part that is always new."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], _K] = {}
        self._seen: set[int] = set()
        self.get = self._known.get
        """What was made of this; None: nothing is kept."""

    def learn(self, key: tuple[str, bytes], made: _K) -> None:
        """Keep what was made of this: whose it is, and the bytes of the head, its empty line included."""
        if len(key[1]) > _LONGEST:
            return
        seen = hash(key)
        if seen not in self._seen:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen.add(seen)
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = made


def is_whole(head: bytes, fields: int) -> bool:
    """Whether these bytes are, for every parser, one head of so many fields and nothing else."""
    lines = head.count(b"\r\n")
    return head[:1].isalpha() and lines == fields + 2 and head.count(b"\n") == lines and head.count(b"\r") == lines
