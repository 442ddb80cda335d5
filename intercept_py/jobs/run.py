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
from intercept_py.jobs.model import OWN_EVENTS, Event, Job, JobError, Order, Settings, Status
from intercept_py.jobs.remains import Conclusion, conclude, unheard
from intercept_py.jobs.store import Request, Step, Store
from intercept_py.jobs.watching import Watching
from intercept_py.model import Json, JsonObject

T = TypeVar("T")

_RETRY_SECONDS = 0.5
_EVENT_TYPE = re.compile(r"[a-z][a-z_]{0,63}")
_DEPTH = 32
"""How deep an event may be nested: far less than what can be read, but not written any more."""
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
        self._request: Request | None = None
        self._request_stored = False

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

    def ask(self, request: Request) -> bool:
        """End it, as soon as it has been started if it is being started; False if somebody asked before.

        Its end tells of the request, unless an event does so before: a full disk must not keep a job alive.
        """
        if self._request is not None:
            return False
        self._request = request
        if self._process is not None:
            self._process.cancel()
        with suppress(JobError):
            expected: tuple[Status, ...] = ("running", "waiting")
            event = self._store.move(self.row, expected, "cancelling", request.data(), **request.columns())
            if event is not None:
                self._request_stored = True
                self.publish(event)
        return True

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
        if self._request is not None:
            await self._end(Conclusion("cancelled", self._request.why))  # before it was started
            return
        try:
            process = await launcher.launch(self._work(settings))
        except Exception as exc:
            await self._not_started(exc if isinstance(exc, JobError) else _unexpected("started", exc))
            return
        self._process = process
        fault = await self._follow(process)
        end = await process.end()
        asked = None if self._request is None else self._request.why
        conclusion = conclude(end, asked) if end else unheard("supervisor_died", asked)
        if fault is not None and conclusion.status == "lost":
            conclusion = msgspec.structs.replace(conclusion, ended_by="server_fault", error=f"{fault}; it was ended")
        await self._end(conclusion)

    async def _follow(self, process: Process) -> JobError | None:
        """Hear what it says until it is gone. A fault of ours ends it before: which one it was, if there was one."""
        try:
            if self._request is not None:
                process.cancel()
            with suppress(JobError):  # the disk is full: it runs all the same
                self._store.started(self.row, process.pid)
            self.release()
            async for line in process.events():
                self._hear(line)
        except Exception as exc:
            fault = _unexpected("followed", exc)
            process.abandon()
            with suppress(Exception):  # it may have more to say, which nobody keeps
                async for _ in process.events():
                    pass
            return fault
        return None

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
        if self._request is not None:
            await self._end(Conclusion("cancelled", self._request.why))
        elif self._held is None:
            await self._end(Conclusion("failed", "spawn_error", error=str(error)))
        else:
            shutil.rmtree(self._store.directory(self.row), ignore_errors=True)
            with suppress(JobError):
                self._store.delete(self.row)
            self.started.set_result(error)
            await _until_stored(lambda: self._store.delete(self.row))  # if the disk was full

    async def _end(self, conclusion: Conclusion) -> None:
        event = await _until_stored(lambda: self._store.end(self.row, conclusion, self._untold()))
        if event is not None:
            self.publish(event)
        self.release()

    def _untold(self) -> Request | None:
        return None if self._request_stored else self._request

    def _hear(self, line: bytes) -> None:
        """Keep an event that the job reports, if it is one."""
        try:
            data = msgspec.json.decode(line, type=JsonObject)
        except (msgspec.DecodeError, RecursionError):
            return
        what = data.pop("type", None)
        if not _is_flat(data, _DEPTH):
            return
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


def _unexpected(what: str, exc: Exception) -> JobError:
    """A fault of ours, as the job's fate; it is told to whoever runs the server too."""
    context = {"message": f"a job could not be {what}: {exc!r}", "exception": exc}
    asyncio.get_running_loop().call_exception_handler(context)
    return JobError("spawn", f"the job server has a fault: it could not be {what} ({type(exc).__name__})")


def _is_flat(value: Json, depth: int) -> bool:
    """Whether it is nested no deeper."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_is_flat(each, depth - 1) for each in inner)


async def _until_stored(write: Callable[[], T]) -> T:
    """What must not be forgotten is written as soon as there is room for it."""
    while True:
        try:
            return write()
        except JobError:
            await asyncio.sleep(_RETRY_SECONDS)
