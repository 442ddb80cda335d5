"""The job store's file: its tables, transactions, and what its faults mean.

Below: `model`; `sqlite3`. Above: `store`.
"""

from __future__ import annotations

__all__ = ["SCHEMA", "Database", "Row", "Value"]

import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from intercept_py.jobs.model import JobError
from intercept_py.model import Json

SCHEMA = 2
_PATIENCE = 5.0
"""Seconds to wait for another server's transaction, which takes less than a millisecond."""

_TABLES = """
CREATE TABLE store (uuid TEXT NOT NULL);
CREATE TABLE job (
  row INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL, paused INTEGER NOT NULL DEFAULT 0,
  argv TEXT NOT NULL, text TEXT NOT NULL, cwd TEXT NOT NULL, meta TEXT NOT NULL, ttl REAL,
  status TEXT NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL, started_at REAL, finished_at REAL,
  pid INTEGER, exit_code INTEGER, term_signal INTEGER, killed INTEGER NOT NULL DEFAULT 0, ended_by TEXT,
  cancel_requested_at REAL, cancel_by TEXT, cancel_reason TEXT, waiting_for TEXT, error TEXT,
  last_seq INTEGER NOT NULL DEFAULT 0,
  UNIQUE (kind, id)
);
CREATE INDEX job_created ON job (kind, created_at, id);
CREATE INDEX job_status ON job (status, kind, created_at, id);
CREATE INDEX job_finished ON job (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX job_unfinished ON job (owner) WHERE finished_at IS NULL;
CREATE TABLE event (
  job INTEGER NOT NULL, seq INTEGER NOT NULL, ts REAL NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL,
  PRIMARY KEY (job, seq)
) WITHOUT ROWID;
"""

_REMEDIES = {
    "SQLITE_FULL": "free some space",
    "SQLITE_IOERR_WRITE": "is the disk full?",
    "SQLITE_READONLY": "name a directory that this user may write",
    "SQLITE_NOTADB": "name another directory",
    "SQLITE_BUSY": "end the process that blocks it",
}

Value: TypeAlias = str | int | float | None
Row: TypeAlias = tuple[Any, ...]


class Database:
    """One connection. Every method raises `JobError`: `store` if the file cannot be used, `closed` after `close`."""

    def __init__(self, directory: str) -> None:
        """Open or create the file in this directory, which is created as well (files 0600, directories 0700)."""
        self.path = os.path.join(directory, "jobs.db")
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except (OSError, ValueError) as exc:
            reason = exc.strerror.lower() if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise JobError("store", f"cannot use state directory `{directory}`: {reason}; name another one") from None
        self._closed = False
        self._connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is executed within, or nothing."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.Error as exc:
            raise self._fault(exc) from None

    def execute(self, sql: str, *values: Value) -> sqlite3.Cursor:
        """Change something, within a transaction."""
        return self._connection.execute(sql, values)

    def execute_for(self, sql: str, rows: Iterable[int]) -> None:
        """Change something for each of these rows, within a transaction."""
        self._connection.executemany(sql, [(row,) for row in rows])

    def read(self, sql: str, *values: Json) -> list[Row]:
        """What is found. What SQLite cannot hold (half a surrogate pair, a huge number) is nowhere."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except (UnicodeEncodeError, OverflowError):
            return []
        except sqlite3.Error as exc:
            raise self._fault(exc) from None

    def _prepare(self) -> None:
        """Bring a new file into shape."""
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as exc:
            raise self._fault(exc) from None
        with self.transaction():
            (version,) = self.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA):
                raise JobError("store", f"job store `{self.path}` is of another version: name another directory")
            if not version:
                for statement in _TABLES.split(";\n"):
                    self.execute(statement)
                self.execute("INSERT INTO store VALUES (?)", str(uuid.uuid4()))
                self.execute(f"PRAGMA user_version = {SCHEMA}")

    def _fault(self, exc: sqlite3.Error) -> JobError:
        if self._closed:
            return JobError("closed", "the job server has ended")
        name = getattr(exc, "sqlite_errorname", "")
        remedy = _REMEDIES.get(name, _REMEDIES.get("_".join(name.split("_")[:2]), "check the disk and the directory"))
        return JobError("store", f"cannot use job store `{self.path}`: {str(exc).lower()}; {remedy}")
