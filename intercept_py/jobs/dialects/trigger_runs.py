"""Runs as Trigger.dev's API knows them, over the job engine: what its REST routes and its MCP tools both call.

A run belongs to an environment (`dev`, `staging`, `prod`, `preview`) and does not exist in another. Projects and
branches are not kept apart: there is one local project. Queues, machines, regions and retries are accepted and have no
effect; a delay is refused.

Below: `engine`, `recipes`, `trigger_tasks`, `trigger_objects`, `trigger_query`. Above: `trigger`, `rest_trigger`.
"""

from __future__ import annotations

__all__ = ["ENVIRONMENTS", "KIND", "ApiError", "Runs"]

import hashlib
import json
import secrets
import string
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import msgspec

from intercept_py.jobs import recipes
from intercept_py.jobs.dialects import trigger_objects
from intercept_py.jobs.dialects.trigger_query import MOST, ApiError, Filter, duration, duration_text, page_size
from intercept_py.jobs.dialects.trigger_tasks import PARAMETERS, PayloadError, arguments
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import Event, Job, JobError, Order, Output, Status
from intercept_py.model import Json, JsonObject

KIND = "trigger"
ENVIRONMENTS = ("dev", "staging", "prod", "preview")

_ID_LETTERS = string.ascii_lowercase + string.digits
_EVENTS_TRACED = 1000
_NO_OUTPUT = Output(b"")

S = TypeVar("S", bound=msgspec.Struct)


class _Options(msgspec.Struct, rename="camel", kw_only=True):
    delay: str | None = None
    idempotency_key: str | None = None
    max_duration: float | None = None
    payload_type: str | None = None
    tags: list[str] | str | None = None
    ttl: str | int | None = None


class _Trigger(msgspec.Struct):
    payload: Any = None
    options: _Options = msgspec.field(default_factory=_Options)


class _Replay(_Options, kw_only=True):
    payload: Any = msgspec.UNSET


class Runs:
    """The runs of `engine`, their processes started in `cwd`.

    Methods raise `ApiError`, and `JobError` if the store fails; nothing is changed then.
    """

    def __init__(self, engine: Engine, cwd: str) -> None:
        self._engine = engine
        self._cwd = cwd
        self._started_at = time.time()

    async def trigger(self, environment: str, task: str, body: Json) -> JsonObject:
        """Start a run, or find the one that has the same idempotency key. Body and answer as in the API."""
        request = _read(_Trigger, body)
        return await self._start(environment, task, _payload(request.payload, request.options), request.options)

    async def replay(self, environment: str, run_id: str, body: Json) -> JsonObject:
        """Start a run like another one, apart from what the body says."""
        job, request = self.find(environment, run_id), _read(_Replay, body)
        changed = request.payload is not msgspec.UNSET
        payload = _payload(request.payload, request) if changed else job.meta["payload"]
        if request.tags is None:
            request.tags = job.meta["tags"]
        return await self._start(environment, job.meta["task"], payload, request)

    async def cancel(self, environment: str, run_id: str, by: str = "") -> JsonObject:
        """Ask the run to stop and return at once. A run that has ended stays as it is, and that is no error."""
        self.find(environment, run_id)
        outcome = await self._engine.cancel(KIND, run_id, by=by, reason="cancel_run", wait=0)
        if outcome.result == "unknown":
            raise ApiError(404, "Run not found")
        if outcome.result == "not_owned":
            raise ApiError(422, f"run `{run_id}` belongs to another server: cancel it there")
        return {"id": run_id}

    def find(self, environment: str, run_id: str) -> Job:
        """The job behind a run."""
        job = self._engine.get(KIND, run_id)
        if job is None or job.meta["environment"] != environment:
            raise ApiError(404, "Run not found")
        return job

    def retrieve(self, environment: str, run_id: str) -> JsonObject:
        """One run."""
        job = self.find(environment, run_id)
        return trigger_objects.retrieved(job, self._printed(job))

    def row(self, environment: str, run_id: str) -> tuple[int, JsonObject]:
        """One run as the realtime stream tells it, and the number of the event that made it so."""
        job = self.find(environment, run_id)
        return job.last_seq, trigger_objects.row(job, self._printed(job))

    def trace(self, environment: str, run_id: str) -> JsonObject:
        """What happened in a run, up to a thousand events."""
        job = self.find(environment, run_id)
        return trigger_objects.run_trace(job, islice(self._events(run_id), _EVENTS_TRACED))

    def list(self, environment: str, query: Mapping[str, str]) -> JsonObject:
        """A page of runs, newest first. `query` has the API's names; there are no pages back (`page[before]`)."""
        size, wanted = page_size(query), Filter(query)
        jobs = self._jobs(environment, wanted.statuses, query.get("page[after]"))
        found = list(islice(filter(wanted.admits, jobs), size + 1))
        pagination = {"next": found[size - 1].id} if len(found) > size else {}
        return {"data": [trigger_objects.listed(job) for job in found[:size]], "pagination": pagination}

    async def ended(self, environment: str, run_id: str, seconds: float) -> JsonObject:
        """The run once it has ended or the time is over."""
        self.find(environment, run_id)
        await self._engine.wait(KIND, run_id, seconds)
        return self.retrieve(environment, run_id)

    async def changed(self, run_id: str, after: int, seconds: float) -> None:
        """Return when event `after` is not the run's last one any more, or the time is over."""
        await self._engine.changed(KIND, run_id, after, seconds)

    def worker(self, runs_url: str) -> JsonObject:
        """What can be triggered."""
        return trigger_objects.worker(runs_url, self._started_at)

    async def _start(self, environment: str, task: str, payload: Json, options: _Options) -> JsonObject:
        key = options.idempotency_key
        order = self._order(environment, task, payload, options)
        run_id = _new_id() if key is None else _id_for(environment, task, key)
        try:
            await self._engine.start(order, run_id)
        except JobError as exc:
            if exc.code == "duplicate":
                return {"id": run_id, "isCached": True}
            if exc.code == "store":
                raise
            raise ApiError(422, str(exc)) from exc
        return {"id": run_id, "isCached": False}

    def _order(self, environment: str, task: str, payload: Json, options: _Options) -> Order:
        if task not in PARAMETERS:
            raise ApiError(404, f"task `{task[:40]}` not found: use one of {', '.join(PARAMETERS)}")
        if options.delay is not None:
            raise ApiError(422, "`delay` is not supported here: trigger the task when it is due")
        try:
            words = arguments(task, payload)
            argv = recipes.build(task, words)
        except (PayloadError, recipes.RecipeError) as exc:
            raise ApiError(422, str(exc)) from exc
        ttl = _ttl(options.ttl) or None
        meta = {
            "task": task,
            "environment": environment,
            "payload": payload,
            "tags": _tags(options.tags),
            "ttl": ttl and duration_text(ttl),
            "idempotencyKey": options.idempotency_key,
        }
        text = " ".join([task, *words])
        return Order(KIND, argv, text, self._cwd, meta, timeout=options.max_duration, ttl=ttl)

    def _jobs(self, environment: str, statuses: tuple[Status, ...] | None, after: str | None) -> Iterator[Job]:
        """Every job of the environment in one of the statuses that is older than run `after`, newest first."""
        before = None
        if statuses == ():
            return
        if after is not None:
            job = self.find(environment, after)
            before = (job.created_at, job.id)
        while True:
            meta = {"environment": environment}
            page = self._engine.list(KIND, statuses=statuses, limit=MOST, before=before, meta=meta)
            yield from page
            if len(page) < MOST:
                return
            before = (page[-1].created_at, page[-1].id)

    def _printed(self, job: Job) -> Output:
        """Read only if it is shown: what has ended shows it."""
        return _NO_OUTPUT if job.finished_at is None else self._engine.output(KIND, job.id)

    def _events(self, run_id: str) -> Iterator[Event]:
        after = 0
        while page := self._engine.events(KIND, run_id, after=after, limit=MOST):
            yield from page
            after = page[-1].seq


def _read(kind: type[S], body: Json) -> S:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as exc:
        raise ApiError(400, f"invalid body: {exc}") from exc
    except RecursionError as exc:
        raise ApiError(400, "body is nested too deeply") from exc


def _payload(payload: Json, options: _Options) -> Json:
    """The payload itself; replayed ones arrive in the envelope of the `superjson` package."""
    if options.payload_type != "application/super+json":
        return payload
    try:
        return msgspec.json.decode(payload)["json"]
    except RecursionError as exc:
        raise ApiError(400, "payload is nested too deeply") from exc
    except (TypeError, ValueError, LookupError) as exc:
        raise ApiError(400, "payload must be a SuperJSON string when payloadType is application/super+json") from exc


def _tags(tags: list[str] | str | None) -> list[str]:
    given = [tags] if isinstance(tags, str) else tags or []
    if len(given) > 10 or any(not 0 < len(tag) <= 128 for tag in given):
        raise ApiError(400, "invalid tags: up to 10, each of 1 to 128 characters")
    return given


def _ttl(ttl: str | int | None) -> float:
    """Seconds that a run may be queued; 0 for ever."""
    if isinstance(ttl, str):
        return duration(ttl, "ttl")
    if ttl is not None and ttl < 0:
        raise ApiError(400, f"invalid ttl `{ttl}`: not below 0")
    return ttl or 0


def _new_id() -> str:
    return "run_" + "".join(secrets.choice(_ID_LETTERS) for _ in range(25))


def _id_for(environment: str, task: str, key: str) -> str:
    """One id per key, so that the store itself refuses a second run with it."""
    digest = int(hashlib.sha256(json.dumps([environment, task, key]).encode()).hexdigest(), 16)
    return "run_" + "".join(_ID_LETTERS[digest // 36**place % 36] for place in range(25))
