"""What clients write about runs: filters, durations and times, read into values. Pure, but for the clock.

Below: `trigger_objects`. Above: `trigger_runs`.
"""

from __future__ import annotations

__all__ = ["MOST", "ApiError", "Filter", "duration", "duration_text", "page_size"]

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from intercept_py.jobs.dialects.trigger_objects import API_STATUS, WORKER_VERSION
from intercept_py.jobs.model import Job, Status

MOST = 100
"""Runs on a page, at most."""

_PAGE = 25
_STATUSES = frozenset(("PENDING_VERSION", "DEQUEUED", "SYSTEM_FAILURE", "DELAYED", *API_STATUS.values()))
_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "hr": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:w|d|hr|h|m|s))+")


class ApiError(Exception):
    """What the API answers instead of a result: an HTTP status and one line for people."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Filter:
    """Which jobs a query asks for. Raises `ApiError` 400 for a query that cannot be understood."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self.statuses = _statuses(query.get("filter[status]"))
        self._tasks = _names(query.get("filter[taskIdentifier]"))
        self._versions = _names(query.get("filter[version]"))
        self._tags = _names(query.get("filter[tag]"))
        # No run has a machine or a region: who asks for one finds nothing.
        self._nothing = "filter[machine]" in query or "filter[region]" in query
        self._since = _moment(query.get("filter[createdAt][from]"), float("-inf"))
        self._until = _moment(query.get("filter[createdAt][to]"), float("inf"))
        if period := query.get("filter[createdAt][period]"):
            self._since = max(self._since, time.time() - duration(period, "period"))

    def admits(self, job: Job) -> bool:
        """Whether the query asks for `job`, as far as `statuses` does not tell."""
        version = WORKER_VERSION if job.started_at is not None else None
        return (
            not self._nothing
            and self._since <= job.created_at <= self._until
            and (self._tasks is None or job.meta["task"] in self._tasks)
            and (self._versions is None or version in self._versions)
            and (self._tags is None or not self._tags.isdisjoint(job.meta["tags"]))
        )


def duration(text: str, name: str) -> float:
    """Seconds of a text like `1h30m`; `name` is what it is called in the error."""
    if not _DURATION.fullmatch(text):
        raise ApiError(400, f"invalid {name} `{text[:40]}`: write a duration like 1h30m, of w, d, h, m, s")
    return float(sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([a-z]+)", text)))


def duration_text(seconds: float) -> str:
    """A text like `1h30m` for whole seconds."""
    rest, text = int(seconds), ""
    for unit in ("w", "d", "h", "m", "s"):
        number, rest = divmod(rest, _UNITS[unit])
        text += f"{number}{unit}" if number else ""
    return text


def page_size(query: Mapping[str, str]) -> int:
    """How many runs a query wants."""
    size = query.get("page[size]", str(_PAGE))
    if not re.fullmatch(r"[0-9]{1,3}", size) or not 1 <= int(size) <= MOST:
        raise ApiError(400, f"invalid page[size]: a number from 1 to {MOST}")
    return int(size)


def _statuses(text: str | None) -> tuple[Status, ...] | None:
    wanted = _names(text)
    if wanted is None:
        return None
    if unknown := wanted - _STATUSES:
        raise ApiError(400, f"invalid status `{min(unknown)[:40]}`: use {', '.join(sorted(_STATUSES))}")
    return tuple(status for status, name in API_STATUS.items() if name in wanted)


def _names(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(text.split(","))


def _moment(text: str | None, default: float) -> float:
    """Seconds since the epoch, of milliseconds since then or an ISO 8601 time (in UTC if it does not say)."""
    if text is None:
        return default
    if re.fullmatch(r"-?[0-9]{1,16}", text):
        return int(text) / 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ApiError(400, f"invalid time `{text[:40]}`: use ISO 8601") from exc
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
