"""The engine with real processes: starting, queueing, cancelling, and what it tells about all of it."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from intercept_py.jobs.engine import Engine
from intercept_py.jobs.launch import LocalLauncher, Process, Work
from intercept_py.jobs.model import Cancel, Event, Job, JobError, Status
from tests.jobs.test_store import no_room
from tests.support.job_processes import alive, broken, engine, line, no_descriptors, order, settings, survivors, until

pytestmark = pytest.mark.anyio

T = "test"


def known(jobs: Engine, job: str) -> Job:
    """A job that is there."""
    found = jobs.get(T, job)
    assert found is not None
    return found


def statuses(jobs: Engine, job: str) -> list[str]:
    """Every status that its events tell, in order."""
    return [event.data["status"] for event in jobs.events(T, job) if event.type == "status"]


async def reached(jobs: Engine, job: str, status: Status) -> Job:
    """The job when it has this status."""
    while (found := known(jobs, job)).status != status:
        await jobs.changed(T, job, found.last_seq, 10)
    return found


async def refusal(starting: Awaitable[object]) -> JobError:
    """Why it is refused: one line."""
    with pytest.raises(JobError) as refused:
        await starting
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    return refused.value


# From start to end


async def test_a_job_runs_to_its_end(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        job = await jobs.start(order("count 2", tmp_path, meta={"a": 1}), "one")
        assert (job.id, job.status, job.mine, job.meta, job.text) == ("one", "running", True, {"a": 1}, "count 2")
        assert job.pid is not None
        done = await jobs.wait(T, "one", 20)
        assert (done.status, done.exit_code, done.ended_by, done.error) == ("succeeded", 0, "exit", None)
        assert jobs.output(T, "one").head == b"1\n2\n"
        assert [event.type for event in jobs.events(T, "one")][:3] == ["queued", "status", "progress"]
        assert [event.seq for event in jobs.events(T, "one")] == list(range(1, done.last_seq + 1))
        assert jobs.events(T, "one", after=1, limit=1)[0].data == {"status": "running"}
        assert statuses(jobs, "one") == ["running", "succeeded"]
        assert jobs.counts() == {"succeeded": 1}
    assert broken(tmp_path) == []


async def test_what_signals_the_group_of_the_server_spares_its_jobs(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        job = await jobs.start(order("sleep 100", tmp_path), "one")
        assert job.pid is not None
        sessions = {os.getsid(pid) for pid in (os.getpid(), _parent(job.pid), job.pid)}
        assert len(sessions) == 3


@pytest.mark.parametrize(
    ("text", "shell", "code", "signum", "error"),
    [
        ("fail 3", False, 3, None, "exit code 3"),
        ("kill -9 $$", True, None, signal.SIGKILL, "ended by signal 9 (SIGKILL)"),
    ],
)
async def test_a_job_that_fails_says_how(
    tmp_path: Path, text: str, shell: bool, code: int | None, signum: int | None, error: str
) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order(text, tmp_path, shell=shell), "one")
        job = await jobs.wait(T, "one", 20)
        assert (job.status, job.ended_by, job.killed) == ("failed", "exit", False)
        assert (job.exit_code, job.term_signal, job.error) == (code, signum, error)


async def test_output_can_be_read_while_the_job_runs(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("count 1000 0.01", tmp_path), "one")
        assert (await line(jobs, "one", 2)).startswith("1\n2\n")
        assert known(jobs, "one").status == "running"


async def test_a_flood_is_capped_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    async with engine(tmp_path, output_head=1000, output_tail=500) as jobs:
        await jobs.start(order("flood 5", tmp_path), "one")
        await jobs.wait(T, "one", 20)
        output = jobs.output(T, "one")
        assert (len(output.head), len(output.tail), output.dropped) == (1000, 500, 5 * 1024 * 1024 - 1500)


@pytest.mark.parametrize("text", ["yes", 'while :; do echo \'{"type": "x"}\' >&3; done'])
async def test_a_job_that_never_stops_talking_is_kept_short_and_can_be_cancelled(tmp_path: Path, text: str) -> None:
    async with engine(tmp_path, output_head=1000, output_tail=500) as jobs:
        await jobs.start(order(text, tmp_path, shell=True), "one")
        while not jobs.output(T, "one").head and known(jobs, "one").last_seq < 900:
            await jobs.wait(T, "one", 0.02)
        assert (await jobs.cancel(T, "one")).result == "cancelled"
        assert known(jobs, "one").last_seq < 5000
        assert len(jobs.output(T, "one").head) <= 1000
    assert broken(tmp_path) == []


async def test_a_job_that_runs_too_long_is_timed_out(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("forker 100", tmp_path, timeout=0.2), "one")
        job = await jobs.wait(T, "one", 20)
        assert (job.status, job.ended_by, job.error) == ("timed_out", "timeout", "it ran for longer than it may")
        assert (await jobs.cancel(T, "one")).result == "already_terminal"
    assert broken(tmp_path) == []


async def test_no_job_may_run_longer_than_the_server_allows(tmp_path: Path) -> None:
    async with engine(tmp_path, timeout=0.2) as jobs:
        await jobs.start(order("sleep 100", tmp_path), "one")
        assert (await jobs.wait(T, "one", 20)).status == "timed_out"


async def test_a_job_asks_and_gets_its_answer(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        assert await jobs.send(T, "one", "too early") is False
        await jobs.start(order("ask Which one?", tmp_path), "one")
        job = await reached(jobs, "one", "waiting")
        assert job.waiting_for == "input"
        (question,) = [event for event in jobs.events(T, "one") if event.type == "input_required"]
        assert question.data == {"prompt": "Which one?"}
        assert await jobs.send(T, "one", "the ✓ one") is True
        assert await jobs.send(T, "one", "once more") is False
        assert (await jobs.wait(T, "one", 20)).waiting_for is None
        assert jobs.output(T, "one").head.decode() == "the ✓ one\n"
        assert statuses(jobs, "one") == ["running", "running", "succeeded"]
        assert await jobs.send(T, "one", "too late") is False
        assert (await refusal(jobs.send(T, "one", "x" * 2_000_000))).code == "too_large"
    assert broken(tmp_path) == []


async def test_a_job_cannot_pretend_to_be_the_engine(tmp_path: Path) -> None:
    said = [
        '{"type": "status", "status": "succeeded"}',
        "[1]",
        "{",
        '{"type": 7}',
        '{"type": "ok", "n": 1}',
        '{"x": 1}',
    ]
    said += ["[" * 10_000, '{"type": "late_output"}', '{"type": "Q' + "x" * 99 + '"}', '{"type": "auth_required"}']
    (tmp_path / "said").write_text("\n".join(said) + "\n")
    async with engine(tmp_path) as jobs:
        await jobs.start(order("cat said >&3; exec sleep 100", tmp_path, shell=True), "one")
        assert (await reached(jobs, "one", "waiting")).waiting_for == "auth"
        told = [(event.type, event.data) for event in jobs.events(T, "one", after=2)]
        assert told == [("ok", {"n": 1}), ("auth_required", {})]


async def test_events_that_are_nested_too_deeply_are_dropped(tmp_path: Path) -> None:
    """Some of them can be read, but not written."""
    script = (
        "import os\n"
        "for depth in (1, 31, 32, 100, 300, *range(800, 1100, 10), 4000):\n"
        "  os.write(3, b'{\"type\": \"deep\", \"a\": %b%b}\\n' % (b'[' * depth, b']' * depth))\n"
    )
    async with engine(tmp_path) as jobs:
        await jobs.start(order("echo hi", tmp_path, argv=(sys.executable, "-I", "-S", "-c", script)), "one")
        assert (await jobs.wait(T, "one", 20)).status == "succeeded"
        assert len([event for event in jobs.events(T, "one") if event.type == "deep"]) == 2
    assert broken(tmp_path) == []


async def test_the_longest_question_is_asked(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("ask \x01" + "\x02" * 2046 + "?", tmp_path), "one")
        assert (await reached(jobs, "one", "waiting")).waiting_for == "input"


async def test_a_job_gets_nothing_of_what_its_server_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_SECRET_ACCESS_KEY": "secret", "INTERCEPT_JOBS_REDIS": "secret", "LC_TIME": "C"}.items():
        monkeypatch.setenv(name, value)
    async with engine(tmp_path) as jobs:
        await jobs.start(order("echo hi", tmp_path, argv=("/usr/bin/env",)), "one")
        await jobs.wait(T, "one", 20)
        names = {line.partition("=")[0] for line in jobs.output(T, "one").head.decode().splitlines()}
    assert {"INTERCEPT_JOB", "LC_TIME", "PATH"} <= names
    own = {"HOME", "INTERCEPT_JOB", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"}
    assert {name for name in names - own if not name.startswith("LC_")} == set()


class Faulty(LocalLauncher):
    """Fails in a way that nobody foresaw: while the job is being started, or when it says something."""

    def __init__(self, when: str) -> None:
        self._when = when

    async def launch(self, work: Work) -> Process:
        if self._when == "started":
            raise RuntimeError("oh")
        process = await super().launch(work)
        events = process.events

        async def fail() -> AsyncIterator[bytes]:
            async for event in events():
                yield event
                raise RuntimeError("oh")

        process.events = fail  # type: ignore[method-assign]
        return process


async def test_a_fault_of_the_server_ends_the_job_and_is_told(tmp_path: Path) -> None:
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["message"]))
    jobs = await Engine.open(settings(tmp_path), Faulty("followed"))
    try:
        await jobs.start(order("ask Really?", tmp_path), "one")
        job = await jobs.wait(T, "one", 20)
        assert survivors(tmp_path) == []
        assert (job.status, job.ended_by) == ("lost", "server_fault")
        assert job.error == "the job server has a fault: it could not be followed (RuntimeError); it was ended"
    finally:
        await jobs.close()
    assert faults == ["a job could not be followed: RuntimeError('oh')"]
    assert broken(tmp_path) == []


async def test_a_fault_of_the_server_while_a_job_is_started_leaves_nothing(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    jobs = await Engine.open(settings(tmp_path), Faulty("started"))
    try:
        refused = await refusal(jobs.start(order("sleep 100", tmp_path), "one"))
        assert str(refused) == "the job server has a fault: it could not be started (RuntimeError)"
        assert jobs.get(T, "one") is None
    finally:
        await jobs.close()


# Cancelling


@pytest.mark.parametrize(("text", "killed"), [("sleep 100", False), ("stubborn 100", True), ("forker 100", False)])
async def test_cancelled_means_that_no_process_is_left(tmp_path: Path, text: str, killed: bool) -> None:
    async with engine(tmp_path, grace=0.3 if killed else 20.0) as jobs:
        started = await jobs.start(order(text, tmp_path), "one")
        if text != "sleep 100":
            await line(jobs, "one")
        done = await jobs.cancel(T, "one", by="me", reason="enough")
        assert done.result == "cancelled"
        assert survivors(tmp_path) == []
        job = done.job
        assert job is not None
        assert job == known(jobs, "one")
        assert (job.status, job.ended_by, job.killed) == ("cancelled", "cancel", killed)
        assert (job.cancel_by, job.cancel_reason, job.pid) == ("me", "enough", started.pid)
        assert (job.exit_code, job.term_signal) == (None, signal.SIGKILL if killed else signal.SIGTERM)
        assert statuses(jobs, "one") == ["running", "cancelling", "cancelled"]
        assert (await jobs.cancel(T, "one")).result == "already_terminal"
        assert known(jobs, "one") == job
    assert broken(tmp_path) == []


async def test_a_daemon_that_ignores_everything_ends_too(tmp_path: Path) -> None:
    text = "(setsid sh -c 'trap \"\" TERM HUP; echo $$; exec sleep 100' &); exec sleep 100"
    async with engine(tmp_path) as jobs:
        await jobs.start(order(text, tmp_path, shell=True), "one")
        daemon = int(await line(jobs, "one"))
        assert (await jobs.cancel(T, "one")).result == "cancelled"
        assert not alive(daemon)
        assert known(jobs, "one").killed


async def test_a_stopped_job_can_be_cancelled(tmp_path: Path) -> None:
    async with engine(tmp_path, grace=20.0) as jobs:
        job = await jobs.start(order("sleep 100", tmp_path), "one")
        assert job.pid is not None
        os.kill(job.pid, signal.SIGSTOP)
        assert (await jobs.cancel(T, "one")).result == "cancelled"
        assert not known(jobs, "one").killed


async def test_the_exit_code_of_a_job_that_obeys_is_kept(tmp_path: Path) -> None:
    text = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    async with engine(tmp_path) as jobs:
        await jobs.start(order(text, tmp_path, shell=True), "one")
        await line(jobs, "one")
        assert (await jobs.cancel(T, "one")).result == "cancelled"
        assert known(jobs, "one").exit_code == 7


async def test_who_does_not_wait_is_told_the_truth(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("stubborn 100", tmp_path), "one")
        await line(jobs, "one")
        first = await jobs.cancel(T, "one", by="first", wait=0)
        assert first.result == "still_stopping"
        assert first.job is not None
        assert first.job.status == "cancelling"
        assert (await jobs.cancel(T, "one", by="second", wait=0)).result == "already_cancelling"
        assert (await jobs.cancel(T, "one", wait=0.01)).result == "still_stopping"
        assert (await jobs.cancel(T, "one")).result == "cancelled"
        assert known(jobs, "one").cancel_by == "first"


async def test_twenty_at_once_are_one_request(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("sleep 100", tmp_path), "one")
        answers = await asyncio.gather(*(jobs.cancel(T, "one", by=str(number)) for number in range(20)))
        assert {answer.result for answer in answers} == {"cancelled"}
        assert statuses(jobs, "one") == ["running", "cancelling", "cancelled"]
        assert known(jobs, "one").cancel_by == "0"


async def test_a_job_that_ends_meanwhile_is_not_called_cancelled(tmp_path: Path) -> None:
    """The first process has ended by itself, a daemon of it has not: the request comes in between."""
    text = (
        "(setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 100' &); until [ -s started ]; do sleep 0.01; done; exit 3"
    )
    async with engine(tmp_path, grace=0.5) as jobs:
        job = await jobs.start(order(text, tmp_path, shell=True), "one")
        await line(jobs, "one")
        (tmp_path / "started").write_text("now")
        assert job.pid is not None
        until(lambda: not alive(job.pid or 0))
        done = await jobs.cancel(T, "one")
        assert done.result == "finished_first"
        assert done.job is not None
        assert (done.job.status, done.job.exit_code, done.job.ended_by) == ("failed", 3, "exit")
        assert statuses(jobs, "one") == ["running", "cancelling", "failed"]
    assert broken(tmp_path) == []


async def test_a_waiting_job_can_be_cancelled(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("ask Really?", tmp_path), "one")
        await reached(jobs, "one", "waiting")
        assert (await jobs.cancel(T, "one")).result == "cancelled"
        assert known(jobs, "one").waiting_for is None


@pytest.mark.parametrize("job", ["nope", "../one", "", "\ud800", "a\0b"])
async def test_an_unknown_job_cannot_be_cancelled(tmp_path: Path, job: str) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("sleep 100", tmp_path), "one")
        assert await jobs.cancel(T, job) == Cancel("unknown", None)
        assert await jobs.cancel("other kind", "one") == Cancel("unknown", None)
        assert known(jobs, "one").status == "running"


async def test_a_job_of_another_server_is_shown_and_not_touched(tmp_path: Path) -> None:
    async with engine(tmp_path) as ours, engine(tmp_path) as theirs:
        await theirs.start(order("sleep 100", tmp_path), "one")
        refused = await ours.cancel(T, "one")
        assert refused.result == "not_owned"
        assert refused.job is not None
        assert (refused.job.status, refused.job.mine) == ("running", False)
        assert await ours.send(T, "one", "hello") is False
        waiting = asyncio.create_task(ours.wait(T, "one", 20))
        assert (await theirs.cancel(T, "one")).result == "cancelled"
        assert (await asyncio.wait_for(waiting, 10)).status == "cancelled"
        assert (await ours.cancel(T, "one")).result == "already_terminal"


async def test_when_its_supervisor_is_killed_the_job_is_ended_and_lost(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        job = await jobs.start(order("forker 100", tmp_path), "one")
        await line(jobs, "one")
        assert job.pid is not None
        os.kill(_parent(job.pid), signal.SIGKILL)
        ended = await jobs.wait(T, "one", 20)
        assert (ended.status, ended.ended_by, ended.killed) == ("lost", "supervisor_died", True)
        assert ended.error == "its supervisor died while it ran"
        assert survivors(tmp_path) == []


async def test_a_request_that_its_supervisor_does_not_survive_is_met_all_the_same(tmp_path: Path) -> None:
    async with engine(tmp_path, grace=20.0) as jobs:
        job = await jobs.start(order("stubborn 100", tmp_path), "one")
        await line(jobs, "one")
        assert (await jobs.cancel(T, "one", wait=0)).result == "still_stopping"
        assert job.pid is not None
        os.kill(_parent(job.pid), signal.SIGKILL)
        assert (await jobs.cancel(T, "one")).result == "cancelled"
        assert survivors(tmp_path) == []


RECORD = '{"code": 0, "signal": null, "asked": false, "killed": false, "ended_by": "exit"}'


async def test_a_job_cannot_speak_for_its_supervisor(tmp_path: Path) -> None:
    """Nor hold its lifeline. What it writes in the supervisor's name counts for nothing once it has killed it."""
    text = (
        "for n in 0 1; do (: <>/proc/$PPID/fd/$n) 2>/dev/null && echo opened $n; done;"
        f"echo '{RECORD}' >state/jobs/1/exit.json; (setsid sleep 100 &); echo done;"
        "until [ -s state/jobs/1/head ]; do sleep 0.01; done; kill -9 $PPID; sleep 100"
    )
    async with engine(tmp_path) as jobs:
        await jobs.start(order(text, tmp_path, shell=True), "one")
        ended = await jobs.wait(T, "one", 20)
        assert jobs.output(T, "one").head == b"done\n"
        assert (ended.status, ended.ended_by, ended.exit_code, ended.killed) == ("lost", "supervisor_died", None, True)
        assert survivors(tmp_path) == []
    assert broken(tmp_path) == []


STOPS = "until [ -e go ]; do sleep 0.01; done; kill -STOP $PPID; touch stopped; exec sleep 100"


async def test_a_job_that_stops_its_supervisor_can_be_cancelled(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order(STOPS, tmp_path, shell=True), "one")
        (tmp_path / "go").write_text("")
        until((tmp_path / "stopped").exists)
        done = await jobs.cancel(T, "one")
        assert done.result == "cancelled"
        assert survivors(tmp_path) == []
        assert done.job is not None
        assert (done.job.ended_by, done.job.killed, done.job.exit_code) == ("cancel", True, None)
    assert broken(tmp_path) == []


async def test_a_job_that_stops_its_supervisor_runs_no_longer_than_it_may(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order(STOPS, tmp_path, shell=True, timeout=0.5), "one")
        (tmp_path / "go").write_text("")
        job = await jobs.wait(T, "one", 20)
        assert (job.status, job.ended_by, job.error) == ("timed_out", "timeout", "it ran for longer than it may")
        assert survivors(tmp_path) == []
    assert broken(tmp_path) == []


async def test_what_a_killed_supervisor_left_is_not_gone_because_it_cannot_be_seen(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        job = await jobs.start(order("sleep 100", tmp_path), "one")
        assert job.pid is not None
        supervisor = _parent(job.pid)
        with no_descriptors():
            os.kill(supervisor, signal.SIGKILL)
            assert (await jobs.wait(T, "one", 0.3)).status == "running"
            os.kill(job.pid, 0)
            with pytest.raises(JobError, match="too many open files"):
                jobs.output(T, "one")
        assert (await jobs.wait(T, "one", 20)).status == "lost"
        assert not alive(job.pid)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# The queue


async def test_jobs_that_have_no_room_start_in_their_order(tmp_path: Path) -> None:
    async with engine(tmp_path, max_running=1) as jobs:
        assert (await jobs.start(order("sleep 100", tmp_path), "0")).status == "running"
        for number in (1, 2, 3):
            job = await jobs.start(order("echo hi", tmp_path), str(number))
            assert (job.status, job.pid, job.started_at) == ("queued", None, None)
        await jobs.cancel(T, "0")
        ended = [await jobs.wait(T, str(number), 20) for number in (1, 2, 3)]
        assert [job.status for job in ended] == ["succeeded"] * 3
        starts = [job.started_at or 0 for job in ended]
        ends = [job.finished_at or 0 for job in ended]
        assert starts[0] < ends[0] < starts[1] < ends[1] < starts[2]
    assert broken(tmp_path) == []


async def test_a_queued_job_that_is_cancelled_never_starts(tmp_path: Path) -> None:
    async with engine(tmp_path, max_running=1) as jobs:
        await jobs.start(order("sleep 100", tmp_path), "0")
        await jobs.start(order("touch started", tmp_path, shell=True), "1")
        done = await jobs.cancel(T, "1", wait=0)
        assert done.result == "cancelled"
        assert done.job is not None
        assert (done.job.status, done.job.ended_by, done.job.last_seq) == ("cancelled", "cancel", 2)
        await jobs.cancel(T, "0")
        await jobs.start(order("echo last", tmp_path), "2")
        await jobs.wait(T, "2", 20)
        assert not (tmp_path / "started").exists()
        assert known(jobs, "1") == done.job
    assert broken(tmp_path) == []


async def test_a_full_queue_refuses_and_keeps_nothing(tmp_path: Path) -> None:
    async with engine(tmp_path, max_running=1, queue=2) as jobs:
        for number in range(3):
            await jobs.start(order("sleep 100", tmp_path), str(number))
        refused = await refusal(jobs.start(order("sleep 100", tmp_path), "3"))
        assert (refused.code, str(refused)) == ("queue_full", "2 jobs are waiting already: try again later")
        assert jobs.get(T, "3") is None
        await jobs.cancel(T, "1")
        assert (await jobs.start(order("sleep 100", tmp_path), "3")).status == "queued"


async def test_a_job_that_waits_too_long_expires(tmp_path: Path) -> None:
    async with engine(tmp_path, max_running=1) as jobs:
        await jobs.start(order("sleep 100", tmp_path), "0")
        await jobs.start(order("sleep 100", tmp_path, ttl=0.1), "1")
        job = await jobs.wait(T, "1", 20)
        assert (job.status, job.ended_by, job.error) == ("expired", "ttl", "it was not started in time")
        assert (await jobs.cancel(T, "1")).result == "already_terminal"


async def test_a_job_that_was_started_in_time_does_not_expire(tmp_path: Path) -> None:
    async with engine(tmp_path, max_running=1) as jobs:
        await jobs.start(order("sleep 0.01", tmp_path, ttl=0.05), "0")
        await jobs.start(order("sleep 0.3", tmp_path, ttl=0.2), "1")
        assert (await jobs.wait(T, "1", 20)).status == "succeeded"


async def test_jobs_with_the_same_key_run_one_after_another(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("sleep 100", tmp_path, after="s1"), "a1")
        assert (await jobs.start(order("sleep 100", tmp_path, after="s1"), "a2")).status == "queued"
        assert (await jobs.start(order("echo 3", tmp_path, after="s1"), "a3")).status == "queued"
        assert (await jobs.start(order("sleep 100", tmp_path, after="s2"), "b1")).status == "running"
        assert (await jobs.start(order("sleep 100", tmp_path, kind="other", after="s1"), "a1")).status == "running"
        assert (await jobs.start(order("sleep 100", tmp_path), "c1")).status == "running"
        for job in ("b1", "c1", "a1"):  # there is room for all that wait
            await jobs.cancel(T, job)
        await reached(jobs, "a2", "running")
        assert known(jobs, "a3").status == "queued"
        await jobs.cancel(T, "a2")
        assert (await jobs.wait(T, "a3", 20)).status == "succeeded"


async def test_a_queued_job_that_cannot_be_started_fails(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    async with engine(tmp_path, max_running=1) as jobs:
        await jobs.start(order("sleep 100", tmp_path), "0")
        await jobs.start(order("echo hi", place), "1")
        await jobs.start(order("echo hi", tmp_path), "2")
        place.rmdir()
        await jobs.cancel(T, "0")
        job = await jobs.wait(T, "1", 20)
        assert (job.status, job.ended_by) == ("failed", "spawn_error")
        assert job.error == f"cwd `{place}` cannot be used: no such file or directory"
        assert (await jobs.wait(T, "2", 20)).status == "succeeded"
    assert broken(tmp_path) == []


# What is refused


async def test_what_cannot_be_started_leaves_nothing(tmp_path: Path) -> None:
    told: list[tuple[Job, Event]] = []
    async with engine(tmp_path) as jobs:
        jobs.watch(lambda job, event: told.append((job, event)))
        refused = await refusal(jobs.start(order("echo hi", tmp_path, argv=("/nonexistent",)), "one"))
        assert (refused.code, str(refused)) == ("spawn", "cannot start `/nonexistent`: no such file or directory")
        assert jobs.get(T, "one") is None
        assert os.listdir(tmp_path / "state" / "jobs") == []
        assert told == []
        assert (await jobs.start(order("echo hi", tmp_path), "one")).status == "running"


META = "what is to be kept with the job"
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]

BAD_ORDERS: list[tuple[dict[str, Any], str, str]] = [
    ({"cwd": "relative/path"}, "cwd_relative", "cwd `relative/path` must be an absolute path"),
    ({"cwd": ""}, "cwd_relative", "cwd `` must be an absolute path"),
    ({"cwd": "{}/missing"}, "cwd_missing", "cwd `{}/missing` cannot be used: no such file or directory"),
    ({"cwd": "{}/a\0b"}, "cwd_missing", "cwd `{}/a\\0b` cannot be used: no such path"),
    ({"cwd": "{}/\ud800"}, "cwd_missing", "cwd `{}/?` cannot be used: no such path"),
    ({"cwd": "{}/file"}, "cwd_not_directory", "cwd `{}/file` is not a directory"),
    ({"cwd": "{}/file/below"}, "cwd_not_directory", "cwd `{}/file/below` is not a directory"),
    ({"cwd": "/"}, "cwd_outside", "cwd `/` is outside of `{}`, where jobs may run"),
    ({"cwd": "{}/../"}, "cwd_outside", "cwd `{}/../` is outside of `{}`, where jobs may run"),
    ({"cwd": "{}/link"}, "cwd_outside", "cwd `{}/link` is outside of `{}`, where jobs may run"),
    ({"cwd": "{}-beside"}, "cwd_outside", "cwd `{}-beside` is outside of `{}`, where jobs may run"),
    ({"text": "x" * 10_000_000}, "too_large", "the text is 10000000 bytes long: 1048576 are allowed"),
    ({"text": "a\0b"}, "bad_text", "the text contains a NUL"),
    ({"text": "\ud800"}, "bad_text", "the text is not valid Unicode"),
    ({"argv": ("echo", "a\0b")}, "bad_text", "the argument contains a NUL"),
    ({"argv": ("echo", "x" * 131_072)}, "too_large", "the argument is 131072 bytes long: 131071 are allowed"),
    ({"argv": ()}, "bad_text", "the command is empty"),
    ({"meta": {"x": "x" * 1_100_000}}, "too_large", f"{META} is 1100008 bytes long: 1048576 are allowed"),
    ({"meta": {"x": "\ud800"}}, "bad_text", f"{META} is not valid Unicode"),
    ({"meta": {"x": DEEP}}, "bad_text", f"{META} is nested too deeply"),
    ({"timeout": 0.0}, "timeout", "timeout `0` must be a number of seconds above 0, and 1800 at most"),
    ({"timeout": -1.0}, "timeout", "timeout `-1` must be a number of seconds above 0, and 1800 at most"),
    ({"timeout": math.nan}, "timeout", "timeout `nan` must be a number of seconds above 0, and 1800 at most"),
    ({"timeout": math.inf}, "timeout", "timeout `inf` must be a number of seconds above 0, and 1800 at most"),
    ({"timeout": 1e300}, "timeout", "timeout `1e+300` must be a number of seconds above 0, and 1800 at most"),
    ({"ttl": math.nan}, "timeout", "ttl `nan` must be a number of seconds above 0, and 31622400 at most"),
    ({"ttl": 0.0}, "timeout", "ttl `0` must be a number of seconds above 0, and 31622400 at most"),
]


@pytest.mark.parametrize(("bad", "code", "said"), BAD_ORDERS, ids=lambda value: value if isinstance(value, str) else "")
async def test_a_bad_order_is_refused_and_changes_nothing(
    tmp_path: Path, bad: dict[str, Any], code: str, said: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "root-beside").mkdir()
    (root / "file").write_text("")
    (root / "link").symlink_to("/")
    if "cwd" in bad:
        bad = {"cwd": bad["cwd"].replace("{}", str(root))}
    async with engine(tmp_path, root=str(root)) as jobs:
        refused = await refusal(jobs.start(order("echo hi", root, **bad), "one"))
        assert (refused.code, str(refused)) == (code, said.replace("{}", str(root)))
        assert jobs.get(T, "one") is None
        assert jobs.counts() == {}
        assert os.listdir(tmp_path / "state" / "jobs") == []


async def test_an_id_is_used_once(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("echo hi", tmp_path), "one")
        assert (await refusal(jobs.start(order("echo hi", tmp_path), "one"))).code == "duplicate"
        assert (await refusal(jobs.start(order("echo hi", tmp_path), "x" * 2000))).code == "too_large"


async def test_a_link_within_the_root_is_a_place_to_work(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    async with engine(tmp_path) as jobs:
        assert jobs.check_cwd(f"{tmp_path}/link") == f"{tmp_path}/real"
        await jobs.start(order("/bin/pwd -P", tmp_path / "link", shell=True), "one")
        assert (await jobs.wait(T, "one", 20)).cwd == f"{tmp_path}/link"
        assert jobs.output(T, "one").head.decode() == f"{tmp_path}/real\n"


async def test_on_a_full_disk_nothing_is_started_and_nothing_lost(tmp_path: Path) -> None:
    async with engine(tmp_path, max_running=2) as jobs:
        await jobs.start(order("ask Ready?", tmp_path), "one")
        await reached(jobs, "one", "waiting")
        with no_room(tmp_path / "state"):
            assert (await refusal(jobs.start(order("echo hi", tmp_path), "two"))).code == "store"
            assert (await refusal(jobs.send(T, "one", "yes"))).code == "store"
            assert known(jobs, "one").status == "waiting"
        assert jobs.get(T, "two") is None
        assert await jobs.send(T, "one", "yes") is True
        assert (await jobs.wait(T, "one", 20)).status == "succeeded"
    assert broken(tmp_path) == []


async def test_a_full_disk_keeps_no_job_alive(tmp_path: Path) -> None:
    async with engine(tmp_path, max_running=1) as jobs:
        runs = await jobs.start(order("sleep 100", tmp_path), "runs")
        await jobs.start(order("touch started", tmp_path, shell=True), "queued")
        with no_room(tmp_path / "state"):
            for job in ("queued", "runs"):
                assert (await jobs.cancel(T, job, by="me", wait=0)).result == "still_stopping"
                assert (await jobs.cancel(T, job, by="you", wait=0)).result == "already_cancelling"
            until(lambda: not alive(runs.pid or 0))
            assert (await jobs.cancel(T, "runs", wait=0.05)).result == "still_stopping", (
                "nobody could write that it ended"
            )
            assert [known(jobs, job).status for job in ("queued", "runs")] == ["queued", "running"]
        for job in ("queued", "runs"):
            ended = await jobs.wait(T, job, 20)
            assert (ended.status, ended.ended_by, ended.cancel_by) == ("cancelled", "cancel", "me")
        assert statuses(jobs, "runs") == ["running", "cancelled"]
        assert not (tmp_path / "started").exists()
    assert broken(tmp_path) == []


async def test_a_full_disk_lets_the_server_end(tmp_path: Path) -> None:
    jobs = await Engine.open(settings(tmp_path, max_running=1))
    await jobs.start(order("sleep 100", tmp_path), "runs")
    await jobs.start(order("sleep 100", tmp_path), "queued")
    with no_room(tmp_path / "state"):
        await jobs.close()
        assert survivors(tmp_path) == []
    async with engine(tmp_path) as jobs:
        assert {job.id: job.status for job in jobs.list(T)} == {"runs": "lost", "queued": "queued"}
    assert broken(tmp_path) == []


class Swapping(LocalLauncher):
    """Has a directory become a link to another place after it was checked."""

    async def launch(self, work: Work) -> Process:
        os.rmdir(work.cwd)
        os.symlink("/", work.cwd)
        return await super().launch(work)


async def test_a_place_to_work_that_becomes_a_link_in_between_is_outside(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    jobs = await Engine.open(settings(tmp_path), Swapping())
    try:
        refused = await refusal(jobs.start(order("sleep 100", tmp_path / "place"), "one"))
        assert (refused.code, str(refused)) == ("cwd_outside", f"cwd `{tmp_path}/place` became a link to another place")
        assert jobs.get(T, "one") is None
    finally:
        await jobs.close()
    assert survivors(tmp_path) == []


async def test_a_job_without_a_place_for_its_files_is_not_started(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        (tmp_path / "state" / "jobs" / "1").write_text("")
        refused = await refusal(jobs.start(order("echo hi", tmp_path), "one"))
        place = f"{tmp_path}/state/jobs/1"
        assert (refused.code, str(refused)) == ("store", f"cannot create directory `{place}`: file exists")
        assert jobs.get(T, "one") is None


async def test_an_end_that_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        job = await jobs.start(order("sleep 100", tmp_path), "one")
        assert job.pid is not None
        with no_room(tmp_path / "state"):
            os.kill(job.pid, signal.SIGKILL)
            while survivors(tmp_path):
                await jobs.wait(T, "one", 0.02)
            assert (await jobs.wait(T, "one", 0.1)).status == "running"
        ended = await jobs.wait(T, "one", 20)
        assert (ended.status, ended.term_signal) == ("failed", signal.SIGKILL)
    assert broken(tmp_path) == []


# Waiting and watching


async def test_who_waits_is_woken_by_the_next_event(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("ask Which?", tmp_path), "one")
        await jobs.changed(T, "one", 2, 20)
        assert [event.type for event in jobs.events(T, "one", after=2)] == ["input_required"]
        await jobs.changed(T, "one", 0, 20)  # there is one already
        waiting = [asyncio.create_task(jobs.wait(T, "one", 20)) for _ in range(3)]
        await jobs.changed(T, "one", 3, 0.01)
        await jobs.send(T, "one", "this")
        assert {job.status for job in await asyncio.gather(*waiting)} == {"succeeded"}
        await jobs.changed(T, "one", 99, 20)  # it has ended
        await jobs.changed(T, "unknown", 0, 20)


@pytest.mark.parametrize("seconds", [0.0, -5.0, math.nan, -math.inf])
async def test_no_time_is_no_wait(tmp_path: Path, seconds: float) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("sleep 100", tmp_path), "one")
        assert (await jobs.wait(T, "one", seconds)).status == "running"
        await jobs.changed(T, "one", 99, seconds)
        assert (await jobs.cancel(T, "one", wait=seconds)).result == "still_stopping"
        assert (await jobs.wait(T, "one", math.inf)).status == "cancelled"


async def test_an_unknown_job_cannot_be_waited_for(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        assert (await refusal(jobs.wait(T, "nope", 1))).code == "unknown"
        with pytest.raises(JobError, match="there is no job `nope`"):
            jobs.note(T, "nope", "progress", {})
        assert jobs.events(T, "nope") == []
        assert jobs.output(T, "nope").head == b""


async def test_watchers_are_told_of_every_event_in_order(tmp_path: Path) -> None:
    told: list[tuple[str, int, str, int]] = []
    async with engine(tmp_path, max_running=1) as jobs:
        jobs.watch(lambda job, event: told.append((job.id, event.seq, event.type, job.last_seq)))
        await jobs.start(order("sleep 100", tmp_path), "one")
        await jobs.start(order("echo hi", tmp_path), "two")
        jobs.note(T, "two", "mine", {"a": 1})
        await jobs.cancel(T, "one")
        await jobs.wait(T, "two", 20)
        for job in ("one", "two"):
            expected = [(event.seq, event.type) for event in jobs.events(T, job)]
            assert [(seq, what) for name, seq, what, _ in told if name == job] == expected
        assert all(seq <= last for _, seq, _, last in told)


async def test_a_watcher_that_fails_harms_no_job(tmp_path: Path) -> None:
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["message"]))
    told: list[int] = []

    def fail(job: Job, event: Event) -> None:
        raise RuntimeError("oh")

    async with engine(tmp_path) as jobs:
        jobs.watch(fail)
        jobs.watch(lambda _, event: told.append(event.seq))
        await jobs.start(order("echo hi", tmp_path), "one")
        assert (await jobs.wait(T, "one", 20)).status == "succeeded"
    assert told == [1, 2, 3]
    assert faults == ["a watcher of jobs failed: RuntimeError('oh')"] * 3


async def test_what_a_dialect_adds_is_an_event_and_never_a_status(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("sleep 100", tmp_path), "one")
        assert jobs.note(T, "one", "agent_message", {"text": "hi"}).seq == 3
        with pytest.raises(ValueError, match="status"):
            jobs.note(T, "one", "status", {"status": "succeeded"})
        with pytest.raises(JobError, match="the event is not valid Unicode"):
            jobs.note(T, "one", "agent_message", {"text": "\ud800"})
        await jobs.cancel(T, "one")
        late = jobs.note(T, "one", "agent_message", {"text": "too late"})
        assert (late.seq, late.type) == (6, "late_output")
        assert known(jobs, "one").status == "cancelled"
    assert broken(tmp_path) == []


# Callers that give up, and servers that end


@pytest.mark.parametrize("patience", [0.0, 0.005, 0.02])
async def test_a_caller_that_gives_up_leaves_a_job_that_is_known(tmp_path: Path, patience: float) -> None:
    async with engine(tmp_path) as jobs:
        starting = asyncio.create_task(jobs.start(order("sleep 100", tmp_path), "one"))
        await asyncio.wait([starting], timeout=patience)
        starting.cancel()
        await asyncio.wait([starting])
        job = jobs.get(T, "one")
        if job is not None:  # not even begun
            assert (await jobs.cancel(T, "one")).result == "cancelled"
    assert broken(tmp_path) == []


async def test_one_that_cannot_be_started_is_forgotten_even_if_nobody_waits(tmp_path: Path) -> None:
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["message"]))
    async with engine(tmp_path) as jobs:
        starting = asyncio.create_task(jobs.start(order("echo hi", tmp_path, argv=("/nonexistent",)), "one"))
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        while jobs.get(T, "one") is not None:
            await asyncio.sleep(0.01)
        await jobs.start(order("echo hi", tmp_path), "two")
        await jobs.wait(T, "two", 20)
    del starting
    gc.collect()  # a task that failed says so when it is collected
    assert faults == []


async def test_a_job_that_is_cancelled_while_it_starts_is_cancelled(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        starting = asyncio.create_task(jobs.start(order("sleep 100", tmp_path), "one"))
        await asyncio.sleep(0)
        assert (await jobs.cancel(T, "one")).result == "cancelled"
        assert (await starting).status in ("cancelling", "cancelled")
        assert statuses(jobs, "one") == ["running", "cancelling", "cancelled"]
    assert broken(tmp_path) == []


async def test_one_that_is_cancelled_and_cannot_be_started_is_cancelled(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        starting = asyncio.create_task(jobs.start(order("echo hi", tmp_path, argv=("/nonexistent",)), "one"))
        await asyncio.sleep(0)
        assert (await jobs.cancel(T, "one")).result == "cancelled"
        assert (await starting).status == "cancelled"
    assert broken(tmp_path) == []


async def test_a_caller_that_gives_up_cancelling_has_asked(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("stubborn 100", tmp_path), "one")
        await line(jobs, "one")
        cancelling = asyncio.create_task(jobs.cancel(T, "one"))
        await asyncio.sleep(0)
        cancelling.cancel()
        assert (await jobs.wait(T, "one", 20)).status == "cancelled"


async def test_a_server_that_ends_cancels_its_jobs_and_answers_who_waits(tmp_path: Path) -> None:
    jobs = await Engine.open(settings(tmp_path, max_running=2))
    await jobs.start(order("stubborn 100", tmp_path), "one")
    await jobs.start(order("sleep 100", tmp_path), "two")
    await jobs.start(order("sleep 100", tmp_path), "three")
    await line(jobs, "one")
    waiting = [asyncio.create_task(jobs.wait(T, job, 20)) for job in ("one", "two", "three")]
    await asyncio.sleep(0)
    closing = asyncio.create_task(jobs.close())
    await asyncio.sleep(0)
    assert (await refusal(jobs.start(order("sleep 100", tmp_path), "four"))).code == "closed"
    ended = await asyncio.gather(*waiting)
    await closing
    await jobs.close()
    assert {(job.status, job.ended_by, job.cancel_reason) for job in ended} == {
        ("cancelled", "server_shutdown", "shutdown")
    }
    assert survivors(tmp_path) == []
    assert broken(tmp_path) == []


async def test_a_job_that_is_being_started_when_the_server_ends_is_cancelled(tmp_path: Path) -> None:
    jobs = await Engine.open(settings(tmp_path))
    starting = asyncio.create_task(jobs.start(order("sleep 100", tmp_path), "one"))
    await asyncio.sleep(0)
    await jobs.close()
    assert (await starting).status in ("cancelling", "cancelled")
    assert survivors(tmp_path) == []
    assert broken(tmp_path) == []


@pytest.mark.parametrize("count", [0, 1])
async def test_a_server_ends_in_time_whatever_the_grace(tmp_path: Path, count: int) -> None:
    jobs = await Engine.open(settings(tmp_path, grace=60.0))
    if count:
        await jobs.start(order("stubborn 100", tmp_path), "one")
        await line(jobs, "one")
    before = time.monotonic()
    await jobs.close()
    assert time.monotonic() - before < 5
    assert survivors(tmp_path) == []
    assert broken(tmp_path) == []


async def test_a_server_ends_in_time_even_if_a_supervisor_was_stopped(tmp_path: Path) -> None:
    jobs = await Engine.open(settings(tmp_path))
    job = await jobs.start(order("sleep 100", tmp_path), "one")
    assert job.pid is not None
    os.kill(_parent(job.pid), signal.SIGSTOP)
    before = time.monotonic()
    await jobs.close()
    assert time.monotonic() - before < 5
    assert survivors(tmp_path) == []
    assert broken(tmp_path) == []


# What is kept


@pytest.mark.parametrize("limits", [{"keep": 2}, {"keep_seconds": 0.0}])
async def test_ended_jobs_are_forgotten_with_their_files(tmp_path: Path, limits: dict[str, Any]) -> None:
    async with engine(tmp_path, **limits) as jobs:
        await jobs.start(order("sleep 100", tmp_path), "runs")
        for number in range(4):
            await jobs.start(order("echo hi", tmp_path), str(number))
            await jobs.wait(T, str(number), 20)
        kept = limits.get("keep", 0)
        while len(left := jobs.list(T)) > kept + 1:
            await jobs.wait(T, "runs", 0.05)
        assert [job.id for job in left] == [*("3", "2")[:kept], "runs"]
        directories = tmp_path / "state" / "jobs"
        while len(os.listdir(directories)) > kept + 1:
            await jobs.wait(T, "runs", 0.05)
        assert sorted(os.listdir(directories)) == sorted(str(job.row) for job in left)


async def test_files_that_no_job_has_are_removed_when_the_store_is_opened(tmp_path: Path) -> None:
    async with engine(tmp_path) as jobs:
        await jobs.start(order("echo hi", tmp_path), "one")
        await jobs.wait(T, "one", 20)
    directories = tmp_path / "state" / "jobs"
    (directories / "99").mkdir()
    (directories / "99" / "head").write_text("")
    async with engine(tmp_path) as jobs:
        assert os.listdir(directories) == ["1"]
        assert jobs.output(T, "one").head == b"hi\n"


async def test_a_state_directory_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    refused = await refusal(Engine.open(settings(tmp_path)))
    assert refused.code == "store"
