"""Runs a job on the machine of an RQ worker, under the same supervisor as at home: `rq_keys` says how it is told.

The worker's process for one RQ job holds the supervisor's lifeline, so however that process ends, the job ends too.

Below: `supervisor`, `rq_keys`, `rq_connection`; `rq`, `redis`. Above: `placing`, and RQ, which calls `supervise`.
"""

from __future__ import annotations

__all__ = ["supervise", "work"]

import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Worker, get_current_job
from rq.serializers import JSONSerializer

from intercept_py.jobs import launch, recipe_programs, strays, supervisor
from intercept_py.jobs.model import JobError
from intercept_py.jobs.rq_connection import bounded, connect
from intercept_py.jobs.rq_keys import BEAT, KEPT, LEASE, PLACE, PYTHON, RECIPES, Keys

WORKER = "INTERCEPT_JOB_WORKER"
"""In the environment of what a worker runs: which Redis has the lease on it, and its mark."""
_CHUNK = 64 * 1024
_TICK = 0.1


def work(url: str, queue: str) -> None:
    """Be a worker until SIGTERM or SIGINT. Raises `JobError` (`redis`) if Redis cannot be used."""
    connection = connect(url)
    try:
        connection.ping()
        _sweep(connection)
        worker = Worker([Queue(queue, connection=connection, serializer=JSONSerializer)], serializer=JSONSerializer)
        worker.work(logging_level="WARNING")
    except RedisError as exc:
        raise JobError("redis", f"cannot use Redis: {exc}") from None
    finally:
        connection.close()


def supervise(mark: str, command: list[str], cwd: str, options: list[str]) -> None:
    """Run one job to its end. `options` are the supervisor's: grace, timeout, and how much output to keep."""
    job = get_current_job()
    assert job is not None
    connection = bounded(job.connection)
    try:
        _sweep(connection)
        with tempfile.TemporaryDirectory(prefix="intercept-job-") as directory:
            _Placed(connection, mark, directory).run(command, cwd, options)
    finally:
        connection.close()


def _sweep(connection: Redis) -> None:
    """End what is left of jobs whose worker died together with their supervisor: nobody has a lease on them."""
    place = _name(connection)
    with suppress(OSError):  # it cannot be told now: the next worker looks again
        for mark in {mark for _, mark in strays.entries(f"{WORKER}={place} ")}:
            if not connection.exists(Keys(mark).worker):
                strays.kill(mark)


def _name(connection: Redis) -> str:
    """What tells this Redis from others whose workers may be on this machine."""
    connection.set(PLACE, uuid.uuid4().hex, nx=True)
    name: Any = connection.get(PLACE)
    return str(name.decode())


class _Placed:
    """One job here. One thread reads what the supervisor reports, one talks to Redis, and one watches our lease."""

    def __init__(self, redis: Redis, mark: str, directory: str) -> None:
        self._redis = redis
        self._mark = mark
        self._keys = Keys(mark)
        self._directory = directory
        self._sent = 0
        self._tail = b""
        self._sending = threading.Lock()
        self._started = False
        self._over = threading.Event()
        self._leased_until = 0.0
        self._lifeline: socket.socket

    def run(self, command: list[str], cwd: str, options: list[str]) -> None:
        asked = time.monotonic()
        if not self._redis.exists(self._keys.engine) or not self._redis.set(self._keys.worker, "1", nx=True, ex=LEASE):
            return  # nobody waits for it any more, or somebody has it already
        self._leased_until = asked + LEASE
        process, reports = self._start(command, cwd, options)
        threads = [threading.Thread(target=run) for run in (self._listen, self._guard)]
        for thread in threads:
            thread.start()
        last = b""
        try:
            for line in iter(reports.readline, b""):
                word, _, rest = line.rstrip(b"\n").partition(b" ")
                if word == b"exit":
                    last = rest
                else:
                    self._report(word.decode(), rest)
                    self._started = True
        finally:
            self._let_go()
            status = process.wait()
            reports.close()
            if status:  # it was killed, and what it says is worth nothing: the job must not outlive it
                last = b""
                while not strays.kill(self._mark):
                    time.sleep(_TICK)
            self._push_output()
            if last:
                self._report("exit", last)
            self._over.set()
            self._wake()
            for thread in threads:
                thread.join()
            with suppress(RedisError):
                self._redis.delete(self._keys.worker, self._keys.control)

    def _start(self, command: list[str], cwd: str, options: list[str]) -> tuple[subprocess.Popen[bytes], Any]:
        """Start the supervisor. Sockets, since a job could open our end of a pipe through /proc."""
        places = {PYTHON: sys.executable, RECIPES: recipe_programs.__file__}
        program = [sys.executable, "-I", "-S", "-E", supervisor.__file__, self._directory, cwd, *options]
        self._lifeline, lifeline = socket.socketpair()
        ours, theirs = socket.socketpair()
        with lifeline, theirs, ours:
            process = subprocess.Popen(
                program + [places.get(word, word) for word in command],
                stdin=lifeline.fileno(),
                stdout=theirs.fileno(),
                env={**launch.environment(self._mark), WORKER: f"{_name(self._redis)} {self._mark}"},
                start_new_session=True,
            )
            return process, ours.makefile("rb")

    # What the supervisor says

    def _report(self, word: str, data: bytes) -> None:
        with suppress(RedisError):  # then our lease runs out, and the job ends
            self._redis.xadd(self._keys.reports, {word: data})
            self._redis.expire(self._keys.reports, KEPT)

    def _push_output(self) -> None:
        """Send what was printed since the last time."""
        with self._sending:
            with suppress(OSError), open(f"{self._directory}/head", "rb") as file:
                file.seek(self._sent)
                while data := file.read(_CHUNK):
                    self._report("head", data)
                    self._sent += len(data)
            with suppress(OSError), open(f"{self._directory}/tail", "rb") as file:
                if (tail := file.read()) != self._tail:
                    self._report("tail", tail)
                    self._tail = tail

    # What the engine says

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                if not self._beat():
                    self._let_go()  # the engine is gone, or wants no job any more
                    self._over.wait()
            except RedisError:
                self._over.wait(BEAT)

    def _beat(self) -> bool:
        """Renew our lease, look at the engine's, send output, and wait a moment for a command."""
        asked = time.monotonic()
        self._redis.set(self._keys.worker, "1", ex=LEASE)
        self._leased_until = asked + LEASE
        if not self._redis.exists(self._keys.engine):
            return False
        if self._started:
            self._push_output()
        found: Any = self._redis.blpop([self._keys.control], timeout=BEAT)
        if found is not None:
            self._tell(found[1])
        return True

    def _guard(self) -> None:
        """Nothing here waits for Redis: whatever it does, a job does not outlive our lease."""
        while not self._over.wait(_TICK):
            if time.monotonic() > self._leased_until:
                self._let_go()
                return

    def _wake(self) -> None:
        """Have the listener look whether it is over."""
        with suppress(RedisError):
            self._redis.rpush(self._keys.control, b"")

    def _tell(self, said: bytes) -> None:
        if not said:
            return
        word, _, rest = said.partition(b" ")
        line = b"input %d\n%b" % (len(rest), rest) if word == b"input" else b"cancel\n"
        with suppress(OSError):  # it has ended
            self._lifeline.sendall(line)

    def _let_go(self) -> None:
        """Let go of the lifeline: the supervisor ends the job, if it has not ended."""
        with suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_RDWR)
        self._lifeline.close()
