"""Writes to a socket at once, as asyncio's own transports do.

uvloop's collect what they are given until the event loop has gone through everything that it read, so that the other
side waits while we do what could wait: a twentieth of a call's time. Each piece is a system call of its own here.
Above: `http_connection`, `client_connection`.
"""

from __future__ import annotations

__all__ = ["PromptWriter"]

import asyncio
import os


class PromptWriter:
    """Writes for one transport, which keeps what the kernel does not take at once."""

    __slots__ = ("_fd", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        encrypted = transport.get_extra_info("sslcontext") is not None
        self._fd = -1 if sock is None or encrypted else sock.fileno()
        self._transport = transport

    def write(self, data: bytes | memoryview) -> None:
        """As `asyncio.Transport.write`."""
        transport = self._transport
        # A transport that is closing may have given its descriptor back already: it could be anybody's by now.
        if self._fd >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
            try:
                written = os.write(self._fd, data)
            except OSError:  # the transport finds out for itself, and tells its protocol
                written = 0
            if written == len(data):
                return
            data = memoryview(data)[written:]
        transport.write(data)
