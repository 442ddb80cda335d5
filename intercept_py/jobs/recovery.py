"""What servers that died left unfinished: their supervisors end the jobs; whoever opens the store next writes it down.

A job that ran ended with its server: the record says how, or it is lost. A job that was queued stays so, but paused: it
is never started, since nobody may want it any more; it can be cancelled, and it expires.

Below: `store`, `launch`, `remains`. Above: the engine.
"""

from __future__ import annotations

__all__ = ["recover"]

import asyncio
from collections.abc import Container

from intercept_py.jobs.launch import Launcher
from intercept_py.jobs.model import EndedBy, Event, Job
from intercept_py.jobs.remains import conclude, unheard
from intercept_py.jobs.store import Store


async def recover(store: Store, launcher: Launcher, known: Container[int]) -> list[tuple[int, Event]]:
    """Take over the jobs of dead servers; rows and events of what was changed.

    `known` are the rows of jobs that are under way here. Raises `JobError` (`store`).
    """
    store.claim()
    jobs = [job for row in store.unfinished() if row not in known and (job := store.at(row)) and not job.paused]
    events = [(job.row, _pause(store, job)) for job in jobs if job.status == "queued"]
    running = [job for job in jobs if job.status != "queued"]
    ends = await asyncio.gather(*(_conclude(store, launcher, job) for job in running))
    events += zip((job.row for job in running), ends, strict=True)
    return [(row, event) for row, event in events if event is not None]


def _pause(store: Store, job: Job) -> Event | None:
    data = {"status": "queued", "paused": True, "reason": "the server that queued it died"}
    return store.change(job.row, "queued", "status", data, paused=1)


async def _conclude(store: Store, launcher: Launcher, job: Job) -> Event | None:
    try:
        end = await launcher.clear(store.mark(job.row), store.directory(job.row))
    except TimeoutError:
        return None  # it hangs in the kernel, so it has not ended: it is looked at again later
    asked: EndedBy | None = None if job.cancel_requested_at is None else "cancel"
    return store.end(job.row, unheard("server_died", asked) if end is None else conclude(end, asked))
