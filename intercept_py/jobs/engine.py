"""Starts, queues, lists and cancels jobs, and says nothing of them that is not so.

A job is `cancelled` only when none of its processes is left; a request to cancel writes `cancelling`, nothing more. One
event loop owns an engine. Several engines may share a state directory; each runs its own jobs and shows all of them.

Below: `store`, `run`, `recovery`. Above: the dialects.
"""

from __future__ import annotations

__all__ = ["Engine"]

import asyncio
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from typing import TypeAlias

from intercept_py.jobs import orders
from intercept_py.jobs.launch import Launcher, LocalLauncher
from intercept_py.jobs.model import (
    OWN_EVENTS,
    TERMINAL,
    Cancel,
    EndedBy,
    Event,
    Job,
    JobError,
    Order,
    Output,
    Settings,
    Status,
)
from intercept_py.jobs.recovery import recover
from intercept_py.jobs.remains import Conclusion, read_output
from intercept_py.jobs.run import Run
from intercept_py.jobs.store import Request, Step, Store
from intercept_py.jobs.watching import Watcher, Watching
from intercept_py.model import JsonObject

Jobs: TypeAlias = list[Job]
Events: TypeAlias = list[Event]

_STOP_SLACK = 2.0
"""Beyond the grace, for what happens after SIGKILL."""
_ASKED_SECONDS = 3.0
_ABANDONED_SECONDS = 1.8
_RETRY_SECONDS = 0.5
_TEND_SECONDS = 60.0
_SETTLE_SECONDS = 1.0
_SAID = 1000
_QUEUED: Step = ("queued", "queued", {})
_RUNNING: Step = ("running", "status", {"status": "running"})


class Engine:
    """The jobs of one server. Methods raise `JobError`; with the code `store` nothing was changed."""

    def __init__(self, settings: Settings, store: Store, launcher: Launcher) -> None:
        self.settings = settings
        self._store = store
        self._launcher = launcher
        self._watching = Watching(store)
        self._queue: dict[int, Run] = {}
        self._running: dict[int, Run] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._ended = asyncio.Event()
        self._closing = False
        self._tender: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: Settings, launcher: Launcher | None = None) -> Engine:
        """Open the state directory and take care of what dead servers left there."""
        store = Store(settings.state_dir)
        engine = cls(settings, store, launcher or LocalLauncher())
        try:
            await engine._recover()
            engine._sweep()
        except BaseException:
            store.close()
            raise
        engine._tender = asyncio.create_task(engine._tend())
        return engine

    async def close(self) -> None:
        """Cancel all jobs of this server (reason `shutdown`) and close the store; takes 5 seconds at most."""
        if self._closing:
            return
        self._closing = True
        try:
            if self._tender is not None:
                self._tender.cancel()
            for timer in self._timers.values():
                timer.cancel()
            self._ask_all()
            await self._drain()
        finally:
            self._store.close()

    # What there is

    def warnings(self) -> list[str]:
        """What whoever runs the server should know of its files, a line each."""
        return self._store.warnings()

    def check_cwd(self, cwd: str) -> str:
        """The real path of a directory that a job may run in. Raises `JobError` with one of the `cwd_` codes."""
        return orders.check_cwd(cwd, self.settings.root)

    def get(self, kind: str, job_id: str) -> Job | None:
        """The job of this id, whichever server runs it."""
        return self._store.get(kind, job_id)

    def list(
        self,
        kind: str,
        statuses: Collection[Status] | None = None,
        limit: int = 100,
        before: tuple[float, str] | None = None,
        meta: JsonObject | None = None,
    ) -> Jobs:
        """Jobs, newest first; `before` is `(created_at, id)` of the last one seen. `meta` compares scalars by name."""
        return self._store.page(kind, statuses, limit, before, meta or {})

    def counts(self) -> dict[Status, int]:
        """How many jobs there are by status, of all kinds and servers."""
        return self._store.counts()

    def events(self, kind: str, job_id: str, after: int = 0, limit: int = 100) -> Events:
        """Events with a greater number than `after`, in order."""
        job = self.get(kind, job_id)
        return [] if job is None else self._store.events(job.row, after, limit)

    def output(self, kind: str, job_id: str) -> Output:
        """What the job has printed so far, stdout and stderr together."""
        job = self.get(kind, job_id)
        return Output(b"") if job is None else read_output(self._store.directory(job.row))

    def watch(self, callback: Watcher) -> None:
        """Have `callback(job, event)` called after each event of this server's jobs; it should not raise."""
        self._watching.add(callback)

    async def changed(self, kind: str, job_id: str, after_seq: int, seconds: float) -> None:
        """Wait for an event with a greater number, the end of the job, or the end of the time."""
        deadline = time.monotonic() + orders.seconds(seconds)
        while (job := self.get(kind, job_id)) is not None and job.last_seq <= after_seq and job.status not in TERMINAL:
            if not await self._watching.sleep(job, deadline):
                return

    async def wait(self, kind: str, job_id: str, seconds: float) -> Job:
        """The job when it has ended, or after the time. Raises `JobError` (`unknown`) if there is none."""
        deadline = time.monotonic() + orders.seconds(seconds)
        while True:
            job = self._known(kind, job_id)
            if job.status in TERMINAL or not await self._watching.sleep(job, deadline):
                return job

    # What can be done

    async def start(self, order: Order, job_id: str) -> Job:
        """Queue a job, and start it if there is room.

        Raises `JobError` and keeps nothing: `queue_full`, `duplicate`, `spawn`, `store`, `closed` and those of
        `orders.check`. A caller that is cancelled meanwhile leaves a job that goes on.
        """
        orders.check(order, job_id, self.settings)
        if self._closing:
            raise JobError("closed", "the job server is ending: start it again")
        run = Run(order, self._store, self._watching)
        if not self._has_room(run):
            return self._enqueue(run, job_id)
        run.insert(job_id, _QUEUED, _RUNNING)
        self._drive(run)
        started = await asyncio.shield(run.started)
        if isinstance(started, JobError):
            raise started
        return started

    async def cancel(self, kind: str, job_id: str, by: str = "", reason: str = "", wait: float | None = None) -> Cancel:
        """Ask a job to end and wait for it, for `wait` seconds (by default as long as it can take; 0: not at all).

        A queued one never starts. The first request counts, others wait along. A full disk only delays that it is
        written down: the answer is `still_stopping` meanwhile.
        """
        job = self.get(kind, job_id)
        if job is not None and job.status not in TERMINAL and not self._under_way(job.row):
            await self._recover()  # its server has died, perhaps just now
            job = self.get(kind, job_id)
        if job is None:
            return Cancel("unknown", None)
        if job.status in TERMINAL:
            return Cancel("already_terminal", job)
        if not job.mine:
            return Cancel("not_owned", job)
        first = self._ask(job, _request("cancel", by, reason))
        patience = self.settings.grace + _STOP_SLACK if wait is None else orders.seconds(wait)
        job = await self.wait(kind, job_id, patience)
        if job.status in TERMINAL:
            return Cancel("cancelled" if job.status == "cancelled" else "finished_first", job)
        return Cancel("still_stopping" if first or patience else "already_cancelling", job)

    async def send(self, kind: str, job_id: str, text: str) -> bool:
        """Give a job that waits for it a line of input; False if it does not wait."""
        orders.check_text("input", text)
        job = self.get(kind, job_id)
        run = None if job is None else self._running.get(job.row)
        if run is None:
            return False
        event = self._store.move(run.row, "waiting", "running", {"why": "input"}, waiting_for=None)
        if event is None:
            return False
        run.publish(event)
        return run.send(text)

    def note(self, kind: str, job_id: str, what: str, data: JsonObject) -> Event:
        """Append an event that is the dialect's own; after the end of the job it becomes `late_output`.

        Raises `JobError`: `unknown` if there is no such job, and those of `orders.check_data`.
        """
        orders.check_data("the event", data)
        if what in OWN_EVENTS:
            raise ValueError(f"events of type {what} are the engine's own")
        row = self._known(kind, job_id).row
        event = self._store.note(row, what, data)
        if event is None:
            raise _unknown(job_id)
        self._publish(row, event)
        return event

    def _under_way(self, row: int) -> bool:
        return row in self._running or row in self._queue

    def _known(self, kind: str, job_id: str) -> Job:
        job = self.get(kind, job_id)
        if job is None:
            raise _unknown(job_id)
        return job

    def _publish(self, row: int, event: Event) -> None:
        run = self._running.get(row)
        if run is None:
            self._watching.publish(row, event)
        else:
            run.publish(event)

    # Ending

    def _ask(self, job: Job, request: Request) -> bool:
        """Ask a job of ours to end; False if it was asked before."""
        if run := self._running.get(job.row):
            return run.ask(request)
        if job.status == "queued":
            self._withdraw(job.row, request)
            return True
        # A dead server's, of which something is left that could not be ended yet.
        event = self._store.move(job.row, ("running", "waiting"), "cancelling", request.data(), **request.columns())
        if event is not None:
            self._publish(job.row, event)
        return event is not None

    def _withdraw(self, row: int, request: Request) -> None:
        try:
            self._leave_queue([row], Conclusion("cancelled", request.why), request)
        except JobError:
            if (run := self._queue.get(row)) is None:
                raise
            self._forget_queued(row)  # it never starts, and that is written down as soon as there is room
            run.ask(request)
            self._drive(run)

    def _ask_all(self) -> None:
        request = _request("server_shutdown", "", "shutdown")
        for run in self._running.values():
            run.ask(request)
        with suppress(JobError):  # the disk is full: they are left to the next server, which does not start them either
            queued = [*self._queue, *(row for row, _ in self._store.paused())]
            self._leave_queue(queued, Conclusion("cancelled", request.why), request)

    async def _drain(self) -> None:
        """Wait for what runs; at last end it as if this server had died."""
        await asyncio.sleep(0)  # whoever waits for a queued job still sees how it ended
        tasks = {run.task for run in self._running.values() if run.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=_ASKED_SECONDS)
        for run in self._running.values():
            run.abandon()
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=_ABANDONED_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The queue

    def _has_room(self, new: Run) -> bool:
        busy = {run.key for run in (*self._running.values(), *self._queue.values())}
        return len(self._running) < self.settings.max_running and (new.key is None or new.key not in busy)

    def _enqueue(self, run: Run, job_id: str) -> Job:
        if len(self._queue) >= self.settings.queue:
            raise JobError("queue_full", f"{len(self._queue)} jobs are waiting already: try again later")
        run.insert(job_id, _QUEUED)
        self._queue[run.row] = run
        if run.order.ttl is not None:
            self._expire_in(run.row, run.order.ttl)
        run.release()
        return self._known(run.order.kind, job_id)

    def _fill(self) -> None:
        """Start what has room now, in the order in which it came."""
        busy = {run.key for run in self._running.values()}
        for run in list(self._queue.values()):
            if self._closing or len(self._running) >= self.settings.max_running:
                return
            if run.key is None or run.key not in busy:
                try:
                    event = self._store.move(run.row, "queued", "running", {}, started_at=time.time())
                except JobError:
                    asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._fill)
                    return
                self._forget_queued(run.row)
                if event is not None:
                    self._drive(run)
                    run.publish(event)
            busy.add(run.key)

    def _drive(self, run: Run) -> None:
        self._running[run.row] = run
        run.task = asyncio.create_task(self._to_the_end(run))

    async def _to_the_end(self, run: Run) -> None:
        try:
            # A store that cannot even be read: `recover` takes care of the job, whose lifeline is cut here.
            with suppress(JobError):
                await run.drive(self._launcher, self.settings)
        finally:
            if not run.started.done():
                run.started.set_result(JobError("closed", "the job server ended before it had started the job"))
            del self._running[run.row]
            self._ended.set()
            self._fill()

    def _expire_in(self, row: int, seconds: float) -> None:
        self._timers[row] = asyncio.get_running_loop().call_later(max(seconds, 0.0), self._expire, row)

    def _expire(self, row: int) -> None:
        try:
            self._leave_queue([row], Conclusion("expired", "ttl", error="it was not started in time"))
        except JobError:
            self._expire_in(row, _RETRY_SECONDS)

    def _leave_queue(self, rows: Collection[int], conclusion: Conclusion, request: Request | None = None) -> None:
        events = self._store.end_queued(rows, conclusion, request)
        for row in rows:
            self._forget_queued(row)
        for row, event in events.items():
            self._publish(row, event)
        self._ended.set()

    def _forget_queued(self, row: int) -> None:
        self._queue.pop(row, None)
        if timer := self._timers.pop(row, None):
            timer.cancel()

    # Tending the store

    async def _tend(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TEND_SECONDS):
                    await self._ended.wait()
            self._ended.clear()
            await asyncio.sleep(_SETTLE_SECONDS)  # whoever waited for an end has seen it by then
            with suppress(JobError):
                while rows := self._store.prune(self.settings.keep, time.time() - self.settings.keep_seconds):
                    self._remove(rows)
                    await asyncio.sleep(0)
                await self._recover()

    async def _recover(self) -> None:
        for row, event in await recover(self._store, self._launcher, self._running.keys() | self._queue.keys()):
            self._publish(row, event)
        for row, expires_at in self._store.paused():
            if expires_at is not None and row not in self._timers:
                self._expire_in(row, expires_at - time.time())

    def _sweep(self) -> None:
        """Remove files whose job was forgotten when a server died."""
        known = self._store.rows()
        self._remove([row for row in self._store.directories() if row not in known])

    def _remove(self, rows: Collection[int]) -> None:
        for row in rows:
            shutil.rmtree(self._store.directory(row), ignore_errors=True)


def _request(why: EndedBy, by: str, reason: str) -> Request:
    return Request(why, time.time(), _said(by), _said(reason))


def _said(text: str) -> str:
    return text.encode(errors="replace").decode()[:_SAID]


def _unknown(job_id: str) -> JobError:
    return JobError("unknown", f"there is no job `{_said(job_id)}`")
