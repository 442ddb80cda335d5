"""Servers that are killed: nothing of their jobs survives, and whoever opens the store next says how they ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from intercept_py.jobs.engine import Engine
from intercept_py.jobs.launch import LocalLauncher
from intercept_py.jobs.store import Store
from tests.support.job_processes import alive, broken, engine, no_descriptors, order, settings, survivors, until

pytestmark = pytest.mark.anyio

SERVER = """
import asyncio, json, sys
from pathlib import Path
from intercept_py.jobs.engine import Engine
from tests.support.job_processes import order, settings

async def main(path, jobs, others):
    engine = await Engine.open(settings(path, **others))
    for number, (what, more) in enumerate(jobs):
        await engine.start(order(what, path, shell=True, **more), str(number))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps((await engine.cancel("test", line.strip(), wait=0)).result), flush=True)

asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])))
"""

Server = subprocess.Popen[str]


class Serve(Protocol):
    def __call__(self, *jobs: str | tuple[str, dict[str, Any]], **others: Any) -> Server: ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server process with these jobs, named 0, 1, ...; its stdin takes ids to cancel."""
    with ExitStack() as stack:

        def start(*jobs: str | tuple[str, dict[str, Any]], **others: Any) -> Server:
            wanted = [(job, {}) if isinstance(job, str) else job for job in jobs]
            argv = [sys.executable, "-c", SERVER, str(tmp_path), json.dumps(wanted), json.dumps(others)]
            root = Path(__file__).resolve().parents[2]
            server = subprocess.Popen(argv, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(server)
            stack.callback(server.kill)
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            return server

        yield start


def kill(server: Server) -> None:
    """What `kill -9` does."""
    server.kill()
    server.wait()


def parent(pid: int) -> int:
    """Who started it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pids(path: Path, count: int = 1) -> Sequence[int]:
    """What jobs wrote into the files `pid*`."""
    until(lambda: len([file for file in path.glob("pid*") if file.read_text().endswith("\n")]) == count)
    return [int(file.read_text()) for file in sorted(path.glob("pid*"))]


FORKS = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ >pid2; exec sleep 100' &); echo $$ >pid1; sleep 100"


async def test_one_second_after_a_server_was_killed_nothing_of_its_jobs_runs(tmp_path: Path, serve: Serve) -> None:
    server = serve(FORKS, grace=60.0)
    members = pids(tmp_path, 2)
    assert survivors(tmp_path)
    kill(server)
    deadline = time.monotonic() + 1
    until(lambda: not survivors(tmp_path) or time.monotonic() > deadline)
    assert survivors(tmp_path) == []
    assert not any(map(alive, members))


async def test_jobs_of_a_killed_server_are_lost_and_those_it_had_asked_are_cancelled(
    tmp_path: Path, serve: Serve
) -> None:
    server = serve("sleep 100", FORKS, "echo hello; exit 3", grace=60.0)
    pids(tmp_path, 2)
    until((tmp_path / "state" / "jobs" / "3" / "exit.json").exists)
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write("1\n")
    server.stdin.flush()
    assert server.stdout.readline() == '"still_stopping"\n'
    kill(server)
    async with engine(tmp_path) as jobs:
        lost, cancelled, done = (jobs.get("test", job) for job in "012")
        assert lost is not None
        assert (lost.status, lost.ended_by, lost.mine) == ("lost", "server_died", True)
        assert lost.error == "its server died while it ran"
        assert cancelled is not None
        assert (cancelled.status, cancelled.killed) == ("cancelled", True)
        assert done is not None
        assert (done.status, done.exit_code) == ("failed", 3)
        assert jobs.output("test", "2").head == b"hello\n"
        assert (await jobs.cancel("test", "0")).result == "already_terminal"
    assert broken(tmp_path) == []


async def test_an_end_that_only_the_record_knows_is_found_there(tmp_path: Path, serve: Serve) -> None:
    """The server was stopped, so it could not write down that the job succeeded, and then it was killed."""
    server = serve("while [ ! -e go ]; do sleep 0.01; done")
    server.send_signal(signal.SIGSTOP)
    (tmp_path / "go").write_text("")
    until((tmp_path / "state" / "jobs" / "1" / "exit.json").exists)
    kill(server)
    async with engine(tmp_path) as jobs:
        job = jobs.get("test", "0")
        assert job is not None
        assert (job.status, job.exit_code, job.ended_by) == ("succeeded", 0, "exit")
    assert broken(tmp_path) == []


async def test_what_a_killed_server_and_a_killed_supervisor_left_is_ended(tmp_path: Path, serve: Serve) -> None:
    server = serve(FORKS)
    members = pids(tmp_path, 2)
    supervisor = parent(members[0])
    server.send_signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    kill(server)
    assert all(map(alive, members))
    async with engine(tmp_path) as jobs:
        job = jobs.get("test", "0")
        assert job is not None
        assert (job.status, job.ended_by, job.killed) == ("lost", "server_died", True)
        assert job.error == "its server died while it ran"
        assert not any(map(alive, members))
    assert broken(tmp_path) == []


async def test_a_supervisor_that_hangs_is_not_waited_for(tmp_path: Path, serve: Serve) -> None:
    server = serve("echo $$ >pid1; sleep 100")
    (member,) = pids(tmp_path)
    os.kill(parent(member), signal.SIGSTOP)
    kill(server)
    async with engine(tmp_path) as jobs:
        job = jobs.get("test", "0")
        assert job is not None
        assert job.status == "lost"
        assert not alive(member)


async def test_a_queued_job_of_a_killed_server_waits_for_somebody_to_decide(tmp_path: Path, serve: Serve) -> None:
    kill(serve("sleep 100", "touch started", ("touch started", {"ttl": 0.5}), max_running=1))
    async with engine(tmp_path) as jobs:
        job = jobs.get("test", "1")
        assert job is not None
        assert (job.status, job.paused, job.mine) == ("queued", True, True)
        assert jobs.events("test", "1", after=1)[0].data == {
            "status": "queued",
            "paused": True,
            "reason": "the server that queued it died",
        }
        expired = await jobs.wait("test", "2", 20)
        assert (expired.status, expired.ended_by) == ("expired", "ttl")
        await jobs.start(order("echo hi", tmp_path), "3")
        assert (await jobs.wait("test", "3", 20)).status == "succeeded"
        job = jobs.get("test", "1")
        assert job is not None
        assert job.status == "queued"
        assert (await jobs.cancel("test", "1")).result == "cancelled"
        assert not (tmp_path / "started").exists()
    assert broken(tmp_path) == []


async def test_a_job_that_nobody_decided_about_ends_with_the_next_server(tmp_path: Path, serve: Serve) -> None:
    kill(serve("sleep 100", "touch started", max_running=1))
    jobs = await Engine.open(settings(tmp_path))
    waiting = asyncio.create_task(jobs.wait("test", "1", 20))
    await asyncio.sleep(0)
    await jobs.close()
    ended = await waiting
    assert (ended.status, ended.ended_by, ended.paused) == ("cancelled", "server_shutdown", True)
    assert broken(tmp_path) == []


async def test_a_server_that_dies_beside_us_is_noticed_when_its_job_is_to_be_cancelled(
    tmp_path: Path, serve: Serve
) -> None:
    server = serve("sleep 100")
    async with engine(tmp_path) as jobs:
        assert (await jobs.cancel("test", "0")).result == "not_owned"
        kill(server)
        assert (await jobs.cancel("test", "0")).result == "already_terminal"
        job = jobs.get("test", "0")
        assert job is not None
        assert job.status == "lost"
    assert broken(tmp_path) == []


async def test_without_file_descriptors_no_server_is_dead(tmp_path: Path, serve: Serve) -> None:
    server = serve("echo $$ >pid1; sleep 100")
    (member,) = pids(tmp_path)
    async with engine(tmp_path) as jobs:
        with no_descriptors():
            assert (await jobs.cancel("test", "0")).result == "not_owned"
        assert alive(member)
        kill(server)
        with no_descriptors():
            assert (await jobs.cancel("test", "0")).result == "not_owned"
        assert (await jobs.cancel("test", "0")).result == "already_terminal"
        job = jobs.get("test", "0")
        assert job is not None
        assert (job.status, job.ended_by) == ("lost", "server_died")
    assert broken(tmp_path) == []


async def test_without_file_descriptors_nothing_of_a_job_is_gone(tmp_path: Path, serve: Serve) -> None:
    server = serve("sleep 100")
    kill(server)
    store = Store(str(tmp_path / "state"))
    try:
        with no_descriptors(), pytest.raises(TimeoutError):
            await LocalLauncher().clear(store.mark(1), store.directory(1))
        assert await LocalLauncher().clear(store.mark(1), store.directory(1)) is not None
    finally:
        store.close()


async def test_the_jobs_of_a_server_that_lives_are_left_alone(tmp_path: Path, serve: Serve) -> None:
    serve("echo $$ >pid1; sleep 100")
    (member,) = pids(tmp_path)
    jobs = await Engine.open(settings(tmp_path))
    job = jobs.get("test", "0")
    await jobs.close()
    assert job is not None
    assert (job.status, job.mine) == ("running", False)
    assert alive(member)


async def test_a_foreign_process_with_the_number_of_a_job_is_not_harmed(tmp_path: Path, serve: Serve) -> None:
    """A job's number in the store is only told; what is signalled carries the job's mark."""
    server = serve("echo $$ >pid1; sleep 100")
    pids(tmp_path)
    kill(server)
    until(lambda: not survivors(tmp_path))
    (tmp_path / "state" / "jobs" / "1" / "exit.json").unlink()
    with subprocess.Popen(["sleep", "100"], env={**os.environ, "INTERCEPT_JOB": "another/1"}) as foreign:
        store = Store(str(tmp_path / "state"))
        store.started(1, foreign.pid)
        store.close()
        async with engine(tmp_path) as jobs:
            job = jobs.get("test", "0")
            assert job is not None
            assert (job.status, job.pid) == ("lost", foreign.pid)
            assert foreign.poll() is None
        foreign.kill()
