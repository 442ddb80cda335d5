"""Counters: charging the limits a decision depends on. `open_state(url)` is the seam that backends join.

Below: a storage of the `limits` library per backend, named in `SCHEMES`. Above: the enforcer. `limits` is slow to
import, so nothing of it is imported before state is opened.
"""

from __future__ import annotations

__all__ = ["KEPT", "MEMORY", "SCHEMES", "Receipt", "Refusal", "State", "check", "open_state", "warnings"]

from collections.abc import Mapping
from decimal import Decimal
from importlib import import_module
from typing import Protocol, cast

import msgspec

from intercept_py.errors import StateError
from intercept_py.model import Charge

MEMORY = "memory://"
"""For this process alone."""
KEPT = "sqlite:"
"""Shared by this user's proxies, and kept when they end."""

_REDIS = "intercept_py.state.redis"
_SQLITE = "intercept_py.state.sqlite"
SCHEMES: Mapping[str, str] = {
    "memory": "intercept_py.state.memory",
    "redis": _REDIS,
    "rediss": _REDIS,
    "redis+unix": _REDIS,
    "unix": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "sqlite": _SQLITE,
}
"""URL scheme to the module whose `open_state(url, prefix)` opens it."""

_CHECKS: Mapping[str, str] = {
    _REDIS: "intercept_py.state.redis_address",
    _SQLITE: "intercept_py.state.sqlite_file",
}
"""Such a module to the one whose `check(url)` tells mistakes in a URL without opening anything."""

_REFUSED: Mapping[str, str] = {
    "memcached": "it cannot charge several counters at once, and holds no exact decimals: use `redis:`",
}


class Refusal(msgspec.Struct, frozen=True):
    """A charge that does not fit. `value` is the counter without this call.

    `retry_after`: in so many seconds it fits if nothing else is charged meanwhile; None if it never fits.
    """

    charge: Charge
    value: Decimal
    retry_after: float | None


class Receipt(msgspec.Struct, frozen=True):
    """What became of the charges of one call: none of them was made if `refused` is set, otherwise all were.

    `shadowed` are the limits in shadow mode that would have refused. `token` is for `refund` alone.
    """

    refused: Refusal | None = None
    shadowed: tuple[Refusal, ...] = ()
    token: object = None


class State(Protocol):
    """Counters, charged all or nothing. Every method raises `StateError` and nothing else; then nothing was changed.

    Only where a store does not answer, what it was asked to charge may have been charged, and stays so. It is an
    `UnavailableError` where the store cannot be used, whatever it is asked.
    """

    def charge(self, server: str, charges: tuple[Charge, ...]) -> Receipt:
        """Make every charge, or none if one that is not in shadow mode does not fit. Charges to one key add up."""

    def refund(self, receipt: Receipt) -> None:
        """Take the charges back: once, and only from the windows that they were made in."""

    def commit(self) -> None:
        """Make sure of all charges and refunds since the last commit: nothing they allow may go on before that.

        If it raises, none of them was made.
        """

    def close(self) -> None:
        """Let go of the store."""


class _Backend(Protocol):
    def open_state(self, url: str, prefix: str) -> State: ...


class _Check(Protocol):
    def check(self, url: str) -> None: ...


def check(url: str) -> str:
    """The module that opens `url`. Raises `StateError` for a kind of store that there is none for, or a bad URL."""
    scheme = url.partition(":")[0]
    module = SCHEMES.get(scheme)
    if scheme in _REFUSED:
        raise StateError(f"state of kind `{scheme}` is not supported: {_REFUSED[scheme]}")
    if module is None and url.startswith(("/", ".", "~")):
        raise StateError("state is named by a URL: write `sqlite://` and the absolute path of the file")
    if module is None:
        # The URL itself may hold a password.
        known = ", ".join(f"`{name}:`" for name in SCHEMES)
        raise StateError(f"state of kind `{scheme[:32]}` is not supported: use {known}")
    if scheme == "memory" and url.removeprefix("memory:").strip("/"):
        raise StateError("state in memory has no address: write `memory:`")
    if module in _CHECKS:
        cast(_Check, import_module(_CHECKS[module])).check(url)
    return module


def warnings(url: str) -> list[str]:
    """What a person should know about the store that `check` has looked at: who else may change it."""
    if check(url) != _SQLITE:
        return []
    from intercept_py.state import sqlite_file

    return sqlite_file.warnings(url)


def open_state(url: str, *, prefix: str = "") -> State:
    """Open the counters at `url` (`memory:`). `prefix` keeps apart what shares one store. Raises `StateError`."""
    # Imported now because `limits` takes longer to import than everything else that a proxy without limits needs.
    backend = cast(_Backend, import_module(check(url)))
    return backend.open_state(url, prefix)
