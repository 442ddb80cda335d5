from __future__ import annotations

import random
import threading
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage as Theirs
from limits.storage import memory as their_module
from limits.storage import storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy
from intercept_py.state import Receipt
from intercept_py.state.memory import MemoryStorage
from intercept_py.state.quota import Quota
from tests.support.charges import charge

START = 1767225600.0  # 2026-01-01, a Thursday


class Clock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Shop:
    """A quota with a clock of its own."""

    def __init__(self, max_keys: int = 100_000) -> None:
        self.clock = Clock()
        self.storage = MemoryStorage(clock=self.clock, max_keys=max_keys)
        self.quota = Quota(self.storage)

    def charge(self, *charges: Charge) -> Receipt:
        return self.quota.charge("server", charges)

    def fits(self, *charges: Charge) -> bool:
        return self.charge(*charges).refused is None

    def value(self, of: Charge) -> Decimal:
        """What a counter holds, as the refusal of an impossible charge tells."""
        probe = Charge(of.key, Decimal(0), Decimal(-1), of.window, of.strategy, "probe")
        refused = self.charge(probe).refused
        assert refused is not None
        return refused.value


@pytest.fixture
def shop() -> Shop:
    return Shop()


every_strategy = pytest.mark.parametrize("strategy", list(Strategy), ids=lambda strategy: str(strategy.value))


# What a limit lets through.


@every_strategy
def test_a_limit_of_n_lets_n_through_and_says_when_the_next_fits(shop: Shop, strategy: Strategy) -> None:
    ten = charge(limit=10, strategy=strategy)
    assert [shop.fits(ten) for _ in range(11)] == [True] * 10 + [False]
    refused = shop.charge(ten).refused
    assert refused is not None
    assert refused.charge == ten
    assert refused.value == 10
    assert refused.retry_after is not None
    assert 59 < refused.retry_after < 121
    shop.clock.now += refused.retry_after - 0.01
    assert not shop.fits(ten)
    shop.clock.now += 0.02
    assert shop.fits(ten)


@every_strategy
def test_an_exclusive_limit_is_never_reached(shop: Shop, strategy: Strategy) -> None:
    below = charge(limit=3, strategy=strategy, inclusive=False)
    assert [shop.fits(below) for _ in range(4)] == [True, True, False, False]


@every_strategy
def test_an_amount_of_nothing_only_checks(shop: Shop, strategy: Strategy) -> None:
    check, one = charge(limit=1, amount=0, strategy=strategy), charge(limit=9, strategy=strategy)
    assert [shop.fits(check), shop.fits(check), shop.fits(one), shop.fits(check)] == [True] * 4
    assert [shop.fits(one), shop.fits(check), shop.fits(check)] == [True, False, False]


@every_strategy
def test_an_amount_above_the_limit_never_fits(shop: Shop, strategy: Strategy) -> None:
    refused = shop.charge(charge(limit=3, amount=4, strategy=strategy)).refused
    assert refused is not None
    assert refused.retry_after is None


@every_strategy
def test_amounts_are_exact_decimals(shop: Shop, strategy: Strategy) -> None:
    dime = charge(limit="0.3", amount="0.1", strategy=strategy)
    assert [shop.fits(dime) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("amount", ["-1", "NaN", "Infinity", "1E+50", "1E-50"])
def test_an_amount_that_cannot_be_counted_is_a_fault(shop: Shop, amount: str) -> None:
    with pytest.raises(StateError, match="cannot be charged"):
        shop.charge(charge("a"), charge("b", limit=10**9, amount=amount))
    assert shop.value(charge("a")) == 0


def test_a_sum_that_would_not_be_exact_is_a_fault_and_charges_nothing(shop: Shop) -> None:
    for _ in range(2):
        shop.charge(charge("a", limit="1E+60", amount="1E+40"))
    assert shop.value(charge("a")) == Decimal("2E+40")
    assert shop.fits(charge("a", limit="1E+60", amount="1E-40"))


def test_charges_are_all_made_or_none(shop: Shop) -> None:
    plenty, scarce = charge("plenty", limit=100), charge("scarce", limit=1, strategy=Strategy.FIXED)
    assert shop.fits(plenty, scarce)
    assert not shop.fits(plenty, scarce)
    assert not shop.fits(scarce, plenty)
    assert shop.value(plenty) == shop.value(scarce) == 1


@every_strategy
def test_charges_to_one_key_count_together(shop: Shop, strategy: Strategy) -> None:
    narrow, wide = charge(limit=5, amount=2, strategy=strategy), charge(limit=50, amount=2, strategy=strategy)
    assert shop.fits(narrow, wide)
    assert not shop.fits(narrow, wide)
    assert not shop.fits(wide, narrow)
    assert shop.fits(charge(limit=5, amount=0, strategy=strategy), charge(limit=5, strategy=strategy))
    assert shop.value(narrow) == 5


def test_a_shadow_limit_counts_and_reports_but_refuses_nothing(shop: Shop) -> None:
    shadow, real = charge("s", limit=1, shadow=True), charge("r", limit=3)
    assert shop.charge(shadow, real).shadowed == ()
    receipt = shop.charge(shadow, real)
    assert receipt.refused is None
    assert [refusal.charge for refusal in receipt.shadowed] == [shadow]
    assert shop.fits(shadow, real)
    assert not shop.fits(shadow, real)
    assert shop.value(shadow) == 3


def test_counters_of_different_windows_strategies_and_servers_are_different(shop: Shop) -> None:
    one = [charge(limit=1, seconds=seconds, strategy=strategy) for seconds in (1, 60) for strategy in Strategy]
    assert all(shop.fits(each) for each in one)
    assert not any(shop.fits(each) for each in one)
    assert shop.quota.charge("other", tuple(one)).refused is None


# Windows.


@pytest.mark.parametrize(
    ("calendar", "seconds", "wait"),
    [
        ("second", 1, 0.5),
        ("minute", 60, 29.5),
        ("hour", 3600, 1769.5),
        ("day", 86400, 41369.5),
        ("week", 604800, 3 * 86400 + 41369.5),
        ("month", 2592000, 30 * 86400 + 41369.5),
        (None, 7, 0.5),
    ],
)
def test_a_fixed_window_ends_with_the_calendar_in_utc(
    shop: Shop, calendar: str | None, seconds: int, wait: float
) -> None:
    shop.clock.now = START + 12 * 3600 + 30 * 60 + 30.5  # Thursday 2026-01-01 12:30:30.5
    once = charge(limit=1, seconds=seconds, strategy=Strategy.FIXED, calendar=calendar)
    assert shop.fits(once)
    refused = shop.charge(once).refused
    assert refused is not None
    assert refused.retry_after == wait
    shop.clock.now += wait - 0.25
    assert not shop.fits(once)
    shop.clock.now += 0.25
    assert shop.fits(once)


def test_a_month_ends_in_the_next_year_after_december(shop: Shop) -> None:
    shop.clock.now = START - 1
    refused = (shop.charge(charge(limit=0, seconds=1, strategy=Strategy.FIXED, calendar="month"))).refused
    assert refused is not None
    assert refused.retry_after is None
    once = charge(limit=1, strategy=Strategy.FIXED, calendar="month")
    assert shop.fits(once)
    assert not shop.fits(once)
    shop.clock.now = START
    assert shop.fits(once)


def test_time_stands_still_while_the_clock_goes_back(shop: Shop) -> None:
    once = charge(limit=1, strategy=Strategy.FIXED, calendar="minute")
    assert shop.fits(once)
    shop.clock.now -= 3600
    new = charge("new", limit=1, strategy=Strategy.FIXED, calendar="minute")
    assert not shop.fits(once)
    assert shop.fits(new)
    shop.clock.now += 3600
    assert not shop.fits(new)
    shop.clock.now += 60
    assert shop.fits(once, new)


def test_a_sliding_window_counts_the_share_of_the_one_before(shop: Shop) -> None:
    ten = charge(limit=10, strategy=Strategy.SLIDING)
    assert all(shop.fits(ten) for _ in range(10))
    shop.clock.now += 60 + 15  # three quarters of the window before still count: 7.5, rounded down as limits does
    assert [shop.fits(ten) for _ in range(4)] == [True, True, True, False]


# Refunds.


@every_strategy
def test_a_refund_takes_back_what_was_charged_once(shop: Shop, strategy: Strategy) -> None:
    two, key = charge(limit=9, amount=2, strategy=strategy), charge("other", limit=9, strategy=strategy)
    shop.charge(two)
    receipt = shop.charge(two, key)
    shop.quota.refund(receipt)
    shop.quota.refund(receipt)
    assert shop.value(two) == 2
    assert shop.value(key) == 0


@every_strategy
def test_a_refund_after_its_window_does_nothing_to_the_next(shop: Shop, strategy: Strategy) -> None:
    one = charge(limit=9, strategy=strategy)
    receipt = shop.charge(one)
    shop.clock.now += 200
    shop.charge(one)
    shop.quota.refund(receipt)
    assert shop.value(one) == 1


def test_a_refund_in_a_moving_window_takes_back_its_own_charge_and_no_later_one(shop: Shop) -> None:
    one = charge(limit=9)
    first = shop.charge(one)
    shop.clock.now += 30
    shop.charge(one)
    shop.quota.refund(first)
    shop.clock.now += 31  # the first would have expired by now, the second has not
    assert shop.value(one) == 1


def test_a_refund_into_the_sliding_window_before_is_felt(shop: Shop) -> None:
    ten = charge(limit=10, amount=10, strategy=Strategy.SLIDING)
    receipt = shop.charge(ten)
    shop.clock.now += 60
    assert shop.value(ten) == 10
    shop.quota.refund(receipt)
    assert shop.value(ten) == 0


def test_a_refund_of_a_refused_or_empty_charge_does_nothing(shop: Shop) -> None:
    shop.quota.refund(shop.charge())
    shop.quota.refund(shop.charge(charge(limit=0)))
    assert shop.value(charge()) == 0


# Bounds.


def test_expired_counters_make_room_for_new_ones() -> None:
    shop = Shop(max_keys=10)
    for number in range(100):
        assert shop.fits(charge(str(number), seconds=2))
        shop.clock.now += 1


def test_a_counter_that_is_charged_again_after_its_window_is_not_swept_away_by_a_new_one(shop: Shop) -> None:
    old, other = (charge(key, limit=1, strategy=Strategy.FIXED) for key in ("old", "other"))
    assert shop.fits(old)
    shop.clock.now += 60
    assert shop.fits(other, old)
    assert not shop.fits(old)


def test_over_the_most_counters_a_new_one_is_a_fault_and_old_ones_go_on() -> None:
    shop = Shop(max_keys=3)
    for key in "abc":
        assert shop.fits(charge(key))
    for _ in range(3):
        with pytest.raises(StateError, match="over 3 counters are in use"):
            shop.charge(charge("a"), charge("d"))
    assert shop.value(charge("a")) == 1
    assert shop.fits(charge("a"))
    shop.clock.now += 61
    assert shop.fits(charge("d"))


def test_a_check_keeps_no_counter() -> None:
    shop = Shop(max_keys=1)
    assert all(shop.fits(charge(str(number), amount=0, strategy=Strategy.FIXED)) for number in range(10))


def test_a_moving_window_with_more_charges_than_points_still_counts_each(shop: Shop) -> None:
    one = charge(limit=10**9, seconds=1)
    times = []
    for _ in range(70_000):
        shop.clock.now += 1 / 69_000
        times.append(shop.clock.now)
        shop.charge(one)
    # More charges than points: several share one, and none is forgotten early.
    exactly = sum(at >= shop.clock.now - 1 for at in times)
    assert exactly <= shop.value(one) <= exactly + 3


def test_a_counter_is_not_lost_when_room_is_made_during_the_call_that_charges_it() -> None:
    shop = Shop()
    fixed = [charge(key, 5, "1", 8, Strategy.FIXED) for key in ("a", "b")]
    assert shop.charge(*fixed).refused is None
    shop.clock.now += 8
    assert shop.charge(charge("new", 5, "1", 8, Strategy.MOVING)).refused is None
    assert shop.charge(fixed[0], charge("b", 5, "4", 8, Strategy.FIXED)).refused is None
    assert shop.charge(charge("b", 5, "2", 8, Strategy.FIXED)).refused is not None


def test_many_threads_never_charge_more_than_the_limit() -> None:
    quota = Quota(MemoryStorage())
    limit = (charge("a", limit=500, seconds=3600), charge("b", limit=10**6, seconds=3600))
    allowed: list[bool] = []

    def work() -> None:
        allowed.extend([quota.charge("server", limit).refused is None for _ in range(200)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 500


# Against a reference that is too simple to be wrong.


class Reference:
    """Remembers every charge ever made, with its time."""

    def __init__(self) -> None:
        self.made: list[tuple[float, Charge]] = []

    def in_span(self, key: tuple[str, ...], strategy: Strategy, since: float, until: float) -> Decimal:
        amounts = [c.amount for at, c in self.made if c.key == key and c.strategy is strategy and since <= at <= until]
        return Decimal(sum(amounts, Decimal(0)))


KEYS = st.sampled_from(["a", "b", "a/b", "a%2Fb"])
AMOUNTS = st.sampled_from(["0", "1", "1", "2", "0.5", "3.25"])
SECONDS = 8
LIMIT = Decimal(5)


class Charging(RuleBasedStateMachine):
    """Any charges, refunds and clock steps, with one limit of 5 for every key and strategy."""

    @initialize()
    def begin(self) -> None:
        self.shop = Shop()
        self.time = START  # as the store knows it, which looks at the clock when it is charged
        self.reference = Reference()
        self.receipts: list[tuple[Receipt, list[tuple[float, Charge]]]] = []
        self.shop.charge(charge("the store has looked at the clock"))

    @rule(
        keys=st.lists(
            st.tuples(KEYS, AMOUNTS, st.sampled_from([Strategy.MOVING, Strategy.FIXED])), min_size=1, max_size=3
        )
    )
    def charge(self, keys: list[tuple[str, str, Strategy]]) -> None:
        charges = [charge(key, int(LIMIT), amount, SECONDS, strategy) for key, amount, strategy in keys]
        self.time = max(self.time, self.shop.clock.now)
        expected = all(self.expected(one, charges) for one in charges)
        slack = self.near_an_edge()
        receipt = self.shop.charge(*charges)
        if receipt.refused is None:
            made = [(self.time, one) for one in charges]
            self.reference.made += made
            self.receipts.append((receipt, made))
            assert expected  # never more than the limit in the span, or the calendar window, that ends now
        else:
            assert not expected or slack

    def expected(self, one: Charge, charges: list[Charge]) -> bool:
        together = sum((c.amount for c in charges if (c.key, c.strategy) == (one.key, one.strategy)), Decimal(0))
        moving = one.strategy is Strategy.MOVING
        since = self.time - SECONDS if moving else self.time // SECONDS * SECONDS
        return self.reference.in_span(one.key, one.strategy, since, self.time) + together <= LIMIT

    def near_an_edge(self) -> bool:
        """A moving window may count a charge for 1/8192 too long."""
        return any(0 <= self.time - at - SECONDS < SECONDS / 8_000 for at, _ in self.reference.made)

    @rule(step=st.one_of(st.sampled_from([0.25, 1.0, 4.0, 8.0, 9.0]), st.floats(0, 20)))
    def time_passes(self, step: float) -> None:
        self.shop.clock.now += step

    @rule(step=st.floats(0, 30))
    def the_clock_is_set_back(self, step: float) -> None:
        self.shop.clock.now -= step

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), keep=st.booleans())
    def refund(self, data: st.DataObject, keep: bool) -> None:
        at = data.draw(st.integers(0, len(self.receipts) - 1))
        receipt, made = self.receipts[at] if keep else self.receipts.pop(at)
        self.shop.quota.refund(receipt)
        for one in made:
            if any(one is known for known in self.reference.made):
                self.reference.made = [known for known in self.reference.made if known is not one]


Charging.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestCharging = Charging.TestCase


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 5), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_no_moving_window_ever_holds_more_than_its_limit(steps: list[float], limit: int, seconds: int) -> None:
    shop = Shop()
    times: list[float] = []
    for step in steps:
        shop.clock.now += step
        if shop.fits(charge(limit=limit, seconds=seconds)):
            times.append(shop.clock.now)
    for at in times:
        assert sum(at - seconds <= other <= at for other in times) <= limit


# The strategies of `limits` run on this storage and agree with its own.

LIMITERS = [FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One clock for both storages; theirs does not start the thread that it cleans up with."""
    clock = Clock()
    monkeypatch.setattr(their_module, "time", SimpleNamespace(time=clock))

    class Idle:
        def __init__(self, seconds: float, work: object) -> None:
            pass

        def start(self) -> None:
            pass

        def is_alive(self) -> bool:
            return True

    monkeypatch.setattr(their_module, "threading", SimpleNamespace(Timer=Idle, RLock=threading.RLock))
    return clock


@pytest.mark.parametrize("limiter", LIMITERS)
@pytest.mark.parametrize("seed", range(8))
def test_the_strategies_of_limits_let_the_same_hits_through_on_both_storages(
    clock: Clock, limiter: type[RateLimiter], seed: int
) -> None:
    rng = random.Random(seed)
    item = RateLimitItemPerSecond(rng.choice([1, 3, 8]), rng.choice([1, 2, 4, 16]))
    ours, theirs = limiter(MemoryStorage(clock=clock)), limiter(Theirs())
    for _ in range(300):
        # Quarters of a second: the floats of `limits` are exact, and windows are left at the very moment they end.
        clock.now += rng.choice([0, 0, 0, 0.25, 0.25, 0.5, 1, 3.75, 9])
        key, cost = rng.choice("ab"), rng.choice([1, 1, 1, 2, 4])
        assert ours.hit(item, key, cost=cost) == theirs.hit(item, key, cost=cost)
        if rng.random() < 0.02:
            ours.clear(item, key)
            theirs.clear(item, key)


@pytest.mark.parametrize("limiter", LIMITERS[:2])
@pytest.mark.parametrize("seed", range(8))
def test_the_strategies_of_limits_report_the_same_on_both_storages(
    clock: Clock, limiter: type[RateLimiter], seed: int
) -> None:
    rng = random.Random(seed)
    item = RateLimitItemPerSecond(rng.choice([1, 3, 8]), rng.choice([1, 2, 4, 16]))
    ours, theirs = limiter(MemoryStorage(clock=clock)), limiter(Theirs())
    for _ in range(100):
        clock.now += rng.choice([0, rng.uniform(0, 1), rng.uniform(0, 9)])
        key, cost = rng.choice("ab"), rng.choice([1, 1, 1, 2, 4])
        assert ours.test(item, key, cost=cost) == theirs.test(item, key, cost=cost)
        assert ours.hit(item, key, cost=cost) == theirs.hit(item, key, cost=cost)
        mine, its = ours.get_window_stats(item, key), theirs.get_window_stats(item, key)
        assert mine.remaining == its.remaining
        if its.remaining < item.amount:  # where nothing counts, theirs names an entry that has expired
            assert mine.reset_time == pytest.approx(its.reset_time, abs=item.get_expiry() / 8_000)


def test_sliding_windows_hold_what_limits_holds(clock: Clock) -> None:
    ours, theirs = MemoryStorage(clock=clock), Theirs()
    for step in (0, 1, 5, 2, 8, 1, 30):
        clock.now += step
        assert ours.get_sliding_window("k", 8) == theirs.get_sliding_window("k", 8)
        assert ours.acquire_sliding_window_entry("k", 9, 8, 2)
        assert theirs.acquire_sliding_window_entry("k", 9, 8, 2)
        assert ours.get_sliding_window("k", 8) == theirs.get_sliding_window("k", 8)


def test_limits_finds_the_storage_by_its_scheme() -> None:
    storage = storage_from_string("intercept-memory://")
    assert isinstance(storage, MemoryStorage)
    assert storage.check()
    storage.incr("k", 60)
    assert (storage.get("k"), storage.reset(), storage.get("k")) == (1, 1, 0)


def test_the_strategies_of_limits_see_what_was_charged(shop: Shop) -> None:
    shop.charge(charge("x", limit=5, amount=3))
    assert shop.storage.get_moving_window("server/moving/60/limit/x", 5, 60)[1] == 3
