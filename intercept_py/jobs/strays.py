"""Processes that a dead supervisor left behind: found by the mark in their environment, and ended (Linux).

Above: `launch`, `recovery`.
"""

from __future__ import annotations

__all__ = ["MARK", "kill", "marked"]

import os
import signal
import time
from contextlib import suppress

MARK = "INTERCEPT_JOB"
_PAUSE = 0.005
_PATIENCE = 2.0
"""What is in the middle of a system call that cannot be interrupted may take longer to go."""


def marked(mark: str) -> list[int]:
    """The processes whose environment says `MARK=mark`. Zombies have none.

    Raises `OSError` if it cannot be told, for lack of file descriptors for instance. Processes of other users cannot be
    asked and are none.
    """
    try:
        names = os.listdir("/proc")
    except FileNotFoundError:
        return []
    return [int(name) for name in names if name.isdigit() and _has(int(name), mark)]


def kill(mark: str) -> bool:
    """End them with SIGKILL and wait for it; whether it is certain that none is left. Takes 2 seconds at most."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        with suppress(OSError):
            if not (found := marked(mark)):
                return True
            for pid in found:
                _kill(pid, mark)
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)


def _kill(pid: int, mark: str) -> None:
    with suppress(OSError):  # whether it worked is seen at the next look
        fd = os.pidfd_open(pid)
        try:
            if _has(pid, mark):  # again: the number may have become somebody else's; the descriptor never does
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def _has(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={mark}".encode() in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
