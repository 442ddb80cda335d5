"""How much of shared limits is used: asked of real stores, which must not notice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from intercept_py.errors import UnavailableError
from intercept_py.model import Charge, Strategy
from intercept_py.policy import loader
from intercept_py.policy.budgets import budgets
from intercept_py.policy.rules import Policy
from intercept_py.state import Receipt, State, open_state
from intercept_py.state.limit_use import LimitUse, Store, used
from tests.support import redis_server
from tests.support.charges import charge

POLICY = b"""
tools:
  pay: {rules: [{name: all, rate_limit: {max: 3, window: 60, per: global}}]}
  "get_*": {rules: [{name: each, rate_limit: {max: 5, window: 60, per: tool}}]}
"""


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "redis":
        with redis_server.running(tmp_path / "redis") as address:
            yield address
    else:
        yield "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/limits.sqlite"


@pytest.fixture
def state(url: str) -> Iterator[State]:
    """What the proxy charges."""
    state = open_state(url, prefix="p-")
    yield state
    state.close()


@pytest.fixture
def policy() -> Policy:
    return loader.load(POLICY, "policy.yaml")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def pay(state: State, policy: Policy, times: int = 1) -> int:
    """So many calls of `pay`; how many of them were let through."""
    (all_, _) = budgets(policy)
    drawn = all_.charge
    passed = 0
    for _ in range(times):
        one = Charge((*drawn.key, "global"), 1, drawn.limit, drawn.window, drawn.strategy, "all")
        passed += state.charge("s", (one,)).refused is None
        state.commit()
    return passed


@pytest.mark.parametrize("strategy", Strategy)
def test_what_is_used_is_told_exactly_and_is_the_same_afterwards(state: State, strategy: Strategy) -> None:
    one = charge(limit=3, amount="0.5", strategy=strategy)
    other = charge("other", strategy=strategy)
    for _ in range(3):
        assert state.charge("s", (one,)).refused is None
    state.commit()
    for _ in range(3):
        assert used(state, "s", (other, one, one)) == [0, 1.5, 1.5]
    assert used(state, "t", (one,)) == [0]


def test_looking_takes_nothing_from_a_limit(url: str, state: State, policy: Policy) -> None:
    assert pay(state, policy) == 1
    look = LimitUse("s", lambda: policy, list, Store(url, "p-", state), Clock(), every=0.0, patience=30.0)
    assert [look.look() for _ in range(5)] == [look.look()] * 5
    assert [(share.entry, share.tool, share.used) for share in look.look() or []] == [("pay", "", 1)]
    assert pay(state, policy, times=5) == 2
    look.close()
    assert pay(state, policy) == 0


def test_a_look_into_a_file_commits_nothing_of_what_the_proxy_has_just_charged(tmp_path: Path, policy: Policy) -> None:
    url = f"sqlite://{tmp_path}/limits.sqlite"
    state = open_state(url)
    look = LimitUse("s", lambda: policy, list, Store(url, "", state), Clock(), every=0.0, patience=30.0)
    assert [share.used for share in look.look() or []] == [0]
    (all_, _) = budgets(policy)
    state.charge("s", (Charge((*all_.charge.key, "global"), 1, 3, all_.charge.window, Strategy.MOVING, "all"),))
    assert look.look() is None  # the proxy holds the file
    state.close()  # which undoes what was not committed
    assert [share.used for share in look.look() or []] == [0]
    look.close()


def test_limits_per_tool_are_told_for_the_tools_that_are_known(state: State, url: str, policy: Policy) -> None:
    known = ["get_a", "get_b", "pay"]
    look = LimitUse("s", lambda: policy, lambda: known, Store(url, "p-", state), Clock(), patience=30.0)
    assert [(share.entry, share.tool) for share in look.look() or []] == [
        ("pay", ""),
        ("get_*", "get_a"),
        ("get_*", "get_b"),
    ]
    look.close()


def test_a_server_that_lists_very_much_is_told_of_in_part(state: State, url: str, policy: Policy) -> None:
    known = [f"get_{number}" for number in range(3000)]
    look = LimitUse("s", lambda: policy, lambda: known, Store(url, "p-", state), Clock(), patience=30.0)
    assert len(look.look() or []) == 1000
    look.close()


class Counting:
    """Counters that say how often they are asked, and raise `fault`."""

    def __init__(self) -> None:
        self.asked = 0
        self.fault: Exception | None = None

    def charge(self, server: str, charges: tuple[Charge, ...]) -> Receipt:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return open_state("memory://").charge(server, charges)

    def refund(self, receipt: Receipt) -> None: ...

    def commit(self) -> None: ...

    def close(self) -> None:
        raise AssertionError("the proxy's own counters must stay open")


def test_a_store_is_asked_at_most_once_in_a_while(policy: Policy) -> None:
    store, clock = Counting(), Clock()
    look = LimitUse("s", lambda: policy, list, Store("memory://", "", store), clock, patience=30.0)
    for clock.now in (0.0, 1.0, 4.9):
        assert look.look()
    assert store.asked == 1
    clock.now = 5.0
    assert look.look()
    assert store.asked == 2
    look.close()


def test_a_store_that_is_away_is_asked_again_later(policy: Policy) -> None:
    store, clock = Counting(), Clock()
    store.fault = UnavailableError("away")
    look = LimitUse("s", lambda: policy, list, Store("memory://", "", store), clock, patience=30.0)
    assert look.look() is None
    store.fault, clock.now = None, 5.0
    assert look.look()


class Slow(Counting):
    """Counters in a store that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = Event()

    def charge(self, server: str, charges: tuple[Charge, ...]) -> Receipt:
        assert self.answers.wait(30)
        return super().charge(server, charges)


def test_nobody_waits_for_a_slow_store(policy: Policy) -> None:
    store = Slow()
    look = LimitUse("s", lambda: policy, list, Store("memory://", "", store), Clock(), every=0.0, patience=0.0)
    assert [look.look() for _ in range(3)] == [[], [], []]
    store.answers.set()
    look.close()
    assert look.look()
    assert store.asked == 1


def test_a_policy_without_shared_limits_asks_nothing() -> None:
    store = Counting()
    look = LimitUse(
        "s",
        lambda: loader.load(b"tools: {a: {}}", "p.yaml"),
        list,
        Store("memory://", "", store),
        Clock(),
        patience=30.0,
    )
    assert look.look() == []
    assert store.asked == 0
