"""Which servers live. Each holds a lock on a file of its own, and the kernel lets go of it when the process ends.

Unlike the number of a process, a lock is the same in all containers that share the directory, and is nobody else's
later. Only a lock that could be taken proves that its server is dead: whatever else happens proves nothing.

Above: `store`.
"""

from __future__ import annotations

__all__ = ["Instance", "dead"]

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress

import msgspec


class _Home(msgspec.Struct, frozen=True):
    """Where a server runs. Blank where there is no /proc."""

    pid: int
    boot_id: str
    namespace: int


class Instance:
    """One opened engine in one process. As long as `uuid` names a file, its jobs are its own or still to be ended."""

    def __init__(self, directory: str) -> None:
        """Take a place in this directory. Raises `OSError`."""
        self.uuid = str(uuid.uuid4())
        self._path = os.path.join(directory, f".{self.uuid}")
        home = msgspec.json.encode(_home())
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._fd, home)
            place = os.path.join(directory, self.uuid)
            os.rename(self._path, place)  # under this name it is locked whenever somebody looks
            self._path = place
        except BaseException:
            self.leave(forget=True)
            raise

    def leave(self, *, forget: bool) -> None:
        """Let go of the place; with `forget` nothing is left that anybody would have to end."""
        if forget:
            with suppress(OSError):
                os.unlink(self._path)
        os.close(self._fd)


def dead(directory: str) -> Iterator[str]:
    """The uuids of dead servers whose jobs can be judged from here. Whoever asks for the next has taken over the last.

    Raises `OSError` if the directory cannot be read.
    """
    here = _home()
    for name in os.listdir(directory):
        if name.startswith("."):
            continue
        path = os.path.join(directory, name)
        with suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _shows(here, os.read(fd, 4096)):
                    yield name
                    os.unlink(path)
            finally:
                os.close(fd)


def _shows(here: _Home, written: bytes) -> bool:
    """Whether all that a dead server may have left can be seen from here, or is gone for certain.

    A restart of the machine ends everything, and the first process of a pid namespace takes all others with it.
    """
    try:
        there = msgspec.json.decode(written, type=_Home)
    except msgspec.DecodeError:
        return False
    return there.pid == 1 or there.boot_id != here.boot_id or there.namespace == here.namespace


def _home() -> _Home:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = file.read().strip()
        return _Home(os.getpid(), boot_id, os.stat("/proc/self/ns/pid").st_ino)
    except FileNotFoundError:
        return _Home(os.getpid(), "", 0)
