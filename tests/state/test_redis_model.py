"""Up to three proxies share a real Redis, crash, lose requests and answers, and clocks are set, and Redis forgets.

Checked against a list of all charges, as `test_sqlite_model` does it for a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from intercept_py.errors import UnavailableError
from intercept_py.model import Charge
from intercept_py.state import Receipt
from intercept_py.state.quota import Quota
from intercept_py.state.redis import RedisStorage
from tests.support import redis_store
from tests.support.charges import Made, charge, drawn_charges, fits, near_an_edge
from tests.support.lossy import Between, Lose, lossy
from tests.support.redis_store import Clock, Server

LIMIT = 4
SECONDS = 8
MOST = 3
PROXY = st.integers(0, MOST - 1)


class Proxy:
    """A proxy with a connection of its own. `knows`: which life of the store it has seen, None if none yet."""

    def __init__(self, between: Between) -> None:
        self.between = between
        self.quota = Quota(RedisStorage(f"redis://127.0.0.1:{between.port}?timeout=10"))
        self.receipts: list[tuple[Receipt, Made, int]] = []
        self.knows: int | None = None


class Sharing(RuleBasedStateMachine):
    """`life`: how often the store has been emptied. `latest`: the latest time that it has seen."""

    server: Server
    between: list[Between]

    def __init__(self) -> None:
        super().__init__()
        self.server.client.flushall()
        self.clock = Clock(self.server.client)
        self.proxies: list[Proxy] = []
        self.made: Made = []
        self.life, self.latest = 0, 0.0

    @initialize(number=st.integers(1, MOST))
    def proxies_start(self, number: int) -> None:
        self.proxies = [Proxy(between) for between in self.between[:number]]

    def teardown(self) -> None:
        for proxy in self.proxies:
            proxy.quota.close()

    def proxy(self, number: int) -> Proxy:
        return self.proxies[number % len(self.proxies)]

    @rule(number=PROXY, charges=drawn_charges(LIMIT, SECONDS))
    def charge(self, number: int, charges: tuple[Charge, ...]) -> None:
        proxy = self.proxy(number)
        now = self.latest = max(self.latest, self.clock.now)
        if proxy.knows not in (None, self.life):
            with pytest.raises(UnavailableError, match="has lost its counters"):
                proxy.quota.charge("s", charges)
            proxy.knows = self.life
            return
        expected = fits(self.made, charges, now)
        receipt = proxy.quota.charge("s", charges)
        proxy.knows = self.life
        if receipt.refused is None:
            made = [(now, one) for one in charges]
            self.made += made
            proxy.receipts.append((receipt, made, self.life))
            assert expected  # never more than the limit in the span, or the calendar window, that ends now
        else:
            assert not expected or near_an_edge(self.made, SECONDS, now)

    @rule(numbers=st.lists(PROXY, min_size=2, max_size=6), charges=drawn_charges(LIMIT, SECONDS))
    def calls(self, numbers: list[int], charges: tuple[Charge, ...]) -> None:
        """One after the other, as most do."""
        for number in numbers:
            self.charge(number, charges)

    @rule(number=PROXY, charges=drawn_charges(LIMIT, SECONDS), lose=st.sampled_from([Lose.REQUEST, Lose.ANSWER]))
    def charge_in_vain(self, number: int, charges: tuple[Charge, ...], lose: Lose) -> None:
        """What Redis has run counts, although nobody hears of it; the call is denied."""
        proxy = self.proxy(number)
        proxy.between.lose = lose
        with pytest.raises(UnavailableError, match="cannot be reached"):
            proxy.quota.charge("s", charges)
        if lose is Lose.ANSWER:
            now = self.latest = max(self.latest, self.clock.now)
            if proxy.knows in (None, self.life) and fits(self.made, charges, now):
                self.made += [(now, one) for one in charges]

    @rule(number=PROXY)
    def crash(self, number: int) -> None:
        crashed = self.proxy(number)
        crashed.quota.close()
        self.proxies[self.proxies.index(crashed)] = Proxy(crashed.between)

    @rule(number=PROXY, data=st.data(), keep=st.booleans(), lose=st.sampled_from([Lose.NOTHING, *Lose]))
    def refund(self, number: int, data: st.DataObject, keep: bool, lose: Lose) -> None:
        """Once, whatever becomes of it."""
        proxy = self.proxy(number)
        if not proxy.receipts:
            return
        at = data.draw(st.integers(0, len(proxy.receipts) - 1))
        receipt, made, life = proxy.receipts[at]
        proxy.receipts[at] = (receipt, [], life)
        if not keep:
            proxy.receipts.pop(at)
        if made:
            proxy.between.lose = lose
        try:
            proxy.quota.refund(receipt)
        except UnavailableError:
            assert lose is not Lose.NOTHING
        proxy.between.lose = Lose.NOTHING  # nothing was asked where nothing was charged
        if lose is not Lose.REQUEST and life == self.life:
            self.made = [one for one in self.made if not any(one is gone for gone in made)]

    @rule(step=st.sampled_from([1 / 64, 1 / 64, 0.25, 0.25, 1.0, 4.0, 8.0, 9.0, -1.0, -9.0, 3600.0]))
    def the_clock_of_redis_goes_on_or_is_set(self, step: float) -> None:
        self.clock.now += step

    @rule()
    def redis_forgets(self) -> None:
        self.server.client.flushall()
        self.clock.now += 0.0  # which it has forgotten as well
        self.made, self.latest = [], 0.0
        self.life += 1


@pytest.fixture
def between(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Between]]:
    """A port for each proxy, before a Redis whose time can be set and that knows the scripts: a lost answer is no wish
    to be sent one.
    """
    redis_store.set_time(monkeypatch)
    Clock(server.client)
    quota = Quota(RedisStorage(server.url))
    quota.refund(quota.charge("s", (charge(),)))
    quota.close()
    with ExitStack() as stack:
        yield [stack.enter_context(lossy(server.port)) for _ in range(MOST)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_store.server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.mark.timeout(600)  # to find the shortest history that fails
def test_never_more_than_the_limit_whatever_proxies_redis_and_clocks_do(server: Server, between: list[Between]) -> None:
    Sharing.server, Sharing.between = server, between
    run_state_machine_as_test(Sharing, settings=settings(max_examples=20, stateful_step_count=40, deadline=None))
