"""Starting, ending and reaping one child and its group."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import pytest

from intercept_py import processes
from intercept_py.errors import UpstreamError


def output(child: processes.Child) -> str:
    """Everything the child writes to its stdout."""
    data = b""
    while select.select([child.stdout], [], [], 20)[0] and (more := os.read(child.stdout, 65536)):
        data += more
    return data.decode()


def reap(child: processes.Child) -> int:
    """Wait until the child has ended."""
    waited = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert waited is not None
    status = child.poll()
    assert status is not None
    return status


def test_a_child_gets_the_whole_environment_and_leads_its_own_session() -> None:
    script = "import os; print(os.environ['A_SECRET'], os.getsid(0) == os.getpid())"
    child = processes.start([sys.executable, "-c", script], {**os.environ, "A_SECRET": "s"})
    assert output(child).split() == ["s", "True"]
    assert reap(child) == 0


def test_a_child_does_not_inherit_that_python_ignores_sigpipe() -> None:
    assert reap(processes.start(["sh", "-c", "kill -PIPE $$"], os.environ)) == 128 + signal.SIGPIPE


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", 137), ("true", 0)])
def test_a_status_is_told_as_a_shell_tells_it(script: str, status: int) -> None:
    assert reap(processes.start(["sh", "-c", script], os.environ)) == status


def test_the_group_is_ended_with_the_children_of_the_child() -> None:
    child = processes.start(["sh", "-c", "sleep 1000 & echo started; wait"], os.environ)
    assert os.read(child.stdout, 100) if select.select([child.stdout], [], [], 20)[0] else b""
    assert child.group_alive()
    child.kill_group(signal.SIGKILL)
    assert reap(child) == 137
    assert output(child) == ""  # the end of the pipe: nobody holds it any more


def test_signalling_a_group_that_is_gone_does_nothing() -> None:
    child = processes.start(["true"], os.environ)
    reap(child)
    child.kill_group(signal.SIGTERM)
    assert not child.group_alive()


def test_stdin_is_closed_once() -> None:
    child = processes.start(["cat"], os.environ)
    child.close_stdin()
    child.close_stdin()
    assert reap(child) == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-command-anywhere", "no such command"),
        ("/", "cannot start `/`"),
        ("a\0b", "NUL"),
    ],
)
def test_what_cannot_be_started_is_one_line_and_leaks_nothing(command: str, said: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UpstreamError, match="cannot start") as refused:
        processes.start([command], os.environ)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_path_with_no_execute_permission_says_so(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(UpstreamError, match="permissions"):
        processes.start([str(script)], os.environ)
