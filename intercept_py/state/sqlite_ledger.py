"""The counters of the SQLite file, as one transaction after the other finds, changes and leaves them.

What this process read or wrote stays in memory while nobody else writes to the file: reading costs as much as writing.
Below: `sqlite_database`, `sqlite_counters`. Above: `sqlite`.
"""

from __future__ import annotations

__all__ = ["Entry", "Ledger"]

from collections.abc import Iterable

from intercept_py.state.counters import too_many
from intercept_py.state.quota import SECOND, Posting
from intercept_py.state.sqlite_counters import Columns, Moving, SqliteCounter, columns, empty, restore
from intercept_py.state.sqlite_database import Database, Parameters

_UPDATE = "UPDATE counter SET value = ?, ends = ?, part = ?, first = ? WHERE id = ?"
_REMEMBERED = 1_024
_SWEEP = 1_000


class Entry:
    """A counter. `id` and `kept`: its row and what that holds, None while it has none.

    `turn`: the last transaction that used it. `place`: the key and kind by which it is found.
    """

    __slots__ = ("counter", "id", "kept", "place", "turn")

    def __init__(self, counter: SqliteCounter, place: tuple[str, int], turn: int) -> None:
        self.counter = counter
        self.place = place
        self.turn = turn
        self.id: int | None = None
        self.kept: Columns | None = None


class Ledger:
    """The counters of one file, at most `max_keys`. All but `begin` and `forget` is for use within a transaction."""

    def __init__(self, database: Database, max_keys: int) -> None:
        self._database = database
        self._max_keys = max_keys
        self._entries: dict[tuple[str, int], Entry] = {}
        self._by_id: dict[int, Entry] = {}
        self._used: list[Entry] = []
        self._turn = 0
        self._version = -1
        self._census: list[int] | None = None  # number of counters and last id, where this transaction needs them
        self._swept = 0  # the last id that a sweep has looked at
        self._full_until = 0

    def begin(self) -> None:
        """Begin a transaction."""
        version = self._database.begin()
        if version != self._version or len(self._entries) > _REMEMBERED:
            self.forget()
            self._version = version
        self._turn += 1

    def forget(self) -> None:
        """What is in memory may be wrong: read it again."""
        self._entries.clear()
        self._by_id.clear()
        self._used.clear()
        self._census = None

    def write(self) -> None:
        """Write what has changed. Call it last."""
        rows: list[Parameters] = []
        for entry in self._used:
            if entry.id is None:
                continue
            changed = columns(entry.counter)
            if changed != entry.kept:
                entry.kept = changed
                rows.append((*changed, entry.id))
        self._used.clear()
        if rows and self._database.execute_many(_UPDATE, rows) != len(rows):
            raise self._database.damaged()
        if self._census is not None:
            self._database.execute("UPDATE store SET counters = ?, last_id = ?", self._census)
            self._database.save_time()
            self._census = None

    def entry(self, posting: Posting, now: int) -> Entry:
        """The counter that a posting is for; empty and without a row if there is none."""
        place = posting.key, posting.kind
        entry = self._entries.get(place)
        if entry is None:
            entry = self._entries[place] = self._find(posting, place, now)
        elif entry.turn == self._turn:
            return entry
        entry.turn = self._turn
        self._used.append(entry)
        return entry

    def _find(self, posting: Posting, place: tuple[str, int], now: int) -> Entry:
        sql = "SELECT id, value, ends, part, first FROM counter WHERE key = ? AND kind = ?"
        row = self._database.first(sql, place)
        if row is None:
            return Entry(empty(self._database, posting, now), place, 0)
        number: int = row[0]
        kept: Columns = row[1:]
        entry = Entry(restore(self._database, posting, number, kept), place, 0)
        entry.id, entry.kept = number, kept
        self._by_id[number] = entry
        return entry

    def keep(self, entry: Entry) -> int:
        """Give a counter a row; what is in it is written in the end. The id."""
        census = self._count()
        census[0] += 1
        census[1] += 1
        number = census[1]
        sql = "INSERT INTO counter VALUES (?, ?, ?, 0, 0, 0, 0)"
        self._database.execute(sql, (number, *entry.place))
        if isinstance(entry.counter, Moving):
            entry.counter.id = number
        entry.id = number
        self._by_id[number] = entry
        return number

    # Room.

    def make_room(self, new: int, now: int) -> None:
        """Raise `StateError` if there is no room for so many more. Looks for expired ones then, once a second."""
        census = self._count()
        if census[0] + new > self._max_keys and now >= self._full_until:
            found = self._database.rows("SELECT id FROM counter WHERE ends <= ? LIMIT ?", (now, _SWEEP))
            if not self.drop([number for (number,) in found]):
                self._full_until = now + SECOND
        if census[0] + new > self._max_keys:
            raise too_many(self._max_keys)

    def sweep(self, number: int, now: int) -> None:
        """Look at so many counters and drop those that have expired: two for each new one, so they never pile up."""
        sql = "SELECT id, ends FROM counter WHERE id > ? ORDER BY id LIMIT ?"
        found = list(self._database.rows(sql, (self._swept, number)))
        self._swept = found[-1][0] if len(found) == number else 0
        self.drop(number for number, ends in found if ends <= now)

    def drop(self, numbers: Iterable[int]) -> int:
        """Drop these counters, but none that this transaction uses; how many that was."""
        dropped = 0
        for number in numbers:
            entry = self._by_id.get(number)
            if entry is not None:
                if entry.turn == self._turn:
                    continue
                del self._by_id[number], self._entries[entry.place]
            self._database.execute("DELETE FROM counter WHERE id = ?", (number,))
            self._database.execute("DELETE FROM point WHERE counter = ?", (number,))
            dropped += 1
        self._count()[0] -= dropped
        return dropped

    def names(self, now: int) -> list[str]:
        """The keys of the counters in the file that do not die before `now`."""
        return [key for (key,) in self._database.rows("SELECT key FROM counter WHERE ends > ?", (now,))]

    def drop_key(self, key: str) -> int:
        """Drop every counter of a key; how many that was."""
        self.write()
        self._turn += 1
        return self.drop([number for (number,) in self._database.rows("SELECT id FROM counter WHERE key = ?", (key,))])

    def drop_all(self) -> int:
        """Drop every counter; how many that was."""
        self.write()
        self.forget()
        census = self._count()
        number, census[0] = census[0], 0
        self._database.execute("DELETE FROM counter")
        self._database.execute("DELETE FROM point")
        return number

    def _count(self) -> list[int]:
        if self._census is None:
            self._census = list(self._database.one("SELECT counters, last_id FROM store"))
        return self._census
