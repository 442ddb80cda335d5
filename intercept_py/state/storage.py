"""What our storages of the `limits` library have in common: entries are charges like all others.

Below: `quota`, `limits`. Above: `memory`, `sqlite`, `redis`.
"""

from __future__ import annotations

__all__ = ["AtomicStorage", "bill_of_entry"]

from abc import abstractmethod
from decimal import Decimal

from limits.storage.base import MovingWindowSupport, SlidingWindowCounterSupport, Storage

from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import Receipt
from intercept_py.state.quota import Bill, bill_of


class AtomicStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """A storage of all three strategies that can charge several counters at once."""

    @abstractmethod
    def charge_all(self, bill: Bill) -> Receipt:
        """Make all charges or none, see `State.charge`."""

    @property
    def base_exceptions(self) -> type[Exception]:
        """The faults that `limits` may wrap."""
        return StateError

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add to a moving window if it fits."""
        return self._acquire(bill_of_entry(Strategy.MOVING, key, expiry, limit, amount))

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add to a sliding window if it fits."""
        return self._acquire(bill_of_entry(Strategy.SLIDING, key, expiry, limit, amount))

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget one key."""
        self.clear(key)

    def _acquire(self, bill: Bill) -> bool:
        return self.charge_all(bill).refused is None


def bill_of_entry(strategy: Strategy, key: str, expiry: int, limit: int = 0, amount: int = 0) -> Bill:
    """What `limits` calls an entry: `expiry` is the length of its window in seconds."""
    charge = Charge((), Decimal(amount), Decimal(limit), Window(expiry), strategy, rule="")
    return bill_of([(key, charge)])
