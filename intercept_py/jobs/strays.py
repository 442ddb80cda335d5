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
_MOMENT = 0.0005
_PATIENCE = 2.0
"""What is in the middle of a system call that cannot be interrupted may take longer to go."""
_START_CODE, _ENV_START, _ENV_END = 23, 47, 48
"""Where /proc/PID/stat has them, counted from the state (proc(5), fields 26, 50 and 51)."""


def marked(mark: str) -> list[int]:
    """The processes whose environment says `MARK=mark`.

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
        return f"{MARK}={mark}".encode() in environment(pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def environment(pid: int) -> list[bytes]:
    """The entries (`NAME=value`) that the process was started with.

    In the middle of execve(2) the kernel shows none of a living process: that moment is waited for. Raises `OSError`:
    the process is gone, a zombie, a thread of the kernel or another user's, or, `TimeoutError`, the moment did not end
    in 2 seconds.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if data := file.read():
                return data.split(b"\0")
        if _has_none(pid):
            return []
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not show its environment")
        time.sleep(_MOMENT)


def _has_none(pid: int) -> bool:
    """Whether it is no passing state that the process shows no environment."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    os.readlink(f"/proc/{pid}/exe")  # for the error: neither zombies nor threads of the kernel have one
    loaded = fields[_START_CODE] != b"0"  # execve(2) sets it after the other two
    return loaded and fields[_ENV_START] == fields[_ENV_END]
