"""What a store's file and the operating system say of a server's jobs, for those who do not take the server's word.

Nothing is asked of the server and nothing is changed: the file is opened for reading, /proc is read.

Below: `store` (its file), `strays` (the mark). Above: `cli`.
"""

from __future__ import annotations

__all__ = ["Witness", "alive", "ancestors"]

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

from intercept_py.jobs import strays


class Witness:
    """Looks at the jobs of one state directory. Where there is no /proc, a job is its first process and no other."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(os.path.abspath(state_dir), "jobs.db")

    def leader(self, job_id: str) -> int:
        """The number of a job's first process; 0 if the store knows none."""
        found = self._read("SELECT pid FROM job WHERE id = ?", job_id)
        return found[0][0] or 0 if found else 0

    def processes(self, job_id: str) -> set[int]:
        """Every living process of a job: its supervisor, its first process, and whatever those started."""
        marks = {mark for (mark,) in self._read("SELECT uuid || '/' || row FROM store, job WHERE id = ?", job_id)}
        return {pid for pid, mark in self._marked() if mark in marks}

    def everything(self) -> set[int]:
        """Every living process of any job of the store."""
        stores = {uuid for (uuid,) in self._read("SELECT uuid FROM store")}
        return {pid for pid, mark in self._marked() if mark.partition("/")[0] in stores}

    def _marked(self) -> list[tuple[int, str]]:
        """Living processes of jobs, of this store or another, and their marks."""
        if os.path.isdir("/proc/self"):
            return strays.entries(f"{strays.MARK}=")
        leaders = self._read("SELECT pid, uuid || '/' || row FROM store, job WHERE pid IS NOT NULL")
        return [(pid, mark) for pid, mark in leaders if alive(pid)]

    def _read(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        """Rows; none while there is no store yet."""
        if not os.path.exists(self._path):
            return []
        try:
            with closing(sqlite3.connect(f"file:{quote(self._path)}?mode=ro", uri=True)) as db:
                return db.execute(sql, values).fetchall()
        except sqlite3.OperationalError:
            return []  # its tables are just being made


def alive(pid: int) -> bool:
    """Whether the process runs. A zombie, which nobody has collected yet, does not."""
    if os.path.isdir("/proc/self"):
        return _stat(pid)[0] not in ("", "Z", "X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ancestors(pid: int, until: int) -> Iterator[int]:
    """The process's parent, grandparent and so on, up to but without `until`, as far as the system shows parents."""
    while (pid := int(_stat(pid)[1] or 0)) > 1 and pid != until:
        yield pid


def _stat(pid: int) -> tuple[str, str]:
    """State and parent of a process; blank if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return "", ""
    return state, parent
