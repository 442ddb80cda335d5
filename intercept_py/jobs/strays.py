"""Processes that a dead supervisor left behind: found by the mark in their environment, and ended (Linux).

Above: `launch`, `recovery`.
"""

from __future__ import annotations

__all__ = ["MARK", "kill", "marked"]

import os
import signal
import time

MARK = "INTERCEPT_JOB"
_PAUSE = 0.005
_PATIENCE = 2.0
"""What is in the middle of a system call that cannot be interrupted may take longer to go."""


def marked(mark: str) -> list[int]:
    """The processes whose environment says `MARK=mark`. Zombies have none."""
    return [int(name) for name in _numbers() if _has(int(name), mark)]


def kill(mark: str) -> bool:
    """End them with SIGKILL and wait for it; whether none is left. Takes 2 seconds at most."""
    deadline = time.monotonic() + _PATIENCE
    while found := marked(mark):
        for pid in found:
            _kill(pid, mark)
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _kill(pid: int, mark: str) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _has(pid, mark):  # again: the number may have become somebody else's; the descriptor never does
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(fd)


def _numbers() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _has(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={mark}".encode() in file.read().split(b"\0")
    except OSError:
        return False
