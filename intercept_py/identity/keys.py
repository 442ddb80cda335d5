"""The keys of an issuer: a JWK set (RFC 7517) from a file or a URL, followed as the issuer rotates them.

Below: `fetch`, `watched_file`, `jws`. Above: `access_tokens`.
"""

from __future__ import annotations

__all__ = ["KeyFile", "KeySet", "Keys", "RemoteKeys", "parse_keys"]

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Protocol

import msgspec
from jwt import PyJWK, PyJWTError

from intercept_py.errors import ProtocolError
from intercept_py.identity.faults import IdentityError
from intercept_py.identity.fetch import fetch
from intercept_py.identity.jws import ALGORITHMS
from intercept_py.identity.watched_file import WatchedFile
from intercept_py.model import JsonObject
from intercept_py.wire import codec

MAX_KEYS: Final = 100
_LEAST_RSA_BITS: Final = 2048
_PRIVATE: Final = ("d", "p", "q", "k")


class KeySet(msgspec.Struct, frozen=True):
    """Every use of every key: its `kid`, an algorithm, and the key made ready for it."""

    uses: tuple[tuple[str | None, str, PyJWK], ...] = ()

    def find(self, kid: str | None, alg: str) -> PyJWK | None:
        """The one key that a token names; without a name, the only one there is for the algorithm."""
        found = [key for name, one, key in self.uses if one == alg and kid in (None, name)]
        return found[0] if len(found) == 1 else None


NO_KEYS: Final = KeySet()


def parse_keys(data: bytes) -> KeySet:
    """The keys of a set that may verify tokens; others are passed over (RFC 7517, section 5). Raises `ValueError`.

    Passed over are keys for encryption, secrets, private keys, RSA keys under 2048 bits, and what cannot be read.
    """
    try:
        document = codec.decode(data)
    except ProtocolError as exc:
        raise ValueError(str(exc).replace("message", "it", 1)) from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"it is no JWK set: an object with a list `keys` of at most {MAX_KEYS} keys")
    found = KeySet(tuple(use for jwk in listed if isinstance(jwk, dict) for use in _uses(jwk)))
    if not found.uses:
        raise ValueError("it has no public key that could verify a token")
    return found


def _uses(jwk: JsonObject) -> Iterator[tuple[str | None, str, PyJWK]]:
    if not _is_for_tokens(jwk):
        return
    kid = jwk.get("kid")
    for alg in ALGORITHMS.get(_kind(jwk), ()):
        if jwk.get("alg") in (None, alg):
            with suppress(PyJWTError, ValueError, TypeError):
                key = PyJWK(jwk, alg)
                if jwk["kty"] != "RSA" or key.key.key_size >= _LEAST_RSA_BITS:
                    yield kid, alg, key


def _is_for_tokens(jwk: JsonObject) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and isinstance(jwk.get("kid"), str | None)
        and not any(member in jwk for member in _PRIVATE)
    )


def _kind(jwk: JsonObject) -> tuple[str, str | None]:
    kind, curve = jwk.get("kty"), jwk.get("crv")
    return str(kind), None if kind == "RSA" else str(curve)


# -- where they come from ----------------------------------------------------------------------------------------------


class Keys(Protocol):
    """Where keys come from."""

    def current(self) -> KeySet:
        """What may be used right now; the same object as before if nothing changed, since tokens are remembered by it.

        Never waits.
        """

    async def find(self, kid: str | None, alg: str) -> PyJWK | None:
        """The key that a token names, after having looked for newer ones if need be."""

    async def close(self) -> None:
        """Stop looking."""


class KeyFile:
    """The keys in a file, read again when it changes. Raises `IdentityError` if it cannot be used to begin with."""

    def __init__(self, path: str, log: Callable[[str, str], None]) -> None:
        self._file = WatchedFile(path, "the key file", parse_keys, NO_KEYS, log)
        self.current = self._file.current

    async def find(self, kid: str | None, alg: str) -> PyJWK | None:
        """See `Keys`."""
        return self.current().find(kid, alg)

    async def close(self) -> None:
        """Nothing is left open."""


class RemoteKeys:
    """The keys at a URL, one fetch at a time and never more than one in `PAUSE` seconds, whoever asks for what.

    Keys are used for `FRESH` seconds as they are, then also while newer ones are being fetched. Where that fails they
    stay in use until they are `OLDEST` seconds old: most access tokens do not live longer, and an issuer that is away
    gives out no new ones. `timer` is monotonic, in seconds.
    """

    FRESH: Final = 300.0
    OLDEST: Final = 3600.0
    PAUSE: Final = 10.0

    def __init__(self, url: str, log: Callable[[str, str], None], timer: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._log = log
        self._timer = timer
        self._keys = NO_KEYS
        self._data = b""
        self._fetched = self._tried = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    def current(self) -> KeySet:
        """See `Keys`."""
        age = self._timer() - self._fetched
        if age > self.FRESH:
            self._begin()
        return self._keys if age <= self.OLDEST else NO_KEYS

    async def find(self, kid: str | None, alg: str) -> PyJWK | None:
        """See `Keys`."""
        key = self.current().find(kid, alg)
        if key is None and (fetching := self._begin()) is not None:
            # Others wait for the same fetch: it must not end because one of them hangs up.
            await asyncio.shield(fetching)
            key = self.current().find(kid, alg)
        return key

    async def close(self) -> None:
        """See `Keys`."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _begin(self) -> asyncio.Task[None] | None:
        """The fetch that is under way, a new one, or None if the last one is not long enough ago."""
        if self._fetching is None and self._timer() - self._tried >= self.PAUSE:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            data = await fetch(self._url)
            if data != self._data:
                self._keys, self._data = parse_keys(data), data
            self._fetched = self._timer()
        except (IdentityError, ValueError) as exc:
            self._log("warn", f"the keys at `{self._url}` could not be had: {exc}")
        finally:
            self._tried = self._timer()
            self._fetching = None
