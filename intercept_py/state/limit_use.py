"""How much of the limits that all callers share is used, for a chart: read from the store, now and then.

Below: `policy.budgets`, a `State`. Above: `metrics`. A limit per session, principal or argument has as many counters as
it has callers, so those are not shown here: `intercept-py limits show` knows them.
"""

from __future__ import annotations

__all__ = ["LimitUse", "Share", "Store", "used"]

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from threading import Lock, Thread

import msgspec
from msgspec.structs import replace

from intercept_py.errors import StateError
from intercept_py.model import Charge
from intercept_py.policy.budgets import Budget, budgets
from intercept_py.policy.matching import glob, is_glob
from intercept_py.policy.rules import Policy
from intercept_py.state import State, open_state

_MOST = 1000
_LONGEST_READ = 5.0
_AT_ONCE = 100
"""So many counters are looked at before others may go on, see `state.inventory`."""


class Share(msgspec.Struct, frozen=True):
    """One counter. `tool` is empty where all tools of the `entry` share it, `counter` for a `rate_limit`."""

    entry: str
    tool: str
    charge: Charge
    counter: str
    used: float


class Store(msgspec.Struct, frozen=True):
    """Where a proxy counts: `counters`, which are those at `url` with `prefix`."""

    url: str
    prefix: str
    counters: State

    @property
    def shared(self) -> bool:
        """Whether anybody but the proxy can look into it."""
        return not self.url.startswith("memory:")

    def open(self) -> State:
        """The counters, to look at: opened anew, since a look must not commit what the proxy has just charged."""
        return open_state(self.url, prefix=self.prefix) if self.shared else self.counters


class LimitUse:
    """What one server's limits have used. Any thread may ask, and none waits for a slow store.

    `server` is its name in keys, `policy` tells the one in force, `known` the tools whose names are known, for limits
    per tool, `clock` seconds that never go back. The store is read when it is asked for, at most once in `every` of
    them; if that takes longer than `patience` the answer is what was read before.
    """

    def __init__(
        self,
        server: str,
        policy: Callable[[], Policy],
        known: Callable[[], list[str]],
        store: Store,
        clock: Callable[[], float],
        *,
        every: float = 5.0,
        patience: float = 0.02,
    ) -> None:
        self._server = server
        self._policy = policy
        self._known = known
        self._store = store
        self._clock = clock
        self._every = every
        self._patience = patience
        self._lock = Lock()
        self._reading: Thread | None = None
        self._state: State | None = None
        self._again = clock()
        self._found: list[Share] | None = []

    def look(self) -> list[Share] | None:
        """At most 1,000 counters, in the order of the policy. None if the store cannot be read."""
        with self._lock:
            if self._reading is None and self._clock() >= self._again:
                self._again = self._clock() + self._every
                self._reading = Thread(target=self._read, name="limits", daemon=True)
                self._reading.start()
            reading = self._reading
        if reading is not None:
            reading.join(self._patience)
        return self._found

    def close(self) -> None:
        """Let go of the store, once it has answered. The proxy's own counters stay open."""
        with self._lock:
            self._again, reading = math.inf, self._reading
        if reading is not None:
            reading.join(_LONGEST_READ)
        if self._state is not None and self._store.shared:
            self._state.close()

    def _read(self) -> None:
        try:
            self._found = self._look()
        finally:
            self._reading = None

    def _look(self) -> list[Share] | None:
        found: list[Share] = []
        asked = islice(self._asked(), _MOST)
        try:
            while some := list(islice(asked, _AT_ONCE)):
                if self._state is None:
                    self._state = self._store.open()
                values = used(self._state, self._server, tuple([share.charge for share in some]))
                found += [replace(share, used=value) for share, value in zip(some, values, strict=True)]
        except StateError:
            return None
        return found

    def _asked(self) -> Iterator[Share]:
        known = self._known()
        for budget in budgets(self._policy()):
            for tool in _tools(budget, known):
                charge = budget.shared(tool)
                if charge is not None:
                    yield Share(budget.tool, tool, charge, budget.counter or "", 0.0)


def _tools(budget: Budget, known: list[str]) -> list[str]:
    if budget.per != ("tool",):
        return [""]
    if not is_glob(budget.tool):
        return [budget.tool]
    return list(filter(glob(budget.tool), known))


def used(state: State, server: str, charges: tuple[Charge, ...]) -> list[float]:
    """What the counters of these charges hold. Raises `StateError`.

    Nothing is charged: nothing is added, to limits that never fit, in shadow mode. A refusal tells what there is.
    """
    asked = [replace(charge, amount=0, limit=-1, shadow=True) for charge in charges]
    try:
        return [float(refusal.value) for refusal in state.charge(server, tuple(asked)).shadowed]
    finally:
        with suppress(StateError):  # it has nothing to say: nothing was charged
            state.commit()  # the lock of a file is held until then
