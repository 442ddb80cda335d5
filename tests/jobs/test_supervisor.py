"""One supervisor and its job, driven through the pipes that a server holds."""

from __future__ import annotations

import array
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from intercept_py.jobs import recipes, supervisor
from tests.support.job_processes import Supervised, alive, until

Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a supervisor for a recipe, or with `shell` for a shell command, or with `command` for that one."""
    with ExitStack() as stack:

        def begin(text: str = "", *, shell: str = "", command: tuple[str, ...] = (), **options: object) -> Supervised:
            argv = command or (("/bin/sh", "-c", shell) if shell else recipes.parse(text, False))
            return stack.enter_context(Supervised(tmp_path, argv, **options))  # type: ignore[arg-type]

        yield begin


def output(path: Path) -> tuple[bytes, bytes, int]:
    """Head, tail and how much is missing in between."""
    if not (path / "tail").exists():
        return (path / "head").read_bytes(), b"", 0
    dropped, _, tail = (path / "tail").read_bytes().partition(b"\n")
    return (path / "head").read_bytes(), tail, int(dropped)


NATURAL = {"signal": None, "asked": False, "killed": False, "ended_by": "exit", "events_dropped": 0}


def test_a_job_that_ends_by_itself_is_reported_and_recorded(start: Start, tmp_path: Path) -> None:
    job = start("fail 3")
    job.started()
    end, events = job.end()
    assert end == {"code": 3, **NATURAL}
    assert events == []
    assert json.loads((tmp_path / "exit.json").read_bytes()) == end
    assert output(tmp_path) == (b"failing with 3\n", b"", 0)


def test_a_job_that_a_signal_ends_has_no_code(start: Start) -> None:
    job = start(shell="kill -SEGV $$")
    job.started()
    assert job.end()[0] == {**NATURAL, "code": None, "signal": signal.SIGSEGV}


def test_files_are_for_their_owner_only(start: Start, tmp_path: Path) -> None:
    job = start("flood 1")
    job.started()
    job.end()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"head": 0o600, "tail": 0o600, "exit.json": 0o600}


def test_a_job_leads_its_own_session_with_default_signals_and_no_descriptor_of_ours(start: Start) -> None:
    script = (
        "import os, signal; print(os.getsid(0) == os.getpid(), sorted(map(int, os.listdir('/proc/self/fd'))),"
        " [s.name for s in signal.Signals if s < 32 and signal.getsignal(s) is signal.SIG_IGN])"
    )
    job = start(command=(sys.executable, "-I", "-S", "-c", script))
    job.started()
    job.end()
    # 4 is the listing itself; Python ignores these two signals on its own.
    assert output(job.path)[0] == b"True [0, 1, 2, 3, 4] ['SIGPIPE', 'SIGXFSZ']\n"


def test_a_job_does_not_inherit_that_python_ignores_sigpipe(start: Start) -> None:
    job = start(shell="kill -PIPE $$")
    job.started()
    assert job.end()[0]["signal"] == signal.SIGPIPE


def test_a_cancelled_job_is_asked_first(start: Start) -> None:
    job = start(shell="trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")
    job.started()
    job.printed(b"ready")
    job.cancel()
    assert job.end()[0] == {**NATURAL, "code": 7, "asked": True, "ended_by": "cancel"}


def test_a_job_that_does_not_listen_is_killed_after_the_grace(start: Start) -> None:
    job = start("stubborn 100")
    pid = job.started()
    job.printed(b"ready")
    job.cancel()
    end, _ = job.end()
    assert end == {
        **NATURAL,
        "code": None,
        "signal": signal.SIGKILL,
        "asked": True,
        "killed": True,
        "ended_by": "cancel",
    }
    assert not alive(pid)


def test_every_process_of_the_group_is_asked_and_not_the_first_alone(start: Start) -> None:
    member = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    job = start(shell=f"trap : TERM; ({member}) & while kill -0 $!; do sleep 0.01; done 2>/dev/null; exit 7")
    job.started()
    job.printed(b"ready")
    job.cancel()
    assert job.end()[0] == {**NATURAL, "code": 7, "asked": True, "ended_by": "cancel"}


def test_a_stopped_job_is_woken_to_end(start: Start) -> None:
    job = start(shell="trap 'exit 7' TERM; echo ready; kill -STOP $$; exit 8", grace=20)
    job.started()
    job.printed(b"ready")
    job.cancel()
    assert job.end()[0]["code"] in (7, 8)  # 8 if the request came before it had stopped itself


def test_a_job_that_stops_instead_of_ending_is_asked_again(start: Start) -> None:
    once = "trap 'trap \"\" TERM; kill -STOP $$; exit 7' TERM"
    job = start(shell=f"{once}; echo ready; while :; do sleep 0.01; done", grace=0.6)
    job.started()
    job.printed(b"ready")
    job.cancel()
    assert job.end()[0] == {**NATURAL, "code": 7, "asked": True, "ended_by": "cancel"}


def test_children_and_daemons_end_with_the_job(start: Start, tmp_path: Path) -> None:
    job = start("forker 100", grace=20)
    pids = [job.started()]
    job.printed(b"\n")
    pids += [int(word) for word in (tmp_path / "head").read_text().split() if word.isdigit()]
    assert len(pids) == 3
    assert all(map(alive, pids))
    before = time.monotonic()
    job.cancel()
    assert job.end()[0]["killed"] is False
    assert time.monotonic() - before < 5, "the daemon is asked as soon as it is found"
    assert not any(map(alive, pids))


DAEMON = "(setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 100' &); while [ ! -s head ]; do sleep 0.01; done"


def test_what_outlives_the_first_process_is_ended_and_the_outcome_stays(start: Start, tmp_path: Path) -> None:
    job = start(shell=f"{DAEMON}; exit 3")
    job.started()
    end, _ = job.end()
    assert end == {**NATURAL, "code": 3, "killed": True}
    assert not alive(int((tmp_path / "head").read_text()))


def test_an_end_that_was_seen_before_the_request_is_no_cancellation(start: Start, tmp_path: Path) -> None:
    job = start(shell=f"{DAEMON}; exit 0", grace=1)
    pid = job.started()
    until(lambda: not alive(pid))
    assert Path(f"/proc/{pid}").exists(), "its number is not given away while something of the job is left"
    job.cancel()  # while the daemon is being ended
    assert job.end()[0] == {**NATURAL, "code": 0, "asked": True, "killed": True}


def test_a_request_and_an_end_that_are_seen_together_are_an_end(start: Start, tmp_path: Path) -> None:
    job = start(shell="until [ -e go ]; do sleep 0.01; done; exit 3")
    pid = job.started()
    job.process.send_signal(signal.SIGSTOP)
    (tmp_path / "go").write_text("")
    until(lambda: not alive(pid))
    job.cancel()
    job.process.send_signal(signal.SIGCONT)
    end = job.end()[0]
    assert end == {**NATURAL, "code": 3, "asked": end["asked"]}  # whether the request was read at all is a race


def test_a_job_may_run_for_its_time_only(start: Start) -> None:
    job = start("sleep 100", timeout=0.1)
    job.started()
    end, _ = job.end()
    assert end == {**NATURAL, "code": None, "signal": signal.SIGTERM, "ended_by": "timeout"}


def test_a_job_ends_when_its_server_is_gone(start: Start, tmp_path: Path) -> None:
    job = start("stubborn 100", grace=60)
    pid = job.started()
    job.printed(b"ready")
    job.die()
    end, _ = job.end()
    assert (end["ended_by"], end["asked"], end["killed"]) == ("server_died", False, True)
    assert not alive(pid)
    assert json.loads((tmp_path / "exit.json").read_bytes()) == end


def test_a_long_grace_is_cut_short_when_the_server_is_gone(start: Start) -> None:
    job = start("stubborn 100", grace=60)
    job.started()
    job.printed(b"ready")
    job.cancel()
    job.die()
    assert job.end()[0]["ended_by"] == "cancel"


def test_the_supervisor_does_not_die_of_signals_that_are_meant_for_everybody(start: Start) -> None:
    job = start("sleep 100")
    job.started()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        job.process.send_signal(signum)
    job.cancel()
    assert job.end()[0]["ended_by"] == "cancel"


def test_a_flood_is_kept_at_both_ends_and_counted(start: Start, tmp_path: Path) -> None:
    job = start("flood 3", head=1000, tail=100)
    job.started()
    job.end()
    whole = (b"0123456789" * 6 + b"012\n") * (3 * 1024 * 16)
    assert output(tmp_path) == (whole[:1000], whole[-100:], len(whole) - 1100)


@pytest.mark.parametrize(
    ("size", "kept"), [(10, (10, 0, 0)), (64, (64, 0, 0)), (100, (64, 36, 0)), (200, (64, 100, 36))]
)
def test_output_is_whole_as_long_as_it_fits(
    start: Start, tmp_path: Path, size: int, kept: tuple[int, int, int]
) -> None:
    job = start(shell=f"head -c {size} /dev/zero", head=64, tail=100)
    job.started()
    job.end()
    head, tail, dropped = output(tmp_path)
    assert (len(head), len(tail), dropped) == kept


def test_the_tail_can_be_read_while_the_job_runs(start: Start, tmp_path: Path) -> None:
    job = start(shell="echo first; echo second; exec sleep 100", head=6)
    job.started()
    until(lambda: output(tmp_path) == (b"first\n", b"second\n", 0))
    job.cancel()
    job.end()


def test_a_full_disk_costs_output_and_not_the_job(start: Start, tmp_path: Path) -> None:
    job = start(shell="read line; head -c 100000 /dev/zero", head=50_000, tail=10)
    job.started()
    resource.prlimit(job.process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    job.say(b"input 3\ngo\n")
    assert job.end()[0] == {"code": 0, **NATURAL}
    head, tail, dropped = output(tmp_path)
    assert (len(head), len(tail), dropped) == (20_000, 10, 79_990)


def test_where_no_record_can_be_written_the_report_stands(start: Start, tmp_path: Path) -> None:
    (tmp_path / "exit.json.new").mkdir()
    job = start("echo hello")
    job.started()
    assert job.end()[0] == {"code": 0, **NATURAL}
    assert not (tmp_path / "exit.json").exists()


def test_nobody_who_holds_the_output_open_delays_the_end(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        script = (
            "import array, socket; s = socket.socket(socket.AF_UNIX); s.connect('socket');"
            "s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1, 3]))]); s.recv(1)"
        )
        job = start(command=(sys.executable, "-I", "-S", "-c", script))
        job.started()
        peer, _ = listener.accept()
        with peer:
            _, rights, _, _ = peer.recvmsg(1, socket.CMSG_SPACE(8))
            held = array.array("i", rights[0][2])
    try:
        assert job.end()[0]["ended_by"] == "exit"
    finally:
        for fd in held:
            os.close(fd)


def test_events_come_in_order_and_whole(start: Start) -> None:
    job = start("count 3 0.06")
    job.started()
    _, events = job.end()
    assert events == [{"type": "progress", "done": done, "total": 3} for done in (1, 2, 3)]


def test_too_long_and_too_many_events_are_dropped_and_counted(start: Start) -> None:
    script = (
        "import os\n"
        "os.write(3, b'{\"n\": 0}\\n' + b'x' * 20000 + b'\\n')\n"
        "os.write(3, b'[' + b' ' * 100000 + b']\\n')\n"
        "for n in range(1, 3000): os.write(3, b'{\"n\": %d}\\n' % n)\n"
        "os.write(3, b'no line end')"
    )
    job = start(command=(sys.executable, "-I", "-S", "-c", script))
    job.started()
    end, events = job.end()
    numbers = [event["n"] for event in events]
    assert numbers[:1000] == list(range(1000))
    assert len(numbers) < 2500
    assert numbers == sorted(set(numbers))
    assert end["events_dropped"] == 3002 - len(events)


def test_a_server_that_does_not_read_delays_neither_the_job_nor_its_end(start: Start, tmp_path: Path) -> None:
    script = "import os\nfor n in range(900): os.write(3, b'{\"x\": \"%s\"}\\n' % (b'x' * 10000))\nos.write(1, b'done')"
    job = start(command=(sys.executable, "-I", "-S", "-c", script))
    job.printed(b"done")
    until((tmp_path / "exit.json").exists)
    job.started()
    end, events = job.end()
    assert len(events) + end["events_dropped"] == 900
    assert events


def test_input_reaches_the_job_as_it_was_sent(start: Start, tmp_path: Path) -> None:
    job = start(shell="head -c 300006 | tail -c 6", head=100)
    job.started()
    job.say(b"input 300000\n" + b"x" * 300_000)
    job.say(b"input 3\na\nb")
    job.say(b"input 3\ncd\n")
    assert job.end()[0]["code"] == 0
    assert output(tmp_path)[0] == b"a\nbcd\n"


def test_input_that_nobody_reads_harms_nothing(start: Start) -> None:
    job = start(shell="exec 0<&-; echo closed; exec sleep 100")
    job.started()
    job.printed(b"closed")
    job.say(b"input 3\nab\n")
    job.cancel()
    assert job.end()[0]["ended_by"] == "cancel"


def test_a_question_is_an_event_and_the_answer_a_line(start: Start, tmp_path: Path) -> None:
    job = start("ask Which one?")
    job.started()
    assert job.report() == ("event", '{"type": "input_required", "prompt": "Which one?"}')
    job.say("input 8\nça va?\n".encode())
    assert job.end()[0]["code"] == 0
    assert output(tmp_path)[0].decode() == "ça va?\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": ("/nonexistent",)}, "exec 2"),
        ({"command": ("/",)}, "exec 13"),
        ({"text": "sleep 1", "cwd": Path("/nonexistent")}, "chdir 2"),
    ],
)
def test_what_cannot_be_started_is_reported_with_the_reason(
    start: Start, options: dict[str, object], said: str
) -> None:
    job = start(**options)
    assert job.report() == ("failed", said)
    assert job.report() == ("", "")
    assert job.process.wait(20) == 0


def test_a_place_that_became_a_link_is_not_entered(start: Start, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    job = start("sleep 1", cwd=tmp_path / "link")
    assert job.report() == ("failed", "cwd 0")
    assert job.report() == ("", "")


def test_where_output_cannot_be_kept_nothing_is_started(start: Start, tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    assert start("sleep 1").report() == ("failed", "output 21")


def test_processes_that_left_no_trace_in_their_parents_are_reaped(start: Start) -> None:
    """Orphans of a running job become the supervisor's children; it must not collect zombies."""
    job = start(shell="for i in 1 2 3; do (sleep 0.01 &); done; sleep 0.1; echo ready; exec sleep 100")
    pid = job.started()
    job.printed(b"ready")
    children = Path(f"/proc/{job.process.pid}/task/{job.process.pid}/children")
    until(lambda: children.read_text().split() == [str(pid)])
    job.cancel()
    job.end()


def test_children_are_found_without_the_kernels_list() -> None:
    with subprocess.Popen(["sleep", "100"]) as child:
        assert child.pid in supervisor.children_by_parent()
        assert sorted(supervisor.children()) == sorted(supervisor.children_by_parent())
        child.kill()
