"""mcp-ssh-orchestrator's tools on the job engine: blocking and asynchronous commands on the hosts of servers.yml.

Every failure is an ordinary result (`isError` false): a text that starts with `Error:`, or a denial as JSON text.
Cancelling signals and answers at once; that a command is gone is told by its status, or by ssh_run's own result.

Below: `ssh_commands` (running), `ssh_inputs`, `ssh_hosts`, `ssh_tasks`, `ssh_tools`, `ssh_guides`. Above: `cli.jobs`.
"""

from __future__ import annotations

__all__ = ["build"]

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeAlias

import anyio
import msgspec
from mcp import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    GetPromptResult,
    PromptMessage,
    ReadResourceResult,
    TextContent,
    TextResourceContents,
)

from intercept_py import __version__
from intercept_py.jobs.dialects import Options, pydantic_texts, ssh_guides, ssh_inputs, ssh_tasks
from intercept_py.jobs.dialects.ssh_commands import Commands, DeniedError
from intercept_py.jobs.dialects.ssh_hosts import Host, HostsError, load
from intercept_py.jobs.dialects.ssh_inputs import InputError
from intercept_py.jobs.dialects.ssh_sanitise import sanitised
from intercept_py.jobs.dialects.ssh_tasks import ASYNC, BLOCKING, USUAL, Limits
from intercept_py.jobs.dialects.ssh_tools import TOOLS
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import TERMINAL, CancelResult, Job, JobError
from intercept_py.jobs.serving import Context, Service, text_result
from intercept_py.model import JsonObject

Answer: TypeAlias = JsonObject | str

_FAULT: Final = {
    "ssh_run": "Run error",
    "ssh_run_on_tag": "Run on tag error",
    "ssh_run_async": "Async run error",
    "ssh_cancel": "Cancel error",
    "ssh_cancel_async_task": "Cancel error",
}


class _Cancel(msgspec.Struct, frozen=True):
    """How a tool cancels: jobs of one kind; what counts as signaled; and what it says otherwise."""

    kind: str
    signaled: tuple[CancelResult, ...]
    failure: str


_CANCEL: Final = {
    # As often as one likes while the command is there, unlike an asynchronous task.
    "ssh_cancel": _Cancel(BLOCKING, ("cancelled", "still_stopping", "already_cancelling"), "Task not found"),
    "ssh_cancel_async_task": _Cancel(ASYNC, ("cancelled", "still_stopping"), "Task not found or not cancellable"),
}

_RECENT: Final = 100
"""Among so many events the last word on progress is looked for."""


def build(engine: Engine, options: Options, limits: Limits = USUAL) -> Service:
    """The tools, prompts and resources, for the hosts of `options.servers`. Raises `JobError` for a bad file."""
    ssh = _Ssh(engine, options, limits)
    return Service(
        name="mcp-ssh-orchestrator",
        version=__version__,
        tools=TOOLS,
        call=ssh.call,
        refuse=pydantic_texts.refuse,
        unknown=pydantic_texts.unknown,
        prompts=tuple(prompt for prompt, _ in ssh_guides.PROMPTS.values()),
        get_prompt=ssh.get_prompt,
        resources=ssh_guides.RESOURCES,
        resource_templates=ssh_guides.TEMPLATES,
        read_resource=ssh.read_resource,
    )


class _Ssh:
    """One method a tool: arguments in; an object, or a text for people, out."""

    def __init__(self, engine: Engine, options: Options, limits: Limits) -> None:
        self._engine, self._limits, self._servers = engine, limits, options.servers
        self._commands = Commands(engine, options.settings, limits)
        try:
            self._inventory = load(options.servers)
        except HostsError as exc:
            raise JobError("servers", "; ".join(map(str, exc.problems))) from None
        self._tools: dict[str, Callable[[JsonObject, Context], Awaitable[Answer]]] = {
            "ssh_ping": self._ping,
            "ssh_list_hosts": self._list_hosts,
            "ssh_describe_host": self._describe_host,
            "ssh_plan": self._plan,
            "ssh_run": self._run,
            "ssh_run_on_tag": self._run_on_tag,
            "ssh_cancel": partial(self._cancel, "ssh_cancel"),
            "ssh_reload_config": self._reload_config,
            "ssh_run_async": self._run_async,
            "ssh_get_task_status": self._get_task_status,
            "ssh_get_task_result": self._get_task_result,
            "ssh_get_task_output": self._get_task_output,
            "ssh_cancel_async_task": partial(self._cancel, "ssh_cancel_async_task"),
        }

    async def call(self, name: str, arguments: JsonObject, context: Context) -> CallToolResult:
        """Answer a call; a `serving.Call`."""
        answer: Answer
        try:
            answer = await self._tools[name](arguments, context)
        except InputError as exc:
            answer = f"Error: {exc}"
        except DeniedError as exc:
            answer = _json(exc.facts)
        except JobError as exc:
            answer = f"{_FAULT.get(name, 'Error')}: {sanitised(str(exc))}"
        return text_result(answer if isinstance(answer, str) else _json(answer), structured={"result": answer})

    async def get_prompt(self, name: str, _: Mapping[str, str]) -> GetPromptResult:
        """A prompt's text; a `serving.GetPrompt`."""
        if name not in ssh_guides.PROMPTS:
            raise MCPError(INVALID_PARAMS, f"Unknown prompt: {name}")
        prompt, text = ssh_guides.PROMPTS[name]
        message = PromptMessage(role="user", content=TextContent(type="text", text=text))
        return GetPromptResult(description=prompt.description, messages=[message])

    async def read_resource(self, uri: str) -> ReadResourceResult:
        """A resource's content; a `serving.ReadResource`."""
        facts = ssh_guides.read(uri, self._inventory, ssh_tasks.bounds(self._limits))
        if facts is None:
            raise MCPError(INVALID_PARAMS, f"Unknown resource: {uri}", {"uri": uri})
        text = TextResourceContents(uri=uri, mime_type="application/json", text=_json(facts))
        return ReadResourceResult(contents=[text])

    async def _ping(self, _: JsonObject, __: Context) -> Answer:
        return {"status": "pong"}

    async def _list_hosts(self, _: JsonObject, __: Context) -> Answer:
        return {"hosts": list(self._inventory.hosts)}

    async def _describe_host(self, arguments: JsonObject, _: Context) -> Answer:
        return ssh_guides.host_record(self._host(arguments))

    async def _plan(self, arguments: JsonObject, _: Context) -> Answer:
        host, command = self._host(arguments), ssh_inputs.command(arguments["command"])
        plan = {"alias": host.alias, "command": command, "hash": ssh_tasks.digest(command)}
        try:
            self._commands.check(host, command)
        except DeniedError as exc:
            denial = {"why": str(exc), "hint": exc.facts["hint"], "denied_command": command}
            return {**plan, "allowed": False, "limits": ssh_tasks.bounds(self._limits), **denial}
        return {**plan, "allowed": True, "limits": ssh_tasks.bounds(self._limits)}

    async def _run(self, arguments: JsonObject, context: Context) -> Answer:
        host, command = self._host(arguments), ssh_inputs.command(arguments["command"])
        return await self._commands.run(host, command, context, "ssh_run_task_created")

    async def _run_on_tag(self, arguments: JsonObject, context: Context) -> Answer:
        tag, command = ssh_inputs.tag(arguments["tag"]), ssh_inputs.command(arguments["command"])
        hosts = self._inventory.tagged(tag)
        if not hosts:
            return {"tag": tag, "results": [], "note": "No hosts matched."}
        results: dict[str, JsonObject] = {}

        async def run(host: Host) -> None:
            results[host.alias] = await self._run_one_of_many(host, command, context)

        async with anyio.create_task_group() as group:
            for host in hosts:
                group.start_soon(run, host)
        return {"tag": tag, "results": [results[host.alias] for host in hosts]}

    async def _run_one_of_many(self, host: Host, command: str, context: Context) -> JsonObject:
        try:
            return await self._commands.run(host, command, context, "ssh_run_on_tag_task_created")
        except DeniedError as exc:
            return {**exc.facts, "exit_code": -1}
        except JobError as exc:
            return {"alias": host.alias, "exit_code": -1, "error": sanitised(str(exc))}

    async def _cancel(self, tool: str, arguments: JsonObject, context: Context) -> Answer:
        way = _CANCEL[tool]
        task_id = ssh_inputs.task_id(arguments["task_id"])
        done = await self._engine.cancel(way.kind, task_id, by=context.client, reason="user_requested", wait=0)
        cancelled = done.result in way.signaled
        facts = {"task_id": task_id, "cancelled": cancelled}
        await context.log("info", json.dumps({"event": tool, **facts}))
        return {**facts, "message": "Cancellation signaled" if cancelled else way.failure}

    async def _reload_config(self, _: JsonObject, __: Context) -> Answer:
        try:
            self._inventory = load(self._servers)
        except HostsError as exc:
            return {"status": "error", "error": str(exc)}
        return {"status": "reloaded"}

    async def _run_async(self, arguments: JsonObject, context: Context) -> Answer:
        host, command = self._host(arguments), ssh_inputs.command(arguments["command"])
        job = await self._commands.start(host, command, context)
        return ssh_tasks.created(job, self._limits)

    async def _get_task_status(self, arguments: JsonObject, _: Context) -> Answer:
        task_id, job = self._task(arguments)
        if job is None:
            return f"Error: Task not found: {task_id}"
        events = self._engine.events(ASYNC, task_id, after=max(0, job.last_seq - _RECENT))
        progress = next((event for event in reversed(events) if event.type == "progress"), None)
        return ssh_tasks.status(job, self._engine.output(ASYNC, task_id), progress, time.time(), self._limits)

    async def _get_task_result(self, arguments: JsonObject, _: Context) -> Answer:
        task_id, job = self._task(arguments)
        if job is None or job.status not in TERMINAL:
            return f"Error: Task not found or expired: {task_id}"
        return ssh_tasks.result(job, self._engine.output(ASYNC, task_id), time.time(), self._limits)

    async def _get_task_output(self, arguments: JsonObject, _: Context) -> Answer:
        most = ssh_inputs.lines(arguments["max_lines"])
        task_id, job = self._task(arguments)
        if job is None:
            return f"Error: Task not found or no output available: {task_id}"
        return ssh_tasks.tail(job, self._engine.output(ASYNC, task_id), most)

    def _host(self, arguments: JsonObject) -> Host:
        alias = ssh_inputs.alias(arguments["alias"])
        if alias not in self._inventory.hosts:
            raise InputError(f"Host alias not found: {alias}")
        return self._inventory.hosts[alias]

    def _task(self, arguments: JsonObject) -> tuple[str, Job | None]:
        """The id that was asked for, and its task unless it is unknown or forgotten."""
        task_id = ssh_inputs.task_id(arguments["task_id"])
        job = self._engine.get(ASYNC, task_id)
        known = job is not None and not ssh_tasks.is_expired(job, time.time(), self._limits)
        return task_id, job if known else None


def _json(facts: JsonObject) -> str:
    """As the SDK writes a tool's object."""
    return json.dumps(facts, indent=2, ensure_ascii=False)
