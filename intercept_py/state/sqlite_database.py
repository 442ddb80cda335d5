"""The SQLite file of the counters: its tables, one write transaction at a time, its clock, its faults in plain words.

Several processes may use one file. Write-ahead log with `synchronous=NORMAL`: what was committed outlives the process
(kill -9), though the last moments before a power cut may be lost. Below: `sqlite_file`, `clock`. Above: `sqlite`.
"""

from __future__ import annotations

__all__ = ["Database", "DatabaseError", "Parameters", "Row"]

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import quote

from intercept_py.errors import StateError, UnavailableError
from intercept_py.private_files import explain
from intercept_py.state import sqlite_file
from intercept_py.state.clock import Timepiece
from intercept_py.state.sqlite_file import identity

Row: TypeAlias = tuple[Any, ...]
"""What a query gives."""
Parameters: TypeAlias = Sequence[int | str]
"""What a statement is given. Never None: the `sqlite3` module takes as long to pass that as to run the statement."""

_FORMAT = 1
_APPLICATION = 0x49435059
_PAGE = 1024
_LOOK_SECONDS = 0.25
_IMPATIENCE = 0.05
_WAL_PAGES = 1000
_TABLES = (
    # `lag`: by how many microseconds the ticks since `boot` lag behind the epoch. `latest`: the time of the last commit
    # or up to a second before. `counters`: how many there are. `last_id`: ids are never used again.
    "CREATE TABLE store (boot TEXT NOT NULL, lag INTEGER NOT NULL, latest INTEGER NOT NULL, counters INTEGER NOT NULL,"
    " last_id INTEGER NOT NULL)",
    # Numbers are integers, or text where they do not fit. `ends`: then nothing counts any more. `part`: the sliding
    # window before, or the newest point of a moving one, which ends at `ends`. `first`: when its oldest one ends, or 0.
    "CREATE TABLE counter (id INTEGER PRIMARY KEY, key TEXT NOT NULL, kind INTEGER NOT NULL, value NOT NULL,"
    " ends INTEGER NOT NULL, part NOT NULL, first INTEGER NOT NULL, UNIQUE (key, kind))",
    "CREATE TABLE point (counter INTEGER NOT NULL, ends INTEGER NOT NULL, amount NOT NULL,"
    " PRIMARY KEY (counter, ends)) WITHOUT ROWID",
)

_BEGIN = "BEGIN IMMEDIATE"
_VERSION = "PRAGMA data_version"
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_AGAIN = "start again: limits then count from zero"
_FAULTS = {
    sqlite3.SQLITE_FULL: "has no room to grow: free some of the disk, or split limits by fewer values (`per`)",
    sqlite3.SQLITE_IOERR: "cannot be written or read: look at the disk and at the limits of this user",
    sqlite3.SQLITE_READONLY: "may not be written: name a file that this user may write",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: name a file that this user may write",
    sqlite3.SQLITE_PERM: "may not be used: name a file that this user may write",
    sqlite3.SQLITE_CORRUPT: f"is damaged: move it away and {_AGAIN}",
    sqlite3.SQLITE_NOTADB: "holds something else than limits: name another file",
}


class DatabaseError(StateError):
    """The file failed: what a transaction has done so far may be lost, so it must be rolled back."""


class DatabaseUnavailableError(DatabaseError, UnavailableError):
    """The file cannot be used, whatever it is asked. One that is full or locked is not: agents can bring that about."""


class Database:
    """One connection. Every method raises `DatabaseError`; opening may raise any `StateError`.

    Not for two threads at once. `patience`: seconds to wait for another process. `most_bytes`: as large a file may get.
    """

    def __init__(self, path: str, timepiece: Timepiece, patience: float, most_bytes: int) -> None:
        """Open or create the file."""
        self.path = path
        self._timepiece = timepiece
        self._patience = patience
        self._most_pages = most_bytes // _PAGE
        self._lag = 0
        self._latest = 0
        self._saved = 0  # the latest time that the file knows from us
        self._ready = False
        self._gave_up = False
        sqlite_file.prepare(path)
        self._identity = identity(path)
        with self._faults():
            self._connection = sqlite3.connect(
                f"file:{quote(path, errors='surrogateescape')}?mode=rw",
                uri=True,
                timeout=0,  # we wait ourselves: SQLite sleeps longer than a transaction takes
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            self._cursor = self._connection.cursor()
            self._set_up()
        except BaseException:
            self._connection.close()
            raise
        self._look_at = 0.0
        self._beside = {name: identity(name) for name in sqlite_file.beside(path)}

    # ---- transactions

    def begin(self) -> int:
        """Start a transaction: no other process writes until it ends. Waits up to `patience` for one that does.

        Gives a number that is different from the time before if somebody else has changed the file since.
        """
        now = time.monotonic()
        if now >= self._look_at:  # not each time: it takes as long as all the rest of this
            self._check_place()
            self._look_at = now + _LOOK_SECONDS
        try:
            self._cursor.execute(_BEGIN)
        except sqlite3.Error:
            self._wait_for_lock()
        try:
            version: int = self._cursor.execute(_VERSION).fetchone()[0]
        except sqlite3.Error as exc:
            self.rollback()
            raise self._fault(exc) from exc
        return version

    def _wait_for_lock(self) -> None:
        # Whoever has waited in vain once does not make every call wait: a lock that lasts is somebody's fault.
        patience = min(self._patience, _IMPATIENCE) if self._gave_up else self._patience
        self._gave_up = True
        self._patiently(self._try_begin, time.monotonic() + patience)
        self._gave_up = False

    def _try_begin(self) -> None:
        self._cursor.execute(_BEGIN)

    def commit(self) -> None:
        """End the transaction: all of it was done, or (`DatabaseError`, and after `rollback`) nothing."""
        if self._latest - self._saved >= 1_000_000:
            self.save_time()
        try:
            self._cursor.execute("COMMIT")
        except sqlite3.Error as exc:
            raise self._fault(exc) from exc

    def rollback(self) -> None:
        """End the transaction: nothing of it was done."""
        with suppress(sqlite3.Error):  # it may have ended by itself
            self._cursor.execute("ROLLBACK")

    def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a statement that changes something; how many rows."""
        try:
            return self._cursor.execute(sql, parameters).rowcount
        except sqlite3.Error as exc:
            raise self._fault(exc) from exc

    def first(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row of a query."""
        try:
            row: Row | None = self._cursor.execute(sql, parameters).fetchone()
        except sqlite3.Error as exc:
            raise self._fault(exc) from exc
        return row

    def execute_many(self, sql: str, parameters: list[Parameters]) -> int:
        """Run a statement for each of these; how many rows it has changed in all."""
        try:
            return self._cursor.executemany(sql, parameters).rowcount
        except sqlite3.Error as exc:
            raise self._fault(exc) from exc

    def rows(self, sql: str, parameters: Parameters = ()) -> Iterator[Row]:
        """The rows of a query, one by one until the next statement is run."""
        with self._faults():
            # A cursor would be closed by `yield from` where the rest of the rows is not wanted.
            yield from iter(self._cursor.execute(sql, parameters).fetchone, None)

    def one(self, sql: str, parameters: Parameters = ()) -> Row:
        """The row of a query that must have one."""
        row = self.first(sql, parameters)
        if row is None:
            raise self.damaged()
        return row

    def close(self) -> None:
        """Close the file. What was not committed is undone."""
        with suppress(sqlite3.Error):
            self._connection.close()

    # ---- time

    def now(self) -> int:
        """Microseconds since the epoch, alike for all processes since this machine started; never less than before."""
        now = self._timepiece.ticks() + self._lag
        if now < self._latest:
            return self._latest
        self._latest = now
        return now

    def save_time(self) -> None:
        """Have the file know the time, which must not be earlier when the machine starts again."""
        self.execute("UPDATE store SET latest = max(latest, ?)", (self._latest,))
        self._saved = self._latest

    def _read_clock(self) -> bool:
        """Take the time from the file; whether it is that of this run of the machine."""
        boot, self._lag, self._latest = self.one("SELECT boot, lag, latest FROM store")
        # In a container of its own a process may see an earlier time under the same boot id.
        return bool(boot) and boot == self._timepiece.boot and self._timepiece.ticks() + self._lag >= self._latest

    def _set_clock(self) -> None:
        """Go on from the latest time in the file, or from now if that is later."""
        self._lag = max(self._timepiece.wall(), self._latest) - self._timepiece.ticks()
        self.execute("UPDATE store SET boot = ?, lag = ?", (self._timepiece.boot, self._lag))

    # ---- opening

    def _set_up(self) -> None:
        deadline = time.monotonic() + self._patience
        # Nothing is written before the file is known to be ours, and nothing at all if it is as it must be.
        for step in (self._glance, self._use_wal, self._tune):
            self._patiently(step, deadline)
        if not self._ready:
            self._patiently(self._try_begin, deadline)
            try:
                if self._look():
                    self._create()
                if not self._read_clock():
                    self._set_clock()
                self.commit()
            except BaseException:
                self.rollback()
                raise

    def _glance(self) -> None:
        self._cursor.execute("BEGIN")
        try:
            self._ready = not self._look() and self._read_clock()
        finally:
            self.rollback()

    def _look(self) -> bool:
        """Whether the file is empty. Raises `StateError` if it is neither empty nor ours."""
        (application,) = self._cursor.execute("PRAGMA application_id").fetchone()
        (format_,) = self._cursor.execute("PRAGMA user_version").fetchone()
        tables = {sql for (sql,) in self._cursor.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
        if not application and not format_ and not tables:
            return True
        if application != _APPLICATION:
            raise StateError(f"`{self.path}` holds something else than limits: name another file")
        if format_ > _FORMAT:
            raise StateError(
                f"state file `{self.path}` was written by a newer version (format {format_}, here {_FORMAT} is known): "
                "use that version, or name another file"
            )
        if tables != set(_TABLES):
            raise self.damaged()
        return False

    def _use_wal(self) -> None:
        self._cursor.execute(f"PRAGMA page_size = {_PAGE}")
        (mode,) = self._cursor.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StateError(
                f"state file `{self.path}` is on a disk that processes cannot share: name one on a local disk"
            )

    def _tune(self) -> None:
        for pragma in (
            "synchronous = NORMAL",
            f"wal_autocheckpoint = {_WAL_PAGES}",
            f"journal_size_limit = {4 * _WAL_PAGES * _PAGE}",
            f"max_page_count = {self._most_pages}",
            "trusted_schema = OFF",
            "cell_size_check = ON",
        ):
            self._cursor.execute(f"PRAGMA {pragma}").fetchall()

    def _create(self) -> None:
        for sql in (*_TABLES, f"PRAGMA application_id = {_APPLICATION}", f"PRAGMA user_version = {_FORMAT}"):
            self.execute(sql)
        self.execute("INSERT INTO store VALUES ('', 0, 0, 0, 0)")

    # ---- faults

    def _check_place(self) -> None:
        """Others would count in another file than we do, if the one at our path is not ours any more."""
        path = self.path
        gone = any(identity(name) != known for name, known in self._beside.items())
        if gone or identity(path) != self._identity or sqlite_file.is_empty(path):
            raise DatabaseUnavailableError(
                f"state file `{path}` (or `-wal` or `-shm` beside it) was removed or replaced while in use: "
                "put it back, or start the proxy again"
            )

    def _patiently(self, work: Callable[[], None], deadline: float) -> None:
        """Do it again while another process is in the way, up to a deadline on the monotonic clock."""
        pause = 0.0
        while True:
            try:
                with self._faults(busy=False):
                    work()
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    # No limit opens by this: who gives a neighbour much to judge has it hold the file.
                    raise DatabaseError(
                        f"state file `{self.path}` has been locked by another process for over {self._patience:g} s: "
                        "end that one, or name another file"
                    ) from None
            time.sleep(pause)
            pause = min(pause + 0.00005, 0.005)

    @contextmanager
    def _faults(self, *, busy: bool = True) -> Iterator[None]:
        """Turn every fault of SQLite into a `DatabaseError`, but leave one that will pass as it is if not `busy`."""
        try:
            yield
        except sqlite3.Error as exc:
            if not busy and _code(exc) in _PASSING:
                raise
            raise self._fault(exc) from exc
        except OSError as exc:
            raise DatabaseUnavailableError(f"state file `{self.path}` cannot be used: {explain(exc)}") from exc

    def _fault(self, exc: sqlite3.Error) -> DatabaseError:
        why = _FAULTS.get(_code(exc))
        if why is None:
            return DatabaseUnavailableError(
                f"state file `{self.path}` cannot be used ({exc}): move it away and {_AGAIN}"
            )
        kind = DatabaseError if _code(exc) == sqlite3.SQLITE_FULL else DatabaseUnavailableError
        return kind(f"state file `{self.path}` {why} ({exc})")

    def damaged(self) -> DatabaseError:
        """The fault of contents that we did not write."""
        return DatabaseUnavailableError(f"state file `{self.path}` {_FAULTS[sqlite3.SQLITE_CORRUPT]}")


def _code(exc: sqlite3.Error) -> int:
    code: int = getattr(exc, "sqlite_errorcode", 0)
    return code & 0xFF
