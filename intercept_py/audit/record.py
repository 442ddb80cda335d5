"""What an audit record says, as the JSON object that `chain` seals. Pure: time and ids come in.

At level `metadata` a record never holds what an argument's value is: arguments appear as names and a digest, and what
is made of them (a limit's key and amount) not at all. `request` adds the arguments, `response` the result as well.

Every call has a decision and an outcome, so those are put together from encoded pieces, in a third of the time.
"""

from __future__ import annotations

__all__ = [
    "Request",
    "decision_record",
    "outcome_record",
    "recovered_record",
    "reload_record",
    "reset_record",
    "rotated_record",
    "start_record",
    "stop_record",
    "timestamp",
    "uncounted_record",
]

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter
from typing import Literal

import msgspec

from intercept_py.audit.chain import Head, encode
from intercept_py.model import (
    AuditLevel,
    Caller,
    Charge,
    Decision,
    Effect,
    Finding,
    Json,
    JsonObject,
    Outcome,
    ToolCall,
)

# Members of an enum are slow to look up.
_ALLOW, _NONE, _METADATA = Effect.ALLOW, AuditLevel.NONE, AuditLevel.METADATA
_RULE = attrgetter("rule")
_MAX_NAMES = 64
_MAX_NAME = 128
_MAX_TEXT = 2048


class Request(msgspec.Struct, frozen=True):
    """What the records of many requests have in common. `encode` is that as they say it."""

    server: str
    era: Literal["legacy", "modern"]
    policy: str
    method: str = "tools/call"
    caller: Caller = Caller()

    def encode(self) -> str:
        """The members between a record's id and what is special to it. Worth keeping: it is the same every time."""
        members: JsonObject = {}
        if self.caller.session is not None:
            members["session"] = _cut(self.caller.session, _MAX_TEXT)
        if self.caller.principal is not None:
            members["principal"] = _cut(self.caller.principal, _MAX_TEXT)
        members["server"] = self.server
        members["policy"] = self.policy
        members["era"] = self.era
        members["method"] = _cut(self.method, _MAX_TEXT)
        return _members(members)


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC with microseconds."""
    second, micros = divmod(int(seconds * 1_000_000), 1_000_000)
    return f"{_second(second)}.{micros:06}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def start_record(ts: str, server: str, policy: str, version: str) -> bytes:
    """The proxy starts; `policy` is the revision it starts with, `version` its own."""
    return encode({"ts": ts, "event": "start", "server": _cut(server, _MAX_TEXT), "policy": policy, "version": version})


def reload_record(ts: str, server: str, policy: str, problems: int = 0) -> bytes:
    """A changed policy file was read. With problems the old policy stays; then `policy` is the one that stays."""
    record: JsonObject = {"ts": ts, "event": "reload", "server": _cut(server, _MAX_TEXT)}
    record |= {"policy": policy, "accepted": not problems}
    if problems:
        record["problems"] = problems
    return encode(record)


def reset_record(ts: str, by: JsonObject, policy: str, entries: list[str], servers: list[str], counters: int) -> bytes:
    """A person (`by`: uid and name) is about to have so many counters of these entries begin anew."""
    record: JsonObject = {"ts": ts, "event": "reset", "by": by, "policy": policy, "counters": counters}
    for what, names in (("entries", entries), ("servers", servers)):
        record[what] = [_cut(name, _MAX_NAME) for name in names[:_MAX_NAMES]]
        if len(names) > _MAX_NAMES:
            record[f"more_{what}"] = len(names) - _MAX_NAMES
    return encode(record)


def stop_record(ts: str, server: str, reason: str) -> bytes:
    """The proxy stops before this server, as far as it can still say so."""
    return encode({"ts": ts, "event": "stop", "server": _cut(server, _MAX_TEXT), "reason": _cut(reason, _MAX_TEXT)})


def recovered_record(ts: str, torn: bytes, saved: str | None, lost: Head | None) -> bytes:
    """The log was repaired: `torn` bytes at its end were no record (kept in `saved`), records up to `lost` are gone."""
    record: JsonObject = {"ts": ts, "event": "recovered"}
    if torn:
        record["torn"] = {"bytes": len(torn), "sha256": sha256(torn).hexdigest(), "saved": saved}
    if lost is not None:
        record["lost"] = {"seq": lost.seq, "hash": lost.hash}
    return encode(record)


def rotated_record(ts: str, last: Head) -> bytes:
    """The log goes on in this file; `last` is the end of the one before."""
    return encode({"ts": ts, "event": "rotated", "continues": last.hash, "records": last.seq})


def decision_record(ts: str, decision_id: str, request: str, decision: Decision, call: ToolCall | None = None) -> bytes:
    """One judged request, written before it goes on; its outcome repeats `decision_id`.

    `request` is its `Request`, encoded; `call` is None for every method but `tools/call`. `ts` and `decision_id` are
    printable ASCII without quotes. Raises ValueError, TypeError or RecursionError for arguments that are not JSON.
    """
    allowed, level = decision.effect is _ALLOW, decision.audit
    record = f'{{"ts":"{ts}","event":"decision","id":"{decision_id}",{request}'
    if call is not None:
        record += f',"tool":{_quoted(_cut(call.name, _MAX_TEXT))}'
    record += ',"effect":"allow"' if allowed else ',"effect":"deny"'
    if decision.finding is not None:
        record += f",{_members(_finding(decision.finding))}"
    if call is not None and level is not _NONE:
        record += _arguments(call.arguments, level)
    if decision.shadowed:
        record += f',"shadowed":{_text([_finding(finding) for finding in decision.shadowed])}'
    if decision.uncounted:
        record += f',"uncounted":{_text([_finding(finding) for finding in decision.uncounted])}'
    if allowed and decision.charges:
        record += f',"charged":[{_charged(decision.charges, level)}]'
    return f"{record}}}".encode()


def uncounted_record(ts: str, decision_id: str, fault: Finding, goes_on: bool) -> bytes:
    """What a decision says was charged was not, after all. Written before the call goes on, if it does."""
    effect = "allow" if goes_on else "deny"
    return encode({"ts": ts, "event": "uncounted", "id": decision_id, "effect": effect, **_finding(fault)})


def outcome_record(
    ts: str, decision_id: str, outcome: Outcome, ms: float, code: int | None = None, more: JsonObject | None = None
) -> bytes:
    """How the request of a decision ended. `code` is that of a JSON-RPC error.

    At level `response` `more` has the `result`, decoded: a stranger's spelling has no place in a line of ours.
    """
    ms = int(ms * 1000 + 0.5) / 1000  # in a third of the time that `round` takes
    record = f'{{"ts":"{ts}","event":"outcome","id":"{decision_id}","outcome":"{outcome}","ms":{ms}'
    if code is not None:
        record += f',"code":{code}'
    if more:
        record += f",{_members(more)}"
    return f"{record}}}".encode()


def _arguments(arguments: JsonObject, level: AuditLevel) -> str:
    """The members `args` and, if the level asks for it, `arguments`."""
    encoded = encode(arguments)
    names, more = sorted(arguments), ""
    if len(names) > _MAX_NAMES:
        names, more = names[:_MAX_NAMES], f',"more":{len(names) - _MAX_NAMES}'
    known = ",".join([_quoted(name if len(name) <= _MAX_NAME else _cut(name, _MAX_NAME)) for name in names])
    args = f',"args":{{"names":[{known}],"sha256":"{sha256(encoded).hexdigest()}"{more}}}'
    return args if level is _METADATA else f'{args},"arguments":{encoded.decode()}'


def _finding(finding: Finding) -> JsonObject:
    found: JsonObject = {"code": finding.code}
    if finding.rule is not None:
        found["rule"] = _cut(finding.rule, _MAX_TEXT)
    found["reason"] = _cut(finding.reason, _MAX_TEXT)
    return found


def _charged(charges: tuple[Charge, ...], level: AuditLevel) -> str:
    # The key of a limit `per: args.x` and the amount of a counter `increment_from: args.x` are argument values.
    if level is _METADATA or level is _NONE:
        return ",".join(map(_charged_rule, map(_RULE, charges)))
    return ",".join([_text(_posted(charge)) for charge in charges])


def _posted(charge: Charge) -> JsonObject:
    key = [_cut(part, _MAX_TEXT) for part in charge.key]
    return {"rule": charge.rule, "key": key, "amount": str(charge.amount)}


def _cut(text: str, limit: int) -> str:
    """At most `limit` characters, so that a stranger's text cannot fill the disk."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _text(value: Json) -> str:
    return encode(value).decode()


def _members(record: JsonObject) -> str:
    """The members of an object that has some, without its braces."""
    return _text(record)[1:-1]


@lru_cache(maxsize=1024)
def _charged_rule(rule: str) -> str:
    return _text({"rule": rule})


_quoted = lru_cache(maxsize=1024)(_text)
"""Names come again and again: of tools, of arguments, of rules."""
