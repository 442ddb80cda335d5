"""Up to three proxies share a file, commit, fail to commit, crash and start again while clocks are set: checked against
a list of all charges. `test_redis_model` does the same to Redis."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from intercept_py.errors import StateError
from intercept_py.model import Charge
from intercept_py.state import Receipt
from intercept_py.state.quota import Quota
from intercept_py.state.sqlite import SqliteStorage
from tests.support.charges import Made, drawn_charges, fits, near_an_edge
from tests.support.sqlite_store import Clock, full_disk

LIMIT = 4
SECONDS = 8
MOST = 3
PROXY = st.integers(0, MOST - 1)


class Proxy:
    """A proxy that has the file open. `view`: all charges as it sees them while its transaction is open."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.quota = Quota(SqliteStorage(f"sqlite://{path}", timepiece=clock.timepiece(), patience=0))
        self.receipts: list[tuple[Receipt, Made]] = []
        self.refunds: Made = []
        self.view: Made | None = None


class Sharing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "limits.sqlite"
        self.clock = Clock()
        self.proxies: list[Proxy] = []
        self.committed: Made = []

    @initialize(number=st.integers(1, MOST))
    def proxies_start(self, number: int) -> None:
        self.proxies = [Proxy(self.path, self.clock) for _ in range(number)]

    def teardown(self) -> None:
        for proxy in self.proxies:
            proxy.quota.close()
        self.folder.cleanup()

    def locked_out(self, proxy: Proxy) -> bool:
        """Whether another proxy's transaction is open."""
        return any(other.view is not None for other in self.proxies if other is not proxy)

    def proxy(self, number: int) -> Proxy:
        return self.proxies[number % len(self.proxies)]

    @rule(number=PROXY, charges=drawn_charges(LIMIT, SECONDS))
    def charge(self, number: int, charges: tuple[Charge, ...]) -> None:
        proxy = self.proxy(number)
        if self.locked_out(proxy):
            with pytest.raises(StateError, match="locked"):
                proxy.quota.charge("s", charges)
            proxy.quota.commit()
            return
        view = self.begin(proxy)
        expected = fits(view, charges, self.clock.now)
        receipt = proxy.quota.charge("s", charges)
        if receipt.refused is None:
            made = [(self.clock.now, one) for one in charges]
            view += made
            proxy.receipts.append((receipt, made))
            assert expected  # never more than the limit in the span, or the calendar window, that ends now
        else:
            assert not expected or near_an_edge(view, SECONDS, self.clock.now)

    @rule(numbers=st.lists(PROXY, min_size=1, max_size=6), charges=drawn_charges(LIMIT, SECONDS))
    def calls(self, numbers: list[int], charges: tuple[Charge, ...]) -> None:
        """One after the other, as most do."""
        for number in numbers:
            self.charge(number, charges)
            self.commit(number)

    def begin(self, proxy: Proxy) -> Made:
        if proxy.view is None:
            proxy.view = list(self.committed)
        proxy.view = [one for one in proxy.view if not any(one is gone for gone in proxy.refunds)]
        proxy.refunds = []
        return proxy.view

    @rule(number=PROXY)
    def commit(self, number: int) -> None:
        proxy = self.proxy(number)
        if self.locked_out(proxy):
            with suppress(StateError):  # it has refunds, and cannot make them: they stay charged
                proxy.quota.commit()
            proxy.refunds = []
            return
        self.committed = self.begin(proxy)
        proxy.quota.commit()
        proxy.view = None

    @rule(number=PROXY)
    def commit_to_a_full_disk(self, number: int) -> None:
        proxy = self.proxy(number)
        if self.locked_out(proxy):
            return
        view = self.begin(proxy)
        try:
            with full_disk():
                proxy.quota.commit()
        except StateError:
            view = self.committed  # all of it was undone
        self.committed, proxy.view = view, None

    @rule(number=PROXY)
    def crash(self, number: int) -> None:
        """Closing without a commit is what the end of a proxy does to the file. Opening it needs no lock."""
        crashed = self.proxy(number)
        crashed.quota.close()
        self.proxies[self.proxies.index(crashed)] = Proxy(self.path, self.clock)

    @rule(number=PROXY, data=st.data(), keep=st.booleans())
    def refund(self, number: int, data: st.DataObject, keep: bool) -> None:
        proxy = self.proxy(number)
        if proxy.receipts:
            at = data.draw(st.integers(0, len(proxy.receipts) - 1))
            receipt, made = proxy.receipts[at] if keep else proxy.receipts.pop(at)
            proxy.quota.refund(receipt)
            proxy.refunds += made

    @rule(step=st.sampled_from([1 / 64, 1 / 64, 0.25, 0.25, 1.0, 4.0, 8.0, 9.0]))
    def time_passes(self, step: float) -> None:
        self.clock.now += step

    @rule(step=st.sampled_from([-3600.0, -8.0, 8.0, 3600.0]))
    def the_wall_clock_is_set(self, step: float) -> None:
        self.clock.wall += step

    @precondition(lambda self: all(proxy.view is None for proxy in self.proxies))
    @rule(step=st.sampled_from([0.0, 3.0, 3600.0]))
    def the_machine_starts_again(self, step: float) -> None:
        for proxy in self.proxies:
            proxy.quota.close()
        self.clock.wall = 0.0
        self.clock.now += step
        self.clock.reboot()
        self.proxies = [Proxy(self.path, self.clock) for _ in self.proxies]


@pytest.mark.timeout(600)  # to find the shortest history that fails
def test_never_more_than_the_limit_whatever_proxies_disks_and_clocks_do() -> None:
    run_state_machine_as_test(Sharing, settings=settings(max_examples=80, stateful_step_count=50, deadline=None))
