from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import Receipt
from intercept_py.state.quota import Bill, Quota, bill_of, exact, minus, plus, steady_clock


class Recorder:
    """A storage that keeps the keys it is given, and raises `fault` if there is one."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.keys: list[str] = []
        self.fault = fault

    def charge_all(self, bill: Bill) -> Receipt:
        self.refund_all(None)
        self.keys += [posting.key for posting in bill.postings]
        return Receipt(token=[])

    def refund_all(self, token: object) -> None:
        if self.fault is not None:
            raise self.fault

    def commit(self) -> None:
        self.refund_all(None)

    def close(self) -> None:
        pass


def key(server: str, parts: tuple[str, ...], prefix: str = "", window: int = 60) -> str:
    storage = Recorder()
    one = Charge(parts, Decimal(1), Decimal(1), Window(window), Strategy.MOVING, "r")
    Quota(storage, prefix).charge(server, (one,))
    return storage.keys[0]


def test_a_key_names_server_strategy_window_and_parts() -> None:
    assert key("github", ("limit", "a/b", "50%"), "team:") == "team:github/moving/60/limit/a%2Fb/50%25"


def test_a_calendar_window_is_named_by_its_unit_where_it_is_fixed() -> None:
    storage = Recorder()
    charges = [Charge(("k",), Decimal(1), Decimal(1), Window(60, "minute"), strategy, "r") for strategy in Strategy]
    Quota(storage).charge("s", tuple(charges))
    assert sorted(storage.keys) == ["s/fixed/minute/k", "s/moving/60/k", "s/sliding/60/k"]


def test_charges_to_one_counter_add_up_wherever_they_stand() -> None:
    def charge(amount: str, limit: int) -> Charge:
        return Charge(("k",), Decimal(amount), limit, Window(60), Strategy.MOVING, "r")

    one, other, again = charge("1.5", 7), charge("2", 8), charge("0.5", 9)
    bill = bill_of([("a", one), ("b", other), ("a", again)])
    assert [(posting.key, posting.amount) for posting in bill.postings] == [("a", 2), ("b", 2)]
    assert bill.charges == ((0, one), (1, other), (0, again))


def test_the_bills_that_are_kept_are_bounded() -> None:
    storage = Recorder()
    quota = Quota(storage)
    for number in range(3000):
        quota.charge("s", (Charge((str(number),), 1, 1, Window(60), Strategy.MOVING, "r"),))
    assert len(set(storage.keys)) == 3000
    assert len(quota._bills) <= 256
    assert len(quota._keys) <= 1024


PARTS = st.lists(st.text(alphabet="a/%2F5", max_size=4), min_size=1, max_size=4).map(tuple)


@given(PARTS, PARTS)
def test_different_parts_never_share_a_key(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (key("s", one) == key("s", other)) == (one == other)


@given(st.text(), st.text())
def test_different_servers_never_share_a_key(one: str, other: str) -> None:
    assert (key(one, ("k",)) == key(other, ("k",))) == (one == other)


def test_a_long_key_is_kept_as_a_digest() -> None:
    keys = {key("s", ("limit", char * 10_000)) for char in ("a", "b", "\ud800")}
    assert len(keys) == 3
    assert max(map(len, keys)) < 100


@pytest.mark.parametrize("fault", [ValueError("bad"), OSError(5, "Input/output error"), StateError("gone")])
def test_every_fault_of_a_storage_is_a_state_error(fault: Exception) -> None:
    quota = Quota(Recorder(fault))
    one = Charge(("k",), Decimal(1), Decimal(1), Window(60), Strategy.MOVING, "r")
    with pytest.raises(StateError):
        quota.charge("s", (one,))
    with pytest.raises(StateError):
        quota.refund(Receipt(token=[]))


def test_no_charges_ask_nothing_of_the_storage() -> None:
    quota = Quota(Recorder(ValueError("bad")))
    quota.refund(quota.charge("s", ()))
    quota.close()


def test_whole_amounts_are_counted_as_ints() -> None:
    assert [type(exact(Decimal(text))) for text in ("1", "0", "-0", "1E+3", "2.0", "0.5")] == [int] * 5 + [Decimal]


@given(st.decimals(0, 10**9, places=4), st.decimals(0, 10**9, places=2))
def test_sums_and_differences_are_exact(a: Decimal, b: Decimal) -> None:
    assert plus(exact(a), exact(b)) == a + b
    assert minus(plus(exact(a), exact(b)), exact(b)) == a
    assert minus(exact(a), plus(exact(a), exact(b))) == 0


def test_the_clock_starts_at_the_real_time_and_is_immune_to_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = steady_clock()
    before = clock()
    assert before == pytest.approx(time.time(), abs=5)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock() >= before
