"""Whatever fails while a call is decided, the call is denied (promise 4), and every request is answered (promise 7).

The n-th use of a part fails, for n = 1, 2, 3 … until a run needs fewer uses; once, and from then on for ever.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from intercept_py.audit.log import AuditLog
from intercept_py.errors import StateError, UnavailableError
from intercept_py.model import Charge
from intercept_py.state import Receipt, State, open_state
from tests.conversation import Conversation, call

POLICY = """
tools:
  cancel_run:
    rules:
      - rate_limit: {max: 3, window: 60}
      - rate_limit: 100/hour
"""
MODES = pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])


class Failing:
    """Counts uses and says which one fails."""

    def __init__(self, nth: int, for_ever: bool) -> None:
        self.nth, self.for_ever, self.uses = nth, for_ever, 0

    def now(self) -> bool:
        self.uses += 1
        return self.uses == self.nth or (self.for_ever and self.uses > self.nth)


class FailingState:
    """A real store whose n-th operation fails, as a store on another machine does."""

    def __init__(self, failing: Failing, error: Exception) -> None:
        self._state = open_state("memory://")
        self._failing = failing
        self._error = error

    def charge(self, server: str, charges: tuple[Charge, ...]) -> Receipt:
        if self._failing.now():
            raise self._error
        return self._state.charge(server, charges)

    def refund(self, receipt: Receipt) -> None:
        if self._failing.now():
            raise self._error
        self._state.refund(receipt)

    def commit(self) -> None:
        if self._failing.now():
            raise self._error
        self._state.commit()

    def close(self) -> None:
        self._state.close()


def run(talk: Conversation) -> None:
    """Six calls, one at a time and in one read; the server answers what it gets, then ends."""
    for number in range(3):
        talk.say(call(number))
    talk.say(call(3), call(4), call(5))
    for request in talk.calls():
        talk.answer(request)
    talk.end()


def check(talk: Conversation) -> None:
    """What must hold whatever failed."""
    for number in range(6):
        assert len(talk.answers(number)) == 1, f"request {number} has not exactly one answer"
    recorded = [record for record in talk.records() if record["event"] == "decision" and record["effect"] == "allow"]
    assert len(talk.calls()) <= len(recorded), "a call was sent that is not on record"
    assert len(talk.calls()) <= 3, "the limit did not hold"
    answered = sum(not talk.answers(number)[0].get("result", {}).get("isError") for number in range(6))
    assert answered == len(talk.calls())


@MODES
@pytest.mark.parametrize(
    "error", [UnavailableError("away"), StateError("a fault"), RuntimeError("a bug")], ids=["away", "fault", "bug"]
)
def test_no_call_goes_on_uncounted_when_the_store_fails(error: Exception, for_ever: bool, tmp_path: Path) -> None:
    for nth in range(1, 20):
        folder = tmp_path / str(nth)
        folder.mkdir()
        failing = Failing(nth, for_ever)
        state: State = FailingState(failing, error)
        talk = Conversation(POLICY, folder, state=state)
        run(talk)
        check(talk)
        if failing.uses < nth:
            return
    pytest.fail("the store is used more often than this test expects")


@MODES
def test_what_goes_on_uncounted_when_an_open_store_fails_is_on_record(for_ever: bool, tmp_path: Path) -> None:
    for nth in range(1, 20):
        folder = tmp_path / str(nth)
        folder.mkdir()
        failing = Failing(nth, for_ever)
        state = FailingState(failing, UnavailableError("the store is away"))
        talk = Conversation(POLICY, folder, state=state, fail_open=True)
        run(talk)
        assert [len(talk.answers(number)) for number in range(6)] == [1] * 6
        uncounted = {record["id"] for record in talk.records() if "uncounted" in (record["event"], *record)}
        assert len(talk.calls()) <= 3 + len(uncounted), "a call went on that is neither counted nor on record"
        assert len(talk.calls()) == 6 or not (for_ever and nth == 1)
        if failing.uses < nth:
            assert uncounted == set()
            return
    pytest.fail("the store is used more often than this test expects")


@MODES
@pytest.mark.parametrize("operation", ["write", "pwrite", "fstat"])
def test_no_call_goes_on_unrecorded_when_the_audit_file_fails(
    operation: str, for_ever: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Any = getattr(os, operation)
    for nth in range(1, 200):
        folder = tmp_path / str(nth)
        folder.mkdir()
        talk = Conversation(POLICY, folder)
        failing = Failing(nth, for_ever)

        def fail(*args: Any, failing: Failing = failing) -> Any:
            if failing.now():
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, operation, fail)
            run(talk)
        check(talk)
        if failing.uses < nth:
            return
    pytest.fail(f"os.{operation} is used more often than this test expects")


def test_an_audit_file_that_cannot_be_written_stops_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation(POLICY, tmp_path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        talk.say(call(1), call(2))
    assert talk.calls() == []
    for number in (1, 2):
        text = talk.answers(number)[0]["result"]["content"][0]["text"]
        assert "cannot be recorded" in text
    talk.say(call(3), call(4), call(5))
    assert len(talk.calls()) == 3, "what was never sent was not given back"


def test_a_closed_audit_file_stops_every_call(tmp_path: Path) -> None:
    log = AuditLog.open(str(tmp_path / "audit.jsonl"))
    talk = Conversation(POLICY, tmp_path, audit=log)
    log.close()
    talk.say(call(1))
    assert talk.calls() == []
    assert talk.answers(1)[0]["result"]["isError"] is True


@pytest.mark.parametrize(
    "line", [b"", b"{", b"null", b"[]", b'{"jsonrpc":"2.0","id":1}', b"\xff", b'{"id":1,"result":1e999}']
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_every_request_is_answered_when_the_server_says_nonsense(line: bytes, at: int, tmp_path: Path) -> None:
    talk = Conversation(POLICY, tmp_path)
    talk.say(call(0), call(1), call(2))
    for number, request in enumerate(talk.calls()):
        if number == at:
            talk.reply(line)
        else:
            talk.answer(request)
    talk.end()
    assert [len(talk.answers(number)) for number in range(3)] == [1, 1, 1]
