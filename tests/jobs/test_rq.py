"""Jobs that run with two RQ workers over a real Redis; the engine says what became of them, and it is true."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from intercept_py.jobs import recipes, rq_launch, strays
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.launch import Work
from intercept_py.jobs.model import TERMINAL, Job, JobError, Order, Settings
from intercept_py.jobs.rq_keys import job_id
from intercept_py.jobs.rq_launch import RqLauncher
from tests.support import redis_server
from tests.support.jobs import dialect, processes_of, root_of, text

T = TypeVar("T")
KIND = "codex"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server.running(tmp_path_factory.mktemp("redis")) as url:
        yield url


@contextmanager
def workers(url: str, queue: str, number: int = 2) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many workers of the queue, which have registered; ended afterwards with everything that they run."""
    command = [sys.executable, "-m", "intercept_py", "jobs", "worker", "--redis", url, "--worker-queue", queue]
    started = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(number)]
    try:
        with redis.Redis.from_url(url) as client:
            eventually(lambda: client.scard(f"rq:workers:{queue}") == number)
        yield started
    finally:
        for process in started:
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait()


def eventually(holds: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


class Remote:
    """An engine whose jobs run with workers."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self.engine = engine
        self._path = path

    async def start(self, text: str, id: str = "job", timeout: float | None = None) -> Job:
        argv = recipes.parse(text, False)
        return await self.engine.start(Order(KIND, argv, text, str(self._path), {}, timeout), id)

    async def ready(self, id: str) -> None:
        """Return when the job has printed its first line."""
        while not self.engine.output(KIND, id).head:
            await asyncio.sleep(0.02)

    async def end(self, id: str = "job") -> Job:
        job = await self.engine.wait(KIND, id, 20)
        assert job.status in TERMINAL
        assert marked(self.engine, job) == []
        return job


def marked(engine: Engine, job: Job) -> list[int]:
    """The job's processes, wherever they are on this machine."""
    return strays.marked(engine._store.mark(job.row))


def play(url: str, path: Path, queue: str, scene: Any, grace: float = 0.2, **settings: Any) -> Any:
    """Open an engine for the queue, run the scene with it, close it."""

    async def run() -> Any:
        launcher = RqLauncher(url, queue)
        try:
            engine = await Engine.open(Settings(str(path / "state"), str(path), grace=grace, **settings), launcher)
            try:
                return await scene(Remote(engine, path))
            finally:
                await engine.close()
        finally:
            await launcher.close()

    return asyncio.run(run())


def test_jobs_run_with_the_workers_and_end_as_they_do_at_home(url: str, tmp_path: Path) -> None:
    async def scene(remote: Remote) -> None:
        await remote.start("echo hello there", "echo")
        await remote.start("fail 3", "fail")
        await remote.start("count 3", "count")
        await remote.start("flood 2", "flood")
        echo, fail = await remote.end("echo"), await remote.end("fail")
        assert (echo.status, remote.engine.output(KIND, "echo").head) == ("succeeded", b"hello there\n")
        assert (fail.status, fail.exit_code) == ("failed", 3)
        assert (await remote.end("count")).status == "succeeded"
        types = [event.type for event in remote.engine.events(KIND, "count")]
        assert (types[:2], types[-1]) == (["queued", "status"], "status")
        assert {*types[2:-1]} == {"progress"}
        await remote.end("flood")
        output = remote.engine.output(KIND, "flood")
        assert (len(output.head), len(output.tail)) == (1024 * 1024, 64 * 1024)
        assert output.dropped > 0

    with workers(url, "usual"):
        play(url, tmp_path, "usual", scene)


def test_a_cancel_reaches_the_worker_and_is_true_when_it_is_said(url: str, tmp_path: Path) -> None:
    async def cancelled(remote: Remote, recipe: str, id: str, *, killed: bool) -> None:
        job = await remote.start(recipe, id)
        if recipe != "sleep 60":
            await remote.ready(id)
        assert marked(remote.engine, job)
        assert (await remote.engine.cancel(KIND, id, by="test")).result == "cancelled"
        assert marked(remote.engine, job) == []
        ended = await remote.end(id)
        assert (ended.status, ended.ended_by, ended.killed) == ("cancelled", "cancel", killed)
        assert (await remote.engine.cancel(KIND, id)).result == "already_terminal"

    async def willing(remote: Remote) -> None:
        await cancelled(remote, "sleep 60", "a", killed=False)
        await cancelled(remote, "forker 60", "b", killed=False)

    async def stubborn(remote: Remote) -> None:
        await cancelled(remote, "stubborn 60", "c", killed=True)

    with workers(url, "cancels"):
        play(url, tmp_path, "cancels", willing, grace=15)  # as long as a slow machine may take to end them
        play(url, tmp_path, "cancels", stubborn)


def test_input_reaches_the_job(url: str, tmp_path: Path) -> None:
    async def scene(remote: Remote) -> None:
        await remote.start("ask how many?")
        job = remote.engine.get(KIND, "job")
        while job is not None and job.status != "waiting":
            await remote.engine.changed(KIND, "job", job.last_seq, 10)
            job = remote.engine.get(KIND, "job")
        assert await remote.engine.send(KIND, "job", "seven")
        assert (await remote.end()).status == "succeeded"
        assert b"seven" in remote.engine.output(KIND, "job").head

    with workers(url, "input"):
        play(url, tmp_path, "input", scene)


def test_a_time_limit_holds_there_too(url: str, tmp_path: Path) -> None:
    async def scene(remote: Remote) -> None:
        await remote.start("sleep 60", timeout=0.3)
        assert (await remote.end()).status == "timed_out"

    with workers(url, "limit"):
        play(url, tmp_path, "limit", scene)


def test_a_worker_that_dies_takes_its_job_along_and_the_job_is_lost(url: str, tmp_path: Path) -> None:
    async def scene(remote: Remote) -> None:
        job = await remote.start("forker 60")
        for process in started:
            for horse in children(process.pid):
                os.kill(horse, signal.SIGKILL)
        ended = await remote.end()
        assert (ended.status, marked(remote.engine, job)) == ("lost", [])

    with workers(url, "dies") as started:
        play(url, tmp_path, "dies", scene)


def test_a_cancel_while_the_worker_dies_is_not_lost(url: str, tmp_path: Path) -> None:
    async def scene(remote: Remote) -> None:
        await remote.start("stubborn 60")
        await remote.engine.cancel(KIND, "job", wait=0)
        for process in started:
            for horse in children(process.pid):
                os.kill(horse, signal.SIGKILL)
        assert (await remote.end()).status == "cancelled"

    with workers(url, "both") as started:
        play(url, tmp_path, "both", scene)


def test_without_a_worker_nothing_starts_and_nothing_is_left_in_the_queue(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rq_launch, "_SPAWN_SECONDS", 0.5)

    async def scene(remote: Remote) -> None:
        with pytest.raises(JobError, match=r"no worker of queue `nobody` took the job within 0.5 s: start one with"):
            await remote.start("sleep 60")
        assert remote.engine.get(KIND, "job") is None

    play(url, tmp_path, "nobody", scene)
    with redis.Redis.from_url(url) as client:
        assert client.llen("rq:queue:nobody") == 0


def test_a_directory_that_the_worker_does_not_have_is_a_clear_error(url: str, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()

    async def scene(remote: Remote) -> None:
        order = Order(KIND, ("no-such-program-anywhere",), "x", str(tmp_path / "away"), {})
        with pytest.raises(JobError, match="cannot start `no-such-program-anywhere`: no such file or directory"):
            await remote.engine.start(order, "job")

    with workers(url, "fault", 1):
        play(url, tmp_path, "fault", scene)


def test_an_execution_that_ends_while_its_job_is_deleted_does_not_hide_why_nothing_started(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RQ lists executions and then reads each: one may have ended between the two."""
    monkeypatch.setattr(rq_launch, "_SPAWN_SECONDS", 0.5)
    enqueue = RqLauncher._enqueue

    def enqueue_and_list(launcher: RqLauncher, work: Work) -> None:
        enqueue(launcher, work)
        with redis.Redis.from_url(url) as client:
            client.zadd(f"rq:executions:{job_id(work.mark)}", {"ended": time.time() + 60})

    monkeypatch.setattr(RqLauncher, "_enqueue", enqueue_and_list)

    async def scene(remote: Remote) -> None:
        with pytest.raises(JobError, match="no worker of queue `ended` took the job"):
            await remote.start("sleep 60")

    play(url, tmp_path, "ended", scene)


def test_redis_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    async def scene(remote: Remote) -> None:
        with pytest.raises(JobError, match=r"cannot place the job: Redis: .*[Cc]onnect"):
            await remote.start("sleep 60")

    play("redis://127.0.0.1:1/0", tmp_path, "nowhere", scene)


ENGINE = """
import asyncio, sys
from intercept_py.jobs import recipes
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import Order, Settings
from intercept_py.jobs.rq_launch import RqLauncher

async def main(url, path):
    engine = await Engine.open(Settings(path + "/state", path), RqLauncher(url, "orphans"))
    job = await engine.start(Order("codex", recipes.parse("forker 60", False), "forker 60", path, {}), "job")
    print(engine._store.mark(job.row), flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


def test_an_engine_that_dies_leaves_no_job_behind_and_the_next_one_says_so(url: str, tmp_path: Path) -> None:
    with workers(url, "orphans"):
        engine = subprocess.Popen([sys.executable, "-c", ENGINE, url, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with engine:
            assert engine.stdout is not None
            mark = engine.stdout.readline().strip()
            assert strays.marked(mark)
            engine.kill()

        async def scene(remote: Remote) -> None:
            job = await remote.end()
            assert (job.status, job.ended_by) == ("lost", "server_died")

        play(url, tmp_path, "orphans", scene)  # it must wait until the job is gone before it says that it is
        assert strays.marked(mark) == []


def test_workers_that_cannot_reach_redis_end_their_job(tmp_path: Path) -> None:
    async def scene(remote: Remote) -> None:
        job = await remote.start("sleep 60")
        assert marked(remote.engine, job)
        server.kill()
        ended = await remote.end()
        assert ended.status == "lost"

    with redis_server.running(tmp_path / "redis") as url, workers(url, "cut") as _:
        with redis.Redis.from_url(url) as client:
            info: Any = client.info("server")
        server = Victim(info["process_id"])
        play(url, tmp_path, "cut", scene)


def test_workers_that_wait_for_a_redis_that_hangs_end_their_job_before_anybody_says_so(tmp_path: Path) -> None:
    async def scene(remote: Remote) -> None:
        job = await remote.start("sleep 60")
        os.kill(server, signal.SIGSTOP)
        try:
            ended = await remote.end()
        finally:
            os.kill(server, signal.SIGCONT)
        assert ended.status == "lost"
        assert marked(remote.engine, job) == []

    with redis_server.running(tmp_path / "redis") as url, workers(url, "hang", 1):
        with redis.Redis.from_url(url) as client:
            info: Any = client.info("server")
        server = info["process_id"]
        play(url, tmp_path, "hang", scene)


def test_many_short_jobs_all_end(url: str, tmp_path: Path) -> None:
    async def scene(remote: Remote) -> None:
        await asyncio.gather(*(remote.start(f"echo {number}", f"job{number}") for number in range(40)))
        for number in range(40):
            assert (await remote.end(f"job{number}")).status == "succeeded"
            assert remote.engine.output(KIND, f"job{number}").head == f"{number}\n".encode()

    with workers(url, "many", 3):
        play(url, tmp_path, "many", scene, max_running=3)


class Victim:
    def __init__(self, pid: int) -> None:
        self._pid = pid

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)


def test_a_client_can_cancel_what_a_worker_runs(url: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with dialect("codex", tmp_path, "--redis", url, "--worker-queue", "client") as client:
            arguments = {"prompt": "forker 60", "cwd": str(root_of(tmp_path))}
            started = json.loads(text(await client.call_tool("codex_start", arguments)))
            assert processes_of(tmp_path, started["job_id"])
            answer = await client.call_tool("codex_cancel", {"job_id": started["job_id"]})
            assert json.loads(text(answer)) == {"job_id": started["job_id"], "status": "cancelled", "killed": True}
            assert processes_of(tmp_path, started["job_id"]) == []

    with workers(url, "client"):
        asyncio.run(scene())


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("redis://:secret@127.0.0.1:1/0", "cannot use Redis: Error 111 connecting to 127.0.0.1:1. Connection refused."),
        ("nowhere", "the URL of Redis is not one: write redis://HOST:PORT/NUMBER"),
    ],
)
@pytest.mark.parametrize("which", [["worker"], ["serve", "--dialect", "codex", "--state-dir", "state"]])
def test_redis_that_cannot_be_used_is_one_line(which: list[str], address: str, why: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "intercept_py", "jobs", *which, "--redis", address]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (73, "", f"intercept-py jobs: {why}\n")


def test_a_worker_without_a_redis_says_what_to_name() -> None:
    command = [sys.executable, "-m", "intercept_py", "jobs", "worker"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 64
    assert "name the Redis that hands out jobs with --redis URL or in $INTERCEPT_JOBS_REDIS" in done.stderr
