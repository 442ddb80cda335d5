"""What an audit record says, as a plain dict that `chain` turns into a line. Pure: time and ids come in.

At level `metadata` a record never holds what an argument's value is: arguments appear as names and a digest, and what
is made of them (a limit's key and amount) not at all. `request` adds the arguments, `response` the result as well.
"""

from __future__ import annotations

__all__ = [
    "Record",
    "Request",
    "decision_record",
    "outcome_record",
    "recovered_record",
    "reload_record",
    "rotated_record",
    "start_record",
    "stop_record",
    "timestamp",
]

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Literal, TypeAlias

import msgspec

from intercept_py.audit.chain import Head, encode
from intercept_py.model import (
    AuditLevel,
    Caller,
    Charge,
    Decision,
    Effect,
    Finding,
    JsonObject,
    Outcome,
    ToolCall,
)

Record: TypeAlias = JsonObject

_MAX_NAMES = 64
_MAX_NAME = 128
_MAX_TEXT = 2048


class Request(msgspec.Struct, frozen=True):
    """What the records of many requests have in common. `members` is that as they say it."""

    server: str
    era: Literal["legacy", "modern"]
    policy: str
    method: str = "tools/call"
    caller: Caller = Caller()

    def members(self) -> Record:
        """The members between a record's id and what is special to it. Worth keeping: it is the same every time."""
        members: Record = {}
        if self.caller.session is not None:
            members["session"] = _cut(self.caller.session, _MAX_TEXT)
        if self.caller.principal is not None:
            members["principal"] = _cut(self.caller.principal, _MAX_TEXT)
        members["server"] = self.server
        members["policy"] = self.policy
        members["era"] = self.era
        members["method"] = _cut(self.method, _MAX_TEXT)
        return members


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC with microseconds."""
    second, micros = divmod(int(seconds * 1_000_000), 1_000_000)
    return f"{_second(second)}.{micros:06}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def start_record(ts: str, server: str, policy: str, version: str) -> Record:
    """The proxy starts; `policy` is the revision it starts with, `version` its own."""
    return {"ts": ts, "event": "start", "server": _cut(server, _MAX_TEXT), "policy": policy, "version": version}


def reload_record(ts: str, policy: str, problems: int = 0) -> Record:
    """A changed policy file was read. With problems the old policy stays; then `policy` is the one that stays."""
    record = {"ts": ts, "event": "reload", "policy": policy, "accepted": not problems}
    if problems:
        record["problems"] = problems
    return record


def stop_record(ts: str, reason: str) -> Record:
    """The proxy stops, as far as it can still say so."""
    return {"ts": ts, "event": "stop", "reason": _cut(reason, _MAX_TEXT)}


def recovered_record(ts: str, torn: bytes, saved: str | None, lost: Head | None) -> Record:
    """The log was repaired: `torn` bytes at its end were no record (kept in `saved`), records up to `lost` are gone."""
    record: Record = {"ts": ts, "event": "recovered"}
    if torn:
        record["torn"] = {"bytes": len(torn), "sha256": sha256(torn).hexdigest(), "saved": saved}
    if lost is not None:
        record["lost"] = {"seq": lost.seq, "hash": lost.hash}
    return record


def rotated_record(ts: str, last: Head) -> Record:
    """The log goes on in this file; `last` is the end of the one before."""
    return {"ts": ts, "event": "rotated", "continues": last.hash, "records": last.seq}


def decision_record(
    ts: str, decision_id: str, members: Record, decision: Decision, call: ToolCall | None = None
) -> Record:
    """One judged request, written before it goes on; its outcome repeats `decision_id`.

    `members` are those of its `Request`; `call` is None for every method but `tools/call`.
    """
    record: Record = {"ts": ts, "event": "decision", "id": decision_id, **members}
    if call is not None:
        record["tool"] = _cut(call.name, _MAX_TEXT)
    record["effect"] = "allow" if decision.effect is Effect.ALLOW else "deny"
    if decision.finding is not None:
        record.update(_finding(decision.finding))
    level = decision.audit
    if call is not None and level is not AuditLevel.NONE:
        _add_arguments(record, call.arguments, level)
    if decision.shadowed:
        record["shadowed"] = [_finding(finding) for finding in decision.shadowed]
    if decision.charges and decision.effect is Effect.ALLOW:
        record["charged"] = _charged(decision.charges, level)
    return record


def outcome_record(ts: str, decision: str, outcome: Outcome, ms: float, code: int | None = None) -> Record:
    """How the request of a decision (its id) ended. `code` is that of a JSON-RPC error.

    At level `response` the caller adds the `result`, decoded: a stranger's spelling has no place in a line of ours.
    """
    record: Record = {"ts": ts, "event": "outcome", "id": decision, "outcome": outcome, "ms": round(ms, 3)}
    if code is not None:
        record["code"] = code
    return record


def _add_arguments(record: Record, arguments: JsonObject, level: AuditLevel) -> None:
    names = sorted(arguments)
    args: Record = {
        "names": [name if len(name) <= _MAX_NAME else _cut(name, _MAX_NAME) for name in names[:_MAX_NAMES]],
        "sha256": sha256(encode(arguments)).hexdigest(),
    }
    if len(names) > _MAX_NAMES:
        args["more"] = len(names) - _MAX_NAMES
    record["args"] = args
    if level is not AuditLevel.METADATA:
        record["arguments"] = arguments


def _finding(finding: Finding) -> Record:
    found: Record = {"code": finding.code}
    if finding.rule is not None:
        found["rule"] = _cut(finding.rule, _MAX_TEXT)
    found["reason"] = _cut(finding.reason, _MAX_TEXT)
    return found


def _charged(charges: tuple[Charge, ...], level: AuditLevel) -> list[Record]:
    # The key of a limit `per: args.x` and the amount of a counter `increment_from: args.x` are argument values.
    if level is AuditLevel.NONE or level is AuditLevel.METADATA:
        return [{"rule": charge.rule} for charge in charges]
    return [
        {"rule": charge.rule, "key": [_cut(part, _MAX_TEXT) for part in charge.key], "amount": str(charge.amount)}
        for charge in charges
    ]


def _cut(text: str, limit: int) -> str:
    """At most `limit` characters, so that a stranger's text cannot fill the disk."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
