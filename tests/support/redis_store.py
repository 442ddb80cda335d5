"""A real Redis that tests stop, kill, restart and set the time of, and storages in it.

with server(tmp_path) as redis:                     # a `Server`; `redis.client` speaks to it beside the storage
    storage = RedisStorage(redis.url)

`tests.support.redis_server` is for those that only need one to be there.
"""

from __future__ import annotations

__all__ = ["START", "Clock", "Server", "server", "set_time"]

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from intercept_py.state import redis as redis_storage
from intercept_py.state.redis_link import make_script
from tests.support.redis_server import program

START = 1767225600.0  # 2026-01-01, a Thursday
_TIME = "redis.call('TIME')"


class Server:
    """A Redis on one port for its whole life, however often it is started."""

    def __init__(self, path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port: int = taken.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, socket_timeout=20)
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, file: Path | None = None) -> None:
        """Start it empty; it answers when this returns. `file`: what it is told besides, before the options."""
        self._path.mkdir(exist_ok=True)
        address = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._path)]
        first = [] if file is None else [str(file)]
        command = [program(), *first, *address, "--save", "", "--appendonly", "no", *options]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client.ping()
            except redis.ConnectionError:
                assert self._process.poll() is None, "redis-server ended at once"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.02)
            else:
                return

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once, with everything that it remembers."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.client.connection_pool.disconnect()


@contextmanager
def server(path: Path, *options: str) -> Iterator[Server]:
    """A running server; it has ended afterwards."""
    started = Server(path)
    try:
        started.start(*options)
        yield started
    finally:
        started.kill()
        started.client.close()


class Clock:
    """The time of the scripts, in seconds: a Redis knows no other way to set it. Steps must be multiples of 1/64."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.now = START

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    @now.setter
    def now(self, now: float) -> None:
        self._now = now
        assert now * 64 == int(now * 64), "floats hold multiples of 1/64 exactly"
        seconds, part = divmod(int(now * 1_000_000), 1_000_000)
        self._client.hset("clock", mapping={"seconds": seconds, "microseconds": part})

    def __call__(self) -> float:
        return self._now


def set_time(
    patch: pytest.MonkeyPatch, expression: str = "redis.call('HMGET', 'clock', 'seconds', 'microseconds')"
) -> None:
    """Have the scripts of storages take the time from this Lua expression; that of `Clock` if omitted."""
    for name in ("CHARGE", "LOOK", "TAKE_OVER"):
        text = getattr(redis_storage, name).text
        assert text.count(_TIME) == 1
        patch.setattr(redis_storage, name, make_script(text.replace(_TIME, expression)))
