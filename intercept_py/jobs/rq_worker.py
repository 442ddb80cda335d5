"""Runs a job on the machine of an RQ worker, under the same supervisor as at home: `rq_keys` says how it is told.

The worker's process for one RQ job holds the supervisor's lifeline, so however that process ends, the job ends too.

Below: `supervisor`, `rq_keys`; `rq`, `redis`. Above: `rq worker`.
"""

from __future__ import annotations

__all__ = ["connect", "supervise", "work"]

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Worker, get_current_job
from rq.serializers import JSONSerializer

from intercept_py.jobs import recipe_programs, strays, supervisor
from intercept_py.jobs.model import JobError
from intercept_py.jobs.rq_keys import BEAT, KEPT, LEASE, PYTHON, RECIPES, Keys

_CHUNK = 64 * 1024


def connect(url: str) -> Redis:
    """A client, which connects when it is used. Raises `JobError` (`redis`) for an URL that is none."""
    try:
        return Redis.from_url(url)
    except ValueError:
        text = "the URL of Redis is not one: write redis://HOST:PORT/NUMBER"  # it may hold a password
        raise JobError("redis", text) from None


def work(url: str, queue: str) -> None:
    """Be a worker until SIGTERM or SIGINT. Raises `JobError` (`redis`) if Redis cannot be used."""
    connection = connect(url)
    try:
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
    with tempfile.TemporaryDirectory(prefix="intercept-job-") as directory:
        _Placed(job.connection, mark, directory).run(command, cwd, options)


class _Placed:
    """One job here. Two threads: one reads what the supervisor reports, one listens and keeps the lease."""

    def __init__(self, redis: Redis, mark: str, directory: str) -> None:
        self._redis = redis
        self._mark = mark
        self._keys = Keys(mark)
        self._directory = directory
        self._sent = 0
        self._tail = b""
        self._sending = threading.Lock()
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes]

    def run(self, command: list[str], cwd: str, options: list[str]) -> None:
        if not self._redis.exists(self._keys.engine) or not self._redis.set(self._keys.worker, "1", nx=True, ex=LEASE):
            return  # nobody waits for it any more, or somebody has it already
        places = {PYTHON: sys.executable, RECIPES: recipe_programs.__file__}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", supervisor.__file__, self._directory, cwd, *options]
            + [places.get(word, word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, strays.MARK: self._mark},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        listener = threading.Thread(target=self._listen)
        listener.start()
        last = b""
        try:
            for line in iter(self._process.stdout.readline, b""):
                word, _, rest = line.rstrip(b"\n").partition(b" ")
                if word == b"exit":
                    last = rest
                else:
                    self._report(word.decode(), rest)
        finally:
            self._release()
            self._process.wait()
            self._process.stdout.close()
            strays.kill(self._mark)  # should the supervisor have been killed, the job must not outlive it
            self._push_output()
            if last:
                self._report("exit", last)
            self._over.set()
            self._wake()
            listener.join()
            with suppress(RedisError):
                self._redis.delete(self._keys.worker, self._keys.control)

    # What the supervisor says

    def _report(self, word: str, data: bytes) -> None:
        with suppress(RedisError):  # then the leases run out, and it ends
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
        heard = time.monotonic()
        while not self._over.is_set():
            try:
                if not self._beat():
                    break  # the engine is gone, or wants no job any more
                heard = time.monotonic()
            except RedisError:
                if time.monotonic() - heard > LEASE:
                    break
                time.sleep(BEAT)
        self._release()

    def _beat(self) -> bool:
        """Renew our lease, look at the engine's, send output, and wait a moment for a command."""
        self._redis.set(self._keys.worker, "1", ex=LEASE)
        if not self._redis.exists(self._keys.engine):
            return False
        self._push_output()
        found: Any = self._redis.blpop([self._keys.control], timeout=BEAT)
        if found is not None:
            self._tell(found[1])
        return True

    def _wake(self) -> None:
        """Have the listener look whether it is over."""
        with suppress(RedisError):
            self._redis.rpush(self._keys.control, b"")

    def _tell(self, said: bytes) -> None:
        if not said:
            return
        word, _, rest = said.partition(b" ")
        line = b"input %d\n%b" % (len(rest), rest) if word == b"input" else b"cancel\n"
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # it has ended
            self._process.stdin.write(line)

    def _release(self) -> None:
        """Let go of the lifeline: the supervisor ends the job, if it has not ended."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
