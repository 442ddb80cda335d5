"""What counters do with time and amounts, wherever they are kept, and how charges are held against their limits.

Times are whole microseconds since the epoch. Below: the numbers of `quota`. Above: the storages that count in Python.
"""

from __future__ import annotations

__all__ = ["LOOK_AHEAD", "Counter", "Fixed", "Sliding", "grain", "refusal", "too_many", "weigh"]

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Protocol

from intercept_py.errors import StateError
from intercept_py.model import Charge, Window
from intercept_py.state import Refusal
from intercept_py.state.quota import SECOND, Bill, Number, minus, plus, window_end

LOOK_AHEAD = 1_024
"""So many points of a moving window are looked at for when a charge fits; beyond, the last one is named."""

_POINTS = 16_384


class Counter(Protocol):
    """One window's count. `add` returns the mark by which `take` finds that part of the window again."""

    def read(self, now: int) -> Number:
        """What counts now."""

    def add(self, now: int, amount: Number) -> int:
        """Count an amount. Only after `read` with the same time."""

    def take(self, mark: int, amount: Number) -> None:
        """Count it no longer, if what was added under this mark still counts."""

    def wait(self, now: int, fits: Callable[[Number], bool]) -> int | None:
        """Microseconds until the charge fits, of which `fits` says so for a value of the counter; None: never."""

    def dies(self) -> int:
        """From when on nothing of it counts."""


class Fixed:
    """A window with an end: `value` counts until `ends`. `window`, if there is one, says where the next one ends."""

    __slots__ = ("ends", "value", "window")

    def __init__(self, ends: int, window: Window | None, value: Number = 0) -> None:
        self.ends = ends
        self.window = window
        self.value = value

    def read(self, now: int) -> Number:
        """See `Counter`."""
        return self.value if now < self.ends else 0

    def add(self, now: int, amount: Number) -> int:
        """See `Counter`."""
        if now >= self.ends and self.window is not None:
            self.ends, self.value = window_end(self.window, now), 0
        self.value = plus(self.value, amount)
        return self.ends

    def take(self, mark: int, amount: Number) -> None:
        """See `Counter`."""
        if mark == self.ends:
            self.value = minus(self.value, amount)

    def wait(self, now: int, fits: Callable[[Number], bool]) -> int | None:
        """See `Counter`."""
        return max(self.ends - now, 0) if fits(0) else None

    def dies(self) -> int:
        """See `Counter`."""
        return self.ends


class Sliding:
    """Two fixed windows; the one before counts with the share of it that the last `window` still covers."""

    __slots__ = ("before", "index", "value", "window")

    def __init__(self, window: int, index: int = 0, before: Number = 0, value: Number = 0) -> None:
        self.window = window
        self.index = index
        self.before = before
        self.value = value

    def roll(self, now: int) -> None:
        """Go on to the window of `now`."""
        index = now // self.window
        if index > self.index:
            self.before = self.value if index == self.index + 1 else 0
            self.index, self.value = index, 0

    def read(self, now: int) -> Number:
        """See `Counter`."""
        self.roll(now)
        return plus(self.value, self.share(self.before, self.window - now % self.window))

    def share(self, amount: Number, rest: int) -> Number:
        """The share of an amount for `rest` of a window. An int is rounded down, as `limits` does it, a decimal up."""
        if type(amount) is int:
            return amount * rest // self.window
        numerator, denominator = amount.as_integer_ratio()
        return -(-numerator * rest // (denominator * self.window))

    def add(self, now: int, amount: Number) -> int:
        """See `Counter`."""
        self.roll(now)
        self.value = plus(self.value, amount)
        return self.index

    def take(self, mark: int, amount: Number) -> None:
        """See `Counter`."""
        if mark == self.index:
            self.value = minus(self.value, amount)
        elif mark == self.index - 1:
            self.before = minus(self.before, amount)

    def wait(self, now: int, fits: Callable[[Number], bool]) -> int | None:
        """See `Counter`."""
        if not fits(0):
            return None
        rest = self.window - now % self.window
        if fits(self.value):
            return rest - self._rest(self.before, self.value, rest, fits)
        return rest + self.window - self._rest(self.value, 0, self.window, fits)

    def _rest(self, before: Number, value: Number, most: int, fits: Callable[[Number], bool]) -> int:
        """The largest rest of a window, at most `most`, at which the share of `before` fits beside `value`."""
        low = 0
        while low < most:
            middle = (low + most + 1) // 2
            if fits(plus(value, self.share(before, middle))):
                low = middle
            else:
                most = middle - 1
        return low

    def dies(self) -> int:
        """See `Counter`."""
        return (self.index + 2) * self.window


def grain(window: int) -> int:
    """The grid on which a moving window keeps its points: 1/16384 of it, so that their number is bounded."""
    return max(1, window // _POINTS)


def weigh(bill: Bill, counters: Sequence[Counter], now: int) -> tuple[Refusal | None, tuple[Refusal, ...]]:
    """The first refusal that counts, and those of limits in shadow mode. `counters`: those of the bill's postings."""
    shadowed: tuple[Refusal, ...] = ()
    for place, charge in bill.charges:
        counter, added = counters[place], bill.postings[place].amount
        value = counter.read(now)
        after = plus(value, added)
        if after < charge.limit or (charge.inclusive and after == charge.limit):
            continue
        found = refusal(charge, counter, value, added, now)
        if not charge.shadow:
            return found, ()
        shadowed += (found,)
    return None, shadowed


def refusal(charge: Charge, counter: Counter, value: Number, added: Number, now: int) -> Refusal:
    """Why a charge does not fit a counter that holds `value`, and when it will."""
    wait = counter.wait(now, lambda rest: _fits(charge, plus(rest, added)))
    return Refusal(charge, Decimal(value), None if wait is None else wait / SECOND)


def _fits(charge: Charge, value: Number) -> bool:
    return value <= charge.limit if charge.inclusive else value < charge.limit


def too_many(counters: int) -> StateError:
    """The fault of a new counter beyond so many."""
    return StateError(
        f"over {counters} counters are in use, so that a new one cannot be kept: "
        "split limits by fewer values (`per`) or use shorter windows"
    )
