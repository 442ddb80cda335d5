"""Commands of the ssh tools as jobs: which are allowed, how they start, and what their callers hear of them meanwhile.

Below: `engine`, `recipes`, `ssh_hosts`, `ssh_tasks`. Above: `ssh`.
"""

from __future__ import annotations

__all__ = ["Commands", "DeniedError"]

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio

from intercept_py.jobs import recipes
from intercept_py.jobs.dialects import ssh_tasks
from intercept_py.jobs.dialects.ssh_hosts import LOCAL, Host
from intercept_py.jobs.dialects.ssh_tasks import ASYNC, BLOCKING, Limits
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import TERMINAL, Event, Job, JobError, Order, Settings
from intercept_py.jobs.recipes import RecipeError
from intercept_py.jobs.serving import Context
from intercept_py.model import JsonObject

_LOOK: Final = 30.0
"""Seconds between two looks at a job of which nothing is heard."""


class DeniedError(Exception):
    """A command that may not run; nothing was started. The text says why, `facts` is what the tools answer."""

    def __init__(self, why: str, reason: str, alias: str, **facts: str) -> None:
        super().__init__(why)
        self.facts: JsonObject = {"status": "denied", "reason": reason, "alias": alias, **facts}


class Commands:
    """Runs commands on the engine, each under a new id."""

    def __init__(self, engine: Engine, settings: Settings, limits: Limits) -> None:
        self._engine, self._settings, self._limits = engine, settings, limits
        self._ids = ssh_tasks.Ids()
        self._background: set[asyncio.Task[None]] = set()

    def check(self, host: Host, command: str) -> tuple[str, ...]:
        """What the command means on the host. Raises `DeniedError`."""
        if host.host != LOCAL:
            why = f"host `{host.alias}` is not local, and this build runs commands on local hosts only"
            hint = "Choose a host whose address ssh_describe_host gives as `local`."
            raise DeniedError(why, "network", host.alias, detail=why, hint=hint)
        try:
            return recipes.parse(command, self._settings.allow_shell)
        except RecipeError as exc:
            hint = f"Check commands with ssh_plan first. This one: {exc}"
            digest = ssh_tasks.digest(command)
            raise DeniedError(str(exc), "policy", host.alias, hash=digest, command=command, hint=hint) from None

    async def run(self, host: Host, command: str, context: Context, announcement: str) -> JsonObject:
        """Run to the end and return the result; the id is in the log message `announcement`, sent first.

        Raises `DeniedError` and `JobError`. Whoever cancels this call stops the command.
        """
        async with self._started(BLOCKING, host, command) as job:
            facts = {"event": announcement, "alias": host.alias, "hash": ssh_tasks.digest(command), "task_id": job.id}
            await context.log("info", _compact(facts))
            ended = await self._follow(job, context)
        return ssh_tasks.run_result(ended, self._engine.output(ended.kind, ended.id), time.time())

    async def start(self, host: Host, command: str, context: Context) -> Job:
        """Start and return at once; the caller hears that it was created and, whenever that is, how it ended.

        Raises `DeniedError` and `JobError`.
        """
        async with self._started(ASYNC, host, command) as job:
            facts = {"alias": host.alias, "command": command, "status": "pending"}
            await context.log("info", _notice(job, "created", facts))
        self._keep(self._tell_end(job, context))
        return job

    @asynccontextmanager
    async def _started(self, kind: str, host: Host, command: str) -> AsyncIterator[Job]:
        """A new job, which is stopped if the body fails or is cancelled: nobody would attend to it any more."""
        order = Order(
            kind=kind,
            argv=self.check(host, command),
            text=command,
            cwd=self._settings.root,
            meta={"alias": host.alias},
            timeout=self._limits.max_seconds,
        )
        # Shielded: a job must not start without somebody to know its id.
        with anyio.CancelScope(shield=True):
            job = await self._engine.start(order, self._ids.make(host.alias, command, time.time()))
        try:
            yield job
        except BaseException as exc:
            reason = "request_cancelled" if isinstance(exc, asyncio.CancelledError) else "request_failed"
            with anyio.CancelScope(shield=True), suppress(JobError):
                await self._engine.cancel(kind, job.id, by="client", reason=reason, wait=0)
            raise

    async def _follow(self, job: Job, context: Context) -> Job:
        """Report progress until the job has ended; returns it as it is then."""
        seen, shown = 0, -1
        while job.status not in TERMINAL:
            await self._engine.changed(job.kind, job.id, seen, _LOOK)
            for event in self._engine.events(job.kind, job.id, after=seen):
                seen = event.seq
                if event.type == "progress":
                    shown = await self._report(job, event, shown, context)
            found = self._engine.get(job.kind, job.id)
            if found is None:  # ended and already forgotten
                break
            job = found
        return job

    async def _report(self, job: Job, event: Event, shown: int, context: Context) -> int:
        """Progress only ever grows (MCP's rule); returns the percentage shown last."""
        now = time.time()
        percent = ssh_tasks.percent(job, event, now, self._limits)
        if percent <= shown:
            return shown
        elapsed = ssh_tasks.elapsed_ms(job, now)
        facts = {"percent": percent, "elapsed_ms": elapsed, "max_seconds": self._limits.max_seconds}
        message = _notice(job, "progress", facts)
        await context.progress(percent, 100, message)
        await context.log("debug", message)
        return percent

    async def _tell_end(self, job: Job, context: Context) -> None:
        ended = await self._follow(job, context)
        word, facts = ssh_tasks.ending(ended, time.time(), self._limits)
        await context.log("info", _notice(ended, word, facts))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        async def quietly() -> None:
            with suppress(JobError):  # the server ends and has closed its store
                await work

        task = asyncio.create_task(quietly())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _notice(job: Job, word: str, facts: JsonObject) -> str:
    return f"task {job.id} {word} {_compact(facts)}"


def _compact(facts: JsonObject) -> str:
    return json.dumps(facts, separators=(",", ":"), ensure_ascii=False)
