"""Real dialect servers behind the real proxy, with the SDK's client in front and a record of what passed between.

async with governed(SSH_ASYNC, tmp_path) as session:          # the ready-made policy; `policy=` puts another in force
    job = await session.start()
    assert not (await session.cancel(job)).is_error
assert session.received() == [...]                             # complete only now: everything has ended
"""

from __future__ import annotations

__all__ = [
    "CODEX",
    "CODEX_QUEUE",
    "ORCHESTRATION",
    "ROOT",
    "SEEDS",
    "SSH",
    "SSH_ASYNC",
    "SSH_BLOCKING",
    "TRIGGER",
    "Session",
    "System",
    "decision",
    "governed",
]

import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, LoggingMessageNotificationParams

from tests.support.commands import received
from tests.support.jobs import command, gone, processes_of, root_of, text
from tests.support.wire import DECISION_KEY, DENIED, proxy_command

Arguments = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
_RECORDED = 'in=$1 out=$2; shift 2; tee "$in" | "$@" | tee "$out"'
_ANNOUNCED = "ssh_run_task_created"


@dataclass(frozen=True)
class System:
    """A dialect's server, its ready-made policy, and how its jobs are started and cancelled.

    `order(recipe, root)` are the arguments of `start`; `found` reads the new job's id in the answer's text. It is None
    where the call blocks and the id is announced by a log message. `unknown` is a well-formed id that no job has.
    """

    policy: str
    dialect: str
    start: str
    order: Callable[[str, str], Arguments]
    cancel: str
    id: str
    unknown: str
    lists: str
    found: str | None
    options: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The ready-made policy."""
        return (ROOT / "policies" / f"{self.policy}.yaml").read_text()


def _spawn(recipe: str, root: str) -> Arguments:
    return {"backend": "codex", "role": "worker", "prompt": recipe, "cwd": root, "session_mode": "new"}


def _prompt(recipe: str, root: str) -> Arguments:
    return {"prompt": recipe, "cwd": root, "approval_policy": "suggest"}


def _task(recipe: str, _: str) -> Arguments:
    task, _, argument = recipe.partition(" ")
    return {"taskId": task, "payload": argument}


def _command(recipe: str, _: str) -> Arguments:
    return {"alias": "web1", "command": recipe}


_HOSTS = ("--servers", str(ROOT / "examples" / "servers.yml"))
_TASK = "web1:0123456789abcdef:1763719200000000"

ORCHESTRATION = System(
    "seeds/orchestration", "orchestration", "spawn_run", _spawn, "cancel_run", "run_id",
    "3f2a91c0-7b1d-4e55-9c3a-0d6f1b2a4c8e", "list_runs", r'"run_id": "([^"]+)"',
)  # fmt: skip
CODEX = System(
    "seeds/codex", "codex", "codex_start", _prompt, "codex_cancel", "job_id",
    "00000000", "codex_list", r'"job_id": "([^"]+)"',
)  # fmt: skip
TRIGGER = System(
    "seeds/trigger-dev", "trigger", "trigger_task", _task, "cancel_run", "runId",
    "run_nope", "list_runs", r"ID created: (run_[a-z0-9]+)\.",
)  # fmt: skip
SSH_ASYNC = System(
    "seeds/ssh-cancel-async-task", "ssh", "ssh_run_async", _command, "ssh_cancel_async_task", "task_id",
    _TASK, "ssh_list_hosts", r'"task_id": "([^"]+)"', _HOSTS,
)  # fmt: skip
SSH_BLOCKING = System(
    "seeds/ssh-cancel", "ssh", "ssh_run", _command, "ssh_cancel", "task_id",
    _TASK, "ssh_list_hosts", None, _HOSTS,
)  # fmt: skip
SEEDS = (ORCHESTRATION, CODEX, TRIGGER, SSH_ASYNC, SSH_BLOCKING)
CODEX_QUEUE = replace(CODEX, policy="codex-agent-async", cancel="job_cancel", options=("--agent-async",))
SSH = replace(SSH_ASYNC, policy="ssh")


class Session:
    """A client of a system behind the proxy, and what it, the server and the audit can tell.

    `waiting` runs the calls that block for as long as their job runs.
    """

    client: Client
    waiting: TaskGroup

    def __init__(self, system: System, path: Path) -> None:
        self.system = system
        self.path = path
        self.audit = path / "audit.jsonl"
        self._announce, self._announced = anyio.create_memory_object_stream[str](100)

    async def hear(self, params: LoggingMessageNotificationParams) -> None:
        """A `logging_callback`."""
        if _ANNOUNCED in str(params.data):
            self._announce.send_nowait(json.loads(params.data)["task_id"])

    def close(self) -> None:
        """Nothing more will be announced."""
        self._announce.close()
        self._announced.close()

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        """What the client gets."""
        return await self.client.call_tool(tool, arguments)

    async def start(self, recipe: str = "sleep 60") -> str:
        """The id of a new job."""
        arguments = self.system.order(recipe, str(root_of(self.path)))
        if self.system.found is None:
            self.waiting.start_soon(self.client.call_tool, self.system.start, arguments)
            return await self._announced.receive()
        answer = text(await self.call(self.system.start, **arguments))
        match = re.search(self.system.found, answer)
        assert match, answer
        return match[1]

    async def start_many(self, number: int) -> list[str]:
        """The ids of so many new jobs."""
        jobs: list[str] = []

        async def start() -> None:
            jobs.append(await self.start())

        async with anyio.create_task_group() as group:
            for _ in range(number):
                group.start_soon(start)
        return jobs

    async def cancel(self, job: str) -> CallToolResult:
        """What the client gets when it cancels a job."""
        return await self.call(self.system.cancel, **{self.system.id: job})

    def processes(self, job: str) -> list[int]:
        """The processes of a job."""
        return processes_of(self.path, job)

    def untouched(self, job: str, pids: list[int]) -> bool:
        """Whether the job still has all these processes, at least one."""
        return bool(pids) and set(pids) <= set(self.processes(job))

    async def ended(self, pids: list[int]) -> None:
        """Return when none of these is there any more."""
        for pid in pids:
            await anyio.to_thread.run_sync(gone, pid)

    def received(self) -> list[tuple[str, Arguments]]:
        """The tool calls that the server was sent."""
        sent = [message["params"] for message in received(self.path / "in") if message.get("method") == "tools/call"]
        return [(params["name"], params.get("arguments", {})) for params in sent]

    def answered(self) -> list[CallToolResult]:
        """The results of tool calls that the server sent."""
        sent = [message["result"] for message in received(self.path / "out") if "result" in message]
        return [CallToolResult.model_validate(result) for result in sent if "content" in result]

    def outcomes(self, tool: str) -> list[tuple[str, str | None]]:
        """How the calls of a tool ended, for the audit: the outcome, and which condition said so."""
        records = received(self.audit)
        asked = {record["id"] for record in records if record["event"] == "decision" and record.get("tool") == tool}
        return [
            (record["outcome"], record.get("matched"))
            for record in records
            if record["event"] == "outcome" and record["id"] in asked
        ]


def decision(result: CallToolResult) -> dict[str, Any]:
    """What a denial says to programs; fails for everything that is not one."""
    assert result.is_error
    assert text(result).startswith(DENIED)
    assert result.meta is not None
    return dict(result.meta[DECISION_KEY])


@asynccontextmanager
async def governed(system: System, path: Path, *options: str, policy: str | None = None) -> AsyncIterator[Session]:
    """A session under `policy` (a text; the system's own if omitted); `options` are the server's. A minute's time.

    Server, proxy and audit file live under `path`. Calls that still wait when the block is left are given up.
    """
    path.mkdir(exist_ok=True)
    (path / "policy.yaml").write_text(system.source if policy is None else policy)
    server = command(system.dialect, path, *system.options, *options)
    recorded = ["/bin/sh", "-c", _RECORDED, "sh", str(path / "in"), str(path / "out"), *server]
    program, *arguments = proxy_command(path / "policy.yaml", recorded, "--audit", str(path / "audit.jsonl"))
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(os.environ))
    session = Session(system, path)
    client = Client(parameters, mode="legacy", cache=None, logging_callback=session.hear)
    try:
        with anyio.fail_after(60):
            async with client as session.client, anyio.create_task_group() as session.waiting:
                yield session
                session.waiting.cancel_scope.cancel()
    finally:
        session.close()
