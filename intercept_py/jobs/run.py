"""One job of this server, from its order to its end. Nothing else writes how a job that was started ended.

Below: `store`, `launch`, `remains`, `watching`. Above: the engine.
"""

from __future__ import annotations

__all__ = ["Run"]

import asyncio
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from intercept_py.jobs import orders
from intercept_py.jobs.launch import Launcher, Process, Work
from intercept_py.jobs.model import OWN_EVENTS, EndedBy, Event, Job, JobError, Order, Settings
from intercept_py.jobs.remains import Conclusion, conclude, unheard
from intercept_py.jobs.store import Step, Store
from intercept_py.jobs.watching import Watching
from intercept_py.model import JsonObject

T = TypeVar("T")

_RETRY_SECONDS = 0.5
_EVENT_TYPE = re.compile(r"[a-z][a-z_]{0,63}")
_WAITS = {"input_required": "input", "auth_required": "auth"}


class Run:
    """A job that has not ended. `row` is its row once it was inserted."""

    def __init__(self, order: Order, store: Store, watching: Watching) -> None:
        self.row = 0
        self.order = order
        self.started: asyncio.Future[Job | JobError] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self._store = store
        self._watching = watching
        self._held: list[Event] | None = None
        self._process: Process | None = None
        self._asked: EndedBy | None = None

    @property
    def key(self) -> tuple[str, str] | None:
        """Jobs with the same key run one after another."""
        return None if self.order.after is None else (self.order.kind, self.order.after)

    def insert(self, job_id: str, *steps: Step) -> None:
        """Put it into the store. Nobody is told before it is certain that there will be a job: see `release`."""
        self.row, self._held = self._store.insert(self.order, job_id, steps)

    def release(self) -> None:
        """There is a job: whoever started it may know, and everybody else."""
        held, self._held = self._held or [], None
        if not self.started.done() and (job := self._store.at(self.row)) is not None:
            self.started.set_result(job)
        for event in held:
            self.publish(event)

    def ask(self, why: EndedBy) -> None:
        """End it, for this reason; as soon as it has been started, if it is being started."""
        self._asked = why
        if self._process is not None:
            self._process.cancel()

    def send(self, text: str) -> bool:
        """Give it a line of input; False if it has not been started."""
        if self._process is not None:
            self._process.send(text)
        return self._process is not None

    def abandon(self) -> None:
        """End it as if this server had died."""
        if self._process is not None:
            self._process.abandon()

    def publish(self, event: Event) -> None:
        """Tell of an event, now or when the job has been started."""
        if self._held is None:
            self._watching.publish(self.row, event)
        else:
            self._held.append(event)

    async def drive(self, launcher: Launcher, settings: Settings) -> None:
        """Start it, hear what it says, and write how it ended once nothing is left of it."""
        try:
            process = await launcher.launch(self._work(settings))
        except JobError as exc:
            await self._not_started(exc)
            return
        self._process = process
        with suppress(JobError):  # the disk is full: it runs all the same
            self._store.started(self.row, process.pid)
        if self._asked is not None:
            process.cancel()
        self.release()
        async for line in process.events():
            self._hear(line)
        end = await process.end()
        await self._end(conclude(end, self._asked) if end else unheard("supervisor_died", self._asked))

    def _work(self, settings: Settings) -> Work:
        order = self.order
        directory = self._store.directory(self.row)
        try:
            os.mkdir(directory, 0o700)
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise JobError("store", f"cannot create directory `{directory}`: {reason}") from None
        return Work(
            order.argv,
            orders.check_cwd(order.cwd, settings.root),  # again: it may have become a link to another place
            self._store.mark(self.row),
            directory,
            settings.grace,
            settings.timeout if order.timeout is None else order.timeout,
            settings.output_head,
            settings.output_tail,
        )

    async def _not_started(self, error: JobError) -> None:
        if self._asked is not None:
            await self._end(Conclusion("cancelled", self._asked))
        elif self._held is None:
            await self._end(Conclusion("failed", "spawn_error", error=str(error)))
        else:
            shutil.rmtree(self._store.directory(self.row), ignore_errors=True)
            with suppress(JobError):
                self._store.delete(self.row)
            self.started.set_result(error)
            await _until_stored(lambda: self._store.delete(self.row))  # if the disk was full

    async def _end(self, conclusion: Conclusion) -> None:
        event = await _until_stored(lambda: self._store.end(self.row, conclusion))
        if event is not None:
            self.publish(event)
        self.release()

    def _hear(self, line: bytes) -> None:
        """Keep an event that the job reports, if it is one."""
        try:
            data = msgspec.json.decode(line, type=JsonObject)
        except (msgspec.DecodeError, RecursionError):
            return
        what = data.pop("type", None)
        if isinstance(what, str) and _EVENT_TYPE.fullmatch(what) and what not in OWN_EVENTS:
            with suppress(JobError):  # the disk is full: better without the event than without the job
                if event := self._keep(what, data):
                    self.publish(event)

    def _keep(self, what: str, data: JsonObject) -> Event | None:
        if what in _WAITS:
            columns = {"status": "waiting", "waiting_for": _WAITS[what]}
            if event := self._store.change(self.row, ("running", "waiting"), what, data, **columns):
                return event
        return self._store.note(self.row, what, data)


async def _until_stored(write: Callable[[], T]) -> T:
    """What must not be forgotten is written as soon as there is room for it."""
    while True:
        try:
            return write()
        except JobError:
            await asyncio.sleep(_RETRY_SECONDS)
