"""The witness sees what is there, whatever the server would say: processes by their mark, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from intercept_py.jobs import strays
from intercept_py.jobs.witness import Witness, alive, ancestors
from tests.support.job_processes import engine, order
from tests.support.jobs import row_of

pytestmark = pytest.mark.anyio


async def test_a_job_is_its_supervisor_its_first_process_and_what_those_started(tmp_path: Path) -> None:
    witness = Witness(str(tmp_path / "state"))
    async with engine(tmp_path) as jobs:
        one = await jobs.start(order("sleep 60", tmp_path), "one")
        await jobs.start(order("sleep 60", tmp_path), "two")
        assert witness.leader("one") == one.pid
        assert one.pid in witness.processes("one")
        assert len(witness.processes("one")) == 2
        assert witness.everything() == witness.processes("one") | witness.processes("two")
        (supervisor,) = witness.processes("one") - {one.pid}
        assert next(ancestors(one.pid, os.getpid())) == supervisor
        assert supervisor not in ancestors(supervisor, os.getpid())
        await jobs.cancel("test", "one")
        assert witness.processes("one") == set()
        assert witness.everything() == witness.processes("two") != set()
    assert witness.everything() == set()


async def test_what_outlives_its_server_is_seen(tmp_path: Path) -> None:
    """As a process would be that a broken engine left behind."""
    async with engine(tmp_path) as jobs:
        await jobs.start(order("echo done", tmp_path), "one")
        await jobs.wait("test", "one", 30)
    witness, row = Witness(str(tmp_path / "state")), row_of(tmp_path, "one")
    with sleeping(f"{row['uuid']}/{row['row']}") as left, sleeping("another store/1"):
        assert witness.everything() == witness.processes("one") == {left}


@pytest.fixture
def mark() -> str:
    """A job's mark that no process of a test beside this one has."""
    return f"{uuid.uuid4()}/1"


@pytest.mark.parametrize("stands_still", [False, True], ids=["", "the machine stands still between two looks"])
def test_a_process_is_seen_in_the_middle_of_starting_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, stands_still: bool
) -> None:
    """Until the new program has its environment, the kernel shows none: without waiting, one look in forty is blind."""
    if stands_still:  # so that no time is left when it goes on
        monkeypatch.setattr(strays, "_EXECVE", 0)
    program = tmp_path / "again"
    program.write_text('#!/bin/sh\nexec "$0"\n')
    program.chmod(0o755)
    with subprocess.Popen([program], env={strays.MARK: mark}) as process:
        try:
            assert {process.pid in strays.marked(mark) for _ in range(500)} == {True}
            assert all(f"{strays.MARK}={mark}".encode() in strays.environment(process.pid) for _ in range(5_000))
        finally:
            process.kill()


def test_what_has_no_environment_is_not_waited_for() -> None:
    with subprocess.Popen(["sleep", "60"], env={}) as process:
        assert strays.environment(process.pid) == []
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError):  # a zombie
            strays.environment(process.pid)
    with pytest.raises(FileNotFoundError):
        strays.environment(process.pid)


HIDING = """
import ctypes, os, time
start, end = (int(field) for field in open("/proc/self/stat").read().rpartition(")")[2].split()[47:49])
page, sleep, write = os.sysconf("SC_PAGESIZE"), time.sleep, os.write
unmap = ctypes.CDLL(None).munmap
unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
unmap(start // page * page, -(-end // page) * page - start // page * page)
write(1, b"hidden")
sleep(60)
"""
"""It unmaps the pages of its environment, the last ones of its stack. What lies before them is a long argument."""


def test_a_process_that_hides_its_environment_does_not_hide_others(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    turns: list[None] = []
    kept = strays._turns

    def counted() -> Iterator[None]:
        for turn in kept():
            turns.append(turn)
            yield

    with started(HIDING, {"A": "b" * 20_000}) as hiding, sleeping(mark) as marked:
        with monkeypatch.context() as patch:
            patch.setattr(strays, "_turns", counted)
            assert strays.environment(hiding) == []
        assert len(turns) == 2  # the same program at both: nothing more is waited for
        assert strays.marked(mark) == [marked]
        assert strays.kill(mark)


FIRST_THREAD_ENDS = """
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
os.write(1, b"ended")
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_is_seen_and_ended(mark: str) -> None:
    with started(FIRST_THREAD_ENDS, {strays.MARK: mark}) as process:
        while not Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].startswith(" Z"):
            time.sleep(0.01)
        assert strays.marked(mark) == [process]
        assert strays.kill(mark)
        assert strays.marked(mark) == []


@contextmanager
def started(code: str, environment: dict[str, str]) -> Iterator[int]:
    """A Python process, once it has said something."""
    command = [sys.executable, "-c", code, "x" * 20_000]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.read(5)
            yield process.pid
        finally:
            process.kill()


@contextmanager
def sleeping(mark: str) -> Iterator[int]:
    """A process that carries the mark of a job."""
    with subprocess.Popen(["sleep", "60"], env={**os.environ, strays.MARK: mark}) as process:
        yield process.pid
        process.kill()


def test_of_a_store_that_does_not_exist_yet_there_is_nothing_to_see_and_nothing_is_made(tmp_path: Path) -> None:
    witness = Witness(str(tmp_path / "state"))
    assert (witness.leader("one"), witness.processes("one"), witness.everything()) == (0, set(), set())
    (tmp_path / "state").mkdir()
    (tmp_path / "state/jobs.db").touch()
    assert (witness.leader("one"), witness.processes("one"), witness.everything()) == (0, set(), set())


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "print()"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not alive(process.pid)
    assert not alive(process.pid)
    assert alive(os.getpid())
