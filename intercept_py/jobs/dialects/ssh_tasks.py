"""A job as the ssh tools show it: ids, statuses, results. Pure.

A job that was asked to stop is `running` until it has; `cancelled` is final.

Below: `jobs.model`, `output_text`. Above: `ssh`.
"""

from __future__ import annotations

__all__ = [
    "ASYNC",
    "BLOCKING",
    "USUAL",
    "Ids",
    "Limits",
    "bounds",
    "created",
    "digest",
    "elapsed_ms",
    "ending",
    "is_expired",
    "percent",
    "result",
    "run_result",
    "status",
    "tail",
]

import math
from hashlib import sha256
from typing import Final

import msgspec

from intercept_py.jobs.dialects.output_text import text_of
from intercept_py.jobs.model import TERMINAL, Event, Job, Output, Status
from intercept_py.model import Json, JsonObject

ASYNC: Final = "ssh"
BLOCKING: Final = "ssh-sync"
"""The two kinds of job: an id of one is unknown to the tools of the other."""

POLL_SECONDS: Final = 5
MAX_OUTPUT: Final = 1024 * 1024
TARGET: Final = "127.0.0.1"
"""Where commands run: this build has local hosts only."""

_STATUS: Final[dict[Status, str]] = {
    "queued": "pending",
    "running": "running",
    "waiting": "running",
    "cancelling": "running",
    "succeeded": "completed",
    "cancelled": "cancelled",
}
"""Everything else has failed."""


class Limits(msgspec.Struct, frozen=True):
    """Bounds of a command, in seconds: how long it may run, and how long a finished task is remembered."""

    max_seconds: int = 60
    task_result_ttl: float = 300.0


USUAL: Final = Limits()


class Ids:
    """Makes task ids, `alias:sha256[:16]:microseconds`, each time a later one.

    An alias may hold dots and an id may not, so they become `_`: the tools accept every id that they gave out.
    """

    def __init__(self) -> None:
        self._last = 0

    def make(self, alias: str, command: str, now: float) -> str:
        """The id of a task that starts now, in seconds since the epoch."""
        self._last = max(self._last + 1, int(now * 1_000_000))
        return f"{alias.replace('.', '_')}:{digest(command)}:{self._last}"


def digest(command: str) -> str:
    """The 16 hex digits that stand for a command."""
    return sha256(command.encode()).hexdigest()[:16]


def is_expired(job: Job, now: float, limits: Limits) -> bool:
    """Whether a task ended so long ago that it is forgotten."""
    return job.finished_at is not None and now > job.finished_at + limits.task_result_ttl


def elapsed_ms(job: Job, now: float) -> int:
    """How long a task has run, or waited if it has not started; it stands still once the task has ended."""
    end = job.finished_at if job.status in TERMINAL and job.finished_at is not None else now
    return max(0, round(1000 * (end - (job.started_at or job.created_at))))


def bounds(limits: Limits) -> JsonObject:
    """The limits of every command, as ssh_plan lists them. Host keys are never accepted unseen."""
    return {
        "max_seconds": limits.max_seconds,
        "max_output_bytes": MAX_OUTPUT,
        "host_key_auto_add": False,
        "require_known_host": True,
    }


def created(job: Job, limits: Limits) -> JsonObject:
    """What ssh_run_async says: `pending`, whatever has become of the task meanwhile."""
    return {
        "task_id": job.id,
        "status": "pending",
        "keepAlive": round(limits.task_result_ttl),
        "pollFrequency": POLL_SECONDS,
        "alias": job.meta["alias"],
        "command": job.text,
        "hash": digest(job.text),
    }


def status(job: Job, printed: Output, progress: Event | None, now: float, limits: Limits) -> JsonObject:
    """What ssh_get_task_status says; `progress` is the last that the job reported of itself."""
    return {
        "task_id": job.id,
        "status": _word(job),
        "keepAlive": round(limits.task_result_ttl),
        "pollFrequency": POLL_SECONDS,
        "progress_percent": percent(job, progress, now, limits),
        "elapsed_ms": elapsed_ms(job, now),
        "bytes_read": len(printed.head) + printed.dropped + len(printed.tail),
        "output_lines_available": len(text_of(printed).splitlines()),
        **({"cancel_requested": True} if job.status == "cancelling" else {}),
    }


def percent(job: Job, progress: Event | None, now: float, limits: Limits) -> int:
    """How far a task is: what it says itself, else how much of its time is used; 100 means completed."""
    if job.status == "succeeded":
        return 100
    used = 100 * elapsed_ms(job, now) / (limits.max_seconds * 1000)
    said = None if progress is None else _percent_of(progress.data.get("done"), progress.data.get("total"))
    return int(min(99, max(0, used if said is None else said)))


def _percent_of(done: Json, total: Json) -> float | None:
    """What is done of the total; None unless both are numbers that say so, since a job can report anything."""
    if type(done) not in (int, float) or type(total) not in (int, float) or total <= 0:
        return None
    try:
        percent = 100 * done / total
    except OverflowError:
        return None
    return percent if math.isfinite(percent) else None


def outcome(job: Job, now: float) -> JsonObject:
    """How a task ended: what every kind of result says. `exit_code` is -1 where a signal ended the command."""
    return {
        "exit_code": -1 if job.exit_code is None else job.exit_code,
        "duration_ms": elapsed_ms(job, now),
        "cancelled": job.status == "cancelled",
        "timeout": job.status == "timed_out",
        "target_ip": TARGET,
    }


def result(job: Job, printed: Output, now: float, limits: Limits) -> JsonObject:
    """What ssh_get_task_result says of a task that has ended."""
    head = {"task_id": job.id, "status": _word(job)}
    return {**head, **outcome(job, now), "output": text_of(printed), "max_seconds": limits.max_seconds}


def run_result(job: Job, printed: Output, now: float) -> JsonObject:
    """What ssh_run says of its command."""
    head = {"task_id": job.id, "alias": job.meta["alias"], "hash": digest(job.text)}
    return {**head, **outcome(job, now), "output": text_of(printed)}


def tail(job: Job, printed: Output, most: int) -> JsonObject:
    """What ssh_get_task_output says: the last `most` lines printed so far."""
    lines = text_of(printed).splitlines()
    return {
        "task_id": job.id,
        "output_lines": lines[-most:],
        "total_lines": len(lines),
        "has_more": len(lines) > most,
    }


def ending(job: Job, now: float, limits: Limits) -> tuple[str, JsonObject]:
    """The name and the content of the one notification that a task has ended."""
    if job.status == "cancelled":
        reason = job.cancel_reason or "user_requested"
        return "cancelled", {"reason": reason, "max_seconds": limits.max_seconds}
    return _word(job), outcome(job, now)


def _word(job: Job) -> str:
    return _STATUS.get(job.status, "failed")
