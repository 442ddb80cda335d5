"""Counters in a file that several proxies share and no restart empties: a storage of the `limits` library.

All charges since the last `commit` are one transaction, which holds the file's write lock: counters are changed in
memory, and written by `commit`. So nothing of a transaction that fails, or of a process that ends before `commit`, was
ever counted.

The file is bounded: a moving window keeps at most 16,385 points, a counter vanishes after its window, there are at most
`max_keys` of them, and the file never has more than `most_bytes`. Below: `sqlite_ledger`, `sqlite_database`.
"""

from __future__ import annotations

__all__ = ["SqliteStorage", "open_state", "open_storage"]

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeAlias, cast

from intercept_py.errors import StateError
from intercept_py.model import Window
from intercept_py.state import Receipt, State
from intercept_py.state.clock import Timepiece, this_machine
from intercept_py.state.counters import Fixed, Sliding, weigh
from intercept_py.state.quota import FIXED, MOVING, SECOND, SLIDING, Bill, Posting, Quota, plus
from intercept_py.state.sqlite_counters import Moving
from intercept_py.state.sqlite_database import Database, DatabaseError
from intercept_py.state.sqlite_file import path_of
from intercept_py.state.sqlite_ledger import Entry, Ledger
from intercept_py.state.storage import AtomicStorage

_GIB = 1024 * 1024 * 1024


def open_state(url: str, prefix: str = "") -> State:
    """State for `sqlite:///path`, or `sqlite:` for this user's usual file."""
    return Quota(*open_storage(url, prefix))


def open_storage(url: str, prefix: str) -> tuple[SqliteStorage, str]:
    """What `open_state` counts in, and what its keys begin with."""
    return SqliteStorage(url), prefix


class _Batch:
    """One transaction. The tokens of its charges know by it whether they were made."""

    __slots__ = ("charged", "undone")

    def __init__(self) -> None:
        self.charged = False
        self.undone = False


_Charged: TypeAlias = tuple[Posting, int, int]
"""What a refund takes: a posting's amount, of its counter with this id, from the part of its window at this mark."""

_Token: TypeAlias = tuple[_Batch, list[_Charged]]
"""What a receipt keeps. A refund empties the list."""


class SqliteStorage(AtomicStorage):
    """Counters in the file at `uri` (`sqlite:///path`). `patience`: for how many seconds to wait for other processes.

    What `limits` asks of it is committed at once, together with what was charged before.
    """

    STORAGE_SCHEME = ["intercept-sqlite"]  # noqa: RUF012  declared so by `limits`

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        *,
        timepiece: Timepiece | None = None,
        max_keys: int = 100_000,
        patience: float = 2.0,
        most_bytes: int = _GIB,
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._database = Database(path_of(uri), timepiece or this_machine(), patience, most_bytes)
        self._ledger = Ledger(self._database, max_keys)
        self._mutex = Lock()
        self._batch: _Batch | None = None
        self._fault: StateError | None = None  # why nothing can be charged before the next commit,
        self._lost = False  # and whether that undid charges
        self._refunds: list[_Charged] = []  # for the next transaction

    # What `limits` lacks.

    def charge_all(self, bill: Bill) -> Receipt:
        """Make all charges or none, see `State.charge`."""
        with self._mutex:
            try:
                return self._charge(self._batch or self._begin(), bill)
            except DatabaseError as exc:
                self._spoil(exc)
                raise

    def refund_all(self, token: object) -> None:
        """Take back what the receipt with this token charged, unless that happened already or never was."""
        batch, charged = cast(_Token, token)
        with self._mutex:
            if not batch.undone:
                # The next transaction does it: nobody shall wait for the lock because of a refund.
                self._refunds += charged
            charged.clear()

    def commit(self) -> None:
        """Write all charges and refunds since the last commit to the file, see `State.commit`."""
        with self._mutex:
            if self._batch is None and self._fault is None and not self._refunds:
                return
            try:
                self._commit()
            finally:
                self._fault, self._lost = None, False

    def names(self) -> list[str]:
        """The keys of all counters in the file that still count."""
        with self._operation() as (_, now):
            return self._ledger.names(now)

    def forget(self, keys: list[str]) -> int:
        """Drop the counters with these keys; how many there were."""
        with self._operation():
            return sum(self._ledger.drop_key(key) for key in keys)

    def in_doubt(self) -> bool:
        """See `Listed`. What was committed is in the file."""
        return False

    def trust(self) -> None:
        """See `Listed`."""

    def close(self) -> None:
        """Close the file. What was not committed was never charged."""
        with self._mutex:
            self._undo()
            self._database.close()

    def _charge(self, batch: _Batch, bill: Bill) -> Receipt:
        now = self._database.now()
        if self._refunds:
            self._refund(now)
        entries = [self._ledger.entry(posting, now) for posting in bill.postings]
        refused, shadowed = weigh(bill, [entry.counter for entry in entries], now)
        if refused is not None:
            return Receipt(refused=refused)
        both = list(zip(bill.postings, entries, strict=True))
        new = sum(entry.id is None and bool(posting.amount) for posting, entry in both)
        if new:
            self._ledger.make_room(new, now)
        charged = self._add(batch, both, now)
        if new:
            self._ledger.sweep(2 * new, now)
        return Receipt(None, shadowed, (batch, charged))

    def _add(self, batch: _Batch, both: list[tuple[Posting, Entry]], now: int) -> list[_Charged]:
        """Add everything. Counters that nothing is added to are not kept."""
        charged: list[_Charged] = []
        batch.charged = True
        try:
            for posting, entry in both:
                if posting.amount:
                    number = entry.id or self._ledger.keep(entry)
                    charged.append((posting, number, entry.counter.add(now, posting.amount)))
        except BaseException as exc:  # some of it may have been added
            self._spoil(exc)
            raise
        return charged

    def _refund(self, now: int) -> None:
        refunds, self._refunds = self._refunds, []
        for posting, number, mark in refunds:
            entry = self._ledger.entry(posting, now)
            if entry.id == number:
                entry.counter.take(mark, posting.amount)

    # Transactions. All of this is called with the lock held.

    def _begin(self) -> _Batch:
        if self._fault is not None:
            # A batch of calls must not wait for a locked file once for each of them.
            raise type(self._fault)(str(self._fault))
        try:
            self._ledger.begin()
        except DatabaseError as exc:
            self._fault = exc
            raise
        self._batch = _Batch()
        return self._batch

    def _commit(self) -> None:
        if self._fault is not None:
            if self._lost:
                raise self._fault
            return
        try:
            if self._batch is None:
                self._begin()
            if self._refunds:
                self._refund(self._database.now())
            self._ledger.write()
            self._database.commit()
            self._batch = None
        except BaseException as exc:
            self._spoil(exc)
            self._refunds.clear()
            raise

    def _spoil(self, exc: BaseException) -> None:
        """Undo the transaction, and have every charge until the next commit, and that, say why."""
        if self._batch is not None:
            self._lost = self._lost or self._batch.charged
            self._fault = exc if isinstance(exc, StateError) else StateError(f"a charge failed: {type(exc).__name__}")
            self._undo()

    def _undo(self) -> None:
        if self._batch is not None:
            self._batch.undone = True
            self._batch = None
            self._ledger.forget()
            self._database.rollback()

    # What `limits` asks of a storage.

    @contextmanager
    def _operation(self) -> Iterator[tuple[_Batch, int]]:
        """A transaction that is committed at once, and the time."""
        with self._mutex:
            try:
                yield self._batch or self._begin(), self._database.now()
                self._commit()
                self._ledger.forget()  # `limits` does not say how long the windows are that it asks for
            except BaseException as exc:
                self._spoil(exc)
                raise
            finally:
                if not self._lost:  # else it is for `commit` to say so
                    self._fault = None

    def check(self) -> bool:
        """Whether the file can be used now."""
        try:
            with self._operation():
                return True
        except StateError:
            return False

    def reset(self) -> int:
        """Forget everything; how many counters that was."""
        with self._operation():
            return self._ledger.drop_all()

    def clear(self, key: str) -> None:
        """Forget one key."""
        with self._operation():
            self._ledger.drop_key(key)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter. Its window starts with its first hit, as `limits` defines it."""
        with self._operation() as (_, now):
            posting = _posting(FIXED, key, expiry)
            entry = self._ledger.entry(posting, now)
            counter = entry.counter
            assert isinstance(counter, Fixed)
            if entry.id is None:
                self._ledger.make_room(1, now)
                self._ledger.keep(entry)
                self._ledger.sweep(2, now)
                counter.ends = 0
            if counter.ends <= now:
                counter.ends, counter.value = now + expiry * SECOND, 0
            counter.value = plus(counter.value, amount)
            return int(counter.value)

    def get(self, key: str) -> int:
        """The value of a counter."""
        with self._operation() as (_, now):
            return int(self._ledger.entry(_posting(FIXED, key, 1), now).counter.read(now))

    def get_expiry(self, key: str) -> float:
        """When a counter's window ends."""
        with self._operation() as (_, now):
            entry = self._ledger.entry(_posting(FIXED, key, 1), now)
            return max(now, 0 if entry.id is None else entry.counter.dies()) / SECOND

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest entry was made (up to 1/16384 of the window too late), and how many there are."""
        with self._operation() as (_, now):
            counter = self._ledger.entry(_posting(MOVING, key, expiry), now).counter
            assert isinstance(counter, Moving)
            value = counter.read(now)
            return (counter.oldest() if value else now) / SECOND, int(value)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """The count of the window before and for how long it counts, then the same of the current one."""
        with self._operation() as (_, now):
            rest = expiry - now % (expiry * SECOND) / SECOND
            counter = self._ledger.entry(_posting(SLIDING, key, expiry), now).counter
            assert isinstance(counter, Sliding)
            counter.roll(now)
            return int(counter.before), rest if counter.before else 0.0, int(counter.value), rest + expiry

    def _acquire(self, bill: Bill) -> bool:
        with self._operation() as (batch, _):
            return self._charge(batch, bill).refused is None


def _posting(kind: int, key: str, expiry: int) -> Posting:
    return Posting(key, kind, Window(expiry), 0)
