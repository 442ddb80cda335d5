"""Counters in a SQLite file: they do what those in memory do, for all who share the file, and after a restart."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from decimal import Decimal, localcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from limits import RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import MemoryStorage as Theirs
from limits.storage import memory as their_module
from limits.storage import storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from intercept_py.errors import StateError, UnavailableError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import Receipt, open_state
from intercept_py.state.counters import Fixed
from intercept_py.state.memory import MemoryStorage
from intercept_py.state.quota import Quota
from intercept_py.state.sqlite import SqliteStorage
from tests.support.sqlite_store import Clock, charge, fits, full_disk, value

every_strategy = pytest.mark.parametrize("strategy", list(Strategy), ids=lambda strategy: str(strategy.value))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/limits.sqlite"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(url: str, clock: Clock) -> Iterator[Callable[..., SqliteStorage]]:
    """Open the file once more, as another process does. It waits for nobody."""
    with ExitStack() as stack:

        def opened(patience: float = 0, max_keys: int = 100_000, most_bytes: int = 2**30) -> SqliteStorage:
            made = SqliteStorage(
                url, timepiece=clock.timepiece(), patience=patience, max_keys=max_keys, most_bytes=most_bytes
            )
            stack.callback(made.close)
            return made

        yield opened


Open = Callable[..., SqliteStorage]


# Against the counters in memory.

AMOUNTS = [
    "0",
    "1",
    "1",
    "1",
    "2",
    "0.5",
    "3.25",
    "0.10",
    "1E-40",
    "9007199254740993",
    "1E+19",
    "12345678901234567890.5",
]
LIMITS = ["1", "5", "5", "7.5", "1E+16", "18014398509481985", "99999999999999999999", "Infinity", "-1", "0"]
WINDOWS = [
    Window(1), Window(8), Window(3600), Window(60, "minute"), Window(604800, "week"), Window(31 * 86400, "month")
]  # fmt: skip
STEPS = [0, 0, 0, 1 / 64, 0.25, 0.5, 1, 1, 3.75, 8, 9, 61, 3600, 86400 * 9, 86400 * 40, -0.25, -3600]


@pytest.mark.parametrize("seed", range(40))
def test_any_charges_refunds_and_clock_steps_have_the_same_results_as_in_memory(
    storage: Open, clock: Clock, seed: int
) -> None:
    """Whether each call is a transaction of its own or several share one, in one process or in two that take turns."""
    rng = random.Random(seed)
    memory = Quota(MemoryStorage(clock=clock))
    receipts: list[tuple[Quota, Receipt, Receipt]] = []
    # Few of everything in one run, so that counters meet.
    amounts, limits = rng.sample(AMOUNTS, 3), rng.sample(LIMITS, 3)
    windows, steps = rng.sample(WINDOWS, 3), rng.sample(STEPS, 4)
    often = rng.choice([0.1, 1])
    # What a real machine's ticks never do, for two processes in turns: go back.
    ours = [Quota(storage()) for _ in range(1 if min(steps) < 0 else 2)]
    quota = ours[0]
    for _ in range(200):
        if rng.random() < 0.3:
            clock.now += rng.choice(steps)
        if rng.random() < often:
            quota.commit()
            quota = rng.choice(ours)
        charges = tuple(
            Charge(
                (rng.choice(["a", "b", "a/b"]),), Decimal(rng.choice(amounts)), Decimal(rng.choice(limits)),
                rng.choice(windows), rng.choice(list(Strategy)), "r",
                inclusive=rng.random() < 0.8, shadow=rng.random() < 0.3,
            )
            for _ in range(rng.choice([1, 1, 2, 3]))
        )  # fmt: skip
        mine, theirs = quota.charge("s", charges), memory.charge("s", charges)
        assert (mine.refused, mine.shadowed) == (theirs.refused, theirs.shadowed)
        receipts.append((quota, mine, theirs))
        own = [(mine, theirs) for by, mine, theirs in receipts if by is quota]
        if rng.random() < 0.2 and own:
            mine, theirs = rng.choice(own)
            quota.refund(mine)
            memory.refund(theirs)


# The strategies of `limits` run on this storage and agree with its own.

LIMITERS = [FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter]


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Theirs:
    """Their storage on our clock; it does not start the thread that it cleans up with."""
    monkeypatch.setattr(their_module, "time", SimpleNamespace(time=clock))

    class Idle:
        def __init__(self, seconds: float, work: object) -> None:
            pass

        def start(self) -> None:
            pass

        def is_alive(self) -> bool:
            return True

    monkeypatch.setattr(their_module, "threading", SimpleNamespace(Timer=Idle, RLock=threading.RLock))
    return Theirs()


@pytest.mark.parametrize("limiter", LIMITERS)
@pytest.mark.parametrize("seed", range(4))
def test_the_strategies_of_limits_let_the_same_hits_through_as_on_their_storage(
    storage: Open, theirs: Theirs, clock: Clock, limiter: type[RateLimiter], seed: int
) -> None:
    rng = random.Random(seed)
    item = RateLimitItemPerSecond(rng.choice([1, 3, 8]), rng.choice([1, 2, 4, 16]))
    ours, reference = [limiter(storage()), limiter(storage())], limiter(theirs)
    for _ in range(200):
        # Quarters of a second: the floats of `limits` are exact, and windows are left at the very moment they end.
        clock.now += rng.choice([0, 0, 0, 0.25, 0.25, 0.5, 1, 3.75, 9])
        key, cost = rng.choice("ab"), rng.choice([1, 1, 1, 2, 4])
        one = rng.choice(ours)
        assert one.hit(item, key, cost=cost) == reference.hit(item, key, cost=cost)
        if rng.random() < 0.02:
            one.clear(item, key)
            reference.clear(item, key)


@pytest.mark.parametrize("limiter", LIMITERS[:2])
@pytest.mark.parametrize("seed", range(4))
def test_the_strategies_of_limits_report_the_same_as_on_their_storage(
    storage: Open, theirs: Theirs, clock: Clock, limiter: type[RateLimiter], seed: int
) -> None:
    rng = random.Random(seed)
    item = RateLimitItemPerSecond(rng.choice([1, 3, 8]), rng.choice([1, 2, 4, 16]))
    ours, reference = limiter(storage()), limiter(theirs)
    for _ in range(100):
        clock.now += rng.choice([0, rng.uniform(0, 1), rng.uniform(0, 9)])
        key, cost = rng.choice("ab"), rng.choice([1, 1, 1, 2, 4])
        assert ours.test(item, key, cost=cost) == reference.test(item, key, cost=cost)
        assert ours.hit(item, key, cost=cost) == reference.hit(item, key, cost=cost)
        mine, its = ours.get_window_stats(item, key), reference.get_window_stats(item, key)
        assert mine.remaining == its.remaining
        if its.remaining < item.amount:  # where nothing counts, theirs names an entry that has expired
            assert mine.reset_time == pytest.approx(its.reset_time, abs=item.get_expiry() / 8_000)


def test_sliding_windows_hold_what_limits_holds(storage: Open, theirs: Theirs, clock: Clock) -> None:
    ours = storage()
    for step in (0, 1, 5, 2, 8, 1, 30):
        clock.now += step
        assert ours.get_sliding_window("k", 8) == theirs.get_sliding_window("k", 8)
        assert ours.acquire_sliding_window_entry("k", 9, 8, 2)
        assert theirs.acquire_sliding_window_entry("k", 9, 8, 2)
        assert ours.get_sliding_window("k", 8) == theirs.get_sliding_window("k", 8)


def test_limits_finds_the_storage_by_its_scheme(tmp_path: Path) -> None:
    storage = storage_from_string(f"intercept-sqlite://{tmp_path}/x")
    assert isinstance(storage, SqliteStorage)
    assert storage.check()
    assert (storage.incr("k", 60), storage.incr("k", 60, 2), storage.get("k")) == (1, 3, 3)
    assert (storage.reset(), storage.get("k")) == (1, 0)
    storage.close()
    assert not storage.check()


def test_limits_wraps_our_faults_in_its_own_if_asked_to(storage: Open, url: str) -> None:
    holder = storage()
    wrapping = SqliteStorage(url, wrap_exceptions=True, patience=0)
    Quota(holder).charge("s", (charge(),))
    with pytest.raises(StorageError):
        wrapping.incr("k", 60)
    wrapping.close()


def test_the_strategies_of_limits_see_what_was_charged_and_charges_what_they_hit(storage: Open) -> None:
    one = storage()
    quota = Quota(one)
    quota.charge("server", (charge("x", limit=5, amount=3),))
    assert one.get_moving_window("server/moving/60/limit/x", 5, 60)[1] == 3
    assert one.acquire_entry("server/moving/60/limit/x", 5, 60, 2)
    assert quota.charge("server", (charge("x", limit=5),)).refused is not None
    fixed = charge("y", limit=2, strategy=Strategy.FIXED, calendar="minute")
    assert one.get("server/fixed/minute/limit/y") == 0
    assert [quota.charge("server", (fixed,)).refused is None for _ in range(3)] == [True, True, False]
    assert one.get("server/fixed/minute/limit/y") == 2


def test_what_limits_clears_or_fails_to_do_leaves_the_charges_of_a_batch_right(storage: Open) -> None:
    one = storage()
    quota, key = Quota(one), "s/moving/60/limit/k"
    quota.charge("s", (charge(), charge("other")))
    one.clear(key)
    quota.charge("s", (charge("other"),))
    assert [value(quota, charge()), value(quota, charge("other"))] == [Decimal(0), Decimal(2)]
    quota.charge("s", (charge("other"),))
    with full_disk(), pytest.raises(StateError):
        one.incr("k", 60)
    with pytest.raises(StateError):
        quota.commit()
    assert value(quota, charge("other")) == 2


def test_limits_looking_at_a_counter_does_not_change_its_window(storage: Open, clock: Clock) -> None:
    once = charge(limit=1, strategy=Strategy.FIXED, calendar="minute")
    assert fits(Quota(storage()), once)
    one = storage()
    clock.now += 61
    assert one.get("s/fixed/minute/limit/k") == 0
    assert fits(Quota(one), once)
    clock.now += 2
    assert not fits(Quota(one), once)


# A file: shared, kept, and only what was committed.


@every_strategy
def test_another_process_and_a_restarted_one_go_on_with_the_same_counters(storage: Open, strategy: Strategy) -> None:
    ten = charge(limit=10, strategy=strategy)
    first, second = Quota(storage()), Quota(storage())
    assert [fits(quota, ten) for _ in range(4) for quota in (first, second)] == [True] * 8
    first.close()
    second.close()
    third = Quota(storage())
    assert [fits(third, ten) for _ in range(3)] == [True, True, False]


def test_exact_numbers_of_any_size_survive_the_file(storage: Open) -> None:
    amounts = ["0.1", "1E+40", "9223372036854775807", "9223372036854775808", "1E-40", "123456789.000000001"]
    for strategy in Strategy:
        for amount in amounts:
            assert fits(Quota(storage()), charge("sum", "Infinity", amount, strategy=strategy))
        with localcontext(prec=120):
            assert value(Quota(storage()), charge("sum", strategy=strategy)) == sum(map(Decimal, amounts))


def test_what_was_not_committed_was_never_charged(storage: Open) -> None:
    quota = Quota(storage())
    assert fits(quota, charge(limit=3))
    for _ in range(2):
        assert quota.charge("s", (charge(limit=3), charge("new"))).refused is None
    quota.close()
    again = Quota(storage())
    assert value(again, charge()) == 1
    assert value(again, charge("new")) == 0


@every_strategy
def test_a_commit_that_fails_undoes_its_charges_and_their_refunds_take_nothing(
    storage: Open, strategy: Strategy
) -> None:
    one, new = charge(limit=9, strategy=strategy), charge("new", limit=9, strategy=strategy)
    quota = Quota(storage())
    kept = quota.charge("s", (one,))
    quota.commit()
    receipts = [quota.charge("s", (one, new)) for _ in range(3)]
    with full_disk(), pytest.raises(StateError, match=r"state file .* (free some of|look at) the disk"):
        quota.commit()
    assert [value(quota, one), value(quota, new)] == [Decimal(1), Decimal(0)]
    for receipt in receipts:
        quota.refund(receipt)
    assert [value(quota, one), value(quota, new)] == [Decimal(1), Decimal(0)]
    quota.refund(kept)
    quota.commit()
    assert value(Quota(storage()), one) == 0


def test_a_fault_in_the_middle_of_a_batch_undoes_all_of_it_and_its_commit_says_so(storage: Open) -> None:
    # A page after the first few does not fit: the new keys of one batch are too many.
    quota = Quota(storage(most_bytes=16 * 1024))
    receipts = []

    def fill() -> None:
        for number in range(200):
            receipts.append(quota.charge("s", (charge(f"{number:0>400}", limit=2),)))

    with pytest.raises(StateError, match="has no room to grow") as caught:
        fill()
    with pytest.raises(StateError) as again:
        quota.charge("s", (charge("small"),))
    with pytest.raises(StateError) as last:
        quota.commit()
    assert str(caught.value) == str(again.value) == str(last.value)
    for full in (caught, again, last):
        assert not isinstance(full.value, UnavailableError), "an agent could fill it, and no limit may open by that"
    for receipt in receipts:
        quota.refund(receipt)
    assert value(quota, charge(f"{0:0>400}")) == 0
    assert fits(quota, charge("small"))


def test_an_interrupted_charge_undoes_its_batch(storage: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = Quota(storage())
    fixed = charge("f", strategy=Strategy.FIXED)
    quota.charge("s", (charge(),))

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Fixed, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quota.charge("s", (charge(), fixed))
    with pytest.raises(StateError, match="KeyboardInterrupt"):
        quota.commit()
    assert [value(quota, charge()), value(quota, fixed)] == [Decimal(0), Decimal(0)]


def test_refunds_that_find_the_file_locked_are_said_to_be_lost_once(storage: Open) -> None:
    quota, other = Quota(storage()), Quota(storage())
    receipt = quota.charge("s", (charge(),))
    quota.commit()
    other.charge("s", (charge("else"),))
    quota.refund(receipt)
    with pytest.raises(StateError, match="locked"):
        quota.commit()
    quota.commit()
    other.commit()
    assert value(quota, charge()) == 1, "more than was sent may be counted, never less"


def test_a_batch_that_finds_the_file_locked_waits_once_and_charges_nothing(storage: Open) -> None:
    """A thousand calls that wait 0.3 s each would take longer than a test may."""
    holder, other = Quota(storage()), Quota(storage(patience=0.3))
    holder.charge("s", (charge(),))
    for _ in range(1000):
        with pytest.raises(StateError, match=r"locked by another process for over 0\.3 s: end that one, or name"):
            other.charge("s", (charge(),))
    other.commit()  # no charge was lost, so calls without limits may go on
    holder.commit()
    assert value(other, charge()) == 1


def test_charges_are_all_made_or_none(storage: Open) -> None:
    quota = Quota(storage())
    plenty, scarce = charge("plenty", limit=100), charge("scarce", limit=1, strategy=Strategy.FIXED)
    assert fits(quota, plenty, scarce)
    assert not fits(quota, plenty, scarce)
    assert not fits(quota, scarce, plenty)
    assert value(quota, plenty) == value(quota, scarce) == 1


@every_strategy
def test_a_refund_takes_back_what_was_charged_once_in_whatever_transaction(storage: Open, strategy: Strategy) -> None:
    two, key = charge(limit=9, amount=2, strategy=strategy), charge("other", limit=9, strategy=strategy)
    quota, other = Quota(storage()), Quota(storage())
    quota.charge("s", (two,))
    quota.commit()
    receipt = quota.charge("s", (two, key))
    quota.commit()
    assert fits(other, two)
    quota.refund(receipt)
    quota.refund(receipt)
    assert value(other, two) == 6, "a refund locks nobody out: it is made with the next transaction"
    assert value(quota, two) == 4
    assert [value(other, two), value(other, key)] == [Decimal(4), Decimal(0)]


@every_strategy
def test_a_refund_takes_nothing_from_a_counter_that_was_begun_anew(storage: Open, strategy: Strategy) -> None:
    one = charge(limit=9, seconds=86400, strategy=strategy)
    first = storage()
    quota = Quota(first)
    receipt = quota.charge("s", (one,))
    first.reset()
    assert fits(quota, one)
    quota.refund(receipt)
    assert value(quota, one) == 1


def test_many_threads_never_charge_more_than_the_limit(url: str) -> None:
    storage = SqliteStorage(url)
    limiter = MovingWindowRateLimiter(storage)
    item = RateLimitItemPerSecond(50, 3600)
    allowed: list[bool] = []

    def work() -> None:
        allowed.extend([limiter.hit(item) for _ in range(40)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 50
    storage.close()


# Bounds.


def test_expired_counters_make_room_for_new_ones(storage: Open, clock: Clock) -> None:
    quota = Quota(storage(max_keys=10))
    for number in range(100):
        assert fits(quota, charge(str(number), seconds=2, strategy=list(Strategy)[number % 2]))
        clock.now += 1


def test_expired_counters_do_not_pile_up_where_there_is_room(storage: Open, clock: Clock, tmp_path: Path) -> None:
    quota = Quota(storage())
    for number in range(100):
        assert fits(quota, charge(str(number), seconds=2))
        clock.now += 1
    quota.commit()
    with closing(sqlite3.connect(tmp_path / "limits.sqlite")) as database:
        assert database.execute("SELECT count(*) FROM counter").fetchone()[0] < 10


def test_a_counter_that_was_dropped_begins_anew(storage: Open, clock: Clock) -> None:
    quota = Quota(storage())
    for strategy in Strategy:
        assert fits(quota, charge("k", limit=1, seconds=2, strategy=strategy))
        clock.now += 5
        for number in range(8):
            assert fits(quota, charge(f"{strategy} {number}"))
        assert fits(quota, charge("k", limit=1, seconds=2, strategy=strategy))


def test_over_the_most_counters_a_new_one_is_a_fault_and_old_ones_go_on(storage: Open, clock: Clock) -> None:
    quota, other = Quota(storage(max_keys=3)), Quota(storage(max_keys=3))
    for key in "abc":
        assert quota.charge("s", (charge(key),)).refused is None
    for _ in range(3):
        with pytest.raises(StateError, match="over 3 counters are in use, so that a new one cannot be kept: split"):
            quota.charge("s", (charge("a"), charge("d")))
    quota.commit()
    with pytest.raises(StateError, match="over 3 counters are in use"):
        other.charge("s", (charge("e"),))
    other.commit()
    assert value(quota, charge("a")) == 1
    assert fits(quota, charge("a"))
    clock.now += 61
    assert fits(other, charge("d"))


def test_a_check_keeps_no_counter(storage: Open) -> None:
    kept = storage(max_keys=1)
    quota = Quota(kept)
    assert all(fits(quota, charge(str(number), amount=0, strategy=Strategy.FIXED)) for number in range(10))
    assert kept.names() == []


def test_a_counter_is_not_lost_when_room_is_made_during_the_call_that_charges_it(storage: Open, clock: Clock) -> None:
    quota = Quota(storage())
    fixed = [charge(key, 5, "1", 8, Strategy.FIXED) for key in ("a", "b")]
    assert fits(quota, *fixed)
    clock.now += 8
    assert quota.charge("s", (charge("new", 5, "1", 8, Strategy.MOVING),)).refused is None
    assert quota.charge("s", (fixed[0], charge("b", 5, "4", 8, Strategy.FIXED))).refused is None
    assert quota.charge("s", (charge("b", 5, "2", 8, Strategy.FIXED),)).refused is not None


def test_a_moving_window_with_more_charges_than_points_still_counts_each(storage: Open, clock: Clock) -> None:
    quota = Quota(storage())
    one = charge(limit=10**9, seconds=1)
    times = []
    for number in range(70_000):
        clock.now += 1 / 65_536
        times.append(clock.now)
        quota.charge("s", (one,))
        if number % 1000 == 0:
            quota.commit()
    # More charges than points: several share one, and none is forgotten early.
    exactly = sum(at >= clock.now - 1 for at in times)
    assert exactly <= value(quota, one) <= exactly + 5


def test_the_file_stays_small_under_a_stream_of_ever_new_values(storage: Open, clock: Clock, tmp_path: Path) -> None:
    quota = Quota(storage(max_keys=200))
    for number in range(3000):
        for key in (number, max(number - 1, 0)):
            quota.charge("s", (charge(f"{key:x>300}", seconds=2), charge("all", limit=10**6, seconds=4)))
            clock.now += 1 / 128
        if number % 10 == 0:
            quota.commit()
    quota.close()
    path = tmp_path / "limits.sqlite"
    assert path.stat().st_size < 700_000
    with closing(sqlite3.connect(path)) as file:
        (points,) = file.execute("SELECT count(*) FROM point").fetchone()
    assert 500 <= points < 1000, "not of what was charged within the last seconds"


def test_open_state_counts_in_the_file_and_a_prefix_keeps_apart_what_shares_it(url: str) -> None:
    states = [open_state(url, prefix=prefix) for prefix in ("", "", "team:")]
    once = charge(limit=1)
    assert [fits(state, once) for state in states] == [True, False, True]
    for state in states:
        state.close()
