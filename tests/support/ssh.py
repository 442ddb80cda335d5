"""A client of the ssh dialect that keeps what it is told: of a real server over stdio, or of one in this process."""

from __future__ import annotations

__all__ = ["TERMINAL", "Session", "in_process", "over_stdio"]

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from mcp_types import LoggingMessageNotificationParams

from intercept_py.jobs.dialects import Options, ssh
from intercept_py.jobs.dialects.ssh_tasks import USUAL, Limits
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import Settings
from intercept_py.jobs.serving import build_server
from tests.support.jobs import GRACE, dialect, facts, root_of, text

TERMINAL = ("completed", "failed", "cancelled")
_SERVERS = """
hosts:
  web1: {host: local, description: first, tags: [web]}
  web2.example.com: {host: local, tags: [web, far]}
  remote: {host: 10.0.0.9, description: not here, tags: [far]}
"""


class Session:
    """A client and the texts of the log messages that it got."""

    def __init__(self) -> None:
        self.client: Client
        self.logged: list[str] = []
        self._news = anyio.Event()

    async def hear(self, params: LoggingMessageNotificationParams) -> None:
        """A `logging_callback`."""
        self.logged.append(params.data)
        self._news.set()
        self._news = anyio.Event()

    async def heard(self, wanted: Callable[[str], Any]) -> str:
        """The first message that fits; waits for it."""
        while True:
            news = self._news
            for message in self.logged:
                if wanted(message):
                    return message
            await news.wait()

    async def announced(self, alias: str = "web1") -> str:
        """The task id that a blocking command on a host announces."""
        message = await self.heard(lambda said: "_task_created" in said and f'"alias":"{alias}"' in said)
        return str(json.loads(message)["task_id"])

    def endings(self, task_id: str) -> list[str]:
        """The words of all messages that say that a task has ended."""
        found = [re.match(rf"task {re.escape(task_id)} (\w+) ", message) for message in self.logged]
        return [match[1] for match in found if match and match[1] in TERMINAL]

    async def call(self, tool: str, **arguments: Any) -> Any:
        """A tool's answer, an object or a text: never an error, and both forms of the result agree."""
        result = await self.client.call_tool(tool, arguments)
        answer = facts(result)["result"]
        assert text(result) == (answer if isinstance(answer, str) else json.dumps(answer, indent=2, ensure_ascii=False))
        return answer

    async def started(self, command: str, alias: str = "web1") -> str:
        """The id of a new asynchronous task."""
        return str((await self.call("ssh_run_async", alias=alias, command=command))["task_id"])

    async def until(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """The task's status as soon as it is one of these; looks again and again, as clients do."""
        while True:
            status = await self.call("ssh_get_task_status", task_id=task_id)
            if status["status"] in statuses:
                return dict(status)
            await anyio.sleep(0.02)

    async def printed(self, task_id: str, lines: int) -> list[str]:
        """The task's output as soon as it has so many lines."""
        while True:
            output = await self.call("ssh_get_task_output", task_id=task_id, max_lines=1000)
            if output["total_lines"] >= lines:
                return list(output["output_lines"])
            await anyio.sleep(0.02)


@asynccontextmanager
async def over_stdio(path: Path, *options: str, mode: str = "legacy") -> AsyncIterator[Session]:
    """The client of a server that keeps its state under `path` and knows the hosts web1, web2.example.com, remote."""
    session = Session()
    argv = ("--servers", _servers(path), *options)
    async with dialect("ssh", path, *argv, mode=mode, logging_callback=session.hear) as session.client:
        yield session


@asynccontextmanager
async def in_process(path: Path, limits: Limits = USUAL) -> AsyncIterator[Session]:
    """The same without a process for the server."""
    session = Session()
    settings = Settings(state_dir=str(path / "state"), root=str(root_of(path)), grace=GRACE)
    engine = await Engine.open(settings)
    try:
        server = build_server(ssh.build(engine, Options(settings, servers=_servers(path)), limits))
        with anyio.fail_after(30):
            async with Client(server, mode="legacy", logging_callback=session.hear) as session.client:
                yield session
    finally:
        await engine.close()


def _servers(path: Path) -> str:
    file = path / "servers.yml"
    file.write_text(_SERVERS)
    return str(file)
