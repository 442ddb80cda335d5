"""Connections to Redis that answer or fail within a second or two: nothing here may hang for longer than a lease.

Below: `redis`. Above: `rq_launch` and `rq_worker`.
"""

from __future__ import annotations

__all__ = ["TIMEOUT", "bounded", "connect", "connect_async"]

from typing import Any

import redis.asyncio
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from intercept_py.jobs.model import JobError

TIMEOUT = 1.5
"""Seconds; longer than what is waited for on purpose, shorter than a lease."""
_BOUNDS: dict[str, Any] = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}


def connect(url: str) -> Redis:
    """A client, which connects when it is used. Raises `JobError` (`redis`) for an URL that is none."""
    try:
        return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_BOUNDS)
    except ValueError:
        text = "the URL of Redis is not one: write redis://HOST:PORT/NUMBER"  # it may hold a password
        raise JobError("redis", text) from None


def connect_async(url: str) -> Any:
    """The same for an event loop. The library's types of it are of little use."""
    return redis.asyncio.Redis.from_url(url, retry=redis.asyncio.retry.Retry(NoBackoff(), 0), **_BOUNDS)


def bounded(connection: Redis) -> Redis:
    """A connection of its own to the same Redis: RQ lets its own one wait for minutes."""
    pool = connection.connection_pool
    arguments = {**pool.connection_kwargs, **_BOUNDS, "retry": Retry(NoBackoff(), 0)}
    return Redis(connection_pool=ConnectionPool(connection_class=pool.connection_class, **arguments))
