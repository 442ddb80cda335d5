"""State that is opened when it is first used, so that a proxy can answer before its counters are there."""

from __future__ import annotations

__all__ = ["Deferred"]

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from contextlib import suppress

from intercept_py.errors import StateError, UnavailableError
from intercept_py.model import Charge
from intercept_py.state import Receipt, State


class Deferred:
    """A `State` around another one. While that cannot be opened every `charge` raises `UnavailableError` and says why.

    It is tried again after `commit` only: a batch of calls must not wait for a store once for each of them.
    """

    def __init__(self, opener: Callable[[], State]) -> None:
        self._opener = opener
        self._state: State | None = None
        self._fault: UnavailableError | None = None
        self._lock = allocate_lock()

    def prepare(self) -> None:
        """Open it in a thread, while there is nothing better to do; a charge that comes sooner waits for that."""
        start_new_thread(self._prepare, ())

    def _prepare(self) -> None:
        with suppress(StateError):  # the first charge says so
            self._opened()
        self._fault = None

    def _opened(self) -> State:
        with self._lock:
            if self._state is None:
                if self._fault is not None:
                    raise UnavailableError(str(self._fault))
                try:
                    self._state = self._opener()
                except StateError as exc:
                    self._fault = fault = UnavailableError(str(exc))
                    raise fault from exc
            return self._state

    def charge(self, server: str, charges: tuple[Charge, ...]) -> Receipt:
        """See `State`."""
        return (self._state or self._opened()).charge(server, charges)

    def refund(self, receipt: Receipt) -> None:
        """See `State`."""
        (self._state or self._opened()).refund(receipt)

    def commit(self) -> None:
        """See `State`."""
        self._fault = None
        if self._state is not None:
            self._state.commit()

    def close(self) -> None:
        """See `State`. Closing what was never opened does nothing."""
        if self._state is not None:
            self._state.close()
