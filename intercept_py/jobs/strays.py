"""Processes that a dead supervisor left behind: found by the mark in their environment, and ended (Linux).

Above: `launch`, `recovery`, `rq_worker`, `witness`.
"""

from __future__ import annotations

__all__ = ["MARK", "entries", "environment", "kill", "marked"]

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

MARK = "INTERCEPT_JOB"
_PAUSE = 0.005
_MOMENT = 0.0005
_PATIENCE = 2.0
"""What is in the middle of a system call that cannot be interrupted may take longer to go."""
_EXECVE = 0.25
_LOOKS = 100
"""Seconds in which a process must have started its program, and how often it is looked at in any case: the machine may
have stood still meanwhile. One that takes longer is taken for one without a mark."""
_START_CODE, _ENV_START = 23, 47
"""Where /proc/PID/stat has them, counted from the state (proc(5), fields 26 and 50)."""
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


def entries(prefix: str) -> list[tuple[int, str]]:
    """Every entry `NAME=value` of any process's environment that begins with this: the process, and what follows.

    Raises `OSError` if it cannot be told, for lack of file descriptors for instance. Processes of other users cannot be
    asked and have none. Takes a quarter of a second longer while some process does not show its own.
    """
    begin = prefix.encode()
    found: list[tuple[int, str]] = []
    for pid, environ in _environments():
        found += [(pid, one[len(begin) :].decode(errors="replace")) for one in environ if one.startswith(begin)]
    return found


def marked(mark: str) -> list[int]:
    """The processes whose environment says `MARK=mark`. Raises `OSError` as `entries` does."""
    return [pid for pid, rest in entries(f"{MARK}={mark}") if not rest]


def kill(mark: str) -> bool:
    """End them with SIGKILL and wait for it; whether it is certain that none is left. Takes little over 2 seconds."""
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


def environment(pid: int) -> list[bytes]:
    """The entries (`NAME=value`) that the process was started with, as far as it shows them.

    In the middle of execve(2) the kernel shows none of a living process: that moment is waited for. Raises `OSError`:
    the process is gone, a zombie, a thread of the kernel, or another user's.
    """
    look = _Look(pid)
    for _ in _turns():
        if (found := look()) is not None:
            return found
    return []


def _turns() -> Iterator[None]:
    """Turns to look at what is in the middle of execve(2)."""
    deadline = time.monotonic() + _EXECVE
    turns = 0
    while turns < _LOOKS or time.monotonic() < deadline:
        yield
        turns += 1
        time.sleep(_MOMENT)


def _kill(pid: int, mark: str) -> None:
    with suppress(OSError):  # whether it worked is seen at the next look
        fd = os.pidfd_open(pid)
        try:
            # Again: the number may have become somebody else's; the descriptor never does.
            if f"{MARK}={mark}".encode() in environment(pid):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def _environments() -> list[tuple[int, list[bytes]]]:
    """All processes that can be asked. Those in the middle of execve(2) are waited for, all of them together."""
    try:
        looks = [_Look(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []
    found: list[tuple[int, list[bytes]]] = []
    for _ in _turns():
        doubtful = []
        for look in looks:
            with suppress(*_GONE):
                environ = look()
                if environ is None:
                    doubtful.append(look)
                else:
                    found.append((look.pid, environ))
        looks = doubtful
        if not looks:
            break
    return found


class _Look:
    """Reads a process's environment: call it until it does not give None, which means that nobody can tell yet."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._seen: tuple[bytes, bytes] | None = None

    def __call__(self) -> list[bytes] | None:
        with suppress(ProcessLookupError), open(f"/proc/{self.pid}/environ", "rb") as file:
            if data := file.read():
                return data.split(b"\0")
        with open(f"/proc/{self.pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        if fields[0] == b"Z":
            return _environment_of_threads(self.pid)
        os.readlink(f"/proc/{self.pid}/exe")  # a thread of the kernel has none, and no environment
        if fields[_START_CODE] == b"0":  # which execve(2) sets last
            return None
        program = fields[_START_CODE], fields[_ENV_START]
        if program == self._seen:  # the same one, before and after: it shows nothing, and not because it only begins
            return []
        self._seen = program
        return None


def _environment_of_threads(pid: int) -> list[bytes]:
    """That of a process whose first thread has ended before the others. Zombies have no others."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        if thread != str(pid):
            with suppress(*_GONE), open(f"/proc/{pid}/task/{thread}/environ", "rb") as file:
                return file.read().split(b"\0")
    raise ProcessLookupError(f"process {pid} has ended")
