"""One connection to a Redis that is asked to run scripts: every wait is bounded, and nothing is asked twice.

A charge whose answer does not come may have been made. Asking again would charge twice and, worse, answer for the
second one alone; so the library's own retries are not used. Below: the `redis` package. Above: the storage.
"""

from __future__ import annotations

__all__ = ["Argument", "Link", "Script", "drops_counters", "make_script", "read_script"]

import os
import select
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha1
from typing import Any, TypeAlias

import msgspec
from redis import exceptions
from redis.exceptions import RedisError, ResponseError

from intercept_py.errors import StateError, UnavailableError
from intercept_py.state.breaker import UnreachableError
from intercept_py.state.redis_address import Address, Group
from intercept_py.state.redis_primary import ask, locate, make

Argument: TypeAlias = str | int
"""What a script can be given."""

_LUA = os.path.join(os.path.dirname(__file__), "lua")
_PATIENCE = 900
"""Milliseconds of each second of the timeout that the server may wait for replicas: its answer is to come in time."""


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
    `UnavailableError` or, where what it was asked may be to blame, `StateError`. `key`: one that all scripts use.
    `place`: the server, for people.
    """

    def __init__(self, address: Address, key: str) -> None:
        self.place = address.place
        self._address = address
        self._key = key
        self._connection: Any = None
        self._poll = select.poll()
        self._asked: tuple[str, str, list[str], int] | None = None
        self._head = b""  # of that request: all but the arguments

    def run(self, script: Script, keys: list[str], arguments: list[Argument], replicas: int = 0) -> Any:
        """What the script answers, once so many replicas have what it wrote. If it raises, the script may have run."""
        try:
            connection = self._connection
            # Whether the other side has hung up while nothing was asked: then nothing can have been lost.
            if connection is None or self._poll.poll(0):
                connection = self._connection = self._connect()
            try:
                return self._ask(connection, replicas, self._pack("EVALSHA", script.digest, keys, arguments))
            except exceptions.NoScriptError:
                return self._ask(connection, replicas, self._pack("EVAL", script.text, keys, arguments))
        except (RedisError, OSError) as exc:
            # Not chained: what the server says may quote the password.
            raise self._fault(exc) from None

    def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _connect(self) -> Any:
        self.close()
        options, self.place = locate(self._address, self._key)
        connection = make(self._address, options)
        try:
            connection.connect()
            with suppress(exceptions.NoPermissionError):  # whoever hides that from us knows what the server does
                self._check_memory(_facts(ask(connection, "INFO", "memory")))
            if self._address.group is not None:
                self._check_replicas(self._address.group, _facts(ask(connection, "INFO", "replication")))
        except BaseException:
            connection.disconnect()
            raise
        self._poll = select.poll()
        self._poll.register(connection._sock, select.POLLIN)  # what the library offers takes ten times as long
        return connection

    def _check_memory(self, facts: Mapping[str, str]) -> None:
        """Raise for a server that drops keys when it is full. Later `charge.lua` looks at that."""
        if "used_memory" not in facts:
            raise exceptions.InvalidResponse
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and facts.get("maxmemory") != "0":
            raise drops_counters(self.place, policy)

    def _check_replicas(self, group: Group, facts: Mapping[str, str]) -> None:
        """Raise where the rest of the servers could count without those that have confirmed a charge."""
        connected = int(facts.get("connected_slaves", "0"))
        if group.replicas and connected > 2 * group.replicas:
            raise UnreachableError(
                f"Redis at {self.place} has {connected} replicas, of which too few must confirm a charge: "
                f"write `?replicas={(connected + 1) // 2}` in the URL of the state"
            )

    def _pack(self, command: str, script: str, keys: list[str], arguments: list[Argument]) -> bytes:
        size = 3 + len(keys) + len(arguments)
        if (command, script, keys, size) != self._asked:  # mostly the same is asked again
            self._asked = command, script, keys, size
            self._head = b"*%d\r\n%b" % (size, _packed(command, script, len(keys), *keys))
        return self._head + _packed(*arguments)

    def _ask(self, connection: Any, replicas: int, request: bytes) -> Any:
        if not replicas:
            connection.send_packed_command([request], check_health=False)
            return connection.read_response()
        # Both in one message: the second answer comes when the replicas have it, or will not have it soon.
        request += b"*3\r\n%b" % _packed("WAIT", replicas, int(self._address.timeout * _PATIENCE) or 1)
        connection.send_packed_command([request], check_health=False)
        answers: list[Any] = []
        for _ in range(2):  # the second comes, even if the first is an error
            try:
                answers.append(connection.read_response())
            except ResponseError as exc:
                answers.append(exc)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        number = answers[1]
        if number < replicas:
            raise UnreachableError(
                f"of the replicas of Redis at {self.place} {number} have confirmed a charge in time, not {replicas}: "
                "it might be forgotten if one of them took over"
            )
        return answers[0]

    def _fault(self, exc: Exception) -> StateError:
        where = f"Redis at {self.place}"
        text = self._address.without_secrets(str(exc))
        if isinstance(exc, ResponseError):
            if self._address.group is not None and _is_of_another(exc, text):
                self.close()
                return UnreachableError(f"{where} does not count any more: another server takes over")
            return _refusal(exc, where, text)
        self.close()  # an answer that comes too late must not be taken for the next one
        if isinstance(exc, exceptions.AuthenticationError):
            return UnreachableError(f"{where} refuses the user name or password in the URL of the state")
        if isinstance(exc, exceptions.InvalidResponse):
            return UnreachableError(f"what answers at {self.place} is not Redis (or wants TLS: `rediss:`)")
        if isinstance(exc, exceptions.TimeoutError):
            return UnreachableError(f"{where} does not answer within {self._address.timeout:g} s")
        return UnreachableError(f"{where} cannot be reached: {text}")


def drops_counters(place: str, policy: str) -> UnreachableError:
    """The fault of a server that drops keys when it is full."""
    return UnreachableError(
        f"Redis at {place} may drop counters (maxmemory-policy `{policy[:32]}`), "
        "so that limits would not hold: set it to `noeviction`"
    )


def _facts(answer: object) -> Mapping[str, str]:
    """What a part of `INFO` says; nothing for any other answer."""
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else ""
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


def _packed(*words: Argument) -> bytes:
    """Words of a request as Redis reads them (RESP). The library takes several times as long."""
    texts = [str(word).encode("utf-8", "surrogatepass") for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts])


_OF_CLUSTERS = (
    exceptions.AskError,
    exceptions.ClusterError,
    exceptions.ClusterCrossSlotError,
    exceptions.TryAgainError,
)
_OF_REPLICAS = (" -READONLY ", "WAIT cannot be used with replica")
_OF_THE_SERVER = (" -BUSY ", " -MISCONF ", " -NOREPLICAS ")


def _is_of_another(exc: ResponseError, text: str) -> bool:
    """Whether another server counts, as this one says: it is a replica, or does not have these keys."""
    return isinstance(exc, (*_OF_CLUSTERS, exceptions.ReadOnlyError)) or any(word in text for word in _OF_REPLICAS)


def _refusal(exc: ResponseError, where: str, text: str) -> StateError:
    text = text.partition(", with args")[0]  # which may be the values of a call's arguments
    # Before version 7 Redis hands errors of the commands in a script on as mere text.
    if isinstance(exc, exceptions.OutOfMemoryError) or " -OOM " in text:
        return StateError(f"{where} is full (`maxmemory`)")  # of counters, maybe, that somebody had it begin
    if isinstance(exc, exceptions.ReadOnlyError) or " -READONLY " in text:
        return UnavailableError(f"{where} is a replica, which cannot count: name the primary, or its sentinels")
    if isinstance(exc, _OF_CLUSTERS):
        return UnavailableError(f"{where} is a node of a cluster: write `redis+cluster:` in the URL of the state")
    own = isinstance(exc, exceptions.NoPermissionError) or any(code in f" -{text}" for code in _OF_THE_SERVER)
    return (UnavailableError if own else StateError)(f"{where} refuses to count: {text}")
