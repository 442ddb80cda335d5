"""Jobs as the objects of Trigger.dev's API: the one projection that its REST routes and its MCP tools share. Pure.

Times are ISO 8601 in UTC with milliseconds. Optional fields are absent where they have no value: the clients refuse
null. A job that was asked to stop and still runs is `CANCELED` without `finishedAt`, as the original shows it.

Below: `jobs.model`, `output_text`. Above: `trigger_runs`.
"""

from __future__ import annotations

__all__ = [
    "API_STATUS",
    "WORKER_VERSION",
    "listed",
    "retrieved",
    "row",
    "row_columns",
    "run_trace",
    "worker",
]

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from intercept_py.jobs.dialects.output_text import text_of
from intercept_py.jobs.dialects.trigger_tasks import PARAMETERS, payload_schema
from intercept_py.jobs.model import TERMINAL, Event, Job, Output, Status
from intercept_py.model import Json, JsonObject

API_STATUS: Mapping[Status, str] = {
    "queued": "QUEUED",
    "running": "EXECUTING",
    "waiting": "WAITING",
    "cancelling": "CANCELED",
    "succeeded": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELED",
    "timed_out": "TIMED_OUT",
    "expired": "EXPIRED",
    "lost": "CRASHED",
    "rejected": "FAILED",
}
WORKER_VERSION = "local.1"
"""There is one worker, this server; every run that has started ran on it."""

_SDK_VERSION = "4.8.3"
_OUTPUT_SHOWN = 8_000

_ROW_STATUS = {
    "QUEUED": "PENDING",
    "WAITING": "WAITING_TO_RESUME",
    "COMPLETED": "COMPLETED_SUCCESSFULLY",
    "FAILED": "COMPLETED_WITH_ERRORS",
}
_QUEUED, _FAILED = ("QUEUED",), ("FAILED", "CRASHED", "EXPIRED", "TIMED_OUT")
_COLUMN_TYPES = {"isTest": "bool", "usageDurationMs": "int4", "costInCents": "float8", "baseCostInCents": "float8"}


def retrieved(job: Job, output: Output) -> JsonObject:
    """The run as `GET /api/v3/runs/:id` answers it."""
    more = {"payload": job.meta["payload"], "output": _shown(job, output), "error": _error(job)}
    facts = {
        "depth": 0,
        "triggerFunction": "trigger",
        "relatedRuns": {},
        "attemptCount": int(job.started_at is not None),
    }
    return {**_common(job), **facts, **_present(more)}


def listed(job: Job) -> JsonObject:
    """The run as an entry of `GET /api/v1/runs`."""
    environment = job.meta["environment"]
    return {**_common(job), "env": {"id": f"env_{environment}", "name": environment}}


def row(job: Job, output: Output) -> JsonObject:
    """The run as a row of the realtime stream: column values are texts, as PostgreSQL prints them, or None."""
    status = API_STATUS[job.status]
    text, error = _shown(job, output), _error(job)
    return {
        "id": job.id,
        "friendlyId": job.id,
        "taskIdentifier": job.meta["task"],
        "status": _ROW_STATUS.get(status, status),
        "createdAt": _plain(job.created_at),
        "updatedAt": _plain(job.updated_at),
        "startedAt": _plain(job.started_at),
        "completedAt": _plain(job.finished_at),
        "isTest": "false",
        "usageDurationMs": str(_duration(job)),
        "costInCents": "0",
        "baseCostInCents": "0",
        "output": None if text is None else json.dumps(text),
        "outputType": None if text is None else "application/json",
        "error": error and json.dumps({"type": "BUILT_IN_ERROR", **error, "stackTrace": ""}),
    }


def row_columns() -> JsonObject:
    """The types of the columns of `row` that are not text."""
    return {name: {"type": kind} for name, kind in {**_COLUMN_TYPES, "error": "jsonb"}.items()}


def run_trace(job: Job, events: Iterable[Event]) -> JsonObject:
    """The run as one span, with an empty span for each of its events. Durations are nanoseconds."""
    root = _digest(job.id, 16)
    span = _span(job, root, job.meta["task"], job.started_at or job.created_at, _duration(job) * 1_000_000)
    span["data"] |= {
        "taskSlug": job.meta["task"],
        "isError": API_STATUS[job.status] in _FAILED,
        "isPartial": job.status not in TERMINAL,
        "isCancelled": job.status == "cancelled",
    }
    for event in events:
        child = _span(job, _digest(f"{job.id}/{event.seq}", 16), event.type, event.ts, 0)
        child["parentId"] = root
        if event.data:
            child["data"]["properties"] = event.data
        span["children"].append(child)
    return {"trace": {"traceId": _digest(job.id, 32), "rootSpan": span}}


def worker(runs_url: str, started_at: float) -> JsonObject:
    """The answer of `GET /api/v1/projects/:ref/:env/workers/current`."""
    tasks = [
        {
            "id": f"task_{slug}",
            "slug": slug,
            "filePath": "intercept_py/jobs/recipes.py",
            "triggerSource": "STANDARD",
            "createdAt": _iso(started_at),
            "payloadSchema": payload_schema(slug),
        }
        for slug in PARAMETERS
    ]
    versions = {"version": WORKER_VERSION, "sdkVersion": _SDK_VERSION, "cliVersion": _SDK_VERSION}
    return {"worker": {"id": "worker_local", **versions, "tasks": tasks}, "urls": {"runs": runs_url}}


def _common(job: Job) -> JsonObject:
    status = API_STATUS[job.status]
    times = {"startedAt": job.started_at, "finishedAt": job.finished_at}
    optional = {
        **{name: None if value is None else _iso(value) for name, value in times.items()},
        "version": None if job.started_at is None else WORKER_VERSION,
        "ttl": job.meta.get("ttl"),
        "idempotencyKey": job.meta.get("idempotencyKey"),
    }
    return {
        "id": job.id,
        "status": status,
        "taskIdentifier": job.meta["task"],
        "isQueued": status in _QUEUED,
        "isExecuting": status == "EXECUTING",
        "isWaiting": status == "WAITING",
        "isCompleted": job.status in TERMINAL,
        "isSuccess": status == "COMPLETED",
        "isFailed": status in _FAILED,
        "isCancelled": status == "CANCELED",
        "isTest": False,
        "createdAt": _iso(job.created_at),
        "updatedAt": _iso(job.updated_at),
        "tags": job.meta["tags"],
        "costInCents": 0,
        "baseCostInCents": 0,
        "durationMs": _duration(job),
        **_present(optional),
    }


def _error(job: Job) -> JsonObject | None:
    """What went wrong, for statuses that say that something did."""
    return {"name": "Error", "message": job.error or ""} if API_STATUS[job.status] in _FAILED else None


def _shown(job: Job, output: Output) -> str | None:
    """What a finished run printed, its middle left out if it is long; None for nothing."""
    if job.finished_at is None:
        return None
    text, half = text_of(output), _OUTPUT_SHOWN // 2
    if len(text) > _OUTPUT_SHOWN:
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    return text or None


def _span(job: Job, ident: str, message: str, started_at: float, duration: int) -> JsonObject:
    flags = dict.fromkeys(("isError", "isPartial", "isCancelled"), False)
    data = {"message": message, "startTime": _iso(started_at), "duration": duration, "level": "TRACE", **flags}
    return {"id": ident, "runId": job.id, "data": data, "children": []}


def _duration(job: Job) -> int:
    """Whole milliseconds from start to end; 0 until both are known."""
    if job.started_at is None or job.finished_at is None:
        return 0
    return max(0, round((job.finished_at - job.started_at) * 1000))


def _present(fields: Mapping[str, Json]) -> JsonObject:
    return {name: value for name, value in fields.items() if value is not None}


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _plain(seconds: float | None) -> str | None:
    """A timestamp without its zone, as the realtime stream carries it."""
    return None if seconds is None else _iso(seconds).removesuffix("Z")


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
