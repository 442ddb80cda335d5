"""A policy on disk: read it once, then watch it (security rule 8).

The path is looked up anew every time, so that a replaced file counts however it was replaced: editors and `sed -i`
rename over it, git and Kubernetes swap a directory or a symlink. No inode is held and no notification is trusted.
"""

from __future__ import annotations

__all__ = ["Watch", "describe", "read", "read_bytes", "warnings"]

import os
import stat
from hashlib import sha256

from intercept_py.errors import PolicyError, Problem
from intercept_py.policy import loader
from intercept_py.policy.rules import Policy
from intercept_py.private_files import exposure

MAX_BYTES = 1024 * 1024


def read(path: str) -> Policy:
    """Load the policy at `path`; raise `PolicyError` for a file that cannot be read as well as for what it says."""
    return loader.load(read_bytes(path), path)


def read_bytes(path: str, what: str = "policy") -> bytes:
    """The bytes of such a file; raise `PolicyError` if it cannot be read.

    Never blocks on a FIFO or a device, never reads more than a policy may have.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as exc:
        raise _unreadable(path, exc.strerror if isinstance(exc, OSError) else "its name contains a NUL", what) from None
    try:
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode):
            raise _unreadable(path, "it is a directory: name the YAML file in it", what)
        if not stat.S_ISREG(info.st_mode):
            raise _unreadable(path, "it is not a regular file", what)
        if info.st_size > MAX_BYTES:
            size = f"it has {info.st_size} bytes, a {what} at most {MAX_BYTES}: is it the right file?"
            raise _unreadable(path, size, what)
        return _read_all(fd)
    except OSError as exc:
        raise _unreadable(path, exc.strerror, what) from None
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    chunks = []
    left = MAX_BYTES + 1  # one more than allowed, so that a file that grew meanwhile is refused by the loader
    while left and (chunk := os.read(fd, left)):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _unreadable(path: str, why: str | None, what: str = "policy") -> PolicyError:
    return PolicyError((Problem(path, 1, 1, "$", f"cannot read the {what}: {why}"),))


def describe(policy: Policy) -> str:
    """One phrase for a person: which revision, and what it does with calls that it does not mention."""
    unlisted = "allows" if policy.default_allow else "denies"
    mode = "in shadow mode, so NOTHING is enforced" if policy.shadow else "enforced"
    return f"{mode}, {unlisted} unlisted tools, revision {policy.revision[:12]}"


def warning_of_sessions(path: str, policy: Policy) -> str | None:
    """What is to be known of a policy's limits where clients open sessions at will, as over HTTP."""
    if not policy.counts_by_session:
        return None
    return (
        f"policy `{path}` has limits per session, and clients over HTTP begin a session whenever they like: write "
        "`per: principal`, `tool` or `global` for a budget that they cannot renew"
    )


def warnings(path: str, what: str = "policy") -> list[str]:
    """What an attacker on this machine could change: the policy or its directory is writable by others."""
    found: list[str] = []
    real = os.path.realpath(path)
    for name, part in ((real, f"the {what}"), (os.path.dirname(real), f"the {what}'s directory")):
        try:
            found += exposure(f"{part} `{name}`", os.stat(name))
        except OSError:
            continue
    return found


class Watch:
    """Notices that the policy at `path` has changed. Ask with `poll` a few times a second; `poll(True)` forces it."""

    _REHASH = 40
    """Every so many polls the content is read whatever `stat` says: some file systems keep time stamps."""

    _MISSED = 8
    """So many polls in a row that found no file at all are worth a word."""

    def __init__(self, path: str, revision: str) -> None:
        self._path = path
        self._seen = revision  # of the last content that was loaded or refused
        self._candidate: str | None = None
        self._signature = self._stat()
        self._polls = 0
        self._missing = 0

    def poll(self, force: bool = False) -> Policy | None:
        """The new policy if there is one, else None. Raises `PolicyError` once for each content that may not be used.

        A content counts only when two polls in a row found the same bytes: half a file can be a valid policy.
        """
        self._polls += 1
        signature = self._stat()
        unchanged = signature == self._signature and signature is not None and self._candidate is None
        if not force and unchanged and self._polls % self._REHASH:
            return None
        self._signature = signature
        text = read_bytes(self._path) if signature is not None or force else b""
        if signature is None and not force:
            # For a moment that is how files are replaced; after that somebody should know, once.
            self._missing += 1
            if self._missing == self._MISSED:
                raise _unreadable(self._path, "it is gone")
            return None
        self._missing = 0
        revision = sha256(text).hexdigest()
        if revision == self._seen and not force:
            self._candidate = None
            return None
        if revision != self._candidate and not force:
            self._candidate = revision
            return None
        self._candidate = None
        self._seen = revision
        return loader.load(text, self._path)

    def _stat(self) -> tuple[int, ...] | None:
        try:
            info = os.stat(self._path)
        except OSError:
            return None
        return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
