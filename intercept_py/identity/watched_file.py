"""A small file that is read again when it changes: who replaces it need not tell the proxy.

Above: `tokens`, `keys`.
"""

from __future__ import annotations

__all__ = ["MAX_BYTES", "WatchedFile", "read_file"]

import os
import stat
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar

from intercept_py.identity.faults import IdentityError
from intercept_py.private_files import exposure

Parsed = TypeVar("Parsed")
_Signature: TypeAlias = tuple[int, ...]

MAX_BYTES: Final = 1024 * 1024


class WatchedFile(Generic[Parsed]):
    """The file at `path`, parsed. `what` names it in messages; `parse` raises `ValueError`, one line.

    Raises `IdentityError` if it cannot be read to begin with. Later a file that is missing or broken counts as `empty`,
    so that nobody is let in by what may have been taken out of it; `log` is told once.
    """

    def __init__(
        self,
        path: str,
        what: str,
        parse: Callable[[bytes], Parsed],
        empty: Parsed,
        log: Callable[[str, str], None],
    ) -> None:
        self.path = os.path.abspath(path)
        self._what = what
        self._parse = parse
        self._empty = empty
        self._log = log
        self._problem = ""
        self._signature: _Signature | None = None
        self._value = empty
        self._load()

    def current(self) -> Parsed:
        """What the file says by now; the same object as before if it has not changed. A `stat` each time."""
        try:
            if _signature(os.stat(self.path)) == self._signature:
                return self._value
            self._load()
            self._problem = ""
        except (OSError, IdentityError) as exc:
            self._value = self._empty
            problem = str(exc) if isinstance(exc, IdentityError) else f"{self._what} `{self.path}` is gone"
            if problem != self._problem:
                self._log("error", f"{problem}; nobody is let in by it until it is repaired")
                self._problem = problem
        return self._value

    def warnings(self) -> list[str]:
        """Who else may change the file."""
        found: list[str] = []
        real = os.path.realpath(self.path)
        for name, what in ((real, f"{self._what} `{real}`"), (os.path.dirname(real), f"the directory of {self._what}")):
            try:
                found += exposure(what, os.stat(name))
            except OSError:
                continue
        return found

    def _load(self) -> None:
        self._signature = None
        data, status = read_file(self.path, self._what)
        # Also of what cannot be used: it need not be read again for every request.
        self._signature = _signature(status)
        try:
            self._value = self._parse(data)
        except ValueError as exc:
            raise IdentityError(f"{self._what} `{self.path}` cannot be used: {exc}") from None


def read_file(path: str, what: str) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file of at most `MAX_BYTES`, and its status before they were read.

    Raises `IdentityError`. Never waits for the writer of a FIFO.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise IdentityError(f"cannot read {what} `{path}`: it is not a regular file")
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = (exc.strerror or str(exc)).lower() if isinstance(exc, OSError) else "its name contains a NUL"
        raise IdentityError(f"cannot read {what} `{path}`: {reason}") from None
    if len(data) > MAX_BYTES:
        raise IdentityError(f"cannot read {what} `{path}`: it has more than {MAX_BYTES} bytes: is it the right file?")
    return data, status


def _signature(status: os.stat_result) -> _Signature:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
