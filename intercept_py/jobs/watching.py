"""Who is told what happens to a job: watchers of all jobs, and whoever waits for the next event of one.

Below: `store`. Above: `run`, the engine.
"""

from __future__ import annotations

__all__ = ["Watcher", "Watching"]

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

from intercept_py.jobs.model import Event, Job
from intercept_py.jobs.store import Store

Watcher: TypeAlias = Callable[[Job, Event], None]

_FOREIGN_SECONDS = 0.25
"""How often to look at a job that another server runs."""


class Watching:
    """Tells of events that have been committed, in the thread of the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: list[Watcher] = []
        self._sleepers: dict[int, set[asyncio.Future[None]]] = {}

    def add(self, watcher: Watcher) -> None:
        """Have `watcher(job, event)` called for each event."""
        self._watchers.append(watcher)

    def publish(self, row: int, event: Event) -> None:
        """Tell everybody."""
        for sleeper in self._sleepers.pop(row, ()):
            if not sleeper.done():
                sleeper.set_result(None)
        job = self._store.at(row) if self._watchers else None
        if job is not None:
            for watcher in self._watchers:
                try:
                    watcher(job, event)
                except Exception as exc:  # a fault of whoever watches must not become one of the job
                    context = {"message": f"a watcher of jobs failed: {exc!r}", "exception": exc}
                    asyncio.get_running_loop().call_exception_handler(context)

    async def sleep(self, job: Job, deadline: float) -> bool:
        """Wait until the job may have changed; False if it is past `deadline` (of the monotonic clock) already."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.setdefault(job.row, set()).add(sleeper)
        try:
            async with asyncio.timeout(left if job.mine else min(left, _FOREIGN_SECONDS)):
                await sleeper
        except TimeoutError:
            pass
        finally:
            self._forget(job.row, sleeper)
        return True

    def _forget(self, row: int, sleeper: asyncio.Future[None]) -> None:
        sleepers = self._sleepers.get(row, set())
        sleepers.discard(sleeper)
        if not sleepers:
            self._sleepers.pop(row, None)
