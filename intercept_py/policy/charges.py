"""Limits and counters as charges: which budget a call draws on, and how much.

A rule is compiled to functions from a call to a charge; nothing is counted here. Keys name entry, window and scope,
never rules or positions, so editing or reordering a policy resets no budget. Below: `paths`. Above: `matching`.
"""

from __future__ import annotations

__all__ = ["Obligation", "compile_charges", "limit_key", "merge", "spellings", "tool_part"]

import hashlib
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import Final, TypeAlias

import msgspec

from intercept_py.model import Caller, Charge, Finding, Json, Strategy, Tool, ToolCall
from intercept_py.policy.operators import numeric
from intercept_py.policy.paths import MISSING, render, walk
from intercept_py.policy.rules import Check, Path, RateLimit, Rule

Obligation: TypeAlias = Callable[[ToolCall], Charge | Finding]
"""What a call is charged; a finding where the amount cannot be told."""
_Scope: TypeAlias = Callable[[ToolCall], str]

ONE: Final = 1
NOTHING: Final = Decimal(0)
NO_LIMIT: Final = Decimal("Infinity")
_EXACT: Final = Context(prec=1500)
"""Enough digits for the sum of any two numbers that fit a double."""
_LONGEST: Final = 64
_KEPT_CHARGES: Final = 64
_DIGITS: Final = 40
"""A caller's amounts have at most so many on either side of the point: every store counts those exactly."""


def compile_charges(pattern: str, rule: Rule, shadow: bool) -> tuple[Obligation, ...]:
    """Everything `rule`, standing under the entry `pattern`, obliges a call to; `shadow` charges refuse nothing."""
    obligations: list[Obligation] = []
    if rule.rate_limit is not None:
        obligations.append(_limit(pattern, rule, rule.rate_limit, shadow))
    counted = (pattern, rule.counter.counter) if rule.counter is not None else None
    if counted is not None:
        obligations.append(_count(counted, rule, shadow))
    obligations.extend(_look(check, rule, shadow) for check in rule.checks if (check.entry, check.counter) != counted)
    return tuple(obligations)


def merge(charges: list[Charge]) -> list[Charge]:
    """One charge a counter: amounts added, the tightest limit and `fail` kept, whatever order the rules had."""
    merged: dict[tuple[tuple[str, ...], bool], Charge] = {}
    for charge in charges:
        slot = (charge.key, charge.shadow)
        other = merged.get(slot)
        if other is None:
            merged[slot] = charge
        else:
            tighter = min(other, charge, key=lambda one: (one.limit, one.inclusive))
            amount = _EXACT.add(other.amount, charge.amount)
            # Closed beats the default, which may be closed; the default beats open.
            fail_open = False if False in (other.fail_open, charge.fail_open) else other.fail_open and charge.fail_open
            merged[slot] = msgspec.structs.replace(tighter, amount=amount, fail_open=fail_open)
    return list(merged.values())


# -- rate limits -------------------------------------------------------------------------------------------------------


def _limit(pattern: str, rule: Rule, limit: RateLimit, shadow: bool) -> Obligation:
    prefix = limit_key(pattern, limit)
    scopes = tuple(map(_scope, sorted(limit.per, key=_spelling)))

    def draw(parts: tuple[str, ...]) -> Charge:
        key = (*prefix, *parts)
        return Charge(
            key,
            ONE,
            limit.max,
            limit.window,
            limit.strategy,
            rule.name,
            reason=rule.reason,
            shadow=shadow,
            fail_open=limit.fail_open,
        )

    if limit.per == ("global",):
        shared = draw(("global",))
        return lambda _call: shared
    # The same callers ask again and again, and a charge that is made once is cheaper to tell apart from others.
    drawn: dict[tuple[str, ...], Charge] = {}
    first, *others = scopes

    def charge(call: ToolCall) -> Charge:
        parts = (first(call), *[scope(call) for scope in others]) if others else (first(call),)
        known = drawn.get(parts)
        if known is not None:
            return known
        if len(drawn) >= _KEPT_CHARGES:
            drawn.clear()
        made = drawn[parts] = draw(parts)
        return made

    return charge


def limit_key(pattern: str, limit: RateLimit) -> tuple[str, ...]:
    """The first parts of every key of a limit; one part for each of its `spellings` follows."""
    window = limit.window.calendar or f"{limit.window.seconds}s"
    return ("limit", pattern, window, limit.strategy.value)


def spellings(limit: RateLimit) -> list[str]:
    """How a limit is split. Sorted, because the order in which an author lists scopes means nothing."""
    return sorted(map(_spelling, limit.per))


def _spelling(scope: str | Path) -> str:
    return scope if isinstance(scope, str) else render(scope)


def _scope(scope: str | Path) -> _Scope:
    """Every part carries its kind, so that a principal cannot pass for a session of the same name."""
    if isinstance(scope, str):
        return _SCOPES[scope]
    spelling, steps = render(scope), scope.steps

    def part(call: ToolCall) -> str:
        value = walk(call.arguments, steps)
        if value is MISSING or value is None:
            value = _default(call.tool, steps)
        return spelling if value is None else f"{spelling}={_short(_canonical(value))}"

    return part


def _default(tool: Tool | None, steps: tuple[str | int, ...]) -> Json:
    """What the server takes where the argument is left out, by its own schema: the same budget. None: unknown."""
    schema: Json = None if tool is None else tool.schema
    for step in steps:
        properties = schema.get("properties") if isinstance(schema, dict) else None
        schema = properties.get(step) if isinstance(properties, dict) else None
    return schema.get("default") if isinstance(schema, dict) else None


def _of_session(call: ToolCall) -> str:
    return f"session={call.caller.session}" if call.caller.session else _widest(call.caller)


def _of_principal(call: ToolCall) -> str:
    return _widest(call.caller)


def _of_tool(call: ToolCall) -> str:
    return tool_part(call.name)


def tool_part(name: str) -> str:
    """The part of a key that stands for one tool."""
    return f"tool={_short(name)}"


def _of_all(_call: ToolCall) -> str:
    return "global"


def _widest(caller: Caller) -> str:
    """A scope that the transport cannot prove falls back to the next wider one, never to none."""
    if caller.principal:
        return f"principal={caller.principal}"
    return f"address={caller.address}" if caller.address else "global"


_SCOPES: Final[Mapping[str, _Scope]] = {
    "session": _of_session,
    "principal": _of_principal,
    "tool": _of_tool,
    "global": _of_all,
}


def _short(text: str) -> str:
    """Callers choose these texts. A long one becomes its digest, which is longer than any text that is kept."""
    if len(text) <= _LONGEST:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(value: Json) -> str:
    """One spelling for equal values: `1` and `1.0` share a budget, `1` and `"1"` do not."""
    return msgspec.json.encode(_plain(value), order="deterministic").decode()


def _plain(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# -- counters ----------------------------------------------------------------------------------------------------------


def _count(counted: tuple[str, str], rule: Rule, shadow: bool) -> Obligation:
    """One charge for the rule's own counter, held to the tightest of its limits."""
    counter = rule.counter
    assert counter is not None
    own = [(check.limit, check.inclusive) for check in rule.checks if (check.entry, check.counter) == counted]
    limit, inclusive = min(own, default=(NO_LIMIT, True))
    template = Charge(
        ("state", *counted),
        NOTHING,
        limit,
        counter.window,
        Strategy.FIXED,
        rule.name,
        inclusive,
        rule.reason,
        shadow,
        counter.fail_open,
    )
    if counter.increment_from is None:
        fixed = msgspec.structs.replace(template, amount=ONE if counter.increment is None else counter.increment)
        return lambda _call: fixed
    source = counter.increment_from

    def charge(call: ToolCall) -> Charge | Finding:
        amount = numeric(walk(call.arguments, source.steps))
        if amount is None or amount < 0:
            reason = f"`{source.text}` is counted, so it must be a number of at least 0"
            return Finding("bad_increment", reason, rule.name)
        exact = Decimal(amount)
        if not _countable(exact):
            reason = f"`{source.text}` is counted, so it may have at most {_DIGITS} digits before and behind the point"
            return Finding("bad_increment", reason, rule.name)
        return msgspec.structs.replace(template, amount=exact)

    return charge


def _countable(amount: Decimal) -> bool:
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int), "only a number that is none has another one"
    return not amount or (amount.adjusted() < _DIGITS and exponent >= -_DIGITS)


def _look(check: Check, rule: Rule, shadow: bool) -> Obligation:
    """A limit on a counter that another rule feeds: nothing is added."""
    charge = Charge(
        ("state", check.entry, check.counter),
        NOTHING,
        check.limit,
        check.window,
        Strategy.FIXED,
        rule.name,
        check.inclusive,
        rule.reason,
        shadow,
        check.fail_open,
    )
    return lambda _call: charge
