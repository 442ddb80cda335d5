"""The story of the demo: twelve running jobs, ten cancelled, two denied and still running; every claim is checked.

The scenario reports `Scene`s, whole snapshots of what is known so far; how they are shown is none of its business.

Below: `stage`, `evidence`. Above: `demo`.
"""

from __future__ import annotations

__all__ = ["Row", "Scene", "perform"]

import os
import re
from collections.abc import Callable
from functools import partial

import anyio
import msgspec
from mcp import Client, MCPError

from intercept_py.cli import evidence
from intercept_py.cli import stage as stages
from intercept_py.cli.findings import Findings
from intercept_py.cli.stage import DENIED, DemoError, Stage, text_of
from intercept_py.cli.text import printable
from intercept_py.jobs import witness

RECIPES = ("sleep 600", "count 6000 0.1", "forker 600", "stubborn 600") * 3
"""A forker leaves children behind, one of them a daemon; a stubborn job ignores SIGTERM."""
CANCELS = 10
_TIMEOUT = 60.0


class Row(msgspec.Struct, frozen=True):
    """One job and what became of it. `alive` says whether the operating system has any process of it."""

    number: int
    job_id: str
    recipe: str
    pid: int
    alive: bool
    verdict: str = ""
    reason: str = ""


class Scene(Findings, frozen=True, kw_only=True):
    """All that is known at one moment. `told` is what the agent hears of a denial."""

    rows: tuple[Row, ...] = ()
    told: str = ""


async def perform(stage: Stage, show: Callable[[Scene], None]) -> Scene:
    """Play everything and return the last scene. What goes wrong on the way is a check that did not hold."""
    play = _Play(stage, show)
    try:
        with anyio.fail_after(_TIMEOUT):
            await play.session()
            await play.curtain()
    except* (MCPError, OSError, TimeoutError) as group:
        play.note("the demo runs to its end", False, stages.cause(group))
    play.doing("")
    return play.scene


class _Play:
    """The scenario. Every step adds rows and checks to the scene and shows it."""

    def __init__(self, stage: Stage, show: Callable[[Scene], None]) -> None:
        self._stage = stage
        self._tools = stage.tools
        self._witness = stage.witness
        self._show = show
        self._asked = anyio.Event()
        self._offered: set[str] = set()
        self._processes: set[int] = set()
        self.scene = Scene()

    async def session(self) -> None:
        """Everything that an agent does, from connecting to hanging up."""
        self.doing("starting the server behind the proxy, and another one without it")
        async with anyio.create_task_group() as group:
            group.start_soon(self._ask_without_the_proxy)
            async with stages.through_the_proxy(self._stage, max_running=len(RECIPES)) as client:
                await self._asked.wait()
                await self._act(client)
                self.doing("hanging up")

    async def curtain(self) -> None:
        """What must be true when the agent has hung up."""
        left = await stages.until_gone(self._left)
        ended = f"all {len(self._processes)} processes have ended"
        self.note("nothing survives the session", not left, f"still there: {left}" if left else ended)
        self.doing("verifying the audit log")
        found = await evidence.judgement(self._stage.audit)
        self.note("the audit log verifies", found.held, found.seen)
        cancel = self._tools.cancel
        counts = evidence.recorded(self._stage.audit).decisions
        allowed, denied = counts[cancel, "allow"], counts[cancel, "deny"]
        seen = f"{cancel}: {allowed} allowed, {denied} denied"
        self.note("it tells the same story", (allowed, denied) == (CANCELS, 3), seen)

    def note(self, name: str, held: bool, seen: str) -> None:
        """Add a check."""
        self._set(checks=self.scene.with_check(name, held, seen).checks)

    def doing(self, what: str) -> None:
        """Say what happens next."""
        self._set(doing=what)

    async def _ask_without_the_proxy(self) -> None:
        async with stages.directly(self._stage) as client:
            self._offered = {tool.name for tool in (await client.list_tools()).tools}
        self._asked.set()

    async def _act(self, client: Client) -> None:
        try:
            await self._hidden_tool(client)
            await self._start(client)
            await self._call_without_id(client)
            await self._cancel_all(client)
            await self._still_running(client)
        except DemoError as exc:
            self.note("the demo runs to its end", False, str(exc))

    async def _hidden_tool(self, client: Client) -> None:
        hidden = self._tools.hidden
        self.doing(f"looking for {hidden}")
        listed = {tool.name for tool in (await client.list_tools()).tools}
        self.note(
            f"`{hidden}` is hidden from the list",
            hidden in self._offered and listed == self._offered - {hidden},
            f"the server offers {len(self._offered)} tools, {len(listed)} are listed",
        )
        answer = text_of(await client.call_tool(hidden, {}))
        unknown = text_of(await client.call_tool("no_such_tool", {}))
        self.note(
            "to call it is to call an unknown tool",
            answer.startswith(DENIED) and answer.replace(hidden, "no_such_tool") == unknown,
            answer.removeprefix(DENIED),
        )

    async def _start(self, client: Client) -> None:
        self.doing(f"starting {len(RECIPES)} jobs")
        for number, recipe in enumerate(RECIPES, 1):
            arguments = self._tools.arguments(recipe, self._stage.directory)
            answer = text_of(await client.call_tool(self._tools.start, arguments))
            job_id = _search(self._tools.job_id, answer)
            row = Row(number, job_id, recipe, self._witness.leader(job_id), self._alive(job_id))
            self._set(rows=(*self.scene.rows, row))
        self._processes |= {up for pid in self._processes for up in witness.ancestors(pid, os.getpid())}
        real = sum(row.alive and witness.alive(row.pid) for row in self.scene.rows)
        self.note(f"{len(RECIPES)} jobs are real processes", real == len(RECIPES), f"{real} jobs are running")

    async def _call_without_id(self, client: Client) -> None:
        self.doing(f"calling {self._tools.cancel} without {self._tools.id_argument}")
        answer = text_of(await client.call_tool(self._tools.cancel, {}))
        self._refresh()
        untouched = all(row.alive for row in self.scene.rows)
        self.note(
            f"a call without `{self._tools.id_argument}` is refused",
            answer.startswith(DENIED) and untouched,
            answer.removeprefix(DENIED),
        )

    async def _cancel_all(self, client: Client) -> None:
        for row in self.scene.rows:
            self.doing(f"cancelling job {row.number}")
            text = text_of(await client.call_tool(self._tools.cancel, {self._tools.id_argument: row.job_id}))
            if text.startswith(DENIED):
                self._replace(row, "denied", text.removeprefix(DENIED))
                self._set(told=printable(text))
            elif re.search(self._tools.cancelled, text):
                # Some servers answer when the job was told to stop, some when it has stopped.
                await stages.until_gone(partial(self._witness.processes, row.job_id))
                self._replace(row, "cancelled")
            else:
                self._replace(row, "failed", text)
            await anyio.sleep(self._stage.pause)

    async def _still_running(self, client: Client) -> None:
        self._refresh()
        first, rest = self.scene.rows[:CANCELS], self.scene.rows[CANCELS:]
        gone = [row for row in first if row.verdict == "cancelled" and not row.alive]
        self.note(f"{CANCELS} jobs are cancelled", len(gone) == CANCELS, f"no process of {len(gone)} jobs is left")
        denied = [row for row in rest if row.verdict == "denied"]
        reason = next((row.reason for row in rest if row.reason), "no denial")
        self.note("the 11th and 12th cancel are denied", denied == list(rest), reason)
        running = [row for row in rest if row.alive and await self._is_running(client, row)]
        self.note(
            "the 11th and 12th job go on",
            running == list(rest),
            f"processes running: {', '.join(str(row.pid) for row in running) or 'none'}",
        )

    async def _is_running(self, client: Client, row: Row) -> bool:
        """What the server says."""
        answer = await client.call_tool(self._tools.look, {self._tools.id_argument: row.job_id})
        return re.search(self._tools.running, text_of(answer)) is not None

    def _left(self) -> set[int]:
        return {pid for pid in self._processes if witness.alive(pid)} | self._witness.everything()

    def _replace(self, old: Row, verdict: str, reason: str = "") -> None:
        alive = self._alive(old.job_id)
        new = msgspec.structs.replace(old, verdict=verdict, reason=printable(reason), alive=alive)
        self._set(rows=tuple(new if row.number == old.number else row for row in self.scene.rows))

    def _refresh(self) -> None:
        rows = (msgspec.structs.replace(row, alive=self._alive(row.job_id)) for row in self.scene.rows)
        self._set(rows=tuple(rows))

    def _alive(self, job_id: str) -> bool:
        """Whether there is a process of the job; each is remembered."""
        found = self._witness.processes(job_id)
        self._processes |= found
        return bool(found)

    def _set(self, **changes: object) -> None:
        self.scene = msgspec.structs.replace(self.scene, **changes)
        self._show(self.scene)


def _search(pattern: str, answer: str) -> str:
    found = re.search(pattern, answer)
    if found is None:
        raise DemoError(f"a call that must pass was refused: {answer}")
    return found[1]
