"""Jobs and their events in SQLite. Every change of a job is one transaction: compare the status, set, append an event.

Several servers may share a directory: each row has one owner, and only its owner changes it. One thread owns a store.

Below: `database`, `instances`, `remains`. Above: the engine.
"""

from __future__ import annotations

__all__ = ["Request", "Step", "Store"]

import os
import time
from collections.abc import Collection
from contextlib import suppress
from typing import TypeAlias

import msgspec

from intercept_py.jobs import instances
from intercept_py.jobs.database import Database, Row, Value
from intercept_py.jobs.instances import Instance
from intercept_py.jobs.model import TERMINAL, EndedBy, Event, Job, JobError, Order, Status
from intercept_py.jobs.remains import Conclusion
from intercept_py.model import Json, JsonObject

_UNFINISHED: tuple[Status, ...] = ("queued", "running", "waiting", "cancelling")
_PRUNE = 100
_MOST = 1_000_000

_COLUMNS = (
    "row", "kind", "id", "argv", "text", "cwd", "meta", "status", "created_at", "updated_at", "started_at",
    "finished_at", "pid", "exit_code", "term_signal", "killed", "ended_by", "cancel_requested_at", "cancel_by",
    "cancel_reason", "last_seq", "waiting_for", "error", "owner", "paused",
)  # fmt: skip
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM job"

Step: TypeAlias = tuple[Status, str, JsonObject]
"""A status, and the type and data of the event that tells of it."""


class Request(msgspec.Struct, frozen=True):
    """That a job is to end: why, when (seconds since the epoch), and what the client said of it."""

    why: EndedBy
    at: float
    by: str
    reason: str

    def columns(self) -> dict[str, Value]:
        """The same for the job's row."""
        return {"cancel_requested_at": self.at, "cancel_by": self.by, "cancel_reason": self.reason}

    def data(self) -> JsonObject:
        """The same for an event."""
        return {"by": self.by, "reason": self.reason}


class Store:
    """One server's connection. Every method raises `JobError` (`store`) if the files cannot be used, and then nothing
    was changed; `closed` after `close`.
    """

    def __init__(self, state_dir: str) -> None:
        """Open or create the store in this directory (files 0600, directories 0700)."""
        self.state_dir = os.path.abspath(state_dir)
        self._jobs = os.path.join(self.state_dir, "jobs")
        self._servers = os.path.join(self.state_dir, "servers")
        self._db = Database(self.state_dir)
        try:
            self.uuid = str(self._db.read("SELECT uuid FROM store")[0][0])
            self.instance = self._enter()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the files. What this instance did not end is left to whoever opens the store next."""
        try:
            ended = not self.unfinished()
        except JobError:
            ended = False
        self._db.close()
        self.instance.leave(forget=ended)

    def warnings(self) -> list[str]:
        """What about these files may harm their owner, a line each: whoever can write them decides what runs."""
        paths = (self.state_dir, self._jobs, self._servers, self._db.path)
        loose = [path for path in paths if os.stat(path).st_mode & 0o022]
        return [f"`{path}` can be written by others: chmod go-w it" for path in loose]

    def directory(self, row: int) -> str:
        """Where the files of a job are."""
        return os.path.join(self._jobs, str(row))

    def directories(self) -> list[int]:
        """The rows of jobs that have files, or had."""
        try:
            names = os.listdir(self._jobs)
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise JobError("store", f"cannot read directory `{self._jobs}`: {reason}") from None
        return [int(name) for name in names if name.isascii() and name.isdigit()]

    def mark(self, row: int) -> str:
        """What the processes of a job carry in their environment: different for every job of every store."""
        return f"{self.uuid}/{row}"

    def insert(self, order: Order, job_id: str, steps: tuple[Step, ...]) -> tuple[int, list[Event]]:
        """A new job of this instance: its row, and an event for each step (status, type, data).

        It has the last status. Raises `JobError` (`duplicate`) if the kind has a job of this id.
        """
        now = time.time()
        events = [Event(seq, now, what, data) for seq, (_, what, data) in enumerate(steps, 1)]
        status = steps[-1][0]
        values = {
            "kind": order.kind, "id": job_id, "owner": self.instance.uuid, "argv": _encode(order.argv),
            "text": order.text, "cwd": order.cwd, "meta": _encode(order.meta), "ttl": order.ttl, "status": status,
            "created_at": now, "updated_at": now, "started_at": None if status == "queued" else now,
        }  # fmt: skip
        sql = f"INSERT INTO job ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
        with self._db.transaction():
            if self._db.read("SELECT 1 FROM job WHERE kind = ? AND id = ?", order.kind, job_id):
                raise JobError("duplicate", f"there is a job `{job_id}` already")
            row = self._db.execute(sql, *values.values()).lastrowid
            assert row is not None
            for event in events:
                self._append(row, event)
        return row, events

    def delete(self, row: int) -> None:
        """Forget a job."""
        with self._db.transaction():
            self._delete([row])

    def move(
        self, row: int, expected: Status | tuple[Status, ...], status: Status, data: JsonObject, **columns: Value
    ) -> Event | None:
        """As `change`: to another status."""
        return self.change(row, expected, "status", {"status": status, **data}, status=status, **columns)

    def change(
        self, row: int, expected: Status | tuple[Status, ...], what: str, data: JsonObject, **columns: Value
    ) -> Event | None:
        """Set columns and append an event if the job is this instance's and has one of the expected statuses.

        None, and nothing is changed, if not.
        """
        with self._db.transaction():
            return self._change(row, expected, what, data, columns)

    def end(self, row: int, conclusion: Conclusion, request: Request | None = None) -> Event | None:
        """Write a job's last status as `change` does. `request`: what asked for it, if that is not written yet."""
        return self._end([row], conclusion, _UNFINISHED, request).get(row)

    def end_queued(
        self, rows: Collection[int], conclusion: Conclusion, request: Request | None = None
    ) -> dict[int, Event]:
        """Write the last status of all of these jobs that were never started; an event for each."""
        return self._end(rows, conclusion, ("queued",), request)

    def note(self, row: int, what: str, data: JsonObject) -> Event | None:
        """Append an event that is no change of the job; `late_output` if the job has ended. None if there is no job."""
        now = time.time()
        with self._db.transaction():
            status, last_seq, _ = self._state(row)
            if status is None:
                return None
            if status in TERMINAL:
                event = Event(last_seq + 1, now, "late_output", {"type": what, "data": data})
                self._append(row, event)
            else:
                event = Event(last_seq + 1, now, what, data)
                self._append(row, event, updated_at=now)
        return event

    def started(self, row: int, pid: int) -> None:
        """Note which process leads the job."""
        with self._db.transaction():
            self._set(row, pid=pid, started_at=time.time())

    def get(self, kind: str, job_id: str) -> Job | None:
        """The job of this id."""
        found = self._db.read(f"{_SELECT} WHERE kind = ? AND id = ?", kind, job_id)
        return self._job(found[0]) if found else None

    def at(self, row: int) -> Job | None:
        """The job of this row."""
        found = self._db.read(f"{_SELECT} WHERE row = ?", row)
        return self._job(found[0]) if found else None

    def page(
        self,
        kind: str,
        statuses: Collection[Status] | None,
        limit: int,
        before: tuple[float, str] | None,
        meta: JsonObject,
    ) -> list[Job]:
        """Jobs of a kind, newest first, from after the position `before` (created_at, id) on."""
        conditions = ["kind = ?"]
        values: list[Json] = [kind]
        if statuses is not None:
            conditions.append(f"status IN ({', '.join('?' * len(statuses))})")
            values += statuses
        if before is not None:
            conditions.append("(created_at, id) < (?, ?)")
            values += before
        for name, value in meta.items():
            conditions.append("EXISTS (SELECT 1 FROM json_each(job.meta) m WHERE m.key = ? AND m.value IS ?)")
            values += [name, value]
        where = " AND ".join(conditions)
        sql = f"{_SELECT} WHERE {where} ORDER BY created_at DESC, id DESC LIMIT ?"
        return [self._job(found) for found in self._db.read(sql, *values, _bounded(limit))]

    def events(self, row: int, after: int, limit: int) -> list[Event]:
        """Events of a job with a greater number than `after`, in order."""
        sql = "SELECT seq, ts, type, data FROM event WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?"
        found = self._db.read(sql, row, after, _bounded(limit))
        return [Event(seq, ts, what, msgspec.json.decode(data)) for seq, ts, what, data in found]

    def counts(self) -> dict[Status, int]:
        """How many jobs there are by status, of all kinds and servers."""
        return dict(self._db.read("SELECT status, count(*) FROM job GROUP BY status"))

    def unfinished(self) -> list[int]:
        """The rows of this instance's jobs that have not ended."""
        sql = "SELECT row FROM job WHERE owner = ? AND finished_at IS NULL ORDER BY row"
        return [row for (row,) in self._db.read(sql, self.instance.uuid)]

    def paused(self) -> list[tuple[int, float | None]]:
        """This instance's paused jobs: row, and when it expires."""
        sql = "SELECT row, created_at + ttl FROM job WHERE owner = ? AND finished_at IS NULL AND paused"
        return self._db.read(sql, self.instance.uuid)

    def rows(self) -> set[int]:
        """The rows of all jobs."""
        return {row for (row,) in self._db.read("SELECT row FROM job")}

    def prune(self, keep: int, finished_before: float) -> list[int]:
        """Forget some of the jobs that ended before then, or that are more than the `keep` last ones; their rows."""
        old = "SELECT row FROM job WHERE finished_at < ?"
        last = "SELECT row FROM job WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT -1 OFFSET ?"
        found = self._db.read(f"{old} UNION SELECT row FROM ({last}) LIMIT {_PRUNE}", finished_before, keep)
        rows = [row for (row,) in found]
        if rows:
            with self._db.transaction():
                self._delete(rows)
        return rows

    def claim(self) -> bool:
        """Take over what servers that are dead left unfinished; whether there was anything."""
        sql = "UPDATE job SET owner = ? WHERE owner = ? AND finished_at IS NULL"
        taken = 0
        with suppress(OSError):  # it cannot be told, so nobody is dead
            for owner in instances.dead(self._servers):
                with self._db.transaction():
                    taken += self._db.execute(sql, self.instance.uuid, owner).rowcount
        return taken > 0

    def _enter(self) -> Instance:
        """Say that this server is there."""
        place = self._jobs
        try:
            os.makedirs(place, 0o700, exist_ok=True)
            place = self._servers
            os.makedirs(place, 0o700, exist_ok=True)
            return Instance(place)
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise JobError("store", f"cannot use directory `{place}`: {reason}") from None

    def _end(
        self, rows: Collection[int], conclusion: Conclusion, expected: tuple[Status, ...], request: Request | None
    ) -> dict[int, Event]:
        columns = msgspec.structs.asdict(conclusion) | (request.columns() if request else {})
        data = conclusion.data() | (request.data() if request else {})
        with self._db.transaction():
            events = {row: self._change(row, expected, "status", data, columns) for row in rows}
        return {row: event for row, event in events.items() if event is not None}

    def _change(
        self,
        row: int,
        expected: Status | tuple[Status, ...],
        what: str,
        data: JsonObject,
        columns: dict[str, Value],
    ) -> Event | None:
        now = time.time()
        status, last_seq, owner = self._state(row)
        if status not in ((expected,) if isinstance(expected, str) else expected) or owner != self.instance.uuid:
            return None
        event = Event(last_seq + 1, now, what, data)
        if columns.get("status") in TERMINAL:
            columns = columns | {"finished_at": now, "waiting_for": None}
        self._append(row, event, updated_at=now, **columns)
        return event

    def _state(self, row: int) -> tuple[Status | None, int, str]:
        """Status (None if there is no such job), number of the last event, and owner."""
        found = self._db.read("SELECT status, last_seq, owner FROM job WHERE row = ?", row)
        return (found[0][0], found[0][1], found[0][2]) if found else (None, 0, "")

    def _append(self, row: int, event: Event, **columns: Value) -> None:
        """Append an event, and set columns."""
        values = (row, event.seq, event.ts, event.type, _encode(event.data))
        self._db.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?)", *values)
        self._set(row, last_seq=event.seq, **columns)

    def _set(self, row: int, **columns: Value) -> None:
        names = ", ".join(f"{name} = ?" for name in columns)
        self._db.execute(f"UPDATE job SET {names} WHERE row = ?", *columns.values(), row)

    def _delete(self, rows: list[int]) -> None:
        self._db.execute_for("DELETE FROM event WHERE job = ?", rows)
        self._db.execute_for("DELETE FROM job WHERE row = ?", rows)

    def _job(self, found: Row) -> Job:
        fields = dict(zip(_COLUMNS, found, strict=True))
        owner = fields.pop("owner")
        fields["argv"] = tuple(msgspec.json.decode(fields["argv"]))
        fields["meta"] = msgspec.json.decode(fields["meta"])
        fields["killed"] = bool(fields["killed"])
        fields["paused"] = bool(fields["paused"])
        return Job(**fields, mine=owner == self.instance.uuid)


def _encode(value: Json) -> str:
    return msgspec.json.encode(value).decode()


def _bounded(limit: int) -> int:
    """To SQLite a negative limit is none."""
    return min(max(limit, 0), _MOST)
