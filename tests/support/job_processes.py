"""What the tests of the job engine share: engines, supervisors, and what must be true of every store and process.

async with engine(tmp_path) as jobs:
    await jobs.start(order("sleep 100", tmp_path), "an id")
"""

from __future__ import annotations

__all__ = [
    "GRACE",
    "Supervised",
    "alive",
    "broken",
    "engine",
    "line",
    "no_descriptors",
    "order",
    "processes",
    "settings",
    "survivors",
    "until",
]

import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from intercept_py.jobs import recipes, strays, supervisor
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import TERMINAL, Order, Settings
from intercept_py.model import JsonObject

GRACE = 0.2


def settings(path: Path, **others: Any) -> Settings:
    """An engine's settings for tests: everything is under `path`."""
    return Settings(**{"state_dir": str(path / "state"), "root": str(path), "grace": GRACE, **others})


@asynccontextmanager
async def engine(path: Path, **others: Any) -> AsyncIterator[Engine]:
    """An engine that is closed in the end, and leaves no process."""
    opened = await Engine.open(settings(path, **others))
    try:
        yield opened
    finally:
        await opened.close()
        assert survivors(path) == []


def order(what: str, path: Path, *, shell: bool = False, **others: Any) -> Order:
    """An order of kind `test` for a recipe, or for a shell command."""
    argv = ("/bin/sh", "-c", what) if shell else recipes.parse(what, False)
    return Order(**{"kind": "test", "argv": argv, "text": what, "cwd": str(path), "meta": {}, **others})


async def line(jobs: Engine, job: str, number: int = 1) -> str:
    """The first lines that a job prints, as soon as it has printed so many of them. Jobs do not tell: it is looked."""
    while (head := jobs.output("test", job).head).count(b"\n") < number:
        await jobs.wait("test", job, 0.02)
    return head.decode()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def until(condition: Callable[[], object]) -> None:
    """Return when it is true. For what nobody tells; a test's time limit bounds it."""
    while not condition():
        time.sleep(0.002)


def survivors(path: Path) -> list[int]:
    """Every process that any job of the store under `path` left."""
    mark = f"INTERCEPT_JOB={_name_of_store(path)}/".encode()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if any(entry.startswith(mark) for entry in environment.split(b"\0")):
            found.append(int(name))
    return found


def processes(path: Path, row: int) -> list[int]:
    """Every process of one job of the store under `path`."""
    return strays.marked(f"{_name_of_store(path)}/{row}")


def _name_of_store(path: Path) -> str:
    with closing(sqlite3.connect(path / "state" / "jobs.db")) as db:
        return str(db.execute("SELECT uuid FROM store").fetchone()[0])


def broken(path: Path) -> list[str]:
    """What is wrong in the store under `path`: every broken rule about jobs, their statuses and their events."""
    with closing(sqlite3.connect(path / "state" / "jobs.db")) as db:
        db.row_factory = sqlite3.Row
        jobs = [dict(row) for row in db.execute("SELECT * FROM job")]
        events = defaultdict(list)
        for row in db.execute("SELECT * FROM event ORDER BY job, seq"):
            events[row["job"]].append((row["seq"], row["type"], json.loads(row["data"])))
    return [f"{job['id']}: {fault}" for job in jobs for fault in _faults(job, events[job["row"]])]


def _faults(job: dict[str, Any], events: Sequence[tuple[int, str, JsonObject]]) -> list[str]:
    statuses = [data["status"] for _, what, data in events if what == "status"]
    ends = [number for number, status in enumerate(statuses) if status in TERMINAL]
    after_end = [what for _, what, _ in events[_end_of(events) + 1 :]]
    rules = {
        "numbers have a gap": [seq for seq, _, _ in events] != list(range(1, len(events) + 1)),
        "last_seq differs": job["last_seq"] != len(events),
        "not exactly one end": job["status"] in TERMINAL and ends != [len(statuses) - 1],
        "an end that is not its status": bool(ends) and statuses[-1] != job["status"],
        "asked to cancel more than once": statuses.count("cancelling") > 1,
        "something after the end": bool(set(after_end) - {"late_output"}),
        "an end without a time": (job["status"] in TERMINAL) != (job["finished_at"] is not None),
        "succeeded, but": job["status"] == "succeeded" and (job["exit_code"], job["ended_by"]) != (0, "exit"),
        "cancelled, but nobody asked": job["status"] == "cancelled" and job["cancel_requested_at"] is None,
        "cancelled, but it ended by itself": job["status"] == "cancelled" and job["ended_by"] == "exit",
    }
    return [rule for rule, is_broken in rules.items() if is_broken]


def _end_of(events: Sequence[tuple[int, str, JsonObject]]) -> int:
    ends = [place for place, (_, what, data) in enumerate(events) if what == "status" and data["status"] in TERMINAL]
    return ends[0] if ends else len(events)


class Supervised:
    """A supervisor that a test started, whose server the test is."""

    def __init__(
        self,
        path: Path,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        grace: float = GRACE,
        timeout: float | None = None,
        head: int = 1024,
        tail: int = 256,
    ) -> None:
        limit = "-" if timeout is None else str(timeout)
        options = [str(path), str(cwd or path), str(grace), limit, str(head), str(tail)]
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", supervisor.__file__, *options, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._lifeline = self.process.stdin
        self._reports = self.process.stdout

    def report(self) -> tuple[str, str]:
        """The next report: its first word, and the rest; empty at the end."""
        word, _, rest = self._reports.readline().decode().strip().partition(" ")
        return word, rest

    def started(self) -> int:
        """The job's process, once it has been started."""
        word, pid = self.report()
        assert word == "started", (word, pid)
        return int(pid)

    def say(self, message: bytes) -> None:
        """Tell the supervisor something."""
        self._lifeline.write(message)
        self._lifeline.flush()

    def cancel(self) -> None:
        """Ask for the end."""
        self.say(b"cancel\n")

    def die(self) -> None:
        """Do what the system does when a server dies."""
        self._lifeline.close()

    def printed(self, text: bytes) -> None:
        """Return when the job has printed this; the supervisor tells nobody, so the file is looked at."""
        head = self.path / "head"
        until(lambda: head.exists() and text in head.read_bytes())

    def end(self) -> tuple[JsonObject, list[JsonObject]]:
        """How it ended, as it was reported, and the events before."""
        events = []
        while (report := self.report())[0] == "event":
            events.append(json.loads(report[1]))
        assert report[0] == "exit", report
        assert self.process.wait(20) == 0
        return json.loads(report[1]), events

    def __enter__(self) -> Supervised:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reports.close()
        if not self._lifeline.closed:
            self._lifeline.close()
