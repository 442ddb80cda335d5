"""The clock that all processes on this machine read alike, and that nobody can set."""

from __future__ import annotations

__all__ = ["Timepiece", "this_machine"]

import time
from collections.abc import Callable
from typing import NamedTuple

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_OFFSETS = "/proc/self/timens_offsets"


class Timepiece(NamedTuple):
    """Where time comes from, in microseconds. A store keeps by how much `ticks` lags behind the epoch.

    `ticks` never go back and run during sleep; `boot` names what they count from, empty where that is not known.
    `wall` is the time since the epoch as the machine believes it; it may be set at any moment.
    """

    ticks: Callable[[], int]
    wall: Callable[[], int]
    boot: str


def this_machine() -> Timepiece:
    """The clocks of this machine, also in a container.

    Without a boot id (not Linux, or hidden) each process starts with the wall clock it finds.
    """
    source = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    gettime = time.clock_gettime_ns
    ahead = _ahead()
    return Timepiece(lambda: (gettime(source) - ahead) // 1000, lambda: time.time_ns() // 1000, _boot())


def _boot() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def _ahead() -> int:
    """By how many nanoseconds a time namespace shifts this process's ticks (Linux); the boot id is that of all."""
    try:
        with open(_OFFSETS, encoding="ascii") as file:
            offsets = {name: (int(seconds), int(rest)) for name, seconds, rest in map(str.split, file)}
    except (OSError, ValueError):
        return 0
    seconds, rest = offsets.get("boottime", (0, 0))
    return seconds * 1_000_000_000 + rest
