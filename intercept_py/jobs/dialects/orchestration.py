"""The Orchestration MCP's tools on the job engine: what an agent is told to do is a recipe.

Answers are JSON texts and structured content; failures are results with `isError` and a text `Error: ...`.

Below: `orchestration_tools`, `orchestration_events`, `engine`, `recipes`, `serving`. Above: `cli.jobs`.
"""

from __future__ import annotations

__all__ = ["build"]

import base64
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from mcp_types import CallToolResult

from intercept_py import __version__
from intercept_py.jobs import recipes
from intercept_py.jobs.dialects import Options, zod
from intercept_py.jobs.dialects.orchestration_events import (
    STATUS,
    Artifact,
    hidden,
    iso,
    relpath,
    shown,
    status_of,
    summary_of,
)
from intercept_py.jobs.dialects.orchestration_tools import LISTED, TOOLS
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import TERMINAL, Event, Job, JobError, Order, Output
from intercept_py.jobs.serving import Context, Service, json_result, text_result
from intercept_py.model import JsonObject

KIND = "orchestration"

_MAX_INPUT = 64 * 1024
"""The longest message for a run that waits, in bytes of JSON."""
_MAX_ANSWER = 512 * 1024
"""Once an answer has so many bytes of events, the rest is left for the next."""
_SESSION = 100
_NO_OUTPUT = Output(b"")

Handler: TypeAlias = Callable[[JsonObject, Context], Awaitable[JsonObject]]


class RunError(Exception):
    """Why a call fails, in Orchestration's words."""


def build(engine: Engine, options: Options) -> Service:
    """The tools."""
    return Service(
        name="orchestration-mcp",
        version=__version__,
        tools=TOOLS,
        call=Orchestration(engine, options).call,
        refuse=zod.refuse,
        unknown=zod.unknown,
    )


class Orchestration:
    """What the tools do. Each returns the facts of its answer or raises `RunError`."""

    def __init__(self, engine: Engine, options: Options) -> None:
        self._engine = engine
        self._allow_shell = options.settings.allow_shell
        self._bound = options.settings.grace + 2
        self._tools: dict[str, Handler] = {
            "spawn_run": self._spawn,
            "get_run": self._get,
            "list_runs": self._list,
            "poll_events": self._poll,
            "cancel_run": self._cancel,
            "continue_run": self._continue,
            "get_event_artifact": self._artifact,
        }

    async def call(self, name: str, arguments: JsonObject, context: Context) -> CallToolResult:
        """Answer one call; see `serving.Service`."""
        if name == "spawn_run" and (issues := _missing(arguments)):
            return zod.invalid(name, issues)
        try:
            facts = await self._tools[name](arguments, context)
        except (RunError, JobError) as exc:
            return text_result(f"Error: {exc}", is_error=True)
        return json_result(facts, facts)

    async def _spawn(self, arguments: JsonObject, _: Context) -> JsonObject:
        backend, cwd = arguments["backend"], arguments["cwd"]
        if backend == "remote_a2a":
            raise RunError(f"Unsupported backend: {backend}")
        session, busy = self._session(arguments)
        text = arguments.get("prompt") or _line(arguments["input_message"])
        meta = {
            "backend": backend,
            "role": arguments["role"],
            "session_id": session,
            "behind": busy,
            "cwd": cwd,
            "metadata": arguments.get("metadata", {}),
        }
        argv = recipes.parse(text, self._allow_shell)
        try:
            job = await self._engine.start(Order(KIND, argv, text, cwd, meta, after=session), str(uuid.uuid4()))
        except JobError as exc:
            raise RunError(_why_not(exc, cwd)) from None
        return _identity(job)

    def _session(self, arguments: JsonObject) -> tuple[str, bool]:
        """The session of a new run, and whether another run of it must end first."""
        if arguments["session_mode"] == "new":
            return str(uuid.uuid4()), False
        session, backend = arguments["session_id"], arguments["backend"]
        jobs = self._engine.list(KIND, limit=_SESSION, meta={"session_id": session})
        if not jobs:
            raise RunError(f"Unknown session_id: {session}")
        if jobs[0].meta["backend"] != backend:
            raise RunError(f"Session {session} is bound to backend {jobs[0].meta['backend']}, not {backend}")
        busy = any(job.mine and not job.paused and job.status not in TERMINAL for job in jobs)
        if not busy and all(job.started_at is None for job in jobs):
            raise RunError(f"Session {session} has no backend session id yet")
        return session, busy

    async def _get(self, arguments: JsonObject, _: Context) -> JsonObject:
        return _describe(self._known(arguments["run_id"]))

    async def _list(self, arguments: JsonObject, _: Context) -> JsonObject:
        wanted = arguments.get("status")
        statuses = tuple(core for core, told in STATUS.items() if told == wanted) if wanted else None
        if wanted == "auth_required":
            statuses = ("waiting",)
        filters: JsonObject = {name: arguments[name] for name in ("backend", "cwd") if name in arguments}
        jobs = self._engine.list(KIND, statuses=statuses, limit=LISTED, meta=filters)
        return {"runs": [_describe(job) for job in jobs if wanted in (None, status_of(job))]}

    async def _poll(self, arguments: JsonObject, _: Context) -> JsonObject:
        run_id, after = arguments["run_id"], arguments["after_seq"]
        job = self._known(run_id)
        if job.last_seq <= hidden(after) and job.status not in TERMINAL:
            await self._engine.changed(KIND, run_id, hidden(after), arguments["wait_ms"] / 1000)
        found = self._engine.events(KIND, run_id, after=hidden(after), limit=arguments["limit"])
        job = self._known(run_id)
        events, size = [], 0
        for event in found:
            told, _cut = shown(job, event, self._output(job, event))
            events.append(told)
            size += len(json.dumps(told))
            if size > _MAX_ANSWER:
                break
        reached = events[-1]["seq"] if events else after
        return {"run_id": run_id, "status": status_of(job), "events": events, "next_after_seq": reached}

    async def _cancel(self, arguments: JsonObject, context: Context) -> JsonObject:
        run_id = arguments["run_id"]
        done = await self._engine.cancel(KIND, run_id, by=context.client)
        job = done.job
        if job is None:
            raise RunError(f"Unknown run_id: {run_id}")
        if done.result == "not_owned":
            raise RunError(f"run is not active in this process: {status_of(job)}")
        if job.status not in TERMINAL:
            raise RunError(f"run did not stop within {self._bound:g} s: {job.status}")
        if done.result == "already_terminal" or job.status != "cancelled":
            raise RunError(f"run is already terminal: {status_of(job)}")
        return {"run_id": run_id, "status": status_of(job), "cancelled_at": iso(job.finished_at or job.updated_at)}

    async def _continue(self, arguments: JsonObject, _: Context) -> JsonObject:
        run_id, message = arguments["run_id"], arguments["input_message"]
        job = self._engine.get(KIND, run_id)
        if len(json.dumps(message)) > _MAX_INPUT:
            raise RunError(f"input_message is too large: at most {_MAX_INPUT} bytes")
        if job is not None and job.status in TERMINAL:
            raise RunError(f"run is already terminal: {status_of(job)}")
        if job is None or not job.mine:
            raise RunError(f"run is not active in this process: {run_id}")
        if job.status == "waiting":
            self._engine.note(KIND, run_id, "message_added", message)
        if not await self._engine.send(KIND, run_id, _line(message)):
            raise RunError(f"run is not awaiting additional input: {status_of(job)}")
        return {"run_id": run_id, "status": status_of(self._known(run_id))}

    async def _artifact(self, arguments: JsonObject, _: Context) -> JsonObject:
        job = self._known(arguments["run_id"])
        seq, path = arguments["seq"], arguments["field_path"]
        cuts: dict[str, Artifact] = {}
        kind = ""
        for event in self._engine.events(KIND, job.id, after=hidden(seq) - 1, limit=1):
            told, found = shown(job, event, self._output(job, event))
            if event.seq == hidden(seq):
                kind, cuts = told["type"], {cut.field_path: cut for cut in found}
        if path not in cuts:
            available = ", ".join(cuts) or "(none)"
            raise RunError(f"No artifact for field_path {path}. Available field paths: {available}")
        piece = _piece(cuts[path], arguments["offset"], arguments["limit"])
        return {"run_id": job.id, "seq": seq, "field_path": path, "relpath": relpath(seq, kind), **piece}

    def _output(self, job: Job, event: Event) -> Output:
        """Read only for the event that shows it."""
        ending = event.type == "status" and event.data["status"] in TERMINAL
        return self._engine.output(KIND, job.id) if ending else _NO_OUTPUT

    def _known(self, run_id: str) -> Job:
        job = self._engine.get(KIND, run_id)
        if job is None:
            raise RunError(f"Unknown run_id: {run_id}")
        return job


def _missing(arguments: JsonObject) -> list[zod.Issue]:
    """What a schema cannot say about the arguments of `spawn_run`."""
    found = []
    if arguments["session_mode"] == "resume" and "session_id" not in arguments:
        found.append(zod.Issue("session_id is required when session_mode is resume", ("session_id",)))
    if "prompt" not in arguments and "input_message" not in arguments:
        found.append(zod.Issue("Either prompt or input_message is required", ("prompt",)))
    if arguments["backend"] == "remote_a2a" and not arguments.get("backend_config", {}).get("agent_url"):
        message = "backend_config.agent_url is required when backend is remote_a2a"
        found.append(zod.Issue(message, ("backend_config", "agent_url")))
    return found


def _why_not(exc: JobError, cwd: str) -> str:
    words = {
        "cwd_relative": f"cwd must be an absolute path: {cwd}",
        "cwd_missing": f"ENOENT: no such file or directory, stat '{cwd}'",
        "cwd_not_directory": f"cwd is not a directory: {cwd}",
    }
    return words.get(exc.code, str(exc))


def _line(message: JsonObject) -> str:
    """The text of a message, on one line."""
    return " ".join(" ".join(part["text"] for part in message["parts"] if part["type"] == "text").split("\n"))


def _identity(job: Job) -> JsonObject:
    stored = {name: job.meta[name] for name in ("backend", "role", "session_id")}
    return {"run_id": job.id, **stored, "status": status_of(job)}


def _describe(job: Job) -> JsonObject:
    return {
        **_identity(job),
        "started_at": iso(job.created_at),
        "updated_at": iso(job.updated_at),
        "summary": summary_of(job),
        "last_seq": job.last_seq - hidden(0),
        "cwd": job.cwd,
        "metadata": job.meta["metadata"],
        "remote_ref": None,
    }


def _piece(cut: Artifact, offset: int, limit: int) -> JsonObject:
    """Some bytes of an artifact, as text if they are whole characters."""
    piece = cut.content[offset : offset + limit]
    whole = piece.decode(errors="ignore").encode()
    if whole and piece.startswith(whole):
        piece, encoding, content = whole, "utf-8", whole.decode()
    else:
        encoding, content = ("base64", base64.b64encode(piece).decode()) if piece else ("utf-8", "")
    total = len(cut.content)
    return {
        "mime": cut.mime,
        "encoding": encoding,
        "total_bytes": total,
        "offset": offset,
        "returned_bytes": len(piece),
        "has_more": offset + len(piece) < total,
        "content": content,
    }
