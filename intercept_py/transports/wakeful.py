"""Keeps the event loop awake for a moment after each message: waking up often costs more than judging a call.

Below: asyncio. Above: `gateway`.
"""

from __future__ import annotations

__all__ = ["Wakeful"]

import asyncio
import os

_SPIN = 0.0001
"""Seconds; `transports.stdio` has measured what it brings."""


class Wakeful:
    """Call it with every message. The loop then looks for news without sleeping, for a tenth of a millisecond.

    Where there is only one processor it sleeps at once: the peer needs the processor.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = 0.0
        self._awake = False
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._spin = _SPIN if processors > 1 else 0.0

    def __call__(self) -> None:
        """There was a message."""
        self._until = self._loop.time() + self._spin
        if not self._awake and self._spin:
            self._awake = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if self._loop.time() < self._until:
            self._loop.call_soon(self._turn)
        else:
            self._awake = False
