"""`demo --scale N`: many short jobs through the proxy, some of them cancelled while they run, and then the books.

Every job is started, followed and, if it is to be cancelled, cancelled by calls that the policy judges. Afterwards the
client's count, the server's statuses, the operating system and the audit log must agree.

Below: `stage`, `evidence`. Above: `demo`.
"""

from __future__ import annotations

__all__ = ["AT_ONCE", "MOST", "Tally", "perform"]

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Literal

import anyio
import msgspec
from mcp import Client, MCPError

from intercept_py.cli import evidence
from intercept_py.cli import stage as stages
from intercept_py.cli.findings import Findings
from intercept_py.cli.stage import DENIED, DemoError, Stage, text_of
from intercept_py.model import JsonObject

MOST: Final = 10_000
AT_ONCE: Final = 8
"""Jobs that the server runs at once; as many wait in its queue."""

_MIX: Final[tuple[tuple[str, Literal["succeeded", "failed", "cancelled"]], ...]] = (
    ("echo done", "succeeded"),
    ("sleep 600", "cancelled"),
    ("count 20 0.005", "succeeded"),
    ("fail 3", "failed"),
    ("forker 0.1", "succeeded"),
    ("forker 600", "cancelled"),
    ("sleep 0.1", "succeeded"),
    ("count 2000", "succeeded"),
    ("stubborn 0.1", "succeeded"),
    ("stubborn 600", "cancelled"),
)
"""What is run over and over, and how each must end. Three of ten are cancelled while they run."""

_PATIENCE: Final = 60.0
_FIRST_LOOK: Final = 0.1
_LAST_LOOK: Final = 1.0


class Tally(Findings, frozen=True, kw_only=True):
    """The numbers so far. `statuses` counts the jobs that have ended, by what the server calls that.

    `survivors` are processes of any job after the end, `records` what the audit log has, `working_seconds` the time
    from the first start of a job to the latest end.
    """

    jobs: int
    started: int = 0
    statuses: dict[str, int] = msgspec.field(default_factory=dict)
    calls: int = 0
    denials: int = 0
    working_seconds: float = 0.0
    jobs_per_second: float = 0.0
    survivors: int = 0
    records: int = 0

    @property
    def ended(self) -> int:
        """How many jobs have ended."""
        return sum(self.statuses.values())


async def perform(jobs: int, stage: Stage, show: Callable[[Tally], None]) -> Tally:
    """Run so many jobs and return the last tally. What goes wrong on the way is a check that did not hold."""
    run = _Run(jobs, stage, show)
    try:
        await run.session()
        await run.books()
    except* (MCPError, OSError, TimeoutError, DemoError) as group:
        run.note("the run goes to its end", False, stages.cause(group))
    run.doing("")
    return run.tally


class _Run:
    """Workers, each with one job at a time, and the books that they keep together."""

    def __init__(self, jobs: int, stage: Stage, show: Callable[[Tally], None]) -> None:
        self._jobs = jobs
        self._stage = stage
        self._tools = stage.tools
        self._show = show
        self._calls: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._began = time.monotonic()
        self.tally = Tally(jobs=jobs)

    async def session(self) -> None:
        """All jobs, from connecting to hanging up."""
        self.doing("starting the server behind the proxy")
        async with stages.through_the_proxy(self._stage, AT_ONCE) as client:
            self._began = time.monotonic()
            self.doing("running jobs")
            numbers = iter(range(self._jobs))
            async with anyio.create_task_group() as group:
                for _ in range(min(2 * AT_ONCE, self._jobs)):
                    group.start_soon(self._work, client, numbers)
            self.doing("hanging up")

    async def books(self) -> None:
        """What must be true when the client has hung up."""
        self._statuses_agree()
        calls, denials = self._calls.total(), self.tally.denials
        self.note("no call is denied", denials == 0, f"{denials} of {calls} calls denied")
        left = await stages.until_gone(self._stage.witness.everything)
        self._set(survivors=len(left))
        self.note("no process survives", not left, f"still there: {left}" if left else "none carries a job's mark")
        self.doing("verifying the audit log")
        found = await evidence.judgement(self._stage.audit)
        self._set(records=found.records)
        self.note("the audit log verifies", found.held, found.seen)
        record = evidence.recorded(self._stage.audit)
        decisions, outcomes = record.decisions.total(), record.outcomes
        self.note(
            "it has every call and how it went",
            record.by_tool() == self._calls
            and outcomes == calls - denials
            and decisions + outcomes + record.others == found.records,
            f"{calls} calls: {decisions} decisions, {outcomes} outcomes",
        )

    def note(self, name: str, held: bool, seen: str) -> None:
        """Add a check."""
        self._set(checks=self.tally.with_check(name, held, seen).checks)

    def doing(self, what: str) -> None:
        """Say what happens next."""
        self._set(doing=what)

    def _statuses_agree(self) -> None:
        words = self._tools.words
        expected = Counter(getattr(words, _MIX[number % len(_MIX)][1]) for number in range(self._jobs))
        held = self._statuses == expected
        seen = _told(self._statuses) + ("" if held else f"; expected {_told(expected)}")
        self.note(f"{self._jobs} jobs end as they should", held, seen)

    async def _work(self, client: Client, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._job(client, *_MIX[number % len(_MIX)])

    async def _job(self, client: Client, recipe: str, fate: str) -> None:
        """Start one and follow it to its end, or to a call that is denied."""
        call = partial(self._call, client)
        answer = await call(self._tools.start, self._tools.arguments(recipe, self._stage.directory))
        if answer.startswith(DENIED):
            return
        found = re.search(self._tools.job_id, answer)
        if found is None:
            raise DemoError(f"a job was not started: {answer}")
        self._set(started=self.tally.started + 1)
        job: JsonObject = {self._tools.id_argument: found[1]}
        if fate == "cancelled":
            await self._follow(client, job, self._tools.running)
            if (await call(self._tools.cancel, job)).startswith(DENIED):
                return
        if ended := await self._follow(client, job, self._tools.ended):
            self._statuses[ended[1]] += 1
            seconds, number = time.monotonic() - self._began, self._statuses.total()
            self._set(
                statuses=dict(self._statuses),
                working_seconds=round(seconds, 3),
                jobs_per_second=round(number / seconds, 1),
            )

    async def _follow(self, client: Client, job: JsonObject, pattern: str) -> re.Match[str] | None:
        """Look at a job until the pattern is found; None if it never is, or looking is denied."""
        pause, deadline = _FIRST_LOOK, time.monotonic() + _PATIENCE
        while True:
            answer = await self._call(client, self._tools.look, job)
            found = re.search(pattern, answer)
            if found or answer.startswith(DENIED) or time.monotonic() > deadline:
                return found
            await anyio.sleep(pause)
            pause = min(2 * pause, _LAST_LOOK)

    async def _call(self, client: Client, tool: str, arguments: JsonObject) -> str:
        answer = text_of(await client.call_tool(tool, arguments))
        self._calls[tool] += 1
        denials = self.tally.denials + answer.startswith(DENIED)
        self._set(calls=self._calls.total(), denials=denials)
        return answer

    def _set(self, **changes: object) -> None:
        self.tally = msgspec.structs.replace(self.tally, **changes)
        self._show(self.tally)


def _told(statuses: Counter[str]) -> str:
    return ", ".join(f"{number} {status}" for status, number in sorted(statuses.items())) or "none"
