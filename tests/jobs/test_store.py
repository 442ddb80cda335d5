"""The store alone: what one transaction changes, what is refused, and what stays of it."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from intercept_py.jobs import instances
from intercept_py.jobs.database import SCHEMA
from intercept_py.jobs.model import Event, Job, JobError, Order, Status
from intercept_py.jobs.remains import Conclusion
from intercept_py.jobs.store import Request, Step, Store
from tests.support.job_processes import broken, no_descriptors, until

QUEUED: Step = ("queued", "queued", {})
RUNNING: Step = ("running", "status", {"status": "running"})
DONE = Conclusion("succeeded", "exit", 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    opened = Store(str(tmp_path / "state"))
    yield opened
    opened.close()


def order(kind: str = "test", **others: object) -> Order:
    """Some order."""
    return Order(**{"kind": kind, "argv": ("true",), "text": "true", "cwd": "/", "meta": {}, **others})  # type: ignore[arg-type]


def add(store: Store, job: str, *steps: Step, **others: object) -> int:
    """A new job."""
    return store.insert(order(**others), job, steps or (QUEUED, RUNNING))[0]  # type: ignore[arg-type]


def known(store: Store, job: str) -> Job:
    """A job that is there."""
    found = store.get("test", job)
    assert found is not None
    return found


def ids(jobs: list[Job]) -> list[str]:
    """Their ids."""
    return [job.id for job in jobs]


def test_a_new_job_is_as_it_was_ordered(store: Store) -> None:
    meta = {"a": [1, {"b": None}], "ü": "✓"}
    row = add(store, "1", argv=("sh", "-c", "ü"), text="ü", cwd="/tmp", meta=meta)
    job = known(store, "1")
    assert (job.kind, job.argv, job.text, job.cwd, job.meta) == ("test", ("sh", "-c", "ü"), "ü", "/tmp", meta)
    assert (job.status, job.last_seq, job.mine, job.row) == ("running", 2, True, row)
    assert job.started_at is not None
    assert [(event.seq, event.type) for event in store.events(row, 0, 10)] == [(1, "queued"), (2, "status")]


def test_a_change_and_its_event_are_one(store: Store) -> None:
    row = add(store, "1", QUEUED)
    event = store.move(row, "queued", "running", {"why": "room"}, pid=7)
    assert event is not None
    assert event == Event(2, event.ts, "status", {"status": "running", "why": "room"})
    job = known(store, "1")
    assert (job.status, job.pid, job.last_seq, job.updated_at) == ("running", 7, 2, event.ts)
    assert store.events(row, 1, 10) == [event]


def test_a_change_from_another_status_changes_nothing(store: Store) -> None:
    row = add(store, "1", QUEUED)
    before = known(store, "1")
    assert store.move(row, ("running", "waiting"), "cancelling", {}) is None
    assert store.end_queued([row + 1], DONE) == {}
    assert store.move(row + 1, "queued", "running", {}) is None
    assert known(store, "1") == before
    assert len(store.events(row, 0, 10)) == 1


def test_the_end_is_written_once(store: Store) -> None:
    row = add(store, "1")
    event = store.end(row, Conclusion("failed", "exit", 3, error="exit code 3"))
    assert event is not None
    expected = {"status": "failed", "ended_by": "exit", "exit_code": 3, "killed": False, "error": "exit code 3"}
    assert event.data == expected
    assert store.end(row, DONE) is None
    job = known(store, "1")
    assert (job.status, job.exit_code, job.ended_by, job.error) == ("failed", 3, "exit", "exit code 3")
    assert job.finished_at is not None


def test_what_comes_after_the_end_is_late(store: Store) -> None:
    row = add(store, "1")
    store.note(row, "progress", {"done": 1})
    store.end(row, DONE)
    store.note(row, "progress", {"done": 2})
    events = store.events(row, 2, 10)
    assert [(event.seq, event.type) for event in events] == [(3, "progress"), (4, "status"), (5, "late_output")]
    assert events[2].data == {"type": "progress", "data": {"done": 2}}
    assert known(store, "1").status == "succeeded"
    assert store.note(row + 1, "progress", {}) is None


def test_an_id_is_unique_within_its_kind(store: Store) -> None:
    add(store, "1")
    add(store, "1", kind="other")
    with pytest.raises(JobError, match="there is a job `1` already") as refused:
        add(store, "1")
    assert refused.value.code == "duplicate"
    assert store.counts() == {"running": 2}


@pytest.mark.parametrize(
    "job", ["../../evil", "/etc/passwd", "a\0b", "'; DROP TABLE job; --", "", "ü✓", "%_?*", "x" * 1000]
)
def test_an_id_is_only_data(store: Store, tmp_path: Path, job: str) -> None:
    row = add(store, job)
    assert known(store, job).row == row
    assert store.directory(row) == str(tmp_path / "state" / "jobs" / str(row))
    assert store.get("test", f"{job} ") is None


def test_what_no_id_can_be_is_not_found(store: Store) -> None:
    row = add(store, "1", meta={"n": 1})
    assert store.get("test", "\ud800") is None
    assert store.page("test", None, 10, None, {"n": 10**30}) == []
    assert store.page("test", None, 10, (1.0, "\ud800"), {}) == []
    assert store.events(row, 10**30, 10) == []
    assert len(store.page("test", None, 10**30, None, {})) == 1
    assert store.page("test", None, -1, None, {}) == []


def test_jobs_are_listed_newest_first_and_page_by_page(store: Store) -> None:
    for number in range(7):
        add(store, str(number))
    add(store, "other", kind="other")
    first = store.page("test", None, 3, None, {})
    assert ids(first) == ["6", "5", "4"]
    before = (first[-1].created_at, first[-1].id)
    assert ids(store.page("test", None, 100, before, {})) == ["3", "2", "1", "0"]


def test_a_list_can_be_narrowed_by_status_and_by_what_the_dialect_keeps(store: Store) -> None:
    add(store, "1", QUEUED, meta={"task": "a", "n": 1})
    add(store, "2", meta={"task": "b", "n": None, "on": True, "a.b": "x"})
    add(store, "3", meta={"task": "a", "$.n": 2.5})

    def listed(statuses: tuple[Status, ...] | None = None, **meta: object) -> list[str]:
        return ids(store.page("test", statuses, 10, None, meta))

    assert listed(("running",)) == ["3", "2"]
    assert listed(("running", "queued")) == ["3", "2", "1"]
    assert listed(()) == []
    assert listed(task="a") == ["3", "1"]
    assert listed(("running",), task="a") == ["3"]
    assert listed(n=1) == ["1"]
    assert listed(n=None) == ["2"]
    assert listed(on=True) == ["2"]
    assert listed(None, **{"a.b": "x"}) == ["2"]
    assert listed(None, **{"$.n": 2.5}) == ["3"]
    assert listed(None, **{"' OR 1 --": 1}) == []


def test_only_the_newest_and_youngest_ended_jobs_are_kept(store: Store) -> None:
    rows = [add(store, str(number)) for number in range(5)]
    for row in rows[:4]:
        store.end(row, DONE)
    assert store.prune(keep=2, finished_before=0) == rows[:2]
    assert store.prune(keep=2, finished_before=0) == []
    assert store.events(rows[0], 0, 10) == []
    assert store.prune(keep=2, finished_before=time.time() + 1) == rows[2:4]
    assert ids(store.page("test", None, 10, None, {})) == ["4"]
    assert add(store, "0") > rows[4], "the number of a job is never used again: its processes carry it"


def test_another_server_sees_a_job_and_cannot_change_it(store: Store, tmp_path: Path) -> None:
    row = add(store, "1")
    other = Store(str(tmp_path / "state"))
    try:
        assert other.uuid == store.uuid
        assert other.instance.uuid != store.instance.uuid
        seen = other.get("test", "1")
        assert seen is not None
        assert not seen.mine
        assert other.move(row, "running", "cancelling", {}) is None
        assert other.end(row, DONE) is None
        assert other.claim() is False, "its server lives"
        with pytest.raises(JobError, match="already"):
            add(other, "1")
    finally:
        other.close()


def test_many_servers_may_open_and_use_a_store_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from intercept_py.jobs.store import Store; from intercept_py.jobs.model import Order\n"
        "STEPS = [('queued', 'queued', {})]\n"
        "store = Store(sys.argv[1])\n"
        "for number in range(50):\n"
        "  row, _ = store.insert(Order('test', ('true',), '', '/', {}), sys.argv[2] + str(number), STEPS)\n"
        "  store.move(row, 'queued', 'running', {})\n"
        "  store.note(1, 'progress', {})\n"
        "store.close()"
    )
    state = str(tmp_path / "state")
    servers = [subprocess.Popen([sys.executable, "-c", script, state, f"{name} "]) for name in range(4)]
    assert [server.wait() for server in servers] == [0] * 4
    assert broken(tmp_path) == []
    store = Store(state)
    try:
        assert store.counts() == {"running": 200}
        assert len(store.events(1, 0, 1000)) == 202
    finally:
        store.close()


def test_the_jobs_of_a_dead_server_can_be_taken_over(tmp_path: Path) -> None:
    script = (
        "import sys; from intercept_py.jobs.store import Store; from intercept_py.jobs.model import Order\n"
        "store = Store(sys.argv[1])\n"
        "store.insert(Order('test', ('true',), '', '/', {}), '1', [('queued', 'queued', {})])"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "state")], check=True)
    store = Store(str(tmp_path / "state"))
    try:
        assert not known(store, "1").mine
        assert store.claim() is True
        assert known(store, "1").mine
        assert store.unfinished() == [known(store, "1").row]
        assert store.claim() is False
    finally:
        store.close()


def test_where_it_cannot_be_told_nobody_is_dead(store: Store, tmp_path: Path) -> None:
    server = Store(str(tmp_path / "state"))
    add(server, "1")
    with no_descriptors():
        assert store.claim() is False, "it lives"
    server.close()
    with no_descriptors():
        assert store.claim() is False, "it is dead, but who could know?"
    assert store.claim() is True


HERE = instances._home()


@pytest.mark.parametrize(
    ("home", "judged"),
    [
        ({"namespace": HERE.namespace + 1}, False),
        ({"namespace": HERE.namespace + 1, "pid": 1}, True),
        ({"namespace": HERE.namespace + 1, "boot_id": "before"}, True),
        ({}, True),
    ],
)
def test_the_jobs_of_a_dead_server_are_left_to_those_who_can_see_them(
    store: Store, tmp_path: Path, home: dict[str, object], judged: bool
) -> None:
    """Of another pid namespace only the first process counts: it takes the others with it, as a restart does."""
    server = Store(str(tmp_path / "state"))
    add(server, "1")
    place = tmp_path / "state" / "servers" / server.instance.uuid
    place.write_bytes(msgspec.json.encode(msgspec.structs.asdict(HERE) | home))
    server.close()
    assert store.claim() is judged
    assert known(store, "1").mine is judged
    assert place.exists() is not judged


def test_a_server_in_another_container_lives_until_it_is_dead(store: Store, tmp_path: Path) -> None:
    script = (
        "import sys; from intercept_py.jobs.store import Store; from intercept_py.jobs.model import Order\n"
        "store = Store(sys.argv[1])\n"
        "store.insert(Order('test', ('true',), '', '/', {}), '1', [('queued', 'queued', {})])\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    contained = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*contained, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here")
    argv = [*contained, sys.executable, "-c", script, str(tmp_path / "state")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        assert store.claim() is False
        assert not known(store, "1").mine
        server.kill()
    until(store.claim)
    assert known(store, "1").mine


def test_a_server_that_ends_without_jobs_leaves_nothing(tmp_path: Path) -> None:
    Store(str(tmp_path)).close()
    assert os.listdir(tmp_path / "servers") == []


def test_files_are_for_their_owner_only(store: Store, tmp_path: Path) -> None:
    add(store, "1")
    state = tmp_path / "state"
    assert {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()} == {
        "jobs": 0o700, "servers": 0o700, "jobs.db": 0o600, "jobs.db-wal": 0o600, "jobs.db-shm": 0o600
    }  # fmt: skip
    assert state.stat().st_mode & 0o777 == 0o700
    assert store.warnings() == []
    state.chmod(0o777)
    (state / "jobs.db").chmod(0o620)
    assert store.warnings() == [
        f"`{path}` can be written by others: chmod go-w it" for path in (state, state / "jobs.db")
    ]


def test_a_store_is_the_same_when_it_is_opened_again(tmp_path: Path) -> None:
    first = Store(str(tmp_path / "a" / "b"))
    add(first, "1")
    first.close()
    second = Store(str(tmp_path / "a" / "b"))
    try:
        assert second.uuid == first.uuid
        assert known(second, "1").status == "running"
    finally:
        second.close()


def refused(path: Path) -> str:
    """Why a store cannot be opened."""
    with pytest.raises(JobError) as error:
        Store(str(path))
    assert error.value.code == "store"
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_directory_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file") == f"cannot use state directory `{tmp_path}/file`: file exists; name another one"
    assert "not a directory; name another one" in refused(tmp_path / "file" / "state")
    assert "name another one" in refused(tmp_path / "a\0b")


def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_text("hello, this is no database at all" * 100)
    assert (
        refused(tmp_path)
        == f"cannot use job store `{tmp_path}/jobs.db`: file is not a database; name another directory"
    )
    assert (tmp_path / "jobs.db").read_text().startswith("hello")


def test_a_store_of_another_version_is_left_alone(tmp_path: Path) -> None:
    Store(str(tmp_path)).close()
    with sqlite3.connect(tmp_path / "jobs.db") as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()
    assert refused(tmp_path) == f"job store `{tmp_path}/jobs.db` is of another version: name another directory"


@contextmanager
def no_room(directory: Path) -> Iterator[None]:
    """No file of this process can grow any more; as with a full disk, but without having to be root."""
    most = max(path.stat().st_size for path in directory.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_nothing_is_changed_and_it_goes_on_afterwards(store: Store, tmp_path: Path) -> None:
    row = add(store, "1")
    before = known(store, "1")
    with no_room(tmp_path / "state"):
        for attempt in (
            lambda: add(store, "2"),
            lambda: store.move(row, "running", "cancelling", {}),
            lambda: store.end(row, DONE),
            lambda: store.note(row, "progress", {}),
            lambda: store.delete(row),
        ):
            with pytest.raises(JobError, match=r"cannot use job store `.*`: .*; .*") as full:
                attempt()
            assert full.value.code == "store"
            assert "\n" not in str(full.value)
        assert known(store, "1") == before
        assert len(store.events(row, 0, 10)) == 2
    assert store.end(row, DONE) is not None
    assert add(store, "2") > row


def test_jobs_that_never_started_end_together_or_not_at_all(store: Store, tmp_path: Path) -> None:
    rows = [add(store, str(number), QUEUED) for number in range(30)]
    running = add(store, "runs")
    end, request = Conclusion("cancelled", "cancel"), Request("cancel", 1.0, "me", "enough")
    with no_room(tmp_path / "state"), pytest.raises(JobError):
        store.end_queued([*rows, running], end, request)
    assert store.counts() == {"queued": 30, "running": 1}
    events = store.end_queued([*rows, running], end, request)
    assert list(events) == rows
    assert {(event.seq, event.data["reason"]) for event in events.values()} == {(2, "enough")}
    assert store.counts() == {"cancelled": 30, "running": 1}
    assert broken(tmp_path) == []


def test_a_store_that_was_closed_says_so_in_one_line(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.close()
    for attempt in (lambda: store.get("test", "1"), lambda: add(store, "1")):
        with pytest.raises(JobError, match="the job server has ended") as closed:
            attempt()
        assert closed.value.code == "closed"
    assert os.listdir(tmp_path / "jobs") == []
