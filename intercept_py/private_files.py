"""Files that only their owner may touch: making a place for them, and saying who else may write them.

Above: everything that keeps such files (`audit.log`, `state.sqlite_file`).
"""

from __future__ import annotations

__all__ = ["explain", "exposure", "make_directory"]

import errno
import os
import stat
from contextlib import suppress

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def make_directory(path: str) -> None:
    """Make a directory, 0700, and those around it that are missing. Raises `OSError`."""
    if os.path.isdir(path):
        return
    make_directory(os.path.dirname(path))
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)


def exposure(what: str, status: os.stat_result) -> list[str]:
    """Who else may change a file or directory, and what to do about it (security rule 8)."""
    found = []
    if status.st_uid not in (os.geteuid(), 0):
        found.append(f"{what} belongs to another user (uid {status.st_uid}), who may change it")
    # In a sticky directory (/tmp) others may add files, but not replace ours.
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        found.append(f"{what} may be written by other users: `chmod go-w` it")
    return found


def explain(exc: OSError) -> str:
    """Why a file cannot be used, and the remedy if there is a usual one."""
    reason = (exc.strerror or str(exc)).lower()
    if exc.errno in _NO_ROOM:
        return f"{reason}: free some, or name a file on another disk"
    if exc.errno in _FORBIDDEN:
        return f"{reason}: name a file that this user may write"
    return reason
