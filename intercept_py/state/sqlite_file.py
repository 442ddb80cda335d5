"""Which file `sqlite:` names, who may touch it, and that nobody else can: 0600 in directories 0700, no symbolic link.

Light, because `run` looks here before it starts the server. Above: `sqlite_database`, which opens the file.
"""

from __future__ import annotations

__all__ = ["beside", "check", "identity", "is_empty", "path_of", "prepare", "warnings"]

import os
import re
import stat
from contextlib import suppress

from intercept_py.errors import StateError
from intercept_py.private_files import explain, exposure, make_directory

_MAGIC = b"SQLite format 3\0"
_MOUNTS = "/proc/self/mountinfo"
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_FORMS = "write `sqlite:///path/to/file`, or `sqlite:` for the usual place"


def check(url: str) -> None:
    """Make sure that there is a file that could be used. Raises `StateError` if not."""
    path = path_of(url)
    prepare(path)
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) not in (b"", _MAGIC):
            raise StateError(f"`{path}` holds something else than limits: name another file")


def path_of(url: str) -> str:
    """The absolute path in `sqlite:///path`, or the usual one for `sqlite:`. Raises `StateError` for anything else."""
    rest = url.partition(":")[2]
    if rest.startswith("//"):
        if not rest.startswith("///") and rest != "//":
            raise StateError(f"state in SQLite is a file on this machine, without a host: {_FORMS}")
        rest = rest[2:]
    if "?" in rest or "#" in rest:
        raise StateError(f"state in SQLite has no options (in a path `?` is `%3F`, `#` is `%23`): {_FORMS}")
    if not rest.strip("/"):
        return _default_path()
    if "%" in rest:
        from urllib.parse import unquote  # slow to import

        rest = unquote(rest, errors="surrogateescape")
    if "\0" in rest:
        raise StateError(f"the path of state in SQLite holds a null character: {_FORMS}")
    return os.path.abspath("/" + rest.lstrip("/") if rest.startswith("/") else rest)


def _default_path() -> str:
    """`limits.sqlite` where this platform keeps a user's state."""
    from platformdirs import user_state_dir  # slow to import

    return os.path.join(user_state_dir("intercept-py", appauthor=False), "limits.sqlite")


def beside(path: str) -> tuple[str, str]:
    """The files beside `path` through which the processes that use it see what the others have done."""
    return f"{path}-wal", f"{path}-shm"


def prepare(path: str) -> None:
    """Create the file, empty, and its directories, if they are missing. Raises `StateError` if it cannot be used."""
    try:
        make_directory(os.path.dirname(path))
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _check(path)
        for name in beside(path):
            with suppress(FileNotFoundError):
                _check(name)
    except OSError as exc:
        raise StateError(f"cannot open state file `{path}`: {explain(exc)}") from exc


def _check(path: str) -> None:
    """Only looks: whoever opens and closes a file loses this process's locks on it."""
    status = os.lstat(path)
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        raise StateError(f"state file `{path}` is a symbolic link: name the file that it points to")
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise StateError(f"state file `{path}` is {kind}: name a regular file")
    if status.st_nlink > 1:
        raise StateError(f"state file `{path}` has another name, under which others would count apart: remove one")
    if _is_mounted(path):
        raise StateError(
            f"state file `{path}` is mounted alone, so that others who use it would count apart: mount its directory"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise StateError(f"state file `{path}` may not be written: name a file that this user may write")


def _is_mounted(path: str) -> bool:
    """Whether the file itself is a mount (Linux), so that what is beside it is not what is beside it elsewhere."""
    name = os.fsencode(os.path.realpath(path))
    try:
        with open(_MOUNTS, "rb") as mounts:
            return any(_ESCAPED.sub(_unescape, line.split(b" ", 5)[4]) == name for line in mounts)
    except (OSError, LookupError):
        return False  # not Linux, or hidden: then nobody can tell


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])


def identity(path: str) -> tuple[int, int] | None:
    """What tells this file from another one at the same path; None where none can be found."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_empty(path: str) -> bool:
    """Whether nothing is left in the file: one that is in use never is empty."""
    try:
        return not os.stat(path).st_size
    except OSError:
        return True


def warnings(url: str) -> list[str]:
    """Who else may change the counters."""
    path = path_of(url)
    directory = os.path.dirname(path)
    found = []
    for what, name in (("state file", path), ("directory of the state file", directory)):
        try:
            status = os.stat(name)
        except OSError:
            continue
        found += exposure(f"{what} `{name}`", status)
    return found
