"""SQLite files for tests: storages with a clock that tests set, charges, and a disk that is full."""

from __future__ import annotations

__all__ = ["START", "Clock", "charge", "fits", "full_disk", "value"]

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from intercept_py.model import Charge
from intercept_py.state import State
from intercept_py.state.clock import Timepiece
from tests.support.charges import charge

START = 1767225600.0  # 2026-01-01, a Thursday


class Clock:
    """Seconds since the epoch. `wall` is by how much the machine believes in another time; `boot` names its run."""

    def __init__(self, now: float = START) -> None:
        self.now = now
        self.booted = now - 1_000
        self.wall = 0.0
        self.boot = "boot 1"

    def __call__(self) -> float:
        return self.now

    def timepiece(self) -> Timepiece:
        """What a storage reads. All times in tests are multiples of 1/64, which floats hold exactly."""
        return Timepiece(
            lambda: int((self.now - self.booted) * 1_000_000),
            lambda: int((self.now + self.wall) * 1_000_000),
            self.boot,
        )

    def reboot(self) -> None:
        """The machine starts again: ticks count from now."""
        self.booted = self.now
        self.boot += "'"


def fits(state: State, *charges: Charge) -> bool:
    """Charge, commit; whether that was allowed."""
    receipt = state.charge("s", charges)
    state.commit()
    return receipt.refused is None


def value(state: State, of: Charge) -> Decimal:
    """What a counter holds, as the refusal of an impossible charge tells."""
    refused = state.charge("s", (Charge(of.key, 0, -1, of.window, of.strategy, "probe"),)).refused
    assert refused is not None
    state.commit()
    return refused.value


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow or be written beyond its first byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
