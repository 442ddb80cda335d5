"""The circuit breaker, by a clock of its own around a storage that fails on demand."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest

from intercept_py.errors import StateError
from intercept_py.state import Receipt
from intercept_py.state.breaker import Breaker, UnreachableError
from intercept_py.state.quota import Bill


class Storage:
    """Counts how often it is asked, and raises `fault` if there is one."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.asked = 0

    def charge_all(self, bill: Bill) -> Receipt:
        self.refund_all(None)
        return Receipt()

    def refund_all(self, token: object) -> None:
        self.asked += 1
        if self.fault is not None:
            raise self.fault

    def commit(self) -> None:
        pass

    def close(self) -> None:
        pass


class Shop:
    def __init__(self) -> None:
        self.now = 100.0
        self.storage = Storage()
        self.breaker = Breaker(self.storage, lambda: self.now)

    def asks(self) -> bool:
        """Whether a charge gets as far as the storage. It fails if that would."""
        before = self.storage.asked
        with pytest.raises(UnreachableError, match="gone") if self.storage.fault else nullcontext():
            self.breaker.charge_all(Bill((), ()))
        return self.storage.asked > before


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_store_that_answers_is_always_asked(shop: Shop) -> None:
    assert [shop.asks() for _ in range(5)] == [True] * 5


def test_after_a_failure_calls_fail_at_once_until_the_pause_is_over(shop: Shop) -> None:
    shop.storage.fault = UnreachableError("gone")
    assert [shop.asks(), shop.asks()] == [True, False]
    shop.now += 0.24
    assert not shop.asks()
    shop.now += 0.02
    assert shop.asks()


def test_pauses_grow_to_four_seconds_and_begin_anew_after_a_success(shop: Shop) -> None:
    shop.storage.fault = UnreachableError("gone")
    pauses = []
    for _ in range(8):
        assert shop.asks()
        since = shop.now
        while not shop.asks():
            shop.now += 0.125
        pauses.append(shop.now - since)
        shop.now += 100
    assert pauses[0] == 0.25
    assert pauses == sorted(pauses)
    assert pauses[-1] == 4
    shop.storage.fault = None
    shop.now += 4
    assert [shop.asks() for _ in range(3)] == [True] * 3
    shop.storage.fault = UnreachableError("gone")
    assert shop.asks()
    shop.now += 0.25
    assert shop.asks()


def test_a_refund_is_not_attempted_either_and_counts_as_a_failure(shop: Shop) -> None:
    shop.storage.fault = UnreachableError("gone")
    with pytest.raises(UnreachableError):
        shop.breaker.refund_all(object())
    assert not shop.asks()
    with pytest.raises(UnreachableError):
        shop.breaker.refund_all(object())
    assert shop.storage.asked == 1


@pytest.mark.parametrize("fault", [StateError("full"), ValueError("odd")])
def test_a_fault_that_the_store_itself_reports_is_no_reason_to_spare_it(shop: Shop, fault: Exception) -> None:
    shop.storage.fault = fault
    for _ in range(3):
        with pytest.raises(type(fault)):
            shop.breaker.charge_all(Bill((), ()))
    assert shop.storage.asked == 3


def test_one_call_tries_and_the_others_do_not_wait_for_it(shop: Shop) -> None:
    shop.storage.fault = UnreachableError("gone")
    assert shop.asks()
    shop.now += 10
    begun, go_on = threading.Event(), threading.Event()
    ask = shop.storage.refund_all

    def slow(token: object) -> None:
        begun.set()
        assert go_on.wait(20)
        ask(token)

    shop.storage.refund_all = slow  # type: ignore[method-assign]
    shop.storage.fault = None
    tried: list[Receipt] = []
    thread = threading.Thread(target=lambda: tried.append(shop.breaker.charge_all(Bill((), ()))))
    thread.start()
    assert begun.wait(20)
    with pytest.raises(UnreachableError, match="gone"):
        shop.breaker.charge_all(Bill((), ()))
    go_on.set()
    thread.join()
    assert tried == [Receipt()]
    assert shop.asks()
