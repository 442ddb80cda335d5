"""Several real processes charge one file at once. What they record must be explained by one counter, used by turns.

That is linearizability (Herlihy and Wing): every charge and refund takes effect at some moment between its begin and
its end, and in the order of these moments the answers are those of a counter that one process alone uses.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from intercept_py.model import Strategy

PROGRAM = """
import json, random, sys, time
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import open_state

url, strategy, limit, number, refunds, seed = sys.argv[1:]
rng = random.Random(int(seed))
state = open_state(url)
window = Window(30 * 86400, "month" if strategy == "fixed" else None)
charges = (
    Charge(("a",), 1, int(limit), window, Strategy(strategy), "r"),
    Charge(("b",), 1, 10**6, Window(3600), Strategy.MOVING, "r"),
)
print("ready", flush=True)
sys.stdin.readline()
held = []
for _ in range(int(number)):
    begin = time.monotonic_ns()
    if held and rng.random() < float(refunds):
        state.refund(held.pop())
        state.commit()
        what = "refund"
    else:
        receipt = state.charge("s", charges)
        state.commit()
        what = "refused" if receipt.refused else "charged"
        if not receipt.refused:
            held.append(receipt)
    print(json.dumps([what, begin, time.monotonic_ns()]), flush=True)
"""


class Operation(NamedTuple):
    """What a process did and saw: `what` is charged, refused or refund."""

    what: str
    begin: int
    end: int


class Worker:
    """A process that waits for `go`, works and ends."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def history(self) -> list[Operation]:
        """All it has recorded. A line that a kill has cut off is none."""
        output, _ = self.process.communicate(timeout=60)
        return [Operation(*json.loads(line)) for line in output.split("\n")[:-1]]


@contextmanager
def workers(
    path: Path, strategy: Strategy, limit: int, number: int, refunds: float = 0, *, processes: int = 4, seed: int = 0
) -> Iterator[list[Worker]]:
    """Processes that all begin at about the same moment."""
    arguments = (f"sqlite://{path}", strategy.value, str(limit), str(number), str(refunds))
    started = [Worker(*arguments, str(seed * 100 + at)) for at in range(processes)]
    try:
        for worker in started:
            worker.ready()
        for worker in started:
            worker.go()
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.communicate()


def linearizable(histories: Sequence[Sequence[Operation]], limit: int) -> bool:
    """Whether some order of the operations explains what was seen; each history is that of one process.

    Looks for it depth first: next can only be an operation that began before every other one's end.
    """
    seen: set[tuple[int, ...]] = set()
    stack = [(tuple(0 for _ in histories), 0)]
    while stack:
        done, value = stack.pop()
        if done in seen:  # what is done says what the counter holds
            continue
        seen.add(done)
        open_ = [(at, history[done[at]]) for at, history in enumerate(histories) if done[at] < len(history)]
        if not open_:
            return True
        first_end = min(operation.end for _, operation in open_)
        for at, operation in open_:
            if operation.begin > first_end or (operation.what == "refused") != (
                operation.what != "refund" and value >= limit
            ):
                continue
            change = {"charged": 1, "refused": 0, "refund": -1}[operation.what]
            stack.append(((*done[:at], done[at] + 1, *done[at + 1 :]), value + change))
    return False


every_strategy = pytest.mark.parametrize("strategy", list(Strategy), ids=lambda strategy: str(strategy.value))


@every_strategy
def test_four_processes_that_charge_fifty_each_get_exactly_ten(tmp_path: Path, strategy: Strategy) -> None:
    with workers(tmp_path / "x", strategy, 10, 50) as started:
        histories = [worker.history() for worker in started]
    everything = [operation for history in histories for operation in history]
    assert len(everything) == 200
    assert sum(operation.what == "charged" for operation in everything) == 10
    assert linearizable(histories, 10)


@pytest.mark.parametrize("seed", range(3))
def test_charges_and_refunds_of_four_processes_are_those_of_one_counter(tmp_path: Path, seed: int) -> None:
    strategy = list(Strategy)[seed]
    with workers(tmp_path / "x", strategy, 3, 60, 0.4, seed=seed) as started:
        histories = [worker.history() for worker in started]
    assert sum(map(len, histories)) == 240
    assert any(operation.what == "refused" for history in histories for operation in history)
    assert linearizable(histories, 3)


def test_processes_that_are_killed_meanwhile_never_add_to_the_limit(tmp_path: Path) -> None:
    rng = random.Random(1)
    with workers(tmp_path / "x", Strategy.MOVING, 100, 100, processes=5) as started:
        for worker in started[:4]:
            time.sleep(rng.uniform(0, 0.01))  # any moment will do
            worker.process.kill()
        histories = [worker.history() for worker in started]
    charged = sum(operation.what == "charged" for history in histories for operation in history)
    assert 0 < charged <= 100
    with workers(tmp_path / "x", Strategy.MOVING, 100, 101, processes=1) as (last,):
        more = sum(operation.what == "charged" for operation in last.history())
    # A kill between a commit and the record of it has counted a call that nobody saw.
    assert 96 <= charged + more <= 100


def test_the_check_itself_finds_what_no_counter_could_have_done() -> None:
    one = Operation("charged", 0, 10)
    assert linearizable([[one], [Operation("refused", 5, 15)]], 1)
    assert linearizable([[one], [Operation("charged", 5, 15)]], 2)
    assert not linearizable([[one], [Operation("charged", 5, 15)]], 1), "one too many"
    assert not linearizable([[one], [Operation("refused", 11, 12)]], 2), "refused although there was room"
    assert not linearizable([[Operation("charged", 11, 12)], [Operation("refused", 0, 10)]], 1), "refused too soon"
    assert linearizable([[one, Operation("refund", 20, 30)], [Operation("charged", 25, 40)]], 1)
    assert not linearizable([[one, Operation("refund", 20, 30)], [Operation("charged", 15, 19)]], 1)
