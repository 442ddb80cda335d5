"""The demo's MCP server, whose runs are real processes: `python -m intercept_py.jobs.demo_server`.

A run is a process group of its own. Cancelling sends TERM to the group, KILL after a short grace, and answers only
when the process is gone. The pipe on every run's stdin is its lifeline: nobody but this server holds the other end, so
however the server ends (`kill -9` included), the runs read end-of-file and end too.

An ordinary server: it knows nothing of the proxy, and the proxy nothing of it.
"""

from __future__ import annotations

__all__ = ["Run", "RunError", "Runs", "build", "main"]

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from intercept_py import __version__
from intercept_py.model import JsonObject

MAX_RUNNING = 64
END_WAIT = 5.0
WORK = "import select, sys; select.select([sys.stdin], [], [], float(sys.argv[1]))"
WORKER = (sys.executable, "-I", "-S", "-c", WORK)


class RunError(Exception):
    """A request that cannot be met; the message is for the agent."""


class Run:
    """One process group, and the thread that collects it. `status` leaves `running` once, when the process is gone."""

    def __init__(self, task: str, process: subprocess.Popen[bytes]) -> None:
        self.run_id = str(uuid.uuid4())
        self.task = task
        self.process = process
        self.started_at = _now()
        self.ended_at: str | None = None
        self.status = "running"
        self._cancelled = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._collect, daemon=True).start()

    def cancel(self, grace: float) -> None:
        """Ask, then insist, then wait. Raises `RunError` if the run ended by itself or does not end at all."""
        self._signal(signal.SIGTERM)
        if not self._ended.wait(grace):
            self._signal(signal.SIGKILL, asked=False)
            self._ended.wait(END_WAIT)
        if self.status == "running":
            raise RunError(f"run did not stop within {END_WAIT:g} s: {self.run_id}")
        if self.status != "cancelled":
            raise RunError(f"run is already terminal: {self.status}")

    def kill(self) -> None:
        """End the run without ceremony; nothing happens if it has ended."""
        self._signal(signal.SIGKILL, asked=False)
        self._ended.wait(END_WAIT)

    def describe(self) -> JsonObject:
        """The run as the tools report it."""
        ended = {} if self.ended_at is None else {"ended_at": self.ended_at}
        facts = {"run_id": self.run_id, "task": self.task, "status": self.status, "pid": self.process.pid}
        return {**facts, "started_at": self.started_at, **ended}

    def _signal(self, number: signal.Signals, asked: bool = True) -> None:
        with self._lock:
            if self.status != "running":
                if asked:
                    raise RunError(f"run is already terminal: {self.status}")
                return
            self._cancelled = True
            os.killpg(self.process.pid, number)

    def _collect(self) -> None:
        # Not reaped yet: the zombie keeps its number, so neither it nor the group's can belong to a stranger.
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            os.killpg(self.process.pid, signal.SIGKILL)
            code = self.process.wait()
            ended = "completed" if code == 0 else "failed"
            self.status = "cancelled" if self._cancelled and code != 0 else ended
            self.ended_at = _now()
        self._ended.set()


class Runs:
    """All runs of this server, by id. `command` is what a run executes, with the seconds to work as last argument."""

    def __init__(self, command: Sequence[str] = WORKER, grace: float = 0.5) -> None:
        self._command = command
        self._grace = grace
        self._runs: dict[str, Run] = {}
        self._lifeline, self._held = os.pipe()

    def spawn(self, task: str, seconds: float) -> Run:
        """Start a run. Raises `RunError` when too many are running or the system refuses."""
        if sum(run.status == "running" for run in self.all()) >= MAX_RUNNING:
            raise RunError(f"{MAX_RUNNING} runs are running; cancel one first")
        try:
            process = subprocess.Popen(
                [*self._command, str(seconds)],
                stdin=self._lifeline,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as exc:
            raise RunError(f"run could not be started: {exc.strerror}") from exc
        run = Run(task, process)
        self._runs[run.run_id] = run
        return run

    def all(self) -> list[Run]:
        """Every run, oldest first."""
        return list(self._runs.values())

    def cancel(self, run_id: str) -> Run:
        """Cancel one run and return it when its process is gone. Raises `RunError` if there is nothing to cancel."""
        run = self._runs.get(run_id)
        if run is None:
            raise RunError(f"Unknown run_id: {run_id}")
        run.cancel(self._grace)
        return run

    def purge(self) -> int:
        """Kill every run and forget it; returns how many there were."""
        runs = self.all()
        for run in runs:
            run.kill()
            self._runs.pop(run.run_id, None)
        return len(runs)

    def close(self) -> None:
        """End every run; nothing can be spawned afterwards."""
        self.purge()
        os.close(self._lifeline)
        os.close(self._held)


def build(runs: Runs) -> MCPServer[None]:
    """The server, with `runs` behind its tools."""
    server: MCPServer[None] = MCPServer("intercept-demo-jobs", version=__version__, log_level="WARNING")

    @server.tool(annotations=ToolAnnotations(destructive_hint=False))
    def spawn_run(
        task: Annotated[str, Field(min_length=1, max_length=80, description="What the run is for.")],
        seconds: Annotated[float, Field(gt=0, le=3600, description="How long it works.")] = 600,
    ) -> CallToolResult:
        """Start a background run, a real process. Returns its run_id at once."""
        return _answer(lambda: runs.spawn(task, seconds).describe())

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def list_runs() -> CallToolResult:
        """List all runs, oldest first, with status and process id."""
        return _answer(lambda: {"runs": [run.describe() for run in runs.all()]})

    @server.tool(annotations=ToolAnnotations(destructive_hint=True))
    def cancel_run(
        run_id: Annotated[str, Field(min_length=1, description="The run_id that spawn_run returned.")],
    ) -> CallToolResult:
        """Cancel a running run. Answers when its process is gone; a run that has ended is an error."""
        return _answer(lambda: runs.cancel(run_id).describe())

    @server.tool(annotations=ToolAnnotations(destructive_hint=True))
    def purge_runs() -> CallToolResult:
        """Kill every run and forget it."""
        return _answer(lambda: {"purged": runs.purge()})

    return server


def main() -> None:
    """Serve over stdio until the client hangs up."""
    runs = Runs()
    try:
        build(runs).run("stdio")
    except KeyboardInterrupt:
        pass
    finally:
        runs.close()


def _answer(request: Callable[[], JsonObject]) -> CallToolResult:
    try:
        facts = request()
    except RunError as exc:
        return CallToolResult(content=[TextContent(type="text", text=f"Error: {exc}")], is_error=True)
    return CallToolResult(content=[TextContent(type="text", text=json.dumps(facts))], structured_content=facts)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    main()
