"""One connection to a Redis that is asked to run scripts: every wait is bounded, and nothing is asked twice.

A charge whose answer does not come may have been made. Asking again would charge twice and, worse, answer for the
second one alone; so the library's own retries are not used. Below: the `redis` package. Above: the storage.
"""

from __future__ import annotations

__all__ = ["Argument", "Link", "Script", "make_script", "read_script"]

import os
import socket
from contextlib import suppress
from hashlib import sha1
from typing import Any, TypeAlias

import msgspec
from redis import exceptions
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError, ResponseError

from intercept_py.errors import StateError, UnavailableError
from intercept_py.state.breaker import UnreachableError
from intercept_py.state.redis_address import Address

Argument: TypeAlias = str | int
"""What a script can be given."""

_KINDS = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}
# A connection that a router on the way has forgotten is noticed within a minute. Not every system has these options.
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
_LUA = os.path.join(os.path.dirname(__file__), "lua")


class Script(msgspec.Struct, frozen=True):
    """A program for Redis, and the digest under which Redis keeps it."""

    text: str
    digest: str


def make_script(text: str) -> Script:
    """The script with this text."""
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def read_script(*names: str) -> Script:
    """The script that the files of these names in `lua` make up together."""
    parts = []
    for name in names:
        with open(os.path.join(_LUA, f"{name}.lua"), encoding="utf-8") as file:
            parts.append(file.read())
    return make_script("\n".join(parts))


class Link:
    """Connects when it is first asked, and again after a failure. For one thread at a time.

    Raises `UnreachableError` for a server that does not answer like a Redis, for an error that it answers
    `UnavailableError` or, where what it was asked may be to blame, `StateError`.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        options: dict[str, Any] = dict(address.options)
        if address.kind != "unix":
            options |= {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
        self._connection = _KINDS[address.kind](
            socket_timeout=address.timeout,
            socket_connect_timeout=address.timeout,
            encoding_errors="surrogatepass",
            protocol=2,
            **options,
        )
        self._connected = False

    def run(self, script: Script, keys: list[str], arguments: list[Argument]) -> Any:
        """What the script answers. If it raises, the script may have run."""
        try:
            if not self._connected or self._hung_up():
                self._connect()
            try:
                return self._ask("EVALSHA", script.digest, len(keys), *keys, *arguments)
            except exceptions.NoScriptError:
                return self._ask("EVAL", script.text, len(keys), *keys, *arguments)
        except (RedisError, OSError) as exc:
            # Not chained: what the server says may quote the password.
            raise self._fault(exc) from None

    def close(self) -> None:
        """Hang up."""
        self._connected = False
        self._connection.disconnect()

    def _ask(self, *words: Argument) -> Any:
        self._connection.send_command(*words, check_health=False)
        return self._connection.read_response()

    def _hung_up(self) -> bool:
        """Whether the other side has closed the connection while nothing was asked: then nothing can have been lost."""
        try:
            return bool(self._connection.can_read(0))
        except (RedisError, OSError):
            return True

    def _connect(self) -> None:
        self.close()
        self._connection.connect()
        with suppress(exceptions.NoPermissionError):  # whoever hides that from us knows what the server does
            self._check_memory(self._ask("INFO", "memory"))
        self._connected = True

    def _check_memory(self, answer: object) -> None:
        """Raise for a server that drops keys when it is full."""
        text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else ""
        facts = dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)
        if "used_memory" not in facts:
            raise exceptions.InvalidResponse
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and facts.get("maxmemory") != "0":
            raise UnreachableError(
                f"Redis at {self._address.place} may drop counters (maxmemory-policy `{policy[:32]}`), "
                "so that limits would not hold: set it to `noeviction`"
            )

    def _fault(self, exc: Exception) -> StateError:
        where = f"Redis at {self._address.place}"
        text = self._address.without_password(str(exc))
        if isinstance(exc, ResponseError):
            return _refusal(exc, where, text)
        self.close()  # an answer that comes too late must not be taken for the next one
        if isinstance(exc, exceptions.AuthenticationError):
            return UnreachableError(f"{where} refuses the user name or password in the URL of the state")
        if isinstance(exc, exceptions.InvalidResponse):
            return UnreachableError(f"what answers at {self._address.place} is not Redis (or wants TLS: `rediss:`)")
        if isinstance(exc, exceptions.TimeoutError):
            return UnreachableError(f"{where} does not answer within {self._address.timeout:g} s")
        return UnreachableError(f"{where} cannot be reached: {text}")


_OF_CLUSTERS = (exceptions.AskError, exceptions.ClusterError, exceptions.ClusterCrossSlotError)
_OF_THE_SERVER = (" -BUSY ", " -MISCONF ", " -NOREPLICAS ")


def _refusal(exc: ResponseError, where: str, text: str) -> StateError:
    text = text.partition(", with args")[0]  # which may be the values of a call's arguments
    # Before version 7 Redis hands errors of the commands in a script on as mere text.
    if isinstance(exc, exceptions.OutOfMemoryError) or " -OOM " in text:
        return StateError(f"{where} is full (`maxmemory`)")  # of counters, maybe, that somebody had it begin
    if isinstance(exc, exceptions.ReadOnlyError) or " -READONLY " in text:
        return UnavailableError(f"{where} is a replica, which cannot count: name the primary")
    if isinstance(exc, _OF_CLUSTERS):
        return UnavailableError(
            f"{where} is a node of a cluster that does not hold these counters: name a Redis that stands alone"
        )
    own = isinstance(exc, exceptions.NoPermissionError) or any(code in f" -{text}" for code in _OF_THE_SERVER)
    return (UnavailableError if own else StateError)(f"{where} refuses to count: {text}")
