"""`fail: open` and `--state-fail-mode`: what becomes of calls while their limits cannot be checked."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from intercept_py.errors import StateError, UnavailableError
from intercept_py.model import Charge
from intercept_py.state import Receipt, State, open_state
from intercept_py.state.memory import MemoryStorage
from intercept_py.state.outage import Outage
from intercept_py.state.quota import Quota
from tests.conversation import Conversation, Message, call

AWAY = UnavailableError("the store is away")
POLICY = """
tools:
  open: {rules: [{name: open rule, rate_limit: {max: 3, window: 60, fail: open}}]}
  closed: {rules: [{name: closed rule, rate_limit: {max: 3, window: 60, fail: closed}}]}
  usual: {rules: [{name: usual rule, rate_limit: 3/minute}]}
  mixed:
    rules:
      - {name: first, rate_limit: {max: 3, window: 60, fail: open}}
      - {name: second, rate_limit: {max: 3, window: 60, per: global, fail: closed}}
  shadowed: {rules: [{name: watched, rate_limit: {max: 3, window: 60, fail: closed}, mode: shadow}]}
  spend:
    rules:
      - name: budget
        conditions: [{path: state.spend.spent, op: lte, value: 1000}]
        state: {counter: spent, window: day, increment_from: args.amount, fail: open}
  look: {rules: [{name: looks, conditions: [{path: state.spend.spent, op: lte, value: 900}]}]}
  free: {}
"""


class Store:
    """Counters in memory that raise `charging` when they are charged, and `committing` when that is committed."""

    def __init__(self, charging: Exception | None = None, committing: Exception | None = None) -> None:
        self._state = open_state("memory://")
        self.charging, self.committing = charging, committing

    def charge(self, server: str, charges: tuple[Charge, ...]) -> Receipt:
        if self.charging is not None:
            raise self.charging
        return self._state.charge(server, charges)

    def refund(self, receipt: Receipt) -> None:
        self._state.refund(receipt)

    def commit(self) -> None:
        if self.committing is not None:
            raise self.committing

    def close(self) -> None:
        self._state.close()


def talk_with(state: State, folder: Path, *, fail_open: bool = False) -> Conversation:
    return Conversation(POLICY, folder, state=state, fail_open=fail_open)


def sent(talk: Conversation) -> list[str]:
    """The tools of the calls that reached the server."""
    return [request["params"]["name"] for request in talk.calls()]


def decision(talk: Conversation) -> Message:
    """The record of the last decision."""
    return [record for record in talk.records() if record["event"] == "decision"][-1]


def code(talk: Conversation, id: Any) -> str:
    """Why the call with this id was denied."""
    (answer,) = talk.answers(id)
    found: str = answer["result"]["_meta"]["dev.intercept-py/decision"]["code"]
    return found


@pytest.mark.parametrize(
    ("tool", "fail_open", "passes"),
    [
        ("open", False, True),
        ("open", True, True),
        ("closed", False, False),
        ("closed", True, False),
        ("usual", False, False),
        ("usual", True, True),
        ("mixed", True, False),
        ("shadowed", False, True),
        ("look", False, True),
        ("spend", False, True),
        ("free", False, True),
    ],
)
def test_while_the_store_is_away_calls_pass_whose_limits_all_open(
    tool: str, fail_open: bool, passes: bool, tmp_path: Path
) -> None:
    talk = talk_with(Store(AWAY), tmp_path, fail_open=fail_open)
    talk.say(call(1, tool, {"amount": 5}))
    assert sent(talk) == [tool] * passes
    record = decision(talk)
    assert record["effect"] == ("allow" if passes else "deny")
    assert "charged" not in record
    assert passes or code(talk, 1) == record["code"] == "state_unavailable"


def test_the_record_of_an_uncounted_call_names_each_rule_and_the_reason(tmp_path: Path) -> None:
    talk = talk_with(Store(AWAY), tmp_path)
    talk.say(call(1, "open"))
    assert decision(talk)["uncounted"] == [
        {
            "code": "state_unavailable",
            "rule": "open rule",
            "reason": "the limits cannot be checked: the store is away",
        }
    ]


def test_a_counted_call_is_not_recorded_as_uncounted(tmp_path: Path) -> None:
    talk = talk_with(Store(), tmp_path)
    talk.say(*(call(number, "open") for number in range(4)))
    assert sent(talk) == ["open"] * 3
    assert code(talk, 3) == "limit_reached"
    assert not any("uncounted" in record for record in talk.records())


@pytest.mark.parametrize(
    ("error", "expected"),
    [(StateError("cannot count that"), "state_error"), (RuntimeError("a bug"), "internal_error")],
    ids=["fault", "bug"],
)
@pytest.mark.parametrize("where", ["charging", "committing"])
def test_nothing_but_an_unavailable_store_opens_a_limit(
    where: str, error: Exception, expected: str, tmp_path: Path
) -> None:
    talk = talk_with(Store(**{where: error}), tmp_path, fail_open=True)
    talk.say(call(1, "open"))
    assert sent(talk) == []
    assert code(talk, 1) == expected
    assert where == "committing" or decision(talk)["code"] == expected


@pytest.mark.parametrize("away", [None, AWAY], ids=["there", "away"])
def test_no_argument_opens_a_limit(away: Exception | None, tmp_path: Path) -> None:
    talk = talk_with(Store(away), tmp_path, fail_open=True)
    amounts = [1e300, 1e-300, "1" + 45 * "0", -1, "1e400", None]
    talk.say(*(call(number, "spend", {"amount": amount}) for number, amount in enumerate(amounts)))
    assert sent(talk) == []
    assert [code(talk, number) for number in range(len(amounts))] == ["bad_increment"] * len(amounts)


def test_a_store_that_an_agent_has_filled_with_counters_opens_no_limit(tmp_path: Path) -> None:
    policy = "tools: {'*': {rules: [{rate_limit: {max: 1, window: 60, per: tool, fail: open}}]}}\n"
    talk = Conversation(policy, tmp_path, state=Quota(MemoryStorage(max_keys=2)), fail_open=True)
    talk.say(*(call(number, f"tool_{number}") for number in range(4)))
    assert sent(talk) == ["tool_0", "tool_1"]
    assert code(talk, 3) == "state_error"


BATCH = [call(number, tool) for number, tool in enumerate(("open", "closed", "free", "mixed", "shadowed"))]


def test_when_a_batch_cannot_be_committed_only_what_needs_its_charges_is_denied(tmp_path: Path) -> None:
    store = Store(committing=AWAY)
    talk = talk_with(store, tmp_path)
    talk.say(*BATCH)
    assert sent(talk) == ["open", "free", "shadowed"]
    assert [code(talk, number) for number in (1, 3)] == ["state_unavailable"] * 2
    for request in talk.calls():
        talk.answer(request)
    talk.end()
    assert [len(talk.answers(number)) for number in range(5)] == [1] * 5

    records = talk.records()
    decided = {record["id"]: record["tool"] for record in records if record["event"] == "decision"}
    revised = [record for record in records if record["event"] == "uncounted"]
    assert {(decided[record["id"]], record["effect"], record["code"]) for record in revised} == {
        ("open", "allow", "state_unavailable"),
        ("closed", "deny", "state_unavailable"),
        ("mixed", "deny", "state_unavailable"),
        ("shadowed", "allow", "state_unavailable"),
    }
    outcomes = {decided[record["id"]]: record["outcome"] for record in records if record["event"] == "outcome"}
    assert outcomes == {"open": "ok", "free": "ok", "shadowed": "ok", "closed": "withdrawn", "mixed": "withdrawn"}

    store.committing = None
    talk.say(*(call(10 + number, "closed") for number in range(4)))
    assert sent(talk).count("closed") == 3, "what was withdrawn was not given back"


def test_a_call_that_could_not_be_charged_passes_whatever_becomes_of_the_commit(tmp_path: Path) -> None:
    talk = talk_with(Store(AWAY, AWAY), tmp_path)
    talk.say(call(1, "open"))
    assert sent(talk) == ["open"]
    assert [record["event"] for record in talk.records()] == ["decision"]


@pytest.mark.parametrize("nth", [1, 2])
def test_no_call_goes_on_uncounted_without_a_record_of_that(
    nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = talk_with(Store(committing=AWAY), tmp_path)
    real, writes = os.write, 0

    def write(fd: int, data: bytes) -> int:
        nonlocal writes
        writes += b'"event":' in data
        if b'"event":' in data and writes == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    talk.say(*BATCH)
    monkeypatch.undo()
    assert writes >= nth
    assert sent(talk) == []
    assert [code(talk, number) for number in range(5)] == ["audit_unavailable"] * 5


def test_stderr_says_once_that_the_store_is_away_and_anew_why_if_that_changes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = Store(AWAY)
    talk = talk_with(store, tmp_path)
    talk.say(*(call(number, "closed") for number in range(10)))
    talk.say(*(call(10 + number, "open") for number in range(10)))
    store.charging = UnavailableError("the store refuses the password")
    talk.say(call(20, "closed"), call(21, "open"))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "error: limits cannot be checked (the store is away): until they can" in lines[0]
    assert "error: limits cannot be checked (the store refuses the password): until" in lines[1]


def test_an_outage_is_over_when_a_charge_has_been_committed() -> None:
    outage = Outage()
    outage.seen("away")
    outage.committed()
    outage.answered()
    outage.seen("away")
    outage.committed()
    assert len(outage.news) == 1
    outage.answered()
    outage.committed()
    outage.committed()
    assert len(outage.news) == 2
    outage.seen("away")
    assert [level for level, _ in outage.news] == ["error", "info", "error"]


def test_a_limit_that_is_only_watched_denies_nothing_whatever_is_counted(tmp_path: Path) -> None:
    policy = """
tools:
  echo:
    rules:
      - mode: shadow
        state: {counter: spent, window: day, increment_from: args.amount}
        conditions: [{path: state.echo.spent, op: lte, value: 10}]
"""
    talk = Conversation(policy, tmp_path)
    for number, amount in enumerate((1, 1e300, 5e-324, "1e300", -1)):
        talk.say(call(number, "echo", {"amount": amount}))
    assert len(talk.calls()) == 5
