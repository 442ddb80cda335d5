"""A job as the ssh tools show it: ids that the tools accept, statuses, and what an error may tell."""

from __future__ import annotations

from hashlib import sha256

import pytest
from msgspec.structs import replace

from intercept_py.jobs.dialects import ssh_inputs, ssh_tasks
from intercept_py.jobs.dialects.ssh_sanitise import sanitised
from intercept_py.jobs.dialects.ssh_tasks import Ids, Limits
from intercept_py.jobs.model import Event, Job, Output, Status
from intercept_py.model import JsonObject

NOW = 1_800_000_000.0
LIMITS = Limits(max_seconds=60, task_result_ttl=300)
JOB = Job(
    id="web1:0123456789abcdef:1",
    kind="ssh",
    argv=("sleep", "1"),
    text="sleep 1",
    cwd="/",
    meta={"alias": "web1"},
    status="running",
    created_at=NOW - 31,
    updated_at=NOW,
    started_at=NOW - 30,
)
NOTHING = Output(b"")


def test_an_id_is_alias_digest_and_microseconds() -> None:
    task_id = Ids().make("web1", "uptime", NOW)
    assert task_id == f"web1:{ssh_tasks.digest('uptime')}:1800000000000000"
    assert ssh_tasks.digest("uptime") == sha256(b"uptime").hexdigest()[:16]


@pytest.mark.parametrize("alias", ["web1", "server.example.com", "a.-_b", "a" * 100])
def test_every_id_is_one_that_the_tools_accept(alias: str) -> None:
    task_id = Ids().make(alias, "c" * 10_000, NOW)
    assert ssh_inputs.task_id(task_id) == task_id
    name, digest, micros = task_id.split(":")
    assert name == alias.replace(".", "_")
    assert len(digest) == 16
    assert int(micros) == NOW * 1e6


def test_two_ids_of_one_moment_differ_even_if_their_aliases_look_alike() -> None:
    ids = Ids()
    assert (
        len({ids.make(alias, "c", NOW) for alias in ("a.b", "a_b", "a.b")} | {ids.make("a.b", "c", NOW - 5)}) == 3 + 1
    )


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("queued", "pending"),
        ("running", "running"),
        ("waiting", "running"),
        ("cancelling", "running"),
        ("succeeded", "completed"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("timed_out", "failed"),
        ("expired", "failed"),
        ("lost", "failed"),
        ("rejected", "failed"),
    ],
)
def test_a_status_in_the_words_of_the_ssh_tools(status: Status, shown: str) -> None:
    facts = ssh_tasks.status(replace(JOB, status=status), NOTHING, None, NOW, LIMITS)
    assert facts["status"] == shown
    assert ("cancel_requested" in facts) == (status == "cancelling")


def test_a_status_says_how_long_how_much_and_how_far() -> None:
    facts = ssh_tasks.status(JOB, Output(b"a\nb\n", b"c\n", 10), None, NOW, LIMITS)
    assert facts == {
        "task_id": JOB.id,
        "status": "running",
        "keepAlive": 300,
        "pollFrequency": 5,
        "progress_percent": 50,
        "elapsed_ms": 30_000,
        "bytes_read": 16,
        "output_lines_available": 5,
    }


def test_the_time_of_an_ended_task_stands_still() -> None:
    ended = replace(JOB, status="succeeded", finished_at=NOW - 20, exit_code=0)
    assert ssh_tasks.elapsed_ms(ended, NOW) == 10_000
    assert ssh_tasks.percent(ended, None, NOW, LIMITS) == 100


def test_progress_is_what_the_job_says_else_the_time_it_used_and_never_100_before_the_end() -> None:
    said = Event(3, NOW, "progress", {"done": 3, "total": 4})
    assert ssh_tasks.percent(JOB, said, NOW, LIMITS) == 75
    assert ssh_tasks.percent(JOB, None, NOW + 1000, LIMITS) == 99
    assert ssh_tasks.percent(JOB, Event(3, NOW, "progress", {"done": 4, "total": 4}), NOW, LIMITS) == 99
    assert ssh_tasks.percent(JOB, Event(3, NOW, "progress", {"done": -4, "total": 4}), NOW, LIMITS) == 0


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"done": 1},
        {"done": 1, "total": 0},
        {"done": 1, "total": -4},
        {"done": "1", "total": "2"},
        {"done": True, "total": 2},
        {"done": None, "total": [4]},
        {"done": 10**400, "total": 3},
        {"done": 1e308, "total": 1},
    ],
)
def test_progress_that_says_nothing_does_not_count(said: JsonObject) -> None:
    used = ssh_tasks.percent(JOB, None, NOW, LIMITS)
    assert ssh_tasks.percent(JOB, Event(3, NOW, "progress", said), NOW, LIMITS) == used


def test_a_result_says_how_the_task_ended() -> None:
    ended = replace(JOB, status="timed_out", finished_at=NOW, term_signal=15)
    assert ssh_tasks.result(ended, Output(b"x\n"), NOW, LIMITS) == {
        "task_id": JOB.id,
        "status": "failed",
        "exit_code": -1,
        "duration_ms": 30_000,
        "cancelled": False,
        "timeout": True,
        "target_ip": "127.0.0.1",
        "output": "x\n",
        "max_seconds": 60,
    }


def test_the_one_notification_of_an_end_says_which() -> None:
    cancelled = replace(JOB, status="cancelled", finished_at=NOW)
    assert ssh_tasks.ending(cancelled, NOW, LIMITS) == ("cancelled", {"reason": "user_requested", "max_seconds": 60})
    word, facts = ssh_tasks.ending(replace(JOB, status="failed", exit_code=3, finished_at=NOW), NOW, LIMITS)
    assert (word, facts["exit_code"]) == ("failed", 3)


def test_the_last_lines_are_returned() -> None:
    facts = ssh_tasks.tail(JOB, Output(b"1\n2\n3\n"), 2)
    assert facts == {"task_id": JOB.id, "output_lines": ["2", "3"], "total_lines": 3, "has_more": True}


def test_a_task_is_forgotten_when_its_time_is_over() -> None:
    ended = replace(JOB, status="succeeded", finished_at=NOW)
    assert not ssh_tasks.is_expired(JOB, NOW + 10_000, LIMITS)
    assert not ssh_tasks.is_expired(ended, NOW + 300, LIMITS)
    assert ssh_tasks.is_expired(ended, NOW + 300.1, LIMITS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot write /home/me/state/jobs.db: disk full", "cannot write [path] disk full"),
        ("cwd `/srv/x` is missing", "cwd `[path]` is missing"),
        ("File not found: C:\\Users\\admin\\x.yml", "File not found: [path]"),
        ("File not found: ../secrets/password", "File not found: [path]"),
        ("Connection failed to 10.0.0.11:22", "Connection failed to [ip]"),
        ("no route to fe80:0:0:0:1:2:3:4", "no route to [ip]"),
        ("authentication failed for ubuntu@10.0.0.11", "authentication failed for [user@host]"),
        ("Password: secret123 is invalid", "Password: [redacted] is invalid"),
        ("refused on port 2222", "refused on port [port]"),
        ("1000 jobs are waiting: try later", "1000 jobs are waiting: try later"),
        ("", "An error occurred"),
    ],
)
def test_an_error_names_no_path_address_user_or_secret(text: str, expected: str) -> None:
    assert sanitised(text) == expected
