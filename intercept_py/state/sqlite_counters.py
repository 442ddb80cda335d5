"""How counters lie in the SQLite file, and the moving window, most of whose points stay there.

Below: `sqlite_database`, `counters`. Above: `sqlite`.
"""

from __future__ import annotations

__all__ = ["Columns", "Moving", "SqliteCounter", "columns", "empty", "restore"]

from collections.abc import Callable
from decimal import Decimal
from typing import TypeAlias

from intercept_py.state.counters import LOOK_AHEAD, Fixed, Sliding, grain
from intercept_py.state.quota import FIXED, MOVING, SECOND, SLIDING, Number, Posting, minus, plus, window_end
from intercept_py.state.sqlite_database import Database

Kept: TypeAlias = int | str
"""A number in the file: an integer of at most 64 bits, or its digits."""
Columns: TypeAlias = tuple[Kept, int, Kept, int]
"""`value`, `ends`, `part` and `first` of a counter, as the file has them."""

_MAX_INTEGER = 2**63 - 1


class Moving:
    """Every point in time of the last `window`, with what was charged then; see `memory`.

    The newest point is here, the others are in the file. A point is kept as the time at which it stops counting. `id`
    is that of the counter in the file; `first` may lie before the oldest point there, never after it, and is 0 if there
    is none.
    """

    __slots__ = ("_database", "first", "grain", "id", "last", "part", "value", "window")

    def __init__(self, database: Database, window: int) -> None:
        self._database = database
        self.id = 0
        self.window = window
        self.grain = grain(window)
        self.value: Number = 0
        self.last = 0
        self.part: Number = 0
        self.first = 0

    def read(self, now: int) -> Number:
        """See `Counter`."""
        if self.last <= now:
            self.value = self.part = 0
        if 0 < self.first <= now:
            self._expire(now)
        return self.value

    def _expire(self, now: int) -> None:
        value = self.value
        span = (self.id, self.first, now)
        if value:
            for (amount,) in self._database.rows(
                "SELECT amount FROM point WHERE counter = ? AND ends BETWEEN ? AND ?", span
            ):
                value = minus(value, _number(self._database, amount))
        self._database.execute("DELETE FROM point WHERE counter = ? AND ends BETWEEN ? AND ?", span)
        (first,) = self._database.one("SELECT min(ends) FROM point WHERE counter = ?", (self.id,))
        self.first = first or 0
        self.value = value

    def add(self, now: int, amount: Number) -> int:
        """See `Counter`."""
        # A clock that is behind another process's (where there is no boot id) only makes charges count longer.
        point = max((now // self.grain + 1) * self.grain + self.window, self.last)
        if point != self.last:
            if self.part:
                self._database.execute("INSERT INTO point VALUES (?, ?, ?)", (self.id, self.last, _kept(self.part)))
                self.first = self.first or self.last
            self.last, self.part = point, 0
        self.part = plus(self.part, amount)
        self.value = plus(self.value, amount)
        return point

    def take(self, mark: int, amount: Number) -> None:
        """See `Counter`."""
        if mark == self.last:
            self.part = minus(self.part, amount)
            self.value = minus(self.value, amount)
            return
        at = (self.id, mark)
        found = self._database.first("SELECT amount FROM point WHERE counter = ? AND ends = ?", at)
        if found is not None:
            rest = minus(_number(self._database, found[0]), amount)
            self._database.execute("UPDATE point SET amount = ? WHERE counter = ? AND ends = ?", (_kept(rest), *at))
            self.value = minus(self.value, amount)

    def wait(self, now: int, fits: Callable[[Number], bool]) -> int | None:
        """See `Counter`."""
        if not fits(0):
            return None
        value = self.value
        for ends, amount in self._database.rows(
            "SELECT ends, amount FROM point WHERE counter = ? ORDER BY ends LIMIT ?", (self.id, LOOK_AHEAD)
        ):
            value = minus(value, _number(self._database, amount))
            if fits(value):
                return int(ends) - now
        return self.last - now

    def oldest(self) -> int:
        """When the oldest charge that counts was made."""
        (first,) = self._database.one("SELECT min(ends) FROM point WHERE counter = ? AND amount != 0", (self.id,))
        return (first or self.last) - self.window

    def dies(self) -> int:
        """See `Counter`."""
        return self.last


SqliteCounter: TypeAlias = Fixed | Moving | Sliding


def empty(database: Database, posting: Posting, now: int) -> SqliteCounter:
    """A counter of the kind that the posting is for, with nothing in it."""
    if posting.kind == FIXED:
        return Fixed(window_end(posting.window, now), posting.window)
    window = posting.window.seconds * SECOND
    return Moving(database, window) if posting.kind == MOVING else Sliding(window)


def restore(database: Database, posting: Posting, number: int, kept: Columns) -> SqliteCounter:
    """The counter with this id that the posting is for, from its columns."""
    value, ends, part, first = kept
    if posting.kind == FIXED:
        return Fixed(ends, posting.window, _number(database, value))
    window = posting.window.seconds * SECOND
    before = _number(database, part)
    if posting.kind == SLIDING:
        return Sliding(window, ends // window - 2, before, _number(database, value))
    moving = Moving(database, window)
    moving.id, moving.value, moving.last, moving.part, moving.first = (
        number,
        _number(database, value),
        ends,
        before,
        first,
    )
    return moving


def columns(counter: SqliteCounter) -> Columns:
    """What the file keeps of a counter."""
    value = _kept(counter.value)
    if isinstance(counter, Moving):
        return value, counter.last, _kept(counter.part), counter.first
    if isinstance(counter, Fixed):
        return value, counter.ends, 0, 0
    return value, counter.dies(), _kept(counter.before), 0


def _kept(number: Number) -> Kept:
    return number if type(number) is int and number <= _MAX_INTEGER else str(number)


def _number(database: Database, kept: object) -> Number:
    if type(kept) is int:
        return kept
    if type(kept) is str:
        return int(kept) if kept.isdecimal() else Decimal(kept)
    raise database.damaged()
