"""Counters in a Redis that many proxies share: a storage of the `limits` library that can charge several at once.

`limits.storage.RedisStorage` cannot serve here: it has neither refunds nor exact amounts, charges one counter at a
time, lives by each proxy's own clock, and repeats what may have been done already. Here a call is one script, which
Redis runs as a whole and by its own clock (`lua/charge.lua`).

Redis's memory is bounded: a moving window keeps at most 16,385 points, a key vanishes after its window, and no counter
is begun where the database holds `max_keys`. Below: `redis_link`. Above: `Breaker`, `Quota`.
"""

from __future__ import annotations

__all__ = ["RedisStorage", "open_state", "open_storage"]

import os
import time
from contextlib import suppress
from decimal import Decimal
from threading import Lock
from typing import Any

from intercept_py.errors import StateError, UnavailableError
from intercept_py.state import Receipt, Refusal, State, redis_address
from intercept_py.state.breaker import Breaker, UnreachableError
from intercept_py.state.quota import SECOND, Bill, Quota
from intercept_py.state.redis_link import Argument, Link, Script, drops_counters, make_script, read_script
from intercept_py.state.redis_request import Request, request_of
from intercept_py.state.storage import AtomicStorage

CHARGE = read_script("numbers", "windows", "reign", "charge")
REFUND = read_script("numbers", "reign", "refund")
LOOK = read_script("numbers", "windows", "look")
FORGET = read_script("forget")
NAMES = read_script("names")
IN_DOUBT = make_script("return redis.call('HGET', KEYS[1], 'doubt') and 1 or 0")
TRUST = make_script("return redis.call('HDEL', KEYS[1], 'doubt')")
TAKE_OVER = read_script("numbers", "windows", "reign", "take_over")


def open_state(url: str, prefix: str = "") -> State:
    """State in the Redis that `url` names. It is first connected to by the first charge."""
    storage, rest = open_storage(url, prefix)
    return Quota(Breaker(storage, time.monotonic), rest)


def open_storage(url: str, prefix: str) -> tuple[RedisStorage, str]:
    """What `open_state` counts in, and what its keys begin with."""
    return RedisStorage(url, prefix=prefix), ""


class RedisStorage(AtomicStorage):
    """Counters in Redis. Storages with different prefixes share nothing."""

    STORAGE_SCHEME = ["intercept-redis"]  # noqa: RUF012  declared so by `limits`

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, *, prefix: str = "", max_keys: int = 1_000_000
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._address = redis_address.parse((uri or "").removeprefix("intercept-"))
        self._replicas = self._address.group.replicas if self._address.group else 0
        self._mutex = Lock()
        # All keys have what stands in braces in common: they live on one node of whatever stands behind the address.
        escaped = prefix.replace("%", "%25").replace("}", "%7D")
        self._store = f"{{intercept:{escaped}}}"
        self._link = Link(self._address, self._store)
        self._max_keys = max_keys
        self._generation = "-"
        self._own, self._names = os.urandom(8).hex(), 0
        self._request: Request | None = None

    # What `limits` lacks.

    def charge_all(self, bill: Bill) -> Receipt:
        """Make all charges or none, see `State.charge`."""
        request = self._request
        if request is None or request.bill != bill:  # mostly one session asks again and again
            request = self._request = request_of(self._store, bill)
        passed, marks = self._charge(request.keys, request.words)
        shadowed: tuple[Refusal, ...] = ()
        for number, value, wait in passed:
            charge = bill.charges[number][1]
            refusal = Refusal(charge, Decimal(value.decode()), None if wait < 0 else wait / SECOND)
            if not charge.shadow:
                return Receipt(refusal)
            shadowed += (refusal,)
        token = [
            (key, kind, mark, amount)
            for (key, kind, amount), mark in zip(request.amounts, marks[2::2], strict=True)
            if amount
        ]
        return Receipt(None, shadowed, (marks[:2], token))

    def refund_all(self, token: object) -> None:
        """Take back what the receipt with this token charged, unless that was attempted already."""
        assert isinstance(token, tuple)
        where, made = token
        keys: list[str] = []
        arguments: list[Argument] = [*where]
        with self._mutex:
            # Emptied first: where the answer is lost, a second attempt might refund twice.
            while made:
                key, *how = made.pop()
                keys.append(key)
                arguments += how
            if keys:
                self._run(REFUND, keys, arguments)

    def commit(self) -> None:
        """Nothing is left to do: what was charged is charged."""

    def names(self) -> list[str]:
        """The keys of all counters, some of them maybe twice."""
        names: list[str] = []
        cursor = "0"
        with self._mutex:
            # Not in one go: nobody else is served meanwhile.
            while True:
                found, keys = self._link.run(NAMES, [self._store], [cursor])
                for key in keys:
                    with suppress(UnicodeDecodeError):  # it is not ours
                        names.append(key.decode("utf-8", "surrogatepass").removeprefix(self._store))
                cursor = found.decode()
                if cursor == "0":
                    return [name for name in names if name]

    def forget(self, keys: list[str]) -> int:
        """Drop the counters with these keys; how many there were. Nobody is told that any were lost."""
        with self._mutex:
            return int(self._run(FORGET, keys, []))

    def in_doubt(self) -> bool:
        """See `Listed`."""
        with self._mutex:
            if self._replicas:
                self._take_over()
            return bool(self._run(IN_DOUBT, [], []))

    def trust(self) -> None:
        """See `Listed`."""
        with self._mutex:
            self._run(TRUST, [], [])

    def close(self) -> None:
        """Hang up."""
        with self._mutex:
            self._link.close()

    def _charge(self, keys: list[str], words: str) -> tuple[list[Any], list[str]]:
        """Which limits are passed, and the marks of charges that were made. Words and marks as in `charge.lua`."""
        with self._mutex:
            answer = self._ask_to_charge(keys, words)
            if isinstance(answer, list) and answer[1:2] == [b"reign"]:
                self._take_over()
                answer = self._ask_to_charge(keys, words)
            if isinstance(answer, bytes):
                marks = answer.decode().split()
                self._generation = marks[0]
                return [], marks
            generation = answer[0].decode()
            if generation != "-":
                self._generation = generation
        if len(answer) == 1 or isinstance(answer[1], bytes):
            raise _fault(self._link.place, *answer[1:])
        return answer[1], answer[2].decode().split()

    def _ask_to_charge(self, keys: list[str], words: str) -> Any:
        # Should the store be a new one, this is its name: another one each time, since an answer may get lost.
        self._names += 1
        name = f"{self._own}.{self._names}"
        first = f"{self._generation} {name} {self._max_keys} {1 if self._replicas else 0}"
        return self._link.run(CHARGE, keys, [f"{first} {words}"], self._replicas)

    def _take_over(self) -> None:
        """Have the server count that we are connected to; nobody does now."""
        reign = self._run(TAKE_OVER, [], [self._generation, "-"], self._replicas).decode()
        if reign != "-":
            self._run(TAKE_OVER, [], [self._generation, reign], self._replicas)

    def _run(self, script: Script, keys: list[str], arguments: list[Argument], replicas: int = 0) -> Any:
        """What a script answers that is about counters. Called with the lock held."""
        store = self._store
        return self._link.run(script, [store, *[store + key for key in keys]], arguments, replicas)

    # What `limits` asks of a storage.

    def check(self) -> bool:
        """Whether Redis answers."""
        try:
            self.get("check")
        except StateError:
            return False
        return True

    def reset(self) -> int:
        """Forget everything; how many keys that was. All who share the store are told that it has lost its counters."""
        with self._mutex:
            return int(self._link.run(FORGET, [self._store], ["*"]))

    def clear(self, key: str) -> None:
        """Forget one key."""
        with self._mutex:
            self._run(FORGET, [key], [])

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter. Its window starts with its first hit, as `limits` defines it."""
        _, marks = self._charge([self._store, self._store + key], f"fixed {expiry * SECOND} first {amount}")
        return int(marks[3])

    def get(self, key: str) -> int:
        """The value of a counter."""
        return int(self._look("fixed", key)[1])

    def get_expiry(self, key: str) -> float:
        """When a counter's window ends."""
        return float(self._look("fixed", key)[2] / SECOND)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest entry was made (up to 1/16384 of the window too late), and how many there are."""
        _, value, ends = self._look("moving", key, expiry)
        return ends / SECOND - expiry, int(value)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """The count of the window before and for how long it counts, then the same of the current one."""
        now, _, before, value = self._look("sliding", key, expiry)
        rest = expiry - now % (expiry * SECOND) / SECOND
        return int(before), rest if int(before) else 0.0, int(value), rest + expiry

    def _look(self, kind: str, key: str, expiry: int = 1) -> Any:
        with self._mutex:
            return self._run(LOOK, [key], [kind, expiry * SECOND])


def _fault(place: str, word: bytes = b"", about: Any = None) -> StateError:
    """Why nothing was charged, in the words of `charge.lua`."""
    where = f"Redis at {place}"
    match word:
        case b"":
            return UnavailableError(
                f"{where} has lost its counters (restarted, flushed or replaced), "
                "so that limits begin anew: this call is not counted, the next ones are"
            )
        case b"doubt":
            return UnavailableError(
                f"{where} has taken over from another server and may not know of all charges: "
                f"in {-(-about // SECOND)} s they have passed; `intercept-py limits reset --all` begins anew at once"
            )
        case b"drops":
            return drops_counters(place, about.decode())
        case b"full":
            return StateError(
                f"over {about} keys are in use in the database at {place}, so that a new counter cannot be kept: "
                "give counters a database of their own, split limits by fewer values (`per`) or use shorter windows"
            )
    return UnreachableError(f"{where} does not count any more: another server takes over")
