"""A circuit breaker: a store that cannot be reached is not asked again by every call, each of which would wait for it.

Below: any storage that is `Atomic`. Above: `Quota`.
"""

from __future__ import annotations

__all__ = ["Breaker", "UnreachableError"]

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from intercept_py.errors import UnavailableError
from intercept_py.state import Receipt
from intercept_py.state.quota import Atomic, Bill

T = TypeVar("T")
R = TypeVar("R")

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 4.0


class UnreachableError(UnavailableError):
    """A store that could not be reached, or that is none: the next call would wait for it in vain as well."""


class Breaker:
    """An `Atomic` storage around another one. `clock` tells seconds that never go back.

    Once the storage raises `UnreachableError`, so does everything at once, for a pause. Then one call may try; the
    pause grows with each that fails, to four seconds, and ends with the first that does not.
    """

    def __init__(self, storage: Atomic, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._clock = clock
        self._mutex = Lock()
        self._fault: UnreachableError | None = None
        self._pause = 0.0
        self._closed_until = 0.0
        self._trying = False

    def charge_all(self, bill: Bill) -> Receipt:
        """See `Atomic`."""
        return self._attempt(self._storage.charge_all, bill)

    def refund_all(self, token: object) -> None:
        """See `Atomic`. What cannot be refunded now stays charged."""
        self._attempt(self._storage.refund_all, token)

    def commit(self) -> None:
        """See `Atomic`."""
        self._storage.commit()

    def close(self) -> None:
        """See `Atomic`."""
        self._storage.close()

    def _attempt(self, work: Callable[[T], R], argument: T) -> R:
        if self._fault is not None:
            self._admit()
        try:
            result = work(argument)
        except UnreachableError as exc:
            self._failed(exc)
            raise
        except BaseException:
            self._answered()
            raise
        self._answered()
        return result

    def _admit(self) -> None:
        """Return to whoever may try now; raise for all others."""
        with self._mutex:
            if self._fault is None:
                return
            if self._trying or self._clock() < self._closed_until:
                raise UnreachableError(str(self._fault))
            self._trying = True

    def _failed(self, fault: UnreachableError) -> None:
        with self._mutex:
            # Calls that were under way together are one failure.
            if self._trying or self._fault is None:
                self._pause = min(2 * self._pause, _LONGEST_PAUSE) or _FIRST_PAUSE
                self._closed_until = self._clock() + self._pause
            self._fault = fault
            self._trying = False

    def _answered(self) -> None:
        if self._fault is None:
            return
        with self._mutex:
            self._fault, self._pause, self._trying = None, 0.0, False
