"""What the job engine costs: starting, cancelling, and a store with many jobs in it.

    python -m benchmarks.jobs [--rounds N] [--stored N] [--json]

A start is from the call until the job's process runs under its supervisor; a cancellation from the request until the
last process is gone and that is written down. `gone` is the same as seen from outside: until the kernel says that the
job's first process (and the daemon that left its group) has ended. The store is filled without running anything.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import json
import os
import select
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from intercept_py.jobs import recipes
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import Order, Settings, Status
from intercept_py.jobs.remains import Conclusion
from intercept_py.jobs.store import Step, Store

ROOT = Path(__file__).resolve().parent.parent
KIND = "bench"
QUEUED: Step = ("queued", "queued", {})
RUNNING: Step = ("running", "status", {"status": "running"})
FAILED: tuple[Status, ...] = ("failed",)

Figures = dict[str, list[float]]


class Witness:
    """Sees from outside when processes end."""

    def __init__(self, pids: list[int]) -> None:
        self._fds = [os.pidfd_open(pid) for pid in pids]
        self.at = 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        for fd in self._fds:
            select.select([fd], [], [])
            os.close(fd)
        self.at = time.perf_counter()

    def seen(self) -> float:
        """When the last one had ended."""
        self._thread.join()
        return self.at


def order(text: str, folder: Path) -> Order:
    """An order for a recipe, or for a shell command."""
    return Order(KIND, recipes.parse(text, allow_shell=True), text, str(folder), {})


async def members(jobs: Engine, name: str, text: str) -> list[int]:
    """The processes of a job, once all of them run."""
    job = jobs.get(KIND, name)
    assert job is not None
    assert job.pid is not None
    if text.startswith("forker"):
        while not (words := jobs.output(KIND, name).head.split()):
            await asyncio.sleep(0.001)
        return [job.pid, *(int(word) for word in words if word.isdigit())]
    await asyncio.sleep(0.03)  # let the recipe's interpreter start: that is the usual case
    return [job.pid]


async def run(folder: Path, rounds: int) -> Figures:
    """Seconds for everything that needs processes."""
    figures: Figures = {}
    settings = Settings(state_dir=str(folder / "state"), root=str(folder), max_running=4)
    jobs = await Engine.open(settings)

    def note(name: str, since: float, until: float | None = None) -> None:
        figures.setdefault(name, []).append((until or time.perf_counter()) - since)

    for number in range(rounds):
        before = time.perf_counter()
        await jobs.start(order("true", folder), name := f"true {number}")
        note("start", before)
        await jobs.wait(KIND, name, 20)
        note("`true` from start to end", before)
        for text in ("sleep 100", "forker 100"):
            await jobs.start(order(text, folder), name := f"{text} {number}")
            witness = Witness(await members(jobs, name, text))
            before = time.perf_counter()
            done = await jobs.cancel(KIND, name)
            note(f"cancel `{text}`", before)
            note(f"cancel `{text}`: gone", before, witness.seen())
            assert done.result == "cancelled"
    await jobs.close()
    return figures


def fill(store: Store, count: int) -> None:
    """So many jobs that have ended, and one that is queued."""
    for number in range(count):
        wanted = Order(KIND, ("true",), "sleep 10", "/tmp", {"task": f"task {number % 7}", "number": number})
        row, _ = store.insert(wanted, f"run_{number:08}", (QUEUED, RUNNING))
        store.end(row, Conclusion("failed", "exit", 3) if number % 50 == 0 else Conclusion("succeeded", "exit", 0))
    store.insert(Order(KIND, ("true",), "sleep 10", "/tmp", {}), "queued", (QUEUED,))


def ask(folder: Path, count: int, rounds: int) -> Figures:
    """Seconds for everything that asks a store with so many jobs."""
    store = Store(str(folder / "many"))
    before = time.perf_counter()
    fill(store, count)
    figures = {"store: a whole job (3 events)": [(time.perf_counter() - before) / (count + 1)]}
    middle = store.page(KIND, None, count // 2, None, {})[-1]
    questions: dict[str, Callable[[], object]] = {
        "get": lambda: store.get(KIND, "run_00000001"),
        "list, 20": lambda: store.page(KIND, None, 20, None, {}),
        "list, 100": lambda: store.page(KIND, None, 100, None, {}),
        "list, 100 from the middle": lambda: store.page(KIND, None, 100, (middle.created_at, middle.id), {}),
        "list, status failed": lambda: store.page(KIND, FAILED, 100, None, {}),
        "list, status queued or running": lambda: store.page(KIND, ("queued", "running"), 100, None, {}),
        "list, one task": lambda: store.page(KIND, None, 100, None, {"task": "task 3"}),
        "list, found in one job only": lambda: store.page(KIND, None, 100, None, {"number": 5}),
        "counts": store.counts,
    }
    for name, question in questions.items():
        times = figures.setdefault(f"store: {name}", [])
        for _ in range(rounds):
            before = time.perf_counter()
            question()
            times.append(time.perf_counter() - before)
    store.close()
    return figures


def report(figures: Figures) -> str:
    """A table for people, in ms."""
    lines = [f"{'ms':<40}{'median':>9}{'worst':>9}"]
    for name, times in figures.items():
        lines.append(f"{name:<40}{statistics.median(times) * 1e3:>9.2f}{max(times) * 1e3:>9.2f}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--stored", type=int, default=10_000, help="jobs in the store that is asked (default: 10000)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    compileall.compile_dir(ROOT / "intercept_py", quiet=1)
    with tempfile.TemporaryDirectory(prefix="intercept-bench-") as folder:
        figures = asyncio.run(run(Path(folder), options.rounds)) | ask(Path(folder), options.stored, options.rounds)
    medians = {name: statistics.median(times) * 1e3 for name, times in figures.items()}
    print(json.dumps(medians) if options.json else report(figures))


if __name__ == "__main__":
    main()
