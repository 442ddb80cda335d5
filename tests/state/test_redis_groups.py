"""Redis servers that take over from each other: what one might have forgotten is never charged twice (promise 5)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from intercept_py.errors import StateError, UnavailableError
from intercept_py.model import Charge, Strategy
from intercept_py.state import State
from intercept_py.state.inventory import Inventory
from intercept_py.state.quota import Quota
from intercept_py.state.redis import RedisStorage
from tests.support import redis_group, redis_store
from tests.support.charges import charge
from tests.support.redis_group import Group, wait_until
from tests.support.redis_store import Clock

DAY = 86_400
HOUR = charge("hour", limit=3, seconds=3600)
SHORT = charge("short", limit=3, seconds=2)
MAY_FORGET = "has taken over from another server and may not know of all charges: in "

Start = Callable[[Path], AbstractContextManager[Group]]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    with redis_group.by_hand(tmp_path) as group:
        yield group


def store(url: str) -> Quota:
    """Without the circuit breaker; on a busy machine replicas take their time."""
    return Quota(RedisStorage(f"{url}{'&' if '?' in url else '?'}timeout=2"))


def fits(state: State, *charges: Charge) -> bool:
    return state.charge("s", charges).refused is None


def fault(state: State, *charges: Charge) -> str:
    """Why the store cannot be used, which no caller could bring about."""
    with pytest.raises(UnavailableError) as caught:
        state.charge("s", charges)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wait_for(state: State, text: str, *charges: Charge) -> None:
    """Until charging fails like this. Until then servers find each other, and it fails otherwise."""
    wait_until(lambda: text in fault(state, *charges), text)


@pytest.mark.parametrize("start", [redis_group.sentinel, redis_group.cluster], ids=["sentinel", "cluster"])
def test_after_a_failover_a_limit_denies_until_what_may_be_forgotten_has_passed(start: Start, tmp_path: Path) -> None:
    with start(tmp_path) as group:
        one, other = store(group.url), store(group.url)
        assert [fits(state, HOUR, SHORT) for state in (one, other)] == [True, True]
        group.servers[0].kill()
        group.promote(1)
        wait_for(one, MAY_FORGET, HOUR)
        assert MAY_FORGET in fault(other, HOUR, SHORT)
        assert MAY_FORGET in fault(store(group.url), HOUR), "a proxy that starts after the failover"
        wait_until(lambda: passes(other, SHORT), "two seconds later")
        assert MAY_FORGET in fault(one, HOUR)
        assert [passes(one, SHORT) for _ in range(3)].count(True) <= 2


def passes(state: State, *charges: Charge) -> bool:
    """Whether a call would go on."""
    try:
        return fits(state, *charges)
    except StateError:
        return False


OPENS = [
    (Strategy.MOVING, None, 60, 60),
    (Strategy.FIXED, "minute", 60, 20),
    (Strategy.FIXED, None, 90, 80),
    (Strategy.FIXED, "week", 7 * DAY, 4 * DAY - 100),  # the first day of 2026 is a Thursday
    (Strategy.FIXED, "month", 31 * DAY, 31 * DAY - 100),
    (Strategy.SLIDING, None, 60, 80),  # a share of the window before counts as well
]


def test_every_kind_of_window_opens_when_nothing_counts_any_more_that_may_be_forgotten(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_store.set_time(monkeypatch)
    Clock(group.servers[0].client)
    state = store(group.url)
    ones = [charge(limit=1, seconds=size, strategy=how, calendar=name) for how, name, size, _ in OPENS]
    assert all(fits(state, one) for one in ones)
    group.servers[0].kill()
    group.promote(1)
    clock = Clock(group.servers[1].client)
    clock.now += 100
    others = [charge("other", 1, 1, size, how, calendar=name) for how, name, size, _ in OPENS]
    wait_for(state, MAY_FORGET, others[0])
    for other, (*_, seconds) in zip(others, OPENS, strict=True):
        assert f"{MAY_FORGET}{seconds} s" in fault(state, other)
        clock.now += seconds - 1 / 64
        assert MAY_FORGET in fault(state, other)
        clock.now += 1 / 64
        assert fits(state, other)
        group.servers[1].client.hset("{intercept:}", "latest", 0)
        clock.now -= seconds


def test_a_server_that_takes_over_without_knowing_all_charges_gives_nobody_a_call(group: Group) -> None:
    """Two faults at once: the one replica that has confirmed the charges dies with the primary."""
    state = store(group.url)
    assert fits(state, HOUR)
    group.cut_off(2)
    assert [fits(state, HOUR) for _ in range(3)] == [True, True, False]
    group.servers[0].kill()
    group.servers[1].kill()
    group.servers[2].signal(signal.SIGCONT)
    group.promote(2)
    group.servers[1].start(*group.options(1))
    group.follow(1, 2)
    wait_for(state, MAY_FORGET, HOUR)


def test_a_call_goes_on_only_when_a_replica_has_its_charge(group: Group) -> None:
    state = store(group.url)
    assert fits(state, SHORT)
    for number in (1, 2):
        group.servers[number].signal(signal.SIGSTOP)
    told = fault(state, HOUR)
    assert f"of the replicas of Redis at 127.0.0.1:{group.servers[0].port} 0 have confirmed a charge in time" in told
    group.servers[1].signal(signal.SIGCONT)
    wait_until(lambda: passes(state, HOUR), "one replica is enough")
    assert [fits(state, HOUR) for _ in range(3)].count(True) <= 1, "the one that was denied counts"
    two = store(f"{group.url}?replicas=2")
    assert "1 have confirmed a charge in time, not 2" in fault(two, SHORT)


def test_so_few_confirmations_that_the_other_servers_could_do_without_them_are_refused(
    group: Group, tmp_path: Path
) -> None:
    with redis_store.server(tmp_path / "third") as third:
        third.client.replicaof("127.0.0.1", group.servers[0].port)
        wait_until(lambda: group.facts(0)["connected_slaves"] == 3, "it is connected")
        told = fault(store(group.url), HOUR)
        assert "has 3 replicas, of which too few must confirm a charge: write `?replicas=2` in the URL" in told
        wait_until(
            lambda: passes(store(f"{group.url}?replicas=2"), HOUR), "two are more than half of all, with the primary"
        )


def test_who_accepts_that_a_failover_forgets_waits_for_nobody(group: Group) -> None:
    state = store(f"{group.url}?failover=may-forget")
    assert fits(state, HOUR)
    group.cut_off(1, 2)
    assert [fits(state, HOUR) for _ in range(3)] == [True, True, False]
    group.servers[0].kill()
    for number in (1, 2):
        group.servers[number].signal(signal.SIGCONT)
    group.promote(1)
    wait_until(lambda: passes(state, HOUR), "it goes on at once")


def test_where_two_servers_think_that_they_are_the_primary_only_one_counts(tmp_path: Path) -> None:
    """One that is cut off from the others goes on to serve those who do not know of it."""
    with (
        redis_group.by_hand(tmp_path) as group,
        redis_group.teller(group.servers[0].port) as old,
        redis_group.teller(group.servers[1].port) as new,
    ):
        mine, theirs = store(old.url), store(new.url)
        assert fits(mine, HOUR)
        group.servers[1].client.replicaof("NO", "ONE")
        assert "0 have confirmed a charge in time" in fault(theirs, HOUR)
        assert [fits(mine, HOUR) for _ in range(2)] == [True, True]
        group.follow(2, 1)
        assert "0 have confirmed a charge in time" in fault(mine, HOUR)
        group.servers[2].signal(signal.SIGSTOP)
        at_once = charge("at once", limit=3, seconds=1)
        assert "0 have confirmed a charge in time" in fault(theirs, at_once), "the old one may still count"
        group.servers[2].signal(signal.SIGCONT)
        assert MAY_FORGET in fault(theirs, at_once)
        assert MAY_FORGET in fault(theirs, HOUR)


def test_a_refund_after_a_failover_takes_nothing_back_that_others_were_charged(group: Group) -> None:
    """The server that took over may not know of the charge."""
    month = charge(limit=3, seconds=30 * 86400, strategy=Strategy.FIXED)
    state = store(group.url)
    receipts = [state.charge("s", (month,)) for _ in range(3)]
    state.refund(receipts.pop())
    assert fits(state, month)
    group.servers[0].kill()
    group.promote(1)
    wait_until(lambda: not passes(state, month), "it is full, or cannot be used")
    for receipt in receipts:
        state.refund(receipt)
    assert not fits(state, month)


def test_an_operator_may_have_all_begin_anew_after_a_failover(group: Group) -> None:
    state = store(group.url)
    inventory = Inventory(RedisStorage(f"{group.url}?timeout=2"))
    assert fits(state, HOUR)
    assert not inventory.in_doubt()
    group.servers[0].kill()
    group.promote(1)
    wait_for(state, MAY_FORGET, HOUR)
    assert inventory.in_doubt()
    (named,) = inventory.names()
    (standing,) = inventory.look([(named.key, HOUR)])
    assert standing.used == 1
    inventory.forget([named.key])
    inventory.trust()
    assert not inventory.in_doubt()
    assert [fits(state, HOUR) for _ in range(4)] == [True, True, True, False]
    inventory.close()


def test_a_server_that_was_restarted_from_an_old_file_gives_nobody_a_call(group: Group) -> None:
    """It is the primary again before anybody has noticed, and has forgotten what was not written."""
    state = store(group.url)
    assert fits(state, HOUR)
    group.servers[0].client.save()
    assert [fits(state, HOUR) for _ in range(2)] == [True, True]
    group.servers[0].kill()
    group.servers[0].start(*group.options(0))
    wait_for(state, MAY_FORGET, HOUR)


def test_a_node_that_is_the_primary_no_longer_is_left_for_the_new_one(tmp_path: Path) -> None:
    with redis_group.cluster(tmp_path) as group:
        state = store(group.url)
        assert fits(state, HOUR)
        group.promote(1)
        wait_until(lambda: group.facts(0)["role"] == "slave", "the old one knows")
        assert "does not count any more: another server takes over" in fault(state, HOUR)
        wait_for(state, MAY_FORGET, HOUR)


def test_whoever_does_not_say_which_server_counts_is_told_in_one_line(tmp_path: Path) -> None:
    with redis_store.server(tmp_path) as plain:
        at = f"127.0.0.1:{plain.port}"
        for url, problem in (
            (f"redis+sentinel://{at}/limits", "unknown command"),
            (f"redis+cluster://{at}", "cluster support disabled"),
            (f"redis+cluster://:hunter2@{at}", "AUTH"),
        ):
            told = fault(store(url), HOUR)
            assert "nobody says which server counts for Redis " in told
            assert problem in told
            assert "hunter2" not in told
        plain.kill()
        assert "Connection refused" in fault(store(f"redis+sentinel://{at},{at}/limits"), HOUR)
    with redis_group.teller(None) as nothing:
        assert "knows no such service" in fault(store(nothing.url), HOUR)


def test_sentinels_have_the_password_of_the_servers_or_their_own(group: Group) -> None:
    group.servers[0].client.config_set("requirepass", "right")
    with redis_group.teller(group.servers[0].port) as told:
        url = told.url.replace("//", "//:right@")
        for own, words in (("", [b"right"]), ("?sentinel_password=own", [b"own"]), ("?sentinel_password=", [])):
            told.heard.clear()
            assert fits(store(url + own), charge(limit=3))
            assert [word for word in (b"right", b"own") if any(word in data for data in told.heard)] == words
