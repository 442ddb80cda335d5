"""The demo's server: runs are processes, cancelled means gone, and nothing outlives the server."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import Client

from intercept_py.cli.scenario import alive
from intercept_py.jobs.demo_server import RunError, Runs, build

STUBBORN = "trap '' TERM; echo ready > \"$FIFO\"; read line"
FAMILY = "exec 3<&0; (trap '' TERM; read line <&3) & echo $! > \"$FIFO\"; read line"


@pytest.fixture
def runs() -> Iterator[Runs]:
    runs = Runs()
    yield runs
    runs.close()


@pytest.fixture
def fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run of `STUBBORN` or `FAMILY` says that it is ready."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    monkeypatch.setenv("FIFO", str(path))
    return path


def wait_for_the_end(pid: int) -> None:
    """Return when the process is gone; the test's time limit bounds it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [])
    os.close(descriptor)


def test_a_run_is_a_process_group_of_its_own_and_cancelled_means_gone(runs: Runs) -> None:
    run = runs.spawn("work", 60)
    assert alive(run.process.pid)
    assert os.getpgid(run.process.pid) == run.process.pid
    assert runs.cancel(run.run_id) is run
    assert not alive(run.process.pid)
    assert run.describe()["status"] == "cancelled"
    assert run.describe()["ended_at"]


def test_a_run_that_ignores_the_polite_signal_is_killed(fifo: Path) -> None:
    runs = Runs(("sh", "-c", STUBBORN), grace=0.01)
    run = runs.spawn("stubborn", 60)
    assert fifo.read_text() == "ready\n"
    runs.cancel(run.run_id)
    assert run.process.returncode == -signal.SIGKILL
    assert run.status == "cancelled"
    runs.close()


def test_what_a_run_started_is_ended_with_it(fifo: Path) -> None:
    runs = Runs(("sh", "-c", FAMILY))
    run = runs.spawn("family", 60)
    child = int(fifo.read_text())
    assert alive(child)
    runs.cancel(run.run_id)
    wait_for_the_end(child)
    assert not alive(child)
    runs.close()


def test_a_run_that_ends_by_itself_is_completed_and_cannot_be_cancelled(runs: Runs) -> None:
    run = runs.spawn("short", 0.001)
    wait_for_the_end(run.process.pid)
    with pytest.raises(RunError, match="run is already terminal: completed"):
        runs.cancel(run.run_id)


def test_cancelling_twice_and_cancelling_nothing_are_errors(runs: Runs) -> None:
    run = runs.spawn("work", 60)
    runs.cancel(run.run_id)
    with pytest.raises(RunError, match="run is already terminal: cancelled"):
        runs.cancel(run.run_id)
    with pytest.raises(RunError, match="Unknown run_id: nope"):
        runs.cancel("nope")


def test_a_command_that_cannot_be_started_is_an_error_for_the_agent() -> None:
    runs = Runs(("/no/such/program",))
    with pytest.raises(RunError, match="could not be started"):
        runs.spawn("work", 1)
    runs.close()


@pytest.mark.anyio
async def test_the_tools_answer_with_facts_and_say_errors_as_errors(runs: Runs) -> None:
    async with Client(build(runs)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [
            "spawn_run",
            "list_runs",
            "cancel_run",
            "purge_runs",
        ]
        run = (await client.call_tool("spawn_run", {"task": "work"})).structured_content
        assert run is not None
        assert run["status"] == "running"
        listed = (await client.call_tool("list_runs", {})).structured_content
        assert listed == {"runs": [run]}
        unknown = await client.call_tool("cancel_run", {"run_id": "nope"})
        assert unknown.is_error
        purged = (await client.call_tool("purge_runs", {})).structured_content
        assert purged == {"purged": 1}
        assert not alive(run["pid"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None], ids=["kill", "terminate", "hang up"])
def test_however_the_server_ends_its_runs_end_too(number: signal.Signals | None) -> None:
    code = (
        "import sys; from intercept_py.jobs.demo_server import Runs\n"
        "runs = Runs(); print(runs.spawn('a', 60).process.pid, runs.spawn('b', 60).process.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with server:
        assert server.stdout is not None
        assert server.stdin is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert all(alive(pid) for pid in pids)
        if number:
            server.send_signal(number)
        else:
            server.stdin.close()
        for pid in pids:
            wait_for_the_end(pid)
