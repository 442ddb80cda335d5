"""A descriptor that is written to without ever waiting for its reader."""

from __future__ import annotations

__all__ = ["Outlet"]

import os
from typing import TypeAlias

from intercept_py.wire.commands import ToClient, ToUpstream

Messages: TypeAlias = list[ToClient] | list[ToUpstream]

_MOST = 1024 * 1024


class Outlet:
    """A descriptor to write to and what did not fit yet. `broken`: nobody reads it any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.buffer = bytearray()
        self.broken = False

    def send(self, messages: Messages) -> None:
        """Write a line for each message now as far as they fit, keep the rest. Lines for nobody are dropped."""
        data = b"\n".join([message.data for message in messages]) + b"\n"
        messages.clear()
        if self.buffer:
            self.buffer += data
            self.flush()
        elif not self.broken:
            written = self._write(data)
            if written < len(data) and not self.broken:
                self.buffer += memoryview(data)[written:]

    def flush(self) -> None:
        """Write what is kept, as far as it fits."""
        while self.buffer:
            with memoryview(self.buffer) as view:
                written = self._write(view[:_MOST])
            if self.broken:
                self.buffer.clear()
            if not written:
                return
            del self.buffer[:written]

    def _write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.broken = True
            return 0
