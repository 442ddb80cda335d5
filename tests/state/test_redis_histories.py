"""Several processes charge one Redis at once; what they record is checked against what a limit promises."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from intercept_py.model import Strategy
from tests.support import redis_store
from tests.support.redis_store import Server

PROGRAM = """
import json, sys, time
from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import open_state

url, strategy, seconds, number, pause = sys.argv[1:]
state = open_state(url)
window = Window(int(seconds), "month" if strategy == "fixed" else None)
charges = (
    Charge(("a",), 1, 10, window, Strategy(strategy), "r"),
    Charge(("b",), 1, 10**6, Window(3600), Strategy.MOVING, "r"),
)
state.charge("other", charges)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(number)):
    begin = time.monotonic()
    receipt = state.charge("s", charges)
    print(json.dumps([begin, time.monotonic(), receipt.refused is None]), flush=True)
    time.sleep(float(pause))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_store.server(tmp_path_factory.mktemp("redis")) as server:
        yield server


def histories(server: Server, strategy: Strategy, seconds: int, number: int, pause: float, kill: int = 0) -> list[str]:
    """What each of four processes recorded of its charges; `kill` of them are killed after their first line."""
    server.client.flushall()
    command = [sys.executable, "-c", PROGRAM, server.url, strategy.value, str(seconds), str(number), str(pause)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    recorded = []
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for at, process in enumerate(started):
            if at < kill:
                process.kill()
            output, _ = process.communicate(timeout=60)
            recorded.append(output)
            assert process.returncode == (-9 if at < kill else 0)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return recorded


def calls(recorded: list[str]) -> list[tuple[float, float]]:
    """Begin and end of every call that was allowed. A line that a kill has cut off is none."""
    lines = [json.loads(line) for output in recorded for line in output.split("\n")[:-1]]
    return [(begin, end) for begin, end, passed in lines if passed]


@pytest.mark.parametrize("strategy", list(Strategy), ids=lambda strategy: str(strategy.value))
def test_four_processes_that_charge_fifty_each_get_exactly_ten(server: Server, strategy: Strategy) -> None:
    assert len(calls(histories(server, strategy, 30 * 86400, 50, 0))) == 10


def test_processes_that_are_killed_meanwhile_never_add_to_the_limit(server: Server) -> None:
    assert 0 < len(calls(histories(server, Strategy.MOVING, 3600, 200, 0, kill=2))) <= 10


def test_in_no_span_of_a_moving_window_more_calls_pass_than_its_limit(server: Server) -> None:
    passed = calls(histories(server, Strategy.MOVING, 1, 150, 0.02))
    assert len(passed) >= 20
    for begin, _ in passed:
        # What was charged for certain within a second of this begin.
        inside = [one for one in passed if begin <= one[0] and one[1] <= begin + 1]
        assert len(inside) <= 10
