"""A port that passes on to a Redis what it hears, and hangs up in the middle of the next script if told to.

with lossy(server.port) as between:
    between.lose = Lose.ANSWER
"""

from __future__ import annotations

__all__ = ["Between", "Lose", "lossy"]

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum


class Lose(Enum):
    """What does not arrive of a script: the request, so that it does not run, or the answer, so that it has run."""

    NOTHING = "nothing"
    REQUEST = "request"
    ANSWER = "answer"


class Between:
    """`lose`: what to lose of the next script, once. Every request must come in one piece of at most 64 KiB."""

    def __init__(self, listener: socket.socket, target: int) -> None:
        self.port: int = listener.getsockname()[1]
        self.lose = Lose.NOTHING
        self._listener = listener
        self._target = target

    def serve(self) -> None:
        """Until the listener is shut down."""
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        losing = Lose.NOTHING
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            while True:
                for one in select.select([client, server], [], [])[0]:
                    data = one.recv(65536)
                    if one is client and b"EVAL" in data:
                        losing, self.lose = self.lose, Lose.NOTHING
                    if not data or losing is (Lose.REQUEST if one is client else Lose.ANSWER):
                        return
                    (server if one is client else client).sendall(data)


@contextmanager
def lossy(target: int) -> Iterator[Between]:
    """A port before that one, as long as the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        between = Between(listener, target)
        threading.Thread(target=between.serve, daemon=True).start()
        yield between
        listener.shutdown(socket.SHUT_RDWR)
