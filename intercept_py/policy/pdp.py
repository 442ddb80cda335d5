"""The policy decision point: may this call go on, and what is it charged?

Pure: no clock, no counters, no I/O. Total: whatever goes wrong in here is a denial (promise 4). Every rule of every
entry that matches is asked and every enforced one must agree, so adding a rule can only narrow and order only picks
the reason that is reported (promise 3). Below: `matching`, `listing`, `arguments`. Above: `enforcer`.

Codes of findings: hidden, unlisted, unknown, schema_unavailable, argument_type, ambiguous_argument, denied_by_rule,
approval_required, condition_failed, missing_argument, unknown_argument, schema_violation, bad_increment,
internal_error; for methods method_denied and unknown_method. An agent must not learn `hidden`, `unlisted` or `unknown`
apart from each other: their reason is the same, their code is for the record.
"""

from __future__ import annotations

__all__ = [
    "LIFECYCLE",
    "decide",
    "hidden_from",
    "hides_by_caller",
    "judge_method",
    "match",
    "needs_tools",
    "unknown_tool_reason",
]

from typing import Final

import msgspec

from intercept_py.model import AuditLevel, Charge, Decision, Effect, Finding, Json, JsonObject, ToolCall
from intercept_py.policy.argument_types import compile_types
from intercept_py.policy.arguments import Declared, Remembered, blank, compile_schema, declare, fold, located, printable
from intercept_py.policy.charges import merge
from intercept_py.policy.listing import hidden_from, hides_by_caller
from intercept_py.policy.matching import Plan, Step, glob, needs_listing, plan_for
from intercept_py.policy.paths import walk
from intercept_py.policy.rules import Condition, Matched, Policy, Rule

LIFECYCLE: Final = frozenset(
    (
        "initialize",
        "ping",
        "server/discover",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
    )
)
"""Methods without which there is no session; no policy can deny them."""

_ALLOW: Final = Effect.ALLOW  # members of an enum are slow to look up
_DENY: Final = Effect.DENY
_RANK: Final = {level: rank for rank, level in enumerate(AuditLevel)}
_DEMANDS: Final = {
    "eq": "must equal",
    "neq": "must not equal",
    "in": "must be one of",
    "not_in": "must not be one of",
    "lt": "must be less than",
    "lte": "must be at most",
    "gt": "must be more than",
    "gte": "must be at least",
    "regex": "must match",
    "not_regex": "must not match",
    "contains": "must contain",
    "not_contains": "must not contain",
    "starts_with": "must start with",
    "ends_with": "must end with",
    "length_lte": "must have a length of at most",
    "is_type": "must be of type",
    "subset_of": "must hold nothing but",
    "cidr_in": "must be an address in",
    "path_under": "must be a path in",
}

_types = Remembered(compile_types)
_names = Remembered(declare)
_validators = Remembered(compile_schema)


def match(policy: Policy, name: str) -> Matched:
    """What the policy says about this tool name, remembered for the policy object asked last."""
    return plan_for(policy, name).matched


def needs_tools(policy: Policy) -> bool:
    """Whether there is a tool that cannot be judged without the server's listing of it (see `Matched.needs_tool`)."""
    return not policy.shadow and needs_listing(policy)


def decide(policy: Policy, call: ToolCall) -> Decision:
    """The verdict on one call. Never raises; equal questions have equal answers.

    The finding of a denial is the first one, in the order of entries and rules; a denial carries no charges. An
    allowance stands once all its charges were made. The audit level is the most telling one that an applicable rule
    asks for, else that of the most specific entry that sets one, else the policy's.
    """
    try:
        return _decide(policy, call)
    except Exception:
        finding = Finding("internal_error", "the policy could not be evaluated for this call, so it is denied")
        if policy.shadow:
            return Decision(_ALLOW, shadowed=(finding,), audit=policy.audit)
        return Decision(_DENY, finding, audit=policy.audit)


def judge_method(policy: Policy, method: str, known: bool) -> Decision:
    """The verdict on any message but `tools/call`. `known`: the method is part of MCP.

    Every matching `deny` denies. Under `default: deny` an unknown method needs a matching `allow`, be it `*`.
    """
    finding = None if method in LIFECYCLE else _method_finding(policy, method, known)
    if finding is None:
        return Decision(_ALLOW, audit=policy.audit)
    if policy.shadow:
        return Decision(_ALLOW, shadowed=(finding,), audit=policy.audit)
    return Decision(_DENY, finding, audit=policy.audit)


def unknown_tool_reason(name: str) -> str:
    """What an agent is told about a tool that it must not know: word for word the same as about one that is none."""
    return f"unknown tool `{printable(name)}`: see `tools/list` for the tools that there are"


# -- deciding ----------------------------------------------------------------------------------------------------------


def _decide(policy: Policy, call: ToolCall) -> Decision:
    plan = plan_for(policy, call.name)
    first = _gate(policy, plan, call)
    shadowed: list[Finding] = []
    if first is not None:
        if not policy.shadow:
            return Decision(_DENY, first, audit=plan.audit)
        shadowed.append(first)
        first = None
    charges: list[Charge] = []
    audit: AuditLevel | None = None
    for step in plan.steps:
        outcome = _ask(step, call)
        if outcome is None:
            continue
        asked = step.rule.audit
        if asked is not None and (audit is None or _RANK[asked] > _RANK[audit]):
            audit = asked
        if type(outcome) is not Finding:
            charges += outcome
        elif step.shadow:
            shadowed.append(outcome)
        elif first is None:
            first = outcome
    audit = audit or plan.audit
    if first is not None:
        return Decision(_DENY, first, (), tuple(shadowed), audit)
    due = tuple(merge(charges) if plan.merges else charges)
    return Decision(_ALLOW, None, due, tuple(shadowed), audit, plan.failure)


def _ask(step: Step, call: ToolCall) -> Finding | list[Charge] | None:
    """A finding, else the charges, or None where the rule does not apply."""
    try:
        if step.needs_schema and (problem := _schema_problem(call)) is not None:
            return msgspec.structs.replace(problem, rule=step.rule.name)
        for test in step.guard:
            if not test(call):
                return None
        return step.verdict or _requirements(step, call)
    except Exception:
        name = step.rule.name
        return Finding("internal_error", "the rule could not be evaluated, so the call is denied", name)


def _requirements(step: Step, call: ToolCall) -> Finding | list[Charge]:
    rule = step.rule
    for test, condition in step.requirements:
        if not test(call):
            return Finding("condition_failed", rule.reason or _demand(condition), rule.name)
    if rule.validate is not None and (finding := _invalid(rule, call)) is not None:
        return finding
    charges: list[Charge] = []
    for oblige in step.obligations:
        charge = oblige(call)
        if type(charge) is Finding:
            return charge
        charges.append(charge)
    return charges


def _demand(condition: Condition) -> str:
    if condition.op == "exists":
        demand = "must be given" if condition.operand else "must not be given"
    else:
        expected = msgspec.json.encode(condition.operand).decode()
        demand = f"{_DEMANDS.get(condition.op, condition.op)} `{printable(expected, 200)}`"
    return f"`{condition.path.text}` {demand}"


# -- before any rule ---------------------------------------------------------------------------------------------------


def _gate(policy: Policy, plan: Plan, call: ToolCall) -> Finding | None:
    """Names, types and look-alikes: what must be in order before rules are asked."""
    matched, tool = plan.matched, call.tool
    if plan.method is not None:
        return plan.method
    if matched.hidden:
        return Finding("hidden", unknown_tool_reason(call.name))
    if not matched.listed and not policy.default_allow:
        return Finding("unlisted", _unlisted_reason(policy, call))
    if matched.needs_tool and (problem := _listing_problem(policy, plan, call)) is not None:
        return problem
    schema, arguments = None if tool is None else tool.schema, call.arguments
    if schema is not None:
        typed = _typed(arguments, matched, schema) if None in arguments.values() else arguments
        contradiction = _types(schema)(typed)
        if contradiction is not None:
            return Finding("argument_type", contradiction)
    if arguments.keys() <= matched.reads and not plan.nested:
        return None
    declared = None if schema is None else _names(schema)
    return _look_alike(matched, declared, arguments) or _nested_look_alike(plan, arguments)


def _typed(arguments: JsonObject, matched: Matched, schema: JsonObject) -> JsonObject:
    """The arguments whose types matter: many clients send null for what they could leave out.

    Only where no rule reads it, so that there is none to be dodged.
    """
    matters = matched.reads | set(_names(schema).required)
    return {name: value for name, value in arguments.items() if value is not None or name in matters}


def _unlisted_reason(policy: Policy, call: ToolCall) -> str:
    """The policy may speak plainly where nothing is hidden, and of tools that the agent can see in the list."""
    if policy.hide and (call.tool is None or not call.tool.listed):
        return unknown_tool_reason(call.name)
    return f"the policy denies tools that it does not list, and `{printable(call.name)}` is not listed"


def _listing_problem(policy: Policy, plan: Plan, call: ToolCall) -> Finding | None:
    if policy.hide and (call.tool is None or not call.tool.listed):
        # While the list is not known nobody can tell hidden from unknown, so the agent must not be able to either.
        return Finding("unknown", unknown_tool_reason(call.name))
    return _schema_problem(call) if plan.needs_schema else None


def _schema_problem(call: ToolCall) -> Finding | None:
    """Why the rules that need the tool's input schema cannot be asked."""
    tool = call.tool
    if tool is None:
        reason = "the policy needs the server's list of tools to judge this call, and it could not be read: try again"
        return Finding("schema_unavailable", reason)
    if not tool.listed:
        return Finding("unknown", unknown_tool_reason(call.name))
    if tool.schema is None:
        reason = f"the policy needs the input schema of `{printable(call.name)}`, and the server lists none"
        return Finding("schema_unavailable", reason)
    return None


def _look_alike(matched: Matched, declared: Declared | None, arguments: JsonObject) -> Finding | None:
    """Refuse a key that a lenient server could take for one that rules read or that the schema declares."""
    for key in arguments:
        if key in matched.reads or (declared is not None and key in declared.properties):
            continue
        folded = fold(key)
        if folded in matched.folded or (declared is not None and folded in declared.folded):
            return _ambiguous((key,))
    return None


def _nested_look_alike(plan: Plan, arguments: JsonObject) -> Finding | None:
    for steps, names, folded in plan.nested:
        inner: Json = walk(arguments, steps)
        if type(inner) is dict:
            for key in inner:
                if key not in names and fold(key) in folded:
                    return _ambiguous((*steps, key))
    return None


def _ambiguous(steps: tuple[str | int, ...]) -> Finding:
    return Finding("ambiguous_argument", f"argument `{located(steps)}` could be taken for one with a similar name")


# -- arguments ---------------------------------------------------------------------------------------------------------


def _invalid(rule: Rule, call: ToolCall) -> Finding | None:
    """What `validate` finds, after the author's own words if there are any."""
    problem = _missing(rule, call) or _unknown(rule, call) or _violation(rule, call)
    if problem is None:
        return None
    code, detail = problem
    return Finding(code, f"{rule.reason}: {detail}" if rule.reason else detail, rule.name)


def _missing(rule: Rule, call: ToolCall) -> tuple[str, str] | None:
    assert rule.validate is not None
    required = rule.validate.required
    if required is False:
        return None
    names = _names(_schema_of(call)).required if required is True else required
    missing = [name for name in names if blank(call.arguments.get(name))]
    return ("missing_argument", f"{_list(missing)} must be given and not be blank") if missing else None


def _unknown(rule: Rule, call: ToolCall) -> tuple[str, str] | None:
    assert rule.validate is not None
    if not rule.validate.deny_unknown:
        return None
    unknown = call.arguments.keys() - _names(_schema_of(call)).properties
    return ("unknown_argument", f"the tool declares no {_list(sorted(unknown))}") if unknown else None


def _violation(rule: Rule, call: ToolCall) -> tuple[str, str] | None:
    assert rule.validate is not None
    schema, inline = rule.validate.schema, rule.validate.inline
    if inline is None and not isinstance(schema, dict) and not schema:
        return None
    if inline is None:
        try:
            inline = _validators(schema if isinstance(schema, dict) else _schema_of(call))
        except ValueError:
            return "schema_unavailable", f"the input schema of `{printable(call.name)}` cannot be used to validate"
    reason = inline(call.arguments)
    return ("schema_violation", reason) if reason is not None else None


def _schema_of(call: ToolCall) -> JsonObject:
    """Rules that ask for it were not reached without it."""
    assert call.tool is not None
    assert call.tool.schema is not None
    return call.tool.schema


def _list(names: list[str]) -> str:
    """Names for one line, the first few of them."""
    shown = ", ".join(f"`{printable(name, 64)}`" for name in names[:8])
    return f"argument{'s' if len(names) > 1 else ''} {shown}{' and others' if len(names) > 8 else ''}"


# -- methods -----------------------------------------------------------------------------------------------------------


def _method_finding(policy: Policy, method: str, known: bool) -> Finding | None:
    rules = [rule for rule in policy.methods if glob(rule.pattern)(method)]
    for rule in rules:
        if not rule.allow:
            return Finding("method_denied", rule.reason or f"the policy denies `{printable(method)}`", rule.pattern)
    if known or policy.default_allow or rules:
        return None
    return Finding("unknown_method", f"the policy denies unknown methods, and `{printable(method)}` is one")
