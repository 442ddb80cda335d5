"""What a store counts, for those who look after it: the names of its counters, what they hold, and how to drop them.

Proxies may be charging the same counters meanwhile: looking changes nothing, and holds nobody up for long.
Below: a storage that is `Listed`. Above: the command `limits`.
"""

from __future__ import annotations

__all__ = ["Inventory", "Listed", "Named", "Standing", "open_inventory", "parse"]

import os
from collections.abc import Iterable, Iterator
from decimal import Decimal
from importlib import import_module
from itertools import islice
from typing import Protocol, TypeVar, cast

import msgspec

from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy
from intercept_py.state import check, sqlite_file
from intercept_py.state.quota import Atomic, bill_of

T = TypeVar("T")

_DIGEST = "%sha256/"
_KINDS = frozenset(strategy.value for strategy in Strategy)
_AT_ONCE = 100
"""So many counters are looked at or dropped before others may go on."""


class Listed(Atomic, Protocol):
    """A storage that knows the names of its counters."""

    def names(self) -> list[str]:
        """The keys of all counters that may hold something."""

    def forget(self, keys: list[str]) -> int:
        """Drop these counters; how many there were. Whoever charges one of them next begins with 0."""

    def in_doubt(self) -> bool:
        """Whether more may have been charged than the store knows, since a server took over that may not know all."""

    def trust(self) -> None:
        """Go by what the store knows, whatever was forgotten: limits that were denied for that are checked again."""


class Named(msgspec.Struct, frozen=True):
    """A counter and what its key says, see `Quota`. All is empty but `digest` where that was too long to be kept."""

    key: str
    server: str = ""
    kind: str = ""
    span: str = ""
    parts: tuple[str, ...] = ()
    digest: str = ""

    def counts_like(self, charge: Charge) -> bool:
        """Whether strategy and window are those of the charge."""
        fixed = charge.strategy is Strategy.FIXED
        span = charge.window.calendar if fixed else None
        return self.kind == charge.strategy.value and self.span == str(span or charge.window.seconds)


class Standing(msgspec.Struct, frozen=True):
    """What a counter holds. `next_in`: seconds until a charge fits, 0 if it does, None if it never will.

    `empty_in`: seconds until nothing counts any more, if nothing else is charged.
    """

    used: Decimal
    next_in: float | None
    empty_in: float


class _Backend(Protocol):
    def open_storage(self, url: str, prefix: str) -> tuple[Listed, str]: ...


def open_inventory(url: str, prefix: str = "") -> Inventory:
    """The counters at `url` whose names begin with `prefix`. Raises `StateError`, also for a file that is missing.

    Not for `memory:`, which nobody but its own process can look into.
    """
    if url.startswith("sqlite:") and not os.path.lexists(path := sqlite_file.path_of(url)):
        raise StateError(f"state file `{path}` does not exist: name the one that the proxies use (`--state`)")
    return Inventory(*cast(_Backend, import_module(check(url))).open_storage(url, prefix))


def parse(key: str, prefix: str = "") -> Named | None:
    """What a key in a store says; None if it is of another prefix, or of something else."""
    name = key.removeprefix(prefix)
    if name == key and prefix:
        return None
    if name.startswith(_DIGEST):
        return Named(key, digest=name.removeprefix(_DIGEST))
    words = [word.replace("%2F", "/").replace("%25", "%") for word in name.split("/")]
    if len(words) < 4 or words[1] not in _KINDS:
        return None
    server, kind, span, *parts = words
    return Named(key, server, kind, span, tuple(parts))


class Inventory:
    """The counters of one store that have a prefix. Every method raises `StateError`. Close it in the end."""

    def __init__(self, storage: Listed, prefix: str = "") -> None:
        self._storage = storage
        self._prefix = prefix

    def names(self) -> list[Named]:
        """All of them, sorted."""
        found = (parse(key, self._prefix) for key in sorted(set(self._storage.names())))
        return [named for named in found if named is not None]

    def look(self, wanted: Iterable[tuple[str, Charge]]) -> list[Standing]:
        """How much of the limit of each charge its counter, which is named by its key, has used."""
        found = []
        for some in _parts(wanted):
            found += [self._look(key, charge) for key, charge in some]
            self._storage.commit()  # the lock of a file is held until then
        return found

    def forget(self, keys: Iterable[str]) -> int:
        """Drop these counters; how many were still there. Whoever charges one of them next begins with 0."""
        return sum(self._storage.forget(some) for some in _parts(keys))

    def in_doubt(self) -> bool:
        """Whether limits are denied because the store may have forgotten charges, see `trust`."""
        return self._storage.in_doubt()

    def trust(self) -> None:
        """Have limits checked by what the store knows, whatever it has forgotten: an operator's decision."""
        self._storage.trust()

    def close(self) -> None:
        """Let go of the store."""
        self._storage.close()

    def _look(self, key: str, charge: Charge) -> Standing:
        # A charge that is refused tells what the counter holds and when it would fit, and changes nothing. So it is
        # made together with one that never fits: all or none are charged.
        charge = msgspec.structs.replace(charge, shadow=False)
        never = msgspec.structs.replace(charge, amount=0, limit=-1)
        refused = self._storage.charge_all(bill_of([(key, charge), (key, never)])).refused
        assert refused is not None
        nothing = msgspec.structs.replace(charge, amount=0, limit=0, inclusive=True)
        full = self._storage.charge_all(bill_of([(key, nothing), (key, never)])).refused
        assert full is not None
        next_in = 0.0 if refused.charge is never else refused.retry_after
        # Asked a moment later.
        empty_in = max(next_in or 0.0, full.retry_after or 0.0)
        return Standing(refused.value, next_in, empty_in)


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
