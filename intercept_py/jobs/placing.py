"""Where jobs run: on this machine, or with the RQ workers that share a Redis, for which the extra `rq` is needed.

Below: `launch`; `rq_launch`, `rq_worker` if they are asked for. Above: the commands.
"""

from __future__ import annotations

__all__ = ["QUEUE", "Placing", "launcher", "work"]

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import msgspec

from intercept_py.jobs.launch import Launcher, LocalLauncher
from intercept_py.jobs.model import JobError

QUEUE = "intercept-jobs"


class Placing(msgspec.Struct, frozen=True):
    """Which workers: those of a queue, at a Redis URL (it may hold a password)."""

    redis: str
    queue: str = QUEUE


@asynccontextmanager
async def launcher(placing: Placing | None) -> AsyncIterator[Launcher]:
    """What starts jobs there (None: here). Raises `JobError` (`redis`) if it cannot be used."""
    if placing is None:
        yield LocalLauncher()
        return
    remote = _rq("rq_launch").RqLauncher(placing.redis, placing.queue)
    try:
        await remote.check()
        yield remote
    finally:
        await remote.close()


def work(placing: Placing) -> None:
    """Be a worker until SIGTERM or SIGINT. Raises `JobError` (`redis`) if it cannot."""
    _rq("rq_worker").work(placing.redis, placing.queue)


def _rq(name: str) -> Any:
    try:
        return import_module(f"intercept_py.jobs.{name}")
    except ModuleNotFoundError as exc:
        text = f"jobs with workers need the package `{exc.name}`: pip install rq"
        raise JobError("redis", text) from None
