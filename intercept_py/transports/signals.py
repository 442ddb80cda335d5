"""The signals of a proxy's life as something that can be polled."""

from __future__ import annotations

__all__ = ["Signals"]

import os
import signal


class Signals:
    """Turns the signals of a proxy's life into bytes on a descriptor to poll. Enter it before the child is started."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

    def __enter__(self) -> Signals:
        self.fd, self._waker = os.pipe()
        for fd in (self.fd, self._waker):
            os.set_blocking(fd, False)
        self._handlers = [(signum, signal.signal(signum, lambda *_: None)) for signum in self._SIGNALS]
        self._previous = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous)
        for signum, handler in self._handlers:
            signal.signal(signum, handler)
        os.close(self.fd)
        os.close(self._waker)

    def pending(self) -> bytes:
        """The numbers of the signals that came since the last call."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""
