"""Waiting in a test for what callbacks bring about."""

from __future__ import annotations

__all__ = ["News"]

import asyncio
from collections.abc import Callable


class News:
    """Call it when something has happened; whoever is in `until` then looks again."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self._event.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds."""
        async with asyncio.timeout(20):
            while not holds():
                self._event.clear()
                await self._event.wait()
