"""Requests to cancel and ends that come at the same moment, many hundred times: what is told is true every time.

INTERCEPT_RACES=900 python -m pytest tests/jobs/test_engine_races.py
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import TERMINAL, CancelResult, Event, Job
from tests.support.job_processes import broken, engine, order, processes, survivors

pytestmark = pytest.mark.anyio

JOBS = int(os.environ.get("INTERCEPT_RACES", "250"))
AT_ONCE = 8
SPAN = 0.03
"""Seconds in which the end of a job and the requests fall; about what an end takes."""

LOOK = 10
"""At the end of every so many jobs it is looked at all processes, which takes a while."""

COMMANDS = (
    "sleep {}",
    "sleep {}; exit 3",
    "sleep 100 & sleep {}",
    "(setsid sleep 100 &); sleep {}; exit 4",
    "trap 'exit 5' TERM; sleep {} & wait",
    "trap '' TERM; sleep {}",
)
"""Jobs that end by themselves, with and without something that outlives them."""


async def race(jobs: Engine, number: int, path: Path, dice: random.Random) -> list[CancelResult]:
    """One job, and one to three requests to cancel it at about the time at which it ends by itself."""
    job = str(number)
    command = dice.choice(COMMANDS).format(round(dice.uniform(0, SPAN), 4))
    await jobs.start(order(command, path, shell=True), job)

    async def ask() -> CancelResult:
        await asyncio.sleep(dice.uniform(0, 2 * SPAN))
        return (await jobs.cancel("test", job, wait=dice.choice((None, None, 0)))).result

    results = await asyncio.gather(*(ask() for _ in range(dice.randint(1, 3))))
    ended = await jobs.wait("test", job, 20)
    assert ended.status in TERMINAL
    return results


async def test_what_is_told_of_a_race_is_true(tmp_path: Path) -> None:
    """I1 to I7 of the job engine, for hundreds of races: see `broken` for the rules that are read from the events."""
    dice = random.Random(7)
    told: dict[str, list[Event]] = {}
    results: dict[str, list[CancelResult]] = {}
    untrue: list[str] = []

    def watch(job: Job, event: Event) -> None:
        told.setdefault(job.id, []).append(event)
        if job.row % LOOK == 0 and event.data.get("status") in TERMINAL and processes(tmp_path, job.row):
            untrue.append(f"{job.id}: told {job.status}, but something of it runs")

    async with engine(tmp_path, max_running=AT_ONCE) as jobs:
        jobs.watch(watch)
        numbers = iter(range(JOBS))

        async def runner() -> None:
            for number in numbers:
                results[str(number)] = await race(jobs, number, tmp_path, dice)

        await asyncio.gather(*(runner() for _ in range(AT_ONCE)))
        assert survivors(tmp_path) == []
        for job in jobs.list("test", limit=JOBS + 1):
            if "cancelled" in results[job.id] and job.status != "cancelled":
                untrue.append(f"{job.id}: told cancelled, but {job.status}")
            if "finished_first" in results[job.id] and job.ended_by != "exit":
                untrue.append(f"{job.id}: told finished, but {job.ended_by}")
            if [event.seq for event in told[job.id]] != list(range(1, job.last_seq + 1)):
                untrue.append(f"{job.id}: watchers were told something else")
        outcomes = Counter(job.status for job in jobs.list("test", limit=JOBS + 1))
    assert untrue == []
    assert broken(tmp_path) == []
    assert {"cancelled", "finished_first"} <= {result for answers in results.values() for result in answers}
    assert set(outcomes) == {"succeeded", "failed", "cancelled"}, "a race that one side always wins is none"
    assert sum(outcomes.values()) == JOBS


async def test_never_more_jobs_run_than_may_while_some_are_cancelled(tmp_path: Path) -> None:
    dice = random.Random(11)
    running: set[str] = set()
    most = 0

    def watch(job: Job, event: Event) -> None:
        nonlocal most
        if event.type == "status" and event.data["status"] == "running":
            running.add(job.id)
        elif event.type == "status" and event.data["status"] in TERMINAL:
            running.discard(job.id)
        most = max(most, len(running))

    async with engine(tmp_path, max_running=3) as jobs:
        jobs.watch(watch)
        names = [str(number) for number in range(60)]
        orders = [order(f"sleep {dice.uniform(0, 10 * SPAN)}", tmp_path, shell=True) for _ in names]
        await asyncio.gather(*map(jobs.start, orders, names))
        dice.shuffle(names)
        for name in names[:40]:
            await asyncio.sleep(dice.uniform(0, 0.01))
            await jobs.cancel("test", name, wait=0)
        ended = [await jobs.wait("test", name, 20) for name in names]
        assert {job.status for job in ended} <= {"succeeded", "cancelled"}
        assert any(job.started_at is None for job in ended), "some never started"
    assert most == 3
    assert running == set()
    assert broken(tmp_path) == []
