"""Which server process is which: a process is told by its number, when it started, and since when the machine is up.

Above: `store`.
"""

from __future__ import annotations

__all__ = ["Instance", "alive", "this"]

import os
import uuid
from functools import cache

import msgspec


class Instance(msgspec.Struct, frozen=True):
    """One opened engine in one process. Where there is no /proc, `starttime` and `boot_id` are 0 and empty."""

    uuid: str
    pid: int
    starttime: int
    boot_id: str


def this() -> Instance:
    """A new instance in this process."""
    return Instance(str(uuid.uuid4()), os.getpid(), _starttime(os.getpid()), _boot_id())


def alive(instance: Instance) -> bool:
    """Whether its process still runs. Another process with the same number is not taken for it."""
    if instance.boot_id != _boot_id():
        return False
    if instance.starttime:
        return _starttime(instance.pid) == instance.starttime
    try:
        os.kill(instance.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@cache
def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _starttime(pid: int) -> int:
    """In clock ticks since the machine started; 0 if there is no such process, or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
