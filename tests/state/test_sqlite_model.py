"""Two processes share a file, commit, fail to commit, crash and start again: checked against a list of all charges."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy
from intercept_py.state import Receipt
from intercept_py.state.quota import Quota
from intercept_py.state.sqlite import SqliteStorage
from tests.support.sqlite_store import Clock, charge, full_disk

LIMIT = Decimal(5)
SECONDS = 8
Made = list[tuple[float, Charge]]


class Process:
    """A process with the file open. `view`: all charges as it sees them while its transaction is open."""

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
        self.processes = [Process(self.path, self.clock) for _ in range(2)]
        self.committed: Made = []

    def teardown(self) -> None:
        for process in self.processes:
            process.quota.close()
        self.folder.cleanup()

    @rule(
        number=st.integers(0, 1),
        keys=st.lists(
            st.tuples(
                st.sampled_from("ab"),
                st.sampled_from(["0", "0.5", "1", "1", "2", "3.25"]),
                st.sampled_from([Strategy.MOVING, Strategy.FIXED]),
            ),
            min_size=1,
            max_size=3,
        ),
    )
    def charge(self, number: int, keys: list[tuple[str, str, Strategy]]) -> None:
        process = self.processes[number]
        charges = tuple(charge(key, int(LIMIT), amount, SECONDS, strategy) for key, amount, strategy in keys)
        if self.processes[1 - number].view is not None:
            with pytest.raises(StateError, match="locked"):
                process.quota.charge("s", charges)
            process.quota.commit()
            return
        view = self.begin(process)
        expected = all(self.together(view, one, charges) <= LIMIT for one in charges)
        receipt = process.quota.charge("s", charges)
        if receipt.refused is None:
            made = [(self.clock.now, one) for one in charges]
            view += made
            process.receipts.append((receipt, made))
            assert expected  # never more than the limit in the span, or the calendar window, that ends now
        else:
            assert not expected or self.near_an_edge(view)

    def begin(self, process: Process) -> Made:
        if process.view is None:
            process.view = list(self.committed)
        process.view = [one for one in process.view if not any(one is gone for gone in process.refunds)]
        process.refunds = []
        return process.view

    def together(self, view: Made, one: Charge, charges: tuple[Charge, ...]) -> Decimal:
        now = self.clock.now
        since = now - SECONDS if one.strategy is Strategy.MOVING else now // SECONDS * SECONDS
        same = [(at, other) for at, other in view if (other.key, other.strategy) == (one.key, one.strategy)]
        before = sum((Decimal(other.amount) for at, other in same if at >= since), Decimal(0))
        now_too = (Decimal(c.amount) for c in charges if (c.key, c.strategy) == (one.key, one.strategy))
        return before + sum(now_too, Decimal(0))

    def near_an_edge(self, view: Made) -> bool:
        """A moving window may count a charge for 1/8192 too long."""
        return any(0 <= self.clock.now - at - SECONDS < SECONDS / 8_000 for at, _ in view)

    @rule(number=st.integers(0, 1))
    def commit(self, number: int) -> None:
        process = self.processes[number]
        if self.processes[1 - number].view is not None:
            with suppress(StateError):  # it has refunds, and cannot make them: they stay charged
                process.quota.commit()
            process.refunds = []
            return
        self.committed = self.begin(process)
        process.quota.commit()
        process.view = None

    @rule(number=st.integers(0, 1))
    def commit_to_a_full_disk(self, number: int) -> None:
        process = self.processes[number]
        if self.processes[1 - number].view is not None:
            return
        view = self.begin(process)
        try:
            with full_disk():
                process.quota.commit()
        except StateError:
            view = self.committed  # all of it was undone
        self.committed, process.view = view, None

    @rule(number=st.integers(0, 1))
    def crash(self, number: int) -> None:
        """Closing without a commit is what the end of a process does to the file. Opening it needs no lock."""
        self.processes[number].quota.close()
        self.processes[number] = Process(self.path, self.clock)

    @rule(number=st.integers(0, 1), data=st.data(), keep=st.booleans())
    def refund(self, number: int, data: st.DataObject, keep: bool) -> None:
        process = self.processes[number]
        if process.receipts:
            at = data.draw(st.integers(0, len(process.receipts) - 1))
            receipt, made = process.receipts[at] if keep else process.receipts.pop(at)
            process.quota.refund(receipt)
            process.refunds += made

    @rule(step=st.sampled_from([1 / 64, 0.25, 1.0, 4.0, 8.0, 9.0, 20.0]))
    def time_passes(self, step: float) -> None:
        self.clock.now += step

    @rule(step=st.sampled_from([-3600.0, -8.0, 8.0, 3600.0]))
    def the_wall_clock_is_set(self, step: float) -> None:
        self.clock.wall += step

    @precondition(lambda self: all(process.view is None for process in self.processes))
    @rule(step=st.sampled_from([0.0, 3.0, 3600.0]))
    def the_machine_starts_again(self, step: float) -> None:
        for process in self.processes:
            process.quota.close()
        self.clock.wall = 0.0
        self.clock.now += step
        self.clock.reboot()
        self.processes = [Process(self.path, self.clock) for _ in range(2)]


Sharing.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSharing = Sharing.TestCase
