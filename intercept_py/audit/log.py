"""The audit file: appends sealed records, repairs what a crash left behind, follows rotation. One thread owns a log.

Beside `FILE` lies `FILE.head`, the number and hash of the last record, written after each flush: it shows when records
are cut off the end. Several processes may write one file: a flush holds an exclusive lock and goes on from whatever
record is last by then, so that records which were sealed behind another one are sealed anew. Opening and rotation hold
a lock on the directory.

Below: `chain`, `record`. Above: the enforcer, which turns every `AuditError` into a denial.
"""

from __future__ import annotations

__all__ = ["AuditLog", "head_path"]

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from intercept_py.audit import chain
from intercept_py.audit.chain import GENESIS, HEAD_SIZE, Head
from intercept_py.audit.record import recovered_record, rotated_record, timestamp
from intercept_py.errors import AuditError
from intercept_py.private_files import explain, exposure, make_directory

_EMPTY = Head(0, GENESIS)
_LOOK_SECONDS = 1.0
_MAX_LINE = 64 * 1024 * 1024
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def head_path(path: str) -> str:
    """Where the head of a log lies."""
    return f"{path}.head"


class AuditLog:
    """An append-only, hash-chained file. Records wait in memory until `flush` writes them all at once.

    Every method raises `AuditError` if the file cannot be trusted or written; what was waiting is dropped then, and the
    file ends with the last record that was written before.
    """

    def __init__(self, path: str, clock: Callable[[], float], patience: float) -> None:
        self.path = os.path.abspath(path)
        self._clock = clock
        self._patience = patience
        self.losses = 0  # of what was waiting, because it could not be written
        self._file: _File | None = None
        self._waiting = _Waiting(_EMPTY)
        self._looked = 0.0

    @classmethod
    def open(cls, path: str, clock: Callable[[], float] = time.time, patience: float = 5.0) -> AuditLog:
        """Open or create a log (file 0600, directories 0700) and repair its end.

        `clock` tells seconds since the epoch; `patience` is for how many of them to wait for another writer's lock.
        """
        log = cls(path, clock, patience)
        try:
            make_directory(os.path.dirname(log.path))
            log._file = log._attach(None)
        except OSError as exc:
            raise AuditError(f"cannot open audit file `{log.path}`: {explain(exc)}") from exc
        return log

    def append(self, record: bytes) -> None:
        """Take an encoded record. It is in the file after the next `flush`."""
        if self._file is None:
            raise AuditError(f"audit file `{self.path}` is closed")
        try:
            self._waiting.add(record)
        except Exception as exc:  # no memory: a record may be as long as a message
            raise AuditError(f"a record for audit file `{self.path}` cannot be made: {type(exc).__name__}") from exc

    def flush(self) -> None:
        """Write what is waiting: all of it is in the file afterwards, or (`AuditError`) none of it."""
        waiting = self._waiting
        if not waiting.lines or self._file is None:
            return
        self.losses += 1
        try:
            now = self._clock()
            if abs(now - self._looked) >= _LOOK_SECONDS:  # at most once a second: a stat is a slow call
                self._follow(self._file)
                self._looked = now
            _lock(self._file.fd, self.path, self._patience)
            try:
                self._file.catch_up()
                self._file.write(waiting)
            finally:
                fcntl.flock(self._file.fd, fcntl.LOCK_UN)
        except OSError as exc:
            raise AuditError(f"cannot write audit file `{self.path}`: {explain(exc)}") from exc
        finally:
            self._waiting = _Waiting(self._file.last)
        self.losses -= 1

    def close(self) -> None:
        """Flush and close. Closing again does nothing."""
        if self._file is None:
            return
        try:
            self.flush()
        finally:
            self._file.close()
            self._file = None

    def warnings(self) -> list[str]:
        """What a person should know: records that were lost before the log was opened, and who else may write it."""
        if self._file is None:
            return []
        found = []
        if self._file.lost is not None:
            known = f"up to record {self._file.lost.seq}"
            found.append(f"audit file `{self.path}` had lost records ({known}) when it was opened, and now says so")
        found += exposure(f"audit file `{self.path}`", os.fstat(self._file.fd))
        directory = os.path.dirname(self.path)
        return found + exposure(f"directory `{directory}` of the audit file", os.stat(directory))

    def _follow(self, file: _File) -> None:
        """Go on in a new file if `path` names another one by now."""
        if not file.is_at(self.path):
            self._file = self._attach(file)
            file.close()

    def _attach(self, before: _File | None) -> _File:
        """Open the file at `path`, where `before` (if any) was until now.

        Done under a lock on the directory: of several processes one creates the file and the others join it.
        """
        with _locked_directory(self.path, self._patience):
            file = _File(self.path, self._clock)
            try:
                _lock(file.fd, self.path, self._patience)
                file.begin(None if before is None or before.inode == file.inode else before.last)
                fcntl.flock(file.fd, fcntl.LOCK_UN)
            except BaseException:
                file.close()
                raise
            return file


class _Waiting:
    """Records that are to follow `since`, and their lines, the last of which has this `digest`."""

    __slots__ = ("bodies", "digest", "lines", "since")

    def __init__(self, since: Head) -> None:
        self.since = since
        self.digest = since.hash
        self.bodies: list[bytes] = []
        self.lines: list[bytes] = []

    def add(self, body: bytes) -> None:
        """Seal an encoded record."""
        line, self.digest = chain.link(body, self.since.seq + len(self.lines) + 1, self.digest)
        self.bodies.append(body)
        self.lines.append(line)


class _File:
    """The open file and its head file. All but `is_at` and `close` is called with the file locked.

    `size` and `last` describe the file as this process knows it. `owed` is what must be recorded before anything else.
    """

    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        self.path = path
        self.clock = clock
        self.size = 0
        self.last = _EMPTY
        self.lost: Head | None = None
        self.owed: list[bytes] = []
        self.head_fd = -1
        self.fd = _open_file(path)
        status = os.fstat(self.fd)
        self.inode = (status.st_dev, status.st_ino)

    def begin(self, before: Head | None) -> None:
        """Find the end, open the head. `before` is the end of the file that this one follows, if that is known."""
        head = _read_head(self.path)
        size = os.lseek(self.fd, 0, os.SEEK_END)
        if size:
            self.recover(size, head)
        elif head is not None and head.seq:
            before = before or head  # the file was moved away or emptied while no proxy ran
        if head is None or (head.seq and not size):
            # A new chain gets a new head file: whoever still writes the old chain goes on with the old head.
            self.head_fd = _create_head(self.path, self.last)
        else:
            self.head_fd = os.open(head_path(self.path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        if before is not None and before.seq:
            self.owed.append(rotated_record(timestamp(self.clock()), before))
        if self.owed:
            self.write(_Waiting(self.last))

    def catch_up(self) -> None:
        """Go on from what other processes wrote since."""
        size = os.lseek(self.fd, 0, os.SEEK_END)
        if size == self.size:
            return
        if size < self.size:
            raise AuditError(
                f"audit file `{self.path}` became shorter: records were removed; run `intercept-py audit verify`, "
                "move the file away and start again"
            )
        self.recover(size, None)

    def recover(self, size: int, head: Head | None) -> None:
        """Find the last record, and cut off what follows it (kept in a file of its own)."""
        last, torn = _read_end(self.fd, size, self.path)
        lost = head if head is not None and head.seq > last.seq else None
        saved = None
        if torn:
            saved = _save(f"{self.path}.torn-{last.seq + 1}", torn)
            os.ftruncate(self.fd, size - len(torn))
        self.size, self.last = size - len(torn), last
        if torn or lost is not None:
            self.lost = lost
            self.owed.append(recovered_record(timestamp(self.clock()), torn, saved, lost))

    def write(self, waiting: _Waiting) -> None:
        """Append records, and then the head. If that fails the file is as it was before."""
        if self.owed or waiting.since is not self.last:
            bodies, waiting = self.owed + waiting.bodies, _Waiting(self.last)
            for body in bodies:
                waiting.add(body)
        data, end = b"".join(waiting.lines), Head(waiting.since.seq + len(waiting.lines), waiting.digest)
        try:
            _write_all(self.fd, data)
            _write_head(self.head_fd, end.seq, end.hash)
        except BaseException:
            self._undo()
            raise
        self.size += len(data)
        self.last = end
        self.owed.clear()

    def _undo(self) -> None:
        # Where even this fails, the next flush finds a torn end, or records it does not know, and goes on from there.
        with suppress(OSError):
            os.ftruncate(self.fd, self.size)
            _write_head(self.head_fd, self.last.seq, self.last.hash)

    def is_at(self, path: str) -> bool:
        """Whether the log and its head are still the files that these paths name."""
        try:
            status = os.stat(path, follow_symlinks=False)
            os.stat(head_path(path), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self.inode

    def close(self) -> None:
        """Close both files, which also unlocks them."""
        for fd in (self.fd, self.head_fd):
            if fd >= 0:
                os.close(fd)


def _open_file(path: str) -> int:
    """A descriptor of the regular file at `path`, which is created if it is missing."""
    try:
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        mode = os.stat(path, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        raise AuditError(f"audit file `{path}` is a symbolic link: name the file that it points to")
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise AuditError(f"audit file `{path}` is {kind}, so nothing in it could be verified: name a regular file")
    return os.open(path, _FLAGS)


def _lock(fd: int, path: str, patience: float) -> None:
    """Lock exclusively. Others hold the lock for microseconds; one that is stopped while it does must not stop us."""
    deadline = 0.0
    pause = 0.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            deadline = deadline or now + patience
            if now > deadline:
                raise AuditError(
                    f"audit file `{path}` is locked by another process: end that one, or name another file"
                ) from None
            time.sleep(pause)
            pause = min(pause + 0.00005, 0.005)
        else:
            return


@contextmanager
def _locked_directory(path: str, patience: float) -> Iterator[None]:
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd, path, patience)
        yield
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    """A regular file takes everything at once unless the disk is full or a signal came in between."""
    written = os.write(fd, data) if data else 0
    while written < len(data):
        written += os.write(fd, data[written:])


def _read_at(fd: int, start: int, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := os.pread(fd, size - len(data), start + len(data))):
        data += more
    return data


def _write_head(fd: int, seq: int, digest: str) -> None:
    if os.pwrite(fd, chain.encode_head(seq, digest), 0) != HEAD_SIZE:
        raise OSError(errno.EIO, "the head file could be written in part only")


def _create_head(path: str, last: Head) -> int:
    temporary = f"{head_path(path)}.new"
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_head(fd, last.seq, last.hash)
        os.replace(temporary, head_path(path))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read_head(path: str) -> Head | None:
    try:
        fd = os.open(head_path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        return chain.read_head(_read_at(fd, 0, HEAD_SIZE + 1))
    finally:
        os.close(fd)


def _read_end(fd: int, size: int, path: str) -> tuple[Head, bytes]:
    """The last record, and the bytes after it: a piece of a record, or one line that is none."""
    if not b'{"seq":1,'.startswith(_read_at(fd, 0, 9)):
        raise AuditError(f"`{path}` holds something else than an audit log: name another file")
    line, rest = _last_line(fd, size)
    if (last := _genuine(line)) is None:
        rest = line + rest
        line, _ = _last_line(fd, size - len(rest))
        last = _genuine(line)
    if last is None or len(rest) > _MAX_LINE:
        raise AuditError(f"audit file `{path}` does not end in records: run `intercept-py audit verify`, move it away")
    return last, rest


def _genuine(line: bytes) -> Head | None:
    """What a line says about the chain if it is a record, or if there is none above it."""
    if not line:
        return _EMPTY
    read = chain.read_line(line)
    return Head(read.seq, read.hash) if read is not None and read.hash == read.digest else None


def _last_line(fd: int, size: int) -> tuple[bytes, bytes]:
    """The last line that ends in a LF within the first `size` bytes (empty if there is none), and what follows it."""
    span = 4096
    while True:
        start = max(0, size - span)
        data = _read_at(fd, start, size - start)
        end = data.rfind(b"\n") + 1
        begin = data.rfind(b"\n", 0, end - 1) + 1 if end else 0
        if begin or not start or span > _MAX_LINE:
            return data[begin:end], data[end:]
        span *= 4


def _save(path: str, data: bytes) -> str:
    """Keep `data` in a new file; the name of that file."""
    name, number = path, 1
    while True:
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            number += 1
            name = f"{path}-{number}"
        else:
            break
    try:
        _write_all(fd, data)
    finally:
        os.close(fd)
    return os.path.basename(name)
