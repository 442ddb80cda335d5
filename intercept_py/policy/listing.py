"""Which tools a caller's `tools/list` leaves out. Pure; depends on the policy, the tool's name and the caller alone.

Below: `matching`. Above: `pdp`, whose callers ask.
"""

from __future__ import annotations

__all__ = ["hidden_from", "hides_by_caller"]

from intercept_py.model import Caller, ToolCall
from intercept_py.policy.matching import Step, plan_for
from intercept_py.policy.rules import Action, Condition, Policy, Rule


def hidden_from(policy: Policy, name: str, caller: Caller) -> bool:
    """Whether a tool is left out of this caller's list: it is hidden, or a rule denies this caller every call of it.

    Such a rule asks who calls (`caller.principal`, `.scopes`, `.claims`), and nothing that differs between calls keeps
    it from denying. Nothing is hidden by what is only watched, by a rule that would ask a person, nor by
    `caller.session` and `caller.address`: a list must not vary by connection (MCP 2026-07-28, tools).
    """
    if policy.shadow:
        return False
    plan = plan_for(policy, name)
    if plan.matched.hidden:
        return True
    call = ToolCall(name, {}, caller)
    return any(_shuts_out(step, call) for step in plan.steps)


def hides_by_caller(policy: Policy) -> bool:
    """False if all callers are shown the same list of tools."""
    rules = (rule for entry in policy.entries for rule in entry.rules)
    return not policy.shadow and any(not rule.shadow and any(map(_asks_who, _asked(rule))) for rule in rules)


def _shuts_out(step: Step, call: ToolCall) -> bool:
    """Whether the rule denies every call of this tool by this caller, because of who he is. `call` has no arguments."""
    rule = step.rule
    if step.shadow or rule.action is Action.REQUIRE_APPROVAL or not all(map(_is_settled, rule.when)):
        return False
    if not all(test(call) for test in step.guard):
        return False
    if step.verdict is not None:
        return any(map(_asks_who, rule.when))
    return any(_asks_who(condition) and not test(call) for test, condition in step.requirements)


def _asked(rule: Rule) -> tuple[Condition, ...]:
    """The conditions that can shut a caller out."""
    return () if rule.action is Action.REQUIRE_APPROVAL else rule.when + rule.conditions


def _is_settled(condition: Condition) -> bool:
    """Whether it holds for all calls of a tool by one caller, or for none."""
    return condition.path.root == "tool" or _asks_who(condition)


def _asks_who(condition: Condition) -> bool:
    return condition.path.root == "caller" and condition.path.steps[0] in ("principal", "scopes", "claims")
