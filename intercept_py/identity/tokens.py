"""Opaque tokens of our own, and the file that knows them by their hashes.

A token is `ipt_`, 32 random bytes in hex, and a CRC-32 of both, by which secret scanners and mistyped tokens are told.
Only its SHA-256 is kept. A slow hash protects passwords, which can be guessed; 256 random bits cannot, and a hash that
takes milliseconds would let anybody keep the proxy busy. Looking a hash up tells nothing by its duration: whoever can
choose a token cannot choose its hash. Below: `watched_file`. Above: `authenticator`, the command `tokens`.
"""

from __future__ import annotations

__all__ = ["PREFIX", "Token", "TokenFile", "add", "digest", "read", "revoke"]

import fcntl
import os
import re
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.identity.faults import IdentityError, TokenError
from intercept_py.identity.settings import check_scopes
from intercept_py.identity.watched_file import WatchedFile, read_file
from intercept_py.model import Caller
from intercept_py.private_files import explain, make_directory
from intercept_py.wire import codec

PREFIX: Final = "ipt_"
WHAT: Final = "the token file"

# No `:`, which every principal of an access token has: none can pass for the other.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_Digest: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Date: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token: who has it, what it is good for, until when (None: until it is revoked). Never the token itself."""

    name: str
    sha256: _Digest
    created: _Date
    scopes: tuple[str, ...] = ()
    expires: _Date | None = None

    def expired(self, now: float) -> bool:
        """Whether it is not good any more. `now` is seconds since the epoch."""
        return self.expires is not None and self.expires.timestamp() <= now


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    tokens: tuple[Token, ...]


_Index: TypeAlias = dict[str, tuple[Token, Caller]]


class TokenFile:
    """The callers that a token file knows. It is read again when it changes, so that a revocation holds at once.

    `clock` tells seconds since the epoch. Raises `IdentityError` if the file cannot be used to begin with.
    """

    def __init__(self, path: str, log: Callable[[str, str], None], clock: Callable[[], float] = time.time) -> None:
        self._file: WatchedFile[_Index] = WatchedFile(path, WHAT, _index, {}, log)
        self._clock = clock

    def caller(self, token: str) -> Caller:
        """Whose token it is. Raises `TokenError`."""
        if not _is_whole(token):
            raise TokenError("the token is mistyped or not one of ours: its checksum is wrong")
        known = self._file.current().get(digest(token))
        if known is None:
            raise TokenError("the token is not in the token file")
        if known[0].expired(self._clock()):
            raise TokenError(f"the token `{known[0].name}` has expired")
        return known[1]

    def warnings(self) -> list[str]:
        """Who else may change the file."""
        return self._file.warnings()


def _index(data: bytes) -> _Index:
    tokens = _parse(data)
    return {one.sha256: (one, Caller(principal=one.name, scopes=one.scopes)) for one in tokens}


def digest(token: str) -> str:
    """What is kept of a token."""
    return sha256(token.encode()).hexdigest()


def _is_whole(token: str) -> bool:
    return token[-8:] == _checksum(token[:-8])


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


# -- the file ----------------------------------------------------------------------------------------------------------


def read(path: str) -> tuple[Token, ...]:
    """Every token, sorted by name. Raises `IdentityError`."""
    data, _ = read_file(path, WHAT)
    try:
        return _parse(data)
    except ValueError as exc:
        raise IdentityError(f"{WHAT} `{path}` cannot be used: {exc}") from None


def _parse(data: bytes) -> tuple[Token, ...]:
    """Raises `ValueError`, one line."""
    try:
        tokens = msgspec.convert(codec.decode(data), _Document).tokens
        check_scopes(scope for one in tokens for scope in one.scopes)
    except ProtocolError as exc:
        raise ValueError(str(exc).replace("message", "it", 1)) from None
    except IdentityError as exc:
        raise ValueError(str(exc)) from None
    for one in tokens:
        if not _NAME.fullmatch(one.name):
            raise ValueError(f"it has a token with a bad name: {_NAME_RULE}")
    if len({one.name for one in tokens}) < len(tokens) or len({one.sha256 for one in tokens}) < len(tokens):
        raise ValueError("two of its tokens have the same name or the same hash")
    return tuple(sorted(tokens, key=lambda one: one.name))


_NAME_RULE: Final = "names have 1 to 64 letters, digits and `.`, `_`, `@`, `+`, `-`, and begin with a letter or digit"


def check_name(name: str) -> None:
    """Raises `IdentityError` for what cannot be a token's name."""
    if not _NAME.fullmatch(name):
        raise IdentityError(f"a token cannot have this name: {_NAME_RULE}")


def add(path: str, name: str, scopes: tuple[str, ...], created: datetime, expires: datetime | None) -> str:
    """Make a token and keep its hash in the file, which is created (0600) if it is missing. The token.

    Raises `IdentityError`; then the file is as it was.
    """
    check_name(name)
    check_scopes(scopes)
    body = PREFIX + secrets.token_hex(32)
    token = body + _checksum(body)
    made = Token(name, digest(token), created, tuple(dict.fromkeys(scopes)), expires)
    with _locked(path) as (real, tokens):
        if any(one.name == name for one in tokens):
            raise IdentityError(f"{WHAT} `{path}` has a token `{name}` already: revoke it first, or use another name")
        _write(real, (*tokens, made))
    return token


def revoke(path: str, name: str) -> None:
    """Take a token out of the file. Raises `IdentityError`, also where there is none of this name."""
    with _locked(path) as (real, tokens):
        left = tuple(one for one in tokens if one.name != name)
        if len(left) == len(tokens):
            known = ", ".join(f"`{one.name}`" for one in tokens[:8])
            raise IdentityError(f"{WHAT} `{path}` has no token of that name; it has {known or 'none'}")
        _write(real, left)


@contextmanager
def _locked(path: str) -> Iterator[tuple[str, tuple[Token, ...]]]:
    """The file that `path` leads to and its tokens, while no other command changes it.

    The lock is on the directory: the file itself is replaced.
    """
    real = os.path.realpath(path)
    directory = os.path.dirname(real)
    try:
        make_directory(directory)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield real, read(real) if os.path.lexists(real) else ()
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise IdentityError(f"cannot write {WHAT} `{path}`: {explain(exc)}") from None


def _write(path: str, tokens: tuple[Token, ...]) -> None:
    """Replace the file in one step: a proxy reads the old one or the new one."""
    document = msgspec.json.format(msgspec.json.encode(_Document(1, tokens)), indent=2) + b"\n"
    draft = f"{path}.{secrets.token_hex(4)}.new"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            with suppress(FileNotFoundError):
                # The proxy may be another user than who adds a token: it must be able to read the new file as well.
                status = os.stat(path)
                os.fchown(fd, status.st_uid, status.st_gid)
            file.write(document)
            file.flush()
            os.fsync(fd)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
