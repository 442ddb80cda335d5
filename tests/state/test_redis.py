"""Counters in a real Redis: they do what those in memory do, for all who share them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from limits import RateLimitItemPerSecond
from limits.storage import storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from intercept_py.errors import StateError, UnavailableError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import Receipt
from intercept_py.state.memory import MemoryStorage
from intercept_py.state.quota import Quota
from intercept_py.state.redis import RedisStorage
from tests.support import redis_store
from tests.support.charges import charge
from tests.support.redis_store import Clock, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_store.server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def store(server: Server) -> Iterator[Server]:
    """The server, empty."""
    server.client.flushall()
    yield server
    server.client.config_set("maxmemory", 0)
    server.client.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def clock(store: Server, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the scripts from now on."""
    redis_store.set_time(monkeypatch)
    return Clock(store.client)


def value(quota: Quota, of: Charge) -> Decimal:
    """What a counter holds, as the refusal of an impossible charge tells."""
    refused = quota.charge("s", (Charge(of.key, 0, -1, of.window, of.strategy, "probe"),)).refused
    assert refused is not None
    return refused.value


every_strategy = pytest.mark.parametrize("strategy", list(Strategy), ids=lambda strategy: str(strategy.value))


# Against the counters in memory.

AMOUNTS = ["0", "1", "1", "1", "2", "0.5", "3.25", "0.10", "1E-40", "9007199254740993", "12345678901234567890.5"]
LIMITS = ["1", "5", "5", "7.5", "1E+16", "18014398509481985", "99999999999999999999", "Infinity", "-1", "0"]
WINDOWS = [
    Window(1),
    Window(8),
    Window(3600),
    Window(16384),  # its points lie whole seconds apart, so that steps end on them
    Window(60, "minute"),
    Window(604800, "week"),
    Window(31 * 86400, "month"),
]
STEPS = [0, 0, 0, 1 / 64, 0.25, 0.5, 1, 1, 3.75, 8, 9, 61, 3600, 16384, 16385, 86400 * 9, 86400 * 40, -0.25, -3600]


@pytest.mark.parametrize("seed", range(20))
def test_any_charges_refunds_and_clock_steps_have_the_same_results_as_in_memory(
    store: Server, clock: Clock, seed: int
) -> None:
    rng = random.Random(seed)
    ours, memory = Quota(RedisStorage(store.url)), Quota(MemoryStorage(clock=clock))
    receipts: list[tuple[Receipt, Receipt]] = []
    # Few of everything in one run, so that counters meet.
    amounts, limits = rng.sample(AMOUNTS, 3), rng.sample(LIMITS, 3)
    windows, steps = rng.sample(WINDOWS, 3), rng.sample(STEPS, 4)
    for _ in range(200):
        if rng.random() < 0.3:
            clock.now += rng.choice(steps)
        charges = tuple(
            Charge(
                (rng.choice(["a", "b", "a/b"]),), Decimal(rng.choice(amounts)), Decimal(rng.choice(limits)),
                rng.choice(windows), rng.choice(list(Strategy)), "r",
                inclusive=rng.random() < 0.8, shadow=rng.random() < 0.3,
            )
            for _ in range(rng.choice([1, 1, 2, 3]))
        )  # fmt: skip
        mine, theirs = ours.charge("s", charges), memory.charge("s", charges)
        assert (mine.refused, mine.shadowed) == (theirs.refused, theirs.shadowed)
        receipts.append((mine, theirs))
        if rng.random() < 0.2:
            mine, theirs = rng.choice(receipts)
            ours.refund(mine)
            memory.refund(theirs)


def test_a_moving_window_lets_go_of_a_charge_at_the_same_moment_as_in_memory(store: Server, clock: Clock) -> None:
    both = [Quota(RedisStorage(store.url)), Quota(MemoryStorage(clock=clock))]
    one = charge(seconds=16384)
    for step in (0, 1, 16385 - 1 - 1 / 64, 1 / 64, 1, 1 / 64):
        clock.now += step
        ours, memory = ((value(quota, one), quota.charge("s", (one,)).refused) for quota in both)
        assert ours == memory
    clock.now += 16384 - 1 / 64 + 1  # on the last point
    assert [value(quota, one) for quota in both] == [0, 0]


@pytest.mark.parametrize("needed", [1, 600, 1024, 1050])
def test_when_a_call_fits_is_told_from_the_charges_that_must_go_first(store: Server, clock: Clock, needed: int) -> None:
    both = [Quota(RedisStorage(store.url)), Quota(MemoryStorage(clock=clock))]
    for _ in range(1100):
        for quota in both:
            quota.charge("s", (charge(limit=1100),))
        clock.now += 1 / 64
    ours, memory = (quota.charge("s", (charge(limit=1100, amount=needed),)).refused for quota in both)
    assert ours is not None
    assert ours == memory


LIMITERS = [FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter]


@pytest.mark.parametrize("limiter", LIMITERS)
@pytest.mark.parametrize("seed", range(3))
def test_the_strategies_of_limits_work_as_on_the_storage_in_memory(
    store: Server, clock: Clock, limiter: type[RateLimiter], seed: int
) -> None:
    rng = random.Random(seed)
    item = RateLimitItemPerSecond(rng.choice([1, 3, 8]), rng.choice([1, 2, 4, 16]))
    ours, memory = limiter(RedisStorage(store.url)), limiter(MemoryStorage(clock=clock))
    for _ in range(100):
        clock.now += rng.choice([0, 0, 0, 0.25, 0.25, 0.5, 1, 3.75, 9])
        key, cost = rng.choice("ab"), rng.choice([1, 1, 1, 2, 4])
        assert ours.test(item, key, cost=cost) == memory.test(item, key, cost=cost)
        assert ours.hit(item, key, cost=cost) == memory.hit(item, key, cost=cost)
        mine, its = ours.get_window_stats(item, key), memory.get_window_stats(item, key)
        # `limits` itself adds the time of day to some of these, which goes on in between.
        assert mine.reset_time == pytest.approx(its.reset_time, abs=0.2)
        assert mine.remaining == its.remaining
        if rng.random() < 0.05:
            ours.clear(item, key)
            memory.clear(item, key)


def test_the_strategies_of_limits_see_what_was_charged(store: Server) -> None:
    storage = RedisStorage(store.url)
    Quota(storage).charge("server", (charge("x", limit=5, amount=3),))
    assert storage.get_moving_window("server/moving/60/limit/x", 5, 60)[1] == 3
    assert storage_from_string(f"intercept-{store.url}").check()
    assert (storage.incr("k", 60), storage.incr("k", 60, 2), storage.get("k")) == (1, 3, 3)
    assert storage.reset() == 3
    assert storage.get("k") == 0


# What they share.


def test_storages_in_one_redis_share_counters_unless_their_prefixes_differ(store: Server) -> None:
    one, other, apart = (Quota(RedisStorage(store.url, prefix=prefix)) for prefix in ("", "", "*"))
    once = (charge(limit=1),)
    assert one.charge("s", once).refused is None
    assert other.charge("s", once).refused is not None
    assert apart.charge("s", once).refused is None
    assert apart.charge("other", once).refused is None
    assert RedisStorage(store.url, prefix="*").reset() == 3
    assert other.charge("s", once).refused is not None


def test_no_prefix_reaches_into_another_ones_keys(store: Server) -> None:
    once = (charge(limit=1),)
    assert Quota(RedisStorage(store.url, prefix="a")).charge("b}s", once).refused is None
    assert Quota(RedisStorage(store.url, prefix="a}b")).charge("s", once).refused is None
    assert Quota(RedisStorage(store.url, prefix="a%7Db")).charge("s", once).refused is None


def test_all_keys_of_a_store_hash_to_one_slot_and_vanish_with_their_windows(store: Server) -> None:
    quota = Quota(RedisStorage(store.url, prefix="team:"))
    for strategy in Strategy:
        quota.charge("s", (charge("a", strategy=strategy), charge("{b}", seconds=3600, strategy=strategy)))
    keys: Any = store.client.keys()
    names = {key.decode() for key in keys}
    assert {name.partition("}")[0] for name in names} == {"{intercept:team:"}
    lasting = {name: store.client.ttl(name) for name in names - {"{intercept:team:}"}}
    assert len(lasting) == 6
    assert all(0 <= left <= 7200 for left in lasting.values())


def test_a_clock_that_is_set_back_begins_no_window_anew(store: Server, clock: Clock) -> None:
    """Also for a counter whose key has expired: time stands still for the whole store."""
    quota = Quota(RedisStorage(store.url))
    once = (charge(limit=1, strategy=Strategy.FIXED, calendar="minute"),)
    assert quota.charge("s", once).refused is None
    clock.now += 60
    assert quota.charge("s", once).refused is None
    store.client.delete("{intercept:}s/fixed/minute/limit/k")  # as if the window were over
    clock.now -= 60
    assert quota.charge("s", once).refused is None
    clock.now += 60
    assert quota.charge("s", once).refused is not None


# Refunds.


@every_strategy
def test_many_threads_that_refund_one_receipt_take_it_back_once(store: Server, strategy: Strategy) -> None:
    quota = Quota(RedisStorage(store.url))
    two = charge(limit=100, amount="2.5", seconds=86400, strategy=strategy)
    receipts = [quota.charge("s", (two,)) for _ in range(4)]

    def refund() -> None:
        for receipt in receipts[:3]:
            quota.refund(receipt)

    threads = [threading.Thread(target=refund) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(quota, two) == Decimal("2.5")


@every_strategy
def test_a_refund_to_a_store_that_has_forgotten_the_charge_takes_nothing(store: Server, strategy: Strategy) -> None:
    quota = Quota(RedisStorage(store.url))
    one = charge(seconds=86400, strategy=strategy)
    receipt = quota.charge("s", (one,))
    store.client.flushall()
    with pytest.raises(UnavailableError, match="has lost its counters"):
        quota.charge("s", (one,))
    assert quota.charge("s", (one,)).refused is None
    quota.refund(receipt)
    assert value(quota, one) == 1


# Bounds, and a server that is not as it must be.


def test_over_the_most_keys_a_new_counter_is_a_fault_and_old_ones_go_on(store: Server) -> None:
    quota = Quota(RedisStorage(store.url, max_keys=3))
    for key in "abc":
        assert quota.charge("s", (charge(key),)).refused is None
    with pytest.raises(StateError, match="over 3 keys are in use in the database at "):
        quota.charge("s", (charge("a"), charge("d")))
    assert value(quota, charge("a")) == 1
    assert quota.charge("s", (charge("a"), charge("d", amount=0))).refused is None


def test_a_moving_window_with_more_charges_than_points_still_counts_each(
    store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Time goes on by 30 µs a charge, half of what points lie apart in a window of one second.
    redis_store.set_time(monkeypatch, f"{{{int(redis_store.START)}, redis.call('INCRBY', 'clock', 30)}}")
    quota = Quota(RedisStorage(store.url))
    one = (charge(limit=10**9, seconds=1),)
    store.client.set("clock", 0)
    for _ in range(3000):
        quota.charge("s", one)
    key = "{intercept:}s/moving/1/limit/k"
    assert value(quota, one[0]) == 3000
    assert store.client.hlen(key) <= 1500 + 5
    store.client.incrby("clock", 1_000_000 - 45_000)  # the older half no longer counts
    assert 1495 <= value(quota, one[0]) <= 1505
    assert store.client.hlen(key) <= 755
    store.client.incrby("clock", 1_000_000)
    assert value(quota, one[0]) == 0
    assert not store.client.exists(key)


def test_a_redis_that_has_forgotten_the_scripts_is_told_them_again(store: Server) -> None:
    quota = Quota(RedisStorage(store.url))
    twice = (charge(limit=2),)
    receipt = quota.charge("s", twice)
    store.client.script_flush()
    assert quota.charge("s", twice).refused is None
    store.client.script_flush()
    quota.refund(receipt)
    assert value(quota, twice[0]) == 1


def test_a_redis_that_may_drop_counters_is_refused(store: Server) -> None:
    store.client.config_set("maxmemory", "100mb")
    store.client.config_set("maxmemory-policy", "volatile-lru")
    with pytest.raises(StateError, match=r"may drop counters .*`volatile-lru`.* set it to `noeviction`"):
        Quota(RedisStorage(store.url)).charge("s", (charge(),))


def test_a_redis_that_may_drop_counters_from_now_on_is_noticed_within_a_second(store: Server, clock: Clock) -> None:
    """By everybody, whoever has looked: nothing is asked for it on the way of a call."""
    one, other = Quota(RedisStorage(store.url)), Quota(RedisStorage(store.url))
    for quota in (one, other):
        assert quota.charge("s", (charge(),)).refused is None
    store.client.config_set("maxmemory", "100mb")
    store.client.config_set("maxmemory-policy", "allkeys-lru")
    clock.now += 1
    for quota in (one, other, one):
        with pytest.raises(UnavailableError, match=r"may drop counters .*`allkeys-lru`.* set it to `noeviction`"):
            quota.charge("s", (charge(),))
    store.client.config_set("maxmemory", 0)
    assert one.charge("s", (charge(),)).refused is None
    store.client.config_set("maxmemory", "100mb")
    clock.now += 1
    with pytest.raises(UnavailableError, match="may drop counters"):
        other.charge("s", (charge(),))
    store.client.config_set("maxmemory-policy", "noeviction")
    assert value(other, charge()) == 3


def test_a_redis_that_hides_how_it_uses_memory_is_used_all_the_same(store: Server) -> None:
    store.client.acl_setuser("blind", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"])
    quota = Quota(RedisStorage(store.url.replace("//", "//blind:any@")))
    assert [quota.charge("s", (charge(limit=1),)).refused is None for _ in range(2)] == [True, False]


def test_a_redis_that_is_full_charges_nothing(store: Server) -> None:
    quota = Quota(RedisStorage(store.url))
    quota.charge("s", (charge(),))
    store.client.config_set("maxmemory", 1)
    with pytest.raises(StateError, match=r"is full \(`maxmemory`\)") as caught:
        quota.charge("s", (charge("a"), charge("b")))
    assert not isinstance(caught.value, UnavailableError), "whoever fills it would open limits"
    store.client.config_set("maxmemory", 0)
    assert value(quota, charge("a")) == 0


def test_a_replica_is_refused(store: Server) -> None:
    quota = Quota(RedisStorage(store.url))
    quota.charge("s", (charge(),))
    store.client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(UnavailableError, match="is a replica, which cannot count: name the primary"):
            quota.charge("s", (charge(),))
    finally:
        store.client.replicaof("NO", "ONE")


def test_a_connection_that_was_closed_meanwhile_costs_no_call(store: Server) -> None:
    quota = Quota(RedisStorage(store.url))
    for _ in range(3):
        assert quota.charge("s", (charge(),)).refused is None
        own: Any = store.client.client_id()
        connections: Any = store.client.client_list()
        for connection in connections:
            if int(connection["id"]) != own:
                store.client.client_kill_filter(_id=connection["id"])
    assert value(quota, charge()) == 3
