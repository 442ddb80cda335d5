"""Counters in this process's memory: a storage of the `limits` library that can charge several counters at once.

`limits.storage.MemoryStorage` cannot serve here: it moves every entry of a list on each hit of a moving window, scans
all keys in a thread each 10 ms, lives by a clock that may be set, and has neither refunds nor exact amounts.

Memory is bounded: a moving window keeps at most 16,385 points, a key vanishes after its window, and there are at most
`max_keys` of them.
"""

from __future__ import annotations

__all__ = ["MemoryStorage", "open_state"]

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from itertools import islice
from threading import Lock
from typing import TypeAlias

from intercept_py.model import Window
from intercept_py.state import Receipt, State
from intercept_py.state.counters import LOOK_AHEAD, Fixed, Sliding, grain, too_many, weigh
from intercept_py.state.quota import FIXED, MOVING, SECOND, Bill, Number, Quota, minus, plus, steady_clock, window_end
from intercept_py.state.storage import AtomicStorage


def open_state(_url: str, prefix: str = "") -> State:
    """State for `memory:`. It ends with the process."""
    return Quota(MemoryStorage(), prefix)


class _Moving:
    """Every point in time of the last `window`, with what was charged then.

    Points lie on a grid and are rounded up to it, so that a charge counts for up to 1/16384 of the window too long, and
    never too short. A point is kept as the time at which it stops counting.
    """

    __slots__ = ("amounts", "first", "grain", "points", "value", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.grain = grain(window)
        # Sorted; what lies before `first` no longer counts. Lists: an empty deque takes as much room as 80 points.
        self.points: list[int] = []
        self.amounts: list[Number] = []
        self.first = 0
        self.value: Number = 0

    def read(self, now: int) -> Number:
        if self.first < len(self.points) and self.points[self.first] <= now:
            self._expire(now)
        return self.value

    def _expire(self, now: int) -> None:
        first = bisect_right(self.points, now, self.first)
        for amount in islice(self.amounts, self.first, first):
            self.value = minus(self.value, amount)
        self.first = first
        if 2 * first >= len(self.points):
            del self.points[:first], self.amounts[:first]
            self.first = 0

    def add(self, now: int, amount: Number) -> int:
        point = (now // self.grain + 1) * self.grain + self.window
        if self.points and self.points[-1] == point:
            self.amounts[-1] = plus(self.amounts[-1], amount)
        else:
            self.points.append(point)
            self.amounts.append(amount)
        self.value = plus(self.value, amount)
        return point

    def take(self, mark: int, amount: Number) -> None:
        at = bisect_left(self.points, mark, self.first)
        if at < len(self.points) and self.points[at] == mark:
            self.amounts[at] = minus(self.amounts[at], amount)
            self.value = minus(self.value, amount)

    def wait(self, now: int, fits: Callable[[Number], bool]) -> int | None:
        if not fits(0):
            return None
        value = self.value
        for at in range(self.first, min(len(self.points), self.first + LOOK_AHEAD)):
            value = minus(value, self.amounts[at])
            if fits(value):
                return self.points[at] - now
        return self.points[-1] - now

    def oldest(self) -> int:
        """When the oldest charge that counts was made."""
        return self.points[self.first] - self.window

    def dies(self) -> int:
        return self.points[-1] if self.points else 0


_Counter: TypeAlias = Fixed | _Moving | Sliding


class MemoryStorage(AtomicStorage):
    """Counters in dicts behind one lock. `clock` tells seconds since the epoch; if it goes back, time stands still."""

    STORAGE_SCHEME = ["intercept-memory"]  # noqa: RUF012  declared so by `limits`

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        clock: Callable[[], float] | None = None,
        max_keys: int = 100_000,
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._clock = clock or steady_clock()
        self._max_keys = max_keys
        self._mutex = Lock()
        self._latest = 0
        self._clear()

    def _clear(self) -> None:
        self._fixed: dict[str, _Counter] = {}
        self._moving: dict[str, _Counter] = {}
        self._sliding: dict[str, _Counter] = {}
        self._tables = (self._fixed, self._moving, self._sliding)  # by the kind of a posting
        # Every kept counter once, in the order in which the sweep will look at it.
        self._queue: deque[tuple[dict[str, _Counter], str]] = deque()
        self._full_until = 0

    # What `limits` lacks.

    def charge_all(self, bill: Bill) -> Receipt:
        """Make all charges or none, see `State.charge`."""
        postings, tables = bill.postings, self._tables
        with self._mutex:
            now = self._now()
            if len(self._queue) + len(postings) > self._max_keys:
                self._make_room(len(postings), now)
            counters: list[_Counter] = []
            new: list[tuple[dict[str, _Counter], str, _Counter]] = []  # those that are not kept yet
            for posting in postings:
                counter = tables[posting.kind].get(posting.key)
                if counter is None:
                    counter = _counter(posting.kind, posting.window, now)
                    if posting.amount:  # nobody needs one that nothing is added to
                        new.append((tables[posting.kind], posting.key, counter))
                counters.append(counter)
            refused, shadowed = weigh(bill, counters, now)
            if refused is not None:
                return Receipt(refused=refused)
            if new:
                self._check_room(len(new))
            made = []
            for posting, counter in zip(postings, counters, strict=True):
                amount = posting.amount
                if amount:
                    made.append((counter, counter.add(now, amount), amount))
            for table, key, counter in new:
                self._keep(table, key, counter, now)
            return Receipt(None, shadowed, made)

    def refund_all(self, token: object) -> None:
        """Take back what the receipt with this token charged, unless that happened already."""
        assert isinstance(token, list)
        with self._mutex:
            while token:
                counter, mark, amount = token.pop()
                counter.take(mark, amount)

    def commit(self) -> None:
        """Nothing is left to do: what was charged is charged."""

    def close(self) -> None:
        """Forget everything."""
        self.reset()

    # Time and room. All of this is called with the lock held.

    def _now(self) -> int:
        now = int(self._clock() * SECOND)
        if now < self._latest:
            return self._latest
        self._latest = now
        return now

    def _keep(self, table: dict[str, _Counter], key: str, counter: _Counter, now: int) -> None:
        """Keep a new counter, and look whether others may go: two for each new one, so they never pile up."""
        table[key] = counter
        self._queue.append((table, key))
        self._sweep(2, now)

    def _make_room(self, number: int, now: int) -> None:
        """Drop all expired counters if there might not be room for so many more. Looks at all of them once a second."""
        if len(self._queue) + number > self._max_keys and now >= self._full_until:
            self._sweep(len(self._queue), now)
            self._full_until = now + SECOND

    def _check_room(self, number: int) -> None:
        if len(self._queue) + number > self._max_keys:
            raise too_many(self._max_keys)

    def _sweep(self, number: int, now: int) -> None:
        """Look at so many counters and drop those that have expired. None of them may be about to be charged."""
        for _ in range(min(number, len(self._queue))):
            table, key = self._queue.popleft()
            if table[key].dies() <= now:
                del table[key]
            else:
                self._queue.append((table, key))

    def _forget(self, key: str) -> None:
        for table in self._tables:
            if table.pop(key, None) is not None:
                self._queue = deque(item for item in self._queue if item[0] is not table or item[1] != key)

    # What `limits` asks of a storage.

    def check(self) -> bool:
        """Memory is always there."""
        return True

    def reset(self) -> int:
        """Forget everything; how many counters that was."""
        with self._mutex:
            number = len(self._queue)
            self._clear()
            return number

    def clear(self, key: str) -> None:
        """Forget one key."""
        with self._mutex:
            self._forget(key)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter. Its window starts with its first hit, as `limits` defines it."""
        with self._mutex:
            now = self._now()
            counter = self._fixed.get(key)
            if not isinstance(counter, Fixed):
                self._make_room(1, now)
                self._check_room(1)
                counter = Fixed(now + expiry * SECOND, None)
                self._keep(self._fixed, key, counter, now)
            elif counter.ends <= now:
                counter.ends, counter.value = now + expiry * SECOND, 0
            counter.value = plus(counter.value, amount)
            return int(counter.value)

    def get(self, key: str) -> int:
        """The value of a counter."""
        with self._mutex:
            counter = self._fixed.get(key)
            return 0 if counter is None else int(counter.read(self._now()))

    def get_expiry(self, key: str) -> float:
        """When a counter's window ends."""
        with self._mutex:
            now = self._now()
            counter = self._fixed.get(key)
            return max(now, 0 if counter is None else counter.dies()) / SECOND

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest entry was made (up to 1/16384 of the window too late), and how many there are."""
        with self._mutex:
            now = self._now()
            counter = self._moving.get(key)
            if not isinstance(counter, _Moving) or not counter.read(now):
                return now / SECOND, 0
            return counter.oldest() / SECOND, int(counter.value)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """The count of the window before and for how long it counts, then the same of the current one."""
        with self._mutex:
            now = self._now()
            rest = expiry - now % (expiry * SECOND) / SECOND
            counter = self._sliding.get(key)
            if not isinstance(counter, Sliding):
                return 0, 0.0, 0, rest + expiry
            counter.roll(now)
            return int(counter.before), rest if counter.before else 0.0, int(counter.value), rest + expiry


def _counter(kind: int, window: Window, now: int) -> _Counter:
    """An empty counter of the kind of a posting."""
    if kind == FIXED:
        return Fixed(window_end(window, now), window)
    return (_Moving if kind == MOVING else Sliding)(window.seconds * SECOND)
