"""Keeps the event loop awake for a moment after each message: waking up often costs more than judging a call.

Below: `stdio`, which has the same need. Above: `gateway`.
"""

from __future__ import annotations

__all__ = ["Wakeful"]

import asyncio

from intercept_py.transports.stdio import SPIN


class Wakeful:
    """Call it with every message. The loop then looks for news without sleeping, for `SPIN` seconds.

    `quiet`: the loop has looked since the last message, and found nothing. `loop` is the one that runs: to ask for it
    asks the kernel, every time.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.quiet = True
        self._until = 0.0
        self._awake = False
        self._looked = False

    def __call__(self) -> None:
        """There was a message."""
        self._until = self.loop.time() + SPIN
        self.quiet = self._looked = False
        if not self._awake:
            self._awake = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.quiet, self._looked = self._looked, True
        if self.loop.time() < self._until:
            self.loop.call_soon(self._turn)
        else:
            self._awake, self.quiet = False, True
