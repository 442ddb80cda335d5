from __future__ import annotations

import hashlib
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercept_py.audit.chain import GENESIS, Head, encode, link, verify
from intercept_py.audit.record import (
    Request,
    decision_record,
    outcome_record,
    recovered_record,
    reload_record,
    reset_record,
    rotated_record,
    start_record,
    stop_record,
    timestamp,
    uncounted_record,
)
from intercept_py.model import (
    AuditLevel,
    Caller,
    Charge,
    Decision,
    Effect,
    Finding,
    JsonObject,
    Strategy,
    ToolCall,
    Window,
)
from intercept_py.wire import codec

TS = "2026-01-01T00:00:00.000000Z"
SECRET = "hunter2"
CALL = ToolCall("refund", {"b": SECRET, "a": {"amount": 713}})
CHARGE = Charge(
    ("limit", "refund", SECRET), Decimal("713"), Decimal(1000), Window(60), Strategy.FIXED, rule="refund[0]"
)
REQUEST = Request(server="pay", era="modern", policy="f" * 64, caller=Caller(session="s", principal="ada@example.org"))


def decide(level: AuditLevel, effect: Effect = Effect.ALLOW) -> JsonObject:
    finding = None if effect is Effect.ALLOW else Finding("condition", "too much", "refund[0]")
    shadowed = (Finding("limit_reached", "slow down"),)
    decision = Decision(effect, finding, (CHARGE,), shadowed, level)
    return read(decision_record(TS, "s-1", REQUEST.encode(), decision, CALL))


def read(record: bytes) -> JsonObject:
    """A record decoded; its spelling is the one that the encoder gives it."""
    decoded: JsonObject = msgspec.json.decode(record)
    assert record == encode(decoded)
    return decoded


def test_a_timestamp_is_utc_with_microseconds() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(-0.5) == "1969-12-31T23:59:59.500000Z"
    assert timestamp(1767225599.25) == "2025-12-31T23:59:59.250000Z"


def test_a_decision_says_who_asked_for_what_and_what_came_of_it() -> None:
    assert decide(AuditLevel.METADATA, Effect.DENY) == {
        "ts": TS,
        "event": "decision",
        "id": "s-1",
        "session": "s",
        "principal": "ada@example.org",
        "server": "pay",
        "era": "modern",
        "method": "tools/call",
        "tool": "refund",
        "effect": "deny",
        "code": "condition",
        "rule": "refund[0]",
        "reason": "too much",
        "policy": "f" * 64,
        "args": {"names": ["a", "b"], "sha256": hashlib.sha256(codec.encode(CALL.arguments)).hexdigest()},
        "shadowed": [{"code": "limit_reached", "reason": "slow down"}],
    }


def test_metadata_never_holds_the_value_of_an_argument() -> None:
    text = msgspec.json.encode(decide(AuditLevel.METADATA)).decode()
    assert SECRET not in text
    assert "713" not in text
    assert decide(AuditLevel.METADATA)["charged"] == [{"rule": "refund[0]"}]


def test_level_none_says_nothing_about_arguments() -> None:
    record = decide(AuditLevel.NONE)
    assert "args" not in record
    assert "arguments" not in record
    assert record["charged"] == [{"rule": "refund[0]"}]


@pytest.mark.parametrize("level", [AuditLevel.REQUEST, AuditLevel.RESPONSE])
def test_level_request_holds_the_arguments_and_what_was_charged(level: AuditLevel) -> None:
    record = decide(level)
    assert record["arguments"] == CALL.arguments
    assert record["charged"] == [{"rule": "refund[0]", "key": ["limit", "refund", SECRET], "amount": "713"}]


def test_a_call_that_goes_on_uncounted_says_so_for_each_of_its_rules() -> None:
    away = Finding("state_unavailable", "the limits cannot be checked: away", "refund[0]")
    decision = Decision(Effect.ALLOW, uncounted=(away, away))
    record = read(decision_record(TS, "s-1", REQUEST.encode(), decision, CALL))
    reason = {"code": "state_unavailable", "rule": "refund[0]", "reason": "the limits cannot be checked: away"}
    assert record["uncounted"] == [reason, reason]
    assert "charged" not in record


@pytest.mark.parametrize(("goes_on", "effect"), [(True, "allow"), (False, "deny")])
def test_charges_that_were_not_kept_are_told_with_what_becomes_of_the_call(goes_on: bool, effect: str) -> None:
    assert read(uncounted_record(TS, "s-1", Finding("state_unavailable", "away"), goes_on)) == {
        "ts": TS,
        "event": "uncounted",
        "id": "s-1",
        "effect": effect,
        "code": "state_unavailable",
        "reason": "away",
    }


def test_a_denial_charges_nothing() -> None:
    assert "charged" not in decide(AuditLevel.REQUEST, Effect.DENY)


def test_a_decision_about_another_method_has_no_tool() -> None:
    request = Request(server="pay", era="legacy", policy="f" * 64, method="resources/read")
    record = read(decision_record(TS, "s-2", request.encode(), Decision(Effect.ALLOW)))
    assert record["method"] == "resources/read"
    assert not {"tool", "args", "session", "principal"} & set(record)


def test_names_are_bounded_in_number_and_length() -> None:
    call = ToolCall("x" * 9999, {f"{number:03}" + "n" * 500: 1 for number in range(100)})
    record = read(decision_record(TS, "s-1", REQUEST.encode(), Decision(Effect.ALLOW), call))
    names = record["args"]["names"]
    assert len(names) == 64
    assert max(map(len, names)) == 128
    assert record["args"]["more"] == 36
    assert len(record["tool"]) == 2048


def test_an_outcome_repeats_the_id_of_its_decision() -> None:
    assert read(outcome_record(TS, "s-1", "error", 1.23456, code=-32000)) == {
        "ts": TS,
        "event": "outcome",
        "id": "s-1",
        "outcome": "error",
        "ms": 1.235,
        "code": -32000,
    }


def test_every_kind_of_record_can_be_sealed_without_touching_the_chains_members() -> None:
    records = [
        start_record(TS, "pay", "f" * 64, "0.1.0"),
        encode(decide(AuditLevel.RESPONSE)),
        uncounted_record(TS, "s-1", Finding("state_unavailable", "away"), True),
        outcome_record(TS, "s-1", "ok", 1, more={"result": {"content": []}}),
        reload_record(TS, "npx-1f", "e" * 64),
        reload_record(TS, "npx-1f", "e" * 64, problems=3),
        recovered_record(TS, b"{torn", "audit.jsonl.torn-6", None),
        rotated_record(TS, Head(5, "a" * 64)),
        reset_record(TS, {"uid": 0, "name": "root"}, "f" * 64, ["refund"], ["pay"], counters=2),
        stop_record(TS, "npx-1f", "client closed stdin"),
    ]
    lines, previous = [], GENESIS
    for seq, record in enumerate(records, 1):
        assert not {"seq", "prev", "hash"} & set(read(record))
        line, previous = link(record, seq, previous)
        lines.append(line)
    report = verify(lines)
    assert (report.fault_count, report.allowed, report.outcomes) == (0, 1, 1)
    assert report.continues == ("a" * 64,)


def test_a_record_of_lost_records_is_a_fault_for_ever() -> None:
    line, _ = link(recovered_record(TS, b"", None, Head(9, "a" * 64)), 1, GENESIS)
    (fault,) = verify([line]).faults
    assert fault.kind == "removed"
    assert "up to record 9" in fault.message


@given(
    name=st.text(),
    arguments=st.dictionaries(
        st.text(max_size=64), st.text() | st.integers(-(2**53), 2**53) | st.booleans(), max_size=5
    ),
    reason=st.text(),
    rule=st.text(),
    level=st.sampled_from(AuditLevel),
)
def test_what_strangers_write_makes_one_line_of_ascii_json_and_nothing_else(
    name: str, arguments: dict[str, object], reason: str, rule: str, level: AuditLevel
) -> None:
    charge = msgspec.structs.replace(CHARGE, rule=rule)
    finding = Finding("condition", reason, rule)
    request = Request(server=name, era="legacy", policy=rule, caller=Caller(session=reason, principal=name))
    for decision in (
        Decision(Effect.ALLOW, None, (charge,), (finding,), level, uncounted=(finding,)),
        Decision(Effect.DENY, finding, (), (), level),
    ):
        record = decision_record(TS, "s-1", request.encode(), decision, ToolCall(name, arguments))
        assert record.isascii()
        assert b"\n" not in record
        decoded = read(record)
        assert (decoded["tool"], decoded["server"], decoded["session"]) == (name, name, reason)
        if level is not AuditLevel.NONE:
            assert decoded["args"]["names"] == sorted(arguments)


def test_a_reset_names_at_most_64_entries_and_servers_and_counts_the_rest() -> None:
    by: JsonObject = {"uid": 1000}
    entries, servers = [f"tool{number}" for number in range(66)], ["s" * 200]
    assert read(reset_record(TS, by, "f" * 64, entries, servers, counters=700)) == {
        "ts": TS,
        "event": "reset",
        "by": by,
        "policy": "f" * 64,
        "counters": 700,
        "entries": entries[:64],
        "more_entries": 2,
        "servers": ["s" * 125 + "..."],
    }
