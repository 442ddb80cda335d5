"""Counters that are opened when they are first needed."""

from __future__ import annotations

import threading

import pytest

from intercept_py.errors import StateError, UnavailableError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import State, open_state
from intercept_py.state.deferred import Deferred

LIMIT = (Charge(("limit", "t"), 1, 1, Window(60), Strategy.MOVING, rule="r"),)


def test_nothing_is_opened_before_the_first_charge_and_then_once() -> None:
    opened: list[State] = []

    def opener() -> State:
        opened.append(open_state("memory://"))
        return opened[-1]

    state = Deferred(opener)
    state.close()
    assert opened == []
    assert state.charge("s", LIMIT).refused is None
    assert state.charge("s", LIMIT).refused is not None
    assert len(opened) == 1


def test_a_charge_during_the_preparation_waits_for_it() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def opener() -> State:
        begun.set()
        assert go_on.wait(20)
        return open_state("memory://")

    state = Deferred(opener)
    state.prepare()
    assert begun.wait(20)
    threading.Timer(0, go_on.set).start()
    receipt = state.charge("s", LIMIT)
    assert receipt.refused is None
    state.refund(receipt)
    assert state.charge("s", LIMIT).refused is None


def test_a_store_that_cannot_be_opened_denies_until_it_can() -> None:
    attempts: list[int] = []

    def opener() -> State:
        attempts.append(1)
        if len(attempts) < 3:
            raise StateError("away")
        return open_state("memory://")

    state = Deferred(opener)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="away"):
            state.charge("s", LIMIT)
        state.commit()
    assert state.charge("s", LIMIT).refused is None


def test_a_store_that_cannot_be_opened_is_tried_once_for_a_batch_of_calls() -> None:
    attempts: list[int] = []

    def opener() -> State:
        attempts.append(1)
        raise StateError("away")

    state = Deferred(opener)
    for _ in range(5):
        with pytest.raises(UnavailableError, match="away"):
            state.charge("s", LIMIT)
    assert len(attempts) == 1
