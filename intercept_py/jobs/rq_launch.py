"""Starts jobs on other machines: RQ places each with a worker, and Redis carries what the two sides say (`rq_keys`).

Below: `launch`, `rq_keys`, `rq_connection`; `rq`, `redis`. Above: the engine, which alone says what became of a job.
"""

from __future__ import annotations

__all__ = ["RqLauncher"]

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import redis
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from intercept_py.jobs import recipe_programs
from intercept_py.jobs.launch import LocalLauncher, Work, start_fault
from intercept_py.jobs.model import JobError
from intercept_py.jobs.remains import Exit, decode_exit
from intercept_py.jobs.rq_connection import connect, connect_async
from intercept_py.jobs.rq_keys import BEAT, KEPT, KILL, LEASE, PYTHON, RECIPES, SUPERVISE, Keys, job_id

_SPAWN_SECONDS = 30.0
_LAST_RESORT_SECONDS = 3.0
_END_SECONDS = 3.0


class RqLauncher:
    """Starts jobs on whichever worker of the queue is free."""

    def __init__(self, url: str, queue: str) -> None:
        """Raises `JobError` (`redis`) for an URL that is none."""
        self._sync = connect(url)
        self._redis = connect_async(url)
        self._queue = Queue(queue, connection=self._sync, serializer=JSONSerializer)

    async def check(self) -> None:
        """Raises `JobError` (`redis`) if Redis does not answer."""
        try:
            await asyncio.to_thread(self._sync.ping)
        except RedisError as exc:
            raise JobError("redis", f"cannot use Redis: {exc}") from None

    async def launch(self, work: Work) -> Remote:
        """Hand the job to a worker and wait until it has started there."""
        job = Remote(self._redis, self._sync, work)
        try:
            async with asyncio.timeout(_SPAWN_SECONDS):
                await job.lease()
                await asyncio.to_thread(self._enqueue, work)
                await job.begin()
        except BaseException as exc:
            await asyncio.shield(self._withdraw(job, work))
            if isinstance(exc, TimeoutError):
                raise JobError("spawn", await asyncio.to_thread(self._why_nobody_came)) from None
            if isinstance(exc, RedisError):
                raise JobError("spawn", f"cannot place the job: Redis: {exc}") from None
            raise
        return job

    def _why_nobody_came(self) -> str:
        text = f"no worker of queue `{self._queue.name}` took the job within {_SPAWN_SECONDS:g} s"
        with suppress(RedisError):
            if number := Worker.count(connection=self._sync, queue=self._queue):
                return f"{text}: {number} are busy; start more, or run fewer jobs at once (--max-running)"
        return f"{text}: start one with `intercept-py jobs worker`"

    async def clear(self, mark: str, directory: str) -> Exit | None:
        """See `Launcher`. What may run here, because the dead server had no workers, is ended too."""
        keys = Keys(mark)
        try:
            await self._redis.delete(keys.engine)
            async with asyncio.timeout(2 * LEASE):
                while await self._redis.exists(keys.worker):
                    await asyncio.sleep(BEAT / 2)
            last: Any = await self._redis.xrevrange(keys.reports, count=1)
        except RedisError:
            raise TimeoutError from None
        if last and b"exit" in last[0][1]:
            return decode_exit(last[0][1][b"exit"])
        if last:
            await asyncio.sleep(KILL)  # the worker could not say that it ended the job, so its lease ran out
        return await LocalLauncher().clear(mark, directory)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        self._sync.close()

    def _enqueue(self, work: Work) -> None:
        places = {sys.executable: PYTHON, recipe_programs.__file__: RECIPES}
        timeout = "-" if work.timeout is None else str(work.timeout)
        options = [str(work.grace), timeout, str(work.head), str(work.tail)]
        self._queue.enqueue_call(
            SUPERVISE,
            (work.mark, [places.get(word, word) for word in work.argv], work.cwd, options),
            timeout=-1,
            result_ttl=0,
            failure_ttl=KEPT,
            description=work.mark,
            job_id=job_id(work.mark),
        )

    async def _withdraw(self, job: Remote, work: Work) -> None:
        """It has not started: see to it that it does not, or is gone again."""
        job.abandon()
        with suppress(RedisError, TimeoutError):
            await asyncio.to_thread(self._unqueue, work)
            await self.clear(work.mark, work.directory)
        await job.end()

    def _unqueue(self, work: Work) -> None:
        with suppress(NoSuchJobError):
            job = Job.fetch(job_id(work.mark), connection=self._sync, serializer=JSONSerializer)
            # RQ raises ValueError where an execution ends meanwhile, and leaves the rest of the job to its worker. The
            # queue has let go of it before, and a worker starts no job that nobody waits for.
            with suppress(ValueError):
                job.delete()


class Remote:
    """A job that a worker runs."""

    def __init__(self, connection: Any, sync: redis.Redis, work: Work) -> None:
        self.pid = 0
        self._redis = connection
        self._sync = sync
        self._work = work
        self._keys = Keys(work.mark)
        self._read = "0"
        self._unheard: list[tuple[str, bytes]] = []
        self._exit: Exit | None = None
        self._wanted = True
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def lease(self) -> None:
        """Begin to hold our lease."""
        await self._redis.set(self._keys.engine, "1", ex=LEASE)
        self._soon(self._keep())

    async def begin(self) -> None:
        """Wait for the first report."""
        while not self._unheard:
            self._unheard = await self._reports()
        word, data = self._unheard.pop(0)
        if word == "failed":
            raise start_fault(self._work, data.decode())
        self.pid = int(data)

    def cancel(self) -> None:
        self._soon(self._push(b"cancel"))
        self._soon(self._insist())

    def send(self, text: str) -> None:
        self._soon(self._push(b"input " + text.encode() + b"\n"))

    def abandon(self) -> None:
        self._wanted = False
        self._soon(self._drop())

    async def events(self) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        gone_at = clock() + LEASE + KILL
        while self._exit is None and clock() < gone_at:
            try:
                reports = self._unheard or await self._reports()
                alive = reports or await self._redis.exists(self._keys.worker)
            except RedisError:
                if clock() > gone_at - KILL and self._wanted:
                    # Perhaps only we cannot reach it. Without our lease the worker ends the job, once it has seen that.
                    self._wanted = False
                    gone_at = clock() + LEASE + BEAT + KILL
                await asyncio.sleep(BEAT)
                continue
            gone_at = clock() + LEASE + KILL if alive else min(gone_at, clock() + KILL)
            self._unheard = []
            for word, data in reports:
                if word == "event":
                    yield data
                else:
                    self._keep_report(word, data)

    async def end(self) -> Exit | None:
        self._wanted = False
        self._over.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_SECONDS)
        with suppress(RedisError):
            await self._redis.delete(self._keys.engine, self._keys.control, self._keys.reports)
        return self._exit

    def _keep_report(self, word: str, data: bytes) -> None:
        """Files look as they would had the job run here."""
        if word == "exit":
            self._exit = decode_exit(data)
            self._write("exit.json", data, os.O_TRUNC)
        elif word in ("head", "tail"):
            self._write(word, data, os.O_APPEND if word == "head" else os.O_TRUNC)

    def _write(self, name: str, data: bytes, flag: int) -> None:
        path = os.path.join(self._work.directory, name)
        with suppress(OSError):  # a full disk costs output, never the job
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)

    async def _reports(self) -> list[tuple[str, bytes]]:
        """What the worker has said since, after a moment at most. Redis need not keep what we have read."""
        found = await self._redis.xread({self._keys.reports: self._read}, block=int(BEAT * 1000))
        entries = [entry for _, entries in found for entry in entries]
        if entries:
            self._read = entries[-1][0]
            await self._redis.xtrim(self._keys.reports, minid=self._read, approximate=False)
        return [(word.decode(), data) for _, entry in entries for word, data in entry.items()]

    async def _keep(self) -> None:
        while self._wanted:
            with suppress(RedisError):
                await self._redis.set(self._keys.engine, "1", ex=LEASE)
            await self._pause(BEAT)
        await self._drop()

    async def _drop(self) -> None:
        with suppress(RedisError):
            await self._redis.delete(self._keys.engine)

    async def _push(self, said: bytes) -> None:
        while not self._over.is_set():
            try:
                await self._redis.rpush(self._keys.control, said)
                await self._redis.expire(self._keys.control, KEPT)
            except RedisError:
                await self._pause(BEAT)
            else:
                return

    async def _insist(self) -> None:
        """A worker that does not react is told by RQ itself to kill the process that holds the lifeline."""
        await self._pause(self._work.grace + _LAST_RESORT_SECONDS)
        if not self._over.is_set():
            with suppress(RedisError, InvalidJobOperation, NoSuchJobError):
                stop = job_id(self._work.mark)
                await asyncio.to_thread(send_stop_job_command, self._sync, stop, JSONSerializer)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
