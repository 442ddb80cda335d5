"""What the demo does: a real server with real processes behind a real proxy, and every claim about them checked.

The scenario reports `Scene`s, whole snapshots of what is known so far; how they are shown is none of its business.
Nothing is assumed: verdicts come from the client's side of the wire, the state of processes from the operating system,
the judgement of the audit log from `intercept-py audit verify`.
"""

from __future__ import annotations

__all__ = ["POLICY", "Check", "DemoError", "Row", "Scene", "Stage", "perform"]

import os
import sys
from collections.abc import Callable
from typing import TextIO

import anyio
import msgspec
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp_types import CallToolResult, TextContent

from intercept_py.cli.text import printable
from intercept_py.jobs import demo_server
from intercept_py.model import JsonObject

POLICY = """\
version: "1"
description: ten cancels a minute and session, and no way to purge
default: deny
hide: [purge_runs]
tools:
  spawn_run: {}
  list_runs: {}
  cancel_run:
    rules:
      - action: allow
        rate_limit:
          max: 10
          window: 60
        validate:
          required_args: true
"""
TASKS = (
    "nightly export",
    "rebuild search index",
    "resize images",
    "train model",
    "sync invoices",
    "crawl docs",
    "send newsletter",
    "migrate users",
    "compact logs",
    "render video",
    "back up database",
    "charge subscriptions",
)
CANCELS = 10
DENIED = "[INTERCEPT POLICY DENIED] "
TIMEOUT = 30.0
_MODULE = ("-P", "-m")
"""Without `-P`, a file `json.py` in the directory where somebody tries the demo would be run."""


class DemoError(Exception):
    """The scenario cannot go on."""


class Row(msgspec.Struct, frozen=True):
    """One run and what became of it. `alive` is what the operating system says about its process."""

    number: int
    run_id: str
    task: str
    pid: int
    alive: bool
    verdict: str = ""
    reason: str = ""


class Check(msgspec.Struct, frozen=True):
    """One expectation, whether it held, and what was seen."""

    name: str
    held: bool
    seen: str


class Scene(msgspec.Struct, frozen=True):
    """All that is known at one moment. `doing` is what happens next."""

    doing: str = ""
    rows: tuple[Row, ...] = ()
    checks: tuple[Check, ...] = ()
    told: str = ""

    @property
    def held(self) -> bool:
        """Whether every expectation held."""
        return all(check.held for check in self.checks)

    def summary(self, seconds: float) -> str:
        """How it went, in one line."""
        failed = sum(not check.held for check in self.checks)
        ended = f"{failed} of {len(self.checks)} expectations did not hold"
        return f"{ended if failed else f'all {len(self.checks)} expectations held'}, {seconds:.1f} s"

    def with_check(self, name: str, held: bool, seen: str) -> Scene:
        """The scene and one check more; what was seen is made safe to print."""
        return msgspec.structs.replace(self, checks=(*self.checks, Check(name, held, printable(seen))))


class Stage(msgspec.Struct, frozen=True):
    """Where the demo plays: policy, audit log, the proxy's stderr, and a pause so that people can watch."""

    policy: str
    audit: str
    stderr: TextIO
    pause: float = 0.0


async def perform(stage: Stage, show: Callable[[Scene], None]) -> Scene:
    """Play everything and return the last scene. What goes wrong on the way is a check that did not hold."""
    play = _Play(stage, show)
    try:
        with anyio.fail_after(TIMEOUT):
            await play.session()
            await play.curtain()
    except* (MCPError, OSError, TimeoutError) as group:
        play.note("the demo runs to its end", False, _why(group))
    play.doing("")
    return play.scene


class _Play:
    """The scenario. Every step adds rows and checks to the scene and shows it."""

    def __init__(self, stage: Stage, show: Callable[[Scene], None]) -> None:
        self._stage = stage
        self._show = show
        self._processes: set[int] = set()
        self.scene = Scene()

    async def session(self) -> None:
        """Everything that an agent does, from connecting to hanging up."""
        self.doing("starting the server behind the proxy")
        proxy = [*_MODULE, "intercept_py", "run", "-c", self._stage.policy, "--audit", self._stage.audit, "--"]
        server = [sys.executable, *_MODULE, "intercept_py.jobs.demo_server"]
        command = StdioServerParameters(command=sys.executable, args=[*proxy, *server], env=dict(os.environ))
        transport = stdio_client(command, errlog=self._stage.stderr)
        async with Client(transport, read_timeout_seconds=TIMEOUT / 2) as client:
            try:
                await self._hidden_tool(client)
                await self._spawn(client)
                await self._call_without_run_id(client)
                await self._cancel_all(client)
                await self._still_running(client)
            except DemoError as exc:
                self.note("the demo runs to its end", False, str(exc))

    async def curtain(self) -> None:
        """What must be true when the agent has hung up."""
        self.doing("hanging up")
        left = self._processes
        with anyio.move_on_after(3):
            while left := {pid for pid in left if alive(pid)}:
                await anyio.sleep(0.01)
        ended = f"all {len(self._processes)} processes have ended"
        self.note("nothing survives the session", not left, f"still there: {left}" if left else ended)
        self.doing("verifying the audit log")
        command = [sys.executable, *_MODULE, "intercept_py", "audit", "verify", self._stage.audit, "--json"]
        process = await anyio.run_process(command, check=False)
        self.note("the audit log verifies", process.returncode == 0, _judgement(process.stdout, process.stderr))
        told = _recorded(self._stage.audit, "cancel_run")
        seen = f"cancel_run: {told['allow']} allowed, {told['deny']} denied"
        self.note("it tells the same story", told == {"allow": CANCELS, "deny": 3}, seen)

    def note(self, name: str, held: bool, seen: str) -> None:
        """Add a check."""
        self._set(checks=self.scene.with_check(name, held, seen).checks)

    def doing(self, what: str) -> None:
        """Say what happens next."""
        self._set(doing=what)

    async def _hidden_tool(self, client: Client) -> None:
        self.doing("looking for the hidden tool")
        offered = await _tools_of_the_server()
        listed = [tool.name for tool in (await client.list_tools()).tools]
        self.note(
            "`purge_runs` is hidden from the list",
            "purge_runs" in offered and sorted(listed) == sorted(set(offered) - {"purge_runs"}),
            f"offered {len(offered)} tools, listed {', '.join(listed)}",
        )
        hidden = _text(await client.call_tool("purge_runs", {}))
        unknown = _text(await client.call_tool("no_such_tool", {}))
        self.note(
            "to call it is to call an unknown tool",
            hidden.startswith(DENIED) and hidden.replace("purge_runs", "no_such_tool") == unknown,
            hidden.removeprefix(DENIED),
        )

    async def _spawn(self, client: Client) -> None:
        self.doing(f"starting {len(TASKS)} runs")
        for number, task in enumerate(TASKS, 1):
            run = _content(await client.call_tool("spawn_run", {"task": task}))
            pid = run["pid"]
            self._set(rows=(*self.scene.rows, Row(number, run["run_id"], task, pid, alive(pid))))
        self._processes = _with_ancestors([row.pid for row in self.scene.rows])
        started = sum(row.alive for row in self.scene.rows)
        self.note(f"{len(TASKS)} runs are real processes", started == len(TASKS), f"{started} processes are running")

    async def _call_without_run_id(self, client: Client) -> None:
        self.doing("calling cancel_run without run_id")
        answer = _text(await client.call_tool("cancel_run", {}))
        self._refresh()
        untouched = all(row.alive for row in self.scene.rows)
        self.note(
            "a call without `run_id` is refused", answer.startswith(DENIED) and untouched, answer.removeprefix(DENIED)
        )

    async def _cancel_all(self, client: Client) -> None:
        for row in self.scene.rows:
            self.doing(f"cancelling run {row.number}")
            answer = await client.call_tool("cancel_run", {"run_id": row.run_id})
            text = _text(answer)
            verdict = "denied" if text.startswith(DENIED) else "failed" if answer.is_error else "cancelled"
            self._replace(row, verdict, printable(text.removeprefix(DENIED)) if answer.is_error else "")
            if verdict == "denied":
                self._set(told=printable(text))
            await anyio.sleep(self._stage.pause)

    async def _still_running(self, client: Client) -> None:
        self._refresh()
        first, rest = self.scene.rows[:CANCELS], self.scene.rows[CANCELS:]
        gone = [row for row in first if row.verdict == "cancelled" and not row.alive]
        self.note(
            f"{CANCELS} runs are cancelled",
            len(gone) == CANCELS,
            f"{len(gone)} processes are gone",
        )
        denied = [row for row in rest if row.verdict == "denied"]
        self.note("the 11th and 12th cancel are denied", denied == list(rest), _first_reason(rest))
        listed = _content(await client.call_tool("list_runs", {}))["runs"]
        running = {run["run_id"] for run in listed if run["status"] == "running"}
        survivors = [row for row in rest if row.alive and row.run_id in running]
        self.note(
            "the 11th and 12th run go on",
            survivors == list(rest) and len(running) == len(rest),
            f"processes running: {', '.join(str(row.pid) for row in survivors) or 'none'}",
        )

    def _replace(self, old: Row, verdict: str, reason: str) -> None:
        new = msgspec.structs.replace(old, verdict=verdict, reason=reason, alive=alive(old.pid))
        self._set(rows=tuple(new if row.number == old.number else row for row in self.scene.rows))

    def _refresh(self) -> None:
        self._set(rows=tuple(msgspec.structs.replace(row, alive=alive(row.pid)) for row in self.scene.rows))

    def _set(self, **changes: object) -> None:
        self.scene = msgspec.structs.replace(self.scene, **changes)
        self._show(self.scene)


async def _tools_of_the_server() -> list[str]:
    """What the server itself offers, asked without the proxy."""
    runs = demo_server.Runs()
    try:
        async with Client(demo_server.build(runs)) as client:
            return [tool.name for tool in (await client.list_tools()).tools]
    finally:
        runs.close()


def alive(pid: int) -> bool:
    """Whether the process runs. A zombie, which nobody has collected yet, does not."""
    if os.path.isdir("/proc/self"):
        return _stat(pid)[0] not in ("", "Z", "X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _with_ancestors(runs: list[int]) -> set[int]:
    """The runs, the server that started them and the proxy that started it, as far as the system shows parents."""
    found = set(runs)
    for _ in ("server", "proxy"):
        found |= {int(parent) for parent in (_stat(pid)[1] for pid in found) if parent}
    return found


def _stat(pid: int) -> tuple[str, str]:
    """State and parent of a process; blank if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return "", ""
    return state, parent


def _recorded(path: str, tool: str) -> dict[str, int]:
    """How often the audit log says that a tool was allowed and denied."""
    counts = {"allow": 0, "deny": 0}
    with open(path, encoding="utf-8") as file:
        for record in map(msgspec.json.decode, file):
            if record["event"] == "decision" and record.get("tool") == tool:
                counts[record["effect"]] += 1
    return counts


def _text(result: CallToolResult) -> str:
    return next((block.text for block in result.content if isinstance(block, TextContent)), "")


def _content(result: CallToolResult) -> JsonObject:
    if result.is_error or result.structured_content is None:
        raise DemoError(f"a call that must pass was refused: {_text(result)}")
    return dict(result.structured_content)


def _first_reason(rows: tuple[Row, ...]) -> str:
    return next((row.reason for row in rows if row.reason), "no denial")


def _judgement(output: bytes, errors: bytes) -> str:
    """What `audit verify --json` found, in a few words."""
    try:
        (file,) = msgspec.json.decode(output)["files"]
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "no verdict"
    if not file["ok"]:
        return str(file["problem"] or file["faults"][0])
    return f"{file['records']} records, none changed, removed, inserted or moved"


def _why(group: BaseExceptionGroup[Exception]) -> str:
    cause: BaseException = group
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return str(cause) or type(cause).__name__
