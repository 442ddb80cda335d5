"""Charges become counters: keys, calendar windows, exact numbers, and the `State` over any storage that is `Atomic`.

Below: a storage. Above: `open_state`. A storage is one file beside this one: a storage of the `limits` library (so that
its strategies work on the same counters) with the operation that library lacks, `charge_all`.
"""

from __future__ import annotations

__all__ = [
    "FIXED",
    "MOVING",
    "SECOND",
    "SLIDING",
    "Atomic",
    "Bill",
    "Number",
    "Posting",
    "Quota",
    "bill_of",
    "exact",
    "minus",
    "plus",
    "steady_clock",
    "window_end",
]

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from hashlib import sha256
from typing import Protocol, TypeAlias

import msgspec

from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import Receipt

Number: TypeAlias = int | Decimal
"""What a counter holds: an int as long as it can, which is fast, or an exact decimal."""


FIXED, MOVING, SLIDING = range(3)
"""Kinds of counters. They are numbers, so that tables can be found by them."""
_KINDS = {Strategy.FIXED: FIXED, Strategy.MOVING: MOVING, Strategy.SLIDING: SLIDING}


class Posting(msgspec.Struct, frozen=True):
    """An exact amount for one counter: its key, its kind (`FIXED` and so on) and its window."""

    key: str
    kind: int
    window: Window
    amount: Number


class Bill(msgspec.Struct, frozen=True):
    """What is charged together: one posting for each counter, and each charge with the number of its posting.

    Charges to one counter add up, and every one of their limits holds for the sum.
    """

    postings: tuple[Posting, ...]
    charges: tuple[tuple[int, Charge], ...]


SECOND = 1_000_000
"""Storages count time in whole microseconds since the epoch: floats do not add up."""

_DAY = 86_400 * SECOND
_MONDAY = 4 * _DAY  # 1970-01-05
_MAX_KEY = 512
_KEPT_KEYS = 1024
_KEPT_BILLS = 256
_NO_CHARGES = Receipt()
_MAX_EXPONENT = 40
_MAX_INT = 2**63
_EXACT = Context(prec=120, traps=[DivisionByZero, Inexact, InvalidOperation, Overflow])


class Atomic(Protocol):
    """What a storage offers beyond `limits`. Its own faults may escape: `Quota` turns them into `StateError`."""

    def charge_all(self, bill: Bill) -> Receipt:
        """Make all charges or none, see `State.charge`."""

    def refund_all(self, token: object) -> None:
        """Take back what the receipt with this token charged, see `State.refund`."""

    def commit(self) -> None:
        """Make sure of what was done since the last commit, see `State.commit`."""

    def close(self) -> None:
        """Let go of the store."""


class Quota:
    """A `State` over a storage."""

    def __init__(self, storage: Atomic, prefix: str = "") -> None:
        self._storage = storage
        self._prefix = prefix
        # By identity, which is told faster than equality; what is kept keeps its charges alive, so no others have their
        # ids. One session mostly asks again and again, and where one charge of a call is new the others are not.
        self._bills: dict[tuple[object, ...], Bill] = {}
        self._keys: dict[tuple[str, int], tuple[str, Charge]] = {}

    def charge(self, server: str, charges: tuple[Charge, ...]) -> Receipt:
        """Make every charge, or none if one that is not in shadow mode does not fit."""
        if not charges:
            return _NO_CHARGES
        try:
            who = (server, *map(id, charges))
            return self._storage.charge_all(self._bills.get(who) or self._bill(who, server, charges))
        except StateError:
            raise
        except Exception as exc:  # a storage has faults of its own kind; what they say may hold argument values
            raise StateError(f"counters cannot be charged: {type(exc).__name__}") from exc

    def refund(self, receipt: Receipt) -> None:
        """Take the charges back: once, and only from the windows that they were made in."""
        if receipt.token is None:
            return
        try:
            self._storage.refund_all(receipt.token)
        except StateError:
            raise
        except Exception as exc:
            raise StateError(f"counters cannot be refunded: {type(exc).__name__}") from exc

    def commit(self) -> None:
        """See `State`."""
        try:
            self._storage.commit()
        except StateError:
            raise
        except Exception as exc:
            raise StateError(f"counters cannot be kept: {type(exc).__name__}") from exc

    def close(self) -> None:
        """Let go of the store."""
        self._storage.close()

    def _bill(self, who: tuple[object, ...], server: str, charges: tuple[Charge, ...]) -> Bill:
        bill = bill_of([self._keys.get((server, id(charge))) or self._keyed(server, charge) for charge in charges])
        if len(self._bills) >= _KEPT_BILLS:
            self._bills.clear()
        self._bills[who] = bill
        return bill

    def _keyed(self, server: str, charge: Charge) -> tuple[str, Charge]:
        keyed = (self._key(server, charge), charge)
        if len(self._keys) >= _KEPT_KEYS:
            self._keys.clear()
        self._keys[server, id(charge)] = keyed
        return keyed

    def _key(self, server: str, charge: Charge) -> str:
        """`server/strategy/window/part/part`, parts escaped, so that different counters never share a key."""
        parts, strategy = charge.key, charge.strategy.value
        fixed = charge.strategy is Strategy.FIXED
        span = charge.window.calendar or charge.window.seconds if fixed else charge.window.seconds
        key = f"{server}/{strategy}/{span}/{'/'.join(parts)}"
        if "%" in key or key.count("/") != len(parts) + 2:
            key = "/".join(
                [part.replace("%", "%25").replace("/", "%2F") for part in (server, strategy, str(span), *parts)]
            )
        if len(key) > _MAX_KEY:  # no other key has a % that is not followed by a digit
            key = f"%sha256/{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
        return self._prefix + key


def bill_of(charges: Iterable[tuple[str, Charge]]) -> Bill:
    """The bill of charges, each with the key of its counter: keys differ where strategy or window do.

    Raises `StateError` for an amount that cannot be counted.
    """
    postings: dict[str, Posting] = {}
    places: dict[str, int] = {}
    numbered: list[tuple[int, Charge]] = []
    for key, charge in charges:
        amount, other = exact(charge.amount), postings.get(key)
        if other is not None:
            amount = plus(other.amount, amount)
        postings[key] = Posting(key, _KINDS[charge.strategy], charge.window, amount)
        numbered.append((places.setdefault(key, len(places)), charge))
    return Bill(tuple(postings.values()), tuple(numbered))


def exact(amount: Number) -> Number:
    """A charge's amount as a number to count with. Raises `StateError` for one that cannot be counted."""
    if type(amount) is int and 0 <= amount <= _MAX_INT:
        return amount
    amount = Decimal(amount)
    if not amount.is_finite() or amount < 0:
        raise StateError(f"an amount of `{amount}` cannot be charged: amounts are finite and not negative")
    if not amount:
        return 0
    if amount.adjusted() > _MAX_EXPONENT or int(amount.as_tuple().exponent) < -_MAX_EXPONENT:
        raise StateError(f"an amount with over {_MAX_EXPONENT} digits before or behind the point cannot be charged")
    return int(amount) if amount == amount.to_integral_value() else amount


def plus(a: Number, b: Number) -> Number:
    """The exact sum. Raises `decimal.Inexact` where it has more than 120 digits."""
    if type(a) is int and type(b) is int:
        return a + b
    return _EXACT.add(Decimal(a), Decimal(b))


def minus(a: Number, b: Number) -> Number:
    """The exact difference, at least 0."""
    if type(a) is int and type(b) is int:
        return a - b if a > b else 0
    rest = _EXACT.subtract(Decimal(a), Decimal(b))
    return rest if rest > 0 else 0


def window_end(window: Window, now: int) -> int:
    """When the fixed window that contains `now` ends. Windows align to the calendar in UTC; a week starts on Monday."""
    if window.calendar == "month":
        today = datetime.fromtimestamp(now // SECOND, UTC)
        year, month = divmod(today.year * 12 + today.month, 12)
        return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp()) * SECOND
    size = window.seconds * SECOND
    shift = _MONDAY if window.calendar == "week" else 0
    return ((now - shift) // size + 1) * size + shift


def steady_clock() -> Callable[[], float]:
    """Seconds since the epoch, read once and then counted by a clock that nobody can set and that runs during sleep."""
    source = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    gettime = time.clock_gettime
    offset = time.time() - gettime(source)
    return lambda: offset + gettime(source)
