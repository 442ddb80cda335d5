"""codex-async-mcp's tools on the job engine: what a job is told to do is a recipe.

Failures are ordinary results with an `error` or a `message`, as they are there; only `codex_start` fails as tools do.

Below: `codex_tools`, `output_text`, `engine`, `recipes`, `serving`. Above: `cli.jobs`.
"""

from __future__ import annotations

__all__ = ["build"]

import secrets
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TypeAlias

from mcp_types import CallToolResult

from intercept_py import __version__
from intercept_py.jobs import recipes
from intercept_py.jobs.dialects import Options, codex_tools, pydantic_texts
from intercept_py.jobs.dialects.output_text import text_of
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import TERMINAL, Job, JobError, Order, Output, Status
from intercept_py.jobs.serving import Context, Service, json_result, text_result
from intercept_py.model import Json, JsonObject

KIND = "codex"

_STATUS: dict[Status, str] = {
    "queued": "pending",
    "running": "running",
    "waiting": "running",
    "cancelling": "running",
    "succeeded": "done",
    "cancelled": "cancelled",
}
_FAILED = "error"
_PENDING: tuple[Status, ...] = ("queued",)
_ACTIVE: tuple[Status, ...] = ("running", "waiting", "cancelling")
_SERIAL = "agent"
_OUTPUT = 8000
_TRUNCATED = "...(truncated)...\n"
_PROMPT = 80
_MOST = 1000

Handler: TypeAlias = Callable[[JsonObject, Context], Awaitable[Json]]


def build(engine: Engine, options: Options) -> Service:
    """The tools, with `options.agent_async` those of the later version too."""
    codex = Codex(engine, options)
    return Service(
        name="codex-async-mcp",
        version=__version__,
        tools=codex_tools.ASYNC_TOOLS if options.agent_async else codex_tools.TOOLS,
        call=codex.call,
        refuse=pydantic_texts.refuse,
        unknown=pydantic_texts.unknown,
    )


class Codex:
    """What the tools do. Each returns the facts of its answer; `JobError` is for `codex_start`."""

    def __init__(self, engine: Engine, options: Options) -> None:
        self._engine = engine
        self._allow_shell = options.settings.allow_shell
        self._bound = options.settings.grace + 2
        self._serial = _SERIAL if options.agent_async else None
        self._tools: dict[str, Handler] = {
            "codex_start": self._start,
            "codex_poll": self._poll,
            "codex_list": self._list,
            "codex_cancel": self._cancel,
            "codex_wait": self._wait,
            "job_cancel": self._job_cancel,
            "queue_status": self._queue_status,
        }

    async def call(self, name: str, arguments: JsonObject, context: Context) -> CallToolResult:
        """Answer one call; see `serving.Service`."""
        try:
            answer = await self._tools[name](arguments, context)
        except JobError as exc:
            return text_result(f"Error executing tool {name}: {exc}", is_error=True)
        return json_result(answer, answer if isinstance(answer, dict) else {"result": answer})

    async def _start(self, arguments: JsonObject, _: Context) -> Json:
        prompt, policy = arguments["prompt"], arguments["approval_policy"]
        if policy not in codex_tools.POLICIES:
            raise JobError("policy", f"unknown approval_policy `{policy}`: use {', '.join(codex_tools.POLICIES)}")
        order = Order(
            kind=KIND,
            argv=recipes.parse(prompt, self._allow_shell),
            text=prompt,
            cwd=arguments["cwd"],
            meta={"approval_policy": policy},
            after=self._serial,
        )
        job = await self._engine.start(order, self._new_id())
        return {"job_id": job.id, "status": _status(job), "pid": job.pid}

    def _new_id(self) -> str:
        """Eight hex digits are few enough to be drawn twice."""
        while self._engine.get(KIND, drawn := secrets.token_hex(4)):
            pass
        return drawn

    async def _poll(self, arguments: JsonObject, _: Context) -> Json:
        if arguments["tail_lines"] < 1:
            return {"error": "tail_lines must be 1 or more"}
        job = self._engine.get(KIND, arguments["job_id"])
        return self._describe(job, arguments["tail_lines"]) if job else _unknown(arguments)

    async def _list(self, arguments: JsonObject, _: Context) -> Json:
        limit = max(0, min(arguments["limit"], _MOST))
        return [_row(job) for job in self._engine.list(KIND, limit=limit)] if limit else []

    async def _cancel(self, arguments: JsonObject, context: Context) -> Json:
        return await self._stop(arguments, context, "Job is not running")

    async def _job_cancel(self, arguments: JsonObject, context: Context) -> Json:
        return await self._stop(arguments, context, "Job is not running or pending")

    async def _stop(self, arguments: JsonObject, context: Context, nothing_to_do: str) -> Json:
        done = await self._engine.cancel(KIND, arguments["job_id"], by=context.client)
        job = done.job
        if job is None:
            return _unknown(arguments)
        facts: JsonObject = {"job_id": job.id, **_progress(job)}
        if done.result == "not_owned":
            return {**facts, "message": "Job belongs to another server"}
        if job.status not in TERMINAL:
            return {**facts, "message": f"Job did not stop within {self._bound:g} s"}
        if done.result == "already_terminal" or job.status != "cancelled":
            return {**facts, "message": nothing_to_do}
        return {**facts, "message": "Removed from queue"} if job.started_at is None else {**facts, "killed": True}

    async def _wait(self, arguments: JsonObject, _: Context) -> Json:
        job = self._engine.get(KIND, arguments["job_id"])
        if job is None:
            return _unknown(arguments)
        seconds = max(0, min(arguments["timeout_seconds"], codex_tools.MAX_WAIT))
        job = await self._engine.wait(KIND, job.id, seconds)
        facts = self._describe(job, 100)
        return facts if job.status in TERMINAL else {**facts, "status": "timeout"}

    async def _queue_status(self, _: JsonObject, __: Context) -> Json:
        running = list(islice(self._own(_ACTIVE), 1))
        which = {"running_job_id": running[0].id} if running else {}
        return {"busy": bool(running), **which, "pending_count": sum(1 for _ in self._own(_PENDING))}

    def _own(self, statuses: tuple[Status, ...]) -> Iterator[Job]:
        """This server's jobs in these statuses, newest first: others keep theirs in the same store."""
        before: tuple[float, str] | None = None
        while page := self._engine.list(KIND, statuses, limit=_MOST, before=before):
            yield from (job for job in page if job.mine)
            before = (page[-1].created_at, page[-1].id)

    def _describe(self, job: Job, lines: int) -> JsonObject:
        return {
            "job_id": job.id,
            **_progress(job),
            "exit_code": _exit_code(job),
            "output": _tail(self._engine.output(KIND, job.id), lines),
            **_times(job),
            "prompt": job.text,
            "cwd": job.cwd,
            **({"message": job.error} if job.error else {}),
        }


def _unknown(arguments: JsonObject) -> JsonObject:
    return {"error": f"Job '{arguments['job_id']}' not found"}


def _status(job: Job) -> str:
    return _STATUS.get(job.status, _FAILED)


def _progress(job: Job) -> JsonObject:
    asked = {"cancel_requested": True} if job.status == "cancelling" else {}
    return {"status": _status(job), **asked}


def _row(job: Job) -> JsonObject:
    prompt = job.text if len(job.text) <= _PROMPT else f"{job.text[:_PROMPT]}..."
    return {"job_id": job.id, **_progress(job), "prompt": prompt, "cwd": job.cwd, **_times(job)}


def _times(job: Job) -> JsonObject:
    return {"started_at": _time(job.started_at or job.created_at), "finished_at": _time(job.finished_at)}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _exit_code(job: Job) -> int | None:
    """As Python says it: minus the number of the signal that ended the job's first process."""
    return job.exit_code if job.term_signal is None else -job.term_signal


def _tail(output: Output, lines: int) -> str:
    last = "\n".join(text_of(output).splitlines()[-lines:])
    return last if len(last) <= _OUTPUT else _TRUNCATED + last[len(_TRUNCATED) - _OUTPUT :]
