from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.audit.chain import Report, encode, verify
from intercept_py.audit.log import AuditLog, head_path
from intercept_py.errors import AuditError


class Clock:
    def __init__(self) -> None:
        self.now = 1767225600.0

    def __call__(self) -> float:
        return self.now


clock = Clock()


def check(path: Path) -> Report:
    head = Path(head_path(str(path)))
    with path.open("rb") as lines:
        return verify(lines, head.read_bytes() if head.exists() else None)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def events(path: Path) -> list[str]:
    return [record["event"] for record in records(path)]


def write(log: AuditLog, *names: str) -> None:
    for name in names:
        log.append(encode({"ts": "t", "event": name}))
    log.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "audit.jsonl"


@pytest.fixture
def log(path: Path) -> Iterator[AuditLog]:
    log = AuditLog.open(str(path), clock)
    yield log
    log.close()


def test_the_file_is_private_and_so_is_each_directory_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "audit.jsonl"
    AuditLog.open(str(path), clock).close()
    modes = [stat.S_IMODE(os.stat(name).st_mode) for name in (path, head_path(str(path)), path.parent, tmp_path / "a")]
    assert modes == [0o600, 0o600, 0o700, 0o700]


def test_records_are_in_the_file_after_the_flush_and_not_before(path: Path, log: AuditLog) -> None:
    log.append(encode({"ts": "t", "event": "start"}))
    assert path.read_bytes() == b""
    log.flush()
    assert events(path) == ["start"]


def test_a_flush_without_records_writes_nothing(path: Path, log: AuditLog) -> None:
    log.flush()
    assert path.read_bytes() == b""


def test_a_chain_goes_on_when_the_file_is_opened_again(path: Path) -> None:
    for name in ("a", "b", "c"):
        log = AuditLog.open(str(path), clock)
        write(log, name, name)
        log.close()
    assert events(path) == ["a", "a", "b", "b", "c", "c"]
    report = check(path)
    assert (report.fault_count, report.head) == (0, "matches")


def test_closing_writes_what_is_waiting_and_ends_the_log(path: Path, log: AuditLog) -> None:
    log.append(encode({"ts": "t", "event": "stop"}))
    log.close()
    log.close()
    assert events(path) == ["stop"]
    with pytest.raises(AuditError, match="is closed"):
        log.append(encode({"ts": "t", "event": "late"}))


def test_a_record_that_cannot_be_made_leaves_no_gap(path: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_left(body: bytes, seq: int, previous: str) -> tuple[bytes, str]:
        raise MemoryError

    log.append(encode({"ts": "t", "event": "a"}))
    with monkeypatch.context() as patch:
        patch.setattr("intercept_py.audit.chain.link", nothing_left)
        with pytest.raises(AuditError, match="cannot be made: MemoryError"):
            log.append(encode({"ts": "t", "event": "b"}))
    write(log, "c")
    assert events(path) == ["a", "c"]
    assert (check(path).fault_count, check(path).head) == (0, "matches")


# Several writers.


def test_two_logs_on_one_file_take_turns(path: Path, log: AuditLog) -> None:
    other = AuditLog.open(str(path), clock)
    for number in range(5):
        write(log, f"a{number}")
        write(other, f"b{number}")
    other.close()
    assert events(path) == [f"{who}{number}" for number in range(5) for who in "ab"]
    assert (check(path).fault_count, check(path).head) == (0, "matches")


WRITER = """
import sys
from intercept_py.audit.chain import encode
from intercept_py.audit.log import AuditLog
log = AuditLog.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(300):
    log.append(encode({"ts": "t", "event": "decision", "effect": "allow", "who": sys.argv[2], "number": number}))
    if number % 3 == 0:
        log.flush()
log.close()
"""


def test_two_processes_that_write_one_file_at_once_keep_one_chain(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for who in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    report = check(path)
    assert (report.records, report.fault_count, report.head) == (600, 0, "matches")
    for who in "ab":
        assert [record["number"] for record in records(path) if record["who"] == who] == list(range(300))


def test_a_lock_that_is_never_released_is_an_error_and_not_a_hang(path: Path) -> None:
    log = AuditLog.open(str(path), clock, patience=0.01)
    holder = os.open(path, os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(AuditError, match="locked by another process"):
        write(log, "a")
    os.close(holder)
    write(log, "b")
    log.close()
    assert events(path) == ["b"]


# Writes that fail.


class BrokenWrites:
    """Lets the n-th write fail or be cut short, once or from then on."""

    def __init__(self, nth: int, keep: int | None = None, for_ever: bool = False) -> None:
        self.calls = 0
        self.nth, self.keep, self.for_ever = nth, keep, for_ever
        self.real = os.write

    def __call__(self, fd: int, data: bytes) -> int:
        self.calls += 1
        if self.calls == self.nth and self.keep is not None:
            return self.real(fd, data[: self.keep])
        if self.calls == self.nth + (self.keep is not None) or (self.for_ever and self.calls > self.nth):
            raise OSError(28, "No space left on device")
        return self.real(fd, data)


@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("keep", [None, 1, 40])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_write_that_fails_leaves_the_file_as_it_was_before(
    path: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch, nth: int, keep: int | None, for_ever: bool
) -> None:
    written: list[str] = []
    problems: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", BrokenWrites(nth, keep, for_ever))
        for name in "abcde":
            try:
                write(log, name, name)
                written += [name, name]
            except AuditError as exc:
                problems.append(str(exc))
            assert events(path) == written
    assert ("e" in written) is not for_ever
    assert all("no space left on device" in problem for problem in problems)
    assert problems
    write(log, "after")
    assert events(path) == [*written, "after"]
    assert (check(path).fault_count, check(path).head) == (0, "matches")


@pytest.mark.parametrize("result", [OSError(5, "Input/output error"), 3])
def test_a_head_that_cannot_be_written_stops_the_record_too(
    path: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch, result: OSError | int
) -> None:
    real = os.pwrite
    calls = []

    def broken(fd: int, data: bytes, offset: int) -> int:
        calls.append(data)
        if len(calls) > 1:
            return real(fd, data, offset)
        if isinstance(result, OSError):
            raise result
        return real(fd, data[:result], offset)

    write(log, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", broken)
        with pytest.raises(AuditError, match="cannot write"):
            write(log, "b")
    assert events(path) == ["a"]
    assert check(path).head == "matches"
    write(log, "c")
    assert events(path) == ["a", "c"]


def test_a_partial_write_that_cannot_be_taken_back_is_repaired_by_the_next_flush(
    path: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(*_: object) -> None:
        raise OSError(5, "Input/output error")

    write(log, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", BrokenWrites(1, keep=30))
        patch.setattr(os, "ftruncate", no)
        with pytest.raises(AuditError):
            write(log, "b")
    write(log, "c")
    assert events(path) == ["a", "recovered", "c"]
    assert check(path).fault_count == 0


LIMITED = """
import resource, sys
from intercept_py.audit.chain import encode
from intercept_py.audit.log import AuditLog
from intercept_py.errors import AuditError
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
log = AuditLog.open(sys.argv[1])
good = bad = 0
for number in range(100):
    try:
        log.append(encode({"ts": "t", "event": "decision", "number": number}))
        log.flush()
        good += 1
    except AuditError as exc:
        bad += 1
        problem = str(exc)
log.close()
print(good, bad, problem)
"""


def test_a_file_that_may_not_grow_further_refuses_records_and_stays_sound(path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    good, bad, problem = run.stdout.split(maxsplit=2)
    assert int(good) > 10
    assert int(good) + int(bad) == 100
    assert "file too large" in problem
    assert check(path).records == int(good)
    assert check(path).fault_count == 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 5000


# Repair.


@pytest.mark.parametrize("torn", [b"{", b'{"seq":3,"ts":"t","ev', b"\0" * 5000, b"hello\n", b'{"seq":3}\n{"seq":4'])
def test_a_torn_end_is_kept_aside_and_recorded(path: Path, torn: bytes) -> None:
    log = AuditLog.open(str(path), clock)
    write(log, "a", "b")
    log.close()
    with path.open("ab") as file:
        file.write(torn)
    assert check(path).fault_count
    AuditLog.open(str(path), clock).close()
    recovered = records(path)[-1]
    assert recovered["event"] == "recovered"
    assert recovered["torn"] == {
        "bytes": len(torn),
        "sha256": hashlib.sha256(torn).hexdigest(),
        "saved": "audit.jsonl.torn-3",
    }
    assert (path.parent / "audit.jsonl.torn-3").read_bytes() == torn
    assert (check(path).records, check(path).fault_count, check(path).head) == (3, 0, "matches")


def test_a_first_record_that_is_torn_is_no_foreign_file(path: Path, log: AuditLog) -> None:
    write(log, "a")
    log.close()
    path.write_bytes(path.read_bytes()[:50])
    AuditLog.open(str(path), clock).close()
    assert events(path) == ["recovered"]


def test_torn_ends_never_overwrite_each_other(path: Path) -> None:
    for torn in (b"{one", b"{two"):
        log = AuditLog.open(str(path), clock)
        log.close()
        path.write_bytes(b'{"seq":1,' + torn)
        Path(head_path(str(path))).unlink()
        AuditLog.open(str(path), clock).close()
    assert (path.parent / "audit.jsonl.torn-1").read_bytes().endswith(b"{one")
    assert (path.parent / "audit.jsonl.torn-1-2").read_bytes().endswith(b"{two")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_crash_in_the_middle_of_a_write_never_leaves_a_faulty_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("crash") / "audit.jsonl"
    log = AuditLog.open(str(path), clock)
    write(log, "a", "b")
    head = Path(head_path(str(path))).read_bytes()
    before = path.stat().st_size
    write(log, "c", "d")
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(before, len(whole)))])
    Path(head_path(str(path))).write_bytes(head)
    log = AuditLog.open(str(path), clock)
    write(log, "e")
    log.close()
    assert events(path)[:2] == ["a", "b"]
    assert events(path)[-1] == "e"
    assert (check(path).fault_count, check(path).head) == (0, "matches")


def test_records_that_are_missing_when_the_log_is_opened_are_told_for_ever(path: Path, log: AuditLog) -> None:
    write(log, "a", "b", "c")
    log.close()
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    again = AuditLog.open(str(path), clock)
    assert any("lost records (up to record 3)" in warning for warning in again.warnings())
    write(again, "d")
    again.close()
    assert events(path) == ["a", "recovered", "d"]
    assert [(fault.line, fault.kind) for fault in check(path).faults] == [(2, "removed")]


def test_a_changed_last_record_is_not_repaired_away(path: Path, log: AuditLog) -> None:
    write(log, "a", "b")
    log.close()
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"x"'))
    AuditLog.open(str(path), clock).close()
    assert b'"x"' in (path.parent / "audit.jsonl.torn-2").read_bytes()
    assert [fault.kind for fault in check(path).faults] == ["removed"]


def test_a_file_whose_end_is_beyond_repair_is_left_alone(path: Path, log: AuditLog) -> None:
    write(log, "a")
    log.close()
    text = path.read_bytes() + b"x\ny\n"
    path.write_bytes(text)
    with pytest.raises(AuditError, match="does not end in records"):
        AuditLog.open(str(path), clock)
    assert path.read_bytes() == text


def test_a_log_that_becomes_shorter_while_it_is_written_refuses_records(path: Path, log: AuditLog) -> None:
    write(log, "a", "b")
    os.truncate(path, len(path.read_bytes().splitlines(keepends=True)[0]))
    for _ in range(2):
        with pytest.raises(AuditError, match="became shorter: records were removed"):
            write(log, "c")
    assert events(path) == ["a"]
    assert check(path).head == "differs"


def test_a_log_with_records_longer_than_a_block_is_opened_again(path: Path, log: AuditLog) -> None:
    log.append(encode({"ts": "t", "event": "a", "result": "x" * 300_000}))
    log.append(encode({"ts": "t", "event": "b", "result": "y" * 300_000}))
    log.close()
    again = AuditLog.open(str(path), clock)
    write(again, "c")
    again.close()
    assert (check(path).records, check(path).fault_count) == (3, 0)


# Rotation.


def test_a_file_that_is_moved_away_is_followed_by_one_that_says_so(path: Path, log: AuditLog) -> None:
    write(log, "a", "b")
    old = path.with_name("audit.1.jsonl")
    path.rename(old)
    Path(head_path(str(path))).rename(head_path(str(old)))
    clock.now += 1
    write(log, "c")
    assert events(path) == ["rotated", "c"]
    assert check(path).continues == (check(old).last_hash,)
    assert records(path)[0]["records"] == 2
    for file in (path, old):
        assert (check(file).fault_count, check(file).head) == (0, "matches")


def test_a_file_that_is_moved_away_without_its_head_leaves_the_new_one_sound(path: Path, log: AuditLog) -> None:
    write(log, "a", "b", "c")
    path.rename(path.with_name("old"))
    clock.now += 1
    write(log, "d")
    assert (check(path).fault_count, check(path).head) == (0, "matches")


def test_an_empty_file_put_in_its_place_is_the_next_one(path: Path, log: AuditLog) -> None:
    write(log, "a", "b")
    path.rename(path.with_name("old"))
    path.touch(0o600)
    clock.now += 1
    write(log, "c")
    assert events(path) == ["rotated", "c"]
    assert (check(path).fault_count, check(path).head) == (0, "matches")


def test_a_log_that_vanished_while_no_proxy_ran_is_mentioned_by_the_next(path: Path, log: AuditLog) -> None:
    write(log, "a", "b")
    last = check(path).last_hash
    log.close()
    path.unlink()
    AuditLog.open(str(path), clock).close()
    assert events(path) == ["rotated"]
    assert check(path).continues == (last,)


def test_two_logs_follow_a_rotation_into_one_file(path: Path, log: AuditLog) -> None:
    behind = Clock()
    other = AuditLog.open(str(path), behind)
    write(log, "a")
    write(other, "b")
    old = path.with_name("old")
    path.rename(old)
    clock.now += 1
    write(log, "c")
    write(other, "d")  # has not looked yet
    behind.now += 1
    write(other, "e")
    other.close()
    assert events(old) == ["a", "b", "d"]
    assert events(path) == ["rotated", "c", "rotated", "e"]
    assert check(path).continues[1] == check(old).last_hash
    assert (check(path).fault_count, check(path).head) == (0, "matches")


def test_a_head_that_is_removed_comes_back(path: Path, log: AuditLog) -> None:
    write(log, "a")
    Path(head_path(str(path))).unlink()
    clock.now += 1
    write(log, "b")
    assert events(path) == ["a", "b"]
    assert (check(path).fault_count, check(path).head) == (0, "matches")


def test_a_rotation_that_fails_is_tried_again_and_never_writes_the_old_file(path: Path, log: AuditLog) -> None:
    write(log, "a")
    old = path.with_name("old")
    path.rename(old)
    path.mkdir()
    clock.now += 1
    for _ in range(2):
        with pytest.raises(AuditError, match="is a directory"):
            write(log, "lost")
    path.rmdir()
    write(log, "b")
    assert events(old) == ["a"]
    assert events(path) == ["rotated", "b"]
    assert (check(path).fault_count, check(path).head) == (0, "matches")


# What is no audit file.


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.with_name("target").touch()
    path.symlink_to("target")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_document(path: Path) -> None:
    path.write_text("# Notes\n\nNothing to do with it.\n")


def make_file_as_directory(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_directory, "is a directory"),
        (make_fifo, "is not a regular file"),
        (make_link, "is a symbolic link"),
        (make_dangling_link, "is a symbolic link"),
        (make_document, "holds something else than an audit log"),
        (make_file_as_directory, "(?i)not a directory"),
    ],
)
def test_what_cannot_be_an_audit_file_is_refused_in_one_line(
    path: Path, make: Callable[[Path], None], message: str
) -> None:
    path.parent.mkdir()
    make(path)
    with pytest.raises(AuditError, match=message) as caught:
        AuditLog.open(str(path), clock)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    if make is make_document:
        assert path.read_text().startswith("# Notes")


def test_a_device_is_refused() -> None:
    with pytest.raises(AuditError, match="`/dev/null` is not a regular file"):
        AuditLog.open("/dev/null", clock)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_directory_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AuditError, match="permission denied"):
        AuditLog.open(str(tmp_path / "audit.jsonl"), clock)
    tmp_path.chmod(0o700)


def test_a_file_and_directory_of_our_own_need_no_warning(log: AuditLog) -> None:
    assert log.warnings() == []


def test_who_else_may_write_the_file_or_its_directory_is_told(path: Path, log: AuditLog) -> None:
    path.chmod(0o620)
    path.parent.chmod(0o707)
    first, second = log.warnings()
    assert re.search(r"audit file .* may be written by other users", first)
    assert re.search(r"directory .* may be written by other users", second)
    path.chmod(0o600)
    path.parent.chmod(0o1777)
    assert log.warnings() == []
